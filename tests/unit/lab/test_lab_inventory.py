"""What Ansible and SSH are told about the hosts."""

from pathlib import Path

import yaml
from berth_lab.inventory import Access, render_ssh_config, render_yaml

ACCESS = Access("demo", Path("/w/a: b/id"), Path("/run/c"))
HOSTS = {"db1": "10.231.0.11", "on": "10.231.0.12"}


def test_every_host_has_its_address_and_the_key() -> None:
    parsed = yaml.safe_load(render_yaml(ACCESS, {"db1": "10.231.0.11"}))
    host = parsed["all"]["hosts"]["db1"]
    assert host["ansible_host"] == "10.231.0.11"
    assert host["ansible_user"] == "root"
    assert host["ansible_ssh_private_key_file"] == "/w/a: b/id"
    assert host["ansible_ssh_pipelining"] is True


def test_a_name_that_yaml_would_take_for_a_boolean_stays_a_name() -> None:
    assert list(yaml.safe_load(render_yaml(ACCESS, HOSTS))["all"]["hosts"]) == ["db1", "on"]


def test_host_keys_are_not_remembered_and_connections_are_shared() -> None:
    hosts = yaml.safe_load(render_yaml(ACCESS, HOSTS))["all"]["hosts"]
    arguments = hosts["db1"]["ansible_ssh_common_args"]
    for option in ("UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no", "ControlPersist"):
        assert option in arguments
    assert "ControlPath=/run/c/demo-%h-%r" in arguments


def test_a_project_without_hosts_is_a_valid_inventory() -> None:
    assert yaml.safe_load(render_yaml(ACCESS, {})) == {"all": {"hosts": {}}}


def test_ssh_config_names_each_host_once() -> None:
    config = render_ssh_config(ACCESS, HOSTS).splitlines()
    assert [line for line in config if line.startswith("Host ")] == ["Host db1", "Host on"]
    assert "  HostName 10.231.0.12" in config
    assert '  IdentityFile "/w/a: b/id"' in config

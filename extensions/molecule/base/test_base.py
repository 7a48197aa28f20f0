"""A host that users can enter, that knows the time and its names, and keeps its logs in bounds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra


def enter(host: Any, user: str) -> Any:
    """The same host, by a new SSH connection of another user."""
    config = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent / "ssh_config"
    return testinfra.get_host(
        f"ssh://{user}@{host.check_output('hostname')}",
        ssh_config=str(config),
        ssh_extra_args="-o ControlMaster=no -o ControlPath=none -o BatchMode=yes",
    )


class TestUsers:
    """They come in with their key, and may do what they may."""

    def test_sudo(self, host: Any) -> None:
        alice = enter(host, "alice")
        assert alice.check_output("sudo -n id -u") == "0"
        assert {"alice", "adm", "systemd-journal"} <= set(alice.check_output("id -nG").split())

    def test_no_sudo(self, host: Any) -> None:
        bob = enter(host, "bob")
        assert bob.check_output("pwd") == "/srv/bob"
        assert bob.run("sudo -n true").rc != 0

    def test_system_user(self, host: Any) -> None:
        exporter = host.user("exporter")
        assert 100 <= exporter.uid < 1000
        assert exporter.shell == "/usr/sbin/nologin"
        assert not host.file("/home/exporter").exists

    def test_removed_user(self, host: Any) -> None:
        assert not host.user("games").exists

    def test_nobody_has_a_password(self, host: Any) -> None:
        for name in ("alice", "bob", "exporter"):
            assert host.check_output(f"getent shadow {name}").split(":")[1].startswith("!")


class TestTime:
    """Zone and synchronisation."""

    def test_zone(self, host: Any) -> None:
        assert host.check_output("date +%Z") == "IST"
        assert host.check_output("timedatectl show -p Timezone --value") == "Asia/Kolkata"

    def test_synchronisation(self, host: Any) -> None:
        assert host.service("systemd-timesyncd").is_enabled
        shown = host.check_output("systemd-analyze cat-config systemd/timesyncd.conf")
        assert "\nNTP=ntp.example.org" in shown


class TestNames:
    """The block in /etc/hosts, and what was there."""

    def test_ours(self, host: Any) -> None:
        assert host.check_output("getent ahostsv4 db").split()[0] == "192.0.2.10"
        assert host.check_output("getent ahostsv4 db.internal").split()[0] == "192.0.2.10"
        assert host.check_output("getent ahostsv6 v6.internal").split()[0] == "2001:db8::10"

    def test_others(self, host: Any) -> None:
        assert "127.0.0.1" in host.check_output("getent ahostsv4 localhost")


class TestLogs:
    """They are kept, and bounded."""

    def test_journal_survives_and_is_bounded(self, host: Any, lab: Callable[..., None]) -> None:
        host.check_output("logger -t berth-test remember; journalctl --sync")
        lab("restart", host.check_output("hostname"))
        assert "remember" in host.check_output("journalctl -t berth-test")
        assert "max 64" in host.check_output("journalctl -u systemd-journald | tail -n 20")

    def test_rotation(self, host: Any) -> None:
        host.check_output(
            "mkdir -p /var/log/shop /srv/bob/logs; chown bob: /srv/bob/logs;"
            "echo old | tee /var/log/shop/a.log '/var/log/shop of bob.log' >/srv/bob/logs/b.log;"
            "chown bob: /srv/bob/logs/b.log; logrotate --force /etc/logrotate.d/berth-base"
        )
        for path in ("/var/log/shop/a.log", "/var/log/shop of bob.log"):
            assert host.check_output("cat %s", f"{path}.1") == "old"
            assert host.file(path).size == 0
        assert host.file("/srv/bob/logs/b.log.1").user == "bob"
        assert host.file("/srv/bob/reopened").exists
        assert host.service("logrotate.timer").is_running


class TestUpdates:
    """Security updates, and nothing else."""

    def test_origins(self, host: Any) -> None:
        name = host.system_info.codename
        shown = host.check_output("unattended-upgrade --dry-run --debug 2>&1")
        (origins,) = {line for line in shown.splitlines() if "Allowed origins are: " in line}
        assert origins.partition(": ")[2] == (
            f"origin=Debian,codename={name}-security,label=Debian-Security, "
            f"origin=Debian,codename={name},label=Debian-Security"
        )
        assert "Initial blacklist: ^postgresql-" in shown

    def test_the_archive_is_what_the_pattern_says(self, host: Any) -> None:
        release = "$(ls -t /var/lib/apt/lists/*security*InRelease | head -n 1)"
        shown = host.check_output(f"grep -E '^(Origin|Label|Codename):' {release}")
        expected = {"Debian", "Debian-Security", f"{host.system_info.codename}-security"}
        assert {line.split()[1] for line in shown.splitlines()} == expected

    @pytest.mark.parametrize("timer", ["apt-daily.timer", "apt-daily-upgrade.timer"])
    def test_timers(self, host: Any, timer: str) -> None:
        assert host.service(timer).is_enabled
        assert host.service(timer).is_running


def test_sysctl(host: Any) -> None:
    """Here after the reboot above; the first value is set by the handler."""
    assert host.check_output("cat /proc/sys/net/core/somaxconn") == "1234"


class TestChanges:
    """What is taken out goes away. Last, since the hosts are others then."""

    def test_a_link_in_place_of_a_directory_is_not_followed(
        self, host: Any, converge: Callable[..., Any]
    ) -> None:
        enter(host, "bob").check_output("mv .ssh .kept && ln -s /etc .ssh")
        done = converge("--limit", host.check_output("hostname"))
        assert "bob: its keys cannot be written" in done.stdout
        assert not host.file("/etc/authorized_keys").exists
        host.check_output("rm /srv/bob/.ssh && mv /srv/bob/.kept /srv/bob/.ssh")

    def test_taken_out(self, host: Any, converge: Callable[..., Any]) -> None:
        arguments = ("--limit", host.check_output("hostname"))
        variables: dict[str, Any] = {
            "base_users": [
                {"name": "alice", "sudo": False},
                {"name": "bob", "ssh_keys": []},
                {"name": "exporter", "state": "absent"},
            ],
            "base_hosts_entries": [],
            "base_unattended_upgrades_enabled": False,
        }
        assert converge(*arguments, **variables).returncode == 0
        assert enter(host, "alice").run("sudo -n true").rc != 0
        with pytest.raises(RuntimeError, match="Permission denied"):
            enter(host, "bob").run("true")
        assert not host.user("exporter").exists
        assert host.run("getent hosts db").rc != 0
        assert "127.0.0.1" in host.check_output("getent ahostsv4 localhost")
        assert 'Unattended-Upgrade "0"' in host.check_output("apt-config dump APT::Periodic")
        assert "changed=0" in converge(*arguments, **variables).stdout

    def test_bad_zone(self, host: Any, converge: Callable[..., Any]) -> None:
        zone = host.check_output("readlink /etc/localtime")
        done = converge("--limit", host.check_output("hostname"), base_timezone="Mars/Olympus")
        assert "cannot access '/usr/share/zoneinfo/Mars/Olympus'" in done.stdout
        assert host.check_output("readlink /etc/localtime") == zone

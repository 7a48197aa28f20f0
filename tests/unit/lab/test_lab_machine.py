"""What of the machine decides podman's settings."""

import pytest
import tomllib
from berth_lab.machine import LabError, Traits, containers_conf

LAPTOP = Traits(pure_cgroup2=True, systemd=True, raises_limits=True, runtimes=("crun", "runc"))
CI = Traits(pure_cgroup2=False, systemd=False, raises_limits=False, runtimes=("crun", "runc"))


def test_a_laptop_keeps_podmans_own_limits_and_its_systemd() -> None:
    conf = tomllib.loads(containers_conf(LAPTOP))
    assert "default_ulimits" not in conf["containers"]
    assert conf["engine"]["runtime"] == "crun"
    assert conf["engine"]["cgroup_manager"] == "systemd"


def test_side_by_side_cgroups_take_runc_and_no_systemd() -> None:
    conf = tomllib.loads(containers_conf(CI))
    assert conf["engine"]["runtime"] == "runc"
    assert conf["engine"]["cgroup_manager"] == "cgroupfs"
    assert "nofile=20000:20000" in conf["containers"]["default_ulimits"]


@pytest.mark.parametrize(
    "traits",
    [
        Traits(pure_cgroup2=False, systemd=False, raises_limits=True, runtimes=("crun",)),
        Traits(pure_cgroup2=True, systemd=True, raises_limits=True, runtimes=()),
    ],
)
def test_a_missing_runtime_is_an_error_that_names_it(traits: Traits) -> None:
    with pytest.raises(LabError, match="runc"):
        containers_conf(traits)

"""The facts of a host, from what its files and programs say."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.berth.platform.plugins.module_utils import hostfacts, hostfacts_units


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_ID="13"\n'
            "VERSION_CODENAME=trixie\nID=debian\n",
            {"id": "debian", "version": "13", "codename": "trixie"},
        ),
        (
            "# comment=1\nID=ubuntu\nID_LIKE=debian\nVERSION_ID='24.04'\nVERSION_CODENAME=noble\n",
            {"id": "ubuntu", "version": "24.04", "codename": "noble"},
        ),
        ("ID=debian\n", {"id": "debian", "version": "", "codename": ""}),
        ("", {"id": "linux", "version": "", "codename": ""}),
    ],
)
def test_os_release(text: str, expected: dict[str, str]) -> None:
    assert hostfacts.parse_os_release(text) == expected


def test_only_installed_packages_count() -> None:
    text = (
        "ii  nginx amd64 1.26.3-3\nrc  apache2 amd64 2.4\nhi  redis amd64 5:8.0\n"
        "ii  libc6 amd64 2.41\nii  libc6 i386 2.41\niU  half amd64 1\nun  never  \n"
        "ii  tzdata all 2025b\nii \n"
    )
    assert hostfacts.parse_packages(text, "amd64") == {
        "nginx": "1.26.3-3",
        "redis": "5:8.0",
        "libc6": "2.41",
        "libc6:i386": "2.41",
        "tzdata": "2025b",
    }


@pytest.mark.parametrize(
    ("total", "limits", "expected"),
    [
        (8 << 30, ["", ""], 8192),
        (8 << 30, ["max\n", ""], 8192),
        (8 << 30, ["2147483648\n", ""], 2048),
        (8 << 30, ["", "9223372036854771712"], 8192),
        (8 << 30, ["", "1073741824"], 1024),
        (8 << 30, ["17179869184", "junk"], 8192),
        (0, ["1073741824"], 1024),
    ],
)
def test_memory_is_capped_by_either_cgroup(total: int, limits: list[str], expected: int) -> None:
    assert hostfacts.cap_memory(total, limits) == expected


@pytest.mark.parametrize(
    ("online", "quotas", "expected"),
    [
        (8, ["max 100000"], 8),
        (8, ["200000 100000"], 2),
        (8, ["150000 100000"], 1),
        (8, ["50000 100000"], 1),
        (8, ["-1 100000"], 8),
        (2, ["400000 100000"], 2),
        (8, [" ", "", "junk"], 8),
        (0, [], 1),
        (4, ["1000 0"], 4),
    ],
)
def test_cores_are_capped_by_the_quota(online: int, quotas: list[str], expected: int) -> None:
    assert hostfacts.cap_cores(online, quotas) == expected


def test_passwd_and_group_survive_odd_lines() -> None:
    users = hostfacts.parse_passwd(
        "root:x:0:0:root:/root:/bin/bash\n\n+::::::\nbad:x:y:0::/:/bin/sh\nshort:x:1\n"
    )
    assert users == {"root": {"uid": 0, "gid": 0, "home": "/root", "shell": "/bin/bash"}}
    assert hostfacts.parse_group("root:x:0:\n+:::\nwww:x:33:a,b\n") == {"root": 0, "www": 33}


def test_addresses() -> None:
    text = (
        '[{"ifname":"lo","addr_info":[{"local":"127.0.0.1","scope":"host"}]},'
        '{"ifname":"e","addr_info":[{"local":"2001:db8::1","scope":"global"},'
        '{"local":"fe80::1","scope":"link"},{"local":"192.0.2.1","scope":"global"}]},{}]'
    )
    assert hostfacts.parse_addresses(text) == ["192.0.2.1", "2001:db8::1"]
    assert hostfacts.parse_addresses("") == hostfacts.parse_addresses("{half") == []


def test_unit_list() -> None:
    units = hostfacts.parse_unit_list(
        "nginx.service loaded active running A high performance web server\n"
        "● bad.service loaded failed failed Bad\n"
        "home.mount not-found inactive dead home.mount\n\n"
    )
    assert units["nginx.service"] == {"load": "loaded", "active": "active", "sub": "running"}
    assert units["bad.service"]["active"] == "failed"
    assert units["home.mount"]["load"] == "not-found"


class TestUnitFiles:
    def states(self, root: Path) -> dict[str, str]:
        return hostfacts_units.unit_file_states(hostfacts_units.scan(str(root)))

    def test_states(self, tmp_path: Path) -> None:
        vendor = tmp_path / "usr/lib/systemd/system"
        etc = tmp_path / "etc/systemd/system"
        run = tmp_path / "run/systemd"
        install = "[Unit]\n[Install]\nWantedBy=multi-user.target\n"
        for name in ("on", "off", "masked", "runtime", "replaced", "t@"):
            write(vendor / f"{name}.service", install)
        write(vendor / "static.service", "[Service]\nWantedBy=not-here\n")
        write(vendor / "cleared.service", "[Install]\n#WantedBy=a\nWantedBy=\n")
        write(vendor / "also.service", "[Install]\nAlso=on.service\n")
        write(vendor / "aliased.service", "[Install]\nAlias=other.service\n")
        write(vendor / "README", "no unit")
        link(etc / "multi-user.target.wants/on.service", "/usr/lib/systemd/system/on.service")
        link(etc / "multi-user.target.wants/t@x.service", "/usr/lib/systemd/system/t@.service")
        link(run / "system/a.target.requires/runtime.service", "x")
        link(etc / "masked.service", "/dev/null")
        link(run / "system/off2.service", "/dev/null")
        write(etc / "empty.service", "")
        write(etc / "replaced.service", "[Service]\n")
        link(etc / "other.service", "/usr/lib/systemd/system/aliased.service")
        write(tmp_path / "opt/foreign.service", install)
        link(etc / "foreign.service", str(tmp_path / "opt/foreign.service"))
        write(run / "generator/gen.service", install)
        write(run / "transient/trans.service", "")
        link(etc / "broken.service", "/nowhere/broken.service")
        assert self.states(tmp_path) == {
            "on.service": "enabled",
            "off.service": "disabled",
            "masked.service": "masked",
            "off2.service": "masked-runtime",
            "empty.service": "masked",
            "runtime.service": "enabled-runtime",
            "replaced.service": "static",
            "static.service": "static",
            "cleared.service": "static",
            "also.service": "indirect",
            "aliased.service": "enabled",
            "other.service": "alias",
            "foreign.service": "linked",
            "gen.service": "generated",
            "trans.service": "transient",
            "broken.service": "bad",
            "t@.service": "enabled",
            "t@x.service": "enabled",
        }

    def test_an_instance_that_is_only_loaded(self, tmp_path: Path) -> None:
        vendor = tmp_path / "usr/lib/systemd/system"
        write(vendor / "db@.service", "[Install]\nWantedBy=multi-user.target\n")
        write(vendor / "once@.service", "[Service]\n")
        found = hostfacts_units.scan(str(tmp_path))
        states = hostfacts_units.unit_file_states(found, ["db@17-main.service", "once@1.service"])
        assert states["db@17-main.service"] == "disabled"
        assert states["once@1.service"] == "static"

    def test_nothing_is_there(self, tmp_path: Path) -> None:
        assert self.states(tmp_path) == {}

    def test_a_thousand_units_are_read_in_no_time(self, tmp_path: Path) -> None:
        for number in range(1000):
            write(tmp_path / f"usr/lib/systemd/system/u{number}.service", "[Install]\nWantedBy=x\n")
            link(tmp_path / f"etc/systemd/system/x.target.wants/u{number}.service", "x")
        started = time.monotonic()
        assert set(self.states(tmp_path).values()) == {"enabled"}
        assert time.monotonic() - started < 2


def test_units_are_merged_with_their_files() -> None:
    units = hostfacts.merge_units(
        {"ssh.service": {"load": "loaded", "active": "active", "sub": "running"}},
        {"ssh.service": "enabled", "sshd.service": "alias", "off.service": "disabled"},
        {"sshd.service": "ssh.service"},
    )
    assert units["sshd.service"] == units["ssh.service"]
    assert units["ssh.service"]["enabled"] == "enabled"
    assert units["off.service"] == {
        "load": "",
        "active": "inactive",
        "sub": "dead",
        "enabled": "disabled",
    }


def test_pending_markers(tmp_path: Path) -> None:
    assert hostfacts.pending_markers(str(tmp_path)) == []
    for name in ("nginx", "app", ".nginx.half"):
        write(tmp_path / "var/lib/berth/pending" / name)
    assert hostfacts.pending_markers(str(tmp_path)) == ["app", "nginx"]


def test_gathering_on_a_host_without_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostfacts, "_start", lambda _argv: None)
    facts = hostfacts.gather(str(tmp_path))
    assert facts["packages"] == facts["units"] == facts["users"] == {}
    assert facts["addresses"] == facts["pending"] == []
    assert facts["cores"] >= 1


def test_gathering_here_is_quick() -> None:
    started = time.monotonic()
    facts = hostfacts.gather()
    assert time.monotonic() - started < 5
    assert facts["users"]["root"]["uid"] == 0
    assert facts["memory_mb"] > 0
    assert 1 <= facts["cores"] <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("127.0.0.1 localhost\n", ""),
        ("", ""),
        ("a\n{begin}\n192.0.2.1 db\n192.0.2.2 web\n{end}\nb\n", "192.0.2.1 db\n192.0.2.2 web"),
        ("{begin}\n192.0.2.1 db\n{end}", "192.0.2.1 db"),
        # Cut off by hand: blockinfile puts that right.
        ("{begin}\n192.0.2.1 db\n", ""),
    ],
)
def test_the_platform_s_lines_in_etc_hosts(text: str, block: str) -> None:
    begin, end = hostfacts.HOSTS_MARKERS
    assert hostfacts.parse_hosts_block(text.format(begin=begin, end=end)) == block

"""The files of a host's base, with edge values."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import render

DEBIAN = render.host()
UBUNTU = render.host("ubuntu", "24.04", "noble")


def evaluate(expression: str, variables: dict[str, Any] | None = None) -> Any:
    """A value as the role's tasks would see it."""
    return render.evaluate("base", expression, {"ansible_facts": DEBIAN, **(variables or {})})


def updates(facts: dict[str, Any], **values: Any) -> str:
    """The file of unattended-upgrades."""
    variables = {"ansible_facts": facts, **values}
    return render.render("base", "unattended-upgrades.j2", variables)


class TestUpdates:
    """Origins by distribution."""

    def test_debian(self) -> None:
        text = updates(DEBIAN)
        assert '"origin=Debian,codename=${distro_codename}-security,label=Debian-Security";' in text
        assert "Ubuntu" not in text

    def test_ubuntu(self) -> None:
        text = updates(UBUNTU)
        assert '"origin=Ubuntu,archive=${distro_codename}-security";' in text
        assert "Debian" not in text

    def test_own_origins_replace_them(self) -> None:
        text = updates(DEBIAN, base_unattended_upgrades={"origins": ["origin=Us"], "reboot": True})
        assert text.count("origin=") == 1
        assert 'Automatic-Reboot "true";' in text
        assert 'Automatic-Reboot-Time "04:00";' in text

    def test_off(self) -> None:
        text = updates(DEBIAN, base_unattended_upgrades_enabled=False)
        assert 'APT::Periodic::Unattended-Upgrade "0";' in text
        assert "Origins-Pattern" not in text

    def test_apt_reads_it(self, tmp_path: Path) -> None:
        if not shutil.which("apt-config"):
            pytest.skip("apt-config is Debian's")
        file = tmp_path / "52test"
        file.write_text(updates(DEBIAN, base_unattended_upgrades={"excluded": ["^linux-", "a.b"]}))
        done = subprocess.run(
            ["apt-config", f"--config-file={file}", "dump", "Unattended-Upgrade"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert 'Unattended-Upgrade::Package-Blacklist:: "a.b";' in done.stdout
        assert done.stdout.count("Origins-Pattern:: ") == 2


class TestFiles:
    """What is in them."""

    def test_sudoers(self) -> None:
        users = [
            {"name": "alice", "sudo": True},
            {"name": "bob", "sudo": False},
            {"name": "carol"},
            {"name": "dan", "sudo": True, "state": "absent"},
        ]
        text = render.render("base", "sudoers.j2", {"base_users": users})
        assert text.splitlines()[1:] == ["alice ALL=(ALL:ALL) NOPASSWD: ALL"]

    def test_journald(self) -> None:
        values = {"SystemMaxUse": "1G", "Compress": True, "ForwardToSyslog": False, "Burst": 0}
        text = render.render("base", "journald.conf.j2", {"base_journald": values})
        assert text.splitlines()[1:] == [
            "[Journal]",
            "Burst=0",
            "Compress=yes",
            "ForwardToSyslog=no",
            "SystemMaxUse=1G",
        ]

    def test_sysctl(self) -> None:
        values = {"net.ipv4.tcp_syncookies": True, "net.ipv4.tcp_rmem": "4096 87380 6291456"}
        text = render.render("base", "sysctl.conf.j2", {"base_sysctl": values})
        assert text.splitlines()[1:] == [
            "net.ipv4.tcp_rmem = 4096 87380 6291456",
            "net.ipv4.tcp_syncookies = 1",
        ]

    def test_nothing_is_set_by_default(self) -> None:
        for template in ("sysctl.conf.j2", "sudoers.j2", "logrotate.j2", "timesyncd.conf.j2"):
            assert len(render.render("base", template).splitlines()) == 1, template
        assert render.render("base", "hosts.j2") == ""

    def test_logrotate_quotes_paths(self) -> None:
        logs = [{"name": "x", "paths": ["/var/log/a b/*.log", "/var/log/c"]}]
        text = render.render("base", "logrotate.j2", {"base_logrotate": logs})
        assert '"/var/log/a b/*.log" "/var/log/c" {' in text
        assert "    rotate 14\n" in text


def due(facts: Any, *changed: str) -> Any:
    written = {"changed_labels": list(changed)}
    return evaluate("__base_units_due", {"ansible_facts": facts, "__base_configuration": written})


class TestPackages:
    """Only what is asked for."""

    def test_default(self) -> None:
        expected = ["tzdata", "systemd-timesyncd", "unattended-upgrades"]
        assert evaluate("__base_packages") == expected

    @pytest.mark.parametrize("daemon", ["chrony", "ntpsec", "openntpd", "ntp"])
    def test_another_time_daemon_stays(self, daemon: str) -> None:
        facts = render.host(packages={daemon: "1"})
        packages = evaluate("__base_packages", {"ansible_facts": facts})
        assert "systemd-timesyncd" not in packages
        assert [unit["name"] for unit in due(facts)] == [
            "apt-daily.timer",
            "apt-daily-upgrade.timer",
        ]

    def test_everything(self) -> None:
        packages = evaluate(
            "__base_packages",
            {
                "base_packages": ["htop", "sudo"],
                "base_users": [{"name": "a", "sudo": True}],
                "base_logrotate": [{"name": "x", "paths": ["/x"]}],
            },
        )
        assert set(packages) == {
            "htop",
            "sudo",
            "tzdata",
            "logrotate",
            "systemd-timesyncd",
            "unattended-upgrades",
        }


class TestUnits:
    """The clock is a container's host's."""

    @pytest.mark.parametrize(("udev", "state"), [("active", "started"), ("inactive", None)])
    def test_clock(self, udev: str, state: str | None) -> None:
        units = {"systemd-udevd.service": {"active": udev, "enabled": "static"}}
        first = due(render.host(units=units))[0]
        assert first["name"] == "systemd-timesyncd.service"
        assert first.get("state") == state

    def test_what_has_new_settings_is_started_anew(self) -> None:
        running = {"active": "active", "enabled": "enabled"}
        names = ["systemd-timesyncd", "systemd-udevd", "systemd-journald", "systemd-sysctl"]
        facts = render.host(units={f"{name}.service": running for name in names})
        restarted = [
            unit["name"]
            for unit in due(facts, "journal", "sysctl", "time")
            if unit.get("state") == "restarted"
        ]
        assert restarted == [
            "systemd-journald.service",
            "systemd-sysctl.service",
            "systemd-timesyncd.service",
        ]

    def test_nothing_is_due_on_a_converged_host(self) -> None:
        running = {"active": "active", "enabled": "enabled"}
        names = ["systemd-timesyncd.service", "apt-daily.timer", "apt-daily-upgrade.timer"]
        facts = render.host(units=dict.fromkeys(names, running))
        assert due(facts) == []

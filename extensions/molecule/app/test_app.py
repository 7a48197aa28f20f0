"""The services serve, are confined and limited, and change exactly as told.

The tests of the second half converge again with other variables, in the order they stand in.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
# Molecule reads a doubled dollar sign as one.
ALL = yaml.safe_load((HERE / "molecule.yml").read_text().replace("$$", "$"))
SERVICES = ALL["provisioner"]["inventory"]["group_vars"]["all"]["app_services"]
GET = """
import sys, urllib.request, urllib.error
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""


def get(host: Any, url: str) -> Any:
    """The JSON that the host's own service answers, whatever the status."""
    done = host.run("python3 -c %s http://127.0.0.1:%s", GET, url)
    assert done.rc == 0, done.stderr
    return json.loads(done.stdout)


def dies(host: Any, url: str) -> bool:
    return bool(host.run("python3 -c %s http://127.0.0.1:%s", GET, url).rc)


def show(host: Any, unit: str, name: str) -> str:
    return str(host.check_output("systemctl show --value --property=%s %s", name, unit))


def pid(host: Any, unit: str) -> str:
    return show(host, unit, "MainPID")


def environment(host: Any, unit: str) -> list[str]:
    """What the process was started with."""
    return str(host.check_output("cat /proc/%s/environ", pid(host, unit))).split("\0")


def wait_for(host: Any, url: str, seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return get(host, url)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


class TestServing:
    @pytest.mark.parametrize(
        ("port", "name"), [(5001, "common"), (5006, "sales-1"), (5007, "sales-2")]
    )
    def test_answers(self, host: Any, port: int, name: str) -> None:
        body = get(host, f"{port}/")
        assert (body["name"], body["port"]) == (name, port)
        assert host.file(f"/srv/shop/{name.split('-')[0]}/current").linked_to.endswith(
            f"/releases/{body['version']}"
        )

    def test_ready_by_way_of_another(self, host: Any) -> None:
        assert get(host, "5006/health/ready")["checks"]["common"]["status"] == "ok"

    def test_enabled(self, host: Any) -> None:
        for unit in ("shop-common", "shop-sales-1", "shop-sales-2"):
            assert host.service(unit).is_enabled

    def test_nobody_listens_elsewhere(self, host: Any) -> None:
        assert host.socket("tcp://127.0.0.1:5001").is_listening
        assert not host.socket("tcp://0.0.0.0:5001").is_listening

    def test_users(self, host: Any) -> None:
        assert host.process.get(pid=int(pid(host, "shop-common"))).user == "shop-common"
        assert host.process.get(pid=int(pid(host, "shop-sales-1"))).user == "www-data"
        assert host.user("shop-common").shell == "/usr/sbin/nologin"

    def test_exact_environment(self, host: Any) -> None:
        assert 'GREETING="quoted" %n $HOME' in environment(host, "shop-common")


class TestReleases:
    def test_cannot_be_written_by_the_service(self, host: Any) -> None:
        for path in host.check_output("find /srv/shop/*/releases -mindepth 1").split():
            entry = host.file(path)
            assert entry.user == "root", path
            assert entry.is_symlink or not entry.mode & 0o022, path

    def test_not_read_by_others(self, host: Any) -> None:
        assert host.run("runuser -u nobody -- cat /srv/shop/sales/current/service.py").rc != 0

    def test_was_built(self, host: Any) -> None:
        assert host.file("/srv/shop/common/current/__pycache__").is_directory
        assert not host.file("/srv/shop/sales/current/__pycache__").exists

    def test_migrated_once(self, host: Any) -> None:
        version = get(host, "5006/")["version"]
        assert host.file(f"/var/lib/berth/migrations/shop-sales/{version}").exists
        unit = f"shop-sales-1-migrate@{version}"
        for _ in range(2):
            journal = host.check_output("journalctl --quiet -o cat -u %s", unit)
            assert journal.count("no database to migrate") == 1
            host.check_output("systemctl start %s", unit)

    def test_nothing_left_over(self, host: Any) -> None:
        assert host.check_output("find /srv/shop -name '.tmp-*'") == ""


class TestSandbox:
    @pytest.mark.parametrize(
        "path", ["/usr/x", "/etc/x", "/srv/shop/common/current/x", "/var/lib/x", "/srv/x"]
    )
    def test_may_not_write(self, host: Any, path: str) -> None:
        assert "error" in get(host, f"5001/fault/write?path={path}")
        assert not host.file(path).exists

    def test_may_write_what_was_given(self, host: Any) -> None:
        assert "written" in get(host, "5001/fault/write?path=/srv/shop/data/x")
        assert host.file("/srv/shop/data/x").user == "shop-common"

    def test_own_tmp(self, host: Any) -> None:
        assert "written" in get(host, "5001/fault/write?path=/tmp/mine")
        assert not host.file("/tmp/mine").exists

    def test_no_privileges(self, host: Any) -> None:
        status = host.check_output("cat /proc/%s/status", pid(host, "shop-common"))
        assert "NoNewPrivs:\t1" in status
        assert "CapBnd:\t0000000000000000" in status
        assert "Seccomp:\t2" in status

    def test_systemd_likes_the_units(self, host: Any) -> None:
        done = host.run(
            "systemd-analyze verify --man=no /etc/systemd/system/shop-common.service "
            "/etc/systemd/system/shop-sales-1.service"
        )
        assert (done.rc, done.stderr) == (0, "")


class TestLimits:
    def test_open_files(self, host: Any) -> None:
        limits = host.check_output("cat /proc/%s/limits", pid(host, "shop-common"))
        line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
        assert line.split()[3:5] == ["4096", "4096"]

    def test_processor_and_tasks(self, host: Any) -> None:
        """As the kernel has them, in the one or the other version of control groups."""
        group = "system.slice/shop-common.service"
        quota = host.check_output(
            "cat /sys/fs/cgroup/%s/cpu.max /sys/fs/cgroup/cpu*/%s/cpu.cfs_quota_us 2>/dev/null "
            "| head -1",
            group,
            group,
        )
        assert quota.split()[0] == "150000"
        tasks = host.check_output(
            "cat /sys/fs/cgroup/%s/pids.max /sys/fs/cgroup/pids/%s/pids.max 2>/dev/null | head -1",
            group,
            group,
        )
        assert tasks.strip() == "50"

    def test_memory(self, host: Any) -> None:
        other = pid(host, "shop-sales-1")
        assert "megabytes" in get(host, "5001/fault/allocate?megabytes=20")
        before = int(show(host, "shop-common", "NRestarts"))
        assert dies(host, "5001/fault/allocate?megabytes=300")
        wait_for(host, "5001/")
        assert int(show(host, "shop-common", "NRestarts")) == before + 1
        # With control groups of version 1 systemd cannot tell why the kernel killed it.
        assert "status=9/KILL" in host.check_output("journalctl --quiet -o cat -u shop-common")
        assert pid(host, "shop-sales-1") == other

    def test_comes_back_after_a_crash(self, host: Any) -> None:
        before = pid(host, "shop-common")
        assert dies(host, "5001/fault/crash")
        wait_for(host, "5001/")
        assert pid(host, "shop-common") != before


class TestSecrets:
    FILES = (
        "/etc/berth/services/shop-common.env",
        "/etc/berth/credentials/shop-common/signing-key",
    )

    def test_only_root_reads_the_files(self, host: Any) -> None:
        for path in self.FILES:
            entry = host.file(path)
            assert (entry.user, entry.group, entry.mode) == ("root", "root", 0o600)
            assert "canary" in entry.content_string
            for user in ("nobody", "shop-common"):
                assert host.run("runuser -u %s -- cat %s", user, path).rc != 0

    def test_the_service_has_them(self, host: Any) -> None:
        process = pid(host, "shop-common")
        variables = dict(each.split("=", 1) for each in environment(host, "shop-common") if each)
        assert variables["JWT_SECRET"] == "canary-in-the-environment"
        directory = variables["CREDENTIALS_DIRECTORY"]
        credential = host.check_output("cat /proc/%s/root%s/signing-key", process, directory)
        assert credential == "canary-in-a-credential"

    @pytest.mark.parametrize(
        "command",
        [
            "systemctl show '*' | grep [c]anary-in",
            "systemctl cat 'shop-*' | grep [c]anary-in",
            "ps axww -o args | grep [c]anary-in",
            "journalctl --quiet --no-pager --all --output=verbose | grep -a [c]anary-in",
            "runuser -u nobody -- grep -ral [c]anary-in /etc /var /srv /run /proc/[0-9]*/environ",
            "grep -ral [c]anary-in /var /srv /root /tmp /run/systemd",
        ],
    )
    def test_nobody_else_has(self, host: Any, command: str) -> None:
        """The brackets keep the command from finding itself."""
        assert host.run(command).stdout == ""


class TestLogs:
    LOG = "/var/log/shop/sales-1.log"

    def test_lines(self, host: Any) -> None:
        get(host, "5006/")
        lines = host.file(self.LOG).content_string.splitlines()
        assert json.loads(lines[-1])["message"] == "request"

    def test_owner(self, host: Any) -> None:
        entry = host.file(self.LOG)
        assert (entry.user, entry.group, entry.mode) == ("root", "adm", 0o640)

    def test_rotation_loses_neither_file_nor_process(self, host: Any) -> None:
        before = pid(host, "shop-sales-1")
        host.check_output("logrotate --force /etc/logrotate.d/berth-service-shop-sales-1")
        assert host.file(self.LOG).size == 0
        get(host, "5006/")
        assert "request" in host.file(self.LOG).content_string
        assert "listening" in host.file(f"{self.LOG}.1").content_string
        assert pid(host, "shop-sales-1") == before

    def test_all_of_logrotate_is_happy(self, host: Any) -> None:
        done = host.run("logrotate --debug /etc/logrotate.conf")
        assert "error" not in done.stderr.lower().replace(".error.log", "")


class TestReboot:
    def test_everything_comes_back(self, host: Any) -> None:
        subprocess.run([str(ROOT / "lab" / "lab"), "restart", "molecule-app", "server"], check=True)
        wait_for(host, "5001/", 60)
        assert wait_for(host, "5006/health/ready", 60)["status"] == "ok"
        assert wait_for(host, "5007/health/ready", 60)["status"] == "ok"


# -------------------------------------------------------------------- changes


class Converge:
    """Runs the play again with other services."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.services = deepcopy(SERVICES)
        for service in self.services:
            service["artifact"]["path"] = str(ROOT / "lab" / "apps" / "service")

    def service(self, name: str) -> dict[str, Any]:
        return next(each for each in self.services if each["name"] == name)

    def run(self, *arguments: str) -> tuple[int, str]:
        variables = self.path / "variables.json"
        variables.write_text(json.dumps({"app_services": self.services}))
        inventory = os.environ["MOLECULE_INVENTORY_FILE"].rpartition("/")[0]
        done = subprocess.run(
            [
                "ansible-playbook",
                "-i",
                inventory,
                "-e",
                f"@{variables}",
                str(HERE / "converge.yml"),
                *arguments,
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ
            | {
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_FORCE_COLOR": "0",
            },
        )
        return done.returncode, done.stdout + done.stderr

    def changes(self) -> list[str]:
        """The tasks that changed something."""
        code, out = self.run("--diff")
        assert code == 0, out
        blocks = out.split("TASK [")[1:]
        return [block for block in blocks if "\nchanged: [" in block]


@pytest.fixture
def play(tmp_path: Path) -> Converge:
    return Converge(tmp_path)


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Another version of the application."""
    path = tmp_path_factory.mktemp("newer") / "service"
    shutil.copytree(ROOT / "lab" / "apps" / "service", path)
    (path / "CHANGES").write_text("Everything is better.\n")
    yield path


class TestChanges:
    def test_nothing(self, host: Any, play: Converge) -> None:
        assert not play.changes()

    def test_one_service_alone_is_restarted(self, host: Any, play: Converge, newer: Path) -> None:
        common, before = pid(host, "shop-common"), get(host, "5006/")["version"]
        play.service("sales")["artifact"]["path"] = str(newer)
        assert play.changes()
        after = [get(host, f"{port}/")["version"] for port in (5006, 5007)]
        assert after[0] == after[1] != before
        assert pid(host, "shop-common") == common
        assert not play.changes()

    def test_back_by_naming_the_version(self, host: Any, play: Converge, newer: Path) -> None:
        versions = host.check_output("ls /srv/shop/sales/releases").split()
        old = next(v for v in versions if v != get(host, "5006/")["version"])
        play.service("sales")["artifact"]["path"] = str(newer)
        play.service("sales")["version"] = old
        assert play.changes()
        assert get(host, "5006/")["version"] == old
        assert host.check_output("ls /srv/shop/sales/releases").split() == versions
        assert not play.changes()

    def test_changed_secret_restarts(self, host: Any, play: Converge) -> None:
        before = pid(host, "shop-sales-1")
        play.service("common")["secret_environment"]["JWT_SECRET"] = "canary-rotated"
        code, out = play.run("--diff", "-vvv")
        assert code == 0
        assert "canary" not in out
        assert "JWT_SECRET=canary-rotated" in environment(host, "shop-common")
        assert pid(host, "shop-sales-1") == before

    def test_unfinished_run_is_finished(self, host: Any, play: Converge) -> None:
        """As if the run had died between the files and the restart."""
        play.changes()
        before = pid(host, "shop-common")
        host.check_output("touch /etc/berth/services/shop-common.env")
        assert play.changes()
        assert pid(host, "shop-common") != before
        assert not play.changes()

    def test_check_mode_changes_nothing(self, host: Any, play: Converge, newer: Path) -> None:
        play.service("sales")["artifact"]["path"] = str(newer)
        before = pid(host, "shop-sales-1")
        code, out = play.run("--check", "--diff")
        assert code == 0
        assert "+active: " in out
        assert "changed=0 " not in out
        assert pid(host, "shop-sales-1") == before

    def test_failed_migration_leaves_the_old(self, host: Any, play: Converge, newer: Path) -> None:
        before, version = pid(host, "shop-sales-1"), get(host, "5006/")["version"]
        (newer / "CHANGES").write_text("Nothing works.\n")
        play.service("sales")["artifact"]["path"] = str(newer)
        play.service("sales")["environment"]["MIGRATE_FAIL"] = "1"
        code, out = play.run()
        assert code != 0
        assert "migration fails as told" in out
        assert f"{version} stays active" in out
        assert (pid(host, "shop-sales-1"), get(host, "5006/")["version"]) == (before, version)

    def test_same_again_without_the_fault(self, host: Any, play: Converge, newer: Path) -> None:
        play.service("sales")["artifact"]["path"] = str(newer)
        assert play.changes()
        assert "MIGRATE_FAIL=1" not in environment(host, "shop-sales-1")
        assert not play.changes()

    def test_bad_checksum(self, host: Any, play: Converge) -> None:
        version = get(host, "5006/")["version"]
        play.service("sales")["artifact"] = {
            "url": "file:///etc/hostname",
            "checksum": "sha256:" + "0" * 64,
            "name": "app",
        }
        code, out = play.run()
        assert code != 0
        assert "has the checksum sha256:" in out
        assert get(host, "5006/")["version"] == version

    def test_service_that_does_not_become_ready(self, host: Any, play: Converge) -> None:
        play.service("sales")["environment"]["BROKEN_URL"] = "http://127.0.0.1:1"
        code, out = play.run()
        assert code != 0
        assert "shop-sales-1 is not ready: status 503" in out
        assert "==> /var/log/shop/sales-1.log <==" in out

    def test_two_faults_are_reported_together(self, play: Converge) -> None:
        play.service("sales")["limits"]["memory"] = "2GB"
        play.service("common")["sandbox"] = {"protect_sytem": "full"}
        code, out = play.run()
        assert code != 0
        assert "limits.memory: '2GB'" in out
        assert "did you mean ProtectSystem?" in out

    def test_fewer_instances(self, host: Any, play: Converge) -> None:
        del play.service("sales")["instances"][1]
        assert play.changes()
        assert not host.file("/etc/systemd/system/shop-sales-2.service").exists
        assert not host.socket("tcp://127.0.0.1:5007").is_listening
        assert get(host, "5006/health/ready")["status"] == "ok"

    def test_removed_service_is_gone(self, host: Any, play: Converge) -> None:
        play.services = [play.service("sales") | {"environment": {}, "wants": [], "after": []}]
        del play.service("sales")["instances"][1]
        assert play.changes()
        assert not host.socket("tcp://127.0.0.1:5001").is_listening
        assert show(host, "shop-common.service", "LoadState") == "not-found"
        found = "find /etc/systemd /etc/berth /etc/logrotate.d -name '*common*'"
        assert host.check_output(found) == ""
        assert host.file("/srv/shop/common/current").is_symlink
        assert not play.changes()

    def test_none_at_all(self, host: Any, play: Converge) -> None:
        play.services = []
        assert play.changes()
        assert host.run("systemctl list-unit-files --no-legend 'shop-*'").stdout == ""
        assert host.check_output("ls /etc/berth/services") == ""
        assert not play.changes()

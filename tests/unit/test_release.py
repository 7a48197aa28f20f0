"""Releases on a host: complete or absent, never changed, switched at once, the old ones pruned."""

from __future__ import annotations

import fcntl
import getpass
import grp
import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils import release as core
from ansible_collections.berth.platform.plugins.module_utils.release import (
    Host,
    ReleaseError,
    UnitState,
    active_version,
    default_version,
    identity,
    parse_checksum,
    parse_units,
    placeable,
    prunable,
    read_state,
    registered_scope,
    retired_units,
    spec_from,
    stale_units,
)
from ansible_collections.berth.platform.plugins.module_utils.release_archive import (
    directory_digest,
    pack,
)

USER = getpass.getuser()
GROUP = grp.getgrgid(os.getgid()).gr_name
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def no_fetch(url: str, target: str) -> None:
    raise AssertionError(f"{url} was fetched")


class Bench:
    """A home directory, and artifacts made on the spot."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.home = path / "home"
        self.archives: dict[str, str] = {}

    def artifact(self, text: str) -> dict[str, str]:
        source = self.path / f"source-{hashlib.sha1(text.encode()).hexdigest()[:8]}"
        source.mkdir(exist_ok=True)
        (source / "file").write_text(text)
        digest = directory_digest(str(source))
        archive = self.path / digest
        pack(str(source), str(archive))
        self.archives[digest] = str(archive)
        return {"digest": digest, "name": "directory.tar.gz"}

    def spec(self, text: str = "one", **options: Any) -> core.Spec:
        artifact = options.pop("artifact", None) or self.artifact(text)
        base = {"name": "shop", "home": str(self.home), "owner": USER, "group": GROUP, "keep": 2}
        return spec_from(base | {"artifact": artifact} | options)

    def run(self, *specs: core.Spec, check: bool = False, **more: Any) -> dict[str, Any]:
        host = Host(more.pop("fetch", no_fetch), check=check, lock_seconds=0.3)
        return host.run(specs, self.archives)

    def apply(self, text: str, **options: Any) -> dict[str, Any]:
        result: dict[str, Any] = self.run(self.spec(text, **options))["releases"][0]
        return result

    @property
    def active(self) -> str:
        return (self.home / "current" / "file").read_text()

    @property
    def versions(self) -> list[str]:
        return core.installed_versions(str(self.home / "releases"))

    @property
    def leftovers(self) -> list[Path]:
        return list(self.home.rglob(".tmp-*"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class TestVersions:
    def test_from_content(self) -> None:
        assert default_version(identity("a" * 64, [])) == "a" * 12

    def test_build_counts(self) -> None:
        assert identity("a" * 64, ["make"]) not in ("a" * 64, identity("a" * 64, ["make x"]))
        assert identity("a" * 64, [], strip=1) != identity("a" * 64, [])

    @pytest.mark.parametrize("version", ["1.4.2", "v2", "a_b-c.d", "_x"])
    def test_good(self, version: str) -> None:
        assert core.check_version(version) == version

    @pytest.mark.parametrize("version", ["", "..", ".x", "a/b", "a b", "-x", "1+2", "x" * 101])
    def test_bad(self, version: str) -> None:
        with pytest.raises(ReleaseError, match="letters, digits"):
            core.check_version(version)

    @pytest.mark.parametrize(
        "checksum", ["", "sha256:abc", "md5:" + "a" * 32, "a" * 64, "sha256:" + "g" * 64]
    )
    def test_bad_checksum(self, checksum: str) -> None:
        with pytest.raises(ReleaseError, match="neither sha256"):
            parse_checksum(checksum)

    def test_password_is_not_shown(self) -> None:
        assert core.without_password("https://me:secret@host/x") == "https://host/x"


class TestPrunable:
    RECENCY = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}

    def test_keeps_the_most_recent(self) -> None:
        assert prunable("abcd", self.RECENCY, ["d", "c"], 3) == ["a"]

    def test_never_the_active_nor_the_one_before(self) -> None:
        assert prunable("abcd", self.RECENCY, ["a", "b"], 1) == ["c", "d"]

    def test_none_before(self) -> None:
        assert prunable("a", self.RECENCY, ["a", None], 3) == []


class TestRelease:
    def test_first(self, bench: Bench) -> None:
        result = bench.apply("one")
        assert (result["previous"], result["active"], result["installed"]) == (None, True, True)
        assert bench.active == "one"
        assert (bench.home / "current").readlink() == Path("releases") / result["version"]
        assert bench.leftovers == []

    def test_second_run_changes_nothing(self, bench: Bench) -> None:
        bench.apply("one")
        before = sorted((p, p.lstat().st_mtime_ns) for p in bench.home.rglob("*"))
        result = bench.run(bench.spec("one"))
        assert not result["changed"]
        assert result["diff"] == []
        assert before == sorted((p, p.lstat().st_mtime_ns) for p in bench.home.rglob("*"))

    def test_switch_and_prune(self, bench: Bench) -> None:
        versions = [bench.apply(text)["version"] for text in ("one", "two", "three")]
        assert bench.active == "three"
        assert bench.versions == sorted(versions[1:])

    def test_back_to_an_older_one_ships_nothing(self, bench: Bench) -> None:
        bench.apply("one", version="1")
        bench.apply("two", version="2")
        bench.archives.clear()
        spec = bench.spec("one", version="1")
        bench.archives.clear()
        result = bench.run(spec)["releases"][0]
        assert result["activated"]
        assert not result["installed"]
        assert bench.active == "one"

    def test_previous_of_a_rollback_survives(self, bench: Bench) -> None:
        for number in ("1", "2", "3"):
            bench.apply(number, version=number, keep=3)
        bench.apply("1", version="1", keep=3)
        bench.apply("4", version="4", keep=1)
        assert bench.versions == ["1", "4"]

    def test_missing_content_is_asked_for_and_nothing_is_touched(self, bench: Bench) -> None:
        spec = bench.spec("one")
        bench.archives.clear()
        result = bench.run(spec)
        assert result["needs"] == [spec.archive]
        assert not bench.home.exists()

    def test_one_content_for_many(self, bench: Bench) -> None:
        specs = [bench.spec("one", name=str(n), home=str(bench.path / f"h{n}")) for n in range(6)]
        archives, bench.archives = bench.archives, {}
        assert len(bench.run(*specs)["needs"]) == 1
        bench.archives = archives
        assert len(bench.run(*specs)["activated"]) == 6

    def test_not_activated(self, bench: Bench) -> None:
        bench.apply("one")
        result = bench.run(bench.spec("two", activate=False))
        assert result["waiting"] == ["shop"]
        assert bench.active == "one"
        assert bench.run(bench.spec("two"))["activated"] == ["shop"]

    def test_nothing_is_pruned_while_one_waits(self, bench: Bench) -> None:
        for text in ("one", "two"):
            bench.apply(text)
        bench.run(bench.spec("three", activate=False))
        assert len(bench.versions) == 3

    def test_same_version_other_content(self, bench: Bench) -> None:
        bench.apply("one", version="1")
        result = bench.run(bench.spec("two", version="1"))
        assert not result["changed"]
        assert "is used as it is" in result["warnings"][0]
        assert bench.active == "one"

    def test_link_elsewhere(self, bench: Bench) -> None:
        link = bench.path / "www" / "site" / "build"
        result = bench.run(
            bench.spec(
                "one", home=None, link=str(link), directory=str(bench.path / "www" / "releases")
            )
        )
        assert (link / "file").read_text() == "one"
        assert link.readlink() == Path(result["releases"][0]["path"])

    def test_something_else_at_the_link(self, bench: Bench) -> None:
        (bench.home / "current").mkdir(parents=True)
        with pytest.raises(ReleaseError, match="not a symbolic link"):
            bench.apply("one")

    def test_two_in_one_place(self, bench: Bench) -> None:
        with pytest.raises(ReleaseError, match="same directory"):
            bench.run(bench.spec("one"), bench.spec("two", name="other"))

    def test_modes(self, bench: Bench) -> None:
        old = os.umask(0o077)
        try:
            path = Path(bench.apply("one")["path"])
        finally:
            os.umask(old)
        assert path.stat().st_mode & 0o777 == 0o750
        assert (path / "file").stat().st_mode & 0o777 == 0o640
        assert bench.home.stat().st_mode & 0o777 == 0o755
        assert (bench.home / "releases").stat().st_mode & 0o777 == 0o755

    def test_readable_by_all(self, bench: Bench) -> None:
        path = Path(bench.apply("one", world_readable=True)["path"])
        assert (path / "file").stat().st_mode & 0o777 == 0o644

    def test_unknown_group(self, bench: Bench) -> None:
        with pytest.raises(ReleaseError, match="no group nosuchgroup"):
            bench.apply("one", group="nosuchgroup")
        assert bench.leftovers == []

    def test_lost_state_file(self, bench: Bench) -> None:
        bench.apply("one")
        bench.apply("two")
        (bench.home / "releases" / core.STATE_FILE).write_text("{broken")
        bench.apply("three")
        assert bench.active == "three"
        assert len(bench.versions) == 2
        assert read_state(str(bench.home / "releases")).history

    def test_without_home(self) -> None:
        with pytest.raises(ReleaseError, match="give home"):
            spec_from({"name": "x", "artifact": {"digest": "0" * 64}})


class TestCheckMode:
    def test_fresh(self, bench: Bench) -> None:
        spec = bench.spec("one")
        bench.archives.clear()
        result = bench.run(spec, check=True)
        assert result["changed"]
        assert result["activated"] == ["shop"]
        assert result["diff"][0]["before"] == "active: none\nreleases: none\n"
        assert not bench.home.exists()

    def test_predicts_the_real_run(self, bench: Bench) -> None:
        for text in ("one", "two"):
            bench.apply(text)
        predicted = bench.run(bench.spec("three"), check=True)
        assert bench.active == "two"
        real = bench.run(bench.spec("three"))
        assert predicted["releases"] == real["releases"]
        assert predicted["diff"] == real["diff"]
        assert len(real["releases"][0]["pruned"]) == 1

    def test_predicts_no_change(self, bench: Bench) -> None:
        bench.apply("one")
        assert not bench.run(bench.spec("one"), check=True)["changed"]


class TestDownload:
    def url(
        self, bench: Bench, text: str, digest: str = ""
    ) -> tuple[core.Spec, Callable[..., None]]:
        archive = Path(bench.archives[bench.artifact(text)["digest"]])
        content = archive.read_bytes()
        digest = digest or hashlib.sha256(content).hexdigest()
        self.fetched: list[str] = []

        def fetch(url: str, target: str) -> None:
            self.fetched.append(url)
            Path(target).write_bytes(content)

        artifact = {"url": "https://u:p@host/x.tar.gz", "checksum": f"sha256:{digest}"}
        return bench.spec(artifact=artifact), fetch

    def test_fetched_once(self, bench: Bench) -> None:
        spec, fetch = self.url(bench, "one")
        other = core.Spec(
            **{
                **vars(spec),
                "name": "b",
                "directory": str(bench.path / "b" / "r"),
                "link": str(bench.path / "b" / "current"),
            }
        )
        result = bench.run(spec, other, fetch=fetch)
        assert result["activated"] == ["shop", "b"]
        assert len(self.fetched) == 1
        assert bench.leftovers == []

    def test_not_fetched_again(self, bench: Bench) -> None:
        spec, fetch = self.url(bench, "one")
        bench.run(spec, fetch=fetch)
        again, _ = self.url(bench, "one")
        assert not bench.run(again, fetch=no_fetch)["changed"]

    def test_bad_checksum_changes_nothing(self, bench: Bench) -> None:
        bench.apply("one", version="1")
        spec, fetch = self.url(bench, "two", digest="0" * 64)
        words = r"has the checksum sha256:\w+, expected is"
        with pytest.raises(ReleaseError, match=words) as error:
            bench.run(spec, fetch=fetch)
        assert "u:p" not in str(error.value)
        assert bench.versions == ["1"]
        assert bench.active == "one"
        assert bench.leftovers == []

    def test_unreachable(self, bench: Bench) -> None:
        spec, _ = self.url(bench, "two")

        def fail(url: str, target: str) -> None:
            raise OSError("connection refused")

        with pytest.raises(ReleaseError, match="connection refused"):
            bench.run(spec, fetch=fail)


class TestInterruption:
    @pytest.mark.parametrize(
        "step",
        [
            "unpack",
            "_own",
            "_sync",
            "write_state",
            "os.rename",
            "os.replace",
            "os.symlink",
            "shutil.rmtree",
        ],
    )
    def test_a_rerun_converges(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        """Dies at one point after the other; what is active is whole at every time."""
        for number in ("1", "2"):
            bench.apply(number, version=number, keep=1)

        class Killed(BaseException):
            pass

        def die(*_: Any, **__: Any) -> None:
            raise Killed

        # By the module itself: its dotted name is Ansible's to resolve once another test loads it.
        module, _dot, name = step.rpartition(".")
        with monkeypatch.context() as patch:
            patch.setattr(getattr(core, module) if module else core, name, die)
            with pytest.raises(Killed):
                bench.run(bench.spec("3", version="3", keep=1))
        assert bench.active in ("2", "3")
        bench.run(bench.spec("3", version="3", keep=1))
        assert bench.active == "3"
        assert bench.versions == ["2", "3"]
        assert bench.leftovers == []
        assert not bench.run(bench.spec("3", version="3", keep=1))["changed"]

    def test_leftovers_go(self, bench: Bench) -> None:
        bench.apply("one")
        junk = bench.home / "releases" / ".tmp-release-dead"
        junk.mkdir()
        (junk / "file").write_text("half")
        bench.run(bench.spec("one"))
        assert bench.leftovers == []

    def test_another_at_work(self, bench: Bench) -> None:
        bench.apply("one")
        held = os.open(bench.home / "releases", os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            with pytest.raises(ReleaseError, match="another deploy"):
                bench.apply("two")
            assert not bench.run(bench.spec("one"))["changed"]
        finally:
            os.close(held)

    def test_waits_for_another(self, bench: Bench) -> None:
        bench.apply("one")
        held = os.open(bench.home / "releases", os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        threading.Timer(0.1, os.close, [held]).start()
        bench.apply("two")
        assert bench.active == "two"


@root_only
class TestBuild:
    """The build user is one that every system has."""

    def options(self, *commands: str, **more: Any) -> dict[str, Any]:
        return {"build": list(commands), "build_user": "nobody"} | more

    @pytest.fixture
    def bench(self) -> Any:
        """Where the build user can reach it."""
        directory = Path("/var/tmp") / f"berth-test-{os.getpid()}"
        directory.mkdir(mode=0o755)
        yield Bench(directory)
        subprocess.run(["rm", "-rf", str(directory)], check=True)

    def test_runs_as_the_user_at_the_final_path(self, bench: Bench) -> None:
        steps = (
            "pwd > where",
            "id -un > who",
            'touch "$HOME/x"; echo "$HOME" > home',
            "echo $MODE > mode",
        )
        result = bench.apply("one", **self.options(*steps, build_environment={"MODE": "fast"}))
        path = Path(result["path"])
        assert (path / "where").read_text().strip() == str(path)
        assert (path / "who").read_text().strip() == "nobody"
        assert (path / "mode").read_text().strip() == "fast"
        assert (path / "where").owner() == USER
        assert not Path((path / "home").read_text().strip()).exists()
        assert bench.leftovers == []

    def test_cannot_write_elsewhere(self, bench: Bench) -> None:
        with pytest.raises(ReleaseError, match=r"build step 2 \(touch \.\./x\) failed"):
            bench.apply("one", **self.options("true", "touch ../x"))
        assert bench.versions == []

    def test_failure_shows_its_last_lines_and_keeps_the_old(self, bench: Bench) -> None:
        bench.apply("one", version="1")
        with pytest.raises(ReleaseError, match=r"status 3; 1 stays active(.|\n)*compiler says no"):
            bench.apply("two", version="2", **self.options("echo compiler says no >&2; exit 3"))
        assert bench.versions == ["1"]
        assert bench.leftovers == []

    def test_time_limit(self, bench: Bench) -> None:
        began = time.monotonic()
        with pytest.raises(ReleaseError, match="took longer than 1 s"):
            bench.apply("one", **self.options("echo begun; sleep 60", build_timeout=1))
        assert time.monotonic() - began < 10

    def test_background_process_does_not_survive(self, bench: Bench) -> None:
        bench.apply("one", **self.options("sleep 4242 & echo started"))
        time.sleep(0.1)
        assert subprocess.run(["pgrep", "-f", "^sleep 4242"], check=False).returncode == 1

    def test_unknown_user(self, bench: Bench) -> None:
        with pytest.raises(ReleaseError, match="build user nosuch does not exist"):
            bench.apply("one", build=["true"], build_user="nosuch")


class TestGit:
    @pytest.fixture
    def repository(self, tmp_path: Path) -> Path:
        path = tmp_path / "repository"
        self.git(path, "init", "--quiet", "--initial-branch=main", str(path))
        self.commit(path, "one")
        self.git(path, "tag", "-a", "-m", "first", "v1")
        return path

    def git(self, path: Path, *arguments: str) -> str:
        return subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments],
            cwd=path if path.exists() else None,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def commit(self, path: Path, text: str) -> str:
        (path / "file").write_text(text)
        self.git(path, "add", "file")
        self.git(path, "commit", "--quiet", "-m", text)
        return self.git(path, "rev-parse", "HEAD")

    def run(self, bench: Bench, repository: Path, ref: str, **options: Any) -> dict[str, Any]:
        artifact = {"git": f"file://{repository}", "version": ref}
        return bench.run(bench.spec(artifact=artifact, **options))

    def test_branch_follows(self, bench: Bench, repository: Path) -> None:
        first = self.run(bench, repository, "main")["releases"][0]
        assert first["version"] == self.git(repository, "rev-parse", "HEAD")[:12]
        assert not (bench.home / "current" / ".git").exists()
        assert not self.run(bench, repository, "main")["changed"]
        commit = self.commit(repository, "two")
        assert self.run(bench, repository, "main")["releases"][0]["version"] == commit[:12]
        assert bench.active == "two"

    def test_tag_and_commit_are_the_same_release(self, bench: Bench, repository: Path) -> None:
        commit = self.git(repository, "rev-parse", "v1^{commit}")
        self.commit(repository, "two")
        assert self.run(bench, repository, "v1")["releases"][0]["version"] == commit[:12]
        assert not self.run(bench, repository, commit)["changed"]
        assert bench.active == "one"

    def test_commit_that_is_no_tip(self, bench: Bench, repository: Path) -> None:
        commit = self.commit(repository, "two")
        self.commit(repository, "three")
        self.run(bench, repository, commit)
        assert bench.active == "two"

    def test_known_version_asks_nobody(self, bench: Bench, repository: Path) -> None:
        self.run(bench, repository, "v1", version="1.0")
        repository.rename(repository.with_name("gone"))
        assert not self.run(bench, repository, "v1", version="1.0")["changed"]

    def test_no_such_ref(self, bench: Bench, repository: Path) -> None:
        with pytest.raises(ReleaseError, match="no tag and no branch 'v9'"):
            self.run(bench, repository, "v9")

    def test_no_such_repository(self, bench: Bench, tmp_path: Path) -> None:
        with pytest.raises(ReleaseError, match="shop:"):
            self.run(bench, tmp_path / "nowhere", "main")


class TestMigration:
    """systemctl is played by a function that does what the unit would."""

    def options(self, bench: Bench) -> dict[str, Any]:
        return {
            "migrate": {
                "unit": "shop-migrate@{version}.service",
                "marker": str(bench.path / "m-{version}"),
            }
        }

    def systemctl(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int = 0, mark: bool = True
    ) -> list[str]:
        started: list[str] = []
        real = core._run

        def fake(argv: Any, **more: Any) -> subprocess.CompletedProcess[str]:
            if argv[0] not in ("systemctl", "journalctl"):
                return real(argv, **more)
            out = ""
            if "start" in argv:
                for unit in argv[3:]:
                    started.append(unit)
                    if mark and code == 0:
                        version = unit.partition("@")[2].removesuffix(".service")
                        (bench.path / f"m-{version}").touch()
            elif argv[0] == "journalctl":
                out = "column exists already\n"
            elif "--property=Result,ExecMainStatus" in argv:
                out = f"Result={'exit-code' if code else 'success'}\nExecMainStatus=7\n"
            status = code if "start" in argv else 0
            return subprocess.CompletedProcess(argv, status, out, "")

        monkeypatch.setattr(core, "_run", fake)
        return started

    def test_once_for_each_version(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        started = self.systemctl(bench, monkeypatch)
        for version in ("1", "1", "2", "1"):
            bench.apply(version, version=version, **self.options(bench))
        assert started == ["shop-migrate@1.service", "shop-migrate@2.service"]

    def test_failure_keeps_the_old(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        bench.apply("one", version="1")
        self.systemctl(bench, monkeypatch, code=1)
        other = bench.spec("one", name="other", home=str(bench.path / "other"))
        words = r"status 7\); 1 stays active(.|\n)*column exists already"
        with pytest.raises(ReleaseError, match=words):
            bench.run(other, bench.spec("two", version="2", **self.options(bench)))
        assert bench.active == "one"
        assert not (bench.path / "other" / "current").exists()

    def test_all_at_once_and_all_failures(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        started = self.systemctl(bench, monkeypatch, code=1)
        specs = [
            bench.spec("x", name=n, home=str(bench.path / n), version=n, **self.options(bench))
            for n in ("a", "b")
        ]
        with pytest.raises(ReleaseError, match=r"a a: the migration(.|\n)*b b: the migration"):
            bench.run(*specs)
        assert len(started) == 2

    def test_without_a_marker_it_did_not_happen(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.systemctl(bench, monkeypatch, mark=False)
        with pytest.raises(ReleaseError, match="m-1 is not set"):
            bench.apply("one", version="1", **self.options(bench))

    def test_once_for_all_hosts(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another host has migrated; a later run on this one alone does not do so again."""
        started = self.systemctl(bench, monkeypatch)
        elsewhere = self.options(bench)
        elsewhere["migrate"]["here"] = False
        answer = bench.apply("one", version="1", activate=False, **elsewhere)
        assert answer["current"] is None and not (bench.path / "m-1").exists()
        assert bench.apply("one", version="1", **elsewhere)["current"] == "1"
        assert not bench.apply("one", version="1", **self.options(bench))["changed"]
        assert started == []

    def test_one_that_came_later(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """A service that learns to migrate does so for the release that is active already."""
        bench.apply("one", version="1")
        started = self.systemctl(bench, monkeypatch)
        assert bench.apply("one", version="1", **self.options(bench))["migrated"]
        assert len(started) == 1

    def test_predicted(self, bench: Bench) -> None:
        result = bench.run(bench.spec("one", **self.options(bench)), check=True)
        assert result["releases"][0]["migrated"]


class TestUnits:
    WANTED = [{"name": "a.service", "paths": ["/unit", "/env"]}]

    def stale(self, state: UnitState, times: dict[str, float]) -> list[str]:
        return stale_units(self.WANTED, {"a.service": state}, times.get, now=1000.0)

    def test_started_after_its_files(self) -> None:
        assert self.stale(UnitState(True, False, 100.0), {"/unit": 90.0, "/env": 99.0}) == []

    def test_started_before_one_of_them(self) -> None:
        assert self.stale(UnitState(True, False, 100.0), {"/env": 101.0}) == ["a.service"]

    def test_a_file_of_the_future_tells_nothing(self) -> None:
        assert self.stale(UnitState(True, False, 100.0), {"/env": 2000.0}) == []

    def test_unit_file_not_read_again(self) -> None:
        assert self.stale(UnitState(True, True, 100.0), {}) == ["a.service"]

    def test_not_running(self) -> None:
        assert self.stale(UnitState(False, True, 0.0), {"/env": 101.0}) == []

    def test_unknown(self) -> None:
        assert stale_units(self.WANTED, {}, lambda path: 1.0, now=2.0) == []

    def test_parse(self) -> None:
        text = (
            "Id=a.service\nActiveState=active\nNeedDaemonReload=no\n"
            "ExecMainStartTimestampMonotonic=5000000\n\n"
            "Id=b.service\nActiveState=inactive\nNeedDaemonReload=yes\n"
            "ExecMainStartTimestampMonotonic=0\n"
        )
        units = parse_units(text, now=1000.0, monotonic=25.0)
        assert units["a.service"] == UnitState(True, False, 980.0)
        assert units["b.service"] == UnitState(False, True, 0.0)

    def test_retired(self, tmp_path: Path) -> None:
        for name, scope in (("a", "x"), ("b", "x"), ("c", "y")):
            (tmp_path / f"{name}.env").write_text(f"# Environment\n# scope: {scope}\nA=1\n")
        (tmp_path / "foreign.env").write_text("A=1\n# scope: x\n")
        (tmp_path / "note.txt").write_text("# scope: x\n")
        assert retired_units(str(tmp_path), "x", [{"name": "a.service"}]) == ["b"]
        assert retired_units(str(tmp_path / "absent"), "x", []) == []
        assert registered_scope(str(tmp_path / "foreign.env")) is None

    def test_link(self, tmp_path: Path) -> None:
        (tmp_path / "current").symlink_to("/elsewhere/thing")
        assert active_version(str(tmp_path / "current"), str(tmp_path / "r")) == "/elsewhere/thing"


def test_only_what_needs_no_package_is_placed_early() -> None:
    plain: dict[str, Any] = {"name": "a", "artifact": {"path": "x"}, "migrate": {"unit": "m"}}
    releases = [
        plain,
        {"name": "b", "artifact": {"url": "https://example.com/b"}, "build": ["make"]},
        {"name": "c", "artifact": {"git": "https://example.com/c.git"}},
        {"name": "d", "artifact": {"path": "d", "build": ["make"]}},
    ]
    assert placeable(releases) == [{"name": "a", "artifact": {"path": "x"}, "activate": False}]
    assert "migrate" in plain

"""`files` on a real file system, in a directory of its own.

Where owners change or a mount namespace is needed the tests need root, as CI has it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils import files_apply
from ansible_collections.berth.platform.plugins.module_utils.files_apply import (
    STAGE_PREFIX,
    Outcome,
    read_marker,
)
from ansible_collections.berth.platform.plugins.module_utils.files_spec import (
    Faults,
    Request,
    parse_request,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def can_mount() -> bool:
    if os.geteuid() != 0:
        return False
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "true"], capture_output=True
    )
    return done.returncode == 0


mounting = pytest.mark.skipif(not can_mount(), reason="needs the capability to mount")

OWNER = "root" if os.geteuid() == 0 else str(os.geteuid())
GROUP = "root" if os.geteuid() == 0 else str(os.getegid())


class Host:
    """A directory that plays the host, and the state directory beside it."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "host"
        self.state = directory / "state"
        self.bin = directory / "bin"
        self.root.mkdir()
        self.bin.mkdir()

    def path(self, name: str) -> str:
        return str(self.root / name)

    def entry(self, name: str, **keys: Any) -> dict[str, Any]:
        return {"path": self.path(name), "owner": OWNER, "group": GROUP, **keys}

    def request(self, *entries: dict[str, Any], **options: Any) -> Request:
        request, origins = parse_request({"files": list(entries), **options})
        for spec in request.files:
            origin = origins.get(spec.path)
            if origin is not None:
                value = origin.value
                spec.set_content(value if isinstance(value, bytes) else str(value).encode())
        return request

    def run(self, *entries: dict[str, Any], **keys: Any) -> Outcome:
        options = {key: keys.pop(key) for key in ("trees", "exclusive", "pending") if key in keys}
        return files_apply.run(
            self.request(*entries, **options), state_directory=str(self.state), **keys
        )

    def script(self, name: str, body: str) -> str:
        path = self.bin / name
        path.write_text(f"#!{sys.executable}\n" + textwrap.dedent(body))
        path.chmod(0o755)
        return str(path)

    def snapshot(self) -> dict[str, tuple[Any, ...]]:
        """Everything about every path, so that two looks can be compared."""
        seen: dict[str, tuple[Any, ...]] = {}
        for top in (self.root, self.state):
            for path in sorted([top, *top.rglob("*")]) if top.exists() else []:
                status = path.lstat()
                what: Any = None
                if path.is_symlink():
                    what = str(Path(path).readlink())
                elif path.is_file():
                    what = path.read_bytes()
                seen[str(path)] = (status.st_mode, status.st_uid, status.st_gid, what)
        return seen

    def leftovers(self) -> list[str]:
        stage = self.state / "stage"
        found = [str(path) for path in self.root.rglob(f"{STAGE_PREFIX}*")]
        return found + ([str(stage)] if stage.exists() else [])


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def names_in(directory: str | Path) -> list[str]:
    return sorted(path.name for path in Path(directory).iterdir())


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


# --- single states -------------------------------------------------------------------


def test_a_file_comes_into_being_and_stays(host: Host) -> None:
    entry = host.entry("etc/app/a.conf", content="hello\n", label="conf")
    outcome = host.run(entry)
    assert outcome.changed
    assert outcome.changed_files == [host.path("etc/app/a.conf")]
    assert outcome.changed_labels == ["conf"]
    assert Path(host.path("etc/app/a.conf")).read_text() == "hello\n"
    assert mode_of(host.path("etc/app/a.conf")) == 0o644
    before = host.snapshot()
    again = host.run(entry)
    assert (again.changed, again.changed_files, again.changed_labels) == (False, [], [])
    assert host.snapshot() == before
    assert host.leftovers() == []


def test_parents_are_open_whatever_the_umask_is(host: Host) -> None:
    old = os.umask(0o077)
    try:
        host.run(host.entry("a/b/c", content=""), host.entry("d", state="directory"))
    finally:
        os.umask(old)
    assert mode_of(host.path("a")) == mode_of(host.path("a/b")) == 0o755
    assert mode_of(host.path("a/b/c")) == 0o644
    assert mode_of(host.path("d")) == 0o755


@pytest.mark.parametrize("content", [b"", b"\0\xff\xfe", b"no newline", "é\r\n".encode()])
def test_content_arrives_as_it_is(host: Host, content: bytes) -> None:
    host.run(host.entry("x", content=content))
    assert Path(host.path("x")).read_bytes() == content
    assert not host.run(host.entry("x", content=content)).changed


def test_only_the_mode_is_mended_in_place(host: Host) -> None:
    host.run(host.entry("x", content="a"))
    inode = Path(host.path("x")).stat().st_ino
    Path(host.path("x")).chmod(0o666)
    outcome = host.run(host.entry("x", content="a"), want_diff=True)
    assert outcome.changed
    assert mode_of(host.path("x")) == 0o644
    assert Path(host.path("x")).stat().st_ino == inode
    assert next(diff["after"] for diff in outcome.diff).endswith("mode: 0644\n")


@root_only
def test_owner_and_group_are_mended(host: Host) -> None:
    entry = {"path": host.path("x"), "content": "a", "owner": "nobody", "group": "33"}
    host.run(entry)
    status = Path(host.path("x")).stat()
    assert (status.st_uid, status.st_gid) == (65534, 33)
    assert not host.run(entry).changed
    assert host.run({**entry, "owner": "root", "mode": "4755"}).changed
    assert mode_of(host.path("x")) == 0o4755, "set-id bits survive the change of hands"


def test_a_link_at_the_path_is_replaced_and_not_written_through(host: Host) -> None:
    victim = host.root / "victim"
    victim.write_text("precious")
    Path(host.path("x")).symlink_to(victim)
    assert host.run(host.entry("x", content="new")).changed
    assert not Path(host.path("x")).is_symlink()
    assert Path(host.path("x")).read_text() == "new"
    assert victim.read_text() == "precious"


def test_a_link_to_equal_content_is_no_file(host: Host) -> None:
    (host.root / "y").write_text("same")
    Path(host.path("x")).symlink_to("y")
    assert host.run(host.entry("x", content="same")).changed
    assert not Path(host.path("x")).is_symlink()


def test_links(host: Host) -> None:
    entry = host.entry("current", state="link", target="releases/1")
    assert host.run(entry).changed
    assert str(Path(host.path("current")).readlink()) == "releases/1"
    assert not host.run(entry).changed
    assert host.run({**entry, "target": "releases/2"}).changed
    assert str(Path(host.path("current")).readlink()) == "releases/2"
    (host.root / "f").write_text("x")
    assert host.run(host.entry("f", state="link", target="current")).changed
    assert Path(host.path("f")).is_symlink()


def test_absent(host: Host) -> None:
    (host.root / "d/e").mkdir(parents=True)
    (host.root / "d/e/f").write_text("x")
    (host.root / "g").write_text("x")
    Path(host.path("l")).symlink_to("nowhere")
    entries = [host.entry(name, state="absent") for name in ("d", "g", "l", "never")]
    outcome = host.run(*entries)
    assert outcome.changed_files == [host.path(name) for name in ("d", "g", "l")]
    assert names_in(host.root) == []
    assert not host.run(*entries).changed


def test_directories(host: Host) -> None:
    entry = host.entry("d", state="directory", mode="0750")
    assert host.run(entry, host.entry("d/x", content="")).changed
    assert mode_of(host.path("d")) == 0o750
    assert not host.run(entry).changed
    Path(host.path("l")).symlink_to("d")
    assert not host.run(host.entry("l", state="directory", mode="0750")).changed
    assert Path(host.path("l")).is_symlink()
    assert host.run(host.entry("l", state="directory", mode="0700")).changed
    assert mode_of(host.path("d")) == 0o700


@root_only
def test_a_stranger_s_link_is_no_directory(host: Host) -> None:
    (host.root / "d").mkdir()
    Path(host.path("l")).symlink_to("d")
    os.chown(host.path("l"), 65534, 65534, follow_symlinks=False)
    with pytest.raises(Faults, match="a link that belongs to nobody"):
        host.run(host.entry("l", state="directory", mode="0700"))


def test_replace_false_only_creates(host: Host) -> None:
    entry = host.entry("x", content="seed", replace=False)
    assert host.run(entry).changed
    Path(host.path("x")).write_text("the service's own")
    Path(host.path("x")).chmod(0o600)
    assert not host.run(entry).changed
    assert Path(host.path("x")).read_text() == "the service's own"


def test_the_old_file_is_kept(host: Host) -> None:
    entry = host.entry("x", content="1", backup=True)
    assert host.run(entry).backups == {}
    for number in ("2", "3", "4"):
        outcome = host.run({**entry, "content": number})
        kept = outcome.backups[host.path("x")]
        assert kept.endswith("~")
        assert Path(kept).read_text() == str(int(number) - 1)
    assert len(list(host.root.glob("x.*~"))) == 3


def test_exclusive(host: Host) -> None:
    directory = host.root / "conf.d"
    (directory / "sub.conf").mkdir(parents=True)
    for name in ("a.conf", "old.conf", "keep.txt"):
        (directory / name).write_text("x")
    Path(directory / "link.conf").symlink_to("nowhere")
    options = {"exclusive": [{"path": str(directory), "pattern": "*.conf"}]}
    entry = host.entry("conf.d/a.conf", content="x")
    predicted = host.run(entry, **options, check=True)
    outcome = host.run(entry, **options)
    assert outcome.changed_files == predicted.changed_files
    assert outcome.changed_files == [str(directory / "link.conf"), str(directory / "old.conf")]
    assert names_in(directory) == ["a.conf", "keep.txt", "sub.conf"]
    assert not host.run(entry, **options).changed
    assert not host.run(exclusive=[{"path": host.path("not/there")}]).changed


@pytest.mark.parametrize(
    ("prepare", "entry", "words"),
    [
        ("directory", {"content": "x"}, "is a directory, which is not replaced by a file"),
        ("directory", {"state": "link", "target": "y"}, "not replaced by a link"),
        ("file", {"state": "directory"}, "is a file, which is not replaced by a directory"),
        ("fifo", {"content": "x"}, "is neither file nor link nor directory"),
    ],
)
def test_what_cannot_be_is_said_before_anything_changes(
    host: Host, prepare: str, entry: dict[str, Any], words: str
) -> None:
    path = host.root / "x"
    if prepare == "directory":
        path.mkdir()
    elif prepare == "file":
        path.touch()
    else:
        os.mkfifo(path)
    before = host.snapshot()
    with pytest.raises(Faults, match=words):
        host.run(host.entry("other", content="y"), host.entry("x", **entry))
    assert host.snapshot() == before


def test_unknown_accounts_are_all_named(host: Host) -> None:
    with pytest.raises(Faults) as caught:
        host.run(
            host.entry("x", content="", owner="no-such-user"),
            host.entry("y", content="", group="no-such-group"),
        )
    assert len(caught.value.faults) == 2
    assert names_in(host.root) == []


def test_new_content_is_nobody_else_s_until_it_has_its_mode(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    give = files_apply._give

    def watch(descriptor: int, uid: int | None, gid: int | None, mode: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        give(descriptor, uid, gid, mode)

    monkeypatch.setattr(files_apply, "_give", watch)
    old = os.umask(0)
    try:
        host.run(host.entry("x", content="s", mode="0640"))
    finally:
        os.umask(old)
    assert seen == [0o600]


# --- other file systems --------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    import tempfile

    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == Path("/tmp").stat().st_dev:
        pytest.skip("no second file system at hand")
    with tempfile.TemporaryDirectory(dir=shm) as name:
        yield Path(name)


def test_another_file_system_is_staged_there(host: Host, elsewhere: Path) -> None:
    entries = [
        {**host.entry("x", content="here")},
        {**host.entry("x", content="there"), "path": str(elsewhere / "deep/x")},
        {**host.entry("l", state="link", target="x"), "path": str(elsewhere / "deep/l")},
    ]
    assert host.run(*entries).changed
    assert (elsewhere / "deep/x").read_text() == "there"
    assert str(Path(elsewhere / "deep/l").readlink()) == "x"
    assert not host.run(*entries).changed
    assert [path.name for path in elsewhere.iterdir()] == ["deep"], "no stage is left behind"
    gone = {**host.entry("d", state="absent"), "path": str(elsewhere / "deep")}
    assert host.run(gone).changed
    assert list(elsewhere.iterdir()) == []


@mounting
def test_a_file_that_is_a_mount_point_is_written_in_place(host: Host) -> None:
    target, source = host.root / "hosts", host.root / "source"
    target.write_text("")
    source.write_text("old and longer than the new one")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            files_apply._enter_namespace([(str(source), str(target))])()
            host.run(host.entry("hosts", content="new", mode="0600"))
            code = 0 if target.read_text() == "new" and mode_of(str(target)) == 0o600 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert source.read_text() == "new"


# --- large contents ------------------------------------------------------------------


def test_what_did_not_travel_is_asked_for_and_nothing_is_done(host: Host) -> None:
    request = host.request(host.entry("big", content="big"), host.entry("small", content="s"))
    request.files[0].drop_content()
    predicted = files_apply.run(request, state_directory=str(host.state), check=True)
    assert predicted.changed and len(predicted.changed_files) == 2
    outcome = files_apply.run(request, state_directory=str(host.state))
    assert outcome.needs == [host.path("big")]
    assert names_in(host.root) == []
    sent = host.bin / "sent"
    sent.write_text("big")
    request.files[0].transferred = str(sent)
    assert files_apply.run(request, state_directory=str(host.state)).changed
    assert Path(host.path("big")).read_text() == "big"
    request.files[0].transferred = ""
    again = files_apply.run(request, state_directory=str(host.state))
    assert (again.needs, again.changed) == ([], False), "equal content is not sent again"


def test_what_arrives_damaged_is_refused(host: Host) -> None:
    request = host.request(host.entry("big", content="big"), host.entry("small", content="s"))
    request.files[0].drop_content()
    sent = host.bin / "sent"
    sent.write_text("bug")
    request.files[0].transferred = str(sent)
    with pytest.raises(Faults, match="another checksum"):
        files_apply.run(request, state_directory=str(host.state))
    assert names_in(host.root) == []
    assert host.leftovers() == []


# --- validation of files -------------------------------------------------------------


@pytest.fixture
def strict(host: Host) -> str:
    """A validator that refuses the word `bad`, and files others may read or misnamed ones."""
    return host.script(
        "strict",
        """
        import os, sys
        path = sys.argv[1]
        if not path.endswith(".conf"):
            sys.exit(f"{path}: not a .conf")
        print("mode %o" % (os.stat(path).st_mode & 0o777))
        for number, line in enumerate(open(path), start=1):
            if "bad" in line:
                sys.exit(f"{path}:{number}: cannot parse {line.strip()!r}")
        """,
    )


def test_a_refused_file_stops_everything(host: Host, strict: str) -> None:
    host.run(host.entry("a.conf", content="old\n"))
    before = host.snapshot()
    with pytest.raises(Faults) as caught:
        host.run(
            host.entry("new", content="x"),
            host.entry("a.conf", content="fine\nbad one\n", validate=f"{strict} %s"),
            host.entry("b.conf", content="bad two\n", validate=f"{strict} %s"),
            pending="app",
        )
    assert host.snapshot() == before
    first, second = caught.value.faults
    assert f"{host.path('a.conf')}:2: cannot parse 'bad one'" in first
    assert first.endswith(f"{host.path('a.conf')}:2: bad one")
    assert f"{host.path('b.conf')}:1: bad two" in second
    assert "stage" not in "".join(caught.value.faults)
    assert read_marker(str(host.state), "app") is None
    assert host.leftovers() == []


def test_a_validator_sees_the_final_mode_and_runs_only_on_change(host: Host, strict: str) -> None:
    entry = host.entry("a.conf", content="x", mode="0640", validate=f"{strict} %s")
    assert host.run(entry).changed
    count = host.script(
        "count", f"import os, sys; open({str(host.bin / 'log')!r}, 'a').write(sys.argv[1])"
    )
    host.run({**entry, "validate": f"{count} %s"})
    assert not (host.bin / "log").exists()
    Path(host.path("a.conf")).chmod(0o600)
    host.run({**entry, "validate": f"{count} %s"})
    assert not (host.bin / "log").exists(), "a change of mode is no change of content"
    host.run({**entry, "content": "y", "validate": f"{count} %s"})
    assert (host.bin / "log").read_text().endswith("/a.conf")


@root_only
def test_a_validator_that_drops_its_privileges_can_read(host: Host) -> None:
    for directory in [host.root.parent, *host.root.parent.parents]:
        if directory != Path("/") and not directory.stat().st_mode & stat.S_IXOTH:
            directory.chmod(directory.stat().st_mode | stat.S_IXOTH)
    validator = host.script(
        "drop",
        "import os, sys; os.setgid(65534); os.setuid(65534); print(open(sys.argv[1]).read())",
    )
    entry = {"path": host.path("x"), "content": "x", "owner": "nobody", "mode": "0400"}
    assert host.run({**entry, "validate": f"{validator} %s"}).changed


@pytest.mark.parametrize("validate", ["/no/such/program %s", "'unbalanced %s"])
def test_a_validator_that_cannot_run_is_a_fault(host: Host, validate: str) -> None:
    with pytest.raises(Faults):
        host.run(host.entry("x", content="x", validate=validate))
    assert names_in(host.root) == []


def test_a_validator_that_hangs_is_stopped(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_apply, "VALIDATOR_SECONDS", 0.3)
    hang = host.script("hang", "import time; print('thinking', flush=True); time.sleep(60)")
    with pytest.raises(Faults, match="did not end in time"):
        host.run(host.entry("x", content="x", validate=f"{hang} %s"))


# --- validation of trees -------------------------------------------------------------

SERVER = """
import glob, os, stat, sys
top = {tree!r}
def fail(words):
    sys.exit("server: [emerg] " + words)
conf = top + "/server.conf"
if not os.path.exists(conf):
    fail(f"open() {{conf!r}} failed")
files = [conf] + sorted(glob.glob(top + "/conf.d/*.conf"))
for path in files:
    if os.stat(path).st_mode & stat.S_IWOTH:
        fail(f"{{path}} is writable for all")
    for number, line in enumerate(open(path), start=1):
        words = line.split()
        if words and words[0] == "include" and not os.path.exists(words[1]):
            fail(f"open() {{words[1]!r}} failed in {{path}}:{{number}}")
        if words and words[0] == "secret" and len(words[1]) < 3:
            fail(f"secret {{words[1]}} too short in {{path}}:{{number}}")
        if words and words[0] not in ("listen", "include", "secret"):
            fail(f"unknown directive {{words[0]!r}} in {{path}}:{{number}}")
open({log!r}, "a").write("checked %d\\n" % len(files))
"""


@pytest.fixture
def server(host: Host) -> Callable[[], str]:
    def make() -> str:
        tree, log = host.path("etc/server"), str(host.bin / "log")
        return host.script("server", SERVER.format(tree=tree, log=log))

    return make


@mounting
class TestTrees:
    def test_a_fresh_tree(self, host: Host, server: Callable[[], str]) -> None:
        options = {"trees": [{"path": host.path("etc/server"), "validate": f"{server()} -t"}]}
        entries = [
            host.entry("etc/server/server.conf", content="listen 80\n"),
            host.entry("etc/server/conf.d/a.conf", content="listen 81\n"),
        ]
        assert host.run(*entries, **options).changed
        assert (host.bin / "log").read_text() == "checked 2\n"
        assert not host.run(*entries, **options).changed
        assert (host.bin / "log").read_text() == "checked 2\n", "only a change is validated"
        assert str(host.state) not in Path("/proc/self/mountinfo").read_text()
        assert host.leftovers() == []

    def test_a_refused_fresh_tree_leaves_nothing(
        self, host: Host, server: Callable[[], str]
    ) -> None:
        with pytest.raises(Faults) as caught:
            host.run(
                host.entry("etc/server/server.conf", content="listen 80\nlisten\n  lissen 81;\n"),
                trees=[{"path": host.path("etc/server"), "validate": f"{server()} -t"}],
            )
        message = caught.value.faults[0]
        path = host.path("etc/server/server.conf")
        assert f"unknown directive 'lissen' in {path}:3" in message
        assert message.endswith(f"{path}:3: lissen 81;")
        assert names_in(host.root) == []
        assert host.leftovers() == []

    def test_a_refused_change_replaces_nothing(self, host: Host, server: Callable[[], str]) -> None:
        options = {"trees": [{"path": host.path("etc/server"), "validate": f"{server()} -t"}]}
        good = [
            host.entry("etc/server/server.conf", content="listen 80\n"),
            host.entry("etc/server/conf.d/a.conf", content="listen 81\n"),
            host.entry("other", content="1"),
        ]
        host.run(*good, **options)
        before = host.snapshot()
        with pytest.raises(Faults, match="unknown directive 'nonsense'"):
            host.run(
                {**good[0], "content": "listen 8080\n"},
                {**good[1], "content": "nonsense\n"},
                {**good[2], "content": "2"},
                **options,
            )
        assert host.snapshot() == before

    def test_modes_removals_and_links_are_seen(self, host: Host, server: Callable[[], str]) -> None:
        options = {"trees": [{"path": host.path("etc/server"), "validate": f"{server()} -t"}]}
        main = host.entry("etc/server/server.conf", content="listen 80\n")
        host.run(main, **options)
        with pytest.raises(Faults, match=r"a\.conf is writable for all"):
            host.run(host.entry("etc/server/conf.d/a.conf", content="", mode="0666"), **options)
        with pytest.raises(Faults, match=r"server\.conf is writable for all"):
            host.run({**main, "mode": "0666"}, **options)
        with pytest.raises(Faults, match=r"open\(\) .*server\.conf' failed"):
            host.run(host.entry("etc/server/server.conf", state="absent"), **options)
        # A faulty file that goes in the same run does not count any more.
        (host.root / "etc/server/conf.d").mkdir()
        (host.root / "etc/server/conf.d/old.conf").write_text("nonsense\n")
        exclusive = [{"path": host.path("etc/server/conf.d"), "pattern": "*.conf"}]
        with pytest.raises(Faults, match=r"old\.conf:1"):
            host.run({**main, "content": "listen 90\n"}, **options)
        assert host.run(
            {**main, "content": "listen 90\n"},
            host.entry("etc/server/conf.d/link.conf", state="link", target="../server.conf"),
            exclusive=exclusive,
            **options,
        ).changed
        assert names_in(host.path("etc/server/conf.d")) == ["link.conf"]

    def test_other_trees_are_in_place_too(self, host: Host, server: Callable[[], str]) -> None:
        certificate = host.path("tls/a.pem")
        entries = [
            host.entry("etc/server/server.conf", content=f"include {certificate}\n"),
            host.entry("tls/a.pem", content="pem"),
        ]
        tree = {"path": host.path("etc/server"), "validate": f"{server()} -t"}
        with pytest.raises(Faults, match=r"a\.pem' failed"):
            host.run(*entries, trees=[tree])
        assert host.run(*entries, trees=[tree, {"path": host.path("tls")}]).changed

    def test_files_of_the_service_are_in_the_copy(self, host: Host) -> None:
        """Ownership, sockets, dangling links: whatever a service keeps in its tree."""
        tree = host.root / "etc/server"
        (tree / "deep").mkdir(parents=True, mode=0o700)
        (tree / "deep/key").write_text("k")
        os.chown(tree / "deep/key", 65534, 33)
        Path(tree / "deep/key").chmod(0o440)
        Path(tree / "deep/dangling").symlink_to("../gone")
        Path(tree / "directory-link").symlink_to("deep")
        os.mkfifo(tree / "fifo")
        check = host.script(
            "check",
            f"""
            import os, stat, sys
            top = {str(tree)!r}
            status = os.stat(top + "/deep/key")
            assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65534, 33, 0o440)
            assert stat.S_IMODE(os.stat(top + "/deep").st_mode) == 0o700
            assert os.readlink(top + "/deep/dangling") == "../gone"
            assert os.readlink(top + "/directory-link") == "deep"
            assert open(top + "/new").read() == "n"
            open(top + "/written-by-validator", "w")
            """,
        )
        host.run(
            host.entry("etc/server/new", content="n"),
            trees=[{"path": str(tree), "validate": check}],
        )
        assert not (tree / "written-by-validator").exists(), "it wrote into the copy"
        assert (tree / "fifo").exists()

    def test_nothing_mounted_shows_outside(self, host: Host) -> None:
        """Where mounts are shared, as systemd has them, they would spread to everybody."""
        tree = host.root / "etc/server"
        tree.mkdir(parents=True)
        shared = ctypes.c_ulong(files_apply._MS_REC | 1 << 20)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                assert libc.unshare(files_apply._CLONE_NEWNS) == 0
                assert libc.mount(b"none", b"/", None, ctypes.c_ulong(1 << 18 | 16384), None) == 0
                assert libc.mount(b"none", b"/", None, shared, None) == 0
                before = Path("/proc/self/mountinfo").read_text()
                host.run(
                    host.entry("etc/server/x", content="x"),
                    trees=[{"path": str(tree), "validate": "true"}],
                )
                code = 0 if Path("/proc/self/mountinfo").read_text() == before else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def test_a_secret_line_is_not_shown(self, host: Host, server: Callable[[], str]) -> None:
        speak = host.script(
            "speak",
            f"""
            import sys
            path = {host.path("t/s.conf")!r}
            sys.exit(f"cannot parse {{open(path).read()!r}} in {{path}}:1")
            """,
        )
        with pytest.raises(Faults) as caught:
            host.run(
                host.entry("t/s.conf", content="key = CANARY-7f3a\n", mode="0600"),
                host.entry("t/x.conf", content="x"),
                trees=[{"path": host.path("t"), "validate": speak}],
            )
        assert "CANARY" not in str(caught.value)
        assert "(secret, not shown)" in str(caught.value)
        # The same file unchanged is as secret as before.
        host.run(host.entry("t/s.conf", content="key = CANARY-7f3a\n", mode="0600"))
        with pytest.raises(Faults) as caught:
            host.run(
                host.entry("t/s.conf", content="key = CANARY-7f3a\n", mode="0600"),
                host.entry("t/x.conf", content="y"),
                trees=[{"path": host.path("t"), "validate": speak}],
            )
        assert "CANARY" not in str(caught.value)

    def test_check_mode_warns_and_leaves_nothing(
        self, host: Host, server: Callable[[], str]
    ) -> None:
        tree = {"path": host.path("etc/server"), "validate": f"{server()} -t"}
        entry = host.entry("etc/server/server.conf", content="nonsense\n")
        fresh = host.run(entry, trees=[tree], check=True)
        assert fresh.changed and fresh.warnings == []
        assert "not validated, it is not there yet" in fresh.notes[0]
        assert host.snapshot().keys() == {str(host.root)}
        (host.root / "etc/server").mkdir(parents=True)
        before = host.snapshot()
        outcome = host.run(entry, trees=[tree], check=True)
        assert outcome.changed
        assert "unknown directive" in outcome.warnings[0]
        assert host.snapshot() == before


# --- check mode ----------------------------------------------------------------------


def test_check_mode_predicts_what_then_happens(host: Host) -> None:
    (host.root / "gone").write_text("x")
    (host.root / "b").write_text("old")
    entries = [
        host.entry("d", state="directory", mode="0700"),
        host.entry("d/a", content="a", label="a"),
        host.entry("b", content="new"),
        host.entry("gone", state="absent"),
        host.entry("l", state="link", target="b"),
    ]
    before = host.snapshot()
    predicted = host.run(*entries, check=True, want_diff=True, pending="app")
    assert host.snapshot() == before
    real = host.run(*entries, want_diff=True, pending="app")
    assert (predicted.changed_files, predicted.changed_labels, predicted.diff) == (
        real.changed_files,
        real.changed_labels,
        real.diff,
    )


def test_check_mode_expects_accounts_and_validators_to_come(host: Host) -> None:
    outcome = host.run(
        host.entry("x", content="x", owner="no-such-user", validate="/no/such/thing %s"),
        check=True,
        want_diff=True,
    )
    assert outcome.changed
    assert outcome.notes == ["not validated: an owner or group is not there yet"]
    outcome = host.run(host.entry("x", content="x", validate="/no/such/thing %s"), check=True)
    assert "/no/such/thing is not there yet" in outcome.notes[0]


# --- diffs ---------------------------------------------------------------------------


def test_diffs_show_what_changes_and_hide_what_is_secret(host: Host) -> None:
    entries = [
        host.entry("open", content="one\n"),
        host.entry("secret", content="CANARY\n", secret=True),
        host.entry("quiet", content="hush\n", diff=False),
        host.entry("binary", content=b"\0\1"),
    ]
    host.run(*entries)
    outcome = host.run(
        {**entries[0], "content": "two\n"},
        {**entries[1], "content": "CANARY2\n", "mode": "0640"},
        {**entries[2], "content": "husher\n"},
        {**entries[3], "content": b"\0\2"},
        want_diff=True,
    )
    shown = repr(outcome.diff)
    assert "CANARY" not in shown and "hush" not in shown
    assert (outcome.diff[0]["before"], outcome.diff[0]["after"]) == ("one\n", "two\n")
    assert any("secret, not shown" in diff.get("prepared", "") for diff in outcome.diff)
    assert any("mode: 0640" in diff.get("after", "") for diff in outcome.diff)
    assert any("binary" in diff.get("prepared", "") for diff in outcome.diff)


def test_no_diff_is_made_unless_asked_for(host: Host) -> None:
    assert host.run(host.entry("x", content="x")).diff == []


# --- interruptions -------------------------------------------------------------------


def test_the_marker_stays_until_the_services_know(host: Host) -> None:
    entry = host.entry("x", content="1", label="conf")
    assert host.run(entry, pending="app").pending is False
    again = host.run(entry, pending="app")
    assert (again.changed, again.pending) == (True, True)
    assert again.changed_files == [host.path("x")]
    assert again.changed_labels == ["conf"]
    assert host.run(entry, pending="app", check=True).changed
    assert not host.run(entry, pending="other").changed
    (host.state / "pending/app").unlink()
    assert not host.run(entry, pending="app").changed


def test_a_path_may_have_a_marker_of_its_own(host: Host) -> None:
    mine, theirs = (
        host.entry("mine", content="1"),
        host.entry("theirs", content="1", pending="proxy"),
    )
    assert host.run(mine, theirs, pending="app").pending is False
    markers = {
        name: json.loads((host.state / "pending" / name).read_text())["files"]
        for name in ("app", "proxy")
    }
    assert markers == {"app": [mine["path"]], "proxy": [theirs["path"]]}
    (host.state / "pending/app").unlink()
    # What another service has not read yet is no news here.
    assert not host.run(mine, theirs, pending="app").changed
    assert (host.state / "pending/proxy").exists()


def test_an_unreadable_marker_still_counts(host: Host) -> None:
    entry = host.entry("x", content="1")
    host.run(entry, pending="app")
    (host.state / "pending/app").write_text("{half")
    assert host.run(entry, pending="app").changed


STEPS = ["staging", "validated", "marked", "replaced a", "replaced b", "replaced e"]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_a_plain_rerun_ends_well(host: Host, step: str) -> None:
    entries = [
        host.entry("a", content="a2\n", label="a"),
        host.entry("b", content="b2\n", label="b"),
        host.entry("c/d", content="d\n", mode="0600"),
        host.entry("e", state="absent"),
    ]
    for name in "abe":
        (host.root / name).write_text(f"{name}1\n")
    wanted = step.replace("replaced ", f"replaced {host.root}/")

    def interrupt(reached: str) -> None:
        if reached == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        try:
            host.run(*entries, pending="app", interrupt=interrupt)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    for name in "ab":
        assert (host.root / name).read_text() in (f"{name}1\n", f"{name}2\n"), "never half"

    outcome = host.run(*entries, pending="app")
    assert outcome.changed, "services are told"
    marked = step.startswith(("marked", "replaced"))
    assert outcome.pending is marked
    assert set(outcome.changed_labels) == {"a", "b"}
    assert {host.path(name) for name in ("a", "b", "c/d", "e")} == set(outcome.changed_files)
    assert names_in(host.root) == ["a", "b", "c"]
    assert (host.root / "a").read_text() == "a2\n"
    assert mode_of(host.path("c/d")) == 0o600
    assert host.leftovers() == []
    (host.state / "pending/app").unlink()
    assert not host.run(*entries, pending="app").changed


def test_a_failure_while_replacing_leaves_the_marker(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(reached: str) -> None:
        if reached.startswith("replaced"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        host.run(
            host.entry("a", content="1"),
            host.entry("b", content="1"),
            pending="app",
            interrupt=interrupt,
        )
    assert read_marker(str(host.state), "app") is not None
    assert host.leftovers() == []


def test_two_runs_wait_for_one_another(host: Host) -> None:
    slow = host.script("slow", "import time; time.sleep(0.5)")
    pid = os.fork()
    if pid == 0:
        try:
            host.run(host.entry("x", content="first", validate=f"{slow} %s"))
        finally:
            os._exit(0)
    deadline = time.monotonic() + 10
    while not (host.state / "stage").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    outcome = host.run(host.entry("x", content="second"))
    os.waitpid(pid, 0)
    assert outcome.changed
    assert Path(host.path("x")).read_text() == "second"


def test_a_run_that_holds_the_lock_too_long_is_named(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_apply, "LOCK_SECONDS", 0.2)
    with (
        files_apply._locked(str(host.state)),
        pytest.raises(Faults, match="another run has been changing files"),
    ):
        host.run(host.entry("x", content="x"))


# --- property ------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "d/a", "d/b", "d/e/f", "g"])
wanted_states = st.one_of(
    st.fixed_dictionaries(
        {
            "content": st.binary(max_size=40),
            "mode": st.sampled_from(["0644", "0600", "0755", "0444"]),
        }
    ),
    st.just({"state": "absent"}),
    st.fixed_dictionaries({"state": st.just("link"), "target": st.sampled_from(["x", "a", ".."])}),
)
requests = st.dictionaries(names, wanted_states, max_size=6)


def as_wanted(host: Host, name: str, entry: dict[str, Any]) -> bool:
    path = host.path(name)
    if entry.get("state") == "absent":
        return not os.path.lexists(path)
    if entry.get("state") == "link":
        return Path(path).is_symlink() and str(Path(path).readlink()) == entry["target"]
    return (
        stat.S_ISREG(os.lstat(path).st_mode)
        and Path(path).read_bytes() == entry["content"]
        and mode_of(path) == int(entry["mode"], 8)
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(runs=st.lists(requests, min_size=1, max_size=3))
def test_after_a_run_all_is_as_wanted_and_a_second_changes_nothing(
    runs: list[dict[str, dict[str, Any]]],
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        host = Host(Path(directory))
        for run in runs:
            entries = [host.entry(name, **entry) for name, entry in run.items()]
            before = host.snapshot()
            predicted = host.run(*entries, check=True)
            assert host.snapshot() == before, "check mode changes nothing"
            outcome = host.run(*entries)
            assert outcome.changed_files == predicted.changed_files
            assert outcome.changed == bool(outcome.changed_files)
            for name, entry in run.items():
                assert as_wanted(host, name, entry)
            settled = host.snapshot()
            assert not host.run(*entries).changed
            assert host.snapshot() == settled
            assert host.leftovers() == []

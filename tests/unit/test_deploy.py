"""What a deploy decides by: what is written down, what is due, what the kernel's tables say."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils import deploy as core
from ansible_collections.berth.platform.plugins.module_utils import deploy_host, deploy_look
from ansible_collections.berth.platform.plugins.modules import deploy as module

GOOD: dict[str, Any] = {
    "active": True,
    "leads": "a",
    "version": "v1",
    "current": "v1",
    "wanted": {"a": "1", "b": "2"},
    "found": {"a": "1", "b": ""},
    "links": {"a": "v1", "b": ""},
}


def state(**more: Any) -> core.State:
    slots = {"a": {"version": "v1", "digest": "1"}, "b": {"version": "", "digest": ""}}
    return core.State(**{"live": "a", "slots": slots, **more})


class TestReasons:
    def test_none(self) -> None:
        assert core.reasons(state=state(), **GOOD) == []
        assert core.reasons(state=state(), **GOOD | {"wanted": {"a": "1", "b": "9"}}) == []

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"active": False}, "does not run"),
            ({"leads": "b"}, "leads elsewhere"),
            ({"leads": ""}, "leads elsewhere"),
            ({"version": "v2"}, "runs v1"),
            ({"current": None}, "nothing is active"),
            ({"wanted": {"a": "9"}}, "changed"),
            ({"found": {"a": ""}}, "by hand"),
            ({"links": {"a": "", "b": ""}}, "not linked"),
            ({"links": {"a": "v1", "b": "v0"}}, "not empty"),
        ],
    )
    def test_one(self, change: dict[str, Any], words: str) -> None:
        (reason,) = core.reasons(state=state(), **GOOD | change)
        assert words in reason

    def test_new_and_interrupted(self) -> None:
        assert core.reasons(state=None, **GOOD) == ["it is new"]
        interrupted = state(journal={"version": "v2"})
        assert core.reasons(state=interrupted, **GOOD) == ["a deploy of v2 was interrupted"]


def test_state_is_read_as_it_was_written() -> None:
    for one in (state(), state(live="b", journal={"step": "drain"}, port=5, address="0.0.0.0")):
        assert core.load(core.dump(one)) == one
    for text in ("", "{", "[]", '{"live": "a"}'):
        assert core.load(text) is None


def test_history_passes_over_what_is_cut() -> None:
    assert core.history('{"a": 1}\n{"a": 2}\n{"a"') == [{"a": 1}, {"a": 2}]
    assert core.history('{"a": 1}\n{"a": 2}\n', last=1) == [{"a": 2}]


def test_where_a_port_leads() -> None:
    loaded = [("10.0.0.5", 3000, 3001), ("0.0.0.0", 3000, 9)]
    slots = {"a": 3000, "b": 3001}
    assert core.leads_to(loaded, "10.0.0.5", 3000, slots) == "b"
    assert core.leads_to(loaded, "10.0.0.6", 3000, slots) == "a"
    assert core.leads_to(loaded, "0.0.0.0", 3000, slots) == ""


def test_previous() -> None:
    there = ["v1", "v2", "v3"]
    assert core.previous_version(["v1", "v2", "v3"], "v3", there) == "v2"
    assert core.previous_version(["v1", "v2", "v3", "v2"], "v2", there) == "v3"
    assert core.previous_version(["v0", "v3"], "v3", there) == ""


def test_refused() -> None:
    words = core.refused({"who": "me@here", "since": "then", "version": "v2", "pid": 7}, "shop")
    assert words == (
        "shop is being deployed already: v2 by me@here, since then (process 7 on the host)"
    )
    assert "somebody" in core.refused({}, "shop")


def test_disk_digest(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    assert core.disk_digest([path], deploy_look._content) == ""
    Path(path).write_text("text")
    wanted = core.files_digest([{"path": path, "content": "text", "mode": "0600"}])
    assert core.disk_digest([path], deploy_look._content) == wanted


def test_connections() -> None:
    table = """  sl  local_address rem_address   st tx_queue
   0: 0100007F:138A 00000000:0000 0A 00000000:00000000
   1: 0100007F:138A 0100007F:D431 01 00000000:00000000
   2: 0100007F:138A 0100007F:D432 08 00000000:00000000
   3: 0100007F:138A 0100007F:D433 06 00000000:00000000
   4: 0100007F:D431 0100007F:138A 01 00000000:00000000
"""
    assert deploy_host.connections_in(table, 5002) == 2
    assert deploy_host.connections_in("", 5002) == 0


def test_nobody_is_asked_where_there_is_nothing() -> None:
    assert deploy_look.due_services([], {}, {}) == []


class TestDetached:
    @pytest.fixture(autouse=True)
    def directories(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "RUN_DIRECTORY", str(tmp_path))
        monkeypatch.setattr(module, "STATE_DIRECTORY", str(tmp_path / "state"))
        monkeypatch.setattr(module, "adopt", lambda *_: None)

    def test_it_is_followed_to_its_end(self) -> None:
        def do(say: Any) -> dict[str, Any]:
            say("one")
            time.sleep(0.3)
            say("two")
            return {"changed": True}

        module.detach("x", [], do)
        lines: list[str] = []
        while True:
            found = module.follow("x", len(lines), 5)
            lines += found["lines"]
            if not found["running"]:
                break
        assert (lines, found["changed"]) == (["one", "two"], True)
        assert list(Path(module.RUN_DIRECTORY).iterdir()) == []

    def test_one_that_was_killed(self) -> None:
        def do(say: Any) -> dict[str, Any]:
            say("one")
            os.kill(os.getpid(), 9)
            return {}

        module.detach("x", [], do)
        while (found := module.follow("x", 0, 1))["running"]:
            pass
        assert found["failed"]
        assert "was killed" in found["msg"]

    def test_one_that_fails(self) -> None:
        def do(say: Any) -> dict[str, Any]:
            raise OSError("no space")

        module.detach("x", [], do)
        found = module.follow("x", 0, 5)
        assert (found["failed"], found["msg"]) == (True, "OSError: no space")

    def test_the_second_is_refused(self) -> None:
        shop = core.Service(name="shop", unit="shop", home="/x", version="v2")
        held, words = module.lock(shop, "me@here")
        assert words == ""
        again, words = module.lock(shop, "you")
        assert (again, words.partition(", since")[0]) == (
            -1,
            "shop is being deployed already: v2 by me@here",
        )
        os.close(held)
        held, words = module.lock(shop, "you")
        assert words == ""
        holder = json.loads(Path(module.STATE_DIRECTORY, "shop.lock").read_text())
        assert holder["who"] == "you"
        os.close(held)

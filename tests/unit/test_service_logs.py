"""The last lines of logs."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.berth.platform.plugins.module_utils.service_logs import (
    as_text,
    collect,
    tail,
)


def test_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("".join(f"line {n}\n" for n in range(100_000)))
    assert tail(str(path), 2) == "line 99998\nline 99999"


def test_short_file(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_bytes(b"only \xff one")
    assert tail(str(tmp_path / "x.log"), 5) == "only \ufffd one"


def test_collect(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("said\n")
    shared, absent = str(tmp_path / "x.log"), str(tmp_path / "y.log")
    found = collect(
        [
            {"name": "a.service", "files": [shared, absent]},
            {"name": "b.service", "files": [shared]},
        ],
        5,
    )
    assert [each["source"] for each in found] == [shared, absent, "a.service", "b.service"]
    assert found[1]["text"] == "(No such file or directory)"
    assert f"==> {shared} <==\nsaid\n" in as_text(found)

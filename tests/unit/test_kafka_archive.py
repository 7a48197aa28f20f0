"""The lab's archive of Kafka: only what its lock names, and the same bytes every time."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "lab"))

from berth_lab import kafka
from berth_lab.machine import LabError

JARS = {"b.jar": b"two", "a.jar": b"one"}


def test_the_lock_has_every_jar_of_the_pinned_version() -> None:
    locked = kafka.parse_lock(kafka.LOCK.read_text(encoding="utf-8"))
    assert f"kafka_2.13-{kafka.version()}.jar" in locked
    assert all(len(digest) == 64 for digest in locked.values())


def test_an_archive_is_the_same_every_time() -> None:
    data = kafka.pack(JARS, "top")
    assert data == kafka.pack(dict(sorted(JARS.items())), "top")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["top/libs/a.jar", "top/libs/b.jar"]


def test_another_jar_is_refused() -> None:
    text = "# comment\n" + "\n".join(f"{'0' * 64}  {name}" for name in JARS)
    with pytest.raises(LabError, match=r"a\.jar, b\.jar\. If that is intended"):
        kafka.check(JARS, kafka.parse_lock(text))

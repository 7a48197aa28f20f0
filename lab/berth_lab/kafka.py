"""Kafka's archive, as its project serves it but for what the role does not use.

Its jars are fetched by Maven from Maven Central, checked against lab/kafka.lock and packed the same
way every time, so that the archive's checksum is the same on every machine.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from . import images
from .machine import LAB, LabError, lock, podman, run, say, work_dir, write_if_changed

NAME = "kafka"
POM = LAB / "kafka.pom.xml"
LOCK = LAB / "kafka.lock"
TIMEOUT = 900
GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def version() -> str:
    """The version that the project file pins."""
    found = re.search(r"<version>([0-9.]+)</version>", POM.read_text(encoding="utf-8"))
    if found is None:
        raise LabError(f"{POM} has no version")
    return found[1]


def parse_lock(text: str) -> dict[str, str]:
    """The SHA-256 of each jar by its name; lines as sha256sum writes them."""
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return {name: digest for digest, name in lines}


def check(jars: Mapping[str, bytes], locked: Mapping[str, str]) -> None:
    """Refuse anything but the very jars of the lock."""
    found = {name: hashlib.sha256(data).hexdigest() for name, data in jars.items()}
    if found != dict(locked):
        lines = "\n".join(f"{found[name]}  {name}" for name in sorted(found))
        names = sorted({*found, *locked})
        wrong = [name for name in names if found.get(name) != locked.get(name)]
        raise LabError(
            f"not what {LOCK.name} has: {', '.join(wrong)}. "
            f"If that is intended, it has to be:\n{lines}"
        )


def pack(jars: Mapping[str, bytes], top: str) -> bytes:
    """A tar of libs/, gzipped, without times and owners."""
    out = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0, filename="") as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for name in sorted(jars):
            member = tarfile.TarInfo(f"{top}/libs/{name}")
            member.size = len(jars[name])
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(jars[name]))
    return out.getvalue()


def fetch(target: Path) -> None:
    """Let Maven put the jars into a directory."""
    arguments = ["-q", "-B", GOAL, "-DincludeScope=runtime"]
    if shutil.which("mvn"):
        run(["mvn", "-f", str(POM), *arguments, f"-DoutputDirectory={target}"], timeout=TIMEOUT)
        return
    say("no Maven on this machine: fetching in a container")
    image = images.Image("debian13", "bare")
    images.ensure(image)
    # Java's package links into the manual pages, which the lab's images leave out.
    install = (
        "mkdir -p /usr/share/man/man1 && apt-get update -q"
        " && apt-get install -y -q --no-install-recommends maven >&2"
    )
    command = f"{install} && mvn -f /pom.xml {' '.join(arguments)} -DoutputDirectory=/out"
    # The machine's own network: the container reaches what the machine reaches.
    options = ["--network=host", f"--volume={target}:/out", f"--volume={POM}:/pom.xml:ro", "--rm"]
    podman("run", *options, image.tag, "sh", "-c", command, timeout=TIMEOUT)


def ensure() -> Path:
    """Make the archive unless it is there; a file of its checksum lies beside it."""
    directory = work_dir() / "artifacts"
    directory.mkdir(exist_ok=True)
    top = f"kafka_2.13-{version()}"
    target = directory / f"{top}.tgz"
    checksum = directory / f"{top}.tgz.sha256"
    with lock(f"artifact-{NAME}", timeout=2 * TIMEOUT):
        newest = max(POM.stat().st_mtime, LOCK.stat().st_mtime)
        if target.exists() and checksum.exists() and target.stat().st_mtime > newest:
            return target
        say(f"fetching {target.name} (half a minute, once)")
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            jars_directory = Path(scratch) / "libs"
            jars_directory.mkdir()
            fetch(jars_directory)
            jars = {path.name: path.read_bytes() for path in jars_directory.glob("*.jar")}
            check(jars, parse_lock(LOCK.read_text(encoding="utf-8")))
            data = pack(jars, top)
            made = Path(scratch) / target.name
            made.write_bytes(data)
            made.replace(target)
        write_if_changed(checksum, f"{hashlib.sha256(data).hexdigest()}  {target.name}\n")
        say(f"{target.name} made in {time.monotonic() - began:.0f} s")
    return target

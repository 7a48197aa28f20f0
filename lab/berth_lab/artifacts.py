"""Programs that Debian lacks, built once from source out of their language's registry."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from . import images
from .machine import LabError, lock, podman, run, say, work_dir, write_if_changed

BUILD_TIMEOUT = 900


@dataclass(frozen=True)
class Artifact:
    """A Go program at one version."""

    name: str
    module: str
    command: str
    version: str

    @property
    def file(self) -> str:
        """The name of the program built."""
        return f"{self.name}-{self.version.removeprefix('v')}"


ARTIFACTS = {
    artifact.name: artifact
    for artifact in (
        Artifact("versitygw", "github.com/versity/versitygw", "cmd/versitygw", "v1.8.0"),
    )
}


def fetches_toolchains(version: str) -> bool:
    """Whether a Go, by its own account of its version, can fetch the one a module asks for."""
    found = re.search(r"\bgo(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= (1, 21)


def go_on_machine() -> bool:
    """Whether the machine's own Go will do."""
    if not shutil.which("go"):
        return False
    return fetches_toolchains(run(["go", "version"], env={"GOTOOLCHAIN": "local"}).stdout)


def ensure(name: str) -> Path:
    """Build a program unless it is there; a file of its checksum lies beside it."""
    artifact = ARTIFACTS.get(name)
    if artifact is None:
        raise LabError(f"unknown artifact {name!r}; there is {', '.join(ARTIFACTS)}")
    directory = work_dir() / "artifacts"
    directory.mkdir(exist_ok=True)
    target = directory / artifact.file
    checksum = target.with_name(f"{target.name}.sha256")
    with lock(f"artifact-{name}", timeout=2 * BUILD_TIMEOUT):
        if not target.exists() or not checksum.exists():
            say(f"building {artifact.file} (one to two minutes, once)")
            began = time.monotonic()
            with tempfile.TemporaryDirectory(dir=directory) as scratch:
                build(artifact, Path(scratch))
                built = Path(scratch) / artifact.name
                digest = hashlib.sha256(built.read_bytes()).hexdigest()
                built.replace(target)
            write_if_changed(checksum, f"{digest}  {target.name}\n")
            say(f"{artifact.file} built in {time.monotonic() - began:.0f} s")
    return target


def build(artifact: Artifact, scratch: Path) -> None:
    """`go install` into a directory that also takes the module cache, so that nothing stays."""
    variables = {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=mod -modcacherw",
        "GOTOOLCHAIN": "auto",
    }
    flags = f"-s -w -X main.Version={artifact.version}"
    package = f"{artifact.module}/{artifact.command}@{artifact.version}"
    command = ["go", "install", "-trimpath", f"-ldflags={flags}", package]
    if go_on_machine():
        places = {"GOPATH": f"{scratch}/go", "GOCACHE": f"{scratch}/cache", "GOBIN": f"{scratch}"}
        run(command, timeout=BUILD_TIMEOUT, env={**variables, **places})
        return
    say("no Go of 1.21 or newer on this machine: building in a container")
    image = images.Image("debian13", "build")
    images.ensure(image)
    variables |= {"GOPATH": "/go", "GOCACHE": "/cache", "GOBIN": "/out"}
    variables |= {k: os.environ[k] for k in ("GOPROXY", "GOSUMDB") if k in os.environ}
    options = [f"--env={name}={value}" for name, value in variables.items()]
    # The machine's own network: the build reaches what the machine reaches.
    options += ["--network=host", f"--volume={scratch}:/out", "--rm"]
    podman("run", *options, image.tag, *command, timeout=BUILD_TIMEOUT)

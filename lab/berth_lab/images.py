"""The hosts' images: Debian from its own mirror, no registry."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .machine import LAB, LabError, as_root, lock, podman, podman_command, say

REPOSITORY = "localhost/berth-lab"
SUITES = {"debian12": "bookworm", "debian13": "trixie", "debiantesting": "testing"}
LABEL = "berth.lab.recipe"
EXPIRED = 'Acquire::Check-Valid-Until "false"'
BUILD_TIMEOUT = 900
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


@dataclass(frozen=True)
class Image:
    """One image: a system, and what is installed in it beside."""

    system: str
    kind: str

    @property
    def tag(self) -> str:
        """Its full name for podman."""
        return f"{REPOSITORY}:{self}"

    def __str__(self) -> str:
        return f"{self.system}-{self.kind}"

    @classmethod
    def parse(cls, text: str, *, baked: bool = False) -> Image:
        """`debian13`, or `debian13-bare` and `-baked`; `baked` decides where the name does not."""
        system, _, kind = text.partition("-")
        if system not in SUITES or kind not in ("", "bare", "baked"):
            known = ", ".join(f"{name}[-bare|-baked]" for name in SUITES)
            raise LabError(f"unknown image {text!r}; there are {known}")
        return cls(system, kind or ("baked" if baked else "bare"))


def package_list(text: str) -> list[str]:
    """The names in a package list; `#` begins a comment."""
    return [name for line in text.splitlines() if (name := line.partition("#")[0].strip())]


def packages(image: Image) -> list[str]:
    """What is installed in an image."""
    kinds = ["bare", "baked"] if image.kind == "baked" else [image.kind]
    texts = [(LAB / f"{kind}-packages.txt").read_text(encoding="utf-8") for kind in kinds]
    return [name for text in texts for name in package_list(text)]


def local_certificates(
    bundle: Path = Path("/etc/ssl/certs/ca-certificates.crt"),
    known: Path = Path("/usr/share/ca-certificates"),
) -> list[str]:
    """The certificates that the machine trusts and Debian's own package does not hold."""
    if not bundle.exists():
        return []
    shipped = {path.read_text(encoding="ascii").strip() for path in known.rglob("*.crt")}
    found = CERTIFICATE.findall(bundle.read_text(encoding="utf-8", errors="replace"))
    return [text for text in found if text.strip() not in shipped]


def mmdebstrap_command(image: Image) -> list[str]:
    """The command that writes the image as a tar to its output."""
    options = [
        "--mode=root",
        "--variant=minbase",
        "--format=tar",
        # The first task with a cache_valid_time has to find lists.
        "--skip=cleanup/apt/lists",
        '--aptopt=Acquire::Languages "none"',
        # A moving suite's lists expire within days, and a mirror may be a snapshot.
        *([f"--aptopt={EXPIRED}"] if image.system == "debiantesting" else []),
        # Stays in the hosts, too: nothing in them has to survive a power cut.
        "--dpkgopt=force-unsafe-io",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        *([f"--essential-hook={LAB / 'image' / 'prepare'}"] if image.kind == "baked" else []),
        f"--customize-hook={LAB / 'image' / 'finish'}",
        f"--include={','.join(packages(image))}",
    ]
    return ["mmdebstrap", *options, SUITES[image.system], "-"]


def recipe(image: Image, certificates: list[str]) -> str:
    """A hash over everything that goes into an image, but for the mirror's state."""
    command = [part.replace(str(LAB), "") for part in mmdebstrap_command(image)]
    scripts = [(LAB / "image" / name).read_text(encoding="utf-8") for name in ("prepare", "finish")]
    parts = json.dumps([command, scripts, certificates])
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def built_recipe(image: Image) -> str:
    """The recipe that an existing image was built from; empty if there is none."""
    form = f'{{{{index .Labels "{LABEL}"}}}}'
    done = podman("image", "inspect", "--format", form, image.tag, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def ensure(image: Image, *, force: bool = False) -> None:
    """Build an image unless it is there and its recipe is unchanged."""
    certificates = local_certificates()
    wanted = recipe(image, certificates)
    if not force and built_recipe(image) == wanted:
        return
    with lock(f"image-{image}", timeout=2 * BUILD_TIMEOUT):
        if force or built_recipe(image) != wanted:
            build(image, wanted, certificates)


def build(image: Image, wanted: str, certificates: list[str]) -> None:
    """mmdebstrap into podman, without a file between them; the tag moves when both succeeded."""
    say(f"building image {image} (about half a minute, a minute if baked)")
    began = time.monotonic()
    draft = f"{REPOSITORY}:draft-{image}"
    with tempfile.TemporaryDirectory() as scratch:
        trust = Path(scratch) / "certificates"
        trust.mkdir()
        for number, text in enumerate(certificates):
            (trust / f"berth-lab-{number}.crt").write_text(text, encoding="ascii")
        log = Path(scratch) / "log"
        with log.open("w") as errors:
            writer = subprocess.Popen(
                [*as_root(), "env", f"LAB_CERTIFICATES={trust}", *mmdebstrap_command(image)],
                stdout=subprocess.PIPE,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            )
            reader = subprocess.Popen(
                podman_command(
                    "import",
                    "--quiet",
                    '--change=CMD ["/sbin/init"]',
                    "--change=STOPSIGNAL SIGRTMIN+3",
                    f"--change=LABEL {LABEL}={wanted}",
                    "-",
                    draft,
                ),
                stdin=writer.stdout,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            if writer.stdout:
                writer.stdout.close()  # the reader's end alone stays open
            try:
                _, complaint = reader.communicate(timeout=BUILD_TIMEOUT)
                writer.wait(timeout=60)
            except subprocess.TimeoutExpired:
                raise LabError(f"image {image} was not built in {BUILD_TIMEOUT} s") from None
            finally:
                for process in (writer, reader):
                    if process.poll() is None:
                        process.terminate()  # mmdebstrap cleans up after itself on SIGTERM
                        process.wait(timeout=60)
        if writer.returncode or reader.returncode:
            podman("rmi", "--force", draft, check=False)
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
            raise LabError(f"image {image} could not be built\n{tail}\n{complaint.strip()}")
    podman("tag", draft, image.tag)
    podman("untag", draft, draft)
    # What the tag named before; it stays while a host runs it, and goes with the next build.
    podman("image", "prune", "--force", f"--filter=label={LABEL}", check=False)
    say(f"image {image} built in {time.monotonic() - began:.0f} s")

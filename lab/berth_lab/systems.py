"""A whole system's hosts, and the overlay that leads its inventory to them.

The overlay says how the hosts are reached, what stands in for the team's own builds, and where
programs come from that the outside world would serve; what is proven is the team's inventory.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import artifacts, hosts, images, kafka
from .inventory import render_yaml
from .machine import LAB, LabError, run, work_dir, write_if_changed

ROOT = LAB.parent
SYSTEMS = LAB / "systems"


@dataclass(frozen=True)
class System:
    """An inventory of the project, by its path below inventories/."""

    name: str

    @property
    def inventory(self) -> Path:
        """The inventory that a user would copy."""
        return ROOT / "inventories" / self.name

    @property
    def project(self) -> str:
        """Its name among the lab's projects."""
        return self.name.replace("/", "-")

    @property
    def stand_ins(self) -> Path:
        """What stands in for the team's builds: the system's own file, else its family's."""
        for name in (self.name, self.name.split("/", maxsplit=1)[0]):
            path = SYSTEMS / f"{name}.yml"
            if path.is_file():
                return path
        raise LabError(f"there is no lab/systems/{self.name}.yml for {self.name!r}")


def known() -> list[str]:
    """Every system that the lab can bring up."""
    root = ROOT / "inventories"
    found = (path.parent.relative_to(root) for path in root.rglob("hosts.yml"))
    return sorted(str(path) for path in found)


def parse(name: str) -> System:
    """A system by its name."""
    system = System(name.strip("/"))
    if not (system.inventory / "hosts.yml").is_file():
        raise LabError(f"there is no system {name!r}; there are {', '.join(known())}")
    return system


def listing(system: System) -> dict[str, Any]:
    """Its inventory, as Ansible reads it."""
    program = Path(sys.executable).with_name("ansible-inventory")
    command: list[str | Path] = [program if program.exists() else "ansible-inventory"]
    listed = run([*command, "-i", system.inventory / "hosts.yml", "--list"], timeout=60).stdout
    found: dict[str, Any] = json.loads(listed)
    return found


def served(project: hosts.Project, groups: Collection[str]) -> dict[str, str]:
    """What these groups download from the outside world, from the lab's own depot."""
    programs: dict[str, Path] = {}
    if "object_store" in groups:
        programs["object_store"] = artifacts.ensure("versitygw")
    if "kafka" in groups:
        programs["kafka"] = kafka.ensure()
    if not programs:
        return {}
    depot = hosts.depot(project, work_dir() / "artifacts").rstrip("/")
    found = {}
    for role, program in programs.items():
        digest = hashlib.sha256(program.read_bytes()).hexdigest()
        found[f"{role}_url"] = f"{depot}/{program.name}"
        found[f"{role}_checksum"] = f"sha256:{digest}"
    return found


def up(
    system: System,
    project_name: str | None = None,
    *,
    baked: bool = True,
    image: str = "debian13",
    extra: Sequence[str] = (),
) -> Path:
    """Bring up the system's hosts and *extra* ones beside them; the overlay's folder."""
    name = project_name or system.project
    inventory = listing(system)
    names = list(inventory["_meta"]["hostvars"] or {})
    wanted = {host: images.Image.parse(image, baked=baked) for host in [*names, *extra]}
    hosts.up(name, wanted, None, {})
    project = hosts.existing(name)
    overlay = project.directory / "overlay"
    access = hosts.access(project)
    reached = {host: address for host, address in hosts.addresses(project).items() if host in names}
    write_if_changed(overlay / "hosts.yml", render_yaml(access, reached))
    hosts.write_inventory(project, project.directory)

    variables = {
        "lab_apps": str(LAB / "apps"),
        # Where HTTPS is intercepted, the lab's hosts trust whom this machine trusts.
        "nodejs_ca_file": "/etc/ssl/certs/ca-certificates.crt",
        "platform_secrets_file": str(project.directory / "secrets.vault.yml"),
        **served(project, inventory),
    }
    group = overlay / "group_vars" / "all"
    write_if_changed(group / "stand-ins.yml", system.stand_ins.read_text(encoding="utf-8"))
    write_if_changed(group / "lab.yml", json.dumps(variables, indent=2) + "\n")
    password = project.directory / "vault-password"
    if not password.exists():
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(32) + "\n", encoding="ascii")
    return overlay

"""How Ansible and SSH reach the hosts: pure rendering."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Access:
    """How hosts of one project are reached."""

    project: str
    key: Path
    control: Path

    def options(self) -> dict[str, str]:
        """SSH options: hosts come and go at the same address, so their keys are not remembered."""
        return {
            "UserKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "no",
            "LogLevel": "ERROR",
            "ConnectTimeout": "10",
            "ControlMaster": "auto",
            "ControlPersist": "60s",
            "ControlPath": f"{self.control / self.project}-%h-%r",
        }

    def arguments(self) -> list[str]:
        """The same as arguments of ssh."""
        return [part for key, value in self.options().items() for part in ("-o", f"{key}={value}")]


def render_yaml(access: Access, hosts: Mapping[str, str]) -> str:
    """A YAML inventory of host names and addresses; JSON's strings are YAML's."""
    shared = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(access.key),
        "ansible_ssh_common_args": " ".join(access.arguments()),
        "ansible_ssh_pipelining": True,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    lines = ["---", "all:", "  hosts:" if hosts else "  hosts: {}"]
    for name, address in hosts.items():
        lines.append(f"    {json.dumps(name)}:")
        variables = {"ansible_host": address, **shared}
        lines += [f"      {key}: {json.dumps(value)}" for key, value in variables.items()]
    return "\n".join(lines) + "\n"


def render_ssh_config(access: Access, hosts: Mapping[str, str]) -> str:
    """The same as an ssh_config, for ssh and testinfra."""
    lines = []
    for name, address in hosts.items():
        lines += [f"Host {name}", f"  HostName {address}", "  User root"]
        lines += [f'  IdentityFile "{access.key}"', "  IdentitiesOnly yes"]
        lines += [f"  {key} {value}" for key, value in access.options().items()]
    return "\n".join(lines) + "\n"

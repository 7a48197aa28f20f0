"""Renders a role's templates without a host, with Ansible's own template engine.

    from render import render, role_vars, spec_errors

    text = render("nginx", "nginx.conf.j2", {"nginx_settings": {"worker_connections": 512}})

What a play would see is there: the role's defaults and vars (lazily templated, as Ansible does),
the collection's own filters and tests, `host(...)` in place of the facts, and whatever the test
gives. An undefined variable is an error, as it is in a play.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.utils.collection_loader import AnsibleCollectionConfig

ROOT = Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / ".work" / "collections"


def _install_collection_loader() -> None:
    """Ansible's collection finder, even where tests imported the collection as plain packages.

    Only the namespace packages are forgotten, so that modules which are already imported stay the
    same objects and their classes compare equal.
    """
    if AnsibleCollectionConfig.collection_finder is not None:
        return
    for name, module in list(sys.modules.items()):
        if (
            name.split(".")[0] == "ansible_collections"
            and getattr(module, "__file__", None) is None
        ):
            del sys.modules[name]
    init_plugin_loader([str(COLLECTIONS)])


_install_collection_loader()
_LOADER = DataLoader()
_LOADER.set_basedir(str(ROOT))


def host(
    distribution: str = "debian",
    version: str = "13",
    codename: str = "trixie",
    *,
    cores: int = 2,
    memory_mb: int = 4096,
    packages: dict[str, str] | None = None,
    units: dict[str, dict[str, str]] | None = None,
    users: dict[str, dict[str, Any]] | None = None,
    groups: dict[str, int] | None = None,
    addresses: list[str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """`ansible_facts` with a host as berth.platform.host_facts describes it."""
    facts: dict[str, Any] = {
        "distribution": {"id": distribution, "version": version, "codename": codename},
        "architecture": "amd64",
        "cores": cores,
        "memory_mb": memory_mb,
        "packages": packages or {},
        "units": units or {},
        "users": users or {},
        "groups": groups or {},
        "hostname": "h1",
        "addresses": addresses or ["127.0.0.1", "10.0.0.1"],
        "pending": [],
        "python": "3.11.2",
    }
    return {"berth_host": facts | more}


def _load(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    return dict(_LOADER.load_from_file(str(path), cache="none", trusted_as_template=True) or {})


def role_vars(role: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
    """Defaults, then vars, then what is given: untemplated, as Ansible holds them."""
    base = ROOT / "roles" / role
    return {
        "ansible_facts": host(),
        "ansible_managed": "Ansible managed",
        "inventory_hostname": "h1",
        "role_name": role,
        "role_path": str(base),
        **_load(base / "defaults" / "main.yml"),
        **_load(base / "vars" / "main.yml"),
        **_trusted(variables or {}),
    }


def _trusted(value: Any) -> Any:
    """Strings written in a test are templates, as strings written in a playbook are."""
    if isinstance(value, str):
        return trust_as_template(value) if "{{" in value else value
    if isinstance(value, dict):
        return {key: _trusted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_trusted(inner) for inner in value]
    return value


def _templar(role: str, variables: dict[str, Any]) -> Templar:
    base = ROOT / "roles" / role
    search = [str(base / "templates"), str(base)]
    templar = Templar(loader=_LOADER)
    return templar.copy_with_new_env(searchpath=search, available_variables=variables)


def render(role: str, template: str, variables: dict[str, Any] | None = None) -> str:
    """The text of roles/<role>/templates/<template> for these variables."""
    source = ROOT / "roles" / role / "templates" / template
    text = source.read_text(encoding="utf-8")
    overrides = {"trim_blocks": True, "lstrip_blocks": False}
    result = _templar(role, role_vars(role, variables)).template(
        trust_as_template(text), escape_backslashes=False, overrides=overrides
    )
    return "" if result is None else str(result)


def evaluate(role: str, expression: str, variables: dict[str, Any] | None = None) -> Any:
    """The value of an expression, e.g. a private variable of the role: `__nginx_files`."""
    templar = _templar(role, role_vars(role, variables))
    return templar.template(trust_as_template("{{ " + expression + " }}"))


def spec_errors(role: str, variables: dict[str, Any]) -> list[str]:
    """What the role's argument_specs say against these variables, as its first task would."""
    specs = _load(ROOT / "roles" / role / "meta" / "argument_specs.yml")
    options = specs["argument_specs"]["main"].get("options", {})
    result = ArgumentSpecValidator(options).validate(variables)
    return [str(message) for message in result.error_messages]

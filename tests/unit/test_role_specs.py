"""A role's defaults and its argument specification say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.berth.platform.plugins.module_utils import wiring

# A directory without files is one that git does not know, left behind by another branch.
ROLES = sorted(
    path for path in (Path(__file__).parents[2] / "roles").iterdir() if any(path.glob("*/*"))
)
PARTS = ("defaults/main.yml", "meta/argument_specs.yml", "meta/main.yml", "tasks/main.yml")


def load(path: Path) -> Any:
    """A YAML file; an empty one is an empty mapping."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def specification(role: Path) -> dict[str, Any]:
    """The options of the role's main entry point."""
    return load(role / "meta/argument_specs.yml")["argument_specs"]["main"].get("options", {})


def undescribed(where: str, options: dict[str, Any]) -> list[str]:
    """Options, nested ones too, without a type or a description."""
    found = []
    for name, option in options.items():
        found += [f"{where}{name}.{key}" for key in ("type", "description") if not option.get(key)]
        found += undescribed(f"{where}{name}.", option.get("options", {}))
    return found


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
class TestRole:
    """What holds for every role."""

    def test_has_all_parts(self, role: Path) -> None:
        missing = [part for part in (*PARTS, "README.md") if not (role / part).exists()]
        assert not missing

    def test_same_variables(self, role: Path) -> None:
        required = {name for name, option in specification(role).items() if option.get("required")}
        assert set(load(role / "defaults/main.yml")) == set(specification(role)) - required

    def test_same_defaults(self, role: Path) -> None:
        specified = {
            name: option.get("default")
            for name, option in specification(role).items()
            if not option.get("required")
        }
        assert load(role / "defaults/main.yml") == specified

    def test_described(self, role: Path) -> None:
        assert undescribed("", specification(role)) == []

    def test_named_after_the_role(self, role: Path) -> None:
        private = role / "vars/main.yml"
        public = [name for name in specification(role) if not name.startswith(f"{role.name}_")]
        names = load(private) if private.exists() else {}
        assert public == []
        assert [name for name in names if not name.startswith(f"__{role.name}_")] == []

    def test_depends_on_no_role(self, role: Path) -> None:
        assert load(role / "meta/main.yml").get("dependencies") == []


def test_the_plan_names_the_packages_that_the_roles_install() -> None:
    roles = {"edge": "nginx", "rabbitmq": "rabbitmq", "redis": "redis"}
    lists = {
        component: load(ROLES[0].parent / role / "vars/main.yml")[f"__{role}_packages"]
        for component, role in roles.items()
    }
    assert {name: sorted(names) for name, names in lists.items()} == wiring.COMPONENT_PACKAGES

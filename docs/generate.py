"""Writes docs/roles/<role>.md from each role's argument specification; --check only compares."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "roles"


def sentences(text: Any) -> str:
    """A description, which may be a list of paragraphs, on one line of a table."""
    parts = text if isinstance(text, list) else [text or ""]
    return " ".join(str(part).strip() for part in parts).replace("|", "\\|").replace("\n", " ")


def default(option: dict[str, Any]) -> str:
    """An option's default as YAML, short."""
    if option.get("required"):
        return "required"
    if "default" not in option:
        return ""
    text = yaml.safe_dump(option["default"], default_flow_style=True, width=10000).strip()
    text = text.removesuffix("\n...").strip()
    return f"`{text}`" if len(text) <= 80 else "see defaults/main.yml"


def kind(option: dict[str, Any]) -> str:
    """An option's type."""
    name = str(option.get("type", "str"))
    if elements := option.get("elements"):
        name = f"{name} of {elements}"
    if choices := option.get("choices"):
        name += ": " + ", ".join(f"`{choice}`" for choice in choices)
    return name


def rows(options: dict[str, Any], prefix: str = "") -> list[str]:
    """A row an option, nested ones below their parent."""
    lines = []
    for name, option in options.items():
        shown = f"{prefix}{name}"
        lines.append(
            f"| `{shown}` | {kind(option)} | {default(option)} "
            f"| {sentences(option.get('description'))} |"
        )
        if nested := option.get("options"):
            lines += rows(nested, f"{shown}.")
    return lines


def page(role: Path) -> str:
    """A role's page: its README, then every variable."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    readme = role / "README.md"
    lines = [readme.read_text().rstrip() if readme.exists() else f"# {role.name}", ""]
    for entry, spec in specs.items():
        title = "Variables" if entry == "main" else f"Variables of `tasks_from: {entry}`"
        lines += [f"## {title}", "", sentences(spec.get("description")), ""]
        if options := spec.get("options"):
            lines += ["| variable | type | default | what it is |", "|---|---|---|---|"]
            lines += [*rows(options), ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Write the pages, or say which are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    wanted = {
        PAGES / f"{role.name}.md": page(role)
        for role in sorted((ROOT / "roles").iterdir())
        if (role / "meta" / "argument_specs.yml").is_file()
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    stale += [path for path in PAGES.glob("*.md") if path not in wanted]
    if check:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: make docs")
        return 1 if stale else 0
    PAGES.mkdir(exist_ok=True)
    for path in stale:
        if path in wanted:
            path.write_text(wanted[path])
        else:
            path.unlink()
    print(f"{len(stale)} of {len(wanted)} pages written")
    return 0


if __name__ == "__main__":
    sys.exit(main())

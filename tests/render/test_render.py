"""The helper renders as a play would."""

from __future__ import annotations

from pathlib import Path

import pytest
import render


@pytest.fixture
def role(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path / "roles" / "thing"
    for folder in ("defaults", "vars", "templates", "meta"):
        (base / folder).mkdir(parents=True)
    (base / "defaults/main.yml").write_text(
        'thing_name: one\nthing_greeting: "hello {{ thing_name }}"\n'
    )
    (base / "vars/main.yml").write_text('__thing_id: "{{ ansible_facts.berth_host.hostname }}"\n')
    (base / "meta/argument_specs.yml").write_text(
        "argument_specs:\n  main:\n    options:\n      thing_name: {type: str}\n"
        "      thing_list:\n        type: list\n        elements: dict\n"
        "        options: {size: {type: int}}\n"
    )
    monkeypatch.setattr(render, "ROOT", tmp_path)
    return base


def test_defaults_are_lazy_and_vars_see_the_facts(role: Path) -> None:
    (role / "templates/a.j2").write_text(
        "{% if true %}\n{{ thing_greeting }} on {{ __thing_id }}\n{% endif %}\n"
    )
    assert render.render("thing", "a.j2") == "hello one on h1\n"
    assert render.render("thing", "a.j2", {"thing_name": "two"}) == "hello two on h1\n"
    assert render.evaluate("thing", "[thing_greeting]") == ["hello one"]


def test_an_include_is_found_beside_the_template(role: Path) -> None:
    (role / "templates/a.j2").write_text("{% include 'b.j2' %}")
    (role / "templates/b.j2").write_text("{{ thing_name | upper }}")
    assert render.render("thing", "a.j2") == "ONE"


def test_undefined_is_an_error(role: Path) -> None:
    (role / "templates/a.j2").write_text("{{ nothing }}")
    with pytest.raises(Exception, match="nothing"):
        render.render("thing", "a.j2")


def test_the_specs_name_what_is_wrong(role: Path) -> None:
    assert render.spec_errors("thing", {"thing_list": [{"size": 3}]}) == []
    (error,) = render.spec_errors("thing", {"thing_list": [{"sise": 3}]})
    assert "sise" in error

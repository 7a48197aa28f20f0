"""Which images there are and when they are built anew."""

from pathlib import Path

import pytest
from berth_lab import images
from berth_lab.artifacts import fetches_toolchains
from berth_lab.machine import LabError


@pytest.mark.parametrize(
    ("text", "baked", "expected"),
    [
        ("debian13", False, "debian13-bare"),
        ("debian13", True, "debian13-baked"),
        ("debian12-baked", False, "debian12-baked"),
        ("debian12-bare", True, "debian12-bare"),
    ],
)
def test_the_name_decides_before_the_default(text: str, baked: bool, expected: str) -> None:
    assert str(images.Image.parse(text, baked=baked)) == expected


@pytest.mark.parametrize("text", ["", "debian", "debian13-half", "debian13-build", "ubuntu"])
def test_an_unknown_image_is_an_error_that_lists_the_known(text: str) -> None:
    with pytest.raises(LabError, match="debian13"):
        images.Image.parse(text)


def test_comments_and_empty_lines_are_no_packages() -> None:
    assert images.package_list("# why\n\nnginx # web\n  git\n") == ["nginx", "git"]


def test_baked_holds_all_that_bare_holds_and_bare_holds_no_service() -> None:
    bare = images.packages(images.Image("debian13", "bare"))
    baked = images.packages(images.Image("debian13", "baked"))
    assert set(bare) < set(baked)
    assert not {"nginx", "nftables", "postgresql"} & set(bare)


def test_each_kind_of_image_and_each_certificate_gives_a_recipe_of_its_own() -> None:
    bare, baked = (images.Image("debian13", kind) for kind in ("bare", "baked"))
    seen = {images.recipe(bare, []), images.recipe(baked, []), images.recipe(bare, ["one"])}
    assert len(seen) == 3


def test_only_certificates_that_debian_does_not_ship_are_local(tmp_path: Path) -> None:
    def certificate(body: str) -> str:
        return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"

    (tmp_path / "known").mkdir()
    (tmp_path / "known" / "a.crt").write_text(certificate("debian"))
    bundle = tmp_path / "bundle.crt"
    bundle.write_text(certificate("debian") + certificate("company"))
    assert images.local_certificates(bundle, tmp_path / "known") == [certificate("company")]
    assert images.local_certificates(tmp_path / "none", tmp_path) == []


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("go version go1.19.8 linux/amd64", False),
        ("go version go1.21 linux/amd64", True),
        ("go version go1.26.8 linux/amd64", True),
        ("command not found", False),
    ],
)
def test_a_go_before_toolchains_is_not_used(version: str, expected: bool) -> None:
    assert fetches_toolchains(version) is expected

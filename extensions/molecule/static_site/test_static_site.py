"""A site as its web server meets it: one whole version at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPA = Path(__file__).parents[3] / "lab" / "apps" / "spa"


def site(artifact: Path, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": "app",
            "link": "/var/www/app/build",
            "directory": "/var/www/app/releases",
            "artifact": {"path": str(artifact)},
            **more,
        }
    ]


def test_the_site_is_there_for_everybody_to_read(host: Any) -> None:
    served = host.check_output("runuser -u nobody -- cat /var/www/app/build/index.html")
    assert served == (SPA / "index.html").read_text().rstrip("\n")


def test_a_new_version_is_switched_to_and_the_old_one_stays(
    host: Any, converge: Any, tmp_path: Path
) -> None:
    first = host.check_output("readlink -f /var/www/app/build")
    (tmp_path / "index.html").write_text("<p>second</p>")
    done = converge(static_site_sites=site(tmp_path, version="v2"))
    assert done.returncode == 0, done.stdout
    assert host.file("/var/www/app/build/index.html").content_string == "<p>second</p>"
    assert host.file(f"{first}/index.html").exists
    done = converge()
    assert done.returncode == 0, done.stdout
    assert host.check_output("readlink -f /var/www/app/build") == first


def test_only_the_last_versions_stay(host: Any, converge: Any, tmp_path: Path) -> None:
    for number in range(3, 7):
        (tmp_path / "index.html").write_text(f"<p>{number}</p>")
        done = converge(static_site_sites=site(tmp_path, version=f"v{number}"))
        assert done.returncode == 0, done.stdout
    kept = host.check_output("ls /var/www/app/releases").split()
    assert len(kept) == 3 and {"v6", "v5"} <= set(kept)


def test_a_folder_in_the_way_is_not_overwritten(host: Any, converge: Any) -> None:
    host.check_output("mkdir -p /var/www/other/build && touch /var/www/other/build/mine")
    done = converge(static_site_sites=site(SPA, link="/var/www/other/build"))
    assert done.returncode != 0
    assert "is not a symbolic link" in done.stdout
    assert host.file("/var/www/other/build/mine").exists

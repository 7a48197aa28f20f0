"""What is rendered for the firewall is what nft itself accepts, with edge values."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.filter.nftables_rules import nftables_rules

CHECK = ["unshare", "--net", "nft", "--check", "--file", "-"]
EDGES: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "everyone": [{"port": 1, "sources": ["any"]}, {"port": "1-65535", "sources": ["any"]}],
    "families": [
        {"port": 53, "protocol": "udp", "sources": ["10.0.0.0/8", "fd00::/8", "2001:db8::1"]},
        {"port": 53, "protocol": "udp", "sources": ["0.0.0.0/0"]},
        {"port": 53, "protocol": "tcp", "sources": ["::/0"]},
    ],
    "overlaps": [
        {"port": "80-90", "sources": ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.1", "10.1.1.1"]},
        {"port": "85-95", "sources": ["10.0.0.0/9", "10.128.0.0/9"]},
    ],
    "comments": [
        {"port": 1, "sources": ["any"], "comment": 'quo"te \\ and\nline { } ; # $x'},
        {"port": 2, "sources": ["any"], "comment": "ü€" * 200},
        {"port": 3, "sources": ["any"], "comment": ""},
    ],
    "many": [{"port": port, "sources": [f"10.{port % 256}.0.0/16"]} for port in range(5000, 5500)],
}


def run(text: str) -> subprocess.CompletedProcess[str]:
    """Ask nft, in a network namespace of its own."""
    return subprocess.run(CHECK, input=text, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", autouse=True)
def nft() -> None:
    """Only a machine with nft, and a user who may make namespaces, can tell."""
    try:
        usable = run("table inet x { }\n").returncode == 0
    except FileNotFoundError:
        usable = False
    if not usable:
        pytest.skip("nft cannot be run in a network namespace here")


@pytest.mark.parametrize("options", [{}, {"icmp": False, "log": True}], ids=["plain", "log"])
@pytest.mark.parametrize("interfaces", [[], ["podman*"], ["podman*", "br-*", "docker0"]], ids=len)
@pytest.mark.parametrize("name", EDGES)
def test_nft_accepts(name: str, interfaces: list[str], options: dict[str, bool]) -> None:
    text = nftables_rules(EDGES[name], container_interfaces=interfaces, **options)
    done = run(text)
    assert done.returncode == 0, f"{done.stderr}\n{text}"

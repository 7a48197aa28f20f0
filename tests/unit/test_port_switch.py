"""Switches of ports: what is understood, what is refused, what nft is given."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from ansible_collections.berth.platform.plugins.module_utils import port_switch as core
from hypothesis import given
from hypothesis import strategies as st

PORT = st.integers(1, 65535)


def test_defaults() -> None:
    assert core.parse([{"port": 3000}, {"address": "10.0.0.5", "port": 3000, "to": 3001}]) == [
        core.Switch("0.0.0.0", 3000, 3000),
        core.Switch("10.0.0.5", 3000, 3001),
    ]


def test_all_faults_at_once() -> None:
    with pytest.raises(core.SwitchError) as caught:
        core.parse(
            [
                {"address": "localhost", "port": 3000},
                {"port": 0, "to": 70000},
                {"port": 5, "to": 6},
                {"port": 5, "to": 7},
            ]
        )
    assert caught.value.faults == [
        "switches[0].address: 'localhost': an IPv4 address is expected",
        "switches[1].port: 0: a port from 1 to 65535 is expected",
        "switches[1].to: 70000: a port from 1 to 65535 is expected",
        "switches: port 5 of 0.0.0.0 is named more than once",
    ]


class TestMerge:
    def test_the_others_stay(self) -> None:
        there = core.parse([{"port": 1, "to": 2}, {"port": 3, "to": 4}])
        wanted = core.parse([{"port": 3, "to": 5}])
        assert core.merge(there, wanted) == core.parse([{"port": 1, "to": 2}, {"port": 3, "to": 5}])

    def test_one_to_the_port_itself_is_none(self) -> None:
        assert core.merge(core.parse([{"port": 1, "to": 2}]), core.parse([{"port": 1}])) == []

    @pytest.mark.parametrize("address", ["0.0.0.0", "10.0.0.5"])
    def test_one_that_leads_to_another_is_refused(self, address: str) -> None:
        there = core.parse([{"address": "10.0.0.5", "port": 2, "to": 3}])
        with pytest.raises(core.SwitchError, match="would go to 2, which itself goes to 3"):
            core.merge(there, core.parse([{"address": address, "port": 1, "to": 2}]))

    def test_elsewhere_it_may(self) -> None:
        there = core.parse([{"address": "10.0.0.6", "port": 2, "to": 3}])
        wanted = core.parse([{"address": "10.0.0.5", "port": 1, "to": 2}])
        assert len(core.merge(there, wanted)) == 2


@given(st.dictionaries(PORT, PORT, max_size=5))
def test_what_was_written_down_is_read_again(ports: dict[int, int]) -> None:
    switches = core.parse([{"port": port, "to": to} for port, to in ports.items()])
    assert core.load(core.dump(switches)) == switches
    assert core.load("") == []


def test_chains_are_never_taken_away() -> None:
    for given_switches in [], [{"port": 1, "to": 2}]:
        text = core.render(core.parse(given_switches))
        assert "delete" not in text
        assert text.count("add chain") == 2


@pytest.mark.skipif(not shutil.which("nft"), reason="needs nft")
@pytest.mark.parametrize(
    "given",
    [
        [],
        [{"port": 1, "to": 2}],
        [{"address": "10.0.0.5", "port": 1, "to": 2}, {"address": "10.0.0.6", "port": 1, "to": 2}],
    ],
)
def test_nft_understands_it(given: list[dict[str, object]]) -> None:
    text = core.render(core.parse(given))
    done = subprocess.run(
        ["nft", "-c", "-f", "-"], input=text, capture_output=True, text=True, check=False
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("nft may not look at the kernel's tables here")
    assert done.returncode == 0, done.stderr


def test_what_the_kernel_lists_is_read() -> None:
    listing = {
        "nftables": [
            {"metainfo": {}},
            {"table": {"family": "inet", "name": "berth_switch"}},
            {
                "map": {
                    "name": "addressed",
                    "elem": [[{"concat": ["10.0.0.5", 1]}, {"concat": ["10.0.0.5", 2]}]],
                }
            },
            {"map": {"name": "everywhere", "elem": [[3, 4]]}},
            {"map": {"name": "everywhere"}},
        ]
    }
    assert core.loaded(json.dumps(listing)) == core.parse(
        [{"port": 3, "to": 4}, {"address": "10.0.0.5", "port": 1, "to": 2}]
    )
    assert core.loaded("") == []

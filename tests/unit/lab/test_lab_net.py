"""Which addresses the lab takes."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from berth_lab import net

POOL = net.POOL


def networks(*texts: str) -> list[IPv4Network]:
    return [IPv4Network(text) for text in texts]


def test_the_first_subnet_of_the_pool_is_taken_when_all_are_free() -> None:
    assert net.choose_subnet(networks("192.0.2.0/24")) == IPv4Network("10.231.0.0/24")


def test_a_gap_that_another_project_left_is_used_again() -> None:
    taken = networks("10.231.0.0/24", "10.231.2.0/24")
    assert net.choose_subnet(taken) == IPv4Network("10.231.1.0/24")


@pytest.mark.parametrize(
    ("taken", "expected"),
    [("10.231.0.0/20", "10.231.16.0/24"), ("10.231.0.128/25", "10.231.1.0/24")],
)
def test_subnets_of_another_size_block_what_they_overlap(taken: str, expected: str) -> None:
    assert net.choose_subnet(networks(taken)) == IPv4Network(expected)


def test_the_route_of_a_vpn_over_the_whole_pool_does_not_block_it() -> None:
    assert net.choose_subnet(networks("10.0.0.0/8")) == IPv4Network("10.231.0.0/24")


def test_an_exhausted_pool_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(net.NoRoomError, match="down --all"):
        net.choose_subnet([POOL])


@pytest.mark.parametrize("text", ["10.0.0.0/25", "8.8.8.0/24", "10.231.0.1/24", "nonsense"])
def test_a_subnet_that_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        net.parse_subnet(text)


def test_addresses_begin_at_eleven_and_fill_gaps() -> None:
    subnet = IPv4Network("10.231.7.0/24")
    used = [IPv4Address("10.231.7.11"), IPv4Address("10.231.7.13"), IPv4Address("10.231.7.250")]
    assert net.next_address(subnet, []) == IPv4Address("10.231.7.11")
    assert net.next_address(subnet, used) == IPv4Address("10.231.7.12")


def test_hosts_never_reach_the_depots_address() -> None:
    subnet = IPv4Network("10.231.7.0/24")
    used = [subnet.network_address + number for number in range(net.FIRST_HOST, net.DEPOT)]
    with pytest.raises(net.NoRoomError):
        net.next_address(subnet, used)


def test_a_hardware_address_is_local_unicast_and_follows_the_address() -> None:
    mac = net.mac_address(IPv4Address("10.231.0.12"))
    assert mac == "02:4c:0a:e7:00:0c"
    assert int(mac[:2], 16) & 0b11 == 0b10

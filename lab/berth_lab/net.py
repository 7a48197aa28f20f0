"""Addresses: pure functions over what is taken."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

POOL = IPv4Network("10.231.0.0/16")
FIRST_HOST = 11
DEPOT = 250


class NoRoomError(ValueError):
    """Nothing free is left."""


def parse_subnet(text: str) -> IPv4Network:
    """A subnet in which the lab's fixed addresses have room."""
    subnet = IPv4Network(text)
    if subnet.prefixlen > 24 or not subnet.is_private:
        raise ValueError(f"{text}: a private subnet of /24 or more is needed")
    return subnet


def choose_subnet(taken: Iterable[IPv4Network], pool: IPv4Network = POOL) -> IPv4Network:
    """The first /24 of the pool that overlaps nothing.

    Routes wider than the pool are left out: a VPN's 10.0.0.0/8 covers every choice, and the
    network's own route is the narrower one and wins.
    """
    blocking = [net for net in taken if net.prefixlen >= pool.prefixlen]
    for subnet in pool.subnets(new_prefix=24):
        if not any(subnet.overlaps(net) for net in blocking):
            return subnet
    raise NoRoomError(f"no free /24 is left in {pool}; lab/lab down --all frees those of the lab")


def next_address(subnet: IPv4Network, used: Iterable[IPv4Address]) -> IPv4Address:
    """The lowest free host address, .11 being the first."""
    taken = set(used)
    for number in range(FIRST_HOST, DEPOT):
        if (address := subnet.network_address + number) not in taken:
            return address
    raise NoRoomError(f"no free address is left in {subnet}")


def mac_address(address: IPv4Address) -> str:
    """A hardware address that stays with the address.

    A random one would change at every start, and whoever talked to the host before would go on
    sending to the old one for half a minute.
    """
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x4C, *address.packed))

"""Who listens, from tables of /proc as kernels write them, and on this machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from ansible_collections.berth.platform.plugins.module_utils import sockets
from ansible_collections.berth.platform.plugins.module_utils.sockets import (
    Listener,
    Planned,
    Process,
    Socket,
    conflicts,
    decode_address,
    join,
    parse_table,
    process_name,
    unit_of_cgroup,
)
from hypothesis import given
from hypothesis import strategies as st

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   112        0 4242 1 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4343 1 0
   2: 0100007F:1538 0100007F:9C40 01 00000000:00000000 00:00000000 00000000   112        0 4444 1 0
   3: junk
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx rx tr tm uid
   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 0 0 0 0 0 77 1
   1: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 0 0 0 0 0 78 1
"""
UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode ref
    1: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 55 2 0 0
    2: 0200000A:D431 0100000A:0035 01 00000000:00000000 00:00000000 00000000     0        0 56 2 0 0
"""


def test_tables() -> None:
    assert parse_table(TCP, "tcp", "little") == [
        Socket("tcp", "127.0.0.1", 5432, 4242, 4),
        Socket("tcp", "0.0.0.0", 22, 4343, 4),
    ]
    assert parse_table(TCP6, "tcp", "little") == [
        Socket("tcp", "::", 443, 77, 6),
        Socket("tcp", "127.0.0.1", 8080, 78, 6),
    ]
    assert parse_table(UDP, "udp", "little") == [Socket("udp", "0.0.0.0", 68, 55, 4)]
    assert parse_table("", "tcp") == []


def test_both_byte_orders() -> None:
    assert decode_address("0100007F", "little") == decode_address("7F000001", "big")
    assert decode_address("B80D0120000000000000000001000000", "little") == "2001:db8::1"
    assert decode_address("20010DB8000000000000000000000001", "big") == "2001:db8::1"


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/system.slice/nginx.service\n", "nginx.service"),
        (
            "0::/system.slice/system-postgresql.slice/postgresql@17-main.service\n",
            "postgresql@17-main.service",
        ),
        ("12:cpu:/x.service\n1:name=systemd:/system.slice/a.service\n0::/\n", "a.service"),
        ("0::/\n1:name=systemd:/system.slice/b.service\n", "b.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service\n", "foo.service"),
        ("0::/user.slice/user-0.slice/session-3.scope\n", "session-3.scope"),
        ("0::/system.slice/docker-0123abc.scope\n", "docker-0123abc.scope"),
        ("0::/docker/0123abc\n", ""),
        ("0::/system.slice/a.service/worker\n", "a.service"),
        ("", ""),
    ],
)
def test_units(text: str, unit: str) -> None:
    assert unit_of_cgroup(text) == unit


@pytest.mark.parametrize(
    ("comm", "cmdline", "name"),
    [
        ("nginx\n", b"nginx: master process /usr/sbin/nginx\0", "nginx"),
        (
            "a-very-long-nam\n",
            b"/opt/a-very-long-name-indeed\0--password=x\0",
            "a-very-long-name-indeed",
        ),
        ("node\n", b"/usr/bin/node\0--secret=hunter2\0", "node"),
        ("kthread\n", b"", "kthread"),
        ("exactly15-chars\n", b"exactly15-chars secret in the title\0", "exactly15-chars"),
    ],
)
def test_names_hold_no_arguments(comm: str, cmdline: bytes, name: str) -> None:
    assert process_name(comm, cmdline) == name


def test_workers_of_one_socket_are_one_listener() -> None:
    found = join(
        [Socket("tcp", "0.0.0.0", 80, 7, 4), Socket("tcp", "::", 80, 8, 6)],
        {
            7: [Process(30, "nginx", "nginx.service"), Process(10, "nginx", "nginx.service")],
            8: [Process(10, "nginx", "nginx.service")],
        },
    )
    assert found == [
        Listener("tcp", "0.0.0.0", 80, 10, "nginx", "nginx.service"),
        Listener("tcp", "::", 80, 10, "nginx", "nginx.service"),
    ]
    assert join([Socket("tcp", "::", 80, 9, 6)], {}) == [Listener("tcp", "::", 80)]


NODE = Listener("tcp", "0.0.0.0", 5006, 4711, "node", "other.service")


@pytest.mark.parametrize(
    ("listener", "planned", "clash"),
    [
        (NODE, Planned(5006, units=("sales.service",), owner="sales"), True),
        (NODE, Planned(5006, units=("other.service",)), False),
        (NODE, Planned(5006, processes=("node",)), False),
        (NODE, Planned(5006, units=("sales.service",), processes=("node",)), False),
        (NODE, Planned(5006, "udp", units=("sales.service",)), False),
        (NODE, Planned(5007, units=("sales.service",)), False),
        (NODE, Planned(5006), True),
        (Listener("tcp", "::", 5006), Planned(5006, units=("sales.service",)), True),
        (
            Listener("tcp", "::", 1, 1, "systemd", "sales.socket"),
            Planned(1, units=("sales.service",)),
            False,
        ),
        (
            Listener("tcp", "::", 1, 9, "postgres", "postgresql@17-main.service"),
            Planned(1, units=("postgresql@.service",)),
            False,
        ),
        (
            Listener("tcp", "::", 1, 9, "postgres", "postgresql@17-main.service"),
            Planned(1, units=("postgresql@16-main.service",)),
            True,
        ),
        (
            Listener("tcp", "127.0.0.53", 53, 9, "resolved", "systemd-resolved.service"),
            Planned(53, address="10.0.0.1", units=("dns.service",)),
            False,
        ),
        (
            Listener("tcp", "::", 53, 9, "x", "x.service"),
            Planned(53, address="10.0.0.1", units=("dns.service",)),
            True,
        ),
        (
            Listener("tcp", "::1", 53, 9, "x", "x.service"),
            Planned(53, address="10.0.0.1", units=("dns.service",)),
            False,
        ),
        (
            Listener("tcp", "10.0.0.1", 53, 9, "x", "x.service"),
            Planned(53, address="0.0.0.0", units=("dns.service",)),
            True,
        ),
    ],
)
def test_conflicts(listener: Listener, planned: Planned, clash: bool) -> None:
    assert bool(conflicts([listener], [planned])) is clash


def test_a_conflict_names_everybody() -> None:
    (found,) = conflicts([NODE], [Planned(5006, units=("sales.service",), owner="sales")])
    assert found.message == (
        "tcp port 5006 is planned for sales, "
        "but node (pid 4711, unit other.service) listens on 0.0.0.0"
    )
    both = [NODE, Listener("tcp", "::", 5006, 4711, "node", "other.service")]
    assert len(conflicts(both, [Planned(5006, owner="sales")])) == 1


def test_a_port_may_have_two_owners_on_two_addresses() -> None:
    planned = [
        Planned(80, address="10.0.0.1", units=("a.service",)),
        Planned(80, address="10.0.0.2", units=("b.service",)),
    ]
    right = [
        Listener("tcp", "10.0.0.1", 80, 1, "x", "a.service"),
        Listener("tcp", "10.0.0.2", 80, 2, "x", "b.service"),
    ]
    wrong = [Listener("tcp", "10.0.0.1", 80, 2, "x", "b.service")]
    assert conflicts(right, planned) == []
    assert len(conflicts(wrong, planned)) == 1


@given(st.ip_addresses())
def test_addresses_survive_the_kernel_s_notation(address: object) -> None:
    import ipaddress

    assert isinstance(address, (ipaddress.IPv4Address, ipaddress.IPv6Address))
    raw = address.packed
    words = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    mapped = getattr(address, "ipv4_mapped", None)
    assert decode_address(words.hex().upper(), "little") == str(mapped or address)


def test_a_listener_of_this_process_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        mine = [item for item in sockets.read_listeners() if item.port == port]
    assert [(item.protocol, item.address, item.pid) for item in mine] == [
        ("tcp", "127.0.0.1", os.getpid())
    ]


def test_processes_that_vanish_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "1/fd").mkdir(parents=True)
    (tmp_path / "1/fd/3").symlink_to("socket:[9]")
    (tmp_path / "1/fd/4").symlink_to("pipe:[9]")
    (tmp_path / "2").mkdir()
    (tmp_path / "self").mkdir()
    assert sockets.read_holders({9}, str(tmp_path)) == {9: [Process(1)]}
    assert sockets.read_holders(set(), str(tmp_path)) == {}

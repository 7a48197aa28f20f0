"""What the rules open is open from another host, the rest is not, and nobody is locked out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# TCP and UDP on each of these ports.
LISTEN = """
import selectors, socket
ready = selectors.DefaultSelector()
for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
    for port in {ports}:
        s = socket.socket(socket.AF_INET, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            s.listen()
        ready.register(s, selectors.EVENT_READ)
while True:
    for key, _ in ready.select():
        s = key.fileobj
        if s.type == socket.SOCK_STREAM:
            s.accept()[0].sendall(b"hello")
        else:
            s.sendto(b"hello", s.recvfrom(9)[1])
"""
ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_{kind})
s.settimeout(1.5)
try:
    s.connect(("{address}", {port}))
    if "{kind}" == "DGRAM":
        s.send(b"x")
    print(s.recv(9).decode())
except OSError as error:
    print(type(error).__name__)
"""
# podman in a container: without a cgroup tree of systemd's, and without overlays.
PODMAN = (
    "podman --root=/tmp/containers --storage-driver=vfs --runtime=runc "
    "--cgroup-manager=cgroupfs --log-level=error"
)
PACKAGES = "podman runc netavark aardvark-dns iptables busybox-static"
SUBNET = "{{range .Subnets}}{{.Subnet}}{{end}}"
OWN_ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
FETCH = """
from urllib.error import URLError
from urllib.request import urlopen
try:
    print(urlopen("http://{address}:{port}", timeout=1.5).read().decode())
except URLError as error:
    print(error.reason)
"""
ENGINE = f"""
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get install -qq --no-install-recommends {PACKAGES} >/dev/null
systemctl --quiet mask podman.service podman-restart.service podman-auto-update.service
mkdir -p /tmp/root/bin /tmp/root/www
cp /bin/busybox /tmp/root/bin/
for name in httpd nc wget; do ln -sf busybox /tmp/root/bin/$name; done
echo page >/tmp/root/www/index.html
tar -C /tmp/root -c . | {PODMAN} import -q - web >/dev/null
{PODMAN} network create shop
for name in one two; do
    publish=""
    [ $name = two ] || publish="--publish=7000:80 --publish=7001:80"
    {PODMAN} run --rm --detach --name $name --network shop $publish web httpd -f -p 80 -h /www
done
"""

testinfra_hosts = ["ansible://server"]


def listen(host: Any, name: str, ports: list[int]) -> None:
    """Start listeners that stay until the next boot."""
    host.run(f"systemctl stop {name}")
    host.check_output(
        f"systemd-run --collect --unit={name} --description={name} python3 -c %s",
        LISTEN.format(ports=ports),
    )


def ask(host: Any, address: str, port: int, kind: str = "STREAM") -> str:
    """What a connection gets; TimeoutError if the packets are dropped."""
    script = ASK.format(kind=kind, address=address, port=port)
    return str(host.check_output("python3 -c %s", script))


@pytest.fixture(scope="module")
def server(hosts: dict[str, Any]) -> Any:
    """The host with the firewall."""
    return hosts["server"]


@pytest.fixture(scope="module")
def client(hosts: dict[str, Any]) -> Any:
    """Another host, without."""
    return hosts["client"]


@pytest.fixture(scope="module")
def address(server: Any) -> str:
    """The server's."""
    return str(server.check_output("hostname -I").split()[0])


@pytest.fixture(scope="module")
def listeners(server: Any, client: Any) -> None:
    """Listeners on every port of the rules and beside them."""
    listen(client, "listeners", [8004])
    ports = [8000, 8001, 8002, 8003, 8004, 8099, 8100, 8101, 8102, 9000, 9001]
    listen(server, "listeners", ports)
    time.sleep(0.3)


OPEN = [(8000, "STREAM"), (8001, "STREAM"), (8100, "STREAM"), (8101, "STREAM"), (9000, "DGRAM")]
CLOSED = [
    (8002, "STREAM"),
    (8003, "STREAM"),
    (8004, "STREAM"),
    (8099, "STREAM"),
    (8102, "STREAM"),
    (8000, "DGRAM"),
    (9000, "STREAM"),
    (9001, "DGRAM"),
    (22, "STREAM"),
]


@pytest.mark.usefixtures("listeners")
class TestPorts:
    """Ports of the host itself, seen from another one."""

    @pytest.mark.parametrize(("port", "kind"), OPEN)
    def test_open(self, client: Any, address: str, port: int, kind: str) -> None:
        assert ask(client, address, port, kind) == "hello"

    @pytest.mark.parametrize(("port", "kind"), CLOSED)
    def test_closed(self, client: Any, address: str, port: int, kind: str) -> None:
        assert ask(client, address, port, kind) == "TimeoutError"

    def test_listens_all_the_same(self, server: Any, address: str) -> None:
        assert ask(server, address, 8004) == "hello"
        assert ask(server, "127.0.0.1", 9001, "DGRAM") == "hello"

    def test_way_out(self, server: Any, client: Any) -> None:
        assert ask(server, client.check_output("hostname -I").split()[0], 8004) == "hello"


@pytest.fixture(scope="class")
def inside(server: Any) -> Iterator[Callable[[str], str]]:
    """Two containers, of which one publishes ports; runs a command in the other."""
    server.check_output("sh -c %s", ENGINE)
    time.sleep(0.5)
    yield lambda command: str(server.run(f"{PODMAN} exec two {command}").stdout).strip()
    server.check_output(f"{PODMAN} rm --force --all --time 0; {PODMAN} network rm shop")


@pytest.mark.usefixtures("listeners")
class TestContainers:
    """Ports that podman publishes obey the rules, and nothing else of it is in the way."""

    def fetch(self, host: Any, address: str, port: int) -> str:
        """A page, or why there is none."""
        done = host.run("python3 -c %s", FETCH.format(address=address, port=port))
        return str(done.stdout).strip()

    def test_published(self, client: Any, address: str, inside: Callable[[str], str]) -> None:
        assert self.fetch(client, address, 7000) == "page"
        assert self.fetch(client, address, 7001) == "timed out"

    def test_own_address(
        self, server: Any, client: Any, address: str, inside: Callable[[str], str]
    ) -> None:
        network = server.check_output(f"{PODMAN} network inspect shop --format %s", SUBNET)
        own = server.check_output(f"{PODMAN} inspect one --format %s", OWN_ADDRESS)
        assert self.fetch(server, own, 80) == "page"
        client.check_output(f"ip route replace {network} via {address}")
        assert self.fetch(client, own, 80) == "timed out"
        client.check_output(f"ip route delete {network}")

    def test_names(self, server: Any, inside: Callable[[str], str]) -> None:
        if server.system_info.codename == "bookworm":
            pytest.skip("its podman's name server is silent here, even without a firewall")
        assert inside("wget -T 3 -q -O - http://one") == "page"

    def test_neighbours(self, address: str, inside: Callable[[str], str]) -> None:
        assert inside(f"wget -T 3 -q -O - http://{address}:7001") == "page"

    def test_way_out(self, client: Any, inside: Callable[[str], str]) -> None:
        outside = client.check_output("hostname -I").split()[0]
        assert inside(f"nc -w 2 {outside} 8004") == "hello"

    def test_host_is_not_open_to_it(self, address: str, inside: Callable[[str], str]) -> None:
        assert inside(f"nc -w 2 {address} 8004") == ""
        assert inside(f"nc -w 2 {address} 8000") == "hello"

    def test_rules_of_the_engine_stay(
        self, server: Any, client: Any, address: str, inside: Callable[[str], str], converge: Any
    ) -> None:
        def tables() -> set[str]:
            return set(server.check_output("nft list tables").splitlines())

        before = tables()
        assert len(before) > 1
        assert "changed=1" in converge(firewall_log_enabled=True).stdout
        assert tables() == before
        assert self.fetch(client, address, 7000) == "page"
        assert self.fetch(client, address, 7001) == "timed out"
        assert "changed=1" in converge().stdout


class TestLoaded:
    """What is loaded is what counts."""

    def test_edited_by_hand(self, server: Any, converge: Callable[..., Any]) -> None:
        server.check_output("nft add rule inet berth allowed tcp dport 8004 accept")
        assert "changed=1" in converge().stdout
        assert "8004" not in server.check_output("nft list table inet berth")

    def test_flushed(self, server: Any, converge: Callable[..., Any]) -> None:
        server.check_output("nft flush ruleset")
        done = converge("--check")
        assert "changed=1" in done.stdout
        assert server.run("nft list table inet berth").rc != 0
        assert "changed=1" in converge().stdout
        assert "changed=0" in converge().stdout

    @pytest.mark.parametrize("action", ["start", "reload", "restart", "stop"])
    def test_survives_the_distribution_service(self, server: Any, action: str) -> None:
        server.check_output(f"systemctl {action} nftables.service")
        assert "8100-8101" in server.check_output("nft list table inet berth")


LOCKING = [{"port": 23, "sources": ["any"]}]


class TestLockOut:
    """Rules that shut the controller out do not last."""

    @pytest.fixture(autouse=True)
    def unchanged(self, server: Any, converge: Callable[..., Any]) -> Iterator[None]:
        before = server.check_output("cat /etc/berth/firewall.nft; nft -s list table inet berth")
        yield
        after = server.check_output("cat /etc/berth/firewall.nft; nft -s list table inet berth")
        assert after == before
        assert "changed=0" in converge().stdout

    def test_refused_beforehand(self, converge: Callable[..., Any]) -> None:
        done = converge(firewall_rules=LOCKING)
        assert done.returncode != 0
        assert "would lock the controller out" in done.stdout
        assert "Add {port: 22, protocol: tcp, sources: [" in done.stdout

    def test_refused_in_check_mode(self, converge: Callable[..., Any]) -> None:
        done = converge("--check", firewall_rules=LOCKING)
        assert "would lock the controller out" in done.stdout

    def test_reverted(self, converge: Callable[..., Any]) -> None:
        done = converge(firewall_rules=LOCKING, firewall_ssh_check=False)
        assert done.returncode != 0
        assert "The previous rules are back and the host answers." in done.stdout

    def test_reverted_without_the_controller(self, server: Any, client: Any, address: str) -> None:
        """The controller dies right after loading."""
        command = """
            nft list table inet berth >/run/berth/firewall/old
            (echo 'table inet berth'; echo 'delete table inet berth'
             cat /run/berth/firewall/old) >/run/berth/firewall/previous.nft
            systemd-run --quiet --unit=berth-firewall-revert --collect --on-active=3s \\
                --property=ExecStartPost='/bin/rm -f /run/berth/firewall/previous.nft' \\
                --property=Type=oneshot --timer-property=AccuracySec=100ms \\
                nft -f /run/berth/firewall/previous.nft
            nft add rule inet berth allowed tcp dport 8004 accept"""
        server.check_output("sh -ec %s", command)
        assert "8004" in server.check_output("nft list table inet berth")
        time.sleep(4)

    def test_unconfirmed_rules_are_not_kept(
        self, server: Any, converge: Callable[..., Any]
    ) -> None:
        """The controller dies right after loading and comes back before the timer."""
        command = """
            (echo 'table inet berth'; echo 'delete table inet berth'
             nft list table inet berth) >/run/berth/firewall/previous.nft
            systemd-run --quiet --unit=berth-firewall-revert --collect --on-active=300s true
            nft add rule inet berth allowed tcp dport 8004 accept"""
        server.check_output("sh -ec %s", command)
        assert "changed=1" in converge().stdout
        assert server.run("systemctl is-active berth-firewall-revert.timer").rc != 0
        assert not server.file("/run/berth/firewall/previous.nft").exists


class TestReboot:
    """After a reboot the same is open."""

    def test_reboot(
        self,
        server: Any,
        client: Any,
        address: str,
        converge: Callable[..., Any],
        lab: Callable[..., None],
    ) -> None:
        lab("restart", "server")
        listen(server, "listeners", [8000, 8002])
        time.sleep(0.3)
        assert ask(client, address, 8000) == "hello"
        assert ask(client, address, 8002) == "TimeoutError"
        assert server.service("berth-firewall").is_running
        assert "changed=0" in converge().stdout


class TestRemoval:
    """Last, since nothing is left."""

    def test_removed(
        self, server: Any, client: Any, address: str, converge: Callable[..., Any]
    ) -> None:
        assert converge(firewall_enabled=False).returncode == 0
        assert server.run("nft list table inet berth").rc != 0
        assert server.run("systemctl cat berth-firewall").rc != 0
        assert not server.file("/etc/berth/firewall.nft").exists
        assert ask(client, address, 8002) == "hello"
        assert "changed=0" in converge(firewall_enabled=False).stdout

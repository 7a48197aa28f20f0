"""Servers that probes meet in tests: each connection is a function in a thread of its own."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.probe.scheduler import run_probes
from ansible_collections.berth.platform.plugins.module_utils.probe.spec import parse_probes
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Handler = Callable[[socket.socket], None]
STOP = threading.Event()


def look(*probes: dict[str, Any], deadline: float = 30, parallel: int = 100) -> dict[str, Any]:
    """Run probes as the module does."""
    parsed, faults = parse_probes(list(probes))
    assert not faults, faults.lines()
    return run_probes(parsed, deadline, parallel)


def look_at(kind: str, port: int | None = None, **keys: Any) -> dict[str, Any]:
    """Run one probe and return its result."""
    probe = {"name": "it", "type": kind, "timeout": 2, **keys}
    if port is not None:
        probe["port"] = port
    return look(probe)["probes"][0]


@contextlib.contextmanager
def serving(handler: Handler, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server on a free port of loopback; yields the port."""
    stopped = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    open_sockets: list[socket.socket] = []

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            connection.settimeout(20)
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
                open_sockets.append(connection)
            handler(connection)
        with contextlib.suppress(OSError):
            connection.close()

    def accept() -> None:
        while not stopped.is_set():
            try:
                connection, _peer = listener.accept()
            except OSError:
                return
            open_sockets.append(connection)
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stopped.set()
        # Unlike close, this wakes the thread that waits in accept.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for each in open_sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                each.close()
        thread.join(2)


def free_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# Adversaries.


def silent(connection: socket.socket) -> None:
    """Accepts and says nothing."""
    while connection.recv(4096):
        pass
    STOP.wait(20)


def reset(connection: socket.socket) -> None:
    """Resets as soon as something came."""
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang_up(connection: socket.socket) -> None:
    """Closes at once."""
    connection.close()


def garbage(connection: socket.socket) -> None:
    """Answers what no protocol says."""
    connection.sendall(bytes(range(256)) * 8 + b"\n" * 8)
    silent(connection)


def flood(connection: socket.socket) -> None:
    """Sends without end, and without a newline."""
    while True:
        connection.sendall(b"\x7f" * 65536)


def drip(data: bytes, seconds: float = 0.05) -> Handler:
    """Answers byte by byte, and when the answer is over with its last byte without end."""

    def handler(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in data:
            connection.sendall(bytes([byte]))
            STOP.wait(seconds)
        while True:
            connection.sendall(data[-1:])
            STOP.wait(seconds)

    return handler


def answering(data: bytes, then: Handler | None = None) -> Handler:
    """Reads a request, answers *data*, and closes or goes on as *then*."""

    def handler(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)
        if then is not None:
            then(connection)

    return handler


def http(body: str = "", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body.encode())}", *headers, "", body]
    return "\r\n".join(lines).encode()


class Talk:
    """Exact reads from a blocking socket, for servers that speak a binary protocol."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.connection.recv(count - len(data))
            if not more:
                raise OSError("closed")
            data += more
        return data

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)


# Certificates.


@dataclass(frozen=True)
class Issued:
    pem: Path
    der: bytes
    certificate: x509.Certificate

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem)
        return context


def issue(
    directory: Path,
    *names: str,
    days: float = 30,
    begins: float = -1,
    common_name: str = "berth test",
) -> Issued:
    """A self-signed certificate with its key, valid from *begins* to *days* from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=begins))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if names:
        general: list[x509.GeneralName] = []
        for each in names:
            try:
                general.append(x509.IPAddress(ipaddress.ip_address(each)))
            except ValueError:
                general.append(x509.DNSName(each))
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    pem = directory / f"{certificate.serial_number}.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Issued(pem, certificate.public_bytes(serialization.Encoding.DER), certificate)

"""A client for the edge, from the controller: it checks certificates and speaks WebSocket."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import socket
import ssl
import struct
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")


@dataclass
class Edge:
    """An address that answers for many domains, and the authority of its certificates."""

    address: str
    authority: Path
    headers: dict[str, str] = field(default_factory=lambda: {"Connection": "close"})

    def context(self) -> ssl.SSLContext:
        """Trusts that authority alone."""
        return ssl.create_default_context(cafile=str(self.authority))

    def connect(self, domain: str, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """A connection whose certificate is the domain's."""
        plain = socket.create_connection((self.address, 443), 10)
        return (context or self.context()).wrap_socket(plain, server_hostname=domain)

    def get(
        self, url: str, headers: dict[str, str] | None = None, method: str = "GET", body: str = ""
    ) -> Answer:
        """One request; no redirect is followed."""
        scheme, _, rest = url.partition("://")
        domain, _, path = rest.partition("/")
        connection = http.client.HTTPConnection(domain)
        if scheme == "https":
            connection.sock = self.connect(domain)
        else:
            connection.sock = socket.create_connection((self.address, 80), 10)
        asked = {**self.headers, **(headers or {})}
        connection.request(method, f"/{path}", body.encode() or None, asked)
        answer = connection.getresponse()
        # As HTTP has it: a header may come several times.
        found: dict[str, str] = {}
        for name, value in answer.getheaders():
            found[name.lower()] = ", ".join(filter(None, [found.get(name.lower()), value]))
        content = answer.read()
        connection.close()
        return Answer(answer.status, found, content)

    def websocket(self, url: str, message: bytes) -> bytes:
        """Open a WebSocket (RFC 6455), send a message and return the answer."""
        domain, _, path = url.partition("://")[2].partition("/")
        key = base64.b64encode(os.urandom(16)).decode()
        with self.connect(domain) as link:
            link.sendall(
                f"GET /{path} HTTP/1.1\r\nHost: {domain}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            stream = link.makefile("rb")
            status = stream.readline().decode()
            assert " 101 " in status, status
            headers = http.client.parse_headers(stream)
            guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            digest = hashlib.sha1((key + guid).encode()).digest()
            assert headers["Sec-WebSocket-Accept"] == base64.b64encode(digest).decode()
            mask = os.urandom(4)
            masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(message))
            link.sendall(struct.pack("!BB", 0x81, 0x80 | len(message)) + mask + masked)
            _first, length = stream.read(2)
            return stream.read(length & 0x7F)

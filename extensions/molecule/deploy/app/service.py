#!/usr/bin/env python3
"""A service whose release says how it behaves, in the file MODE beside it.

It ends as it should: it takes no more connections, answers what it was asked with
`Connection: close`, and waits for those that are open.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODE = (HERE / "MODE").read_text().strip()
VERSION = HERE.name
STARTED = time.monotonic()
ending = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Says which release it is."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        """Count it, so that the end waits for it."""
        super().setup()
        with self.server.lock:
            self.server.open += 1

    def finish(self) -> None:
        """Count it no longer."""
        with self.server.lock:
            self.server.open -= 1
        super().finish()

    def do_GET(self) -> None:
        """Any path but that of health takes as long as its query says."""
        if "?" in self.path:
            time.sleep(float(self.path.partition("?")[2]))
        ill = self.path == "/health" and MODE == "never"
        body = json.dumps({"version": VERSION, "name": os.environ["NAME"]}).encode()
        self.send_response(503 if ill else 200)
        self.send_header("Content-Length", str(len(body)))
        if ending.is_set():
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        """Hundreds a second would be too many."""


class Server(ThreadingHTTPServer):
    """Counts its connections."""

    request_queue_size = 128
    open = 0
    lock = threading.Lock()


def main() -> None:
    """Serve until the signal."""
    if MODE == "exits":
        sys.exit("it exits as told")
    if MODE == "dies":
        threading.Timer(5, lambda: os._exit(4)).start()
    port = int(sys.argv[2]) + (1000 if MODE == "elsewhere" else 0)
    server = Server((sys.argv[1], port), Handler)

    def end(*_signal: object) -> None:
        ending.set()
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    print(f"{VERSION} listens on port {port}", flush=True)
    server.serve_forever(poll_interval=0.05)
    deadline = time.monotonic() + 5
    while server.open and time.monotonic() < deadline:
        time.sleep(0.02)
    os._exit(0)


main()

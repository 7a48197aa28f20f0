# Written by berth.platform.redis; changes are overwritten.
"""Starts a Redis on each configuration, with a scratch directory and without a port.

Redis has no command that only reads its configuration. It is given files that stand where they
belong; no data is loaded, and nothing but a socket in the scratch directory listens.
"""

import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

SECONDS = 20
# Lines that it quotes although they hold a secret.
SECRET = re.compile(r"masterauth|-pass[ '\"]|#[0-9a-f]{64}")
LOGGED = re.compile(r"\d+:\w ")


def answers(path: str) -> bool:
    """Whether it replies, be it that it wants a password.

    A connection alone says nothing: Redis listens before it reads its users.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(SECONDS)
        try:
            client.connect(path)
            client.sendall(b"PING\r\n")
            return client.recv(100) != b""
        except OSError:
            return False


def refusal(configuration: pathlib.Path) -> str:
    """What Redis says against it, or nothing."""
    scratch = tempfile.mkdtemp(prefix="berth-redis-")
    try:
        shutil.chown(scratch, "redis", "redis")
        path = f"{scratch}/socket"
        overrides = {
            "port": "0",
            "tls-port": "0",
            "dir": scratch,
            "unixsocket": path,
            "appendonly": "no",
            "save": "",
            "daemonize": "no",
            "pidfile": "",
        }
        command = ["/usr/bin/redis-server", str(configuration)]
        for key, value in overrides.items():
            command += [f"--{key}", value]
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                user="redis",
                group="redis",
                extra_groups=[],
            )
            until = time.monotonic() + SECONDS
            try:
                while process.poll() is None and time.monotonic() < until:
                    if answers(path):
                        return ""
                    time.sleep(0.02)
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                process.wait()
            output.seek(0)
            text = output.read().decode("utf-8", "replace")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    lines = [line for line in text.splitlines() if line and not SECRET.search(line)]
    # Of the configuration it complains plainly, of users in the last line of its log.
    plain = [line for line in lines if not LOGGED.match(line)]
    return "\n".join(plain or lines[-1:]) or f"Redis did not start within {SECONDS} seconds"


def main() -> int:
    failed = 0
    for configuration in sorted(pathlib.Path(sys.argv[1]).glob("*.conf")):
        words = refusal(configuration)
        if words:
            print(f"{configuration}:\n{words}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())

"""Looks for values where an ordinary user of the host could read them, and in all logs.

Reads {"values": {name: text}} as JSON from the standard input; says which name was found where.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

values = json.load(sys.stdin)["values"]
found = []
handle, patterns = tempfile.mkstemp(dir="/run")  # 0600, so no place that is searched
with os.fdopen(handle, "w") as stream:
    stream.write("\n".join(values.values()) + "\n")


def names(text):
    return sorted(name for name, value in values.items() if value in text)


def stream(place, *command):
    """The output of a command: one grep for all values, and the names only of what it finds."""
    source = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    grep = ["grep", "-a", "-F", "-f", patterns]
    lines = subprocess.run(grep, stdin=source.stdout, capture_output=True, check=False).stdout
    source.stdout.close()
    source.wait()
    found.extend((place, name) for name in names(lines.decode(errors="replace")))


def files(place, *tests):
    """Files that meet find's tests."""
    skip = [
        "(",
        "-path",
        "/proc",
        "-o",
        "-path",
        "/sys",
        "-o",
        "-path",
        "/dev",
        ")",
        "-prune",
        "-o",
    ]
    search = ["find", "/", *skip, "-type", "f", *tests, "-print0"]
    listed = subprocess.Popen(search, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    grep = ["xargs", "-0", "-r", "grep", "-a", "-l", "-F", "-f", patterns, "--"]
    hits = subprocess.run(
        grep, stdin=listed.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    for path in hits.stdout.decode(errors="replace").splitlines():
        text = Path(path).read_text(errors="replace")
        found.extend((f"{place} {path}", name) for name in names(text))


try:
    # With every field, the senders' command lines among them.
    stream("journal", "journalctl", "--no-pager", "--all", "--output=export")
    files("world-readable", "-perm", "-o+r")
    files("log", "-path", "/var/log/*", "-not", "-perm", "-o+r")
    # systemd tells every user what it knows of a unit.
    stream("systemctl show", "runuser", "-u", "nobody", "--", "systemctl", "show", "--all", "*")
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found.extend((f"arguments of {line.split()[0]}", name) for name in names(line))
finally:
    Path(patterns).unlink()
json.dump(sorted(set(found)), sys.stdout)

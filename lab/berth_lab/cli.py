"""The lab's command line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import artifacts, demo, hosts, images, kafka, net, systems
from .machine import LabError, say

DESCRIPTION = "Hosts that boot systemd and answer SSH, for demos and tests."
FAULTS = ("kill", "start", "pause", "unpause", "cut", "mend")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="lab/lab", description=DESCRIPTION)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, *positionals: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        for positional in positionals:
            sub.add_argument(positional.lower(), metavar=positional)
        return sub

    sub = command("image", "build an image unless it is up to date")
    sub.add_argument("system", nargs="?", default="debian13", help=", ".join(images.SUITES))
    sub.add_argument("--baked", action="store_true", help="with lab/baked-packages.txt installed")
    sub.add_argument("--force", action="store_true", help="build it anew")

    sub = command("up", "bring up hosts; those that run are kept", "PROJECT")
    sub.add_argument("hosts", nargs="+", metavar="HOST[=IMAGE]", help="image: debian13-baked, …")
    sub.add_argument("--baked", action="store_true", help="baked where IMAGE does not say")
    sub.add_argument("--subnet", help="10.x.y.0/24; a free one is chosen by default")
    sub.add_argument(
        "--volume",
        action="append",
        default=[],
        metavar="HOST:/path",
        help="keep this path in a volume of its own",
    )

    sub = command("system", "bring up a system's hosts and print its overlay's folder", "SYSTEM")
    sub.add_argument("--project", help="another name than the system's")
    sub.add_argument("--image", default="debian13", help=", ".join(images.SUITES))
    sub.add_argument("--bare", action="store_true", help="without the baked packages")
    sub.add_argument("--extra", action="append", default=[], metavar="HOST", help="one beside it")

    sub = command("demo", "a whole system from nothing, with a report", "SYSTEM")
    sub.add_argument("--bare", action="store_true", help="without the baked packages")

    command("status", "the report of a system that is up", "SYSTEM")
    command("packages", "install the Debian packages that the lab needs")

    sub = command("down", "remove a project's hosts, network and volumes")
    which = sub.add_mutually_exclusive_group(required=True)
    which.add_argument("project", nargs="?", metavar="PROJECT")
    which.add_argument("--all", action="store_true", help="every project of this checkout")

    command("list", "show projects and hosts")
    sub = command("inventory", "print a project's inventory", "PROJECT")
    sub.add_argument(
        "--write", type=Path, metavar="DIR", help="write DIR/hosts.yml and DIR/ssh_config instead"
    )
    command("address", "print a host's address", "PROJECT", "HOST")
    sub = command("ssh", "open a shell on a host, or run a command there", "PROJECT", "HOST")
    sub.add_argument("remote", nargs=argparse.REMAINDER, metavar="CMD")
    command("restart", "reboot a host and wait for it", "PROJECT", "HOST")
    sub = command("fault", "break a host, or mend it", "PROJECT", "HOST")
    sub.add_argument("action", choices=FAULTS)
    sub = command("depot", "serve a directory to the hosts and print its URL", "PROJECT")
    sub.add_argument("directory", type=Path, metavar="DIR")
    sub = command("artifact", "build a program that Debian lacks, and print its path")
    sub.add_argument("name", choices=sorted([*artifacts.ARTIFACTS, kafka.NAME]))
    return top


def up(args: argparse.Namespace) -> None:
    """Read what `up` is asked for."""
    default = os.environ.get("BERTH_LAB_IMAGE", "debian13")
    wanted: dict[str, images.Image] = {}
    for text in args.hosts:
        name, _, image = text.partition("=")
        wanted[name] = images.Image.parse(image or default, baked=args.baked)
    volumes: dict[str, list[str]] = {}
    for text in args.volume:
        name, _, path = text.partition(":")
        if not path.startswith("/"):
            raise LabError(f"--volume {text!r}: HOST:/path is needed")
        volumes.setdefault(name, []).append(path)
    subnet = net.parse_subnet(args.subnet) if args.subnet else None
    hosts.up(args.project, wanted, subnet, volumes)


def down(args: argparse.Namespace) -> None:
    """Remove one project or all."""
    if args.all:
        hosts.down_all()
    else:
        hosts.down(hosts.load(args.project))


def inventory(args: argparse.Namespace) -> None:
    """Print or write a project's inventory."""
    project = hosts.existing(args.project)
    if args.write:
        hosts.write_inventory(project, args.write)
    else:
        print(hosts.inventory(project), end="")


def with_host(args: argparse.Namespace) -> None:
    """The commands about one host."""
    project = hosts.existing(args.project)
    host = project.host(args.host)
    if args.command == "address":
        print(host.address)
    elif args.command == "restart":
        hosts.reboot(project, host)
    elif args.command == "fault":
        hosts.fault(project, host, args.action)
    else:
        access = hosts.access(project)
        arguments = ["ssh", "-i", str(access.key), *access.arguments(), f"root@{host.address}"]
        os.execvp("ssh", [*arguments, *args.remote])


def dispatch(args: argparse.Namespace) -> None:
    """Do what was asked."""
    if args.command == "image":
        images.ensure(images.Image.parse(args.system, baked=args.baked), force=args.force)
    elif args.command == "artifact":
        print(kafka.ensure() if args.name == kafka.NAME else artifacts.ensure(args.name))
    elif args.command == "up":
        up(args)
    elif args.command == "system":
        system = systems.parse(args.system)
        bare, extra = args.bare, args.extra
        print(systems.up(system, args.project, baked=not bare, image=args.image, extra=extra))
    elif args.command == "demo":
        demo.demo(args.system, bare=args.bare)
    elif args.command == "status":
        demo.status(args.system)
    elif args.command == "packages":
        demo.install_packages()
    elif args.command == "down":
        down(args)
    elif args.command == "list":
        print(hosts.table(hosts.projects().values()))
    elif args.command == "inventory":
        inventory(args)
    elif args.command == "depot":
        print(hosts.depot(hosts.existing(args.project), args.directory))
    else:
        with_host(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors are for people."""
    # As an exception, so that what has begun is cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        dispatch(parser().parse_args(argv))
    except (LabError, ValueError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return 0

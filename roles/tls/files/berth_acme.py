#!/usr/bin/python3
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Public certificates: ordered by certbot when they are due, put in place, and watched.

A layer over certbot for what has to happen on the host itself, without a controller: it decides
what is due by the certificate's own lifetime, puts what was issued where services expect it, and
reloads them only then. Installed by the role berth.platform.tls.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import grp
import json
import os
import pwd
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CONFIGURATION = Path("/etc/berth/acme.json")
CERTBOT = "/usr/bin/certbot"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
LOCK = Path("/run/lock/berth-acme.lock")
# Certbot's own data, apart from what an administrator keeps in /etc/letsencrypt.
DATA = Path("/etc/berth/acme")
STATE = Path("/var/lib/berth/certbot")
# Stands while services have not loaded what is in place; the role looks for it, too.
MARKER = Path("/var/lib/berth/pending/tls-reload")
# Seconds for one order; certbot itself waits 90 for the validation.
ORDER = 600
KEY_TYPES = {
    "p256": ("--key-type", "ecdsa", "--elliptic-curve", "secp256r1"),
    "p384": ("--key-type", "ecdsa", "--elliptic-curve", "secp384r1"),
    "rsa2048": ("--key-type", "rsa", "--rsa-key-size", "2048"),
    "rsa4096": ("--key-type", "rsa", "--rsa-key-size", "4096"),
}
# Who signed what holds a certificate's place until the first order.
PLACEHOLDER = "CN=Berth placeholder"
# Certbot names each file after what is in it; ours are what nginx and the others are told.
PARTS = {"privkey.pem": "privkey.pem", "fullchain.pem": "fullchain.pem", "ca.pem": "chain.pem"}

_PROBLEM = re.compile(
    r"^[ \t]+Domain:[ \t]*(?P<domain>\S+)\n[ \t]+Type:[ \t]*(?P<kind>\S+)\n"
    r"[ \t]+Detail:[ \t]*(?P<detail>.+?)(?=\n[ \t]*\n|\n[ \t]+Domain:|\Z)",
    re.MULTILINE | re.DOTALL,
)
# What certbot says around the reason.
_NOISE = re.compile(
    r"Ask for help|Saving debug log|See the logfile|An unexpected error occurred|Renewing an"
    r"|Requesting a cert|Some challenges have failed|Account registered"
)


class AcmeError(RuntimeError):
    """Something is wrong with the certificates, in words for who has to mend it."""


# --- what is configured ----------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """A certificate as it should be."""

    name: str
    domains: tuple[str, ...]
    key_type: str = "p256"
    owner: str = "root"
    group: str = "root"
    mode: str = "0640"


@dataclass(frozen=True)
class Configuration:
    """What /etc/berth/acme.json says."""

    server: str
    certificates: tuple[Wanted, ...]
    ca_file: str = ""
    email: str = ""
    webroot: str = "/var/lib/berth/acme"
    tls_directory: str = "/etc/berth/tls"
    renew_share: float = 0.33
    alert_share: float = 0.15
    reload: tuple[str, ...] = ()
    served_at: str = ""


def parse_configuration(raw: Mapping[str, Any]) -> Configuration:
    """The file's content in its form."""
    values = dict(raw)
    values["certificates"] = tuple(
        Wanted(**{**each, "domains": tuple(each["domains"])}) for each in raw["certificates"]
    )
    values["reload"] = tuple(raw.get("reload", ()))
    return Configuration(**values)


def load_configuration(path: Path) -> Configuration:
    """Reads the file, or says what is wrong with it."""
    try:
        return parse_configuration(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AcmeError(f"{path} cannot be read: {error}") from error


# --- what is there ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """What is judged of a certificate."""

    names: frozenset[str]
    issuer: str
    key_type: str
    begins: datetime
    ends: datetime

    def left(self, now: datetime) -> float:
        """The share of its lifetime that is still to come."""
        return (self.ends - now) / (self.ends - self.begins)


def read_certificate(pem: str) -> Certificate:
    """The first certificate of a text. Raises ValueError for what is none."""
    leaf = x509.load_pem_x509_certificate(pem.encode())
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    key = leaf.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        kind = {"secp256r1": "p256", "secp384r1": "p384"}.get(key.curve.name, key.curve.name)
    elif isinstance(key, rsa.RSAPublicKey):
        kind = f"rsa{key.key_size}"
    else:
        kind = type(key).__name__
    begins, ends = (
        # cryptography 42 has them with their time zone, and Debian 12 an older one.
        getattr(leaf, f"{what}_utc", None) or getattr(leaf, what).replace(tzinfo=timezone.utc)
        for what in ("not_valid_before", "not_valid_after")
    )
    issuer = leaf.issuer.rfc4514_string()
    return Certificate(frozenset(name.lower() for name in names), issuer, kind, begins, ends)


def read(path: Path) -> str:
    """A file's text; empty if there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def issuing_server(renewal: str) -> str:
    """The directory URL in certbot's own record of a certificate."""
    found = re.search(r"^server\s*=\s*(\S+)", renewal, re.MULTILINE)
    return found[1] if found else ""


def day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def due(wanted: Wanted, configuration: Configuration, pem: str, renewal: str, now: datetime) -> str:
    """Why a certificate has to be ordered; empty if it has not."""
    if not pem or not renewal:
        return "it was never ordered"
    try:
        found = read_certificate(pem)
    except ValueError:
        return "the last one cannot be read"
    server = issuing_server(renewal)
    if server != configuration.server:
        return f"it came from {server}"
    lacking = sorted(set(wanted.domains) - found.names)
    needless = sorted(found.names - set(wanted.domains))
    if lacking or needless:
        words = [f"lacks {name}" for name in lacking] + [f"names {n} needlessly" for n in needless]
        return "it " + ", ".join(words)
    if found.key_type != wanted.key_type:
        return f"its key is {found.key_type}, not {wanted.key_type}"
    left = found.left(now)
    if left < configuration.renew_share:
        return (
            f"it ends on {day(found.ends)}: {max(left, 0):.0%} of its lifetime is left, fewer than"
            f" {configuration.renew_share:.0%}"
        )
    return ""


# --- certbot ---------------------------------------------------------------------------------

Run = Callable[[Sequence[str], Mapping[str, str]], "tuple[int, str]"]


def run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """A program's status and all that it says."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=ORDER,
            env=dict(environment),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} was stopped after {ORDER} seconds"
    except OSError as error:
        return 127, f"{command[0]} cannot be started: {error.strerror}"
    return done.returncode, done.stdout


def certbot(verb: str, configuration: Configuration) -> list[str]:
    """The part of the command line that all verbs have in common."""
    contact = (
        ["--email", configuration.email, "--no-eff-email"]
        if configuration.email
        else ["--register-unsafely-without-email"]
    )
    return [
        *(CERTBOT, verb, "--non-interactive", "--agree-tos", "--server", configuration.server),
        *contact,
        *("--config-dir", str(DATA), "--work-dir", str(STATE), "--logs-dir", str(STATE / "logs")),
        *("--max-log-backups", "20"),
    ]


def order_command(wanted: Wanted, configuration: Configuration) -> list[str]:
    """An order of one certificate, whatever certbot itself thinks of its age."""
    command = [
        *certbot("certonly", configuration),
        *("--webroot", "--webroot-path", configuration.webroot, "--no-directory-hooks"),
        *("--cert-name", wanted.name, "--force-renewal", "--renew-with-new-domains"),
        *KEY_TYPES[wanted.key_type],
    ]
    for domain in wanted.domains:
        command += ["--domain", domain]
    return command


def certbot_environment(configuration: Configuration) -> dict[str, str]:
    trust = {"REQUESTS_CA_BUNDLE": configuration.ca_file} if configuration.ca_file else {}
    return {**ENVIRONMENT, **trust}


def forget_half(name: str) -> None:
    """Takes away what a killed certbot left: it would file the next one under another name."""
    record = DATA / "renewal" / f"{name}.conf"
    if issuing_server(read(record)) and material(name):
        return
    record.unlink(missing_ok=True)
    for kind in ("live", "archive"):
        shutil.rmtree(DATA / kind / name, ignore_errors=True)


def has_account(server: str) -> bool:
    """Whether certbot is registered there: it files accounts by the server's URL."""
    url = urlsplit(server)
    return any((DATA / "accounts" / f"{url.netloc}{url.path}").glob("*/regr.json"))


def refusals(output: str) -> list[str]:
    """What the server refused, a line for each name, or the reason for all of them."""
    found = [
        f"{match['domain']}: {' '.join(match['detail'].split())} ({match['kind']})"
        for match in _PROBLEM.finditer(output)
    ]
    if found:
        return found
    lines = [line.strip() for line in output.splitlines()]
    said = [line for line in lines if line and not _NOISE.search(line)]
    return said[-3:] or ["certbot says nothing"]


# --- putting in place ------------------------------------------------------------------------


def material(name: str) -> dict[str, str]:
    """What certbot got last, by our names of the files; empty if that is not complete."""
    found = {ours: read(DATA / "live" / name / theirs) for ours, theirs in PARTS.items()}
    return found if all(found.values()) else {}


def owner_of(part: str, wanted: Wanted) -> tuple[int, int, int]:
    """User, group and mode of a file."""
    if part != "privkey.pem":
        return 0, 0, 0o644
    try:
        user, group = pwd.getpwnam(wanted.owner).pw_uid, grp.getgrnam(wanted.group).gr_gid
    except KeyError as error:
        raise AcmeError(f"{wanted.name}: {error.args[0]}") from None
    return user, group, int(wanted.mode, 8)


def in_place(directory: Path, wanted: Wanted, contents: Mapping[str, str]) -> bool:
    """Whether the files are there as they should be."""
    for part, text in contents.items():
        path = directory / part
        try:
            found = path.lstat()
        except OSError:
            return False
        has = (found.st_uid, found.st_gid, found.st_mode & 0o7777)
        if path.is_symlink() or has != owner_of(part, wanted) or read(path) != text:
            return False
    return True


def place(directory: Path, wanted: Wanted, contents: Mapping[str, str]) -> None:
    """All are written first and then renamed together: a key is never long with another's."""
    directory.mkdir(parents=True, exist_ok=True)
    staged: list[tuple[Path, Path]] = []
    try:
        for part, text in contents.items():
            user, group, mode = owner_of(part, wanted)
            handle, name = tempfile.mkstemp(prefix=f".{part}.", dir=directory)
            staged.append((Path(name), directory / part))
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                os.fchown(file.fileno(), user, group)
                os.fchmod(file.fileno(), mode)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        for temporary, path in staged:
            temporary.replace(path)
    finally:
        for temporary, _path in staged:
            temporary.unlink(missing_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_state(path: Path, values: Any) -> None:
    """Replaces a small file of our own as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def reload_services(units: Sequence[str], execute: Run) -> list[str]:
    """The units that run load their certificates anew; the others do when they start."""
    reloaded = []
    for unit in units:
        if execute(("systemctl", "is-active", "--quiet", unit), ENVIRONMENT)[0] != 0:
            continue
        status, output = execute(("systemctl", "reload", unit), ENVIRONMENT)
        if status != 0:
            raise AcmeError(
                f"{unit} could not be reloaded and serves the former certificates:"
                f" {' '.join(output.split()) or f'status {status}'}"
            )
        reloaded.append(unit)
    return reloaded


# --- the jobs --------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a run did."""

    ordered: dict[str, str] = field(default_factory=dict)
    placed: list[str] = field(default_factory=list)
    reloaded: list[str] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)
    expires: dict[str, str] = field(default_factory=dict)
    account: bool = False
    faults: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """A line for each certificate with which something happened, and for each fault."""
        lines = [f"{name}: issued, because {why}" for name, why in sorted(self.ordered.items())]
        lines += [f"{name}: is in place" for name in self.placed]
        lines += [f"{unit}: was reloaded" for unit in self.reloaded]
        for name, reasons in sorted(self.refused.items()):
            lines += [f"{name}: was refused: {reason}" for reason in reasons]
        return "\n".join([*lines, *self.faults]) or "nothing is due"


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """The timer's run and a converge must not order the same certificate."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def renew(configuration: Configuration, forced: Collection[str], execute: Run) -> Outcome:
    """Orders what is due, and puts in place and loads what is not yet."""
    outcome = Outcome()
    accounts = STATE / "accounts.json"
    known = json.loads(read(accounts) or "{}")
    if known.get(configuration.server, configuration.email) != configuration.email:
        command = certbot("update_account", configuration)
        status, output = execute(command, certbot_environment(configuration))
        if status != 0:
            outcome.faults.append(f"the account keeps its e-mail address: {refusals(output)[-1]}")
        else:
            outcome.account = True
            write_state(accounts, {**known, configuration.server: configuration.email})
    for wanted in configuration.certificates:
        live, renewal = DATA / "live" / wanted.name, DATA / "renewal" / f"{wanted.name}.conf"
        now = datetime.now(timezone.utc)
        reason = due(wanted, configuration, read(live / "fullchain.pem"), read(renewal), now) or (
            "it was asked for" if wanted.name in forced else ""
        )
        if reason:
            forget_half(wanted.name)
            command = order_command(wanted, configuration)
            status, output = execute(command, certbot_environment(configuration))
            if status != 0:
                outcome.refused[wanted.name] = refusals(output)
            else:
                outcome.ordered[wanted.name] = reason
            if configuration.server not in known and has_account(configuration.server):
                known = {**known, configuration.server: configuration.email}
                write_state(accounts, known)
        try:
            _put_in_place(wanted, configuration, outcome)
        except (AcmeError, OSError) as error:
            outcome.faults.append(f"{wanted.name}: cannot be put in place: {error}")
    if MARKER.exists():
        try:
            outcome.reloaded = reload_services(configuration.reload, execute)
        except AcmeError as error:
            outcome.faults.append(str(error))
        else:
            MARKER.unlink()
    return outcome


def _put_in_place(wanted: Wanted, configuration: Configuration, outcome: Outcome) -> None:
    directory = Path(configuration.tls_directory, wanted.name)
    contents = material(wanted.name)
    if contents and not in_place(directory, wanted, contents):
        paths = [str(directory / part) for part in contents]
        write_state(MARKER, {"files": paths, "labels": []})
        place(directory, wanted, contents)
        outcome.placed.append(wanted.name)
    with contextlib.suppress(ValueError):
        found = read_certificate(read(directory / "fullchain.pem"))
        if found.issuer != PLACEHOLDER:
            outcome.expires[wanted.name] = found.ends.isoformat()


def served(address: str, name: str) -> str:
    """The certificate that a server shows for a name, whoever signed it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, _colon, port = address.rpartition(":")
    with (
        socket.create_connection((host.strip("[]"), int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")


def judge(wanted: Wanted, pem: str, alert_share: float, now: datetime) -> str:
    """What is wrong with a certificate that serves; empty if nothing is."""
    try:
        found = read_certificate(pem)
    except ValueError:
        return "no certificate can be read"
    left = found.left(now)
    if left <= 0:
        return f"expired on {day(found.ends)}"
    if left < alert_share:
        return (
            f"ends on {day(found.ends)}, in {(found.ends - now) / timedelta(days=1):.1f} days: less"
            f" than {alert_share:.0%} of its lifetime is left, so it was not renewed in time"
        )
    lacking = sorted(set(wanted.domains) - found.names)
    return f"is not for {', '.join(lacking)}" if lacking else ""


def check(configuration: Configuration, now: datetime) -> list[str]:
    """Everything that is wrong with the certificates that are in place and served."""
    faults = []
    for wanted in configuration.certificates:
        directory = Path(configuration.tls_directory, wanted.name)
        pem = read(directory / "fullchain.pem")
        fault = judge(wanted, pem, configuration.alert_share, now)
        if not fault and not material(wanted.name):
            fault = "is a placeholder, or another's: no order has succeeded yet"
        if not fault and configuration.served_at:
            try:
                shown = served(configuration.served_at, wanted.domains[0])
            except (OSError, ValueError) as error:
                fault = f"nothing is served at {configuration.served_at}: {error}"
            else:
                if shown.split() != pem[: pem.index("-----END") + 25].split():
                    fault = f"another certificate is served at {configuration.served_at}"
        if fault:
            faults.append(f"{wanted.name}: {fault}")
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configuration", type=Path, default=CONFIGURATION)
    jobs = parser.add_subparsers(dest="job", required=True)
    renewing = jobs.add_parser("renew", help="order what is due, put it in place, reload services")
    renewing.add_argument("--force", action="append", default=[], metavar="NAME")
    renewing.add_argument("--json", action="store_true")
    jobs.add_parser("check", help="fail if a certificate was not renewed in time or is not served")
    options = parser.parse_args(arguments)
    try:
        configuration = load_configuration(options.configuration)
        if options.job == "check":
            faults = check(configuration, datetime.now(timezone.utc))
            print("\n".join(faults) or f"{len(configuration.certificates)} certificates are well")
            return 1 if faults else 0
        unknown = sorted(set(options.force) - {each.name for each in configuration.certificates})
        if unknown:
            raise AcmeError(f"there is no certificate {', '.join(unknown)}")
        with one_at_a_time():
            outcome = renew(configuration, options.force, run)
    except AcmeError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(asdict(outcome)) if options.json else outcome.text)
    return 1 if outcome.refused or outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())

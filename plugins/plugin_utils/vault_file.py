# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A mapping of names to texts in a file that `ansible-vault` can view and edit."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from ansible import constants
from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, is_encrypted, match_encrypt_secret
from ansible_collections.berth.platform.plugins.module_utils.secrets import SecretError

HOW = (
    "give the vault password by --vault-password-file, by ANSIBLE_VAULT_PASSWORD_FILE, "
    "or by --ask-vault-pass"
)
HEADING = "# Kept by berth.platform.secrets; edit with ansible-vault edit. Comments are not kept.\n"
LOCK_SECONDS = 60.0


class _Loader(yaml.BaseLoader):
    """Every scalar is a text (012 stays 012), and no key is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _value in node.value:
            if key.value in seen:
                raise SecretError(f"secret {key.value} is there twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    pass


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    if not text.replace("\n", "").isprintable():
        style = '"'  # U+0085 and its like would come back as a space
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def render(values: Mapping[str, str]) -> str:
    """Sorted, so that the difference of two versions is small."""
    plain = {str(name): str(value) for name, value in values.items()}
    text: str = yaml.dump(plain, Dumper=_Dumper, sort_keys=True, width=4096, allow_unicode=True)
    return HEADING + (text if plain else "{}\n")


def parse(text: str) -> dict[str, str]:
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        # The problem's own words may quote the line, which holds a secret.
        raise SecretError(f"what it holds is not YAML{where}") from None
    if data is None or data == "":
        return {}
    if not isinstance(data, dict):
        raise SecretError("what it holds is not a mapping of names to values")
    odd = sorted(str(name) for name, value in data.items() if not isinstance(value, str))
    if odd:
        raise SecretError(f"not a text: the value of {', '.join(odd)}")
    return {str(name): str(value) for name, value in data.items()}


class VaultFile:
    """The file, with the vault secrets that this run of Ansible was given."""

    def __init__(self, path: Path, vault_secrets: list[Any] | None) -> None:
        self.shown = path
        # A link keeps pointing where it points; the file behind it is replaced.
        self.path = path.resolve()
        self.vault = VaultLib(list(vault_secrets or []))
        self._identity: tuple[str, Any] | None = None

    @property
    def has_password(self) -> bool:
        return bool(self.vault.secrets)

    def require_password(self, purpose: str) -> None:
        if not self.has_password:
            raise SecretError(f"{self.shown} cannot be {purpose} without a vault password: {HOW}")

    def read(self) -> dict[str, str]:
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SecretError(f"{self.shown} cannot be read: {error.strerror}") from None
        if not text.strip():
            return {}
        if not is_encrypted(text):
            raise SecretError(
                f"{self.shown} is not encrypted: secrets are not kept in the clear. "
                f"`ansible-vault encrypt {self.shown}` encrypts it; if it was ever shared or "
                "committed, rotate what it holds"
            )
        self.require_password("read")
        try:
            plain, vault_id, secret = self.vault.decrypt_and_get_vault_id(text)
        except AnsibleError:
            known = ", ".join(sorted({str(name) for name, _secret in self.vault.secrets}))
            raise SecretError(
                f"{self.shown} cannot be decrypted: the vault password is wrong "
                f"(tried: {known}), or the file is damaged. It must be the password that the "
                "file was encrypted with"
            ) from None
        self._identity = (vault_id, secret)
        try:
            return parse(plain.decode("utf-8"))
        except UnicodeDecodeError:
            raise SecretError(f"{self.shown}: what it holds is not UTF-8") from None
        except SecretError as error:
            raise SecretError(f"{self.shown}: {error}") from None

    def encrypt(self, values: Mapping[str, str]) -> bytes:
        """With the identity that it was decrypted with, else the one Ansible encrypts with."""
        self.require_password("written")
        vault_id, secret = self._identity or match_encrypt_secret(
            self.vault.secrets, encrypt_vault_id=constants.DEFAULT_VAULT_ENCRYPT_IDENTITY
        )
        encrypted: bytes = self.vault.encrypt(render(values), secret=secret, vault_id=vault_id)
        return encrypted

    def write(self, values: Mapping[str, str]) -> None:
        """All or nothing: a run that is killed leaves the old file or the new one."""
        encrypted = self.encrypt(values)
        prefix, suffix = f".{self.path.name}.", ".new"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for left in self.path.parent.glob(f"{prefix}*{suffix}"):
                left.unlink(missing_ok=True)
            handle, staged = tempfile.mkstemp(dir=self.path.parent, prefix=prefix, suffix=suffix)
            try:
                with os.fdopen(handle, "wb") as stream:
                    os.fchmod(stream.fileno(), 0o600)
                    stream.write(encrypted)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(staged, self.path)
            except BaseException:
                Path(staged).unlink(missing_ok=True)
                raise
            directory = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise SecretError(f"{self.shown} cannot be written: {error.strerror}") from None

    @contextmanager
    def locked(self, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Keeps other runs away between reading and writing.

        The directory is what is locked: a lock file would stay behind in a repository.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path.parent, os.O_RDONLY)
        except OSError as error:
            raise SecretError(f"{self.shown} cannot be written: {error.strerror}") from None
        try:
            if not _lock(handle, seconds):
                raise SecretError(
                    f"{self.shown} is being written by another run for more than {seconds:.0f} s: "
                    "wait for it to end, then run again"
                )
            yield
        finally:
            os.close(handle)


def _lock(handle: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
                return True  # some network file systems do not lock directories
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)

# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(files): renders, packs, and calls the module once."""

from __future__ import annotations

import datetime
import hashlib
import os
import pwd
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from ansible_collections.berth.platform.plugins.module_utils.files_spec import (
    Faults,
    FileSpec,
    Origin,
    choose_inline,
    pack,
    parse_request,
)
from ansible_collections.berth.platform.plugins.module_utils.files_words import template_line
from jinja2.exceptions import TemplateSyntaxError

# Contents of one call, before compression. One call of this size costs as much as two
# small ones do.
INLINE_BYTES = 1 << 20
MODULE = "berth.platform.files"


class ActionModule(ActionBase):
    """Brings a role's files into place in one round trip."""

    # The remote temporary directory is made only when something large has to be sent.
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        variables: dict[str, Any] = task_vars or {}
        result = super().run(tmp, variables)
        del tmp
        try:
            request, origins = parse_request(self._task.args)
        except Faults as error:
            raise AnsibleActionFail("\n".join(error.faults)) from None

        faults: list[str] = []
        large: dict[str, str] = {}
        for spec in request.files:
            origin = origins.get(spec.path)
            if origin is None:
                continue
            try:
                self._fill(spec, origin, variables, large)
            except AnsibleError as error:
                faults.append(f"{spec.path}: {self._explain(error, origin)}")
        if faults:
            raise AnsibleActionFail("\n".join(faults))

        by_path = {spec.path: spec for spec in request.files}
        sizes = {spec.path: spec.size for spec in request.files if spec.carries_content}
        inline = choose_inline(sizes, INLINE_BYTES)
        held = {path: by_path[path].content() for path in sizes if path not in inline}
        for path in held:
            by_path[path].drop_content()

        result.update(self._call(pack(request), variables))
        needs = result.pop("needs", [])
        if needs and not result.get("failed"):
            created = self._connection._shell.tmpdir is None
            if created:
                self._make_tmp_path()
            try:
                for index, path in enumerate(needs):
                    self._send(by_path[path], index, held.get(path), large.get(path))
                result.update(self._call(pack(request), variables))
                result.pop("needs", None)
            finally:
                if created:
                    self._remove_tmp_path(self._connection._shell.tmpdir, force=True)
        return result

    def _explain(self, error: AnsibleError, origin: Origin) -> str:
        """Which content is at fault, and why, on one line where it fits."""
        if origin.kind == "content":
            return f"content: {to_text(error)}"
        what = f"{origin.kind} {origin.value}"
        if isinstance(error, AnsibleFileNotFound):
            paths = dict.fromkeys(to_text(path) for path in getattr(error, "paths", None) or [])
            where = f"; looked for {', '.join(paths)}" if paths else ""
            return f"{what}: is not there{where}"
        words = to_text(error)
        if origin.kind == "template":
            try:
                source = self._find_needle("templates", str(origin.value))
                text = self._loader.get_text_file_contents(source)
            except AnsibleError:
                return f"{what}: {words}"
            number = getattr(error.__cause__, "lineno", None)
            syntax = isinstance(error.__cause__, TemplateSyntaxError)
            line = template_line(text, words, number if syntax else None)
            if line:
                return f"{what}: {words}\n  {line}"
        return f"{what}: {words}"

    def _call(self, payload: str, variables: dict[str, Any]) -> dict[str, Any]:
        called: dict[str, Any] = self._execute_module(
            module_name=MODULE, module_args={"_payload": payload}, task_vars=variables
        )
        return called

    def _send(self, spec: FileSpec, index: int, content: bytes | None, local: str | None) -> None:
        """Puts one content beside the module, for it to take from there."""
        remote = self._connection._shell.join_path(
            self._connection._shell.tmpdir, f"content-{index}"
        )
        if content is not None:
            self._transfer_data(remote, content)
        else:
            real = self._loader.get_real_file(local, decrypt=True)
            try:
                self._transfer_file(real, remote)
            finally:
                self._loader.cleanup_tmp_file(real)
        self._fixup_perms2([self._connection._shell.tmpdir, remote], execute=False)
        spec.transferred = remote

    def _fill(
        self, spec: FileSpec, origin: Origin, variables: dict[str, Any], large: dict[str, str]
    ) -> None:
        """Gives a file its content, or for a large source its checksum."""
        if origin.kind == "content":
            spec.set_content(to_bytes(origin.value, errors="surrogate_or_strict"))
        elif origin.kind == "template":
            spec.set_content(self._render(spec, origin, variables))
        else:
            self._read_source(spec, str(origin.value), large)

    def _read_source(self, spec: FileSpec, name: str, large: dict[str, str]) -> None:
        found = self._find_needle("files", name)
        if os.path.isdir(found):
            raise AnsibleError("is a directory; name each file")
        real = self._loader.get_real_file(found, decrypt=True)
        try:
            size = os.path.getsize(real)
            if size <= INLINE_BYTES:
                with open(real, "rb") as handle:
                    spec.set_content(handle.read())
                return
            digest = hashlib.sha256()
            with open(real, "rb") as handle:
                for block in iter(lambda: handle.read(1 << 20), b""):
                    digest.update(block)
            spec.sha256, spec.size = digest.hexdigest(), size
            large[spec.path] = found
        finally:
            self._loader.cleanup_tmp_file(real)

    def _render(self, spec: FileSpec, origin: Origin, variables: dict[str, Any]) -> bytes:
        """As ansible.builtin.template renders, with the same search path and settings."""
        name = str(origin.value)
        source = self._find_needle("templates", name)
        template = trust_as_template(self._loader.get_text_file_contents(source))
        searchpath: list[str] = []
        for path in [
            *variables.get("ansible_search_path", []),
            self._loader.get_basedir(),
            os.path.dirname(source),
        ]:
            searchpath += [os.path.join(path, "templates"), path]
        scope = variables.copy()
        scope.update(_template_variables(name, source, spec.path, scope))
        scope.update(origin.variables)
        templar = self._templar.copy_with_new_env(searchpath=searchpath, available_variables=scope)
        rendered = templar.template(
            template,
            escape_backslashes=False,
            overrides={"trim_blocks": True, "lstrip_blocks": False, "newline_sequence": "\n"},
        )
        if rendered is None:
            rendered = ""
        return bytes(to_bytes(rendered, errors="surrogate_or_strict"))


def _template_variables(
    name: str, source: str, destination: str, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """The variables that a template is given about itself."""
    status = os.stat(source)
    try:
        owner: str | int = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = status.st_uid
    found: dict[str, Any] = {
        "template_host": os.uname().nodename,
        "template_path": name,
        "template_mtime": datetime.datetime.fromtimestamp(status.st_mtime),
        "template_uid": owner,
        "template_run_date": datetime.datetime.now(),
        "template_destpath": destination,
        "template_fullpath": source,
    }
    if "ansible_managed" not in variables:
        found["ansible_managed"] = "Ansible managed"
    return found

# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of berth.platform.release: sends the artifacts that the host lacks."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.berth.platform.plugins.module_utils.release_archive import (
    DEFAULT_EXCLUDE,
    ArchiveError,
    directory_digest,
    file_digest,
    pack,
)

MODULE = "berth.platform.release"


class ActionModule(ActionBase):
    """Asks the host what is missing, sends that, and lets the host do the rest."""

    _supports_check_mode = True
    _supports_diff = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        sources: dict[str, tuple[str, tuple[str, ...]]] = {}
        try:
            arguments["releases"] = self._releases(arguments.get("releases"), sources)
            answer = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
            if answer.get("needs") and not self._task.check_mode and not answer.get("failed"):
                arguments["archives"] = self._send(answer["needs"], sources)
                answer = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        except (ArchiveError, OSError) as error:
            raise AnsibleActionFail(str(error)) from error
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        # The options of a release can hold a build's environment.
        answer.pop("invocation", None)
        result.update(answer)
        return result

    def _releases(self, releases: Any, sources: dict[str, tuple[str, tuple[str, ...]]]) -> Any:
        """The releases, those of the controller's paths with the digest of their content."""
        if not isinstance(releases, list):
            return releases
        known: dict[tuple[str, tuple[str, ...]], str] = {}
        return [self._with_digest(release, sources, known) for release in releases]

    def _with_digest(
        self,
        release: Any,
        sources: dict[str, tuple[str, tuple[str, ...]]],
        known: dict[tuple[str, tuple[str, ...]], str],
    ) -> Any:
        artifact = release.get("artifact") if isinstance(release, dict) else None
        if not isinstance(artifact, dict):
            return release
        more: dict[str, Any] = {}
        if artifact.get("path"):
            path = self._loader.path_dwim(os.path.expanduser(str(artifact["path"])))
            exclude = tuple(artifact.get("exclude") or DEFAULT_EXCLUDE)
            source = (path, exclude)
            if not os.path.exists(path):
                raise AnsibleActionFail(
                    f"{release.get('name')}: the artifact {path} does not exist on the controller"
                )
            if source not in known:
                known[source] = (
                    directory_digest(path, exclude) if os.path.isdir(path) else file_digest(path)
                )
            sources[known[source]] = source
            name = os.path.basename(path.rstrip("/"))
            more["digest"] = known[source]
            more["name"] = artifact.get("name") or name
            if os.path.isdir(path):
                more.update(name="directory.tar.gz", format="archive", strip=0)
        own_build = release.get("build")
        build = own_build if own_build else artifact.get("build")
        return {**release, "artifact": {**artifact, **more}, "build": build or []}

    def _send(
        self, needs: list[str], sources: dict[str, tuple[str, tuple[str, ...]]]
    ) -> dict[str, str]:
        """Every distinct content goes over once; where it lies on the host, by its digest."""
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        local = tempfile.mkdtemp(dir=C.DEFAULT_LOCAL_TMP)
        sent: dict[str, str] = {}
        try:
            for digest in needs:
                path, exclude = sources[digest]
                if os.path.isdir(path):
                    packed = os.path.join(local, digest)
                    pack(path, packed, exclude)
                    path = packed
                remote = shell.join_path(shell.tmpdir, f"artifact-{digest}")
                self._transfer_file(path, remote)
                sent[digest] = remote
        finally:
            shutil.rmtree(local)
        self._fixup_perms2((shell.tmpdir, *sent.values()))
        return sent

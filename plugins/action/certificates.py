# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(certificates): reads the host, issues what is due, ships it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.berth.platform.plugins.module_utils import acme
from ansible_collections.berth.platform.plugins.module_utils import certificates as core

TRUST_DIRECTORY = "/usr/local/share/ca-certificates"
_CERTIFICATE = {
    "name": {"type": "str", "required": True},
    "domains": {"type": "list", "elements": "str", "default": []},
    "addresses": {"type": "list", "elements": "str", "default": []},
    "provider": {"type": "str", "choices": ["platform", "files", "acme"], "default": "platform"},
    "certificate_file": {"type": "str"},
    "key_file": {"type": "str", "no_log": False},
    "ca_file": {"type": "str"},
    "days": {"type": "int", "default": 90},
    "renew_before": {"type": "int", "default": 30},
    "key_type": {
        "type": "str",
        "choices": list(core.KEY_TYPES),
        "default": "p256",
        "no_log": False,
    },
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str"},
    "mode": {"type": "str", "default": "0640"},
    "pending": {"type": "str"},
}
_OPTIONS = {
    "directory": {"type": "path", "default": "/etc/berth/tls"},
    "ca": {"type": "str", "no_log": True},
    "ca_trusted": {"type": "bool"},
    "certificates": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": _CERTIFICATE,
        "required_if": [("provider", "files", ("certificate_file", "key_file"))],
    },
    "group": {"type": "str", "default": "root"},
    "pending": {"type": "str"},
    "acme_renew_share": {"type": "float", "default": 0.33},
}


class ActionModule(ActionBase):
    """Certificates on a host, in one round trip when nothing is due."""

    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        variables: dict[str, Any] = task_vars or {}
        result = super().run(tmp, variables)
        if core.MISSING is not None:
            raise AnsibleActionFail(
                f"the controller's Python lacks cryptography 42 or later ({core.MISSING})"
            )
        args = self.validate_argument_spec(argument_spec=_OPTIONS)[1]
        try:
            result.update(self._ensure(args, variables))
        except core.CertificateError as error:
            raise AnsibleActionFail(str(error)) from None
        return result

    def _ensure(self, args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        now = core.utcnow()
        for entry in args["certificates"]:
            entry["group"] = entry["group"] or args["group"]
        wanted = [_wanted(entry) for entry in args["certificates"]]
        core.validate_all(wanted)
        entries = {each.name: e for each, e in zip(wanted, args["certificates"], strict=True)}
        public = [each for each in wanted if entries[each.name]["provider"] == "acme"]
        faults = [fault for each in public for fault in acme.faults_of(each)]
        if faults:
            raise core.CertificateError("; ".join(faults))
        authority = self._authority(args, entries)
        given = {
            each.name: self._given(each, entries[each.name], now)
            for each in wanted
            if entries[each.name]["provider"] == "files"
        }
        warnings = [warning for material in given.values() for warning in material.warnings]
        if authority is not None:
            longest = max((each.days for each in wanted if each not in public), default=0)
            warnings += filter(None, [core.authority_warning(authority, now, longest)])

        state = self._state(args, entries, authority, variables)
        if "certificates" not in state:
            return state
        result: dict[str, Any] = {"changed_names": [], "reasons": {}, "expires": {}, "orders": {}}
        diff = []
        shipment: list[dict[str, Any]] = []
        for each in wanted:
            found = _found(state["certificates"][each.name])
            material: core.Material | None = given.get(each.name)
            if each in public:
                # What is valid goes on serving until the host's own order has succeeded.
                order = acme.due(each, found, args["acme_renew_share"], now)
                if order:
                    result["orders"][each.name] = order
                reason = order if acme.needs_placeholder(found) else ""
                material = acme.placeholder(each, now) if reason else None
            elif material is not None:
                reason = core.given_differs(each, found, material)
            elif authority is None:
                raise AssertionError("_authority() refuses that")
            else:
                reason = core.due(each, found, authority, now)
                material = core.issue(each, authority, now) if reason else None
            if not reason or material is None:
                result["expires"][each.name] = core.expires_of(found.fullchain)
                continue
            entry, base = entries[each.name], f"{args['directory']}/{each.name}"
            result["changed_names"].append(each.name)
            result["reasons"][each.name] = reason
            result["expires"][each.name] = core.expires_of(material.fullchain)
            diff.append(_diff(base, core.describe(found.fullchain), material))
            marker = entry["pending"] or args["pending"] or ""
            for file in _files(base, material, entry):
                shipment.append({**file, "pending": marker} if marker else file)

        trust = _trust(args["ca_trusted"], authority, state)
        if trust:
            shipment.extend(trust)
        # Compared with the store itself, so that a run that died before it was built is made good.
        rebuild = bool(trust) or bool(args["ca_trusted"] and not state["anchor_trusted"])
        result["trust_changed"] = rebuild
        result["changed"] = bool(shipment) or rebuild
        if warnings:
            result["warnings"] = warnings
        if self._task.diff:
            result["diff"] = diff
        if not self._task.check_mode:
            if shipment:
                shipped = self._ship(shipment, variables)
                if shipped.get("failed") or shipped.get("unreachable"):
                    return shipped
            if rebuild:
                built: dict[str, Any] = self._execute_module(
                    module_name="ansible.legacy.command",
                    module_args={"_raw_params": "update-ca-certificates"},
                    task_vars=variables,
                )
                if built.get("failed") or built.get("unreachable"):
                    return built
        return result

    def _state(
        self,
        args: dict[str, Any],
        entries: dict[str, dict[str, Any]],
        authority: core.Authority | None,
        variables: dict[str, Any],
    ) -> dict[str, Any]:
        called: dict[str, Any] = self._execute_module(
            module_name="berth.platform.certificates_info",
            module_args={
                "directory": args["directory"],
                "certificates": [
                    {"name": name, **{key: entry[key] for key in ("owner", "group", "mode")}}
                    for name, entry in entries.items()
                ],
                **(
                    {"anchors": authority.fingerprints, "anchor_file": _anchor_file(authority)}
                    if authority
                    else {}
                ),
            },
            task_vars=variables,
        )
        return called

    def _authority(
        self, args: dict[str, Any], entries: dict[str, dict[str, Any]]
    ) -> core.Authority | None:
        if args["ca"]:
            return core.load_authority(args["ca"])
        needing = sorted(name for name, e in entries.items() if e["provider"] == "platform")
        if needing:
            raise core.CertificateError(
                f"ca is missing: it is to sign {', '.join(needing)}; give the authority's key and"
                " certificate (PEM), or certificates of your own with provider files"
            )
        if args["ca_trusted"]:
            raise core.CertificateError("ca is missing: it is to be trusted (ca_trusted)")
        return None

    def _given(self, wanted: core.Wanted, entry: dict[str, Any], now: Any) -> core.Material:
        return core.check_given(
            wanted,
            self._read(entry["certificate_file"]),
            self._read(entry["key_file"]),
            self._read(entry["ca_file"]) if entry["ca_file"] else "",
            now,
        )

    def _read(self, name: str) -> str:
        real = self._loader.get_real_file(self._find_needle("files", name), decrypt=True)
        try:
            return Path(real).read_text(encoding="utf-8", errors="replace")
        finally:
            self._loader.cleanup_tmp_file(real)

    def _ship(self, files: list[dict[str, Any]], variables: dict[str, Any]) -> dict[str, Any]:
        task = self._task.copy()
        task.args = {"files": files}
        get: Callable[..., Any] = self._shared_loader_obj.action_loader.get
        action = get(
            "berth.platform.files",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        shipped: dict[str, Any] = action.run(task_vars=variables)
        return shipped


def _wanted(entry: dict[str, Any]) -> core.Wanted:
    return core.Wanted(
        name=entry["name"].replace("*", "_"),
        domains=tuple(entry["domains"]),
        addresses=tuple(entry["addresses"]),
        days=entry["days"],
        renew_before=entry["renew_before"],
        key_type=entry["key_type"],
    )


def _found(state: dict[str, Any]) -> core.Found:
    return core.Found(
        fullchain=state["fullchain"],
        ca=state["ca"],
        key_matches=state["key_matches"],
        problems=tuple(state["problems"]),
    )


def _anchor_file(authority: core.Authority) -> str:
    """Named after the authority: hosts may trust those of several platforms."""
    name = authority.certificate.subject.rfc4514_string().rpartition("CN=")[2]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{TRUST_DIRECTORY}/berth-{slug or 'authority'}.crt"


def _files(base: str, material: core.Material, entry: dict[str, Any]) -> list[dict[str, Any]]:
    key = {
        "path": f"{base}/privkey.pem",
        "content": material.privkey,
        "owner": entry["owner"],
        "group": entry["group"],
        "mode": entry["mode"],
        "secret": True,
        "diff": False,
    }
    return [
        key,
        {"path": f"{base}/fullchain.pem", "content": material.fullchain},
        {"path": f"{base}/ca.pem", "content": material.ca},
    ]


def _trust(
    trusted: bool | None, authority: core.Authority | None, state: dict[str, Any]
) -> list[dict[str, Any]]:
    """What is to be changed for the host to trust the authority, or not to."""
    if trusted is None or authority is None:
        return []
    path = _anchor_file(authority)
    if trusted:
        return [] if state["anchor_stored"] else [{"path": path, "content": authority.pem}]
    return [{"path": path, "state": "absent"}] if state["anchor_present"] else []


def _diff(base: str, before: str, material: core.Material) -> dict[str, str]:
    after = core.describe(material.fullchain)
    return {"before_header": base, "after_header": base, "before": before, "after": after}

#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: certificates_info
short_description: What certificates a host has
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Reads the certificates below a directory in one round trip, each from
    C(<name>/fullchain.pem), C(<name>/ca.pem) and C(<name>/privkey.pem).
  - Private keys are only compared with their certificates, on the host; they are not returned.
options:
  directory:
    description: Where the certificates are.
    type: path
    default: /etc/berth/tls
  certificates:
    description: The certificates to read, and whose the private key should be.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the directory.
        type: str
        required: true
      owner:
        description: User that should own the private key.
        type: str
        default: root
      group:
        description: Group that the private key should belong to.
        type: str
        default: root
      mode:
        description: Mode that the private key should have.
        type: str
        default: "0640"
  anchors:
    description: SHA-256 of certificates to look for among those that the host trusts.
    type: list
    elements: str
    default: []
  anchor_file:
    description: File in which they should stand, for the host to trust them.
    type: path
  store:
    description: The bundle of all certificates that the host trusts.
    type: path
    default: /etc/ssl/certs/ca-certificates.crt
extends_documentation_fragment:
  - berth.platform.attributes
  - berth.platform.attributes.reader
seealso:
  - module: berth.platform.certificates
"""

EXAMPLES = r"""
- name: The shop's certificate is known
  berth.platform.certificates_info:
    certificates:
      - name: shop
  register: shop_certificates
"""

RETURN = r"""
certificates:
  description: What is there, by name.
  returned: success
  type: dict
  contains:
    fullchain:
      description: The certificate and what signed it (PEM), empty if it is not there.
      type: str
    ca:
      description: The certificates of the authority (PEM), empty if they are not there.
      type: str
    key_matches:
      description: Whether a private key is there and belongs to the certificate.
      type: bool
    problems:
      description: How owner, group or mode of the files differ from what they should be.
      type: list
      elements: str
anchor_stored:
  description: Whether O(anchor_file) holds exactly the O(anchors).
  returned: success
  type: bool
anchor_present:
  description: Whether O(anchor_file) exists.
  returned: success
  type: bool
anchor_trusted:
  description: Whether O(store) contains all O(anchors).
  returned: success
  type: bool
"""

import base64
import grp
import hashlib
import os
import pwd
import re
import ssl
import stat
from typing import Any

from ansible.module_utils.basic import AnsibleModule

# A certificate is a few kilobytes; whatever is larger is something else.
LIMIT = 1 << 20
PARTS = ("fullchain", "ca", "privkey")
_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


def read(path: str, limit: int = LIMIT) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read(limit)
    except OSError:
        return ""


def key_matches(fullchain: str, key: str) -> bool:
    """OpenSSL refuses to load a key with another one's certificate."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(fullchain, key, password=lambda: "")
    except (OSError, ValueError):
        return False
    return True


def problems(path: str, owner: str, group: str, mode: int) -> list[str]:
    """How a file's owner, group and mode differ; a file that is missing is judged elsewhere."""
    try:
        found = os.lstat(path)
    except OSError:
        return []
    name = os.path.basename(path)
    if not stat.S_ISREG(found.st_mode):
        return [f"{name} is not a regular file"]
    result = []
    if stat.S_IMODE(found.st_mode) != mode:
        result.append(f"{name} has mode {stat.S_IMODE(found.st_mode):04o}, not {mode:04o}")
    try:
        uid, gid = pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError:
        return [*result, f"{name} should belong to {owner}:{group}, which is not there yet"]
    if (found.st_uid, found.st_gid) != (uid, gid):
        result.append(
            f"{name} belongs to {found.st_uid}:{found.st_gid}, not {uid}:{gid} ({owner}:{group})"
        )
    return result


def certificate(directory: str, wanted: dict[str, Any]) -> dict[str, Any]:
    base = os.path.join(directory, wanted["name"])
    fullchain, ca, key = (os.path.join(base, f"{part}.pem") for part in PARTS)
    return {
        "fullchain": read(fullchain),
        "ca": read(ca),
        "key_matches": key_matches(fullchain, key),
        "problems": [
            *problems(fullchain, "root", "root", 0o644),
            *problems(ca, "root", "root", 0o644),
            *problems(key, wanted["owner"], wanted["group"], int(wanted["mode"], 8)),
        ],
    }


def fingerprints(pem: str) -> set[str]:
    """SHA-256 of each certificate in a text."""
    result = set()
    for block in _BLOCK.findall(pem):
        try:
            result.add(hashlib.sha256(base64.b64decode("".join(block.split()))).hexdigest())
        except ValueError:
            continue  # no certificate of ours
    return result


def main() -> None:
    suboptions = {
        "name": {"type": "str", "required": True},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
        "mode": {"type": "str", "default": "0640"},
    }
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/berth/tls"},
            "certificates": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": suboptions,
            },
            "anchors": {"type": "list", "elements": "str", "default": []},
            "anchor_file": {"type": "path"},
            "store": {"type": "path", "default": "/etc/ssl/certs/ca-certificates.crt"},
        },
        supports_check_mode=True,
    )
    params = module.params
    anchors, anchor_file = set(params["anchors"]), params["anchor_file"] or ""
    trusted = fingerprints(read(params["store"], 64 * LIMIT)) if anchors else set()
    module.exit_json(
        changed=False,
        certificates={
            wanted["name"]: certificate(params["directory"], wanted)
            for wanted in params["certificates"]
        },
        anchor_stored=bool(anchors) and fingerprints(read(anchor_file)) == anchors,
        anchor_present=os.path.lexists(anchor_file) if anchor_file else False,
        anchor_trusted=bool(anchors) and anchors <= trusted,
    )


if __name__ == "__main__":
    main()

# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: acme_configuration
short_description: What the host's program for public certificates reads
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Takes the certificates of provider C(acme) out of RV(ignore:tls_certificates), with their
    defaults, and puts the settings beside them. Every fault is reported in one error.
options:
  _input:
    description: The certificates, as the role P(berth.platform.tls#role) takes them.
    type: list
    elements: dict
    required: true
  settings:
    description:
      - The role's variables C(tls_acme_*) without that prefix, C(tls_directory) and C(group).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: What is ordered where
  ansible.builtin.debug:
    msg: "{{ tls_certificates | berth.platform.acme_configuration(settings=acme_settings) }}"
"""

RETURN = r"""
_value:
  description: The contents of C(/etc/berth/acme.json).
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.acme import AcmeError, configuration


def acme_configuration(certificates: Any, settings: Any) -> dict[str, Any]:
    try:
        return configuration(list(certificates), dict(settings))
    except AcmeError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"acme_configuration": acme_configuration}

# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: with_secrets
short_description: Put secrets where their markers are
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Walks a structure of mappings, lists and texts and replaces every C({secret:NAME}) by the
    value of that secret.
  - C({secret:NAME|urlencode}) gives the value percent-encoded, for use inside a URL.
  - A value is put in as it is; a marker inside a value is not looked into again.
  - So the plan, the catalog and everything printed of them stay free of secrets until the moment
    a role gets its variables.
positional: secret_values
options:
  _input:
    description: The structure.
    type: raw
    required: true
  secret_values:
    description: The values by name, RV(berth.platform.secrets#module:secret_values).
    type: dict
    required: true
notes:
  - An unknown name, an unknown conversion or an unclosed marker is an error that names it.
seealso:
  - module: berth.platform.secrets
"""

EXAMPLES = r"""
- name: Variables of a role, with the secrets in them
  ansible.builtin.set_fact:
    app_services: >-
      {{ platform_plan.app.services
         | berth.platform.with_secrets(platform_secrets.secret_values) }}
  no_log: true
"""

RETURN = r"""
_value:
  description: The structure with the values in place of their markers.
  type: raw
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.secrets import (
    SecretError,
    with_secrets,
)


def filter_with_secrets(data: Any, secret_values: Any) -> Any:
    if not isinstance(secret_values, dict):
        raise AnsibleFilterError("with_secrets: secret_values is not a mapping of names to values")
    try:
        return with_secrets(data, secret_values)
    except SecretError as error:
        raise AnsibleFilterError(f"with_secrets: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"with_secrets": filter_with_secrets}

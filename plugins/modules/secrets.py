# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secrets
short_description: Keep generated secrets encrypted beside the inventory
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Makes sure that every specified secret has a value, taken from where it is given, else from
    the file, else generated from the operating system's random numbers and added to the file.
  - The file is encrypted by Ansible Vault and can be viewed and edited by C(ansible-vault). It is
    replaced atomically, with mode 0600, and only when something changed.
  - A stored value stays as it is ever after, also when its specification changes. Only O(rotate)
    replaces it.
  - Entries that nothing names any more are kept and reported.
  - Runs on the controller and opens no connection; to be used with C(run_once).
options:
  file:
    description:
      - The encrypted file, on the controller. Created when it is absent and something is to be
        stored.
    type: path
    required: true
  specs:
    description: The secrets.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name; letters, digits and C(_ . @ / -).
        type: str
        required: true
      kind:
        description:
          - How it is made.
          - V(password) is O(specs[].length) characters of O(specs[].alphabet).
          - V(hex) is O(specs[].bits) random bits in hexadecimal digits.
          - V(base64) is O(specs[].bytes) random bytes in base64.
          - V(authority) is the key and certificate (PEM) of a new certificate authority named
            O(specs[].common_name).
          - V(given) is not made. It must be given in O(specs[].value) or be put into the file by
            C(ansible-vault edit).
        type: str
        choices: [password, hex, base64, authority, given]
        default: password
      value:
        description:
          - The value, where the user has one. Nothing is generated then, and it is not stored.
        type: str
      length:
        description: Characters of a password, 8 or more.
        type: int
        default: 32
      bits:
        description: Bits of a V(hex) secret, a multiple of 8, 64 or more.
        type: int
        default: 256
      bytes:
        description: Bytes of a V(base64) secret, 8 or more.
        type: int
        default: 32
      alphabet:
        description:
          - The characters of a password, at least ten different ones, or the name of a set
            (V(alphanumeric), V(letters), V(digits), V(unreserved)).
        type: str
        default: alphanumeric
      common_name:
        description: The name of a V(authority).
        type: str
        default: ''
      rotatable:
        description:
          - Whether O(rotate) may name it. V(false) for what encrypts data that is kept, such as
            backups.
        type: bool
        default: true
  rotate:
    description:
      - Names of the secrets that get a new value in this run.
      - What was encrypted or signed with the old value (backups, sessions, certificates) is not
        converted.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(present) makes sure that they are there.
      - V(absent) removes the named ones from the file.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is written; values that would be generated are, for this run only.
  diff_mode:
    support: full
    details: Names only, printed by the action itself since its result is hidden.
  idempotent:
    support: full
notes:
  - The vault password comes by Ansible's usual options, C(--vault-password-file), C(--vault-id),
    E(ANSIBLE_VAULT_PASSWORD_FILE) or C(--ask-vault-pass). An existing file keeps its vault id.
  - The result is hidden from output and logs whether or not the task says C(no_log).
  - Runs at the same time wait for one another while the file is written.
seealso:
  - plugin: berth.platform.with_secrets
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Secrets are there
  berth.platform.secrets:
    file: "{{ inventory_dir }}/secrets.vault.yml"
    specs:
      - name: sales_database
      - name: jwt_key
        kind: hex
        bits: 512
      - name: smtp_password
        kind: given
        value: "{{ smtp_password }}"
  run_once: true
  no_log: true
  register: platform_secrets

- name: One of them gets a new value
  berth.platform.secrets:
    file: "{{ inventory_dir }}/secrets.vault.yml"
    specs:
      - name: sales_database
    rotate: [sales_database]
  run_once: true
  no_log: true
  register: platform_secrets
"""

RETURN = r"""
secret_values:
  description: The value of every secret in O(specs), by name.
  returned: success
  type: dict
  sample: {}
generated:
  description: Names of the secrets that were generated now.
  returned: success
  type: list
  elements: str
  sample: [sales_database]
rotated:
  description: Names of the secrets that were given a new value now.
  returned: success
  type: list
  elements: str
  sample: []
removed:
  description: Names of the secrets that were removed now.
  returned: success
  type: list
  elements: str
  sample: []
unused:
  description: Names in the file that no specification names; kept.
  returned: success
  type: list
  elements: str
  sample: [old_service_database]
file:
  description: The file.
  returned: success
  type: str
  sample: /srv/inventories/prod/secrets.vault.yml
"""

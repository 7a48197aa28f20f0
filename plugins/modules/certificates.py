# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: certificates
short_description: Certificates of the platform's own authority, or given ones, on a host
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Makes sure that each certificate is in O(directory) as C(<name>/fullchain.pem),
    C(<name>/privkey.pem) and C(<name>/ca.pem).
  - A certificate is issued anew, with a new key, when it is missing, due, names other names than
    it should, belongs to another key or authority, or when its files' owner or mode were changed.
  - Keys are made on the controller and shipped by M(berth.platform.files); the authority's own key
    never leaves the controller.
  - One round trip when nothing is due, two otherwise, whatever the number of certificates, and one
    more when the trust store has to be built.
options:
  directory:
    description: Where the certificates are on the host.
    type: path
    default: /etc/berth/tls
  ca:
    description:
      - The authority, as one PEM text of its private key and its certificate. A certificate that is
        not self-signed may be followed by what signed it.
      - Needed for certificates of O(certificates[].provider=platform), and for O(ca_trusted).
    type: str
  ca_trusted:
    description:
      - Whether the host trusts the authority. Needs C(update-ca-certificates), which Debian has in
        the package C(ca-certificates).
      - Nothing is done about it when it is not given.
    type: bool
  certificates:
    description: The certificates. A C(*) in a name is written as C(_) in the directory's name.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the directory.
        type: str
        required: true
      domains:
        description: DNS names, also wildcards for the first label.
        type: list
        elements: str
        default: []
      addresses:
        description: IP addresses.
        type: list
        elements: str
        default: []
      provider:
        description:
          - V(platform) issues from O(ca).
          - V(files) takes O(certificates[].certificate_file) and O(certificates[].key_file), and
            fails unless they belong together, cover all names and are valid now.
          - V(acme) is for a certificate that the host orders by itself. Where there is none yet, a
            placeholder that nobody trusts lets services start. RV(orders) has those that are due.
        type: str
        choices: [platform, files, acme]
        default: platform
      certificate_file:
        description: File on the controller with the certificate, followed by what signed it (PEM).
        type: str
      key_file:
        description: File on the controller with the key (PEM). May be encrypted by Ansible Vault.
        type: str
      ca_file:
        description:
          - File on the controller with the authority's certificates (PEM), for C(ca.pem).
          - By default, what follows the first certificate of O(certificates[].certificate_file).
        type: str
      days:
        description: Days that a new certificate is valid.
        type: int
        default: 90
      renew_before:
        description: Days before its end at which a certificate is due. Less than days.
        type: int
        default: 30
      key_type:
        description: Kind of the private key.
        type: str
        choices: [p256, p384, rsa2048, rsa4096]
        default: p256
      owner:
        description: User that owns the private key.
        type: str
        default: root
      group:
        description: Group of the private key, in place of O(group).
        type: str
      mode:
        description: Mode of the private key.
        type: str
        default: "0640"
      pending:
        description: Marker for this certificate, in place of O(pending).
        type: str
  group:
    description: Group of the private keys.
    type: str
    default: root
  pending:
    description:
      - Marker that M(berth.platform.files) writes before the first replacement. The role that uses
        the certificates gives the same name to its own M(berth.platform.files), finds the marker,
        and reloads its service.
    type: str
  acme_renew_share:
    description:
      - Certificates of O(certificates[].provider=acme) are due when a smaller share than this of
        their lifetime is left, however long that is.
    type: float
    default: 0.33
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows names, issuer, end and serial number of the certificates.
  idempotent:
    support: full
requirements:
  - cryptography 42 or later on the controller
notes:
  - The controller's clock decides what is due.
seealso:
  - module: berth.platform.certificates_info
  - module: berth.platform.secrets
"""

EXAMPLES = r"""
- name: Certificates are in place
  berth.platform.certificates:
    ca: "{{ platform_secrets.secret_values.ca }}"
    ca_trusted: true
    pending: nginx
    certificates:
      - name: shop.example.com
        domains: [shop.example.com, www.shop.example.com]
      - name: database
        addresses: [10.0.0.5]
        group: postgres
        days: 45
        renew_before: 15
"""

RETURN = r"""
changed_names:
  description: Names of the certificates that were put in place.
  returned: success
  type: list
  elements: str
  sample: [shop.example.com]
reasons:
  description: Why, by name.
  returned: success
  type: dict
  sample: {shop.example.com: it expires on 2025-03-01}
expires:
  description: When each certificate ends, by name.
  returned: success
  type: dict
  sample: {shop.example.com: "2025-05-30T09:00:00+00:00"}
orders:
  description: Certificates of O(certificates[].provider=acme) that the host has to see to, and why.
  returned: success
  type: dict
  sample: {shop.example.com: only a placeholder is there}
trust_changed:
  description: Whether the host's trust store was built anew.
  returned: success
  type: bool
"""

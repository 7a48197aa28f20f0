#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: files
short_description: All files of a role in one round trip, validated before any is replaced
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Brings any number of files, directories and links to their wanted state in one call.
    Templates are rendered on the controller, as M(ansible.builtin.template) does it.
  - New contents are staged with their final owner and mode in a private place, judged by
    their validators, and only then renamed into place. When one validation fails, nothing
    is replaced and the message has the validator's words and the line it complains of.
  - Contents of about 1 MB in all travel in the call itself. Larger ones are compared by
    checksum first and transferred in a second trip, only when they differ.
  - Contents never appear in the result, in the arguments of a process or in a readable
    temporary file; contents of secret files not in diffs or messages either.
options:
  files:
    description: The paths to look after. No path may be named twice.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path on the host.
        type: path
        required: true
      state:
        description:
          - V(file) is a regular file with the given content. A link that stands at the path
            is replaced; nothing is written through it.
          - V(directory) is a directory. A link to one that root owns is accepted.
          - V(absent) removes a file, a link, or a directory with all that is in it.
          - V(link) is a symbolic link to O(files[].target).
        type: str
        choices: [file, directory, absent, link]
        default: file
      template:
        description:
          - Template to render, searched for as M(ansible.builtin.template) does.
          - Exactly one of O(files[].template), O(files[].content) and O(files[].source) is
            needed for O(files[].state=file).
        type: str
      content:
        description: The content itself.
        type: str
      source:
        description:
          - File on the controller, searched for as M(ansible.builtin.copy) does. May be
            binary and may be encrypted with Ansible Vault.
        type: str
      target:
        description: What a link points to.
        type: str
      owner:
        description: User that owns the path, by name or number.
        type: str
        default: root
      group:
        description: Group of the path, by name or number.
        type: str
        default: root
      mode:
        description: Octal mode as a string. Default V(0644) for files, V(0755) for directories.
        type: str
      vars:
        description: Variables for this template only, over those of the task.
        type: dict
        default: {}
      validate:
        description:
          - Command that judges the staged file, whose path is put in place of C(%s). The
            staged file bears its final name, owner and mode. No shell is involved.
        type: str
      secret:
        description:
          - Whether the content must not be shown, in diffs or in a validator's words.
          - Default V(true) for files that only their owner may read, else V(false).
        type: bool
      diff:
        description: Whether this path takes part in diffs.
        type: bool
        default: true
      backup:
        description: Whether to keep the old file as C(path.TIME~).
        type: bool
        default: false
      label:
        description:
          - A word of your own, returned in RV(changed_labels) when the path changed, for
            conditions that should not depend on paths.
        type: str
      replace:
        description: Whether a path that exists may be changed. V(false) only creates.
        type: bool
        default: true
      pending:
        description:
          - Marker for this path, in place of O(pending), where it is another service that reads it.
            It is written, and neither looked for nor returned.
        type: str
  trees:
    description:
      - Directories that are judged as a whole. The validators run in a private mount
        namespace in which every new tree, with all changes, owners and modes, stands at its
        real path.
      - All trees are in place for each validator. A tree without one is there for the others
        to see, such as certificates that a proxy's configuration names.
      - Validators run only when something in one of the trees changes.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The directory.
        type: path
        required: true
      validate:
        description: Command that judges the trees. No shell is involved.
        type: str
  exclusive:
    description: Directories in which no other files than those in O(files) may match a pattern.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The directory. Its subdirectories are not looked into.
        type: path
        required: true
      pattern:
        description: Names of the files and links that are removed unless they are in O(files).
        type: str
        default: "*"
  pending:
    description:
      - Name of a marker that is written before the first replacement, and that
        M(berth.platform.units) removes when it has told the services (its O(ignore:applied)).
      - When the marker of an earlier run is still there, that run died before its handlers
        ran. The result is then changed, so that they are notified again.
    type: str
  _payload:
    description: Set by the action of the same name, which packs all the other options into it.
    type: str
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
    details:
      - Users, groups and validators that are not there yet are predicted to be there.
      - What validators say is a warning, since they see a host on which earlier tasks
        changed nothing.
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - A file that is itself a mount point, such as C(/etc/hosts) in a container, is written in
    place, because it cannot be renamed over.
  - Tree validation needs root and the capability to mount.
seealso:
  - module: berth.platform.units
  - module: ansible.builtin.template
"""

EXAMPLES = r"""
- name: Nginx is configured
  berth.platform.files:
    pending: nginx
    files:
      - path: /etc/nginx/nginx.conf
        template: nginx.conf.j2
      - path: /etc/nginx/conf.d/shop.conf
        template: site.conf.j2
        vars:
          site: shop
      - path: /etc/nginx/htpasswd
        content: "{{ nginx_htpasswd }}"
        group: www-data
        mode: "0640"
        secret: true
      - path: /etc/nginx/sites-enabled/default
        state: absent
    trees:
      - path: /etc/nginx
        validate: nginx -t
    exclusive:
      - path: /etc/nginx/conf.d
        pattern: "*.conf"
  notify: Nginx is reloaded
"""

RETURN = r"""
changed_files:
  description: Paths that were changed, and those of an earlier run that did not finish.
  returned: success
  type: list
  elements: str
  sample: [/etc/nginx/nginx.conf]
changed_labels:
  description: Labels of the paths that were changed.
  returned: success
  type: list
  elements: str
  sample: [site]
pending:
  description: Whether an earlier run changed files and did not tell the services.
  returned: success
  type: bool
backups:
  description: Where the old file was kept, by path.
  returned: success
  type: dict
  sample: {/etc/nginx/nginx.conf: /etc/nginx/nginx.conf.20250102T030405Z~}
notes:
  description: What could not be validated in check mode, and why.
  returned: success
  type: list
  elements: str
diff:
  description: What changed, by path, in diff mode.
  returned: in diff mode
  type: list
  elements: dict
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.files_apply import run
from ansible_collections.berth.platform.plugins.module_utils.files_spec import Faults, unpack

FILE_OPTIONS = {
    "path": {"type": "path", "required": True},
    "state": {
        "type": "str",
        "choices": ["file", "directory", "absent", "link"],
        "default": "file",
    },
    "template": {"type": "str"},
    "content": {"type": "str"},
    "source": {"type": "str"},
    "target": {"type": "str"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str"},
    "vars": {"type": "dict", "default": {}},
    "validate": {"type": "str"},
    "secret": {"type": "bool", "no_log": False},
    "diff": {"type": "bool", "default": True},
    "backup": {"type": "bool", "default": False},
    "label": {"type": "str"},
    "replace": {"type": "bool", "default": True},
    "pending": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "default": [], "options": FILE_OPTIONS},
            "trees": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "validate": {"type": "str"},
                },
            },
            "exclusive": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "pattern": {"type": "str", "default": "*"},
                },
            },
            "pending": {"type": "str"},
            # The action packs everything into this one, so that no content is ever logged.
            "_payload": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    if not module.params["_payload"]:
        module.fail_json(msg="This module is run by the action of the same name only.")
    request = unpack(module.params["_payload"])
    shown = {
        "module_args": {
            "files": [spec.path for spec in request.files],
            "trees": [tree.path for tree in request.trees],
            "exclusive": [item.path for item in request.exclusive],
            "pending": request.pending or None,
        }
    }
    want_diff = bool(module._diff) and not module.no_log
    try:
        outcome = run(request, check=module.check_mode, want_diff=want_diff)
    except Faults as error:
        module.fail_json(
            msg="No file was changed.\n" + "\n".join(error.faults),
            invocation=shown,
        )
    except OSError as error:
        module.fail_json(msg=f"The files could not all be put in place: {error}", invocation=shown)
    result = asdict(outcome)
    for warning in result.pop("warnings"):
        module.warn(warning)
    if not want_diff:
        result.pop("diff")
    module.exit_json(invocation=shown, **result)


if __name__ == "__main__":
    main()

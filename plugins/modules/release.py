#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Bring releases of applications in place and switch to them
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Brings any number of applications to the wanted version in one call, or in two when artifacts
    of the controller have to be sent. Only what the host does not have is sent, each content once.
  - A release is a directory named by its version. It is unpacked and built beside, synced to
    the disk and renamed, so that it is there whole or not at all, and never changed after.
    A symbolic link points to the one that is active and is replaced atomically.
  - Releases belong to root and can be read by O(releases[].group), not written by the service.
  - Old releases are removed after the switch, never the active one nor the one before.
  - What an interrupted run has left is removed by the next.
  - An archive cannot write outside of its release. Absolute names, C(..), links to outside and
    special files are refused.
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows the active version and the installed ones, before and after.
  idempotent:
    support: full
options:
  releases:
    description: The releases that are wanted.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the application, for messages and results.
        type: str
        required: true
      home:
        description:
          - Directory of the application. Gives O(releases[].directory) as C(home/releases) and
            O(releases[].link) as C(home/current).
        type: path
      directory:
        description: Directory of the releases. No two applications share one.
        type: path
      link:
        description: The symbolic link to the active release.
        type: path
      artifact:
        description:
          - What the release is made of. Exactly one of O(releases[].artifact.path),
            O(releases[].artifact.url) and O(releases[].artifact.git).
        type: dict
        required: true
        suboptions:
          path:
            description:
              - A directory or file on the controller, relative to the playbook.
              - A directory is packed the same way every time, so that its version depends on
                names, contents and execute bits alone.
            type: str
          exclude:
            description:
              - Patterns of names or relative paths that are left out of a directory.
            type: list
            elements: str
            default: [.git, __pycache__, "*.pyc"]
          url:
            description: An archive or file that the host downloads.
            type: str
          checksum:
            description:
              - C(sha256:) or C(sha512:) and the hexadecimal digest of O(releases[].artifact.url),
                which requires it.
            type: str
          git:
            description: URL of a repository that the host, as root, fetches from.
            type: str
          version:
            description: Tag, branch or commit of O(releases[].artifact.git).
            type: str
            default: HEAD
          build:
            description: Same as O(releases[].build), which wins.
            type: list
            elements: str
            default: []
          strip:
            description: Leading directories of an archive that are left out.
            type: int
            default: 0
          format:
            description:
              - V(auto) unpacks what is named like a tar (also gz, bz2, xz) or zip archive, and puts
                in any other file as it is, executable.
              - V(archive) unpacks whatever the name is, V(file) never does.
            type: str
            choices: [auto, archive, file]
            default: auto
          digest:
            description: Set by the controller's part for O(releases[].artifact.path).
            type: str
          name:
            description:
              - Name of the file that is put in, or by which an archive is known as one. By
                default the last part of the path or URL.
            type: str
      version:
        description:
          - Name of the release, of letters, digits, dots, hyphens and underscores.
          - By default the first 12 digits of the content's SHA-256, or of the commit.
            With a build, of the SHA-256 over both.
          - A version that is there already is used as it is. If the artifact is another now, a
            warning says so.
        type: str
      owner:
        description: Owner of the release's files.
        type: str
        default: root
      group:
        description: Group that can read the release.
        type: str
        default: root
      world_readable:
        description: Whether everybody can read the release.
        type: bool
        default: false
      keep:
        description: Number of releases to keep, the active one included.
        type: int
        default: 3
      build:
        description:
          - Commands for C(sh), run one after the other in the release, before it is complete.
          - They run without privileges as O(releases[].build_user), at the release's final path,
            with an empty home directory.
        type: list
        elements: str
        default: []
      build_user:
        description: User that runs the build, by default the owner.
        type: str
      build_timeout:
        description: Seconds that each command, and the fetch from git, may take.
        type: int
        default: 900
      build_environment:
        description: Environment variables of the build.
        type: dict
        default: {}
      migrate:
        description:
          - A oneshot unit that is started when the release is in place, before any of the call is
            activated, unless its marker is there.
          - If it fails no release of the call is activated.
        type: dict
        suboptions:
          unit:
            description: Name of the unit, in which C({version}) stands for the version.
            type: str
            required: true
          marker:
            description: File that the unit makes when it has succeeded.
            type: path
            required: true
          here:
            description:
              - Whether it is this host that migrates. Where another one has done so for both, the
                marker is made when the release is activated.
            type: bool
            default: true
      activate:
        description: Whether to switch the link, and to remove old releases then.
        type: bool
        default: true
  units:
    description:
      - Units that run these releases, to learn which have to be restarted, RV(stale_units), and
        which are left from before, RV(retired_units).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Full name of the unit.
        type: str
        required: true
      paths:
        description: Files and links that the unit's process must have been started after.
        type: list
        elements: path
        default: []
  registry:
    description: Directory that holds an environment file C(UNIT.env) for each unit.
    type: path
  scope:
    description:
      - Environment files whose head has a line C(# scope:) with another text are not looked at.
    type: str
    default: ""
  lock_timeout:
    description: Seconds to wait for another call that is at work on the same releases.
    type: int
    default: 300
  archives:
    description: Set by the controller's part.
    type: dict
    default: {}
notes:
  - The files of a release get the time at which they were unpacked. Times that a build tool
    fixes would let web servers take a changed file of the same length for the old one.
seealso:
  - module: berth.platform.files
  - module: berth.platform.units
"""

EXAMPLES = r"""
- name: The shop's release is active
  berth.platform.release:
    releases:
      - name: shop
        home: /srv/shop
        group: shop
        artifact:
          url: https://example.com/shop-1.4.2.tar.gz
          checksum: sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
        version: 1.4.2

- name: A site built here is what the web server shows
  berth.platform.release:
    releases:
      - name: frontend
        directory: /var/www/frontend/releases
        link: /var/www/frontend/build
        group: www-data
        artifact:
          path: ../frontend/build

- name: An application is built on the host
  berth.platform.release:
    releases:
      - name: api
        home: /srv/api
        group: api
        artifact:
          git: https://example.com/api.git
          version: v2.1.0
        build: [npm ci, npm run build]
        build_user: api
        build_timeout: 600
"""

RETURN = r"""
releases:
  description: What became of each release, in the order given.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the application.
      type: str
      sample: shop
    version:
      description: The wanted version.
      type: str
      sample: 1.4.2
    path:
      description: Directory of the release.
      type: str
      sample: /srv/shop/releases/1.4.2
    link:
      description: The link to the active release.
      type: str
      sample: /srv/shop/current
    previous:
      description: Version that was active when the call began, if any.
      type: str
      sample: 1.4.1
    current:
      description: Version that is active now, if any.
      type: str
      sample: 1.4.2
    active:
      description: Whether the wanted version is active now.
      type: bool
    installed:
      description: Whether the release was put in place by this call.
      type: bool
    migrated:
      description: Whether its migration ran in this call.
      type: bool
    activated:
      description: Whether this call switched to it.
      type: bool
    pruned:
      description: Versions that were removed.
      type: list
      elements: str
    changed:
      description: Whether anything of it changed.
      type: bool
activated:
  description: Names of the applications that were switched.
  returned: always
  type: list
  elements: str
  sample: [shop]
waiting:
  description: Names of the applications whose wanted version is not active.
  returned: always
  type: list
  elements: str
  sample: []
stale_units:
  description:
    - Those of O(units) that run and were started before one of their files was replaced, or whose
      unit file systemd has not read again.
  returned: always
  type: list
  elements: str
  sample: [shop.service]
retired_units:
  description:
    - Units, without C(.service), that have an environment file in O(registry) and are not in
      O(units).
  returned: always
  type: list
  elements: str
  sample: []
needs:
  description: Digests of the artifacts that have to be sent.
  returned: always
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.berth.platform.plugins.module_utils.release import (
    Host,
    ReleaseError,
    look_at_units,
    spec_from,
)

ARTIFACT = {
    "path": {"type": "str"},
    "exclude": {
        "type": "list",
        "elements": "str",
        "default": [".git", "__pycache__", "*.pyc"],
    },
    "url": {"type": "str"},
    "checksum": {"type": "str"},
    "git": {"type": "str"},
    "version": {"type": "str", "default": "HEAD"},
    "build": {"type": "list", "elements": "str", "default": []},
    "strip": {"type": "int", "default": 0},
    "format": {"type": "str", "choices": ["auto", "archive", "file"], "default": "auto"},
    "digest": {"type": "str"},
    "name": {"type": "str"},
}

RELEASE = {
    "name": {"type": "str", "required": True},
    "home": {"type": "path"},
    "directory": {"type": "path"},
    "link": {"type": "path"},
    "artifact": {
        "type": "dict",
        "required": True,
        "options": ARTIFACT,
        "required_one_of": [["path", "url", "git"]],
        "mutually_exclusive": [["path", "url", "git"]],
        "required_by": {"url": "checksum"},
    },
    "version": {"type": "str"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "world_readable": {"type": "bool", "default": False},
    "keep": {"type": "int", "default": 3},
    "build": {"type": "list", "elements": "str", "default": []},
    "build_user": {"type": "str"},
    "build_timeout": {"type": "int", "default": 900},
    "build_environment": {"type": "dict", "default": {}, "no_log": True},
    "migrate": {
        "type": "dict",
        "options": {
            "unit": {"type": "str", "required": True},
            "marker": {"type": "path", "required": True},
            "here": {"type": "bool", "default": True},
        },
    },
    "activate": {"type": "bool", "default": True},
}

ARGUMENTS = {
    "releases": {"type": "list", "elements": "dict", "required": True, "options": RELEASE},
    "units": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "paths": {"type": "list", "elements": "path", "default": []},
        },
    },
    "registry": {"type": "path"},
    "scope": {"type": "str", "default": ""},
    "lock_timeout": {"type": "int", "default": 300},
    "archives": {"type": "dict", "default": {}},
}


def fetch(url: str, target: str) -> None:
    """Downloads to a file; a stalled server is given up after a minute of silence."""
    with open_url(url, timeout=60) as answer, open(target, "wb") as out:
        while chunk := answer.read(1024 * 1024):
            out.write(chunk)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    host = Host(fetch, check=module.check_mode, lock_seconds=params["lock_timeout"])
    try:
        result = host.run([spec_from(each) for each in params["releases"]], params["archives"])
        for warning in result.pop("warnings"):
            module.warn(warning)
        result.update(look_at_units(params["units"], params["registry"] or "", params["scope"]))
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

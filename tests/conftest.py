"""Lets every test import the collection under its real name, as Ansible does."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLLECTIONS = ROOT / ".work" / "collections"

if not (COLLECTIONS / "ansible_collections" / "berth" / "platform").exists():
    raise RuntimeError("run `make setup` first: .work/collections is missing")
sys.path.insert(0, str(COLLECTIONS))

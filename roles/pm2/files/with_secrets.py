# Written by berth.platform.pm2; changes are overwritten.
"""Becomes the program in its arguments, with the secrets as variables of its environment."""

import json
import os
import sys
from pathlib import Path

os.environ.update(json.loads(Path(os.environ["BERTH_SECRETS"]).read_text(encoding="utf-8")))
os.execvp(sys.argv[1], sys.argv[1:])

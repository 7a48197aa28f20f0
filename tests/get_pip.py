"""Puts pip into the empty environments of ansible-test, from what Python itself carries.

ansible-test fetches such a script from a site of its own, which a machine that reaches only
package registries does not; it takes this one from its cache instead.
"""

from __future__ import annotations

import subprocess
import sys

# As a process of its own: it shuts out pip's configuration for all that comes after it.
subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
packages = [word for word in sys.argv[1:] if not word.startswith("--no-")]
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *packages], check=True)

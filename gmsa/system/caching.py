"""The folder of what gmsa keeps to compute it once."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where it is: ``$GMSA_CACHE``, else ``~/.cache/gmsa``."""
    return Path(os.environ.get("GMSA_CACHE") or os.path.expanduser("~/.cache/gmsa"))

"""Keeps what was extracted from clips on disk, by a hash of all that it depends on."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gmsa.errors import GmsaError
from gmsa.system.files import make_folder, write_bytes
from gmsa.system.reading import exists, read_bytes

MOST = 1 << 28
"""Bytes of an entry, at most."""


def cache_folder() -> Path:
    """Where extractions are kept by default: ``$GMSA_CACHE/media``, else ``~/.cache/gmsa/media``."""
    return Path(os.environ.get("GMSA_CACHE") or os.path.expanduser("~/.cache/gmsa")) / "media"


class Cache:
    """A folder of ``ab/abcd….npz``; several processes and machines may share it, since a file is whole or absent."""

    def __init__(self, folder: Path, only_read: bool = False) -> None:
        self.folder, self.only_read = folder, only_read

    def read(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays of an entry; None where there is none, or it is damaged."""
        path = self._path(key)
        try:
            if not exists(path):
                return None
            with np.load(io.BytesIO(read_bytes(path, MOST)), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (GmsaError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def write(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes an entry.

        Raises:
            WriteError: it cannot be written.
        """
        assert not self.only_read
        path = self._path(key)
        make_folder(path.parent)
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        write_bytes(path, content.getvalue())

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"

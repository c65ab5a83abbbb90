"""Keeps what was extracted from clips on disk, by a hash of all that it depends on."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gmsa.errors import GmsaError
from gmsa.system.caching import cache_folder
from gmsa.system.files import make_folder, write_bytes
from gmsa.system.reading import exists, read_bytes

MOST = 1 << 28
"""Bytes of an entry, at most."""
DIGEST = 32
"""Bytes of the SHA-256 that ends an entry: a zip's own checks miss shapes and names that were changed."""


def media_folder() -> Path:
    """Where extractions are kept by default."""
    return cache_folder() / "media"


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
            raw = read_bytes(path, MOST)
            content, sha256 = raw[:-DIGEST], raw[-DIGEST:]
            if hashlib.sha256(content).digest() != sha256:
                return None
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (GmsaError, ValueError):
            return None

    def write(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes an entry.

        Raises:
            RunError: it cannot be written.
        """
        assert not self.only_read
        path = self._path(key)
        make_folder(path.parent)
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        raw = content.getvalue()
        write_bytes(path, raw + hashlib.sha256(raw).digest())  # a zip may have bytes behind it

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"

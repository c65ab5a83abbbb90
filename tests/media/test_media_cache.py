"""The cache of extractions: whole or absent, whatever happens to its files and whoever writes."""

from __future__ import annotations

import hashlib
import io
import threading
from pathlib import Path

import numpy as np
import pytest

from gmsa.errors import RunError
from gmsa.media.cache import Cache, media_folder

KEY = "ab" + "0" * 62
ARRAYS = {
    "values": np.arange(6, dtype=np.float32).reshape(3, 2),
    "kept": np.array([True, False, True]),
    "reason": np.frombuffer(b"no face", np.uint8),
}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        one[k].dtype == other[k].dtype and np.array_equal(one[k], other[k]) for k in one
    )


def entry(folder: Path) -> Path:
    (found,) = folder.rglob("*.npz")
    return found


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new" / "cache")
    assert cache.read(KEY) is None
    cache.write(KEY, ARRAYS)
    found = Cache(tmp_path / "new" / "cache", only_read=True).read(KEY)
    assert found is not None
    assert same(found, ARRAYS)
    assert entry(tmp_path).relative_to(tmp_path) == Path("new/cache/ab") / f"{KEY}.npz"


def test_equal_arrays_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        Cache(tmp_path / name).write(KEY, ARRAYS)
    assert entry(tmp_path / "one").read_bytes() == entry(tmp_path / "other").read_bytes()


def test_no_damage_is_taken_for_an_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.write(KEY, ARRAYS)
    path = entry(tmp_path)
    whole = path.read_bytes()
    changed = [(i, byte ^ flip) for flip in (1, 4, 128) for i, byte in enumerate(whole)]
    damaged = (whole[:i] + bytes([byte]) + whole[i + 1 :] for i, byte in changed)
    for content in [*damaged, *(whole[:i] for i in range(0, len(whole), 7))]:
        path.write_bytes(content)
        assert cache.read(KEY) is None
    cache.write(KEY, ARRAYS)
    found = cache.read(KEY)
    assert found is not None
    assert same(found, ARRAYS)


def test_an_entry_is_an_npz(tmp_path: Path) -> None:
    Cache(tmp_path).write(KEY, ARRAYS)
    with np.load(entry(tmp_path)) as found:
        assert same(dict(found), ARRAYS)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "ab" / f"{KEY}.npz"
    path.parent.mkdir()
    content = io.BytesIO()
    np.savez(content, values=np.array([{"a": 1}], dtype=object))
    path.write_bytes(content.getvalue() + hashlib.sha256(content.getvalue()).digest())
    assert Cache(tmp_path).read(KEY) is None


def test_writers_beside_each_other_leave_one_whole_entry(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def write() -> None:
        cache = Cache(tmp_path)
        try:
            for _ in range(20):
                cache.write(KEY, ARRAYS)
                found = cache.read(KEY)
                assert found is not None
                assert same(found, ARRAYS)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{KEY}.npz"]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError):
        Cache(tmp_path / "file").write(KEY, ARRAYS)


def test_the_place_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMSA_CACHE", str(tmp_path))
    assert media_folder() == tmp_path / "media"

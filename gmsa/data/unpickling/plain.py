"""Checks the result of a pickle: plain values and arrays, in trees of bounded depth and size."""

from __future__ import annotations

from typing import Any

import numpy as np

from gmsa.data.unpickling.names import Refused, described

_DEPTH = 64
_LEAVES: set[type] = {bool, int, float, str, bytes, bytearray, type(None), np.bool_, np.str_, np.bytes_}
_LEAVES |= {np.dtype(code).type for code in "bhilqBHILQefd"}
_SIZED: set[type] = {str, bytes, bytearray, np.str_, np.bytes_, np.ndarray}
_CONTAINERS = {list, tuple, dict, np.ndarray}


def check_plain(root: Any, most: int, most_bytes: int) -> None:
    """Checks that a value is plain data, does not contain itself, is not too deep, and is not too large.

    Each container is visited once, so the time depends on the size of the file, not on the size of the expanded tree.

    Args:
        root: the value.
        most: values that it may hold, where a shared container counts each time.
        most_bytes: bytes of arrays and strings that it may hold, counted alike.

    Raises:
        Refused: the value is not.
    """
    finished: dict[int, tuple[int, int, int]] = {}  # depth, size and bytes of containers, by their ids
    path: dict[int, list[Any]] = {}  # the chain of open containers, each with the containers that it holds
    agenda = _containers([root])
    while agenda:
        value = agenda[-1]
        key = id(value)
        if key in finished:
            agenda.pop()
            continue
        depth, size, content = 1, 1, 0
        if key not in path:
            found = _containers(value)
            if found:
                path[key] = found
                if len(path) >= _DEPTH:
                    raise Refused(f"the pickle nests over {_DEPTH} levels")
                if not path.keys().isdisjoint(map(id, found)):
                    raise Refused("the pickle holds a list that contains itself")
                agenda += found
                continue
        else:
            inside = [finished[id(inner)] for inner in path.pop(key)]
            depth += max(depth for depth, _, _ in inside)
            size += sum(size for _, size, _ in inside)
            content += sum(content for _, _, content in inside)
        size += value.size if type(value) is np.ndarray else len(value)
        content += _bytes_in(value)
        if depth > _DEPTH:
            raise Refused(f"the pickle nests over {_DEPTH} levels")
        if size > most:
            raise Refused(f"the pickle repeats its lists until they hold over {most} values")
        if content > most_bytes:
            raise Refused(f"the pickle repeats arrays or strings until they hold over {most_bytes:,} bytes")
        finished[key] = depth, size, content
        agenda.pop()


def _items(value: Any) -> Any:
    return value.values() if type(value) is dict else value.ravel().tolist() if type(value) is np.ndarray else value


def _bytes_in(value: Any) -> int:
    """Bytes of the arrays and strings directly in a container."""
    items = _items(value)
    if not _SIZED & set(map(type, items)):
        return 0
    found = 0
    for item in items:
        if type(item) is np.ndarray:
            found += item.nbytes
        elif type(item) in _SIZED:
            found += len(item)
    return found


def _containers(value: Any) -> list[Any]:
    """Returns the containers directly in a container; all other content must be plain values."""
    items = _items(value)
    kinds = set(map(type, items)) - _LEAVES
    if not kinds:
        return []
    if not kinds <= _CONTAINERS:
        raise Refused(f"the pickle holds {described(next(v for v in items if type(v) in kinds - _CONTAINERS))} as data")
    return [v for v in items if type(v) in _CONTAINERS and (type(v) is not np.ndarray or v.dtype.hasobject)]

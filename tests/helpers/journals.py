"""Changes of a journal's lines, as accidents make them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable

from gmsa.tuning.journal import HEAD_KEYS, Mark, written


def plain(content: bytes) -> bytes:
    """A journal as gmsa wrote it before: without digests."""
    return re.sub(rb'(?m)^\{"line":.*?,"check":"\w{16}",', b"{", content)


def _move(lines: list[bytes], from_: int, to: int) -> list[bytes]:
    lines.insert(to, lines.pop(from_))
    return lines


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "lost": lambda x: x[:9] + x[10:],
    "first lost": lambda x: x[1:],
    "three lost": lambda x: x[:9] + x[12:],
    "doubled": lambda x: [*x[:10], x[9], *x[10:]],
    "doubled at the end": lambda x: [*x, x[-1]],
    "an early one again at the end": lambda x: [*x, x[3]],
    "swapped": lambda x: [*x[:9], x[10], x[9], *x[11:]],
    "moved": lambda x: _move(x, 4, 12),
    "all reversed": lambda x: x[::-1],
    "text": lambda x: [*x[:9], b"hello\n", *x[9:]],
    "text at the end": lambda x: [*x, b"hello\n"],
    "text at the end without its own": lambda x: [*x, b"hello"],
    "text at the start": lambda x: [b"hello\n", *x],
    "an empty line": lambda x: [*x[:9], b"\n", *x[9:]],
    "an operation of another program": lambda x: [*x, plain(x[-1])],
    "such a one unfinished": lambda x: [*x, plain(x[-1])[:-5]],
    "null bytes of a crash": lambda x: [*x, b"\0" * 4096],
    "null bytes in place of the end": lambda x: [*x[:-2], b"\0" * len(b"".join(x[-2:]))],
    "carriage returns": lambda x: [line[:-1] + b"\r\n" for line in x],
    "another encoding": lambda x: [b"".join(x).decode().encode("utf-16")],
    "a mark of UTF-8": lambda x: [b"\xef\xbb\xbf", *x],
    "binary": lambda x: [random.Random(1).randbytes(5000)],
    "binary in the middle": lambda x: [*x[:9], random.Random(1).randbytes(500), *x[9:]],
    "a long line": lambda x: [*x[:9], b'{"op_code":' + b"1" * (1 << 21) + b"\n", *x[9:]],
    "cut at the front": lambda x: [b"".join(x)[7:]],
    "a piece of another journal": lambda x: x[:9] + _other(x),
    "deep nesting": lambda x: [*x, b'{"op_code":' + b"[" * 100_000 + b"\n"],
}


def _other(lines: list[bytes]) -> list[bytes]:
    """The end of a journal that went on otherwise from line 6 on, as a copy on another machine."""
    mark, other = Mark(), list[bytes]()
    for number, line in enumerate(lines):
        log = {k: v for k, v in json.loads(line).items() if k not in HEAD_KEYS}
        log |= {"worker_id": "other"} if number > 5 else {}
        log |= {"values": [0.5]} if number > 5 and log.get("values") else {}
        mark, new = written(mark, log)
        other.append(new)
    return other[9:]

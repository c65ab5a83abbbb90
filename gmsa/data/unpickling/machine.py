"""The pickle machine: the state of a pickle that is being read, and checks that opcodes share."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np

from gmsa.data.unpickling.arrays import Maker, Pending, Undecoded
from gmsa.data.unpickling.names import Cut, Damaged, Name, Refused, described

LARGE = 2**12
"""Size in bytes from which the content of an array stays in the mapped file; smaller content is copied."""
_LONGEST_KEY = 1024
_MOST_PARTS = 16
_SMALL_DICT = 100
_MOST_KEYS = 3_000
_PLAIN_KEYS = (int, float, str, bytes, type(None), np.generic)


class Machine:
    """The state of a pickle that is being read: its bytes, a stack with marks, a memo, and a maker of arrays.

    Lengths are checked before anything is allocated, and repeated references share their content, so that time and
    memory grow with the size of the file only.

    Args:
        data: the pickle.
    """

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data, self.view, self.size = data, memoryview(data), len(data)
        self.maker = Maker(2 * len(data))  # once to decode, once to check
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each open mark
        self.memo: dict[int, Any] = {}
        self.count = 0  # of opcodes
        self.guessable_keys = 0

    def end(self, position: int, length: int) -> int:
        """Returns where an argument ends, after checking that the file is long enough."""
        if length > self.size - position:
            raise Cut
        return position + length

    def line(self, position: int) -> tuple[bytes, int]:
        """Returns an argument that ends with its line, and the position of the next opcode."""
        stop = self.line_end(position)
        return self.data[position:stop], stop + 1

    def line_end(self, position: int) -> int:
        """Returns where a line ends."""
        stop = self.data.find(b"\n", position)
        if stop < 0:
            raise Cut
        return stop

    def close_mark(self) -> list[Any]:
        """Removes the last mark, and returns the values above it."""
        if not self.below:
            raise Damaged("it closes a mark that was never set")
        found, self.stack = self.stack, self.below.pop()
        return found

    def fills_array(self) -> bool:
        """Returns whether the values above the last mark are the state of an array."""
        under = self.below[-1] if self.below else []
        return bool(under) and (type(under[-1]) is Pending or under[-1] is Name.FROMBUFFER)

    def is_encoded(self) -> bool:
        """Returns whether the next text encodes bytes."""
        before = self.stack or (self.below[-1] if self.below else [])
        return bool(before) and before[-1] is Name.ENCODE

    def text(self, start: int, stop: int, codec: str) -> str | Undecoded:
        """Returns the text between two positions, not yet decoded if it is long and encodes bytes."""
        if stop - start >= LARGE and self.is_encoded():
            return Undecoded(self.data, start, stop, codec)
        try:
            return str(self.view[start:stop], codec)
        except UnicodeDecodeError:
            return str(self.view[start:stop], codec, "surrogatepass")  # as Python's pickle does, but slower

    def put(self, index: int) -> None:
        """Stores the top of the stack in the memo."""
        if index > self.count:
            raise Refused(f"the pickle numbers its memo up to {index} in {self.count} opcodes")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        """Pushes a value of the memo on the stack."""
        if index not in self.memo:
            raise Damaged(f"it reads entry {index} of its memo, which was never stored")
        value = self.memo[index]
        if type(value) is Pending and value.array is not None:
            value = value.array
        self.stack.append(value)

    def set_items(self, target: Any, items: list[Any]) -> None:
        """Adds alternating keys and values to a dict."""
        if type(target) is not dict:
            raise Damaged(f"it adds keys to {described(target)}")
        if len(items) % 2:
            raise Damaged("it adds a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str or len(key) > _LONGEST_KEY:
                self.check_key(key, len(target))
            target[key] = value

    def check_key(self, key: Any, others: int) -> None:
        """Refuses keys that are slow to hash or to compare, and too many keys whose hashes can be made to collide.

        Hashes of text are randomized by Python. Those of numbers and tuples are not, and could be chosen to collide.
        """
        parts = key if type(key) is tuple else (key,)
        if len(parts) > _MOST_PARTS:
            raise Refused(f"the pickle uses a key of over {_MOST_PARTS} parts")
        for part in parts:
            if not isinstance(part, _PLAIN_KEYS):
                raise Refused(f"the pickle uses {described(part)} as a key")
            if isinstance(part, (str, bytes)) and len(part) > _LONGEST_KEY:
                raise Refused(f"the pickle uses a key of over {_LONGEST_KEY} characters")
        self.guessable_keys += others >= _SMALL_DICT and not isinstance(key, (str, bytes))
        if self.guessable_keys > _MOST_KEYS:
            raise Refused(f"the pickle uses over {_MOST_KEYS} keys that are not text")


Handler = Callable[[Machine, int], int]
"""Function ``(machine, position of the argument) -> position of the next opcode`` that executes an opcode."""


def _unknown(m: Machine, position: int) -> int:
    raise Damaged(f"it has the unknown opcode {m.data[position - 1]:#04x} at byte {position - 1}")


HANDLERS: list[Handler] = [_unknown] * 256


def on(*opcodes: bytes) -> Callable[[Handler], Handler]:
    """Registers a handler of these opcodes."""

    def register(handler: Handler) -> Handler:
        for opcode in opcodes:
            HANDLERS[opcode[0]] = handler
        return handler

    return register

"""Word pieces of transcripts, as the numbers that stand for the features of text until an encoder reads them."""

# L nodes of text, P pieces of a node
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from gmsa.errors import ConfigError, DataError, cut, short, shown
from gmsa.text.folder import EncoderFolder
from gmsa.text.packages import load_package

PER_WORD = 8
"""Pieces of a word that make one node; a longer word takes several."""
NONE = -1.0
"""Stands where a node has no further piece."""
Nodes = Literal["pieces", "words", "transcript"]
"""What a node of text is."""


class Pieces:
    """Cuts transcripts into the word pieces of an encoder's tokenizer.

    Args:
        folder: the encoder.
        nodes: what a node is: one of the ``pieces``, one of the ``words``, of up to :data:`PER_WORD` pieces (what a
            word is, the tokenizer says; in most, punctuation is one), or the whole ``transcript``.
        most: pieces of a transcript, at most.

    Raises:
        ConfigError: the tokenizer cannot be read, or the encoder has no room for a transcript.
    """

    def __init__(self, folder: EncoderFolder, nodes: Nodes = "pieces", most: int = 128) -> None:
        self.key = folder.key
        self._tokenizer = _open(folder.tokenizer, self.key)
        self.nodes = nodes
        self.before, self.after = _specials(self._tokenizer, self.key)
        """Numbers of the special pieces before and after a transcript, such as BERT's [CLS] and [SEP]."""
        room = folder.positions
        self.most = most if room is None else min(most, room - len(self.before) - len(self.after))
        if self.most < 1:
            raise ConfigError(
                f"'{self.key}': the encoder of '{short(folder.path)}' reads {room} pieces at once, which leaves no "
                "room for a transcript beside its special pieces; name another"
            )
        self.count = int(self._tokenizer.get_vocab_size(with_added_tokens=True))
        last = max((*self._tokenizer.get_vocab().values(), *self.before, *self.after), default=0)
        if last >= (known := folder.settings["vocab_size"]):
            raise ConfigError(
                f"'{self.key}': the tokenizer has pieces up to number {last:,}, the encoder {known:,} pieces; name a "
                "folder whose tokenizer is the encoder's"
            )

    @property
    def dim(self) -> int:
        """P, pieces of a node."""
        return {"pieces": 1, "words": PER_WORD, "transcript": self.most}[self.nodes]

    @property
    def mask(self) -> int | None:
        """Number of the piece that stands for a masked one; None where the tokenizer has none."""
        for name in ("[MASK]", "<mask>"):
            if (found := self._tokenizer.token_to_id(name)) is not None:
                return int(found)
        return None

    def __call__(self, text: str) -> tuple[Tensor, int]:
        """The numbers of a transcript's pieces ``[L, P]``, and how many pieces were cut off.

        A transcript that is empty, or of white space, gives no node.
        """
        if not text.strip():
            return torch.zeros(0, self.dim), 0
        found = _encode(self._tokenizer, text, False, self.key)
        ids, lost = found.ids[: self.most], max(0, len(found.ids) - self.most)
        if self.nodes != "words":
            return self._table(ids), lost
        nodes: list[list[int]] = []
        before: object = object()
        for piece, word in zip(ids, found.word_ids, strict=False):
            if word is None or word != before or len(nodes[-1]) == PER_WORD:
                nodes.append([])
            nodes[-1].append(piece)
            before = word
        return torch.cat([torch.zeros(0, self.dim), *map(self._row, nodes)]), lost

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The numbers of all pieces of a text, however many, and the first character of each and the one after its
        last."""
        found = _encode(self._tokenizer, text, False, self.key)
        return list(found.ids), list(found.offsets)

    def inner(self, numbers: Tensor, where: str) -> tuple[Tensor, int]:
        """As calling it, of the numbers ``[L, 1]`` of a transcript's pieces between their special ones.

        Args:
            where: file, split and utterance, for errors.

        Raises:
            DataError: they are not numbers of this tokenizer's pieces, or its special pieces are not around them.
        """
        if len(numbers) and (numbers.ndim != 2 or numbers.shape[1] != 1):
            raise DataError(f"{where}: expected the numbers of word pieces [L, 1] as text (got {[*numbers.shape]})")
        ids = self._known(numbers.flatten().tolist(), where)
        if not ids:
            return self._table([]), 0
        first, last = len(self.before), len(ids) - len(self.after)
        if first > last or ids[:first] != self.before or ids[last:] != self.after:
            raise DataError(
                f"{where}: its word pieces begin with {ids[0]} and end with {ids[-1]}, but the special pieces "
                f"of '{self.key}' are {self.before} and {self.after}; name the encoder whose tokenizer made them, or "
                "set 'text.source' to raw_text"
            )
        inner = ids[first:last]
        return self._table(inner[: self.most]), max(0, len(inner) - self.most)

    def check(self, numbers: Tensor, where: str) -> None:
        """Checks what calling it, or :meth:`inner`, once gave.

        Raises:
            DataError: they are not numbers ``[L, P]`` of this tokenizer's pieces.
        """
        if len(numbers) and (numbers.ndim != 2 or numbers.shape[1] != self.dim):
            raise DataError(
                f"{where}: expected the numbers of word pieces [L, {self.dim}] as text (got {[*numbers.shape]})"
            )
        self._known([i for i in numbers.flatten().tolist() if i != NONE or self.dim == 1], where)

    def _row(self, ids: Sequence[int]) -> Tensor:
        """The numbers of a node's pieces ``[1, P]``."""
        row = torch.full((1, self.dim), NONE)
        row[0, : len(ids)] = torch.tensor(ids, dtype=torch.float32)
        return row

    def _table(self, ids: Sequence[int]) -> Tensor:
        """The numbers of pieces as one node each, or as one node of all."""
        if self.nodes == "pieces":
            return torch.tensor(ids, dtype=torch.float32)[:, None]
        return self._row(ids) if ids else torch.zeros(0, self.dim)

    def _known(self, ids: Sequence[float], where: str) -> list[int]:
        if wrong := [i for i in ids if not (0 <= i < self.count and i == int(i))]:
            raise DataError(
                f"{where}: {wrong[0]} is among its word pieces, but those of '{self.key}' have the numbers 0 to "
                f"{self.count - 1}; name the encoder whose tokenizer made them, or set 'text.source' to raw_text"
            )
        return [int(i) for i in ids]

    def say(self, features: Tensor) -> list[str]:
        """The pieces of each node as a reader knows them, joined."""
        rows = [[int(piece) for piece in row if piece >= 0] for row in features.tolist()]
        return ["".join(self._tokenizer.id_to_token(piece) or "?" for piece in row) for row in rows]


@lru_cache(maxsize=4)
def _open(content: str, key: str) -> Any:
    tokenizers = load_package("tokenizers", key)
    try:
        found = tokenizers.Tokenizer.from_str(content)
        found.no_truncation()
        found.no_padding()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # its own, and a panic, which is no Exception
        raise ConfigError(
            f"'{key}': its tokenizer.json cannot be read ({cut(error)}); save the tokenizer anew with save_pretrained"
        ) from None
    return found


def _encode(tokenizer: Any, text: str, special: bool, key: str) -> Any:
    text = text.encode("utf-8", "replace").decode("utf-8")  # half a character has no bytes
    try:
        return tokenizer.encode(text, add_special_tokens=special)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # as above
        raise ConfigError(
            f"'{key}': its tokenizer.json cannot cut {shown(text)} into pieces ({cut(error)}); name another"
        ) from None


def _specials(tokenizer: Any, key: str) -> tuple[list[int], list[int]]:
    """The special pieces that the tokenizer puts before and after a text."""
    found = _encode(tokenizer, "a", True, key)
    plain = [i for i, special in enumerate(found.special_tokens_mask) if not special]
    if not plain:
        return [], []
    return list(found.ids[: plain[0]]), list(found.ids[plain[-1] + 1 :])

"""Text: states of words by an encoder of Hugging Face."""

# W words, K pieces, H features
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from gmsa.errors import ConfigError, cut, short
from gmsa.media.protocol import Media
from gmsa.media.types import MediaError, Missing, Steps
from gmsa.text.encoder import make_network, pretrained_weights
from gmsa.text.folder import EncoderFolder
from gmsa.text.pieces import Pieces

WINDOW = 128
"""Words that are read at once."""
OVERLAP = 16
"""Words that a window shares with the next one: each half of them is taken from the window in which it is deeper."""


class HFText:
    """States of words by a Hugging Face text encoder: a word's is the mean of the states of its pieces.

    The encoder reads the whole text; one of more than :data:`WINDOW` words, or of more pieces than it takes at once, in
    windows that overlap.

    Args:
        model: folder of the encoder, with its weights as safetensors; no code of it is run.
        layer: whose states are taken; -1 is the last, 0 the embeddings.

    Raises:
        ConfigError: there is no such encoder or layer, or the extra ``text`` is not installed.
    """

    name, modality, version = "hf_text", "text", 1

    def __init__(self, model: str, layer: int = -1) -> None:
        self.layer = layer
        self.folder = EncoderFolder(model, key=f"text: {self.name}")
        self._pieces = Pieces(self.folder, "words", most=1 << 30)
        weights = pretrained_weights(self.folder)  # first: memory is given to no encoder that has none
        with torch.random.fork_rng(devices=[]):  # not on "meta": buffers that no file holds would stay there
            self._network: Any = make_network(self.folder)
        self._network.load_state_dict(weights, assign=True)
        check_layer(layer, int(self._network.config.num_hidden_layers), f"text: {self.name}")
        self._network.requires_grad_(False).eval()
        self.columns = tuple(f"{self.name}_{i}" for i in range(self.folder.width))

    def fingerprint(self) -> Mapping[str, str]:
        """The layer, the SHA-256 of weights and tokenizer, and versions of the packages."""
        return {
            "layer": str(self.layer),
            "weights": self.folder.sha256,
            "tokenizer": self.folder.tokenizer_sha256,
            **{name: version(name) for name in ("torch", "transformers", "tokenizers")},
        }

    def __call__(self, media: Media) -> Steps:
        """Extracts a step per word; a word of which the tokenizer keeps nothing has none.

        Raises:
            Missing: there are no words.
            MediaError: a word has more pieces than the encoder reads at once.
        """
        words = media.words()
        if not words:
            raise Missing("words")
        values, there = self.states([word.text for word in words])
        if not there.any():
            raise Missing(f"pieces of {len(words)} words that the tokenizer knows")
        start, stop = np.array([(word.start, word.stop) for word in words], np.float64).T
        return Steps(values[there], start[there], stop[there])

    @torch.inference_mode()
    def states(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The states of a text's words, float32 ``[W, H]``, and which of them have one, bool ``[W]``."""
        ids, owners = self._cut(words)
        counts = np.bincount(owners, minlength=len(words))
        if counts.max(initial=0) > self._pieces.most:
            raise MediaError(
                f"{cut(words[int(counts.argmax())])!r} is a word of {counts.max()} pieces, but the encoder of "
                f"'{short(self.folder.path)}' reads {self._pieces.most} at once; correct the transcript"
            )
        spans = list(windows(counts, self._pieces.most))
        edges = [0, *(-(-(stop + start) // 2) for (_, stop), (start, _) in pairwise(spans)), len(words)]
        found = np.zeros((len(words), len(self.columns)), np.float32)
        for (first, stop), low, high in zip(spans, edges, edges[1:], strict=False):
            inside = (owners >= first) & (owners < stop)
            states = self._read(ids[inside])  # [K, H]
            place = torch.from_numpy(owners[inside] - first)
            total = torch.zeros(stop - first, states.shape[1]).index_add(0, place, states)
            means = total / torch.from_numpy(counts[first:stop]).clamp(min=1)[:, None]
            found[low:high] = means[low - first : high - first].numpy()
        return found, counts > 0

    def _cut(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of all pieces, and the word of each, by its last character; a space goes with the next word."""
        ids, spans = self._pieces.spans(" ".join(words))
        ends = np.cumsum([len(word) + 1 for word in words])  # the character after a word and its space
        last = np.array([max(stop - 1, start) for start, stop in spans], np.int64)
        spaces = np.isin(last, ends - 1)
        owners = np.searchsorted(ends, last + spaces, "right").clip(max=len(words) - 1)
        return np.array(ids, np.int64), owners

    def _read(self, ids: np.ndarray) -> torch.Tensor:
        """The states of pieces ``[K, H]``, read between the special ones."""
        before, after = self._pieces.before, self._pieces.after
        whole = torch.tensor([[*before, *ids.tolist(), *after]])
        output = self._network(
            input_ids=whole, attention_mask=torch.ones_like(whole), output_hidden_states=self.layer != -1
        )
        states = output.last_hidden_state if self.layer == -1 else output.hidden_states[self.layer]
        found: torch.Tensor = states[0, len(before) : len(before) + len(ids)]
        return found


class MiniLM(HFText):
    """States of words by MiniLM-L6 (384 features, English): a word's is the mean of the states of its pieces.

    Wang et al.: MiniLM, NeurIPS 2020; the weights are those of sentence-transformers/all-MiniLM-L6-v2.

    Args:
        model: its folder (default: the weights that gmsa knows as ``minilm``).
    """

    name = "minilm"

    def __init__(self, model: str = "") -> None:
        super().__init__(model or str(import_module("gmsa.media.weights").find("minilm", "text: minilm")))


def windows(counts: np.ndarray, room: int) -> Iterator[tuple[int, int]]:
    """Yields the first word, and the one after the last, of windows over a text.

    Args:
        counts: pieces of each word; none has more than ``room``.
        room: pieces of a window, at most.
    """
    before = np.concatenate([[0], np.cumsum(counts)])
    first = 0
    while True:
        fits = int(np.searchsorted(before, before[first] + room, "right")) - 1
        stop = min(first + WINDOW, fits, len(counts))
        yield first, stop
        if stop == len(counts):
            return
        first = stop - min(OVERLAP, (stop - first) // 2)


def check_layer(layer: int, layers: int, key: str) -> None:
    """Checks that an encoder has a layer, counted from 0, the embeddings, or from the end.

    Raises:
        ConfigError: it does not.
    """
    if not -layers - 1 <= layer <= layers:
        raise ConfigError(
            f"'{key}': 'layer' is {layer}, but the encoder has layers 0 to {layers}; -1 is the last, 0 the embeddings"
        )

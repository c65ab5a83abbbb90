"""States of a frozen encoder, computed once and kept on disk by what they were computed from."""

# L nodes of text, P pieces of a node, H features
from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from gmsa.data.notes import note
from gmsa.errors import GmsaError
from gmsa.system.caching import cache_folder
from gmsa.system.console import progress_bar
from gmsa.system.files import make_folder, write_bytes
from gmsa.system.reading import exists, read_bytes
from gmsa.text.encoder import TextEncoder, pretrained_weights
from gmsa.text.folder import EncoderFolder
from gmsa.text.pieces import Pieces

BATCH = 32
"""Transcripts that are encoded together, of similar length."""


def states_of(folder: EncoderFolder, pieces: Pieces, numbers: Sequence[Tensor]) -> list[Tensor]:
    """The states ``[L, H]`` of transcripts whose pieces have these numbers ``[L, P]``, rounded to float16.

    They are read from the cache where it has them, and else written there.

    Raises:
        ConfigError: the encoder's weights cannot be read.
    """
    if not any(map(len, numbers)):
        return [torch.zeros(0, folder.width) for _ in numbers]
    path = cache_folder() / "states" / f"{_key(folder, pieces, numbers)}.safetensors"
    lengths = [len(x) for x in numbers]
    every = _read(path, sum(lengths), folder.width)
    if every is None:
        every = _compute(folder, pieces, numbers)
        try:
            make_folder(path.parent)
            content = {"states": every}
            write_bytes(path, save_tensors(content, {"sha256": _digest(every)}))
        except GmsaError as error:
            note(f"the states of the text encoder are not kept in $GMSA_CACHE: {error}")
    return [x.float() for x in every.split(lengths)]


def _key(folder: EncoderFolder, pieces: Pieces, numbers: Sequence[Tensor]) -> str:
    found = hashlib.sha256(f"1\0{folder.sha256}\0{pieces.before}\0{pieces.after}\0".encode())
    for x in numbers:
        found.update(f"{tuple(x.shape)}".encode())
        found.update(x.numpy().tobytes())
    return found.hexdigest()


def _digest(states: Tensor) -> str:
    return hashlib.sha256(states.view(torch.uint8).numpy().data).hexdigest()


def _read(path: Path, rows: int, width: int) -> Tensor | None:
    """The states of a file; None where there is none, or it is damaged."""
    try:
        if not exists(path):
            return None
        content = read_bytes(path, 2 * rows * width + (1 << 16))
        found = load_tensors(content)["states"]
        known = len(found) == rows and found.shape[1] == width and _digest(found).encode() in content[: 1 << 16]
        return found if known else None
    except Exception:  # whatever is wrong with it, it is computed again
        return None


@lru_cache(maxsize=1)
def _encoder(folder: EncoderFolder, pieces: Pieces) -> TextEncoder:
    """The frozen encoder; a stream asks for it at every utterance."""
    weights = pretrained_weights(folder)  # first: memory is given to no encoder that has none
    with torch.random.fork_rng(devices=[]):
        encoder = TextEncoder(folder, pieces)
    encoder.network.load_state_dict(weights)
    return encoder.requires_grad_(False).eval()


@torch.inference_mode()
def _compute(folder: EncoderFolder, pieces: Pieces, numbers: Sequence[Tensor]) -> Tensor:
    encoder = _encoder(folder, pieces)
    lengths = torch.tensor([len(x) for x in numbers])
    read = torch.tensor([int((x >= 0).sum()) for x in numbers])
    order = torch.argsort(read, stable=True, descending=True).tolist()
    found: list[Tensor] = [torch.zeros(0, folder.width, dtype=torch.float16) for _ in numbers]
    there = [i for i in order if len(numbers[i])]
    batches = [there[i : i + BATCH] for i in range(0, len(there), BATCH)]
    with progress_bar("encoding transcripts", len(there)) as bar:
        for chosen in batches:
            states = encoder(torch.cat([numbers[i] for i in chosen]), lengths[chosen]).half()
            for i, part in zip(chosen, states.split(lengths[chosen].tolist()), strict=True):
                found[i] = part
            bar.advance(len(chosen))
    return torch.cat(found).contiguous()

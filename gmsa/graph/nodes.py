"""The nodes of a modality: its time steps, or as many side by side as an encoder strides."""

# L steps, D features, N nodes
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, shown
from gmsa.graph.schema import timed_modalities
from gmsa.graph.spec import GraphSpec


def token_count(length: Any, stride: int) -> Any:
    """Tokens that an encoder with this total stride leaves of sequences: ``ceil(length / stride)``.

    Takes and returns a whole number or a tensor of them.
    """
    return -(-length // stride)


def node_features(sequence: Tensor, stride: int) -> Tensor:
    """Features of a modality's nodes: ``stride`` consecutive steps side by side, zeros after the end.

    Shapes:
        - sequence :math:`(L, D)`; output :math:`(\\lceil L / s \\rceil, s D)`; the sequence itself for stride 1
    """
    if stride == 1:
        return sequence
    count = token_count(len(sequence), stride)
    padded = F.pad(sequence, (0, 0, 0, count * stride - len(sequence)))
    return padded.reshape(count, stride * sequence.shape[1])


def times_of(utterance: Utterance, modality: str) -> Tensor:
    """Start and stop of each step of a modality in seconds ``[L, 2]``.

    Raises:
        DataError: they are not known.
    """
    length, times = utterance.lengths.get(modality, 0), utterance.times.get(modality)
    if not length:
        return torch.zeros(0, 2)
    if times is None or times.shape != (length, 2):
        raise DataError(
            f"utterance {shown(utterance.id)}: the times of its steps of '{modality}' are not known, by which an edge "
            "builder of 'graph' connects them; extract it from media (gmsa data extract), or choose a builder such as "
            "window"
        )
    return times


def check_times(utterance: Utterance, spec: GraphSpec) -> None:
    """Refuses an utterance whose graph needs times of steps that it does not have.

    Raises:
        DataError: names the modality, and what to do.
    """
    for modality in timed_modalities(spec.schema, spec.graph):
        times_of(utterance, modality)


def node_times(times: Tensor, stride: int) -> Tensor:
    """Start and stop of a modality's nodes: of the first and of the last of ``stride`` consecutive steps.

    Shapes:
        - times :math:`(L, 2)`; output :math:`(\\lceil L / s \\rceil, 2)`
    """
    last = (torch.arange(0, len(times), stride) + stride - 1).clamp(max=len(times) - 1)
    return torch.stack([times[::stride, 0], times[last, 1]], dim=1)

"""Encoders of a dialogue's utterances in their order, before its graph."""

# N utterances of G dialogues, E edges, C channels
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch_geometric.nn.module_dict import ModuleDict

from gmsa.nn.dropout import Dropout
from gmsa.nn.edges import SparseEdges, within_reach
from gmsa.nn.layers.attention import Interaction
from gmsa.system.late import not_compiled


class SequenceEncoder(nn.Module):
    """Encodes the utterances of each dialogue, modality by modality.

    Each modality has weights of its own: the states of different modalities come from encoders of their own and lie in
    spaces of their own, and what the course of a voice tells is not what that of the words does.

    Args:
        modalities (Sequence[str]): The modalities.
        build (Callable): Makes the encoder of one, such as :class:`RecurrentEncoder` or :class:`WindowEncoder`.

    Shapes:
        - states of each modality :math:`(N, C)`, the dialogues end to end; sizes: utterances of each dialogue
          :math:`(G)`; output: the same shapes

    Example:
        >>> encoder = SequenceEncoder(["text"], lambda: RecurrentEncoder(channels=8))
        >>> encoder({"text": torch.randn(5, 8)}, [3, 2])["text"].shape
        torch.Size([5, 8])
    """

    def __init__(self, modalities: Sequence[str], build: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.encoders = ModuleDict({m: build() for m in modalities})

    def forward(self, states: Mapping[str, Tensor], sizes: Sequence[int]) -> dict[str, Tensor]:
        return {m: encode(states[m], sizes) for m, encode in self.encoders.items()}


class RecurrentEncoder(nn.Module):
    r"""A GRU over the utterances of each dialogue, added to their states.

    .. math::
        y_i = x_i + W\, [\overrightarrow{\mathrm{GRU}}(x)_i; \overleftarrow{\mathrm{GRU}}(x)_i] + b

    W and b start as zeros, so that training starts from the states alone. A ``causal`` one has no second GRU. Dialogues
    are packed: the length of one changes nothing in another. It computes in single precision at least.

    Args:
        channels (int): Width C.
        causal (bool, default False): Whether no utterance hears a later one.
        dropout (float, default 0.0): Dropout on what is added.

    Shapes:
        - x :math:`(N, C)`, the dialogues end to end; sizes: utterances of each :math:`(G)`; output :math:`(N, C)`

    Example:
        >>> RecurrentEncoder(channels=8)(torch.randn(5, 8), [3, 2]).shape
        torch.Size([5, 8])
    """

    def __init__(self, channels: int, causal: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        width = channels if causal else (channels + 1) // 2
        self.gru = nn.GRU(channels, width, bidirectional=not causal)
        self.out = _starts_as_zeros(nn.Linear(width if causal else 2 * width, channels))
        self.dropout = Dropout(dropout)

    @not_compiled  # packing needs the sizes as numbers
    def forward(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            known = x.to(self.out.weight.dtype)
            heard = _run_packed(self.gru, known, sizes)
            return known + self.dropout(self.out(heard))


class DialogueLSTM(nn.Module):
    r"""An LSTM over the utterances of each dialogue, as DialogueGCN, MMGCN and GCNet have one before their graphs.

    .. math:: g_i = [\overrightarrow{\mathrm{LSTM}}(x)_i; \overleftarrow{\mathrm{LSTM}}(x)_i]

    A ``causal`` one reads forward alone. Dialogues are packed: the length of one changes nothing in another (in the
    released codes of these papers it does). It computes in single precision at least.

    Args:
        inputs (int): Width D of what it reads.
        channels (int): Width C of what it gives, even where it reads both ways.
        layers (int, default 2): Layers.
        dropout (float, default 0.0): Dropout between layers.
        causal (bool, default False): Whether no utterance hears a later one.

    Shapes:
        - x :math:`(N, D)`, the dialogues end to end; sizes: utterances of each :math:`(G)`; output :math:`(N, C)`

    Example:
        >>> DialogueLSTM(inputs=6, channels=8)(torch.randn(5, 6), [3, 2]).shape
        torch.Size([5, 8])
    """

    def __init__(self, inputs: int, channels: int, layers: int = 2, dropout: float = 0.0, causal: bool = False) -> None:
        super().__init__()
        width = channels if causal else channels // 2
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(inputs, width, layers, dropout=between, bidirectional=not causal)

    @not_compiled  # packing needs the sizes as numbers
    def forward(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            known = x.to(next(self.lstm.parameters()).dtype)
            return _run_packed(self.lstm, known, sizes)


class DialogueTransformer(nn.Module):
    r"""A transformer over the utterances of each dialogue, as COGMEN has one before its graph, and a linear map.

    .. math::
        y = \mathrm{LN}(x + \mathrm{Attention}(x)), \qquad z = \mathrm{LN}(y + \mathrm{FFN}(y)), \qquad g = z W + b

    PyTorch's ``TransformerEncoder``, without positions: it tells no order. In a ``causal`` one no utterance hears a
    later one. Padding is masked: the length of a dialogue changes nothing in another (in COGMEN's released code it
    does).

    Args:
        inputs (int): Width D of what it reads.
        channels (int): Width C of what it gives.
        heads (int): Attention heads; must divide ``inputs``.
        layers (int, default 2): Layers.
        feedforward (int, default 2048): Width of the layers' FFN.
        dropout (float, default 0.0): Dropout in the layers.
        causal (bool, default False): Whether no utterance hears a later one.

    Shapes:
        - x :math:`(N, D)`, the dialogues end to end; sizes: utterances of each :math:`(G)`; output :math:`(N, C)`

    Example:
        >>> DialogueTransformer(inputs=6, channels=8, heads=2)(torch.randn(5, 6), [3, 2]).shape
        torch.Size([5, 8])
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        heads: int,
        layers: int = 2,
        feedforward: int = 2048,
        dropout: float = 0.0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.causal = causal
        layer = nn.TransformerEncoderLayer(inputs, heads, feedforward, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(inputs, channels)

    @not_compiled  # padding needs the sizes as numbers
    def forward(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        rows, index, real = padded(x, sizes)
        later = torch.ones(real.shape[1], real.shape[1], dtype=torch.bool, device=x.device).triu(1)
        found = self.encoder(rows, mask=later if self.causal else None, src_key_padding_mask=~real)
        answer: Tensor = self.out(found.flatten(0, 1).index_select(0, index))
        return answer


class WindowEncoder(nn.Module):
    r"""One transformer layer over the utterances of each dialogue within reach.

    .. math::
        y_i &= x_i + \mathrm{Attention}_{j \in [i - past,\, i + future]}(\mathrm{LN}(x))_i \\
        z_i &= y_i + \mathrm{FFN}(\mathrm{LN}(y_i))

    with the norm before each sublayer. A learned bias per head and signed distance, the largest shared, tells the
    order. What is added starts as zeros. It costs as much as there are pairs within reach.

    Args:
        channels (int): Width C.
        heads (int): Attention heads; must divide ``channels``.
        past (int): Earlier utterances within reach.
        future (int): Later ones.
        dropout (float, default 0.0): Dropout on what is added.
        distances (int, default 8): Distances with a bias of their own, to either side.

    Shapes:
        - x :math:`(N, C)`, the dialogues end to end; sizes: utterances of each :math:`(G)`; output :math:`(N, C)`

    Example:
        >>> WindowEncoder(channels=8, heads=2, past=2, future=0)(torch.randn(5, 8), [3, 2]).shape
        torch.Size([5, 8])
    """

    def __init__(
        self, channels: int, heads: int, past: int, future: int, dropout: float = 0.0, distances: int = 8
    ) -> None:
        super().__init__()
        self.past, self.future, self.distances = past, future, distances
        self.norm_in = nn.LayerNorm(channels)
        self.attention = Interaction(channels, heads, edge_types=2 * distances + 1)
        _starts_as_zeros(self.attention.out)
        self.norm_mid = nn.LayerNorm(channels)
        self.ffn = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.ReLU(), _starts_as_zeros(nn.Linear(4 * channels, channels))
        )
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        index = within_reach(torch.tensor(sizes), self.past, self.future)
        distance = (index[0] - index[1]).clamp(-self.distances, self.distances) + self.distances
        edges = SparseEdges(send(index.numpy(), x.device), send(distance.numpy(), x.device))
        y = x + self.dropout(self.attention(self.norm_in(x), edges))
        return y + self.dropout(self.ffn(self.norm_mid(y)))


def padded(x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows ``[N, C]`` of G dialogues end to end, padded to T each ``[G, T, C]``; the index ``g T + t`` of each ``[N]``,
    and which are real ``[G, T]``."""
    there = np.arange(max(sizes)) < np.array(sizes)[:, None]
    index, real = send(np.flatnonzero(there), x.device), send(there, x.device)
    return x.new_zeros(there.size, x.shape[1]).index_copy(0, index, x).view(*there.shape, -1), index, real


def _run_packed(network: nn.RNNBase, x: Tensor, sizes: Sequence[int]) -> Tensor:
    """What a recurrent network makes of rows ``[N, D]`` of dialogues end to end ``[N, C]``."""
    lengths = np.array(sizes)
    order = np.argsort(-lengths, kind="stable")
    step, dialogue = np.nonzero(np.arange(lengths.max())[:, None] < lengths[order])  # step by step, the longest first
    row = (np.cumsum(lengths) - lengths)[order[dialogue]] + step
    index, back = send(row, x.device), send(np.argsort(row), x.device)
    packed = PackedSequence(x.index_select(0, index), torch.from_numpy(np.bincount(step)))
    found: Tensor = network(packed)[0].data.index_select(0, back)
    return found


def send(numbers: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Numbers of the host as a tensor on a device, without waiting for a GPU."""
    found = torch.from_numpy(numbers)
    return (found.pin_memory() if device.type == "cuda" else found).to(device, non_blocking=True)


def _starts_as_zeros(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear

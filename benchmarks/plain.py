"""Semi-IIN as published code has it: padded tensors, masks, every node in every layer. What gmsa's is timed against."""

# B utterances, L_m steps and T_m tokens of the longest, T = 2 + sum of T_m; C channels, H heads
from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmsa.config import Config
from gmsa.models import Output

ORDER = ("audio", "text", "vision")


class Encoder(nn.Module):
    """Convolutions over padded sequences, which are zero behind their ends before each of them."""

    def __init__(self, dim: int, channels: int, convs: tuple[tuple[int, int], ...], dropout: float) -> None:
        super().__init__()
        dims = [dim] + [channels] * (len(convs) - 1)
        self.convs = nn.ModuleList(nn.Conv1d(d, channels, k, s) for d, (k, s) in zip(dims, convs, strict=True))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x = self.dropout(x).transpose(1, 2)
        for i, conv in enumerate(self.convs):
            (kernel,), (stride,), steps = conv.kernel_size, conv.stride, x.shape[2]
            x = (x.relu() if i else x) * (torch.arange(steps, device=x.device) < lengths[:, None])[:, None]
            left, tokens = (kernel - stride) // 2, -(-steps // stride)
            x = conv(F.pad(x, (left, stride * (tokens - 1) + kernel - left - steps)))
            lengths = -(-lengths // stride)
        return x.transpose(1, 2), torch.arange(x.shape[2], device=x.device) < lengths[:, None]


class Attention(nn.Module):
    """Multi-head attention under a mask."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(channels, channels), nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        projected = (self.query(x), *self.key_value(x).chunk(2, dim=-1))
        query, key, value = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in projected)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Masked attention and feed-forward over all nodes."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_in, self.norm_mid = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = Attention(channels, heads)
        self.ffn = nn.Sequential(nn.Linear(channels, 4 * channels), nn.ReLU(), nn.Linear(4 * channels, channels))
        self.dropout = nn.Dropout(dropout)

    def forward(self, z: Tensor, mask: Tensor) -> Tensor:
        x = self.norm_in(z)
        y = self.norm_mid(self.dropout(self.attention(x, mask)) + x)
        return self.dropout(self.ffn(y)) + y


class PlainSemiIIN(nn.Module):
    """Its parameters have the names of those of :class:`gmsa.models.SemiIIN`, with the settings of the paper's graph.

    Shapes:
        - per modality, features :math:`(B, L_m, D_m)` and lengths :math:`(B)`, 0 where it is missing
    """

    def __init__(self, dims: Mapping[str, int], config: Config) -> None:
        super().__init__()
        model, channels = config.model, config.model.channels
        self.layers = model.layers
        self.embedding = nn.Module()
        self.embedding.encoders = nn.ModuleDict(
            {m: Encoder(dims[m], channels, model.convs(m), model.input_dropout) for m in ORDER}
        )
        self.embedding.node_type = nn.Parameter(torch.empty(5, channels))
        self.embedding.position = nn.Parameter(torch.empty(model.positions, channels))
        self.streams = nn.ModuleDict()
        for stream in ("intra", "inter"):
            self.streams[stream] = nn.Module()
            self.streams[stream].layers = nn.ModuleList([Layer(channels, model.heads, model.dropout)])
        self.fusions = nn.ModuleList()
        for _ in range(2):
            gate = nn.Module()
            gate.intra, gate.inter = nn.Linear(channels, channels, bias=False), nn.Linear(channels, channels)
            self.fusions.append(gate)
        self.heads = nn.Module()
        self.heads.mlp = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Dropout(model.dropout))
        self.heads.value, self.heads.classes = nn.Linear(channels, 1), nn.Linear(channels, 7)

    def forward(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Output:
        place, types = self.embedding.position, self.embedding.node_type
        first = (types[:2] + place[0]).expand(len(features["text"]), -1, -1)
        parts, there, kinds = [first], [first.new_ones(first.shape[:2], dtype=torch.bool)], [0, 1]
        for kind, modality in enumerate(ORDER, start=2):
            tokens, valid = self.embedding.encoders[modality](features[modality], lengths[modality])
            parts.append(tokens + types[kind] + place[: tokens.shape[1]])
            there.append(valid)
            kinds += [kind] * tokens.shape[1]
        z0, valid, kind = torch.cat(parts, 1), torch.cat(there, 1), torch.tensor(kinds, device=first.device)

        readout, same = kind < 2, kind[:, None] == kind
        across = readout[:, None] != readout  # between a readout node and a token
        tokens = ~readout[:, None] & ~readout
        views = {}
        for stream, joined in (("intra", across | (tokens & same)), ("inter", across | (tokens & ~same))):
            mask, z = (joined & valid[:, None, :])[:, None], z0
            for _ in range(self.layers):
                z = self.streams[stream].layers[0](z, mask)
            views[stream] = z[:, :2]
        fused, gates = [], []
        for r, fuse in enumerate(self.fusions):
            a, b = views["intra"][:, r], views["inter"][:, r]
            gates.append(torch.sigmoid(fuse.intra(a) + fuse.inter(b)))
            fused.append(gates[r] * b + (1 - gates[r]) * a)
        value = self.heads.value(self.heads.mlp(fused[0])).squeeze(-1)
        return Output(value, self.heads.classes(self.heads.mlp(fused[1])), torch.stack(gates, dim=1), fused[0])

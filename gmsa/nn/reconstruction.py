"""From what is known of an utterance to the features of a modality that it lacks, or to its masked words."""

# K pairs of an utterance and a modality that it lacks, C channels, D_m features of modality m, V word pieces
from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.module_dict import ModuleDict
from torch_geometric.nn.parameter_dict import ParameterDict

from gmsa.nn.dropout import Dropout


class Standardize(nn.Module):
    r"""Brings the features of each modality to mean 0 and deviation 1: :math:`(x - \mu_m) / \sigma_m`.

    The statistics are buffers, saved with the weights; until :meth:`set_statistics` they change nothing. A feature
    that was constant becomes 0.

    Args:
        dims (Mapping[str, int]): Feature dimension of each modality.

    Shapes:
        - x :math:`(K, D_m)`; output the same

    Example:
        >>> import torch
        >>> standardize = Standardize({"text": 2})
        >>> standardize.set_statistics({"text": torch.tensor([1.0, 2.0])}, {"text": torch.tensor([2.0, 0.0])})
        >>> standardize(torch.tensor([[5.0, 2.0]]), "text")
        tensor([[2., 0.]])
    """

    def __init__(self, dims: Mapping[str, int]) -> None:
        super().__init__()
        for modality, dim in dims.items():
            self.register_buffer(f"{modality}_mean", torch.zeros(dim))
            self.register_buffer(f"{modality}_scale", torch.ones(dim))

    def set_statistics(self, means: Mapping[str, Tensor], stds: Mapping[str, Tensor]) -> None:
        """Takes per modality the means and standard deviations ``[D_m]``."""
        for modality, mean in means.items():
            std = stds[modality]
            self.get_buffer(f"{modality}_mean").copy_(mean)
            self.get_buffer(f"{modality}_scale").copy_(torch.where(std > 0, 1 / std, 0.0))

    def forward(self, x: Tensor, modality: str) -> Tensor:
        return (x - self.get_buffer(f"{modality}_mean")) * self.get_buffer(f"{modality}_scale")


def standardize_by(x: Tensor, every: Tensor) -> Tensor:
    r"""Brings states to mean 0 and deviation 1 over those of a batch: :math:`(x - \mu) / \sqrt{\sigma^2 + 10^{-5}}`.

    States of an encoder that is being trained have no statistics that stay; those of a batch need no memory, so that a
    resumed run has the same. They take away what all states of an encoder share, by which any would be near any other.

    Args:
        x: states ``[K, D]``.
        every: those of the whole batch, of all processes, whose mean and variance (with 1 / N) count ``[N, D]``.

    Example:
        >>> standardize_by(torch.tensor([[3.0, 7.0]]), torch.tensor([[1.0, 7.0], [3.0, 7.0]])).round(decimals=3)
        tensor([[1., 0.]])
    """
    variance, mean = torch.var_mean(every.float(), dim=0, correction=0)
    return (x.float() - mean) * (variance + 1e-5).rsqrt()


class PieceHead(nn.Module):
    r"""Scores of an encoder's word pieces, as BERT's head gives them.

    .. math::
        s = E\, \mathrm{LN}(\mathrm{GELU}(W h + b)) + c

    E are the encoder's input embeddings, whose weights are shared and get gradients from here too.

    Args:
        channels (int): Width C of the states h.
        width (int): Width H of the embeddings.
        count (int): Word pieces V.

    Shapes:
        - states :math:`(K, C)`, embeddings :math:`(V, H)`; output :math:`(K, V)`

    Example:
        >>> PieceHead(channels=8, width=6, count=30)(torch.randn(2, 8), torch.randn(30, 6)).shape
        torch.Size([2, 30])
    """

    def __init__(self, channels: int, width: int, count: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(channels, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(count))

    def forward(self, states: Tensor, embeddings: Tensor) -> Tensor:
        return F.linear(self.transform(states), embeddings, self.bias)


class Reconstruction(nn.Module):
    r"""Predicts the standardized mean features of a modality: :math:`\hat x_m = W_m \mathrm{MLP}([F; h_m]) + b_m`.

    F is the utterance's representation; :math:`h_m` is the state of the missing modality's node where the graph has
    one (SSLMM on graphs of dialogues), else a learned token. Our design.

    Args:
        dims (Mapping[str, int]): Feature dimension of each modality.
        channels (int): Width C.
        dropout (float, default 0.0): Dropout after the MLP's first layer.

    Shapes:
        - features F :math:`(K, C)`, state :math:`(K, C)` or None; output :math:`(K, D_m)`

    Example:
        >>> import torch
        >>> Reconstruction({"text": 6}, channels=8)(torch.randn(2, 8), "text").shape
        torch.Size([2, 6])
    """

    def __init__(self, dims: Mapping[str, int], channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.standardize = Standardize(dims)
        self.token = ParameterDict({m: nn.Parameter(torch.randn(channels) * 0.02) for m in dims})
        self.mlp = nn.Sequential(nn.Linear(2 * channels, 2 * channels), nn.ReLU(), Dropout(dropout))
        self.out = ModuleDict({m: nn.Linear(2 * channels, dim) for m, dim in dims.items()})

    def forward(self, features: Tensor, modality: str, state: Tensor | None = None) -> Tensor:
        known = self.token[modality].expand_as(features) if state is None else state
        predicted: Tensor = self.out[modality](self.mlp(torch.cat([features, known], dim=-1)))
        return predicted

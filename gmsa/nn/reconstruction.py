"""From what is known of an utterance to the features of a modality that it lacks."""

# K pairs of an utterance and a modality that it lacks, C channels, D_m features of modality m
from __future__ import annotations

from collections.abc import Mapping

import torch
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

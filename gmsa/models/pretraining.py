"""Self-supervised learning before labels: masked reconstruction, and contrast of modality subsets."""

# N utterances, V nodes of all of them, M_m tokens of modality m, C channels, D_m features of modality m
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.module_dict import ModuleDict
from torch_geometric.nn.parameter_dict import ParameterDict

from gmsa.config import Config
from gmsa.graph import GraphBatch
from gmsa.models.base import Model
from gmsa.models.context import Context
from gmsa.nn import Standardize, StreamLayer
from gmsa.system.distributed import SINGLE_PROCESS, Group


class Masked(NamedTuple):
    """The masked tokens of a modality (in graphs of dialogues, utterances)."""

    flags: Tensor
    """Whether each of the modality's rows is masked, in the order of the batch's tokens ``[M_m]``."""
    nodes: Tensor
    """Nodes that are masked ``[K]``."""
    features: Tensor
    """Mean features of their steps ``[K, D_m]``."""


@dataclass(frozen=True, eq=False)
class PretrainingBatch:
    """N utterances three times: with masked tokens, and twice with a random subset of their modalities."""

    masked: GraphBatch
    targets: Mapping[str, Masked]
    """Per modality that has masked tokens."""
    views: tuple[GraphBatch, GraphBatch]

    @property
    def ids(self) -> tuple[str, ...]:
        """Utterance ids."""
        return self.masked.ids

    def to(self, device: torch.device | str) -> PretrainingBatch:
        """The same batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True), lambda batch: batch.to(device))

    def pin_memory(self) -> PretrainingBatch:
        """The same batch in page-locked memory."""
        return self._map(Tensor.pin_memory, GraphBatch.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor], move: Callable[[GraphBatch], GraphBatch]) -> PretrainingBatch:
        targets = {m: Masked(*map(change, target)) for m, target in self.targets.items()}
        first, second = self.views
        return replace(self, masked=move(self.masked), targets=targets, views=(move(first), move(second)))


class PretrainingModel(nn.Module):
    r"""A model with what it learns from features alone: :math:`L = L_{mask} + w L_{con}`.

    .. math::
        L_{mask} &= \frac{1}{K} \sum_{k=1}^{K} (1 - \cos(\hat x_k, x_k))^2 \\
        L_{con} &= -\frac{1}{2N} \sum_{i=1}^{N} \Big(
        \log \frac{e^{z_i^\top z'_i / \tau}}{\sum_j e^{z_i^\top z'_j / \tau}}
        + \log \frac{e^{z_i^\top z'_i / \tau}}{\sum_j e^{z_j^\top z'_i / \tau}} \Big)

    :math:`L_{mask}`, after GraphMAE (Hou et al., KDD 2022): masked tokens start as a learned vector; the model's states
    of them are set to zero before a decoder of one interaction layer over all edges; :math:`\hat x` is a linear map of
    what it gives, x the standardized features. :math:`L_{con}`, after MUSE (Wu et al., ICLR 2024): z and z' are an
    utterance's projected representations, of length 1, from two random subsets of its modalities; the other utterances
    of the batch are the negatives.

    Args:
        model (Model): Model to pre-train.
        dims (Mapping[str, int]): Feature dimension of each modality.
        config (Config): Its settings ``model.channels``, ``model.heads``, ``pretrain.temperature`` and those of
            the group ``graph`` are used.

    Shapes:
        - batch of N utterances; output: the two losses, scalars
    """

    def __init__(self, model: Model, dims: Mapping[str, int], config: Config) -> None:
        super().__init__()
        channels = config.model.channels
        self.model, self.temperature = model, config.pretrain.temperature
        self.token = ParameterDict({m: nn.Parameter(torch.randn(channels) * 0.02) for m in dims})
        self.standardize = Standardize(dims)
        edge_types = model.embedding.schema.edge_types if config.graph.typed else 0
        if config.graph.has_dialogues:
            types = model.embedding.outer_schema if config.graph.scope == "hierarchical" else model.embedding.schema
            edge_types = Context.of(config).edge_types(types)
        self.decoder = StreamLayer(channels, config.model.heads, edge_types=edge_types)
        self.out = ModuleDict({m: nn.Linear(channels, dim) for m, dim in dims.items()})
        self.project = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels))

    def forward(self, batch: PretrainingBatch | None, group: Group = SINGLE_PROCESS) -> tuple[Tensor, Tensor]:
        """The two losses; with several processes, this one's part of them, whose batch may be None."""
        if batch is None:
            token = next(iter(self.token.values()))
            # Not plain zeros: the gradients of what all make of the views are added up in all processes or in none.
            errors, views = token.new_zeros(0), token.expand(1, 2, -1)[:0]
        else:
            errors, views = self.reconstruction(batch.masked, batch.targets), self.represent(*batch.views)
        count = group.all_reduce(torch.tensor(float(len(errors)), device=errors.device))
        return errors.sum() / count.clamp(min=1), self.contrast(views, group)

    def reconstruction(self, batch: GraphBatch, targets: Mapping[str, Masked]) -> Tensor:
        """The scaled cosine error of each masked token ``[K]``."""
        masked = {m: (target.flags, self.token[m]) for m, target in targets.items()}
        if batch.dialogues is None:
            graph, states = batch, self.model.nodes(self.model.embedding(batch, masked), batch)
        else:
            graph, states = batch.dialogues, self.model.outside_nodes(self.model.embedding(batch), batch, masked)
        if not targets:
            return states.new_zeros(0, dtype=torch.float32)
        nodes = torch.cat([target.nodes for target in targets.values()])
        decoded = self.decoder(states.index_fill(0, nodes, 0.0), graph.edges["global"])
        errors = []
        for modality, target in targets.items():
            predicted = self.out[modality](decoded.index_select(0, target.nodes)).float()
            wanted = self.standardize(target.features, modality)
            errors.append((1 - F.cosine_similarity(predicted, wanted, dim=1)).square())
        return torch.cat(errors)

    def represent(self, *views: GraphBatch) -> Tensor:
        """Projected representations of views of the same utterances, of length 1 ``[N, views, C]``."""
        projected = (self.project(self.model(view).features).float() for view in views)
        return torch.stack([F.normalize(x, dim=1) for x in projected], dim=1)

    def contrast(self, views: Tensor, group: Group) -> Tensor:
        """InfoNCE of two views of utterances ``[n, 2, C]``, both ways: their part of the mean over all processes'.

        The negatives are the utterances of all processes.
        """
        every, before = group.gather(views)
        ends = before + len(views)
        with torch.autocast(views.device.type, enabled=False):  # at this temperature half precision is too coarse
            similarity = every[:, 0] @ every[:, 1].T / self.temperature  # [N, N]
        same = torch.arange(before, ends, device=views.device)
        there = F.cross_entropy(similarity[before:ends], same, reduction="sum")
        back = F.cross_entropy(similarity.T[before:ends], same, reduction="sum")
        return (there / len(every) + back / len(every)) / 2

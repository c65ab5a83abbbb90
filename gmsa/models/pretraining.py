"""Self-supervised learning before labels: masked reconstruction, and contrast of two views."""

# N utterances, V nodes of all of them, M_m tokens of modality m, C channels, D_m features of modality m, H of a text
# encoder's state
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.module_dict import ModuleDict
from torch_geometric.nn.parameter_dict import ParameterDict

from gmsa.config import Config
from gmsa.config.presets import TEXT
from gmsa.graph import GraphBatch
from gmsa.models.base import Model
from gmsa.models.context import Context
from gmsa.nn import PieceHead, Standardize, StreamLayer, standardize_by
from gmsa.system.distributed import SINGLE_PROCESS, Group


class Masked(NamedTuple):
    """The masked tokens of a modality (in graphs of dialogues, utterances)."""

    flags: Tensor
    """Whether each of the modality's rows is masked, in the order of the batch's tokens ``[M_m]``."""
    nodes: Tensor
    """Nodes that are masked ``[K]``."""
    features: Tensor
    """Mean features of their steps ``[K, D_m]``. Of text that a trained encoder reads, the numbers of their word pieces
    ``[K, P]``, -1 where there is no further one, or, once a teacher has read whole texts, its states ``[K, H]``."""


@dataclass(frozen=True, eq=False)
class PretrainingBatch:
    """N utterances two or three times: with masked tokens, and with random subsets of their modalities."""

    masked: GraphBatch
    targets: Mapping[str, Masked]
    """Per modality that has masked tokens."""
    views: tuple[GraphBatch, ...]
    """Two random subsets, or one where the masked utterances are the other view of the contrast."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Utterance ids."""
        return self.masked.ids

    def to(self, device: torch.device | str) -> PretrainingBatch:
        """The same batch on another device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def map(self, change: Callable[[Tensor], Tensor]) -> PretrainingBatch:
        """The same batch with each tensor changed, always in the same order."""
        targets = {m: Masked(*map(change, target)) for m, target in self.targets.items()}
        views = tuple(view.map(change) for view in self.views)
        return replace(self, masked=self.masked.map(change), targets=targets, views=views)


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
    of the batch are the negatives. With ``pretrain.contrast: masked``, as SSLMM's configs have it, z is from the states
    of the masked utterance, as :math:`L_{mask}` has them (:meth:`~gmsa.models.Model.summarize`): the model passes over
    it once for both losses.

    **Text that a trained encoder reads** (``model.text_encoder``) has no features that stay. In graphs of utterances
    the batch has the tokenizer's mask piece in the place of all word pieces of a masked token, so that the encoder
    never reads them, and the token's error is that of the pieces themselves, after BERT (Devlin et al., NAACL 2019):

    .. math::
        -\frac{1}{\ln V} \frac{1}{P_k} \sum_{p=1}^{P_k} \log \mathrm{softmax}(s_k)_{w_{k,p}}, \qquad
        s_k = E\, \mathrm{LN}(\mathrm{GELU}(W h_k + b)) + c

    :math:`w_{k,p}` are the token's :math:`P_k` pieces, V all pieces of the encoder and E its input embeddings, which
    stay as they are where ``text.frozen_layers`` keeps them. Divided by :math:`\ln V` a guess that knows nothing has
    the error 1, as features of which it knows nothing have (a cosine of 0): so the mean over all K masked tokens is
    over both kinds alike. Such a token keeps its state, that of the mask piece, in the graph and before the decoder:
    its place among the words is known from nothing else. All masked tokens have the mask piece, where BERT leaves some
    as they are or takes random ones, which is for an encoder that sees no mask later; here ``text.dropout`` can show it
    some.

    In graphs of dialogues, where whole texts are masked, x is the mean of the states that the encoder, without
    gradient and dropout, gives to the pieces of the masked text, standardized over the masked texts of the batch
    (:func:`~gmsa.nn.standardize_by`): what all texts share would else be most of every target. The encoder is that of
    the moving average of the weights (``optim.ema``), which changes slowly, else the model's own.

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
        encoder: Any = model.embedding.text_encoder
        dims = dict(dims)
        self.pieces: PieceHead | None = None
        if encoder is not None:
            dims[TEXT] = encoder.width
            if not config.graph.has_dialogues:
                count, width = encoder.network.get_input_embeddings().weight.shape
                self.pieces = PieceHead(channels, width, count)
                del dims[TEXT]
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
            token = next(iter((*self.token.values(), next(iter(self.project)).bias)))
            # Not plain zeros: the gradients of what all make of the views are added up in all processes or in none.
            errors, views = token.new_zeros(0), token.expand(1, 2, -1)[:0]
        else:
            states = self.states(batch.masked, batch.targets)
            errors = self.reconstruction(states, batch.masked, batch.targets)
            features = [self.model(view).features for view in batch.views]
            if len(features) == 1:
                features.insert(0, self.model.summarize(states, batch.masked))
            views = self.represent(*features)
        count = group.all_reduce(errors.new_full((), len(errors)))
        return errors.sum() / count.clamp(min=1), self.contrast(views, group)

    def states(self, batch: GraphBatch, targets: Mapping[str, Masked]) -> Tensor:
        """The model's states of all nodes, those of masked tokens too ``[V, C]``."""
        masked = {m: (target.flags, self.token[m]) for m, target in self._known(targets).items()}
        if batch.dialogues is None:
            return self.model.nodes(self.model.embedding(batch, masked), batch)
        return self.model.outside_nodes(self.model.embedding(batch), batch, masked)

    def _known(self, targets: Mapping[str, Masked]) -> dict[str, Masked]:
        """The targets that are features or states, and not word pieces."""
        return {m: target for m, target in targets.items() if self.pieces is None or m != TEXT}

    def reconstruction(self, states: Tensor, batch: GraphBatch, targets: Mapping[str, Masked]) -> Tensor:
        """The error of each masked token ``[K]``, from the states of all nodes ``[V, C]``."""
        if not targets:
            return states.new_zeros(0, dtype=torch.float32)
        graph, known = batch.dialogues or batch, self._known(targets)
        if known:
            states = states.index_fill(0, torch.cat([target.nodes for target in known.values()]), 0.0)
        decoded = self.decoder(states, graph.edges["global"])
        errors = []
        for modality, target in targets.items():
            found = decoded.index_select(0, target.nodes)
            if modality not in known:
                errors.append(self._piece_errors(found, target.features))
                continue
            predicted = self.out[modality](found).float()
            wanted = self.standardize(target.features, modality)
            errors.append((1 - F.cosine_similarity(predicted, wanted, dim=1)).square())
        return torch.cat(errors)

    def _piece_errors(self, states: Tensor, numbers: Tensor) -> Tensor:
        """The error of each masked token of text ``[K]``, from its state ``[K, C]`` and its word pieces ``[K, P]``."""
        assert self.pieces is not None
        encoder: Any = self.model.embedding.text_encoder
        scores = self.pieces(states, encoder.network.get_input_embeddings().weight).float()
        there = numbers >= 0
        likely = scores.log_softmax(1).gather(1, numbers.clamp(min=0).long())  # [K, P]
        return -(likely * there).sum(1) / there.sum(1) / math.log(scores.shape[1])

    @torch.no_grad()
    def with_states(self, batch: PretrainingBatch | None, group: Group = SINGLE_PROCESS) -> PretrainingBatch | None:
        """The batch with this module's states, standardized, as targets of whole texts that are masked.

        Several processes all join in, whose batch may be None.
        """
        encoder: Any = self.model.embedding.text_encoder
        target = None if batch is None else batch.targets.get(TEXT)
        like = next(self.project.parameters())
        states = like.new_zeros(0, encoder.width)
        if target is not None:
            training = encoder.training
            encoder.eval()
            # Each text as one node of all its pieces. Not under mixed precision: it would keep weights without gradient
            # for what is computed after.
            with torch.autocast(like.device.type, enabled=False):
                states = encoder(target.features, torch.ones_like(target.nodes)).float()
            encoder.train(training)
        every = group.gather(states)[0]
        if batch is None or target is None:
            return batch
        taught = target._replace(features=standardize_by(states, every))
        return replace(batch, targets={**batch.targets, TEXT: taught})

    def represent(self, *views: Tensor) -> Tensor:
        """Projected representations of views of the same utterances ``[N, C]``, of length 1 ``[N, views, C]``."""
        projected = (self.project(features).float() for features in views)
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

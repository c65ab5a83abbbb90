"""Means over modalities, joined by one MLP."""

# N utterances, V nodes of all of them, G graphs of up to T nodes, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch_geometric.nn.parameter_dict import ParameterDict
from torch_geometric.utils import scatter

from gmsa.config import Config, ModelConfig
from gmsa.data.targets import INTENSITY_CLASSES
from gmsa.graph import DIALOGUE, READOUTS, GraphBatch
from gmsa.models.base import Convs, Embedding, Model, Output, Scope
from gmsa.models.context import Context, ContextEmbedding
from gmsa.models.views.stages import Grid, Row, Stage, context_rows, embedding_rows, heads_row, level_of
from gmsa.nn import Dropout, Heads, SparseEdges


class LateFusion(Model):
    r"""Means over each modality's tokens, joined by one MLP; a missing modality is a learned vector.

    .. math::
        \bar h_m &= \mathrm{mean}(\mathrm{Conv1D}(X_m)) \\
        F &= \mathrm{MLP}([\,\bar h_a; \bar h_t; \bar h_v\,]) \\
        v &= \mathrm{FC}_v(\mathrm{MLP}(F)), \quad e = \mathrm{FC}_e(\mathrm{MLP}(F))

    In scope ``hierarchical`` each :math:`\bar h_m` is followed by its mean over the utterances before and over those
    after that an edge joins, and, with the node of the dialogue, by the mean of all modalities over the utterances that
    it joins. Graphs of scope ``dialogue`` pass no message.

    Args:
        dims (Mapping[str, int]): Feature dimension of each modality.
        channels (int, default 128): Width C of every token.
        encoder (str, default "conv"): Encoder of each modality, by its name in ``ENCODERS``.
        dropout (float, default 0.2): Dropout after the MLP.
        input_dropout (float, default 0.5): Dropout on the features.
        convs (Mapping, optional): Convolutions of the graphs' modalities, as (kernel, stride); by default Semi-IIN's.
        positions (int, default 512): Most tokens of a modality (in scope ``dialogue``, utterances).
        scope (str, default "utterance"): Graphs of an ``utterance``, of a ``dialogue``, or ``hierarchical``.
        context (Context, optional): What the graphs of dialogues look like.
        num_classes (int, default 7): Number of classes K.
        intensity (bool, default True): Predicts an intensity and its class; else one of K classes alone.

    Shapes:
        - batch of N utterances; output: intensity :math:`(N)`, logits :math:`(N, K)`, no gate

    Example:
        >>> import torch
        >>> from gmsa.data import Utterance
        >>> from gmsa.graph import GraphSpec, collate
        >>> convs = {"text": [(3, 1)], "audio": [(4, 2)]}
        >>> model = LateFusion({"text": 6, "audio": 4}, channels=16, convs=convs)
        >>> clip = Utterance("video$_$1", {"text": torch.randn(5, 6), "audio": torch.randn(9, 4)})
        >>> output = model(collate([clip], GraphSpec(convs=convs, streams=())))
        >>> output.value.shape, output.logits.shape
        (torch.Size([1]), torch.Size([1, 7]))
    """

    outside_route = "edge"
    says_alone = True
    recordable = True

    @classmethod
    def hops(cls, config: Config) -> int:
        return int(config.graph.scope == "hierarchical")

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        channels: int = 128,
        encoder: str = "conv",
        dropout: float = 0.2,
        input_dropout: float = 0.5,
        convs: Convs | None = None,
        positions: int = 512,
        scope: Scope = "utterance",
        context: Context | None = None,
        num_classes: int = INTENSITY_CLASSES,
        intensity: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = Embedding(
            dims,
            channels,
            encoder=encoder,
            convs=convs,
            input_dropout=input_dropout,
            positions=positions,
            scope=scope,
            dialogue_node=context is not None and context.dialogue_node,
        )
        modalities = self.embedding.modalities
        self.missing = ParameterDict({m: nn.Parameter(torch.randn(channels) * 0.02) for m in modalities})
        self.join = nn.Sequential(nn.Linear(len(modalities) * channels, channels), nn.ReLU(), Dropout(dropout))
        self.heads = Heads(channels, num_classes, dropout, intensity)
        self.around = context or Context()
        if scope == "hierarchical":
            self.outside = ContextEmbedding(self.embedding.outer_schema, modalities, channels)
            inputs = (3 + self.around.dialogue_node) * len(modalities) * channels
            self.outside_join = nn.Sequential(nn.Linear(inputs, channels), nn.ReLU(), Dropout(dropout))

    @classmethod
    def seen_streams(cls, config: ModelConfig) -> tuple[str, ...]:
        return ()

    @classmethod
    def seen_outside(cls, config: ModelConfig) -> tuple[str, ...]:
        return ("intra",)

    def describe_stages(self, config: Config) -> list[Row]:
        level, joined = level_of(config), cast(nn.Linear, self.join[0])
        note = f"the mean of each modality's tokens, side by side: {joined.in_features} → {joined.out_features}"
        rows = [*embedding_rows(self.embedding, config), (Stage("Join", note, (self.missing, self.join), level),)]
        rows.append(heads_row(self.heads, level, config))
        if self.outside is not None:
            joined = cast(nn.Linear, self.outside_join[0])
            rows += context_rows(self.outside, config, with_readouts=False)
            names = self.embedding.modalities
            grid = Grid(names, names, {(name, name): 1 for name in names})
            rows.append(
                (
                    Stage(
                        "intra: mean", "over what comes before, and over what comes after", (), "dialogue", "mean", grid
                    ),
                )
            )
            means = "both means and that of the dialogue" if self.around.dialogue_node else "both means"
            note = f"each node with {means}, side by side: {joined.in_features} → {joined.out_features}"
            rows.append((Stage("Join", note, (self.outside_join,), "dialogue"),))
            rows.append(heads_row(self.heads, "dialogue", config))
        return rows

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """The embeddings: no message is passed."""
        return z0

    def outside_nodes(
        self, z0: Tensor, batch: GraphBatch, masked: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        """The means of what each node hears."""
        assert self.outside is not None
        assert batch.dialogues is not None
        x = self.outside(self.embedding.pool(z0, batch), None, batch.dialogues, masked)
        return torch.stack(self._heard(x, batch.dialogues)).mean(0)

    def _heard(self, x: Tensor, graph: GraphBatch) -> list[Tensor]:
        """Of each node: itself, and the means over the earlier ones and the later ones that it hears; with the node of
        the dialogue, the mean over those that that node hears. ``[V, C]`` each, zero where it hears none."""
        edges = graph.edges["intra"]
        assert isinstance(edges, SparseEdges)
        assert edges.edge_type is not None
        source, target = edges.index
        distances = 2 * self.around.distances + 1
        sign = (edges.edge_type % distances - self.around.distances).sign()
        among = edges.edge_type < self.around.edge_types(graph.schema)

        def mean(chosen: Tensor, x: Tensor) -> Tensor:
            # The edges that are not chosen add zeros: their number is not known without waiting for a GPU.
            total = scatter(x.index_select(0, source).masked_fill(~chosen[:, None], 0), target, dim_size=len(x))
            count = scatter(chosen.to(x.dtype), target, dim_size=len(x))
            return total / count.clamp(min=1)[:, None]

        heard = [x, mean(among & (sign < 0), x), mean(among & (sign > 0), x)]
        if self.around.dialogue_node:
            is_dialogue = graph.node_type == graph.schema.numbers[DIALOGUE]
            is_modality = graph.node_type >= len(READOUTS)
            of_dialogue = mean(is_dialogue[target] & is_modality[source], x)
            heard.append(mean(is_dialogue[source], of_dialogue))
        return heard

    def forward(self, batch: GraphBatch) -> Output:
        # Rows are in the graphs' order of utterances, which `utterance_order` turns into the batch's.
        means = self.embedding.means(batch, dict(self.missing.items()))
        if self.embedding.sequence is not None:
            means = self.embedding.sequence(means, batch.sizes)
        joined, alone = self.join(torch.cat(list(means.values()), dim=1)).index_select(0, batch.utterance_order), None
        if self.outside is not None:
            graph = batch.dialogues
            assert graph is not None
            alone = self.heads(joined, joined)
            heard = self._heard(self.outside(means, None, graph), graph)
            joined = self.outside_join(torch.cat([x for h in heard for x in self.outside.pool(h, graph).values()], 1))
        value, logits = self.heads(joined, joined)
        if batch.dialogues is not None:
            value, logits = self.propagate((value, logits), batch.dialogues)
        unimodal = None
        if self.unimodal is not None:
            unimodal = self.unimodal({m: x.index_select(0, batch.utterance_order) for m, x in means.items()})
        return Output(value, logits, None, joined, unimodal=unimodal, alone=alone)

"""From the states of utterances to the nodes of their dialogues' graphs."""

# N utterances, V nodes of their dialogues' graphs, Q readout nodes of an utterance, C channels
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.nn.parameter_dict import ParameterDict

from gmsa.config import Config
from gmsa.config.groups.model import STREAMS
from gmsa.config.presets import placed
from gmsa.graph import READOUTS, UTTERANCE, GraphBatch, Schema, relations_of, schema
from gmsa.nn import Relations, SequenceEncoder


@dataclass(frozen=True)
class Context:
    """What a model must know of the graphs of dialogues."""

    distances: int = 1
    """Distances between utterances that have an edge type each; with 1 they are past, present and future."""
    speaker_types: int = 1
    """Edge types by the speakers of both ends."""
    dialogue_node: bool = False
    """Whether graphs have the node of the dialogue."""
    causal: bool = False
    """Whether no utterance hears a later one."""

    @classmethod
    def of(cls, config: Config) -> Context:
        """The settings of a config."""
        graph = config.graph.outside
        assert isinstance(graph.distances, int)
        return cls(graph.distances, graph.speaker_types, graph.dialogue_node, not graph.reach[1])

    @property
    def kinds(self) -> int:
        """Edge types of a relation between modalities: by distance, then by speakers."""
        return (2 * self.distances + 1) * self.speaker_types

    def distances_of(self, edge_type: Tensor) -> Tensor:
        """How far before (negative) or after its target the source of each edge between utterances is, at most
        :attr:`distances` ``[E]``."""
        return edge_type % (2 * self.distances + 1) - self.distances

    def speakers_of(self, edge_type: Tensor) -> Tensor:
        """The type of each of these edges by the speakers of both ends ``[E]``: 0 for the same and 1 for another one;
        where n speakers are listed, the source's number times n + 1, plus the target's."""
        return edge_type // (2 * self.distances + 1)

    @property
    def turn_relations(self) -> Relations:
        """The relations of DialogueGCN and COGMEN: by the speakers of both ends, and by whether the source is earlier
        than the target. An utterance is not earlier than itself. They are 2 S² for S speakers, in this order."""
        times = ("earlier", "not earlier")
        pairs = [f"{time}, speakers {k}" for k in range(self.speaker_types) for time in times]
        return Relations((UTTERANCE,), tuple((UTTERANCE, pair, UTTERANCE) for pair in pairs))

    def turn_relations_of(self, edge_type: Tensor) -> Tensor:
        """The number of each edge's among :attr:`turn_relations` ``[E]``."""
        return 2 * self.speakers_of(edge_type) + (self.distances_of(edge_type) >= 0).long()

    def edge_types(self, types: Schema) -> int:
        """Edge types with a learned bias."""
        return self.kinds * len(types.typed_relations)


class StreamRelations(NamedTuple):
    """The relations of each stream, for layers that have weights for each."""

    streams: Mapping[str, Relations]
    """Those of the graphs whose nodes are embedded: of utterances, or in scope ``dialogue`` of dialogues."""
    outside_streams: Mapping[str, Relations]
    """Those of the graphs of dialogues in scope ``hierarchical``."""

    @classmethod
    def of(cls, config: Config, readouts: tuple[str, ...] = READOUTS) -> StreamRelations:
        """Those of the graphs of a config, whose utterances have these readout nodes."""
        graph, names = config.graph, placed(config.named_modalities)
        is_dialogue = graph.scope == "dialogue"
        first = schema(names, is_dialogue and graph.dialogue_node)
        settings = graph.outside if is_dialogue else graph.inside
        then = schema(names, graph.dialogue_node, joined_readouts=True)
        return cls(
            {s: relations_of(s, first, settings, readouts) for s in STREAMS},
            {s: relations_of(s, then, graph.outside, readouts) for s in STREAMS if graph.scope == "hierarchical"},
        )


class ContextEmbedding(nn.Module):
    r"""Embeds the nodes of the graphs of dialogues in scope ``hierarchical``.

    .. math::
        x_{i,m} = \begin{cases} h_{i,m} + type_m & m\ present \\ token_m + type_m & \text{else} \end{cases}, \qquad
        x_{i,r} = h_{i,r} + type_r, \qquad x_{dialogue} = type_{dialogue}

    :math:`h_{i,m}` is the state that the graph of utterance i gives for modality m, :math:`h_{i,r}` that of its readout
    node r. Nodes know no place: what an edge's type says of the distance is all, so that a part of a dialogue has the
    same answers as the whole where it holds all that is within reach. Our design. With a ``sequence`` encoder, the
    states of each modality pass it first, and those of readout nodes do not: edges tell them.

    Args:
        types (Schema): Types of the graphs' nodes.
        modalities (Sequence[str]): Modalities of the data, in the order of the nodes.
        channels (int): Width C.

    Shapes:
        - states of each modality :math:`(N, C)`, readouts :math:`(N, Q, C)` or None; output :math:`(V, C)`

    Example:
        >>> from gmsa.config import GraphConfig
        >>> from gmsa.data import Utterance
        >>> from gmsa.graph import GraphSpec, collate
        >>> clips = [Utterance(f"video$_${i}", {"text": torch.randn(5, 6)}) for i in range(3)]
        >>> spec = GraphSpec(GraphConfig(scope="hierarchical"), convs={"text": [(3, 1)]})
        >>> graph = collate(clips, spec).dialogues
        >>> embed = ContextEmbedding(graph.schema, ["text"], channels=16)
        >>> embed({"text": torch.randn(3, 16)}, torch.randn(3, 2, 16), graph).shape  # val, cls and text of each
        torch.Size([9, 16])
    """

    sequence: SequenceEncoder | None
    """Set by :func:`~gmsa.models.build_model` where ``model.sequence`` asks for it."""

    def __init__(self, types: Schema, modalities: Sequence[str], channels: int) -> None:
        super().__init__()
        self.sequence = None
        self.modalities = tuple(modalities)
        self.node_type = nn.Parameter(torch.randn(len(types.node_types), channels) * 0.02)
        self.missing = ParameterDict({m: nn.Parameter(torch.randn(channels) * 0.02) for m in modalities})

    def forward(
        self,
        states: Mapping[str, Tensor],
        readouts: Tensor | None,
        graph: GraphBatch,
        masked: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """The nodes' embeddings.

        Args:
            states: of each modality, in the order of the batch; those of missing ones are not looked at.
            masked: Per modality, which utterances are masked ``[N]``, in the order of the graphs, and the vector
                ``[C]`` that replaces them.
        """
        order = torch.argsort(graph.utterance_order)
        rows = {}
        for modality in self.modalities:
            state = states[modality].index_select(0, order)
            there = (graph.lengths[modality] > 0)[:, None]
            row = torch.where(there, state, self.missing[modality].to(state.dtype))
            if masked is not None and modality in masked:
                flags, token = masked[modality]
                row = torch.where(flags[:, None], token.to(row.dtype), row)
            rows[modality] = row
        if self.sequence is not None:
            rows = self.sequence(rows, graph.sizes)
        found = [*rows.values()]
        table = torch.cat([found[0].new_zeros(1, found[0].shape[1]), *found])
        x = table.index_select(0, graph.embedding_row)
        if readouts is not None:
            x = x.index_copy(0, graph.readout_index[graph.readout_rows].flatten(), readouts.flatten(0, 1).to(x.dtype))
        return x + self.node_type[graph.node_type]

    def pool(self, x: Tensor, graph: GraphBatch) -> dict[str, Tensor]:
        """From states of all nodes ``[V, C]`` those of each modality's nodes, in the order of the batch: ``[N, C]``."""
        count = graph.utterance_order.shape[0]
        table = x.new_zeros(1 + count * len(self.modalities), x.shape[1]).index_copy(0, graph.embedding_row, x)[1:]
        parts = table.split(count)
        return {m: part.index_select(0, graph.utterance_order) for m, part in zip(self.modalities, parts, strict=True)}

"""What the models of conversations share: a state per utterance and modality goes in, one per utterance comes out."""

# N utterances, V nodes, M modalities, C channels, D numbers that a model says of an utterance
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gmsa.config import Config, ModelConfig
from gmsa.config.components import component_name
from gmsa.data.targets import INTENSITY_CLASSES
from gmsa.errors import ConfigError
from gmsa.graph import UTTERANCE, GraphBatch
from gmsa.models.base import Convs, Embedding, Model, Output, Scope
from gmsa.models.context import Context, ContextEmbedding, StreamRelations
from gmsa.models.parts import Layers
from gmsa.models.views.stages import Row, Stage, context_rows, embedding_rows, heads_row, own_rows, stream_stage
from gmsa.nn import Heads, Stream


class Conversation(Model):
    r"""Base of published models of conversations, whose graphs join utterances.

    .. math::
        x_{i,m} &= \text{state of modality m of utterance i, or a learned token where it is missing} \\
        h_i &= \mathrm{Converse}(x)_i, \qquad f_i = h_i W + b, \qquad
        v_i = \mathrm{FC}_v(\mathrm{MLP}(f_i)), \quad e_i = \mathrm{FC}_e(\mathrm{MLP}(f_i))

    A model derives from it, defines :meth:`converse` and sets :attr:`join`, its W. In scope ``dialogue`` a state is the
    mean over the modality's embedded tokens; in scope ``hierarchical``, our extension, over what one stream of
    ``layers`` layers makes of the utterance's tokens, in which all see all.

    Args:
        dims (Mapping[str, int]): Feature dimension of each modality.
        channels (int, default 128): Width C.
        heads (int, default 8): Attention heads; must divide ``channels``.
        layers (int, default 2): Layers of the stream inside utterances; in scope ``dialogue``, over the dialogue.
        shared_layers (bool, default True): One set of weights for all layers inside utterances.
        layer (str | Mapping, default "attention"): Layer inside utterances, by its name in ``LAYERS``.
        encoder (str, default "conv"): Encoder of each modality, by its name in ``ENCODERS``.
        dropout (float, default 0.2): Dropout in the layers.
        input_dropout (float, default 0.5): Dropout on the features.
        convs (Mapping, optional): Convolutions of the graphs' modalities, as (kernel, stride); by default Semi-IIN's.
        positions (int, default 512): Most tokens of a modality (in scope ``dialogue``, utterances).
        scope (str, default "dialogue"): Graphs of a ``dialogue``, or ``hierarchical``.
        context (Context, optional): What the graphs of dialogues look like.
        context_layers (int, default 1): In scope ``hierarchical``, layers over the dialogue.
        num_classes (int, default 7): Number of classes K.
        intensity (bool, default True): Predicts an intensity and its class; else one of K classes alone.
        typed_edges (bool, default False): Learns a bias for each edge type inside utterances.
        relations (StreamRelations, optional): The relations of the streams, for layers that have weights for each.

    Shapes:
        - batch of N utterances; output: :class:`~gmsa.models.Output`
    """

    readout_nodes = False
    outside_route = "edge"
    says_alone = True
    layers_outside = False

    join: nn.Linear
    """From what :meth:`converse` says of an utterance ``[N, D]`` to the C features that the heads read."""

    @classmethod
    def seen_streams(cls, config: ModelConfig) -> tuple[str, ...]:
        return ("global",)

    @classmethod
    def seen_outside(cls, config: ModelConfig) -> tuple[str, ...]:
        return (UTTERANCE,)

    @classmethod
    def check(cls, config: Config) -> None:
        if not config.graph.has_dialogues:
            raise ConfigError(
                f"'model.name: {component_name(config.model.name)}' is a model of conversations; set 'graph.scope' to "
                "dialogue or hierarchical"
            )
        if unseen := [stream for stream in config.model.layer.named if stream not in cls.seen_streams(config.model)]:
            raise ConfigError(
                f"'model.layer.{unseen[0]}' is of no stream of '{component_name(config.model.name)}', in which all "
                "tokens of an utterance see all; name one layer for all"
            )
        if config.graph.scope == "dialogue" and config.model.layer != ModelConfig().layer:
            raise ConfigError(
                f"'model.layer' is that of the tokens, which 'graph.scope: dialogue' of "
                f"'{component_name(config.model.name)}' does not have; leave it out, or set 'graph.scope' to "
                "hierarchical"
            )

    @classmethod
    def has_dialogue_node(cls) -> bool:
        """Whether its graphs of dialogues may have the node of a dialogue."""
        return cls.seen_outside(ModelConfig()) != (UTTERANCE,)

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        channels: int = 128,
        heads: int = 8,
        layers: int = 2,
        shared_layers: bool = True,
        layer: str | Mapping[str, str] = "attention",
        encoder: str = "conv",
        dropout: float = 0.2,
        input_dropout: float = 0.5,
        convs: Convs | None = None,
        positions: int = 512,
        scope: Scope = "dialogue",
        context: Context | None = None,
        context_layers: int = 1,
        num_classes: int = INTENSITY_CLASSES,
        intensity: bool = True,
        typed_edges: bool = False,
        relations: StreamRelations | None = None,
    ) -> None:
        super().__init__()
        self.context = context or Context()
        self.channels, self.num_heads, self.rate = channels, heads, dropout
        self.depth = layers if scope == "dialogue" else context_layers
        self.embedding = Embedding(
            dims,
            channels,
            encoder=encoder,
            convs=convs,
            input_dropout=input_dropout,
            positions=positions,
            scope=scope,
            dialogue_node=self.context.dialogue_node and self.has_dialogue_node(),
        )
        self.modalities = self.embedding.modalities
        self.heads = Heads(channels, num_classes, dropout, intensity)
        if scope == "hierarchical":
            edge_types = self.embedding.schema.edge_types if typed_edges else 0
            known = relations.streams.get("global") if relations else None
            build = Layers(layer)["global"]
            stream = Stream(channels, heads, layers, shared_layers, dropout, edge_types, build, known)
            self.streams = nn.ModuleDict({"global": stream})
            self.alone = Heads(channels, num_classes, dropout, intensity)
            self.outside = ContextEmbedding(self.embedding.outer_schema, self.modalities, channels)

    def converse(self, states: Mapping[str, Tensor], graph: GraphBatch) -> Tensor:
        """What the model says of each utterance ``[N, D]``, in the order of the graphs.

        Args:
            states: of each modality ``[N, C]``, in the order of the graphs, dialogues end to end (``graph.sizes``).
            graph: of dialogues; ``graph.utterance_edges`` join utterances within reach and each with itself, and
                :class:`~gmsa.models.Context` reads their types.
        """
        raise NotImplementedError

    def describe_converse(self, config: Config) -> list[Row]:
        """The stages of :meth:`converse`; by default a row for each of the model's own parts."""
        known = [(Stage("", parts=(self.join, self.streams if self.outside is not None else None)),)]
        return [row for row in own_rows(self, known, "dialogue") if row[0].name != "alone"]

    def describe_stages(self, config: Config) -> list[Row]:
        rows, settings = embedding_rows(self.embedding, config), config.model
        if self.outside is not None:
            shared, stream = settings.shared_layers, self.streams["global"]
            rows.append((stream_stage(self, config, "utterance", "global", settings.layers, stream, shared=shared),))
            rows.append(heads_row(self.alone, "utterance", config))
            rows += context_rows(self.outside, config, with_readouts=False)
        widths = f"{self.join.in_features} → {self.join.out_features}"
        rows += [*self.describe_converse(config), (Stage("Linear", widths, (self.join,), "dialogue"),)]
        return [*rows, heads_row(self.heads, "dialogue", config)]

    def forward(self, batch: GraphBatch) -> Output:
        z0 = self.embedding(batch)
        unimodal, alone, graph, x = self.predict_unimodal(z0, batch), None, batch, z0
        if self.outside is not None:
            assert batch.dialogues is not None
            pooled = self._inside(z0, batch)
            mean = torch.stack([*pooled.values()]).mean(0)
            alone, graph = self.alone(mean, mean), batch.dialogues
            x = self.outside(pooled, None, graph)
        features = self._features(x, graph).index_select(0, graph.utterance_order)
        value, logits = self.propagate(self.heads(features, features), graph)
        return Output(value, logits, None, features, unimodal=unimodal, alone=alone)

    def _inside(self, z0: Tensor, batch: GraphBatch) -> dict[str, Tensor]:
        """The state of each modality of an utterance from its own graph ``[N, C]``, zero where it is missing."""
        return self.embedding.pool(self.streams["global"](z0, batch.edges["global"]), batch)

    def _features(self, x: Tensor, graph: GraphBatch) -> Tensor:
        """The features of each utterance ``[N, C]`` from the nodes of the dialogues' graphs ``[V, C]``."""
        count = len(graph.ids)
        table = x.new_zeros(1 + count * len(self.modalities), x.shape[1]).index_copy(0, graph.embedding_row, x)[1:]
        states = dict(zip(self.modalities, table.split(count), strict=True))
        features: Tensor = self.join(self.converse(states, graph))
        return features

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """The features of its utterance for each node."""
        return self._spread(self._features(z0, batch), batch)

    def outside_nodes(
        self, z0: Tensor, batch: GraphBatch, masked: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        """The same for the nodes of the dialogues' graphs."""
        assert self.outside is not None
        assert batch.dialogues is not None
        x = self.outside(self._inside(z0, batch), None, batch.dialogues, masked)
        return self._spread(self._features(x, batch.dialogues), batch.dialogues)

    def _spread(self, features: Tensor, graph: GraphBatch) -> Tensor:
        table = torch.cat([features.new_zeros(1, features.shape[1]), *[features] * len(self.modalities)])
        return table.index_select(0, graph.embedding_row)


def refuse_odd_channels(config: Config) -> None:
    """Refuses channels that an LSTM over a dialogue cannot share between both ways.

    Raises:
        ConfigError: ``model.channels`` is odd where ``graph.future`` is not 0.
    """
    if config.model.channels % 2 and config.graph.reach[1]:
        raise ConfigError(
            f"'model.channels' must be even for an LSTM that reads dialogues both ways (got {config.model.channels})"
        )

"""What every model shares: its output, and the embedding of tokens."""

# N utterances, V nodes and M_m tokens of modality m of all of them, C channels, K classes
from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn.module_dict import ModuleDict
from torch_geometric.nn.parameter_dict import ParameterDict
from torch_geometric.utils import scatter

from gmsa.config import Config, ModelConfig
from gmsa.config.presets import CONVS, OTHERS, TEXT, placed
from gmsa.data.targets import Target
from gmsa.errors import ConfigError
from gmsa.graph import READOUTS, GraphBatch, GraphSpec, from_hetero, schema, token_count
from gmsa.models.context import Context, ContextEmbedding, StreamRelations
from gmsa.models.parts import find_encoder, find_part
from gmsa.models.views.stages import Row, plain_rows
from gmsa.nn import Edges, Reconstruction, SequenceEncoder, UnimodalHeads, without_sources
from gmsa.registry import MODELS

M = TypeVar("M", bound="Model")
Convs = Mapping[str, Sequence[tuple[int, int]]]
"""Per modality, the convolutions of its encoder, as (kernel, stride)."""
Scope = Literal["utterance", "dialogue", "hierarchical"]
"""Whose graphs a model takes."""


class Output(NamedTuple):
    """Predictions of a model for N utterances."""

    value: Tensor | None
    """Intensity ``[N]``; None where the target is one of K classes."""
    logits: Tensor
    """Class scores before the softmax ``[N, K]``."""
    gate: Tensor | None
    """Share of the inter view at val (if any) and cls ``[N, Q, C]``; None where the model has no gate."""
    features: Tensor
    """Representation from which the intensity, or the class, is predicted ``[N, C]``."""
    states: Mapping[str, Tensor] | None = None
    """State of each modality's node ``[N, C]``, that of a missing one too, where the model has them."""
    unimodal: Mapping[str, Tensor] | None = None
    """What each modality predicts by itself where the model has heads for that, the intensity ``[N]`` or class scores
    ``[N, K]``; of a missing modality it means nothing."""
    alone: tuple[Tensor | None, Tensor] | None = None
    """In scope ``hierarchical`` the intensity ``[N]`` and the class scores ``[N, K]`` that each utterance's own graph
    predicts, without context; None where the model does not say them."""


class Model(nn.Module):
    """Base class of all models: it embeds nodes, updates their states and predicts from them.

    A model of your own derives from it, registers with ``MODELS.register("name")`` and defines ``nodes`` and
    ``forward``. Its constructor takes ``dims`` (the feature dimension of each modality) and, by keyword, whichever
    settings of ``config.model`` it uses, ``convs``, ``scope``, ``context`` (:class:`~gmsa.models.Context`; one that
    takes it has :attr:`outside` in scope ``hierarchical``), ``typed_edges``, ``relations``
    (:class:`~gmsa.models.StreamRelations`), ``num_classes`` (K), ``intensity`` (False
    where the target is one of K classes: graphs have no node ``val``, and :attr:`Output.value` is None), and parameters
    of its own, which a config sets by ``model.name: name(parameter=value)``.

    Shapes:
        - batch of N utterances with V nodes, or graphs of PyG; output: :class:`Output`
    """

    readout_nodes: ClassVar[bool] = True
    """Whether the model's graphs have the nodes ``val`` and ``cls``."""
    route: ClassVar[Literal["dense", "edge"] | None] = None
    """The only form of edges that the model takes; None where it takes both."""
    outside_route: ClassVar[Literal["dense", "edge"] | None] = None
    """The same in graphs of dialogues."""

    takes_relations: ClassVar[bool] = False
    """Whether the model itself, not only a layer that it may be given, looks at the relations of lists of edges."""
    takes_weights: ClassVar[bool] = False
    """Whether the model takes the edges of graphs of dialogues from :meth:`edges`."""
    layers_outside: ClassVar[bool] = True
    """Whether the layers of ``model.layer``, where the model takes them, also pass messages between utterances."""
    says_alone: ClassVar[bool] = False
    """Whether its output has :attr:`Output.alone` in scope ``hierarchical``."""

    recordable: ClassVar[bool] = False
    """Whether a GPU may record its training steps on graphs of utterances (``run.cuda_graphs``): the shapes of a batch
    alone decide what they launch, and graphs that round a batch up change nothing of what it says of the others. A
    class that derives from one that says so says it anew."""

    spec: GraphSpec | None = None
    """The graphs that the model takes; set by :func:`~gmsa.models.build_model`."""
    embedding: Embedding
    propagations: nn.ModuleList
    """For the intensity and the classes, or the classes alone, what adds the predictions of other utterances; set by
    :func:`~gmsa.models.build_model` in scope ``hierarchical`` where ``model.propagation`` asks for it."""
    between: nn.ModuleList
    """What chooses among and weighs the edges of graphs of dialogues; set by :func:`~gmsa.models.build_model` where
    ``graph.between`` is ``learned`` or ``graph.weights`` asks for it."""
    outside: ContextEmbedding | None
    """Set by the constructor in scope ``hierarchical``."""
    reconstruction: Reconstruction | None
    """Set by :func:`~gmsa.models.build_model` where ``reconstruction.weight`` is above 0."""
    unimodal: UnimodalHeads | None
    """Set by :func:`~gmsa.models.build_model` where ``loss.unimodal_weight`` is above 0."""

    def __init__(self) -> None:
        super().__init__()
        self.between, self.propagations = nn.ModuleList(), nn.ModuleList()
        self.outside = None
        self.reconstruction = None
        self.unimodal = None

    def __call__(self, batch: GraphBatch | HeteroData, *args: Any, **kwargs: Any) -> Any:
        """The output for a batch, or for graphs of PyG as :func:`gmsa.graph.as_hetero` gives them."""
        if isinstance(batch, HeteroData):
            if self.spec is None:
                raise ConfigError(
                    "the model knows no graphs to read HeteroData with; set 'model.spec' to their GraphSpec"
                )
            batch = from_hetero(batch, self.spec)
        return super().__call__(batch, *args, **kwargs)

    @classmethod
    def graph_spec(cls, config: Config) -> GraphSpec:
        """The graphs that the model of a config takes: :func:`gmsa.models.graph_spec`."""
        from gmsa.models.build import graph_spec  # which imports this module

        return graph_spec(config)

    @classmethod
    def seen_streams(cls, config: ModelConfig) -> tuple[str, ...]:
        """Streams whose edges the model reads: ``intra``, ``inter``, or ``global`` for both in one."""
        return ("intra", "inter") if config.streams == "both" else (config.streams,)

    @classmethod
    def seen_outside(cls, config: ModelConfig) -> tuple[str, ...]:
        """The same of the edges in graphs of dialogues."""
        return cls.seen_streams(config)

    @classmethod
    def seen_readouts(cls, config: Config) -> tuple[str, ...]:
        """Readout nodes of an utterance: ``val`` and ``cls``, for one of K classes ``cls`` alone, or none."""
        return READOUTS[config.target.is_classes :] if cls.readout_nodes else ()

    @classmethod
    def hops(cls, config: Config) -> int | None:
        """How many edges between utterances a message can pass on its way to an answer; None where that is not known.

        Edges between the nodes of one utterance do not count.
        """
        return None

    @classmethod
    def check(cls, config: Config) -> None:
        """Refuses settings that this model does not take.

        Raises:
            ConfigError: names the setting.
        """

    @classmethod
    def from_config(cls: type[M], dims: Mapping[str, int], config: Config) -> M:
        """Builds the model with the settings of a config that its constructor takes.

        Args:
            dims: Feature dimension of each modality.

        Raises:
            ConfigError: a parameter in ``model.name`` is unknown, wrong or without a value.
        """
        chosen = {f.name: getattr(config.model, f.name) for f in dataclasses.fields(config.model)}
        chosen["convs"] = {m: config.model.convs(m) for m in placed(config.named_modalities)}
        chosen["scope"], chosen["typed_edges"] = config.graph.scope, config.graph.typed
        if config.graph.has_dialogues:
            chosen["context"] = Context.of(config)
        if "relations" in arguments_of(cls):
            chosen["relations"] = StreamRelations.of(config, cls.seen_readouts(config))
        target = Target.of(config.target)
        # One class where only the data says how many there are: settings are checked before it is read.
        chosen["num_classes"], chosen["intensity"] = max(1, target.num_classes), not target.is_classes
        given = find_part(config.model.name, MODELS, "model.name")[1]
        arguments: dict[str, Any] = {name: chosen[name] for name in arguments_of(cls) if name in chosen} | given
        return cls(dims, **arguments)  # type: ignore[call-arg]  # each model has its own

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """States of all nodes ``[V, C]`` from their embeddings ``[V, C]``: what pre-training decodes."""
        raise NotImplementedError

    def outside_nodes(
        self, z0: Tensor, batch: GraphBatch, masked: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        """States of all nodes of the dialogues' graphs ``[V', C]`` from the embeddings of those of the utterances'
        ``[V, C]``, in scope ``hierarchical``: what pre-training decodes there.

        Args:
            masked: as :class:`~gmsa.models.context.ContextEmbedding` takes them.
        """
        raise NotImplementedError

    def summarize(self, states: Tensor, batch: GraphBatch) -> Tensor:
        """What the states of all nodes that pre-training decodes say of each utterance ``[N, C]``, for its contrast.

        By default the mean over the modalities that are there of the mean over their nodes.
        """
        if batch.dialogues is None:
            graph, pooled = batch, self.embedding.pool(states, batch)
        else:
            assert self.outside is not None
            graph, pooled = batch.dialogues, self.outside.pool(states, batch.dialogues)
        present = self.present(graph)
        total = (torch.stack([*pooled.values()], dim=1) * present[:, :, None]).sum(1)
        return total / present.sum(1, keepdim=True).clamp(min=1)

    def present(self, graph: GraphBatch) -> Tensor:
        """Which modalities each utterance has ``[N, M]``, in the order of the batch."""
        order = graph.utterance_order
        there = [graph.lengths[m].index_select(0, order) > 0 for m in self.embedding.modalities]
        return torch.stack(there, dim=1)

    def start_outside(
        self, z: Tensor, batch: GraphBatch, masked: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        """Embeddings of the nodes of the dialogues' graphs ``[V', C]`` from states of those of the utterances'
        ``[V, C]``, with their readout nodes' states."""
        assert self.outside is not None
        assert batch.dialogues is not None
        read = z.index_select(0, batch.readout_index)[batch.readout_rows]
        return cast(Tensor, self.outside(self.embedding.pool(z, batch), read, batch.dialogues, masked))

    def edges(self, x: Tensor, graph: GraphBatch, stream: str, silent: Tensor | None = None) -> Edges:
        """The edges of a stream among all nodes; in graphs of dialogues those that the model chooses, with weights.

        Args:
            x: states of the nodes ``[V, C]``.
            silent: which nodes send nothing ``[V]``, and are not chosen.
        """
        edges = graph.edges[stream] if silent is None else without_sources(graph.edges[stream], silent)
        for part in self.between if graph.dialogues is None else ():
            edges = part(x, edges)
        return edges

    def describe_stages(self, config: Config) -> list[Row]:
        """What the model does one after another, for :func:`~gmsa.models.describe_model` and the picture of it.

        By default the embedding, the relations of each stream, each of the model's parts, and the heads.
        """
        return plain_rows(self, config)

    def propagate(self, predicted: tuple[Tensor | None, Tensor], graph: GraphBatch) -> tuple[Tensor | None, Tensor]:
        """An intensity ``[N]`` and class scores ``[N, K]`` with what is predicted of the other utterances."""
        value, logits = predicted
        if not self.propagations:
            return predicted
        assert graph.utterance_edges is not None
        order, back = torch.argsort(graph.utterance_order), graph.utterance_order
        between = graph.utterance_edges.index
        found = [logits.log_softmax(-1)] if value is None else [value[:, None], logits.log_softmax(-1)]
        for place, part in enumerate(self.propagations):
            y = found[place].index_select(0, order)
            found[place] = part(y, between, graph.sizes).index_select(0, back)
        return (None if value is None else found[0].squeeze(1)), found[-1]

    def predict_unimodal(self, z0: Tensor, batch: GraphBatch) -> dict[str, Tensor] | None:
        """:attr:`Output.unimodal` from the embeddings of all nodes ``[V, C]``; None without heads for it."""
        return None if self.unimodal is None else self.unimodal(self.embedding.pool(z0, batch))

    def reconstruct(self, output: Output, modality: str, rows: Tensor) -> Tensor:
        """Standardized features of a modality of the utterances ``rows`` ``[K]``: ``[K, D_m]``."""
        assert self.reconstruction is not None
        state = None if output.states is None else output.states[modality].index_select(0, rows)
        return cast(Tensor, self.reconstruction(output.features.index_select(0, rows), modality, state))


def arguments_of(cls: type[Model]) -> list[str]:
    """What a constructor takes by keyword, with what it passes on by ``**`` to that of the class above."""
    found: list[str] = []
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            found += [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return found


class Embedding(nn.Module):
    r"""Embeds the nodes of a batch: :math:`H_m = \mathrm{Conv1D}(X_m) + type_m`, plus a position embedding.

    Semi-IIN, Eqs. 1-5. A readout node starts as its type's embedding. Positions count within a
    modality (the paper's count along the joined sequence, where a missing modality would shift them).

    In the graph of a dialogue (``scope="dialogue"``) a node is the mean over its utterance's tokens, or a learned
    token where the modality is missing, and positions count the utterances; a ``sequence`` encoder comes before these.
    The node of a dialogue starts as its type's embedding.

    Args:
        dims (Mapping[str, int]): Feature dimension of each modality.
        channels (int, default 128): Width C of every token.
        encoder (str, default "conv"): Encoder of each modality, by its name in ``ENCODERS``.
        convs (Mapping, optional): Convolutions of each modality that has a place in the graphs, as (kernel, stride); by
            default Semi-IIN's.
        input_dropout (float, default 0.5): Dropout on the features.
        positions (int, default 512): Most tokens of a modality (in scope ``dialogue``, utterances).
        scope (str, default "utterance"): ``utterance``, ``dialogue``, or ``hierarchical``.
        dialogue_node (bool, default False): In scope ``dialogue``, whether graphs have the node of the dialogue.

    Shapes:
        - batch with V nodes; output :math:`(V, C)`

    Example:
        >>> from gmsa.data import Utterance
        >>> from gmsa.graph import GraphSpec, collate
        >>> clip = Utterance("video$_$1", {"text": torch.randn(5, 6)})
        >>> batch = collate([clip], GraphSpec(convs={"text": [(3, 1)]}))  # val, cls and five text nodes
        >>> Embedding({"text": 6}, channels=16)(batch).shape
        torch.Size([7, 16])
    """

    sequence: SequenceEncoder | None
    """Set by :func:`~gmsa.models.build_model` in scope ``dialogue`` where ``model.sequence`` asks for it."""
    text_encoder: nn.Module | None
    """Set by :func:`~gmsa.models.build_model` where ``model.text_encoder`` is trained with the rest
    (:class:`~gmsa.text.TextEncoder`): it turns the batch's numbers of word pieces into the features of ``text``."""

    def __init__(
        self,
        dims: Mapping[str, int],
        channels: int = 128,
        *,
        encoder: str = "conv",
        convs: Convs | None = None,
        input_dropout: float = 0.5,
        positions: int = 512,
        scope: Scope = "utterance",
        dialogue_node: bool = False,
    ) -> None:
        super().__init__()
        placed = [*(convs or ()), *(m for m in dims if m not in (convs or ()))]
        self.schema = schema(placed, dialogue_node and scope == "dialogue")
        self.outer_schema = schema(placed, dialogue_node, joined_readouts=True)
        self.modalities = tuple(m for m in self.schema.node_types if m in dims)
        used: dict[str, Sequence[tuple[int, int]]] = {m: (convs or CONVS).get(m, CONVS[OTHERS]) for m in dims}
        self.strides = {m: math.prod(stride for _, stride in used[m]) for m in dims}
        self.dims, self.convs = dict(dims), used
        build = find_encoder(encoder)
        self.encoders = ModuleDict(
            {m: build(dim=dims[m], channels=channels, convs=used[m], dropout=input_dropout) for m in self.modalities}
        )
        self.node_type = nn.Parameter(torch.randn(len(self.schema.node_types), channels) * 0.02)
        self.position = nn.Parameter(torch.randn(positions, channels) * 0.02)
        self.missing = self.sequence = self.text_encoder = None
        if scope == "dialogue":
            self.missing = ParameterDict({m: nn.Parameter(torch.randn(channels) * 0.02) for m in self.modalities})

    def tokens(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Encodes each modality to the tokens of all utterances, end to end: ``[M_m, C]``."""
        return {m: encode(self.features(batch, m), batch.conv_windows[m]) for m, encode in self.encoders.items()}

    def features(self, batch: GraphBatch, modality: str) -> Tensor:
        """The features of a modality's steps ``[S, D_m]``: those of the batch, or the text encoder's states."""
        steps = batch.features[modality]
        if modality != TEXT or self.text_encoder is None:
            return steps
        return cast(Tensor, self.text_encoder(steps, batch.lengths[modality]))

    def mean(self, tokens: Tensor, batch: GraphBatch, modality: str, missing: Tensor) -> Tensor:
        """The mean over each utterance's tokens ``[M_m, C]``, or ``missing`` ``[C]`` where it has none: ``[N, C]``."""
        count = token_count(batch.lengths[modality], self.strides[modality])
        utterance = torch.repeat_interleave(count, output_size=len(tokens))
        total = scatter(tokens, utterance, dim_size=len(count))
        mean = total / count.clamp(min=1)[:, None].to(total.dtype)
        return torch.where((count > 0)[:, None], mean, missing.to(mean.dtype))

    def means(self, batch: GraphBatch, missing: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """:meth:`mean` of each modality's encoded tokens: ``[N, C]`` each, in the order of the graphs."""
        return {m: self.mean(tokens, batch, m, missing[m]) for m, tokens in self.tokens(batch).items()}

    def summary(self, batch: GraphBatch, modality: str, encoded: bool = True) -> Tensor:
        """The mean over an utterance's tokens ``[N, C]``, or over the features of its steps ``[N, D_m]``.

        Zero where the modality is missing; in the order of the batch. No edge is read.
        """
        x, count = self.features(batch, modality), batch.lengths[modality]
        if encoded:
            x = self.encoders[modality](x, batch.conv_windows[modality])
            count = token_count(count, self.strides[modality])
        total = scatter(x, torch.repeat_interleave(count, output_size=len(x)), dim_size=len(count))
        return (total / count.clamp(min=1)[:, None].to(total.dtype)).index_select(0, batch.utterance_order)

    def pool(self, z: Tensor, batch: GraphBatch) -> dict[str, Tensor]:
        """From states of all nodes ``[V, C]`` the mean over each modality's nodes of an utterance: ``[N, C]`` each.

        Zero where it has none, as for a missing modality in graphs of utterances; in the order of the batch.
        """
        video = self.missing is not None
        rows = [len(batch.lengths[m]) if video else len(batch.conv_windows[m][-1]) for m in self.modalities]
        size = 1
        for count in rows:  # not sum(rows), which torch.export cannot save
            size += count
        table = z.new_zeros(size, z.shape[1]).index_copy(0, batch.embedding_row, z)[1:]
        found = {}
        for modality, part in zip(self.modalities, table.split(rows), strict=True):
            mean = part if video else self.mean(part, batch, modality, z.new_zeros(z.shape[1]))
            found[modality] = mean.index_select(0, batch.utterance_order)
        return found

    def forward(self, batch: GraphBatch, masked: Mapping[str, tuple[Tensor, Tensor]] | None = None) -> Tensor:
        """Embeds the nodes of a batch.

        Args:
            masked: Per modality, which of its tokens are masked ``[M_m]``, and the vector ``[C]`` that replaces them.
        """
        rows = self.tokens(batch) if self.missing is None else self.means(batch, dict(self.missing.items()))
        for modality, (flags, token) in (masked or {}).items():
            rows[modality] = torch.where(flags[:, None], token.to(rows[modality].dtype), rows[modality])
        if self.sequence is not None:
            rows = self.sequence(rows, batch.sizes)
        table = torch.cat([self.node_type.new_zeros(1, self.node_type.shape[1]), *rows.values()])
        x = table.index_select(0, batch.embedding_row)
        x += F.embedding(batch.node_type, self.node_type)
        x += F.embedding(batch.position, self.position)
        return x

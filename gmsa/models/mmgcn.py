"""MMGCN: graph convolutions over the modalities of all utterances of a dialogue.

Hu, Liu, Zhao and Jin: MMGCN: Multimodal Fusion via Deep Graph Convolution Network for Emotion Recognition in
Conversation. ACL 2021, arXiv 2107.06779.
"""

# N utterances, M modalities, V nodes of their dialogues' graphs, E edges, C channels
from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn import GCN2Conv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.nn.module_dict import ModuleDict

from gmsa.config import Config, ModelConfig
from gmsa.errors import ConfigError
from gmsa.graph import GraphBatch
from gmsa.models.conversation import Conversation, refuse_odd_channels
from gmsa.models.parts import find_part
from gmsa.models.views.stages import Row, Stage, both_ways, counted, stream_grid
from gmsa.nn import AngularWeights, DialogueLSTM, Dropout, SparseEdges
from gmsa.registry import MODELS

TEXT = "text"
"""The modality that the paper encodes by an LSTM."""


class MMGCN(Conversation):
    r"""Deep graph convolutions over one node for each modality of each utterance.

    .. math::
        x_{i,text} &= \mathrm{LSTM}(h_{text})_i + s_{p(i)}, \qquad x_{i,m} = h_{i,m} + s_{p(i)} \\
        A_{ij} &= 1 - \frac{1}{\pi} \arccos \Big( \kappa \frac{x_i^\top x_j}{\|x_i\| \|x_j\|} \Big) \cdot
            \begin{cases} 1 & \text{within a modality} \\ \gamma & \text{between two, of one utterance} \end{cases} \\
        P &= D^{-1/2} A D^{-1/2}, \qquad D_{ii} = \sum_j A_{ij}, \qquad H^0 = \mathrm{ReLU}(X W_{in} + b_{in}) \\
        H^l &= \mathrm{ReLU} \big( [(1 - \alpha) P H^{l-1} + \alpha H^0] [(1 - \theta_l) I + \theta_l W_l] \big),
            \qquad \theta_l = \ln(\lambda / l + 1) \\
        f_i &= \mathrm{ReLU} \Big( \Big\Vert_m [x_{i,m}; H^L_{i,m}] \Big) W + b

    :math:`h_{i,m}` are the states that :class:`~gmsa.models.Conversation` gives, :math:`s_p` is the embedding of
    speaker p. The paper's graph is complete within a modality: that is ``graph.past: all`` and ``graph.future: all``.
    All else that gmsa has for graphs of dialogues holds too: reach, choice and dropout of edges. In a graph of one
    direction :math:`D_{ii}` sums the edges that end at i, so that it hears nothing later, and the LSTM reads forward
    alone. The layers are PyG's ``GCN2Conv`` (Chen et al.: Simple and Deep Graph Convolutional Networks, ICML 2020), as
    many as ``model.layers`` says, in scope ``hierarchical`` as ``model.context_layers``; the paper has 4.

    What differs from the paper: gmsa's encoders and embeddings, which know an utterance's place and its modality,
    before the LSTM; all layers of one width; the node of a missing modality is a learned token, from which its weights
    are computed; a norm is at least 1e-6, where the released code divides by zero; dialogues are packed, where in that
    code padding reaches the LSTM; gmsa's heads and losses in the place of what the code calls a focal loss, whose
    minimum is not at the right answer. Speakers have numbers within their dialogue, in the order in which they first
    speak, or those of the names that ``graph.speakers`` lists; in the paper's data they are the same in all dialogues.
    The node of ``graph.dialogue_node``, our extension, starts as a learned state, and its edges weigh :math:`\gamma`.

    The released code embeds speakers on text alone (``speaker=text``), has 64 layers whatever its option says
    (``model.layers: 64``) and other layers (``variant=released``), with two matrices each:

    .. math::
        H^l = \mathrm{ReLU} \big( \theta_l (P H^{l-1} W^1_l + H^0 W^2_l)
            + (1 - \theta_l) [(1 - \alpha) P H^{l-1} + \alpha H^0] \big)

    with :math:`W^1_l` kept as :math:`W^1_l / (1 - \alpha)` and :math:`W^2_l` as :math:`W^2_l / \alpha`, which changes
    the scale of what training starts from and nothing else.

    Args:
        dims (Mapping[str, int]): Feature dimension of each modality.
        variant (str, default "paper"): ``paper`` or ``released``: the form of the layers.
        gamma (float, default 1.0): Weight :math:`\gamma` of the edges between modalities; the released code has none.
        speaker (str, default "all"): Modalities that know the speaker: ``all``, ``text`` alone, or ``none``.
        speakers (int, default 9): Embeddings of speakers; all further ones of a dialogue have the last.
        recurrent (str, default "text"): Modalities with an LSTM over the dialogue: ``text``, ``all``, or ``none``.
        alpha (float, default 0.1): Share :math:`\alpha` of the first states in each layer.
        theta (float, default 0.5): The paper's :math:`\lambda`.
        **settings: those of :class:`~gmsa.models.Conversation`.

    Shapes:
        - batch of N utterances; output: intensity :math:`(N)`, logits :math:`(N, K)`, no gate

    Example:
        >>> from gmsa.config import GraphConfig
        >>> from gmsa.data import Utterance
        >>> from gmsa.graph import GraphSpec, collate
        >>> convs = {"text": [(3, 1)], "audio": [(4, 2)]}
        >>> model = MMGCN({"text": 6, "audio": 4}, channels=16, heads=2, convs=convs)
        >>> clips = [Utterance(f"a$_${i}", {"text": torch.randn(5, 6), "audio": torch.randn(9, 4)}) for i in range(3)]
        >>> graph = GraphConfig(scope="dialogue", past="all", future="all")
        >>> spec = GraphSpec(graph, convs=convs, streams=("global",), readouts=(), route="edge")
        >>> model(collate(clips, spec)).value.shape
        torch.Size([3])
    """

    @classmethod
    def seen_outside(cls, config: ModelConfig) -> tuple[str, ...]:
        return ("global",)

    @classmethod
    def hops(cls, config: Config) -> int | None:
        given = find_part(config.model.name, MODELS, "model.name")[1]
        numbered = given.get("speaker", "all") != "none" and not isinstance(config.graph.speakers, tuple)
        if numbered or given.get("recurrent", TEXT) != "none":
            return None  # a speaker's number depends on who spoke first
        is_outside = config.graph.scope == "hierarchical"
        # The last utterances within reach count by their degrees too, to which their own neighbors belong.
        return 1 + (config.model.context_layers if is_outside else config.model.layers)

    @classmethod
    def check(cls, config: Config) -> None:
        super().check(config)
        given = find_part(config.model.name, MODELS, "model.name")[1]
        if given.get("recurrent", TEXT) != "none":
            refuse_odd_channels(config)
        for name, low, high in (("gamma", 0, 1000), ("speakers", 1, 1000), ("alpha", 0, 1), ("theta", 0, 1000)):
            value = given.get(name, low)
            if not low <= value <= high:
                raise ConfigError(f"'{name}' of mmgcn must be from {low} to {high} (got {value})")
        if given.get("variant") == "released" and given.get("alpha") in (0, 1):
            raise ConfigError(
                f"'alpha' of mmgcn must be above 0 and below 1 with variant=released (got {given['alpha']})"
            )

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        variant: Literal["paper", "released"] = "paper",
        gamma: float = 1.0,
        speaker: Literal["all", "text", "none"] = "all",
        speakers: int = 9,
        recurrent: Literal["text", "all", "none"] = "text",
        alpha: float = 0.1,
        theta: float = 0.5,
        **settings: Any,
    ) -> None:
        super().__init__(dims, **settings)
        channels, count = self.channels, len(self.modalities)
        self.gamma = gamma
        self.spoken = [m for m in self.modalities if speaker == "all" or m == speaker]
        self.speaker = nn.Embedding(speakers, channels) if self.spoken else None
        read = [m for m in self.modalities if recurrent == "all" or m == recurrent]
        lstm = partial(DialogueLSTM, channels, channels, 2, self.rate, self.context.causal)
        self.lstms = ModuleDict({m: lstm() for m in read})
        types = self.embedding.schema if self.outside is None else self.embedding.outer_schema
        self.angular = AngularWeights(self.context.edge_types(types))
        self.enter = nn.Linear(channels, channels)
        self.convs = nn.ModuleList(
            GCN2Conv(channels, alpha, theta, layer=l, shared_weights=variant == "paper", normalize=False)
            for l in range(1, self.depth + 1)  # noqa: E741 - the paper's l
        )
        self.dropout = Dropout(self.rate)
        self.join = nn.Linear(2 * channels * count, channels)

    def describe_converse(self, config: Config) -> list[Row]:
        channels, rows = self.channels, []
        if read := [m for m in self.modalities if m in self.lstms]:
            note = f"{', '.join(read)}: 2 layers, {both_ways(config)}"
            note += "; other modalities pass by" if len(read) < len(self.modalities) else ""
            rows.append((Stage("Dialogue LSTM", note, (self.lstms,), "dialogue"),))
        if self.speaker is not None:
            note = f"{self.speaker.num_embeddings} embeddings, added to {', '.join(self.spoken)}"
            rows.append((Stage("Speakers", note, (self.speaker,), "dialogue"),))
        rows.append((Stage("Linear", f"{channels} → {channels}, ReLU", (self.enter,), "dialogue"),))
        note = f"{counted(len(self.convs), 'layer')}, a share of the first states in each; "
        note += "edges weigh by the angle of both states"
        grid = stream_grid(self, config, "dialogue", "global", typed=False)
        rows.append((Stage("global: GCN2Conv", note, (self.convs, self.angular), "dialogue", "GCN2Conv", grid),))
        note = "of each modality the states before and after the convolutions, side by side"
        return [*rows, (Stage("Join", note, (), "dialogue"),)]

    def converse(self, states: Mapping[str, Tensor], graph: GraphBatch) -> Tensor:
        rows = self.encode(states, graph)  # [M N, C], modality after modality
        first = rows.new_zeros(1, self.channels)
        if self.context.dialogue_node:
            start = self.embedding if self.outside is None else self.outside
            first = start.node_type[-1:].to(rows.dtype)
        x = torch.cat([first, rows]).index_select(0, graph.embedding_row)  # [V, C], in the order of the graphs' nodes
        h = self.convolve(x, *self.weights(x, graph))
        both = torch.cat([self.dropout(x), h], dim=1)
        back = both.new_zeros(1 + len(rows), both.shape[1]).index_copy(0, graph.embedding_row, both)[1:]
        return self.dropout(torch.cat(back.chunk(len(self.modalities)), dim=1)).relu()

    def encode(self, states: Mapping[str, Tensor], graph: GraphBatch) -> Tensor:
        """X: the states with what the LSTMs and the speakers say ``[M N, C]``."""
        x = {m: self.lstms[m](s, graph.sizes).to(s.dtype) if m in self.lstms else s for m, s in states.items()}
        if self.speaker is not None:
            assert graph.speakers is not None
            s = self.speaker(graph.speakers.clamp(max=self.speaker.num_embeddings - 1))
            x |= {m: x[m] + s for m in self.spoken}
        return torch.cat([x[m] for m in self.modalities])

    def weights(self, x: Tensor, graph: GraphBatch) -> tuple[Tensor, Tensor]:
        """The edges and P, the normalized weight of each."""
        edges = self.angular(x, graph.edges["global"])
        assert isinstance(edges, SparseEdges)
        assert edges.log_weight is not None
        source, target = edges.index
        weight = edges.log_weight.exp()
        across = graph.node_type[source] != graph.node_type[target]
        weight = torch.where(across, self.gamma * weight, weight)
        index, normalized = gcn_norm(edges.index, weight, len(x))
        return index, normalized

    def convolve(self, x: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """:math:`H^L` ``[V, C]``."""
        h0 = h = self.enter(self.dropout(x)).relu()
        for conv in self.convs:
            h = conv(self.dropout(h), h0, index, weight.to(h.dtype)).relu()
        return self.dropout(h)

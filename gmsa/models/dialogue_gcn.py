"""DialogueGCN: a recurrent encoder, a relational graph convolution over turns, and attention over the dialogue."""

# N utterances, E edges, M modalities, C channels, R relations, S speakers
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GraphConv
from torch_geometric.utils import softmax

from gmsa.config import Config
from gmsa.errors import ConfigError
from gmsa.graph import GraphBatch
from gmsa.models.conversation import Conversation, refuse_odd_channels
from gmsa.models.views.stages import Row, Stage, both_ways, counted, turn_grid
from gmsa.nn import DialogueLSTM, NodalAttention, WeightedRGCN


class DialogueGCN(Conversation):
    r"""DialogueGCN (Ghosal et al., EMNLP-IJCNLP 2019): speakers and order as relations of a graph over utterances.

    .. math::
        g_i &= \mathrm{BiLSTM}(x)_i & \text{sequential context} \\
        \alpha_{i \cdot} &= \operatorname{softmax}_{j \in N(i) \cup \{i\}} (g_i W_e \, g_j^\top)
            & \text{weights of edges} \\
        h^1_i &= \sigma \Big( \sum_r \sum_{j \in N_r(i)} \frac{\alpha_{ij}}{|N_r(i)|} \, g_j W_r
            + \alpha_{ii} \, g_i W_0 \Big) & \text{first layer} \\
        h^2_i &= \sigma \Big( \sum_{j \in N(i)} h^1_j U + h^1_i U_0 \Big) & \text{second layer} \\
        h_i &= [\, g_i \,\Vert\, h^2_i \,], \quad
        \beta_{i \cdot} = \operatorname{softmax}_j (h_i W_\beta \, h_j^\top), \quad
        \tilde h_i = \sum_j \beta_{ij} \, h_j & \text{nodal attention}

    N(i) are the other utterances within reach, ``graph.past`` before and ``graph.future`` after (10 in the paper). The
    relation r of an edge is the ordered pair of its speakers, as far as ``graph.speakers`` tells them apart, and
    whether the source is earlier: 2 S² in all. :math:`\sigma` is ReLU. :math:`x_i` joins the states of the
    utterance's modalities; the paper has text alone. g has C channels, :math:`h^1` and :math:`h^2` half of them, as in
    the paper.

    Faithful to the paper's formulas. The released code differs from them, and is not offered: its weights of edges
    compare a state with a vector of the other end's place, and sum to 1 over the targets of a source; it has no
    :math:`1 / |N_r(i)|` and no :math:`\sigma`, self-loops are edges of a relation, and the windows' past and future are
    swapped. Of it are ``bases`` and ``tanh``. Here padding of the LSTM reaches no answer. Where ``graph.future`` is 0
    the LSTM reads forward alone, and the nodal attention sees no later utterance (ours).

    Args:
        dims (Mapping[str, int]): Feature dimension of each modality.
        bases (int, default 0): Matrices of which the :math:`W_r` are sums (30 in the released code); with 0 each
            relation has its own.
        tanh (bool, default False): Whether the scores of the nodal attention pass a tanh, as in the released code.
        settings: Those of :class:`~gmsa.models.Conversation`. ``layers``, in scope ``hierarchical`` ``context_layers``,
            are those of the LSTM (2 in the paper).

    Shapes:
        - batch of N utterances; output: :class:`~gmsa.models.Output`

    Example:
        >>> from gmsa.config import GraphConfig
        >>> from gmsa.data import Utterance
        >>> from gmsa.graph import GraphSpec, collate
        >>> convs = {"text": [(3, 1)]}
        >>> spec = GraphSpec(GraphConfig(scope="dialogue"), convs=convs, streams=("utterance",))
        >>> clips = [Utterance(f"dialogue$_${i}", {"text": torch.randn(5, 6)}) for i in range(3)]
        >>> DialogueGCN({"text": 6}, channels=16, convs=convs)(collate(clips, spec)).logits.shape
        torch.Size([3, 7])
    """

    @classmethod
    def check(cls, config: Config) -> None:
        super().check(config)
        refuse_odd_channels(config)

    def __init__(self, dims: Mapping[str, int], *, bases: int = 0, tanh: bool = False, **settings: Any) -> None:
        super().__init__(dims, **settings)
        if bases < 0:
            raise ConfigError(f"'model.name: dialogue_gcn': 'bases' must be 0 or more (got {bases})")
        channels, half, causal = self.channels, (self.channels + 1) // 2, self.context.causal
        self.encoder = DialogueLSTM(len(self.modalities) * channels, channels, self.depth, self.rate, causal)
        self.edge_weight = nn.Linear(channels, channels, bias=False)  # W_e
        relations = len(self.context.turn_relations)
        self.first = WeightedRGCN(channels, half, relations, bases, bias=False)  # W_r and W_0
        self.second = GraphConv(half, half, bias=False)  # U and U_0
        self.nodal = NodalAttention(channels + half, tanh, causal)  # W_β
        self.join = nn.Linear(channels + half, channels)

    def describe_converse(self, config: Config) -> list[Row]:
        channels, half, grid = self.channels, (self.channels + 1) // 2, turn_grid(config)
        read = f"modalities side by side: {len(self.modalities) * channels} → {channels}"
        return [
            (
                Stage(
                    "Dialogue LSTM",
                    f"{read}, {counted(self.depth, 'layer')}, {both_ways(config)}",
                    (self.encoder,),
                    "dialogue",
                ),
            ),
            (Stage("Weights of edges", "attention over the utterances within reach", (self.edge_weight,), "dialogue"),),
            (
                Stage(
                    "utterance: RGCN",
                    f"{channels} → {half}, weighted edges, {counted(grid.relations, 'relation')}",
                    (self.first,),
                    "dialogue",
                    "RGCN",
                    grid,
                ),
            ),
            (
                Stage(
                    "utterance: GraphConv",
                    f"{half} → {half}, the same edges, all alike",
                    (self.second,),
                    "dialogue",
                    "GraphConv",
                ),
            ),
            (
                Stage(
                    "Nodal attention",
                    f"LSTM and graph side by side, {channels + half}, over the dialogue",
                    (self.nodal,),
                    "dialogue",
                ),
            ),
        ]

    def converse(self, states: Mapping[str, Tensor], graph: GraphBatch) -> Tensor:
        edges = graph.utterance_edges
        assert edges is not None
        assert edges.edge_type is not None
        g = self.encoder(torch.cat([*states.values()], dim=1), graph.sizes)
        source, target = edges.index
        score = (self.edge_weight(g).index_select(0, target) * g.index_select(0, source)).sum(1)
        alpha = softmax(score.float() if score.dtype in _HALF else score, target, num_nodes=len(g))
        is_self = source == target
        own = alpha.new_zeros(len(g)).index_add(0, target, alpha * is_self)
        relation = self.context.turn_relations_of(edges.edge_type)
        # An edge to itself stays in the list and sends nothing: how many there are is not known without waiting.
        h = self.first(g, edges.index, relation, alpha, own, sends=~is_self).relu()
        h = torch.cat([g, self.second(h, edges.index, (~is_self).to(h.dtype)).relu()], dim=1)
        found: Tensor = self.nodal(h, graph.sizes)
        return found


_HALF = (torch.float16, torch.bfloat16)

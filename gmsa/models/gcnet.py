"""GCNet: two graphs over the same utterances, one of their order and one of their speakers."""

# N utterances, E edges, M modalities, C channels, R relations, S speakers
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GraphConv

from gmsa.config import Config
from gmsa.graph import GraphBatch
from gmsa.models.conversation import Conversation, refuse_odd_channels
from gmsa.models.views.stages import Grid, Row, Stage, both_ways, counted, speaker_grid, time_grid
from gmsa.nn import DialogueLSTM, NodalAttention, WeightedRGCN


class GCNet(Conversation):
    r"""GCNet (Lian et al., TPAMI 2023): incomplete conversations, completed and understood by two graphs.

    .. math::
        g_i &= \mathrm{BiLSTM}([\, x_{i,1} \Vert \dots \Vert x_{i,M} \,])_i \\
        f^b_i &= \sum_{j \in N(i)} u^b_j W_1 + u^b_i W_2 + b', \qquad
        u^b_i = g_i W_{root} + b + \sum_{r \in R_b} \frac{1}{|N_r(i)|} \sum_{j \in N_r(i)} g_j W_r \\
        h^b_i &= \mathrm{ReLU}\big(\mathrm{BiLSTM}^b([\, g \,\Vert\, f^b \,])_i \, W_3 + b''\big), \qquad
        h_i = h^{temporal}_i + h^{speaker}_i

    N(i) are the utterances within reach and i itself, ``graph.past`` before and ``graph.future`` after (2 or 4 in the
    released code). Both branches b see all these edges, with weights of their own: ``temporal`` by its relations past,
    now and future, the place of the source seen from the target, and ``speaker`` by the ordered pairs of speakers that
    ``graph.speakers`` tells apart, S². g has C channels, u and f a quarter of them, and h 5/4, as in the released code.

    Its reconstruction of missing modalities is gmsa's: ``reconstruction.weight: 1`` with ``reconstruction.target:
    oracle`` learns the true features of modalities that ``data.missing`` masks (``eta`` is GCNet's way of masking),

    .. math::
        L_{rec} = \frac{1}{R} \sum_{(i, m)\ missing} \frac{1}{D_m} \lVert \hat x_{i,m} - x_{i,m} \rVert^2,

    over R pairs of an utterance and a modality that it lacks. GCNet divides by the number of utterances instead, so
    that its term grows with the rate of missing ones, and compares features as they are, where gmsa standardizes them.
    A linear map predicts them there, an MLP here.

    Faithful to the released code; the paper's equations were not read again. What differs: windows are seen from the
    target, which the released code swaps; its relations are numbered by the order of a set, which another process
    changes, here they have a fixed order; a missing modality is a learned token, not zeros; padding of the LSTMs
    reaches no answer; masks of validation and test are drawn once. Where ``graph.future`` is 0 the LSTMs read forward
    alone (ours).

    Args:
        dims (Mapping[str, int]): Feature dimension of each modality.
        time_attention (bool, default False): Whether DialogueGCN's attention over the dialogue, with its tanh, follows
            the LSTM of each branch.
        settings: Those of :class:`~gmsa.models.Conversation`. ``layers``, in scope ``hierarchical`` ``context_layers``,
            are those of the LSTMs (2 in the released code).

    Shapes:
        - batch of N utterances; output: :class:`~gmsa.models.Output`

    Example:
        >>> from gmsa.config import GraphConfig
        >>> from gmsa.data import Utterance
        >>> from gmsa.graph import GraphSpec, collate
        >>> convs = {"text": [(3, 1)]}
        >>> spec = GraphSpec(GraphConfig(scope="dialogue"), convs=convs, streams=("utterance",))
        >>> clips = [Utterance(f"dialogue$_${i}", {"text": torch.randn(5, 6)}) for i in range(3)]
        >>> GCNet({"text": 6}, channels=16, convs=convs)(collate(clips, spec)).logits.shape
        torch.Size([3, 7])
    """

    @classmethod
    def check(cls, config: Config) -> None:
        super().check(config)
        refuse_odd_channels(config)

    def __init__(self, dims: Mapping[str, int], *, time_attention: bool = False, **settings: Any) -> None:
        super().__init__(dims, **settings)
        channels, causal = self.channels, self.context.causal
        self.encoder = DialogueLSTM(len(self.modalities) * channels, channels, self.depth, self.rate, causal)

        def branch(relations: int) -> Branch:
            return Branch(channels, relations, self.depth, self.rate, causal, time_attention)

        self.temporal, self.speaker = branch(3), branch(self.context.speaker_types)
        self.join = nn.Linear(self.temporal.width, channels)

    def describe_converse(self, config: Config) -> list[Row]:
        channels, layers = self.channels, f"{counted(self.depth, 'layer')}, {both_ways(config)}"
        read = f"modalities side by side: {len(self.modalities) * channels} → {channels}, {layers}"
        both = [self.temporal.stages("temporal", layers, time_grid())]
        both.append(self.speaker.stages("speaker", layers, speaker_grid(config)))
        return [
            (Stage("Dialogue LSTM", read, (self.encoder,), "dialogue"),),
            *zip(*both, strict=True),
            (Stage("Sum", "of both branches", (), "dialogue"),),
        ]

    def converse(self, states: Mapping[str, Tensor], graph: GraphBatch) -> Tensor:
        edges, context = graph.utterance_edges, self.context
        assert edges is not None
        assert edges.edge_type is not None
        g = self.encoder(torch.cat([*states.values()], dim=1), graph.sizes)
        time = context.distances_of(edges.edge_type).sign() + 1  # past, now, future
        temporal: Tensor = self.temporal(g, edges.index, time, graph.sizes)
        speaker: Tensor = self.speaker(g, edges.index, context.speakers_of(edges.edge_type), graph.sizes)
        return temporal + speaker


class Branch(nn.Module):
    """One graph of GCNet: convolutions along edges of R relations, then a recurrent layer over the dialogue.

    Args:
        channels (int): Width C.
        relations (int): Number R.
        layers (int): Layers of the LSTM.
        dropout (float): Dropout between these.
        causal (bool): Whether no utterance hears a later one.
        time_attention (bool): Whether attention over the dialogue follows.

    Shapes:
        - g :math:`(N, C)`, index :math:`(2, E)`, relation :math:`(E)`, sizes of the dialogues; output
          :math:`(N, C + C/4)`
    """

    def __init__(
        self, channels: int, relations: int, layers: int, dropout: float, causal: bool, time_attention: bool
    ) -> None:
        super().__init__()
        quarter = max(1, channels // 4)
        self.width = channels + quarter
        self.rgcn = WeightedRGCN(channels, quarter, relations)
        self.conv = GraphConv(quarter, quarter)
        self.lstm = DialogueLSTM(self.width, 2 * self.width, layers, dropout, causal)
        self.attention = NodalAttention(2 * self.width, tanh=True, causal=causal) if time_attention else None
        self.out = nn.Linear(2 * self.width, self.width)

    def stages(self, name: str, layers: str, grid: Grid) -> list[Stage]:
        """The stages of the branch of this name."""
        quarter, width = self.conv.out_channels, self.width
        note = f"{width - quarter} → {quarter}, {counted(grid.relations, 'relation')}"
        found = [Stage(f"{name}: RGCN", note, (self.rgcn,), "dialogue", "RGCN", grid)]
        found.append(
            Stage(
                "GraphConv", f"{quarter} → {quarter}, the same edges, all alike", (self.conv,), "dialogue", "GraphConv"
            )
        )
        note = f"LSTM and graph side by side: {width} → {2 * width}, {layers}"
        found.append(Stage("Dialogue LSTM", note, (self.lstm,), "dialogue"))
        if self.attention is not None:
            found.append(Stage("Nodal attention", f"{2 * width}, over the dialogue", (self.attention,), "dialogue"))
        return [*found, Stage("Linear", f"{2 * width} → {width}, ReLU", (self.out,), "dialogue")]

    def forward(self, g: Tensor, index: Tensor, relation: Tensor, sizes: Sequence[int]) -> Tensor:
        f = self.conv(self.rgcn(g, index, relation), index)
        h = self.lstm(torch.cat([g, f], dim=1), sizes)
        h = h if self.attention is None else self.attention(h, sizes)
        found: Tensor = self.out(h).relu()
        return found

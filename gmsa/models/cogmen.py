"""COGMEN: a transformer over the dialogue, then a relational graph convolution and attention along the same edges."""

# N utterances, M modalities, C channels, H heads, S speakers
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import TransformerConv

from gmsa.config import Config
from gmsa.errors import ConfigError
from gmsa.graph import GraphBatch
from gmsa.models.conversation import Conversation
from gmsa.models.views.stages import Row, Stage, counted, turn_grid
from gmsa.nn import DialogueTransformer
from gmsa.nn.layers.rgcn import RGCN

Norm = Literal["batch", "layer", "none"]
"""What brings the states of utterances to one scale."""


class COGMEN(Conversation):
    r"""COGMEN (Joshi et al., NAACL 2022): modalities fused early, global context by attention, local by a graph.

    .. math::
        g_i &= \mathrm{Transformer}([\, x_{i,1} \Vert \dots \Vert x_{i,M} \,]) \, W & \text{global context} \\
        z_i &= g_i W_{root} + b + \sum_r \frac{1}{|N_r(i)|} \sum_{j \in N_r(i)} g_j W_r & \text{RGCN} \\
        a_{i \cdot} &= \operatorname{softmax}_{j \in N(i)} \frac{(z_i W_q)(z_j W_k)^\top}{\sqrt{D}}, \qquad
        o_i = z_i W_s + \sum_{j \in N(i)} a_{ij} \, z_j W_v & \text{graph transformer} \\
        h_i &= \mathrm{LeakyReLU}(\mathrm{BN}(o_i))

    N(i) are the utterances within reach and i itself, ``graph.past`` before and ``graph.future`` after (5 in the
    released code). The relation r of an edge is the ordered pair of its speakers, as far as ``graph.speakers`` tells
    them apart, and whether the source is earlier: 2 S² in all, and i is not earlier than itself. The graph transformer
    sees the same edges, but not their relations; its heads, of C channels each, are concatenated.

    Faithful to the released code, whose two formulas are the paper's (recalled, not read again). What differs: windows
    are seen from the target, which the released code swaps; padding of the encoder is masked; a missing modality is a
    learned token, not zeros; the batch norm of a single utterance takes the running statistics, where it would fail.
    In training it joins the dialogues of a batch, later utterances too; ``norm=layer`` and ``norm=none`` do not. Where
    ``graph.future`` is 0 the encoder is masked so that no utterance hears a later one (ours).

    Args:
        dims (Mapping[str, int]): Feature dimension of each modality.
        feedforward (int, default 2048): Width of the encoder's feed-forward layers.
        graph_heads (int, default 1): Heads H of the graph transformer.
        norm (str, default "batch"): Norm after it: ``batch``, ``layer`` or ``none``.
        concat (bool, default False): Whether g is joined to h, an option of the released code.
        settings: Those of :class:`~gmsa.models.Conversation`. ``layers``, in scope ``hierarchical`` ``context_layers``,
            are those of the encoder (2 in the released code), and ``heads`` its heads.

    Shapes:
        - batch of N utterances; output: :class:`~gmsa.models.Output`

    Example:
        >>> from gmsa.config import GraphConfig
        >>> from gmsa.data import Utterance
        >>> from gmsa.graph import GraphSpec, collate
        >>> convs = {"text": [(3, 1)]}
        >>> spec = GraphSpec(GraphConfig(scope="dialogue"), convs=convs, streams=("utterance",))
        >>> clips = [Utterance(f"dialogue$_${i}", {"text": torch.randn(5, 6)}) for i in range(3)]
        >>> COGMEN({"text": 6}, channels=16, convs=convs)(collate(clips, spec)).logits.shape
        torch.Size([3, 7])
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        feedforward: int = 2048,
        graph_heads: int = 1,
        norm: Norm = "batch",
        concat: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(dims, **settings)
        for name, value in (("feedforward", feedforward), ("graph_heads", graph_heads)):
            if value < 1:
                raise ConfigError(f"'model.name: cogmen': '{name}' must be 1 or more (got {value})")
        channels, inputs = self.channels, len(self.modalities) * self.channels
        self.encoder = DialogueTransformer(
            inputs, channels, self.num_heads, self.depth, feedforward, self.rate, self.context.causal
        )
        self.rgcn = RGCN(channels, self.context.turn_relations)
        self.attention = TransformerConv(channels, channels, heads=graph_heads)
        width = channels * graph_heads
        norms = {"batch": BatchNorm, "layer": nn.LayerNorm, "none": nn.Identity}
        self.norm = norms[norm](width)
        self.concat = concat
        self.join = nn.Linear(width + channels if concat else width, channels)

    def describe_converse(self, config: Config) -> list[Row]:
        channels, grid = self.channels, turn_grid(config)
        read = f"modalities side by side: {len(self.modalities) * channels} → {channels}"
        layers, heads = counted(self.depth, "layer"), counted(self.num_heads, "head")
        relations = counted(grid.relations, "relation")
        attention = f"{counted(self.attention.heads, 'head')}, the same edges, all alike"
        rows: list[Row] = [
            (Stage("Dialogue transformer", f"{read}, {layers}, {heads}", (self.encoder,), "dialogue"),),
            (
                Stage(
                    "utterance: RGCN", f"{channels} → {channels}, {relations}", (self.rgcn,), "dialogue", "RGCN", grid
                ),
            ),
            (Stage("utterance: TransformerConv", attention, (self.attention,), "dialogue", "TransformerConv"),),
        ]
        if not isinstance(self.norm, nn.Identity):
            rows.append((Stage(type(self.norm).__name__, "and LeakyReLU", (self.norm,), "dialogue"),))
        return rows

    def converse(self, states: Mapping[str, Tensor], graph: GraphBatch) -> Tensor:
        edges = graph.utterance_edges
        assert edges is not None
        assert edges.edge_type is not None
        g = self.encoder(torch.cat([*states.values()], dim=1), graph.sizes)
        z = self.rgcn(g, replace(edges, relation=self.context.turn_relations_of(edges.edge_type)))
        h = F.leaky_relu(self.norm(self.attention(z, edges.index)))
        return torch.cat([h, g], dim=1) if self.concat else h


class BatchNorm(nn.BatchNorm1d):
    """Batch norm that takes the running statistics of a single row, of which there is no variance.

    >>> BatchNorm(2)(torch.ones(1, 2)).shape
    torch.Size([1, 2])
    """

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1 or not self.training:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

"""GraphGPS: messages along edges beside attention over the whole graph."""

# G graphs of up to T nodes, V nodes, W receivers, E edges, C channels, H heads
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gmsa.errors import ConfigError
from gmsa.nn.attention_weights import AttentionWeights
from gmsa.nn.dropout import Dropout
from gmsa.nn.edges import DenseEdges, Edges, SparseEdges
from gmsa.nn.layers.attention import Interaction
from gmsa.nn.layers.make import make_layer
from gmsa.nn.layers.pyg import PygLayer, width_of_head
from gmsa.nn.relations import Relations
from gmsa.registry import LAYERS


class GPS(PygLayer):
    r"""A layer of messages along edges, and beside it attention to all nodes of the graph.

    .. math::
        y &= \mathrm{LN}(x + \mathrm{Local}(x)) + \mathrm{LN}(x + \mathrm{Attention}(x)) \\
        z &= \mathrm{LN}(y + \mathrm{ReLU}(y W_1 + b_1) W_2 + b_2)

    The form of PyG's ``GPSConv`` (Rampášek et al.: Recipe for a General, Powerful, Scalable Graph Transformer, NeurIPS
    2022), with a norm of each node by itself, so that no graph depends on the others of its batch, and with attention
    by gmsa's dense route (:class:`~gmsa.nn.Interaction`), which can compute some nodes alone. The attention is to all
    nodes of a graph whatever the edges of the stream, in graphs of dialogues to all utterances. It needs positions:
    those of the embedding.

    Args:
        channels (int): Width C.
        heads (int): Attention heads; must divide ``channels``.
        relations (Relations): The stream's relations.
        local (str, default "sage"): The layer of messages along edges, by its name in ``LAYERS``, with its defaults.
        dropout (float, default 0.0): Dropout after each of the three parts.

    Shapes:
        - x :math:`(V, C)`, the receivers in the order of their graphs; output :math:`(W, C)`

    Example:
        >>> import torch
        >>> relations = Relations(("text",), (("text", "intra", "text"),))
        >>> index, zeros = torch.tensor([[0, 1, 2], [1, 1, 0]]), torch.zeros(3, dtype=torch.long)
        >>> edges = SparseEdges(index, relation=zeros, graph=zeros)  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> GPS(channels=8, heads=2, relations=relations)(torch.randn(3, 8), edges).shape
        torch.Size([3, 8])
    """

    sees_graph = True

    def __init__(
        self, channels: int, heads: int, relations: Relations, local: str = "sage", dropout: float = 0.0
    ) -> None:
        super().__init__()
        width_of_head(channels, heads)
        if not 0 <= dropout < 1:
            raise ConfigError(f"'model.layer: gps': 'dropout' must be at least 0 and below 1 (got {dropout})")
        LAYERS.check(local, "model.layer: local")
        part = LAYERS[local]
        if getattr(part, "route", "edge") != "edge" or not getattr(part, "takes_receivers", True) or local == "gps":
            raise ConfigError(
                f"'model.layer: gps': 'local' must be a layer of messages along edges to some nodes alone, such as "
                f"sage, gatv2 or rgcn (got {local})"
            )
        self.local = make_layer(part, channels=channels, heads=heads, edge_types=0, relations=relations, number=1)
        self.attention = Interaction(channels, heads)
        self.norm_local, self.norm_attention, self.norm_out = (nn.LayerNorm(channels) for _ in range(3))
        self.dropout = Dropout(dropout)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.ReLU(), Dropout(dropout), nn.Linear(2 * channels, channels)
        )

    def forward(
        self, x: Tensor, edges: Edges, receivers: Tensor | None = None, source_log_weight: Tensor | None = None
    ) -> Tensor:
        target = x if receivers is None else x.index_select(0, receivers)
        everything = self._everything(edges, receivers)
        local = self.local(x, edges, receivers, source_log_weight)
        attended = self.attention(x, everything, receivers, source_log_weight)
        y = self.norm_local(target + self.dropout(local)) + self.norm_attention(target + self.dropout(attended))
        found: Tensor = self.norm_out(y + self.dropout(self.mlp(y)))
        return found.to(x.dtype)

    def attention_weights(
        self,
        x: Tensor,
        edges: Edges,
        receivers: Tensor | None = None,
        source_log_weight: Tensor | None = None,
        **others: Any,
    ) -> AttentionWeights:
        """The weights of the attention to the whole graph; those of the local layer are its own."""
        everything = self._everything(edges, receivers)
        found = self.attention.attention_weights(x, everything, receivers, source_log_weight)
        return found._replace(meaning="softmax over all nodes of the graph, whatever its edges")

    def _everything(self, edges: Edges, receivers: Tensor | None) -> DenseEdges:
        assert isinstance(edges, SparseEdges), "layers of PyG take lists of edges"
        assert edges.graph is not None
        of_target = edges.graph if receivers is None else edges.graph.index_select(0, receivers)
        return whole_graphs(edges.graph, of_target, edges.silent)


def whole_graphs(of_source: Tensor, of_target: Tensor, silent: Tensor | None = None) -> DenseEdges:
    """Edges from every node of a graph, but the silent ones, to all of its receivers.

    Shapes:
        - of_source :math:`(V)` and of_target :math:`(W)`, the number of each node's graph, ascending
    """
    graphs = int(of_source[-1]) + 1 if len(of_source) else 1  # padded to one, as each graph is to one node
    sizes = [torch.bincount(graph, minlength=graphs) for graph in (of_target, of_source)]
    rows, nodes = (max(1, int(size.max())) for size in sizes)
    index = [
        graph * most + torch.arange(len(graph), device=graph.device) - (size.cumsum(0) - size)[graph]
        for graph, size, most in zip((of_target, of_source), sizes, (rows, nodes), strict=True)
    ]
    sends = torch.ones_like(of_source, dtype=torch.bool) if silent is None else ~silent
    there = sends.new_zeros(graphs * nodes).index_copy(0, index[1], sends).view(graphs, nodes)
    return DenseEdges(there[:, None].expand(-1, rows, -1), index[1], index[0])

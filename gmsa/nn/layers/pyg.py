"""PyG's layers behind the face of gmsa's."""

# V nodes, W receivers, E edges, C channels
from __future__ import annotations

from torch import Tensor, nn

from gmsa.nn.edges import Edges, SparseEdges


class PygLayer(nn.Module):
    """Base of layers that wrap one of PyG's: it takes lists of edges, with the relation of each.

    A source of weight s (``source_log_weight`` is its logarithm) sends s times its state: what a layer without weights
    of edges can do for a source that shall count less.

    Shapes:
        - x :math:`(V, C)`, edges to receivers :math:`(W)`, all nodes by default; output :math:`(W, C)`
    """

    route = "edge"
    takes_relations = True
    takes_receivers = True
    """Whether it can compute some nodes alone, from the edges that end there."""

    def forward(
        self, x: Tensor, edges: Edges, receivers: Tensor | None = None, source_log_weight: Tensor | None = None
    ) -> Tensor:
        assert isinstance(edges, SparseEdges), "layers of PyG take lists of edges"
        source = x if source_log_weight is None else x * source_log_weight.exp()[:, None].to(x.dtype)
        return self.messages(source, x if receivers is None else x.index_select(0, receivers), edges).to(x.dtype)

    def messages(self, source: Tensor, target: Tensor, edges: SparseEdges) -> Tensor:
        """The new states ``[W, C]`` from those of all nodes ``[V, C]`` and of the receivers ``[W, C]``."""
        raise NotImplementedError

"""PyG's graph convolution with an initial residual and an identity map."""

# V nodes, W receivers, E edges, C channels
from __future__ import annotations

from torch import Tensor
from torch_geometric.nn import GCN2Conv

from gmsa.errors import ConfigError
from gmsa.nn.edges import Edges, SparseEdges
from gmsa.nn.layers.pyg import PygLayer


class GCN2(PygLayer):
    r"""A convolution that stays deep: each layer mixes the states before the first one in, and maps little.

    .. math::
        y_i = [(1 - \theta_l) I + \theta_l W^\top] \Big( (1 - \alpha) \sum_{j \to i} \frac{a_{ij}}{\sqrt{d_i d_j}} x_j
            + \alpha x^0_i \Big), \qquad d_i = \sum_{j \to i} a_{ij}, \qquad
        \theta_l = \ln \Big( \frac{\theta}{l} + 1 \Big)

    PyG's ``GCN2Conv`` (Chen et al.: Simple and Deep Graph Convolutional Networks, ICML 2020), which MMGCN stacks.
    :math:`a_{ij}` is an edge's weight, times that of its source. A node without an edge to itself gets one of weight 1.
    With one set of weights for all layers of a stack (``model.shared_layers``) all of them are number l = 1.

    Args:
        channels (int): Width C.
        alpha (float, default 0.1): How much of each state are the states before the first layer.
        theta (float, default 0.5): How much the first layer maps; layer l maps about a l-th of it.
        number (int, default 1): Number l of the layer in its stack.

    Shapes:
        - x :math:`(V, C)`; initial :math:`(V, C)`, the states before the first layer of the stack, by default x;
          output :math:`(W, C)`
        - edges among all nodes, also where some alone are receivers: degrees need them

    Example:
        >>> import torch
        >>> edges = SparseEdges(torch.tensor([[0, 1, 2], [1, 1, 0]]))  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> GCN2(channels=8)(torch.randn(3, 8), edges).shape
        torch.Size([3, 8])
    """

    takes_relations = False
    takes_receivers = False
    takes_weights = True
    counts_degrees = True
    """Whether what a node sends depends on the edges that end there."""
    takes_initial = True

    def __init__(self, channels: int, alpha: float = 0.1, theta: float = 0.5, number: int = 1) -> None:
        super().__init__()
        if not (0 <= alpha <= 1 and 0 < theta <= 1000):
            raise ConfigError(
                "'model.layer: gcn2': 'alpha' must be from 0 to 1, and 'theta' above 0 and at most 1000 (got "
                f"{alpha:g} and {theta:g})"
            )
        self.conv = GCN2Conv(channels, alpha, theta, number)

    def forward(
        self,
        x: Tensor,
        edges: Edges,
        receivers: Tensor | None = None,
        source_log_weight: Tensor | None = None,
        initial: Tensor | None = None,
    ) -> Tensor:
        assert isinstance(edges, SparseEdges), "layers of PyG take lists of edges"
        log_weight = edges.log_weight
        if source_log_weight is not None:
            of_source = source_log_weight.index_select(0, edges.index[0])
            log_weight = of_source if log_weight is None else log_weight + of_source
        weight = None if log_weight is None else log_weight.exp().to(x.dtype)
        start = x if initial is None else initial.to(x.dtype)
        found: Tensor = self.conv(x, start, edges.index, weight).to(x.dtype)
        return found if receivers is None else found.index_select(0, receivers)

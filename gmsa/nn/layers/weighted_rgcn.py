"""A relational graph convolution that takes weights of edges."""

# V nodes, E edges, R relations, B bases, C channels of the sources and D of the targets
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn.inits import glorot
from torch_geometric.utils import scatter


class WeightedRGCN(nn.Module):
    r"""A linear map for each relation, averaged over its edges, each times its weight.

    .. math::
        y_i = \rho_i \, x_i W_0 + b + \sum_r \frac{1}{|N_r(i)|} \sum_{j \in N_r(i)} \alpha_{ij} \, x_j W_r, \qquad
        W_r = \sum_{k=1}^{B} a_{rk} V_k \quad \text{with bases}

    Without weights it is PyG's ``RGCNConv``, which takes none (Schlichtkrull et al.: Modeling Relational Data with
    Graph Convolutional Networks, ESWC 2018). The sources of each relation are summed first and all are then mapped by
    one product: no matrix per edge is made.

    Args:
        inputs (int): Width C.
        outputs (int): Width D.
        relations (int): Number R.
        bases (int, default 0): Matrices B of which those of the relations are sums; with 0 each has its own.
        bias (bool, default True): Whether there is b.

    Shapes:
        - x :math:`(V, C)`, index :math:`(2, E)`, relation :math:`(E)`, weight :math:`(E)`, root_weight :math:`(V)`,
          sends :math:`(E)` which edges count, all of them by default; output :math:`(V, D)`

    Example:
        >>> index = torch.tensor([[0, 1, 2], [1, 1, 0]])  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> layer = WeightedRGCN(inputs=8, outputs=4, relations=2)
        >>> layer(torch.randn(3, 8), index, torch.tensor([0, 1, 0]), torch.tensor([0.3, 0.7, 1.0])).shape
        torch.Size([3, 4])
    """

    def __init__(self, inputs: int, outputs: int, relations: int, bases: int = 0, bias: bool = True) -> None:
        super().__init__()
        self.relations = relations
        self.weight = nn.Parameter(torch.empty(bases or relations, inputs, outputs))
        self.coefficients = nn.Parameter(torch.empty(relations, bases)) if bases else None
        self.root = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        for parameter in (self.weight, self.coefficients, self.root):
            glorot(parameter)

    def forward(
        self,
        x: Tensor,
        index: Tensor,
        relation: Tensor,
        weight: Tensor | None = None,
        root_weight: Tensor | None = None,
        sends: Tensor | None = None,
    ) -> Tensor:
        source, target = index
        groups = len(x) * self.relations
        group = target * self.relations + relation
        if sends is not None:
            group = torch.where(sends, group, groups)  # one more, which is left out
        count = scatter(torch.ones_like(group), group, dim_size=groups + 1)
        share = count[group].to(x.dtype).reciprocal()
        share = share if weight is None else share * weight
        sums = scatter(x.index_select(0, source) * share[:, None], group, dim_size=groups + 1)[:-1]
        maps: Tensor = self.weight
        if self.coefficients is not None:
            maps = torch.einsum("rb,bcd->rcd", self.coefficients, maps)
        own = x @ self.root
        y = (own if root_weight is None else own * root_weight[:, None]) + sums.view(len(x), -1) @ maps.flatten(0, 1)
        return y if self.bias is None else y + self.bias

"""Define a layer and an edge builder, and compare them with the built-in ones.

A registered part is used by its name, like a built-in one, and its parameters come from its signature. You see a table
of four settings on the synthetic corpus, the best on the validation split first, with intervals for the differences
to the reference. A minute on a CPU.
"""

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

import gmsa


@gmsa.LAYERS.register("mean")
class MeanLayer(nn.Module):
    """A linear map of the mean over each receiver's sources."""

    route = "edge"  # it takes edges as a list, not as an adjacency

    def __init__(self, channels: int, heads: int, edge_types: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.scale = scale

    def forward(self, x: Tensor, edges, receivers: Tensor | None = None, source_log_weight=None) -> Tensor:
        """States of V nodes [V, C] to messages for W receivers [W, C]; all nodes receive where none are named."""
        source, receiver = edges.index
        count = len(x) if receivers is None else len(receivers)
        return self.scale * scatter(self.linear(x)[source], receiver, dim_size=count, reduce="mean")


@gmsa.EDGE_BUILDERS.register("causal")
def causal(source_length: int, target_length: int, reach: int = 2) -> Tensor:
    """Connects each step with itself and the `reach` steps before it. Returns edge_index [2, E]."""
    distance = torch.arange(target_length)[:, None] - torch.arange(source_length)[None, :]
    target, source = ((distance >= 0) & (distance <= reach)).nonzero(as_tuple=True)
    return torch.stack([source, target])


if __name__ == "__main__":  # each training has a process of its own, which imports this file for its parts
    table = gmsa.compare(
        "synthetic",
        vary={"model.layer": ["attention", "mean(scale=0.5)"], "graph.intra": ["complete", "causal(reach=3)"]},
        overrides={"protocol.name": "supervised"},
        plugins=["own_parts"],
        jobs=2,
        out="runs/own-parts",
    )
    print("Best on the validation split:", table.chosen)

"""A plug-in with a part of every kind, as a user would write it: tests copy it out of the project, or install it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from gmsa.graph import GraphBatch
from gmsa.metrics import metric
from gmsa.models import Embedding, Model, Output
from gmsa.nn import Heads, SparseEdges
from gmsa.registry import CALLBACKS, EDGE_BUILDERS, LAYERS, METRICS, MODELS, PROTOCOLS
from gmsa.training.callbacks import Callback
from gmsa.training.protocols import Protocol


@EDGE_BUILDERS.register()
def previous(source_length: int, target_length: int, reach: int = 1) -> Tensor:
    """Joins each step with itself and the ``reach`` steps before it. Returns edge_index [2, E]."""
    target, source = torch.arange(target_length)[:, None], torch.arange(source_length)[None, :]
    joined = (source <= target) & (target - source <= reach)
    return joined.nonzero().T.flip(0).contiguous()


@LAYERS.register("mean")
class MeanLayer(nn.Module):
    """Means over neighbours."""

    route = "edge"

    def __init__(self, channels: int, heads: int, edge_types: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(channels, channels), scale

    def forward(
        self, x: Tensor, edges: SparseEdges, receivers: Tensor | None = None, source_log_weight: Tensor | None = None
    ) -> Tensor:
        """Averages over the sources of each receiver's edges: x [V, C] to [W, C]."""
        size = len(x) if receivers is None else len(receivers)
        source, target = edges.index
        return self.scale * scatter(self.linear(x)[source], target, dim_size=size, reduce="mean")


@MODELS.register("bag")
class Bag(Model):
    """A mean over all tokens of an utterance."""

    def __init__(self, dims: dict[str, int], *, channels: int = 128, positions: int = 512, depth: int = 1) -> None:
        super().__init__()
        self.embedding = Embedding(dims, channels=channels, positions=positions)
        layers = [part for _ in range(depth) for part in (nn.Linear(channels, channels), nn.ReLU())]
        self.mix = nn.Sequential(*layers)
        self.heads = Heads(channels, 7)

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """The mixed embeddings."""
        return self.mix(z0)

    def forward(self, batch: GraphBatch) -> Output:
        val, cls = batch.readout(self.nodes(self.embedding(batch), batch))
        value, logits = self.heads(val, cls)
        return Output(value, logits, None, val)


@PROTOCOLS.register("twice")
class Twice(Protocol):
    """Trains on the strongest labels first, then on all."""

    def __init__(self, least: float = 1.0) -> None:
        self.least = least

    def stages(self, config: object) -> int:
        """Two."""
        return 2

    def __call__(self, trainer, data) -> nn.Module:
        strong = [example for example in data.labeled if abs(example.value) >= self.least]
        model = trainer.train_stage("strong", strong)
        return trainer.train_stage("all", data.labeled, start=model)


@METRICS.register("within")
@metric(higher_is_better=True)
def within(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Share of predictions that are at most 1 away from the truth."""
    return float((np.abs(prediction - truth) <= 1).mean())


@CALLBACKS.register("ticks")
class Ticks(Callback):
    """Appends a line per epoch to a file."""

    def __init__(self, file: str = "ticks.txt") -> None:
        self.file = Path(file)

    def on_epoch_end(self, row, epochs) -> None:
        """Writes stage and epoch."""
        with self.file.open("a") as file:
            file.write(f"{row['stage']} {row['epoch']}/{epochs}\n")

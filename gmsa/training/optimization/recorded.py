"""Training steps recorded as CUDA graphs, which a GPU replays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gmsa.config import Config
from gmsa.errors import RunError, cut
from gmsa.graph import GraphBatch
from gmsa.graph.kept import wanted_edges
from gmsa.models import graph_spec
from gmsa.models.parts import find_part
from gmsa.nn import DenseEdges
from gmsa.registry import MODELS
from gmsa.training.prefetch import QUIET, tensors_of

Compute = Callable[[Any], Tensor]
"""The forward and the backward pass of a batch: it sets the gradients anew and returns the loss, without gradient."""
MOST = 64
"""Shapes that are recorded, at most: each keeps a copy of its batch and of the gradients on the GPU."""


def records_steps(config: Config, device: torch.device) -> bool:
    """Whether training steps on labels are recorded on this device, for batches that are rounded up to few shapes.

    That is where ``run.cuda_graphs`` asks for it, and the shapes of a batch alone decide what a step does: a model that
    says so (:attr:`~gmsa.models.Model.recordable`) with masked attention on graphs of utterances, whose edges no
    builder finds by content, and no loss but that on labels and pseudo-labels.
    """
    spec = graph_spec(config)
    return (
        config.run.cuda_graphs
        and device.type == "cuda"
        and not config.run.compile
        and config.graph.scope == "utterance"
        and spec.route != "edge"
        and not wanted_edges(spec.schema.token_relations, spec.schema, config.graph).by_content
        and vars(find_part(config.model.name, MODELS, "model.name")[0]).get("recordable", False)
        and config.model.encoder == "conv"
        and set(config.model.layer.values()) == {"attention"}
        and not config.trains_text_encoder
        and not (config.reconstruction.weight or config.loss.unimodal_weight)
    )


class StepRecorder:
    """Runs the passes of training steps, and records those of a shape of batch that comes again.

    A step has hundreds of kernels, whose launch costs the host more than what they compute takes a GPU. A CUDA graph
    launches them by one call, for batches of one shape and with the same memory each time. A shape is recorded the
    second time it comes, and replayed from then on, up to :data:`MOST` of them. Where operations are
    deterministic, a replayed pass gives the same bits as one that is run, dropout included.

    Args:
        parameters: the parameters whose gradients the passes set.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self._seen: set[Any] = set()
        self._recorded: dict[Any, _Recorded] = {}

    def __call__(self, compute: Compute, batch: Any) -> Tensor:
        """The loss of a batch, as ``compute`` gives it.

        Raises:
            RunError: the passes cannot be recorded.
        """
        shape = shape_of(batch)
        if shape in self._recorded:
            return self._recorded[shape].replay(batch, self.parameters)
        if shape is None or shape not in self._seen or len(self._recorded) == MOST:
            self._seen.add(shape)
            return compute(batch)
        try:
            self._recorded[shape] = self._record(compute, batch)
        except RuntimeError as error:
            raise RunError(
                f"a training step cannot be recorded as a CUDA graph ({cut(error)}); set 'run.cuda_graphs' to false"
            ) from error
        return self._recorded[shape].replay(batch, self.parameters)

    def _record(self, compute: Compute, batch: Any) -> _Recorded:
        own = batch[0].map(torch.clone), batch[1].map(torch.clone)  # what the graph reads, whatever comes
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self._recorded.values())).graph.pool() if self._recorded else None
        # The thread that builds batches goes on, but sends none meanwhile: recording empties the allocators' caches.
        with QUIET, torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            loss = compute(own)
        return _Recorded(graph, tensors_of(own), loss, [p.grad for p in self.parameters])


class _Recorded(NamedTuple):
    """The passes of a batch of one shape."""

    graph: Any
    tensors: list[Tensor]
    """Those of the batch that it reads."""
    loss: Tensor
    gradients: list[Tensor | None]

    def replay(self, batch: Any, parameters: Sequence[nn.Parameter]) -> Tensor:
        """The loss of another batch, whose gradients the parameters have then."""
        for own, given in zip(self.tensors, tensors_of(batch), strict=True):
            own.copy_(given, non_blocking=True)
        self.graph.replay()
        for parameter, gradient in zip(parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.loss.clone()  # the next replay overwrites it


def shape_of(batch: Any) -> Any:
    """All that a step of a recordable model reads of a batch on the host; None where its graphs have lists of edges."""
    graph: GraphBatch = batch[0]
    edges = [*graph.edges.values(), *graph.readout_edges.values()]
    if not all(isinstance(e, DenseEdges) for e in edges):
        return None
    return graph.shape, len(graph.sizes), tuple((x.shape, x.dtype) for x in tensors_of(batch))

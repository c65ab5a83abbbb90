"""The number that is explained, for any view of an utterance: an intensity, or the probability of one class."""

# R views (or copies of one), S models, K classes, L steps of a modality in a view, D features
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gmsa.config import Config
from gmsa.data import Target, Utterance
from gmsa.errors import RunError
from gmsa.explain.views import View
from gmsa.graph import GraphBatch, GraphSpec, collate
from gmsa.models import Embedding, Output, graph_spec
from gmsa.training.scoring import why_not_finite

MOST_PAIRS = 1 << 20
"""Pairs of nodes in a batch, about: attention takes memory by them."""
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Predictor:
    """The models of a run, one for each seed, asked for views of utterances."""

    models: Sequence[nn.Module]
    config: Config
    device: torch.device

    @property
    def target(self) -> Target:
        """What is predicted."""
        return Target.of(self.config.target)

    @property
    def spec(self) -> GraphSpec:
        """The graphs that the models take."""
        return graph_spec(self.config)

    def __call__(self, views: Sequence[View]) -> np.ndarray:
        """The intensity ``[S, R, 1]`` on the scale of the labels, or the probabilities of the classes ``[S, R, K]``.

        Raises:
            RunError: a prediction is not finite.
        """
        found = []
        for part in in_chunks(views, [pairs_of(view) for view in views]):
            batch, rows = self.batch(part)
            with torch.inference_mode():
                found.append(torch.stack([self.read(model(batch))[rows] for model in self.models]).cpu().double())
        values = torch.cat(found, dim=1).numpy()
        if not np.isfinite(values).all():
            raise RunError(why_not_finite(views[int(np.argwhere(~np.isfinite(values))[0][1])].own))
        return values

    def batch(self, views: Sequence[View]) -> tuple[GraphBatch, list[int]]:
        """The batch of all utterances of the views, and the row of each view's own."""
        rows: list[int] = []
        utterances: list[Utterance] = []
        for number, view in enumerate(views):
            rows.append(len(utterances) + view.place)
            if self.config.graph.has_dialogues:  # each view is a dialogue of its own
                utterances += [replace(u, of_video=f"{number}") for u in view.utterances]
            else:
                utterances += view.utterances
        return collate(utterances, self.spec).to(self.device), rows

    def read(self, output: Output) -> Tensor:
        """Of a model's output the intensities ``[N, 1]``, or the probabilities ``[N, K]``."""
        if output.value is None:
            return output.logits.softmax(-1)
        value: Tensor = self.target.from_model(output.value)
        return value[:, None]


@dataclass(frozen=True, eq=False)
class Score:
    """What is explained of an utterance: its intensity, or the probability of one class."""

    predictor: Predictor
    column: int
    """0, or the number of the class."""
    base: float
    """What is said of an utterance of which nothing is known."""

    @property
    def least(self) -> float:
        """A difference that does not count: a hundredth of the range."""
        target = self.predictor.target
        return 0.01 if target.is_classes else 0.01 * (target.high - target.low)

    def each(self, views: Sequence[View]) -> np.ndarray:
        """The scores of every model ``[S, R]``; the base where a view holds nothing."""
        there = [i for i, view in enumerate(views) if not view.is_empty]
        values = np.full((len(self.predictor.models), len(views)), self.base)
        if there:
            values[:, there] = self.predictor([views[i] for i in there])[:, :, self.column]
        return values

    def __call__(self, views: Sequence[View]) -> np.ndarray:
        """The scores ``[R]``: the mean over the models."""
        mean: np.ndarray = self.each(views).mean(0)
        return mean

    def features(self, model: nn.Module, view: View) -> dict[str, Tensor]:
        """What the gradient of a model is taken for: the features ``[L, D]`` of all utterances, in the graph's order.

        Of text that an encoder reads these are the states that it gives: numbers of word pieces have no gradient.
        """
        batch, _ = self.predictor.batch([view])
        embedding = _embedding(model)
        if embedding is None:
            return dict(batch.features)
        with torch.no_grad():
            return {m: embedding.features(batch, m).detach() for m in batch.features}

    def of_features(self, model: nn.Module, view: View, features: Mapping[str, Tensor]) -> Tensor:
        """The scores ``[R]`` of R copies of a view with other features ``[R, L, D]``; edges stay those of the view."""
        copies = len(next(iter(features.values())))
        batch, rows = self.predictor.batch([view] * copies)
        batch = replace(batch, features={m: x.flatten(0, 1) for m, x in features.items()})
        # cuDNN has no gradient of a recurrent network in evaluation mode.
        with _states_given(model), torch.backends.cudnn.flags(enabled=False):
            return self.predictor.read(model(batch))[rows, self.column]

    def blank(self, view: View) -> float:
        """The score where all features are 0: where they are normalized, the training split's mean."""
        found = []
        for model in self.predictor.models:
            zeros = {m: torch.zeros_like(x)[None] for m, x in self.features(model, view).items()}
            with torch.no_grad():
                found.append(float(self.of_features(model, view, zeros)))
        return float(np.mean(found))


def in_chunks(items: Sequence[T], sizes: Sequence[int], most: int = MOST_PAIRS) -> Iterator[list[T]]:
    """The items in their order, in parts whose sizes sum to ``most`` at most, or that have one item."""
    part: list[T] = []
    total = 0
    for item, size in zip(items, sizes, strict=True):
        if part and total + size > most:
            yield part
            part, total = [], 0
        part.append(item)
        total += size
    if part:
        yield part


def pairs_of(view: View) -> int:
    """Pairs of nodes of a view's graphs, about."""
    return sum((2 + u.steps) ** 2 for u in view.utterances)


def _embedding(model: nn.Module) -> Embedding | None:
    """The model's embedding; one of your own may have none of gmsa's."""
    found = getattr(model, "embedding", None)
    return found if isinstance(found, Embedding) else None


@contextmanager
def _states_given(model: nn.Module) -> Iterator[None]:
    """Until the block ends, the features of text are states, not what the model's text encoder reads."""
    embedding = _embedding(model)
    if embedding is None:
        yield
        return
    encoder = embedding.text_encoder
    embedding.text_encoder = None
    try:
        yield
    finally:
        embedding.text_encoder = encoder

"""Graphs for tests: of a whole config where gmsa takes a GraphSpec, and of modalities of any names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import gmsa.graph
from gmsa.config import Config
from gmsa.data import Utterance
from gmsa.graph import GraphBatch
from gmsa.models import MODELS, Conversation, graph_spec
from gmsa.rng import seed_for


def collate(utterances: Sequence[Utterance], config: Config, *rest: Any, **options: Any) -> GraphBatch:
    return gmsa.graph.collate(utterances, graph_spec(config), *rest, **options)


def scope_for(name: str) -> dict[str, str]:
    """Settings of the graphs that a model needs where a test has none of its own: models of conversations take no
    graphs of utterances alone."""
    return {"scope": "hierarchical"} if issubclass(MODELS[name.partition("(")[0]], Conversation) else {}


def check_positions(utterances: Sequence[Utterance], config: Config) -> None:
    gmsa.graph.check_positions(utterances, graph_spec(config))


def clip(name: str, dims: Mapping[str, int], lengths: Sequence[int], **fields: Any) -> Utterance:
    """An utterance with modalities of these names, dimensions and lengths; its features are drawn from its id."""
    draw = torch.Generator().manual_seed(seed_for(name))
    features = {m: torch.randn(n, d, generator=draw) for (m, d), n in zip(dims.items(), lengths, strict=True)}
    return Utterance(name, features, **fields)


def clips(dims: Mapping[str, int], count: int = 6, per_video: int = 2) -> list[Utterance]:
    """Utterances of several lengths, of which many lack modalities, and the last one all."""
    lengths = [[(3 * i + 5 * k) % 7 if (i + k) % 3 else 0 for k in range(len(dims))] for i in range(count - 1)]
    found = [*lengths, [0] * len(dims)]
    return [clip(f"v{i // per_video}$_${i}", dims, row, label=float(i % 3)) for i, row in enumerate(found)]

"""What takes a GraphSpec, for tests that have a whole config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gmsa.graph
from gmsa.config import Config
from gmsa.data import Utterance
from gmsa.graph import GraphBatch
from gmsa.models import graph_spec


def collate(utterances: Sequence[Utterance], config: Config, *rest: Any, **options: Any) -> GraphBatch:
    return gmsa.graph.collate(utterances, graph_spec(config), *rest, **options)


def check_positions(utterances: Sequence[Utterance], config: Config) -> None:
    gmsa.graph.check_positions(utterances, graph_spec(config))

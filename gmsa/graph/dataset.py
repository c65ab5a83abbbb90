"""A corpus as PyG's data set of graphs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from torch_geometric.data import Dataset, HeteroData

from gmsa.config import Config
from gmsa.config.components import component_name
from gmsa.data.utterance import Utterance
from gmsa.errors import ConfigError, DataError
from gmsa.graph.batch import check_positions, dialogues_of
from gmsa.graph.hetero.graphs import as_hetero
from gmsa.graph.spec import GraphSpec
from gmsa.registry import MODELS

Transform = Callable[[HeteroData], HeteroData]


class GraphDataset(Dataset):
    """Graphs of utterances, or in scopes of dialogues of dialogues, as :func:`as_dataset` makes them.

    A graph is built when it is asked for; with a ``pre_transform``, whose results are kept, once.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        spec: GraphSpec,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
    ) -> None:
        super().__init__(transform=transform, pre_transform=pre_transform)
        self.utterances, self.spec = utterances, spec
        self.groups = dialogues_of(utterances) if spec.graph.has_dialogues else [[i] for i in range(len(utterances))]
        """Indices of the utterances of each graph."""
        self._kept: dict[int, HeteroData] = {}

    def len(self) -> int:
        """Graphs of the whole data set."""
        return len(self.groups)

    def get(self, idx: int) -> HeteroData:
        """A graph before ``transform``."""
        if idx in self._kept:
            return copy.copy(self._kept[idx])
        data = as_hetero([self.utterances[i] for i in self.groups[idx]], self.spec)
        if self.pre_transform is not None:
            data = self._kept[idx] = self.pre_transform(data)
        return copy.copy(data)


def as_dataset(
    utterances: Sequence[Utterance],
    config: Config | GraphSpec,
    transform: Transform | None = None,
    pre_transform: Transform | None = None,
) -> GraphDataset:
    """Utterances, such as a split of a corpus, as PyG's data set of the graphs that a model takes.

    Each is what :func:`as_hetero` gives, of an utterance, or in scopes of dialogues of a dialogue; ``y`` holds the
    label of each utterance. PyG's ``DataLoader`` batches them, and a model takes the batch.

    Args:
        utterances: of one data set.
        config: of the model, or its :class:`GraphSpec`. ``data``, ``graph.edge_dropout`` and
            ``graph.context_dropout`` do not count: they are the trainer's.
        transform: changes a graph each time it is asked for.
        pre_transform: changes it once, before that.

    Raises:
        ConfigError: ``graph.speakers`` is ``pairs``, and nothing says whose.
        DataError: there are no utterances; one has more tokens, or a dialogue more utterances, than
            ``model.positions``.
    """
    spec = config if isinstance(config, GraphSpec) else MODELS[component_name(config.model.name)].graph_spec(config)
    if spec.graph.speakers == "pairs":
        raise ConfigError(
            "'graph.speakers: pairs' takes the speakers of the training split, which a data set of graphs does not "
            "know; list them, as in 'graph.speakers: [Ann, Bo]'"
        )
    if not len(utterances):
        raise DataError("a data set of graphs needs utterances (got none); choose another split")
    check_positions(utterances, spec.inside if spec.graph.scope == "hierarchical" else spec)
    return GraphDataset(utterances, spec, transform, pre_transform)

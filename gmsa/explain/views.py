"""What a model is to see of an utterance: all of it, some modalities, some tokens, with or without its neighbors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from gmsa.config import Config
from gmsa.data import Utterance
from gmsa.errors import DataError
from gmsa.graph import GraphSpec, check_positions, dialogues_of
from gmsa.models import reach

Token = tuple[str, int]
"""A step of an utterance's features: modality and place."""
NEIGHBORS = ""
"""Stands among the modalities for the other utterances of the dialogue; no modality has this name."""


@dataclass(frozen=True, eq=False)
class View:
    """An utterance among the utterances of its graph."""

    utterances: tuple[Utterance, ...]
    """All of the graph: in scope ``utterance`` one, else those of the dialogue in their order."""
    place: int = 0
    """Which of them is explained."""

    @property
    def own(self) -> Utterance:
        """The utterance that is explained."""
        return self.utterances[self.place]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left from which a model could predict."""
        return not any(u.steps for u in self.utterances)

    @property
    def parts(self) -> tuple[str, ...]:
        """The modalities that the utterance has, and :data:`NEIGHBORS` where its dialogue has features beside it."""
        there = tuple(m for m, is_there in self.own.present.items() if is_there)
        return (*there, NEIGHBORS) if any(u.steps for u in self.utterances if u is not self.own) else there

    @property
    def tokens(self) -> list[Token]:
        """The tokens of the utterance, modality by modality."""
        return [(m, i) for m, length in self.own.lengths.items() for i in range(length)]

    def with_parts(self, kept: Collection[str]) -> View:
        """The view with these parts alone."""
        own = self.own.drop(frozenset(m for m in self.own.features if m not in kept))
        return self._with(own) if NEIGHBORS in kept else View((own,))

    def without(self, removed: Iterable[Token]) -> View:
        """The view without some tokens: their nodes are not in the graph, and later ones move up."""
        keep = {m: torch.ones(length, dtype=torch.bool) for m, length in self.own.lengths.items()}
        for modality, place in removed:
            keep[modality][place] = False
        features, times = ({m: x[keep[m]] for m, x in of.items()} for of in (self.own.features, self.own.times))
        return self._with(replace(self.own, features=features, times=times))

    def _with(self, own: Utterance) -> View:
        before, after = self.utterances[: self.place], self.utterances[self.place + 1 :]
        return View((*before, own, *after), self.place)


def views_of(utterances: Sequence[Utterance], config: Config, chosen: Sequence[int]) -> Iterator[View]:
    """The views of some utterances, one after the other; those of dialogues with all that can change the answer.

    Args:
        utterances: as the models take them.
        chosen: indices of those to explain.
    """
    whole = {i: [i] for i in chosen}
    if config.graph.has_dialogues:
        for group in dialogues_of(utterances):
            whole |= {i: group for i in group if i in whole}
    before, after = reach(config)
    for i in chosen:
        group, place = whole[i], whole[i].index(i)
        # In scope `dialogue` nodes have positions, which count from its first utterance.
        first = max(0, place - before) if config.graph.scope == "hierarchical" else 0
        last = place + after + 1 if config.graph.scope == "hierarchical" else len(group)
        yield View(tuple(_in_memory(utterances[j]) for j in group[first:last]), place - first)


def check_length(view: View, spec: GraphSpec) -> None:
    """Refuses what is predicted in windows.

    Raises:
        DataError: an utterance has more tokens, or in scope ``dialogue`` the dialogue more utterances, than
            ``model.positions``.
    """
    try:
        check_positions(view.utterances, spec)
    except DataError:
        what, remedy = "has more tokens", "clips"
        if spec.graph.scope == "dialogue":
            what, remedy = "is in a dialogue of more utterances", "dialogues"
        elif len(view.utterances) > 1:
            what = "or another utterance of its dialogue has more tokens"
        raise DataError(
            f"it {what} than 'model.positions' ({spec.positions}) allows, so that it is predicted in windows, which "
            f"are not explained; give shorter {remedy}"
        ) from None


def _in_memory(utterance: Utterance) -> Utterance:
    """The utterance with its features read once: a hundred views share them."""
    return replace(utterance, features=dict(utterance.features), times=dict(utterance.times))

"""Finds the utterance or the dialogue that a name means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, cut, nearest
from gmsa.graph.batch import dialogues_of


def find_graph(
    name: str, splits: Mapping[str, Sequence[Utterance]], path: object, scope: str
) -> tuple[str, Utterance | list[Utterance]]:
    """The utterance or the dialogue of this name, and its split.

    In scope ``dialogue`` an utterance stands for its dialogue.

    Raises:
        DataError: there is none; names the nearest.
    """
    utterances = {u.id: (split, u) for split, members in splits.items() for u in members}
    if name in utterances and scope != "dialogue":
        return utterances[name]
    wanted = name
    if name in utterances:
        split, utterance = utterances[name]
        wanted, splits = utterance.video, {split: splits[split]}
    known: list[str] = []
    for split, members in splits.items():
        for group in dialogues_of(members):
            dialogue = [members[i] for i in group]
            if dialogue[0].video == wanted:
                if scope == "utterance":
                    raise DataError(
                        f"{path}: '{cut(name)}' is a dialogue, and with 'graph.scope: utterance' each utterance has a "
                        f"graph of its own; name one, for example {cut(dialogue[0].id)}, or set 'graph.scope' to "
                        "dialogue or hierarchical"
                    )
                return split, dialogue
            known.append(dialogue[0].video)
    what = "utterance or dialogue" if scope == "hierarchical" else scope
    names = [*(utterances if scope != "dialogue" else ()), *(known if scope != "utterance" else ())]
    example = f", for example {cut(names[0])}" if names else ""
    raise DataError(f"{path}: no {what} '{cut(name)}'{nearest(name, names) or example}")

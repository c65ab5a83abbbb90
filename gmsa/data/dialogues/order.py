"""The order of a dialogue's utterances: by their numbers, else that of the file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from gmsa.data.lazy import ids_of, joined, videos_of
from gmsa.data.notes import Doubt, note
from gmsa.data.utterance import Utterance
from gmsa.errors import shown


def in_file_order(splits: Mapping[str, Sequence[Utterance]]) -> dict[str, list[Utterance]]:
    """The utterances, with their places in the file where a dialogue's clips are not all numbered.

    A place is that among all utterances of the dialogue, split by split. A dialogue of one utterance needs none.

    >>> clips = [Utterance(f"talk$_${name}", {}) for name in ("opening", "body", "closing")]
    >>> [u.place for u in in_file_order({"all": clips})["all"]]
    [0, 1, 2]
    >>> [u.place for u in in_file_order({"all": [Utterance("talk$_$7", {}), Utterance("talk$_$3", {})]})["all"]]
    [None, None]
    """
    sizes = Counter(u.video for utterances in splits.values() for u in utterances)
    wanting = {u.video for utterances in splits.values() for u in utterances if not _is_numbered(u.id, u.place)}
    wanting = {video for video in wanting if sizes[video] > 1}
    if not wanting:
        return {name: list(utterances) for name, utterances in splits.items()}
    count: Counter[str] = Counter()
    found: dict[str, list[Utterance]] = {}
    for name, utterances in splits.items():
        kept = []
        for utterance in utterances:
            video = utterance.video
            if video in wanting:
                utterance = replace(utterance, place=count[video])
                count[video] += 1
            kept.append(utterance)
        found[name] = kept
    return found


def places_of_rows(
    ids: Callable[[int], str], videos: Callable[[int], str] | None, places: np.ndarray, none: int
) -> np.ndarray:
    """The places of a store's rows, as :func:`in_file_order` gives them but counted in rows of the store.

    Args:
        ids: returns the id of a row.
        videos: returns the named video of a row, empty if it has none; None if no row has one.
        places: the stored places ``[N]``; ``none`` where a row has none.
        none: what stands for no place.
    """

    def video_of(row: int) -> str:
        """The video of a row; empty if the row is surely alone in it."""
        video, clip, _ = ids(row).partition("$_$")
        return (videos(row) if videos is not None else "") or (video if clip else "")

    wanting = {video_of(r) for r in range(len(places)) if places[r] == none and not _is_numbered(ids(r), None)} - {""}
    if not wanting:
        return places
    return np.array([r if video_of(r) in wanting else places[r] for r in range(len(places))], np.int64)


def tell_order(splits: Mapping[str, Sequence[Utterance]], pool: Sequence[Utterance], where: str) -> None:
    """Notes dialogues whose order is in doubt: two utterances have one place, or only some are numbered.

    Args:
        splits: the utterances that are scored or trained on, by split.
        pool: unlabeled utterances, which are context of the training split.
        where: name of the data, for the notes.
    """
    ties: list[tuple[str, str]] = []
    mixed: list[str] = []
    apart: list[str] = []
    for name, utterances in splits.items():
        context = pool if name == "train" else []
        of_pool = {*ids_of(context)}
        for members in _dialogues(joined(utterances, context)):
            ordered = sorted(members, key=lambda u: u.clip)
            tied = [(a.id, b.id) for a, b in pairwise(ordered) if a.clip[0] == b.clip[0]]
            ties += tied[:1]
            numbers = {_is_numbered(u.id, None) for u in members if "$_$" in u.id}
            mixed += [members[0].video] if len(numbers) > 1 else []
            # Places of the file go on from train to the pool; numbers of clips seldom part the two.
            last = [u.id in of_pool for u in ordered]
            torn = len(set(last)) == 2 and last == sorted(last)
            apart += (
                [members[0].video] if torn and not tied and not all(_is_numbered(u.id, None) for u in members) else []
            )
    if ties:
        note(
            Doubt(
                f"{where}: {_dialogues_are(len(ties))} two utterances of one place, such as {shown(ties[0][0])} and "
                f"{shown(ties[0][1])}, which stand in the order of their ids; number the clips, or let data.video_from "
                "tell the videos alone, so that the order of the file counts"
            )
        )
    if mixed:
        note(
            Doubt(
                f"{where}: {_dialogues_are(len(mixed))} clips with and without a number, such as {shown(mixed[0])}: "
                "the order of the file is taken; number all of them if that is not the order in time"
            )
        )
    if apart:
        note(
            Doubt(
                f"{where}: {_dialogues_are(len(apart))} utterances in train and in the pool, and no numbers tell their "
                f"order, such as {shown(apart[0])}: those of the pool are taken as the later ones; number the clips"
            )
        )


def tell_shared(splits: Mapping[str, Sequence[Utterance]], where: str) -> None:
    """Notes dialogues that are in two splits: each split has its part, as context never crosses a split."""
    of: dict[str, set[str]] = defaultdict(set)
    for name, utterances in splits.items():
        for video in videos_of(utterances):
            of[video].add(name)
    shared = [video for video, names in of.items() if len(names) > 1]
    if shared:
        note(
            f"{where}: {_dialogues_are(len(shared))} utterances in two splits, such as {shown(shared[0])}: the context "
            "of an utterance ends at its split"
        )


def _dialogues(utterances: Sequence[Utterance]) -> Iterator[list[Utterance]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for row, video in enumerate(videos_of(utterances)):
        groups[video].append(row)
    return ([utterances[row] for row in rows] for rows in groups.values() if len(rows) > 1)


def _dialogues_are(count: int) -> str:
    return f"{count:,} dialogues have" if count > 1 else "one dialogue has"


def _is_numbered(identity: str, place: int | None) -> bool:
    """Whether an utterance has a place, or a number for its clip."""
    return place is not None or identity.partition("$_$")[2].isdecimal()

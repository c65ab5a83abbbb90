"""Splits that are made of a file's utterances, where it has none: shares for validation and test, or folds."""

# N utterances
from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
import torch

from gmsa.config.groups.data import SplitConfig
from gmsa.data.lazy import joined, labels_of, names_of, taken
from gmsa.data.notes import note
from gmsa.data.targets import Target
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, listed, shown
from gmsa.rng import seed_for

SPLITS = ("train", "valid", "test")
"""The splits of a training."""
UNSPLIT = "all"
"""Name of the only split of a file without splits."""
POOL = "pool"
"""Name of the split of unlabeled utterances."""
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("valid", "val", "dev", "validation", "development"), "valid"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
    **dict.fromkeys((POOL, "unlabeled", "unlabelled", "unsup"), POOL),
}
"""What public files of any format call the splits, in lower case."""

Splits = Mapping[str, Sequence[Utterance]]


def named(splits: Splits) -> dict[str, Sequence[Utterance]]:
    """The splits by gmsa's names, as ``valid`` for ``dev``, where the file does not have that name, too.

    >>> list(named({"Train": [], "dev": [], "unlabeled": []}))
    ['train', 'valid', 'pool']
    """
    found: dict[str, Sequence[Utterance]] = {}
    for name, utterances in splits.items():
        usual = name.lower()
        usual = SPLIT_NAMES.get(usual, UNSPLIT if usual == UNSPLIT else name)
        found[name if usual in splits or usual in found else usual] = utterances
    return found


def is_training(name: str, splits: Collection[str]) -> bool:
    """Whether a split is one of these and is called ``train`` in a file, as ``Training`` is."""
    return name in splits and SPLIT_NAMES.get(name.lower()) == "train"


def make_splits(
    splits: Splits, settings: SplitConfig, target: Target | None = None, where: str = "the data"
) -> dict[str, Sequence[Utterance]]:
    """The splits of a file, with those that it lacks made as ``data.split`` asks, or the folds that it asks for.

    Validation and test are drawn from ``train``, or from ``all`` of a file without splits: whole videos or speakers,
    stratified over the classes of their mean label. The draw of each depends on the seed and its name only, not on the
    order of the utterances, which is kept within each split. A split that the file has stays as it is.

    Unlabeled utterances stay in ``train``, from where they join the pool, except those of a video or speaker that is
    in another split: they are left out.

    Args:
        splits: utterances by split.
        settings: the group ``data.split``.
        target: what the labels are, for the strata (default: intensities in [-3, 3]).
        where: name of the file, for errors and notes.

    Raises:
        DataError: a split is lacking and not asked for, speakers are not known, or there are too few videos.

    >>> import torch
    >>> from gmsa.data.notes import collected
    >>> clips = [Utterance(f"v{i // 5}$_${i % 5}", {"text": torch.ones(1, 1)}, label=0.5) for i in range(50)]
    >>> with collected() as notes:
    ...     made = make_splits({"all": clips}, SplitConfig(valid=0.1, test=0.2), where="clips.pkl")
    >>> {name: len(utterances) for name, utterances in made.items()}
    {'train': 35, 'valid': 5, 'test': 10}
    >>> print(notes[0])
    clips.pkl: made by data.split of all by video, seed 0: train 35 utterances, valid 5, test 10
    """
    if settings.folds:
        return folds(splits, settings, target, where)
    shares = {"valid": settings.valid, "test": settings.test}
    for name in shares:
        if name in splits and shares[name]:
            note(f"{where}: has a split '{name}', which is used; data.split.{name}={shares[name]:g} makes none")
    lacking = [name for name in shares if name not in splits]
    source = "train" if "train" in splits else UNSPLIT
    if unasked := [name for name in lacking if not shares[name]] or [n for n in ("train",) if source not in splits]:
        raise DataError(_no_split(unasked[0], lacking, splits, where))
    if not lacking:
        return dict(splits)
    groups, unlabeled = _grouped(splits[source], settings.by, where)
    if len(groups) <= len(lacking):
        raise DataError(
            f"{where}: split '{source}' has {len(groups)} labeled {settings.by}{'s' * (len(groups) != 1)}, too few for "
            f"train, {' and '.join(lacking)}; {_finer(settings.by)}"
        )
    labels = labels_of(splits[source])
    order = _order(groups, labels, settings.seed, target or Target())
    count = sum(map(len, groups.values()))
    part: dict[str, str] = {}
    for name in reversed(lacking):  # test takes from the start of the order, validation from its end
        left = [group for group in (order if name == "test" else order[::-1]) if group not in part]
        others = 1 + sum(other != name and other not in part.values() for other in lacking)
        part |= dict.fromkeys(_take(left, groups, shares[name] * count, len(left) - others), name)
    placed = {row: part[g] for g, rows in groups.items() if g in part for row in rows}
    made = _placed(splits[source], groups, placed, lacking, unlabeled, settings.by, where)
    _tell(made, f"made by data.split of {source}", settings, where)
    if settings.by == "video" and len(groups) == count > 1:
        note(
            f"{where}: every utterance is a video of its own by its id; if several are of one video, data.video_from "
            "tells which, so that no video is in two splits"
        )
    order_of = [name for name in SPLITS if name in made or name in splits]
    return {name: made[name] if name in made else splits[name] for name in order_of} | {
        name: utterances for name, utterances in splits.items() if name not in (*SPLITS, source)
    }


def folds(
    splits: Splits, settings: SplitConfig, target: Target | None = None, where: str = "the data"
) -> dict[str, Sequence[Utterance]]:
    """The splits of one fold of cross-validation over the labeled utterances of a file.

    Part ``data.split.fold`` is the test split, the next one validates, the others train. With ``data.split.keep_test``
    the file's own test split is that of every fold, and in no part: part ``data.split.fold`` validates, the others
    train. Parts are the values of the utterances' own ``fold``, sorted, where the file has it; else whole videos or
    speakers, spread so that parts are of about equal size and each has its share of every class. They depend on the
    seed, names and labels only. Unlabeled utterances stay in ``train`` as in :func:`make_splits`.

    Raises:
        DataError: the file's folds are of another number, or lack an utterance; there are too few videos; or there is
            no test split to keep.
    """
    if settings.keep_test and "test" not in splits:
        raise DataError(
            f"{where}: has no split 'test' that data.split.keep_test could keep (its splits: {listed(splits)}); leave "
            "that out, so that one of the parts is the test split"
        )
    kept = {"test": splits["test"]} if settings.keep_test else {}
    sources = _sources(splits, settings)
    if others := [name for name in splits if name not in (*sources, *kept)]:
        note(f"{where}: splits {listed(others)} are not used, as data.split.keep_test keeps more than 'test' apart")
    everything = joined(*(splits[name] for name in sources))
    fold_of = [*names_of(everything, "fold")]
    groups, unlabeled = _grouped(everything, settings.by, where, not any(fold_of))
    if names := fold_names(everything):
        part = _given_parts(everything, groups, names, fold_of, settings, where)
    else:
        if len(groups) < settings.folds:
            raise DataError(
                f"{where}: has {len(groups)} labeled {settings.by}{'s' * (len(groups) != 1)}, fewer than "
                f"data.split.folds={settings.folds}; {_finer(settings.by)}"
            )
        part = _spread(groups, labels_of(everything), settings, target or Target())
    roles = {settings.fold: "valid" if kept else "test"}
    if not kept:
        roles[(settings.fold + 1) % settings.folds] = "valid"
    placed = {row: roles[number] for row, number in part.items() if number in roles}
    held = {names[number] for number in roles} if names else set()
    unlabeled = [row for row in unlabeled if fold_of[row] not in held]
    made = _placed(everything, groups, placed, [*roles.values()], unlabeled, settings.by, where)
    said = f"{', as the file says' * bool(names)}{', its test split apart' * bool(kept)}"
    found = {**made, **kept}
    _tell(found, f"fold {settings.fold} of {settings.folds}{said}", settings, where)
    return {name: found[name] for name in SPLITS}


def apart_from_made(
    pool: Sequence[Utterance],
    splits: Splits,
    made: Splits,
    settings: SplitConfig,
    where: str,
) -> Sequence[Utterance]:
    """The pool without the utterances whose video or speaker is in a made validation or test split, or whose fold is.

    Args:
        pool: unlabeled utterances.
        splits: the splits of the file.
        made: the splits that :func:`make_splits` made of them.
        settings: the group ``data.split``.
        where: name of the pool's file, for notes.
    """
    names = _made_names(splits, settings)
    held = [row for rows in _held_out(pool, names, made, settings).values() for row in rows] if names else []
    if not held:
        return pool
    spelled = ["validation" if name == "valid" else name for name in names]
    by_fold = settings.folds and any(fold for name in names for fold in names_of(made[name], "fold"))
    note(
        f"{where}: {len(held):,} of {len(pool):,} utterances of the pool {'is' if len(held) == 1 else 'are'} left out: "
        f"by their {settings.by}{' or fold' if by_fold else ''} they belong to the made {' or '.join(spelled)} split"
    )
    return taken(pool, np.setdiff1d(np.arange(len(pool)), held))


def context_of_made(
    pool: Sequence[Utterance], splits: Splits, made: Splits, settings: SplitConfig
) -> dict[str, Sequence[Utterance]]:
    """The unlabeled utterances that :func:`make_splits` and :func:`apart_from_made` leave out, by the made split.

    Args:
        pool: unlabeled utterances beside those of the splits.
        splits, made, settings: as :func:`apart_from_made` has them.
    """
    names = _made_names(splits, settings)
    if not names:
        return {}
    sources = _sources(splits, settings) if settings.folds else {"train", UNSPLIT} & set(splits)
    unlabeled = (taken(us, np.flatnonzero(np.isnan(labels_of(us)))) for us in (splits[source] for source in sources))
    beside = joined(*unlabeled, pool)
    return {name: taken(beside, rows) for name, rows in _held_out(beside, names, made, settings).items()}


def _sources(splits: Splits, settings: SplitConfig) -> list[str]:
    """The splits whose utterances folds are made of."""
    return [name for name in splits if not settings.keep_test or name in ("train", "valid", POOL, UNSPLIT)]


def _made_names(splits: Splits, settings: SplitConfig) -> list[str]:
    """The splits beside ``train`` that are made."""
    kept = ("test",) if settings.keep_test else ()
    return [name for name in ("valid", "test") if (settings.folds and name not in kept) or name not in splits]


def _held_out(
    utterances: Sequence[Utterance], names: Sequence[str], made: Splits, settings: SplitConfig
) -> dict[str, list[int]]:
    """The rows of what belongs to the made splits of these names, by fold, or by video or speaker."""
    groups = {group: name for name in names for group in _names_of(made[name], settings.by)}
    parts = {fold: name for name in names for fold in names_of(made[name], "fold")} if settings.folds else {}
    found: dict[str, list[int]] = {}
    both = zip(_names_of(utterances, settings.by), names_of(utterances, "fold"), strict=True)
    for row, (group, fold) in enumerate(both):
        named = parts.get(fold) if fold else None
        named = named or (groups.get(group) if group else None)
        if named:
            found.setdefault(named, []).append(row)
    return found


def fold_names(utterances: Sequence[Utterance]) -> tuple[str, ...]:
    """The folds that a file names for its labeled utterances: by number where all are numbers, else by alphabet."""
    labels = labels_of(utterances).tolist()
    found = {fold for fold, label in zip(names_of(utterances, "fold"), labels, strict=True) if fold and label == label}
    if all(name.isdecimal() for name in found):
        return tuple(sorted(found, key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name)))
    return tuple(sorted(found))


def _no_split(name: str, lacking: Sequence[str], splits: Splits, where: str) -> str:
    said = f"{where}: has no split '{name}' (its splits: {listed(splits)})"
    if not {"train", UNSPLIT} & set(splits):
        return f"{said}; name its training split 'train', or give one split '{UNSPLIT}' with data.split.valid and .test"
    asked = " and ".join({"valid": "data.split.valid=0.1", "test": "data.split.test=0.2"}[one] for one in lacking)
    which = "it" if len(lacking) == 1 else "them"
    return f"{said}; make {which} by {asked}, shares of whole videos (or of speakers, data.split.by=speaker)"


def _finer(by: str) -> str:
    others = "data.split.by=utterance" if by == "video" else "data.split.by=video or utterance"
    return "bring more data" if by == "utterance" else f"bring more data, or set {others}"


def _names_of(utterances: Sequence[Utterance], by: str) -> Iterator[str]:
    return names_of(utterances, "id" if by == "utterance" else by)


def _grouped(
    utterances: Sequence[Utterance], by: str, where: str, needed: bool = True
) -> tuple[dict[str, list[int]], list[int]]:
    """The rows of labeled utterances by their video, speaker or id, and those of unlabeled ones."""
    groups: dict[str, list[int]] = defaultdict(list)
    has_label = ~np.isnan(labels_of(utterances))
    for row, name in enumerate(_names_of(utterances, by)):
        if not has_label[row]:
            continue
        if not name and needed:
            raise DataError(
                f"{where}: does not say who speaks in {shown(utterances[row].id)}; give every utterance a 'speaker', "
                "or set data.split.by=video"
            )
        groups[name].append(row)
    if not groups:
        raise DataError(
            f"{where}: no utterance has a label, so that none can be a split of its own; training needs labels"
        )
    return groups, np.flatnonzero(~has_label).tolist()


def classes_of_labels(labels: Mapping[str, Sequence[float]], target: Target) -> dict[str, int]:
    """The class of each group's mean intensity, or its most frequent class, whatever the order."""
    if target.is_classes:
        counts = {name: Counter(map(int, values)) for name, values in labels.items()}
        return {name: min(found, key=lambda number: (-found[number], number)) for name, found in counts.items()}
    means = torch.tensor([math.fsum(values) / len(values) for values in labels.values()], dtype=torch.float64)
    return dict(zip(labels, target.to_class(means).tolist(), strict=True))


def _order(groups: Mapping[str, Sequence[int]], labels: np.ndarray, seed: int, target: Target) -> list[str]:
    """The groups in an order of which any beginning, and any end, is stratified over the classes."""
    classes = classes_of_labels({name: labels[rows].tolist() for name, rows in groups.items()}, target)
    return stratified(classes, lambda name: seed_for(seed, "split", name))


def stratified(classes: Mapping[str, int], draw: Callable[[str], int]) -> list[str]:
    """Names in an order of which any beginning, and any end, has about the share of each class.

    Within each class, the names are drawn and placed in (0, 1) at equal distances.

    Args:
        classes: the class of each name.
        draw: a random number for each name.
    """
    strata: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for name, number in classes.items():
        strata[number].append((draw(name), name))
    placed = (
        ((rank + 0.5) / len(drawn), drawn_number, name)
        for drawn in strata.values()
        for rank, (drawn_number, name) in enumerate(sorted(drawn))
    )
    return [name for *_, name in sorted(placed)]


def stratified_rows(classes: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """As :func:`stratified`, of rows by their classes ``[N]`` and random numbers of 63 bits ``[N]``."""
    order = np.lexsort((draws, classes))
    _, begins, counts = np.unique(classes[order], return_index=True, return_counts=True)
    place = np.empty(len(order))
    place[order] = (np.arange(len(order)) - np.repeat(begins, counts) + 0.5) / np.repeat(counts, counts)
    return np.lexsort((draws, place))


def _take(order: Sequence[str], groups: Mapping[str, Sequence[int]], wanted: float, most: int) -> list[str]:
    """The first groups that hold about as many utterances as wanted: at least one, and none that exceeds it by far."""
    taken: list[str] = []
    total = 0
    for name in order:
        size = len(groups[name])
        if len(taken) < most and total + size / 2 <= wanted:
            taken.append(name)
            total += size
    return taken or [min(order, key=lambda name: len(groups[name]))]


def _spread(
    groups: Mapping[str, Sequence[int]], labels: np.ndarray, settings: SplitConfig, target: Target
) -> dict[int, int]:
    """The part of each row: the largest groups first, each into the part that has the fewest utterances."""
    sizes = [(0, number) for number in range(settings.folds)]
    ranked = sorted(
        (-len(groups[name]), number, seed_for(settings.seed, "fold", name), name)
        for name, number in classes_of_labels({g: labels[rows].tolist() for g, rows in groups.items()}, target).items()
    )
    part: dict[int, int] = {}
    for *_, name in ranked:
        size, smallest = sizes[0]
        heapq.heapreplace(sizes, (size + len(groups[name]), smallest))
        part.update(dict.fromkeys(groups[name], smallest))
    return part


def _given_parts(
    utterances: Sequence[Utterance],
    groups: Mapping[str, Sequence[int]],
    names: Sequence[str],
    fold_of: Sequence[str],
    settings: SplitConfig,
    where: str,
) -> dict[int, int]:
    """The part of each row as the file says it."""
    if len(names) != settings.folds:
        beside = " beside its test split" * settings.keep_test
        remedy = f"set data.split.folds={len(names)}" if len(names) > 1 else "leave data.split.keep_test out"
        raise DataError(
            f"{where}: its own folds{beside} are {len(names)} ({listed(names)}), but data.split.folds is "
            f"{settings.folds}; {remedy}"
        )
    number = {name: place for place, name in enumerate(names)}
    part, torn = {}, []
    for group, members in groups.items():
        for row in members:
            if not fold_of[row]:
                said = shown(utterances[row].id)
                raise DataError(f"{where}: {said} has a label but no fold, as others have; give it one")
            part[row] = number[fold_of[row]]
        if group and len({fold_of[row] for row in members}) > 1:
            torn.append(group)
    if torn:
        one = f"{len(torn)} {settings.by}s are" if len(torn) > 1 else f"one {settings.by} is"
        note(f"{where}: by its own folds {one} in several parts, such as {shown(torn[0])}; data is not kept apart")
    return part


def _placed(
    utterances: Sequence[Utterance],
    groups: Mapping[str, Sequence[int]],
    placed: Mapping[int, str],
    names: Sequence[str],
    unlabeled: Sequence[int],
    by: str,
    where: str,
) -> dict[str, Sequence[Utterance]]:
    """The utterances by their new split, in their order: those of the training split with unlabeled ones, but for those
    of a video or speaker that is held out.

    Args:
        groups: the labeled rows by video, speaker or id.
        placed: the split of those that leave the training split.
        names: the splits that are made.
        unlabeled: the rows of those that may join the training split.
    """
    made = {name: sorted(row for row, split in placed.items() if split == name) for name in SPLITS if name in names}
    held = {group for group, rows in groups.items() if group and any(row in placed for row in rows)}
    wanted, rows = set(unlabeled), []
    for row, name in enumerate(_names_of(utterances, by)):
        if row in wanted and name not in held:
            rows.append(row)
    if left := len(unlabeled) - len(rows):
        note(f"{where}: {left} unlabeled utterances are left out, as their {by} is in a made split that holds it out")
    rows += [row for members in groups.values() for row in members if row not in placed]
    found = {"train": taken(utterances, sorted(rows))} | {name: taken(utterances, of) for name, of in made.items()}
    return {name: found[name] for name in SPLITS if name in found}


def _tell(made: Mapping[str, Sequence[Utterance]], what: str, settings: SplitConfig, where: str) -> None:
    first, *others = [name for name in SPLITS if name in made]
    sizes = ", ".join([f"{first} {len(made[first])} utterances", *(f"{name} {len(made[name])}" for name in others)])
    note(f"{where}: {what} by {settings.by}, seed {settings.seed}: {sizes}")

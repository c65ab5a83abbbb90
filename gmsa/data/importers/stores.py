"""Imports a feature store, as one of a former version, or with other types, splits or modalities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gmsa.config import AUTO, TargetConfig
from gmsa.data.importers.rows import Source
from gmsa.data.importers.tables import Splits, about_files, assigned
from gmsa.data.notes import note
from gmsa.data.store.store import Store
from gmsa.data.store.writer import NOT_ANNOTATED, Row
from gmsa.data.targets import Target, describe_target
from gmsa.errors import DataError, short


def import_store(path: Path, target: TargetConfig | None = None, splits: Splits | None = None) -> Source:
    """Imports all of a store.

    Args:
        path: the store.
        target: the group ``target`` of a config (default: that of the store).
        splits: the user's assignment of utterances to splits.

    Raises:
        DataError: the store is damaged, or its labels are of another target.
    """
    store = Store(path)
    held = store.manifest.target
    wanted = held if target is None else Target.of(target)
    if target is not None:
        tell_unused(target, short(path))
    if (held.kind, held.low, held.high) != (wanted.kind, wanted.low, wanted.high):
        raise DataError(
            f"{short(path)}: was imported with {describe_target(held)}, not {describe_target(wanted)}; leave target out"
        )
    rows = _rows(store)
    if splits is not None:
        rows = assigned(list(rows), splits, short(path))
    dtypes = {modality: stored.dtype for modality, stored in store.manifest.modalities.items()}
    about = about_files("store", [], splits)
    before = store.manifest.source.get("files")
    about["files"] += [{"name": path.name, "sha256": store.sha256}, *(before if isinstance(before, list) else [])]
    if "extraction" in store.manifest.source:
        about["extraction"] = store.manifest.source["extraction"]
    return Source(rows, len(store), dtypes, about, clips=store.clips)


def tell_unused(target: TargetConfig, where: str) -> None:
    """Notes settings of the target that choose among labels, of which a store holds one per utterance."""
    for key, given in (("field", target.field != AUTO), ("column", target.column is not None)):
        if given:
            note(
                f"{where}: target.{key} has no effect: a store holds the labels that its import chose; import it again"
            )


def _rows(store: Store) -> Iterator[Row]:
    target = store.manifest.target
    for name, split in store.manifest.splits.items():
        for row, utterance in zip(range(split.start, split.stop), store.split(name), strict=True):
            annotation = NOT_ANNOTATED if store.annotations is None else int(store.annotations[row])
            named = target.name_of(utterance.label) if target.is_classes and utterance.label is not None else ""
            yield Row(name, utterance, annotation, named)

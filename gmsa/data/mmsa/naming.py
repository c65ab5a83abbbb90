"""Tells the video or the speaker of utterances by their ids: ``data.video_from`` and ``data.speaker_from``."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from gmsa.config.groups.data import LONGEST_MATCHED
from gmsa.data.texts import hint
from gmsa.errors import DataError, cut, shown

EXAMPLES = {"video_from": "(?P<video>.+)_(?P<clip>[0-9]+)", "speaker_from": "_(?P<speaker>[A-Z])[0-9]+$"}
"""A regular expression for each setting."""


def match_ids(how: str, setting: str, ids: Sequence[str], known: Collection[str], where: str) -> list[re.Match[str]]:
    """Matches ids with the regular expression of a setting, ``video_from`` or ``speaker_from``.

    Args:
        how: the setting's value, which is no key of the file.
        known: the keys of the file, for errors.
        where: name of the file and the split, for errors.

    Raises:
        DataError: it is no regular expression with a group, or one does not match an id.
    """
    try:
        pattern = re.compile(how)
    except (re.error, OverflowError, RecursionError) as error:
        said = f"data.{setting} {shown(how)} is no regular expression ({cut(error)})"
        raise DataError(f"{where}: {said}; name a key of the file, or repair it") from None
    if not pattern.groups:
        raise DataError(
            f"{where}: has no key '{how}'{hint(how, known)}, which data.{setting} names; name a key of the file, or a "
            f"regular expression such as '{EXAMPLES[setting]}'"
        )
    if long := [identity for identity in ids if len(identity) > LONGEST_MATCHED]:
        raise DataError(
            f"{where}: the id {shown(long[0])} is too long for a regular expression in data.{setting}, at most "
            f"{LONGEST_MATCHED} characters; name a key of the file"
        )
    found = [pattern.search(identity) for identity in ids]
    unmatched = [identity for identity, match in zip(ids, found, strict=True) if match is None]
    if unmatched:
        raise DataError(_no_match(how, setting, unmatched, len(ids), where))
    return [match for match in found if match is not None]


def videos_of(how: str, ids: Sequence[str], known: Collection[str], where: str) -> tuple[list[str], list[str | None]]:
    """The video and the clip that the groups ``video`` and ``clip``, or the first and second, find in each id.

    Raises:
        DataError: as :func:`match_ids`, or an id has no video.
    """
    found = match_ids(how, "video_from", ids, known, where)
    names = found[0].re.groupindex
    video = names.get("video", 1)
    others = [number for number in range(video + 1, found[0].re.groups + 1) if number != names.get("speaker")]
    clip = names.get("clip", others[0] if others else None)
    if without := [identity for identity, match in zip(ids, found, strict=True) if not match[video]]:
        raise DataError(_no_match(how, "video_from", without, len(ids), where))
    return [match[video] for match in found], [None if clip is None else match[clip] for match in found]


def speakers_of(how: str, ids: Sequence[str], known: Collection[str], where: str) -> list[str]:
    """The speaker that the group ``speaker``, or the first if none has a name, finds in each id; empty where none.

    Raises:
        DataError: as :func:`match_ids`, or there is no such group, or no id has a speaker.
    """
    found = match_ids(how, "speaker_from", ids, known, where)
    names = found[0].re.groupindex
    if names and "speaker" not in names:
        raise DataError(
            f"{where}: data.speaker_from {shown(how)} has no group (?P<speaker>...); name one, as in "
            f"'{EXAMPLES['speaker_from']}'"
        )
    speakers = [match[names.get("speaker", 1)] or "" for match in found]
    if not any(speakers):
        raise DataError(_no_match(how, "speaker_from", ids, len(ids), where))
    return speakers


def _no_match(how: str, setting: str, unmatched: Sequence[str], count: int, where: str) -> str:
    return (
        f"{where}: data.{setting} {shown(how)} does not match {len(unmatched):,} of {count:,} ids, such as "
        f"{shown(unmatched[0])}"
    )

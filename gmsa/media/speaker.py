"""Which of several faces speaks: tracks of faces, and the one whose mouth moves with the sound."""

# F frames, N samples
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from gmsa.media.types import RATE, Face

Track = dict[int, Face]
"""One face along time, by the number of the frame; a frame where it is not seen is left out."""


def tracks(frames: Iterable[Sequence[Face]]) -> list[Track]:
    """Joins the faces of frames to tracks, in the order in which they appear.

    Of all pairs of a face and a track, the nearest go together, if the face's center is at most the track's last width
    from where it was last seen, however long ago that is.
    """
    found: list[Track] = []
    for number, faces in enumerate(frames):
        last = [next(reversed(track.values())) for track in found]
        pairs = sorted(
            (distance, i, j)
            for i, before in enumerate(last)
            for j, face in enumerate(faces)
            if (distance := math.dist(before.center, face.center)) <= before.size
        )
        free_tracks, free_faces = set(range(len(last))), dict(enumerate(faces))
        for _, i, j in pairs:
            if i in free_tracks and j in free_faces:
                free_tracks.remove(i)
                found[i][number] = free_faces.pop(j)
        found += [{number: face} for face in free_faces.values()]
    return found


def largest(found: Sequence[Track]) -> Track:
    """The track of which most is seen: the sum of its widths over frames."""
    return max(found, key=lambda track: sum(face.size for face in track.values()))


def speaking(found: Sequence[Track], loudness: np.ndarray) -> Track:
    """The track whose jaw correlates most with the loudness.

    Tracks that are seen in less than half as many frames as the one seen in most are left out, as few frames
    correlate by chance. Where no correlation is positive, nobody who is seen speaks: it is the largest track.

    Args:
        loudness: float [F], of the sound at the time of each frame.
    """
    most = max(len(track) for track in found)
    lasting = [track for track in found if 2 * len(track) >= most]
    scores = [_correlation(np.array([f.jaw for f in track.values()]), loudness[[*track]]) for track in lasting]
    best = int(np.argmax(scores))
    return lasting[best] if scores[best] > 0 else largest(found)


def loudness(samples: np.ndarray, times: Sequence[float], width: float) -> np.ndarray:
    """Root mean square [F] of the sound within ``width`` seconds around each time; 0 where there is no sound.

    Args:
        samples: float [N], 16 kHz.
        times: seconds [F].
    """
    found = np.zeros(len(times))
    for i, time in enumerate(times):
        first, last = (max(0, round((time + side * width / 2) * RATE)) for side in (-1, 1))
        if len(part := samples[first:last]):
            found[i] = math.sqrt(np.mean(np.square(part, dtype=np.float64)))
    return found


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation; 0 where one of the two is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / scale) if scale > 1e-12 else 0.0

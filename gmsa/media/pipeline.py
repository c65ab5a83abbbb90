"""Extracts the features of a clip: words, steps of every extractor, and all of them along the same words."""

# L steps, D features
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gmsa.config import MODALITIES
from gmsa.config.components import component_name, parse_component
from gmsa.config.load import to_dict
from gmsa.errors import DataError, short
from gmsa.media.cache import Cache
from gmsa.media.clips import Clip, Extracted, Sequence
from gmsa.media.looking import look_at
from gmsa.media.media import ClipMedia, Recognizer
from gmsa.media.pool import at_rate, pool, regular
from gmsa.media.settings import ExtractConfig
from gmsa.media.types import MediaError, Missing, Word
from gmsa.media.weights import KNOWN, find, sha256_at
from gmsa.registry import EXTRACTORS, plugins_with

EMPTY_STEP = 0.5
"""Seconds of a step of a clip without words."""
PACKAGES = ("av", "faster-whisper", "ctranslate2", "pocketsphinx", "mediapipe", "transformers", "tokenizers", "numpy")
"""Packages whose versions a store records."""
HEARING = ("ctranslate2", "faster-whisper", "onnxruntime", "pocketsphinx")
"""Those that the words depend on."""


class Spans(NamedTuple):
    """What the steps of a clip follow."""

    words: list[Word]
    missing: str
    """Why there are no words."""
    duration: float
    speech: float
    """Share of the clip in which someone speaks."""
    warnings: list[str]

    @property
    def times(self) -> list[tuple[float, float]]:
        """Start and stop of each step."""
        if self.words:
            return [(word.start, word.stop) for word in self.words]
        return [(start, stop) for start, stop in regular(self.duration, EMPTY_STEP).tolist()]


class Pipeline:
    """All extractors of an extraction, loaded when the first clip needs them.

    Args:
        settings: what to extract.
        cache: keeps what was extracted, by file, settings and weights.
        download: whether weights may be fetched.
    """

    def __init__(self, settings: ExtractConfig, cache: Cache | None = None, download: bool = False) -> None:
        self.settings, self.cache, self.download = settings, cache, download
        self.recognizer = Recognizer(settings, download)

    @cached_property
    def extractors(self) -> dict[str, list[Any]]:
        """The extractors by modality."""
        found = {}
        for modality in MODALITIES:
            parts = [parse_component(spec, EXTRACTORS, modality) for spec in self.settings.of(modality)]
            if self.download:
                for name in KNOWN.keys() & {name for name, _ in parts}:
                    find(name, modality, download=True)  # the extractor finds them in the Hub's cache
            found[modality] = [EXTRACTORS[name](**given) for name, given in parts]
        return {modality: parts for modality, parts in found.items() if parts}

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the features beside the clips: settings, weights, and the extractors' own versions.

        Raises:
            ConfigError: weights are absent, or of another SHA-256.
        """
        return {
            "words": self._words,
            **{m: [_about(extractor) for extractor in parts] for m, parts in self.extractors.items()},
            "steps": {key: getattr(self.settings, key) for key in ("steps", "rate", "gaps")},
        }

    @cached_property
    def _words(self) -> dict[str, Any]:
        transcript = to_dict(self.settings.transcript)
        del transcript["model"]  # a name or a folder: its weights say which it is
        return {
            "name": "words",
            "transcript": transcript,
            "align": to_dict(self.settings.align),
            "weights": sha256_at(self.recognizer.folder / "model.bin"),
            "version": 1,
            **{name: found for name in HEARING if (found := _version(name))},
        }

    def provenance(self) -> dict[str, Any]:
        """What a store records of its extraction; ``plugins`` only where some extractor is of one."""
        places = [EXTRACTORS.module_of(component_name(spec)) for m in MODALITIES for spec in self.settings.of(m)]
        plugins = plugins_with(places)
        return ({"plugins": plugins} if plugins else {}) | {
            "settings": to_dict(self.settings),
            "fingerprint": self.fingerprint,
            "columns": {m: [c for part in parts for c in part.columns] for m, parts in self.extractors.items()},
            "versions": {name: found for name in PACKAGES if (found := _version(name))},
        }

    def __call__(self, clip: Clip) -> Extracted:
        """Extracts a clip, or reads it from the cache.

        Raises:
            MediaError: the file cannot be read.
            ConfigError: a package or weights are absent.
        """
        sha256 = sha256_at(clip.path)
        place = [sha256, clip.start, clip.stop, clip.text]
        media = cache(lambda: ClipMedia(clip, self.settings, self.recognizer))  # opened where an entry is not kept
        spans = self._kept([*place, self._words], lambda: _pack_spans(_spans(media())), _unpack_spans)
        found = Extracted(words=spans.words, duration=spans.duration, sha256=sha256, speech=spans.speech)
        found.warnings.extend(spans.warnings)
        shared = [*place, self._words, self.fingerprint["steps"]]
        for modality, parts in self.extractors.items():
            try:
                pieces = [self._steps_of(part, media, spans, [*shared, _about(part)]) for part in parts]
                found.sequences[modality] = self._joined(pieces, spans, modality)
            except Missing as missing:
                found.missing[modality] = str(missing)
        return found

    def look(self, path: Path) -> tuple[float, list[tuple[float, float]]]:
        """The seconds of a whole file, and the pieces that it is cut into at pauses; see :func:`look_at`.

        Raises:
            MediaError: it cannot be read.
        """

        def make() -> dict[str, np.ndarray]:
            duration, pieces = look_at(path, self.settings)
            return {"pieces": np.array([(0.0, duration), *pieces])}

        key = ["look", sha256_at(path), to_dict(self.settings.segment), to_dict(self.settings.limits)]
        (_, duration), *pieces = self._kept(key, make, dict)["pieces"].tolist()
        return duration, [(start, stop) for start, stop in pieces]

    def _steps_of(
        self, part: Any, media: Callable[[], ClipMedia], spans: Spans, key: list[Any]
    ) -> dict[str, np.ndarray]:
        """The steps of an extractor: ``values [n, D]``, ``kept [n]`` and ``times [n, 2]``."""

        def make() -> dict[str, np.ndarray]:
            if part.modality == "text" and not spans.words:
                return _reason(spans.missing)
            try:
                steps = part(media())
                if not np.isfinite(steps.values).all():
                    raise MediaError(f"{part.name} gives numbers that are not finite; leave the extractor out")
                if self.settings.steps == "own" and part.modality != "text":
                    steps = at_rate(steps, self.settings.rate)
                    return {
                        "values": steps.values,
                        "kept": np.ones(len(steps.values), bool),
                        "times": np.stack([steps.start, steps.stop], 1).astype(np.float32).reshape(-1, 2),
                    }
                times = np.array(spans.times, np.float64).reshape(-1, 2)
                values, kept = pool(steps, spans.times)
                return {"values": values, "kept": kept, "times": times.astype(np.float32)}
            except Missing as missing:
                return _reason(str(missing))

        found = self._kept(key, make, dict)
        if "reason" in found:
            raise Missing(bytes(found["reason"]).decode())
        return found

    def _joined(self, pieces: list[dict[str, np.ndarray]], spans: Spans, modality: str) -> Sequence:
        """The features of several extractors side by side, at the steps that all of them have."""
        length = min(len(piece["values"]) for piece in pieces)
        values = np.concatenate([piece["values"][:length] for piece in pieces], axis=1)
        kept = np.logical_and.reduce([piece["kept"][:length] for piece in pieces])
        times = pieces[0]["times"][:length]
        what = "words" if spans.words else "steps"
        if not kept.any() or (self.settings.steps == "word" and kept.sum() * 2 < length):
            raise Missing(f"something at {int(kept.sum())} of {length} {what}")
        if self.settings.gaps == "fill" and self.settings.steps == "word":
            return Sequence(filled(values, kept), times)
        return Sequence(np.ascontiguousarray(values[kept], np.float32), times[kept])

    def _kept(self, key: list[Any], make: Callable[[], dict[str, np.ndarray]], read: Callable[[Any], Any]) -> Any:
        if self.cache is None:
            return read(make())
        name = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
        found = self.cache.read(name)
        if found is None and self.cache.only_read:
            raise DataError(
                f"the cache '{short(self.cache.folder)}' has lost what was extracted; run the command again"
            )
        if found is None:
            found = make()
            self.cache.write(name, found)
        return read(found)


def filled(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Values ``[n, D]`` in which a step that is not kept is the mean of the nearest kept ones on both sides."""
    there = np.flatnonzero(kept)
    places = np.arange(len(values))
    after = np.searchsorted(there, places)
    right = there[np.minimum(after, len(there) - 1)]
    left = there[np.maximum(np.where(kept, after, after - 1), 0)]
    return np.where(kept[:, None], values, (values[left] + values[right]) / 2).astype(np.float32)


def _spans(media: ClipMedia) -> Spans:
    words, why, share = [], "", 0.0
    with suppress(Missing):  # without sound, there may be a transcript
        share = sum(stop - start for start, stop in media.speech()) / max(media.duration, 1e-9)
    try:
        words = media.words()
    except Missing as missing:
        why = str(missing)
    return Spans(words, why, media.duration, min(share, 1.0), media.warnings)


def _pack_spans(spans: Spans) -> dict[str, np.ndarray]:
    return {"spans": np.frombuffer(json.dumps(spans).encode(), np.uint8)}


def _unpack_spans(found: Mapping[str, np.ndarray]) -> Spans:
    words, *rest = json.loads(bytes(found["spans"]))
    return Spans([Word(*word) for word in words], *rest)


def _reason(text: str) -> dict[str, np.ndarray]:
    return {"reason": np.frombuffer(text.encode(), np.uint8)}


def _about(extractor: Any) -> dict[str, Any]:
    """Name, version and fingerprint of an extractor."""
    return {"name": extractor.name, "version": extractor.version, **dict(extractor.fingerprint())}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

"""How features were extracted from raw media, as stores and runs record it; equal dimensions are not equal features."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from gmsa.data.notes import note
from gmsa.errors import DataError, cut

Extraction = Mapping[str, Any]
"""What a store of extracted media says: ``settings``, ``fingerprint`` by modality, ``columns`` and ``versions``."""
PACKAGES = frozenset(
    ("torch", "transformers", "tokenizers", "mediapipe", "ctranslate2", "faster-whisper", "onnxruntime", "pocketsphinx")
)
"""Packages whose versions stand in fingerprints."""
RUN = "the run's training data"


def check_extraction(own: Extraction | None, other: Extraction | None, modalities: Iterable[str], where: str) -> None:
    """Checks that features were extracted as those of a training.

    Features of the same dimension by other settings or weights would be read as what they are not. Where neither says
    how it was made, nothing is checked; nor where the other data are no extraction, such as a pickle's.

    Args:
        own: what the training says of its data.
        modalities: those whose features are read.
        where: what errors call the other data.

    Raises:
        DataError: they were extracted otherwise; names the modality and both extractors.
    """
    if other is None:
        return
    if own is None:
        raise DataError(
            f"{where}: was extracted from media, and {RUN} does not say how its features were made; equal dimensions "
            "are not equal features: train on an extracted store, or give features of the same making"
        )
    for modality in (*modalities, "words", "steps"):
        one, two = (_fingerprint(found, modality) for found in (own, other))
        if one != two and _without_versions(one) == _without_versions(two):
            note(
                f"{where}: {modality} was extracted with other versions of packages than {RUN}; last digits may differ"
            )
        elif one != two:
            raise DataError(
                f"{where}: {modality} was extracted with {describe(two)}, {RUN} with {describe(one)}; extract it with "
                "the run's own settings (gmsa predict --video does)"
            )


def describe(parts: Any) -> str:
    """Extractors with the beginning of their weights' SHA-256, as ``minilm (53aa5117)``."""
    if isinstance(parts, Mapping):
        return cut(", ".join(f"{key} {json.dumps(x)}" for key, x in parts.items() if key not in ("name", *PACKAGES)))
    if not isinstance(parts, list):
        return "nothing"
    names = []
    for part in parts:
        known = part if isinstance(part, Mapping) else {}
        weights = next((str(x)[:8] for key, x in known.items() if "sha256" in key or key == "weights"), "")
        names.append(f"{cut(known.get('name', '?'))}{f' ({weights})' if weights else ''}")
    return " and ".join(names) or "nothing"


def _without_versions(found: Any) -> Any:
    """A fingerprint without the versions of packages, which change last bits where weights and settings change all."""
    if isinstance(found, list):
        return [_without_versions(part) for part in found]
    if isinstance(found, Mapping):
        return {key: _without_versions(x) for key, x in found.items() if key not in PACKAGES}
    return found


def _fingerprint(extraction: Extraction, modality: str) -> Any:
    found = extraction.get("fingerprint")
    return found.get(modality) if isinstance(found, Mapping) else None

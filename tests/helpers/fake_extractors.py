"""Extractors of a user's own that are quick, say that they were called, and do harm where the name of a file asks it.

Tests copy this file to where a command finds it as a plug-in; it is never imported here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import numpy as np

from gmsa.media.pool import regular
from gmsa.media.types import Missing, Steps
from gmsa.registry import EXTRACTORS


class Fake:
    """Steps of half a second: where each begins, and how much there is of the clip, times a scale."""

    version = 1
    columns = ("begin", "share")

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def fingerprint(self) -> Mapping[str, str]:
        return {"scale": str(self.scale)}

    def __call__(self, media) -> Steps:
        name = media.clip.path.stem
        self._say(name)
        if name.startswith("die"):
            os._exit(9)
        if name.startswith("once") and not os.path.exists(mark := os.environ["FAKE_CALLS"] + name):
            with open(mark, "w"):
                os._exit(9)
        if name.startswith("hang"):
            time.sleep(600)
        if name.startswith("slow"):
            time.sleep(0.3)
        if name.startswith("wrong"):
            raise ValueError("no number")
        if name.startswith("lacks") and self.modality == "vision":
            raise Missing("a face in 0 % of 5 frames")
        times = regular(media.duration, 0.5)
        values = np.stack([times[:, 0], times[:, 1] / media.duration], 1) * self.scale
        if name.startswith("nan"):
            values[0] = np.nan
        return Steps(values.astype(np.float32), times[:, 0], times[:, 1])

    def _say(self, name: str) -> None:
        with open(os.environ["FAKE_CALLS"], "a") as file:
            threads = os.environ.get("OPENBLAS_NUM_THREADS")
            file.write(f"{self.modality} {name} {threads}\n")


@EXTRACTORS.register("fake_text")
class FakeText(Fake):
    """Pretends to extract text."""

    name = "fake_text"
    modality = "text"


@EXTRACTORS.register("fake_vision")
class FakeVision(Fake):
    """Pretends to extract vision."""

    name = "fake_vision"
    modality = "vision"

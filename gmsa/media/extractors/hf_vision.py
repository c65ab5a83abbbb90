"""Pictures: states of an image model of Hugging Face."""

# H features
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from gmsa.errors import ConfigError, shown
from gmsa.media.extractors.hf_folder import ModelFolder
from gmsa.media.extractors.text import check_layer
from gmsa.media.protocol import Media
from gmsa.media.types import Missing, Steps

_WITH_CLASS = ("beit", "clip", "clip_vision_model", "deit", "dinov2", "vit")
FAMILIES = (*_WITH_CLASS, "siglip", "siglip_vision_model")
"""Values of ``model_type`` that are taken."""
BATCH = 8
"""Frames that are read together."""


class HFVision:
    """States of a Hugging Face image model, such as CLIP, ViT or DINOv2, of whole frames.

    A frame's features are the state of the class token, or the mean over the patches in families without one (SigLIP).
    A step has the time of its frame as its middle, and lasts 1 / fps.

    Args:
        model: folder of the model and its image processor, with its weights as safetensors; no code of it is run.
        layer: whose states are taken; -1 is the last, 0 the embeddings.
        fps: frames a second that are looked at, at most.
        longest: pixels of a frame's longer side at most, before the processor scales it.

    Raises:
        ConfigError: there is no such model or layer, or a parameter is out of range.
    """

    name, modality, version = "hf_vision", "vision", 1

    def __init__(self, model: str, layer: int = -1, fps: float = 5, longest: int = 640) -> None:
        key = f"vision: {self.name}"
        if not 0 < fps <= 1000:
            raise ConfigError(f"'{key}': 'fps' must be above 0 and at most 1000 (got {shown(fps)})")
        if longest < 32:
            raise ConfigError(f"'{key}': 'longest' must be at least 32 (got {shown(longest)})")
        self.layer, self.fps, self.longest = layer, fps, longest
        self.folder = ModelFolder(model, key, FAMILIES)
        # Pillow, which torch needs no other package for: torchvision scales a little differently.
        self._processor = self.folder.processor("AutoImageProcessor", backend="pil")
        network = self.folder.network()
        self._network: Any = getattr(network, "vision_model", network)
        config = getattr(network.config, "vision_config", network.config)
        check_layer(layer, int(config.num_hidden_layers), key)
        self.columns = tuple(f"{self.name}_{i}" for i in range(int(config.hidden_size)))

    def fingerprint(self) -> Mapping[str, str]:
        """The settings, and what the folder holds."""
        settings = {"layer": self.layer, "fps": self.fps, "longest": self.longest}
        return {**{name: str(value) for name, value in settings.items()}, **self.folder.fingerprint()}

    def __call__(self, media: Media) -> Steps:
        """Extracts a step per frame, with :data:`BATCH` frames in memory at a time.

        Raises:
            Missing: the clip has no video track, or no frame.
        """
        if not media.has_video:
            raise Missing("a video track")
        times: list[float] = []
        values: list[np.ndarray] = []
        waiting: list[np.ndarray] = []
        for time, picture in media.frames(self.fps, self.longest):
            times.append(time)
            waiting.append(picture)
            if len(waiting) == BATCH:
                values.append(self.look(waiting))
                waiting = []
        if waiting:
            values.append(self.look(waiting))
        if not times:
            raise Missing("frames")
        middle, half = np.array(times, np.float64), 0.5 / self.fps
        return Steps(np.concatenate(values), np.maximum(middle - half, 0), middle + half)

    @torch.inference_mode()
    def look(self, pictures: list[np.ndarray]) -> np.ndarray:
        """The features of pictures, each uint8 ``[height, width, 3]``: float32 ``[len(pictures), H]``."""
        given = self._processor(pictures, return_tensors="pt", input_data_format="channels_last")
        output = self._network(given["pixel_values"], output_hidden_states=self.layer != -1)
        states = output.last_hidden_state if self.layer == -1 else output.hidden_states[self.layer]
        found: np.ndarray = (states[:, 0] if self.folder.family in _WITH_CLASS else states.mean(1)).numpy()
        return found

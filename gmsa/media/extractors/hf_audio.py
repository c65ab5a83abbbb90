"""Sound: states of a speech model of Hugging Face."""

# N samples, L steps, H features
from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
import torch

from gmsa.errors import ConfigError
from gmsa.media.extractors.hf_folder import ModelFolder
from gmsa.media.extractors.text import check_layer
from gmsa.media.protocol import Media
from gmsa.media.types import RATE, Missing, Steps

FAMILIES = (
    *("data2vec-audio", "hubert", "unispeech", "unispeech-sat", "wav2vec2", "wav2vec2-conformer", "wavlm"),
    "whisper",
)
"""Values of ``model_type`` that are taken."""
LONGEST, CONTEXT = 30, 1
"""Seconds of sound that are read at once, and those of them at each inner edge whose states are not taken."""


class HFAudio:
    """States of a Hugging Face speech model, such as HuBERT, WavLM, wav2vec 2.0 or Whisper's encoder.

    A step is as long as the stride of the model, 0.02 s in these families. Sound of more than :data:`LONGEST` seconds
    is read in blocks that overlap.

    Args:
        model: folder of the model and its feature extractor, with its weights as safetensors; no code of it is run.
        layer: whose states are taken; -1 is the last, 0 what the first layer reads.

    Raises:
        ConfigError: there is no such model or layer, or it is not for 16 kHz.
    """

    name, modality, version = "hf_audio", "audio", 1

    def __init__(self, model: str, layer: int = -1) -> None:
        key = f"audio: {self.name}"
        self.layer = layer
        self.folder = ModelFolder(model, key, FAMILIES)
        self._processor = self.folder.processor("AutoFeatureExtractor")
        if getattr(self._processor, "sampling_rate", None) != RATE:
            raise ConfigError(f"{self.folder.where}: its feature extractor is not for {RATE:,} Hz; name another model")
        network = self.folder.network()
        config = network.config
        if self.folder.family == "whisper":
            self._network: Any = network.get_encoder()
            self.stride, self.field, layers = 2 * int(self._processor.hop_length), 1, config.encoder_layers
        else:
            self._network = network
            self.stride, self.field = prod(config.conv_stride), _field(config.conv_kernel, config.conv_stride)
            layers = config.num_hidden_layers
        check_layer(layer, int(layers), key)
        self.columns = tuple(f"{self.name}_{i}" for i in range(int(config.hidden_size)))

    def fingerprint(self) -> Mapping[str, str]:
        """The layer, and what the folder holds."""
        return {"layer": str(self.layer), **self.folder.fingerprint()}

    @torch.inference_mode()
    def __call__(self, media: Media) -> Steps:
        """Extracts the steps of the whole sound.

        Raises:
            Missing: there is none.
        """
        samples = media.samples()
        if samples is None or not len(samples):
            raise Missing("sound")
        values = np.concatenate([self._states(samples, begin, end) for begin, end in self._blocks(len(samples))])
        start = np.arange(len(values)) * (self.stride / RATE)
        return Steps(values, start, start + self.stride / RATE)

    def _blocks(self, length: int) -> Iterator[tuple[int, int]]:
        """First sample, and the one after the last, of what each block gives states of."""
        size = length if length <= LONGEST * RATE else (LONGEST - 2 * CONTEXT) * RATE // self.stride * self.stride
        for begin in range(0, length, size):
            yield begin, min(begin + size, length)

    def _states(self, samples: np.ndarray, begin: int, end: int) -> np.ndarray:
        """States ``[L, H]`` of the steps that begin in a part of the sound, which is read with its context."""
        margin = CONTEXT * RATE // self.stride * self.stride
        first = max(begin - margin, 0)
        piece = samples[first : end + margin]
        piece = np.pad(piece, (0, max(self.field - len(piece), 0)))
        given = self._processor(piece, sampling_rate=RATE, return_tensors="pt")
        output = self._network(given[self._processor.model_input_names[0]], output_hidden_states=self.layer != -1)
        states = output.last_hidden_state if self.layer == -1 else output.hidden_states[self.layer]
        skipped, wanted = (begin - first) // self.stride, -(-(end - begin) // self.stride)
        found: np.ndarray = states[0, skipped : skipped + wanted].numpy()
        return found


def _field(kernels: list[int], strides: list[int]) -> int:
    """Samples that a stack of convolutions needs for one state."""
    field = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        field = (field - 1) * stride + kernel
    return field

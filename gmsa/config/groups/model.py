"""Settings of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from gmsa.config.components import parse_component
from gmsa.config.fields import ByModality, by_modality, component, number
from gmsa.config.presets import CONVS, DROPOUT, OTHERS
from gmsa.errors import ConfigError, cut, listed, nearest
from gmsa.registry import ENCODERS, LAYERS, MODELS

Convs = tuple[tuple[int, int], ...]
"""Convolutions of an encoder, as (kernel, stride)."""
STREAMS = ("intra", "inter", "global")
"""Streams that may have a layer of their own."""
MOST_CONVS, MOST_KERNEL, MOST_STEPS = 64, 1000, 1_000_000
"""Convolutions of an encoder, steps that one reads, and steps per token, at most."""


@dataclass(frozen=True)
class ModelConfig:
    """The model and its size."""

    name: str = component("semi_iin", MODELS)
    """Model to train."""
    layer: ByModality[str] = by_modality({OTHERS: "attention"}, LAYERS, by="stream")
    """Layer of message passing in the streams of a model: one for all, or by stream, as ``{intra: gatv2, inter:
    rgcn(bases=4)}``."""
    encoder: str = component("conv", ENCODERS)
    """Encoder of each modality's steps."""
    channels: int = number(128, ge=1, le=65_536)
    """Width C of every token."""
    heads: int = number(8, ge=1, le=1024)
    """Attention heads; must divide ``channels``."""
    layers: int = number(2, ge=1, le=128)
    """Interaction layers of each stream; for ``sslmm``, alternating blocks."""
    shared_layers: bool = True
    """Whether all layers of a stream, or all blocks, share their weights, as in Semi-IIN."""
    streams: Literal["both", "intra", "inter", "global"] = "both"
    """Streams of message passing: intra and inter, one of them, or one stream over all edges."""
    fusion: Literal["gate", "add", "dot", "concat"] = "gate"
    """How the readout nodes of the two streams are fused."""
    order: Literal["intra_first", "inter_first", "simultaneous"] = "intra_first"
    """For ``sslmm``: order of intra-modal and inter-modal messages in each block."""
    missing_node: Literal["gated", "silent", "dropped"] = "gated"
    """For ``sslmm`` on graphs of dialogues: whether the node of a missing modality sends messages through a gate, only
    receives, or is left out."""
    dropout: float = number(0.2, ge=0, lt=1)
    """Dropout after attention and feed-forward layers."""
    input_dropout: float = number(0.5, ge=0, lt=1)
    """Dropout on the features before the convolutions."""
    modality_dropout: ByModality[float] = by_modality(DROPOUT, ge=0, lt=1)
    """Probability that a modality is dropped in a training step, of which one always stays: one for all, or by
    modality, as ``{text: 0.2, others: 0.5}``."""
    encoders: ByModality[Convs] = by_modality(CONVS)
    """Convolutions of each modality's encoder, as (kernel, stride): one list for all, or by modality, as
    ``{eeg: [[4, 2], [4, 4]], others: [[3, 1]]}``. After the first, (0, s) is the maximum over s steps."""
    tokens: int = number(0, ge=0, le=1_000_000)
    """Tokens of a modality that 95 % of the training utterances may have at most: of one with more, the largest of
    several becomes a token, as the run's ``config.yaml`` says in ``encoders``; 0 sets no bound."""
    context_layers: int = number(1, ge=1, le=128)
    """In scope ``hierarchical``: layers over the graph of a dialogue, each stream's, or for ``sslmm`` blocks."""
    propagation: float = number(0.1, ge=0, le=1)
    """In scope ``hierarchical``: weight, from which training starts, of what is predicted of the utterances before, of
    those after and of the whole dialogue, all added to what is predicted of each utterance; 0 leaves them out."""
    sequence: Literal["none", "gru", "transformer"] = "none"
    """Encoder of a dialogue's utterances, modality by modality, before its graph."""
    positions: int = number(512, ge=1, le=1_000_000)
    """Position embeddings per modality: the maximum number of steps after striding."""
    route: Literal["auto", "dense", "edge"] = "auto"
    """How messages are computed: by dense masked attention, edge by edge, or by the faster of the two."""
    text_encoder: str | None = None
    """Folder of a Hugging Face text encoder, a package that holds one, or its id on the Hub: its states of the
    transcripts are the features of ``text``, in the place of those of the file. The group ``text`` says how."""

    def __post_init__(self) -> None:
        if not isinstance(self.layer, ByModality):
            layer = {OTHERS: self.layer} if isinstance(self.layer, str) else {OTHERS: "attention", **self.layer}
            object.__setattr__(self, "layer", ByModality(layer))
        for stream, spec in self.layer.items():
            if stream not in (*STREAMS, OTHERS):
                raise ConfigError(
                    f"'model.layer' has no stream '{cut(stream)}'{nearest(stream, STREAMS)}; name one of "
                    f"{listed(STREAMS)}, or {OTHERS}"
                )
            parse_component(spec, LAYERS, "model.layer" if len(self.layer) == 1 else f"model.layer.{stream}")

    def convs(self, modality: str) -> Convs:
        """Convolutions of one modality's encoder, as (kernel, stride)."""
        return self.encoders.of(modality)

    def stride(self, modality: str) -> int:
        """Steps per token of one modality's encoder."""
        return math.prod(stride for _, stride in self.convs(modality))

    def bounded(self, steps: Mapping[str, int]) -> ModelConfig:
        """These settings with encoders that keep to ``tokens``.

        Of a modality with too many, a token becomes the maximum of ``ceil(L / (s T))`` of them, feature by feature: L
        steps, s steps per token before, T tokens at most.

        Args:
            steps: of each modality, which 95 % of the utterances do not exceed.
        """
        if not self.tokens:
            return self
        factors = {m: -(-length // (self.stride(m) * self.tokens)) for m, length in steps.items()}
        changed = {m: (*self.convs(m), (0, factor)) for m, factor in factors.items() if factor > 1}
        return replace(self, encoders=ByModality({**self.encoders, **changed})) if changed else self

    def may_become(self, encoders: ByModality[Convs]) -> bool:
        """Whether :meth:`bounded` gives these encoders for some lengths."""
        names = {*self.encoders, *encoders}
        pairs = [(self.encoders.of(name), encoders.of(name)) for name in names]
        return bool(self.tokens) and all(now in (then, (*then, (0, now[-1][1]))) for then, now in pairs)


def check_convs(convs: Convs, key: str) -> None:
    """Refuses convolutions that no encoder can have.

    Raises:
        ConfigError: says why.
    """
    if not convs:
        raise ConfigError(f"'{key}' must name at least one [kernel, stride] pair")
    if len(convs) > MOST_CONVS:
        raise ConfigError(f"'{key}' must name at most {MOST_CONVS} convolutions")
    if math.prod(stride for _, stride in convs) > MOST_STEPS:
        raise ConfigError(f"'{key}' must have strides whose product is at most {MOST_STEPS:,}")
    for place, (kernel, stride) in enumerate(convs):
        if place and kernel == 0 and stride >= 1:  # a maximum
            continue
        if kernel > MOST_KERNEL:
            raise ConfigError(f"'{key}' must have kernels of at most {MOST_KERNEL:,} steps (got {kernel})")
        if not 1 <= stride <= kernel:
            raise ConfigError(
                f"'{key}' needs 1 <= stride <= kernel (got kernel {kernel}, stride {stride}); a kernel of 0, after the "
                "first, takes the maximum"
            )

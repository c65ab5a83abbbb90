"""Settings of text encoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gmsa.config.fields import number
from gmsa.errors import ConfigError


@dataclass(frozen=True)
class TextConfig:
    """How ``model.text_encoder`` reads transcripts."""

    tuning: Literal["full", "lora", "frozen"] = "full"
    """What of the encoder is trained with the rest: its weights, low-rank additions to them (LoRA), or nothing, so that
    its states are computed once and kept in a cache."""
    nodes: Literal["pieces", "words", "transcript"] = "pieces"
    """What a node of text is: a word piece; or a word or the whole transcript, whose state is the mean over its
    pieces."""
    source: Literal["raw_text", "text_bert"] = "raw_text"
    """What is read: the transcripts, or the word pieces in the file's ``text_bert``, which the encoder's own tokenizer
    must have made."""
    most: int = number(128, ge=1, le=100_000)
    """Word pieces of an utterance, at most; what is longer is cut, and a note says so."""
    dropout: float = number(0.0, ge=0, lt=1)
    """Share of the word pieces, or with ``nodes: words`` of the words, that a training step replaces by the tokenizer's
    mask piece. Whatever teaches sees all words."""
    frozen_layers: int = number(1, ge=0, le=1000)
    """Layers of the encoder that stay as they are while the others are trained, from below: 1 is its embeddings (of
    word pieces, places and what else there is below the first layer), 2 these and the first layer; 0 trains all."""
    lora_rank: int = number(8, ge=1, le=4096)
    """Rank of the additions where ``tuning`` is ``lora``."""
    checkpointing: bool = False
    """Whether the encoder's layers are computed again in the backward pass, which takes less memory and more time."""
    download: bool = False
    """Whether an encoder that is named by its id may be fetched from the Hub; else it must be in the local cache."""

    def __post_init__(self) -> None:
        if self.source == "text_bert" and self.nodes == "words":
            raise ConfigError(
                "'text.nodes: words' needs the transcripts: 'text_bert' does not say which word pieces are a word; set "
                "it to pieces, or 'text.source' to raw_text"
            )

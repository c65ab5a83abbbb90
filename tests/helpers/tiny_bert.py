"""A BERT of two layers with random weights, which knows a few words and all letters, and what it reads."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gmsa.config import Config, from_dict
from gmsa.data import Utterance
from gmsa.rng import seed_for
from gmsa.text import texts_of

WORDS = ("am", "was", "not", "very", "so", "happy", "sad", "angry", "and", "the", "film", "good", "bad", "day", "it")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
DIMS = {"text": 1, "audio": 4}
"""Features of a word piece, which is its number, and of audio."""


def tiny_bert(folder: Path, mask: bool = True, dropout: float = 0.1) -> Path:
    """Writes the folder; without ``mask`` the tokenizer has no mask piece."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs the extra text")
    transformers = pytest.importorskip("transformers", reason="needs the extra text")
    names = [*(s for s in SPECIALS if mask or s != "[MASK]"), *WORDS, *LETTERS, *(f"##{x}" for x in LETTERS)]
    numbers = {name: i for i, name in enumerate(names)}
    found = tokenizers.Tokenizer(tokenizers.models.WordPiece(numbers, unk_token="[UNK]"))
    found.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    ends = [(name, numbers[name]) for name in ("[CLS]", "[SEP]")]
    found.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    config = transformers.BertConfig(
        vocab_size=len(names),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.3,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(found.to_str())
    return folder


def reading(folder: Path, **groups: dict[str, Any]) -> Config:
    """A config of a small model of text and audio that reads with the encoder of a folder."""
    settings: dict[str, dict[str, Any]] = {
        "data": {"modalities": ["text", "audio"]},
        "model": {"name": "sslmm", "channels": 16, "heads": 4, "text_encoder": str(folder)},
        "optim": {"batch_size": 64},
    }
    for name, values in groups.items():
        settings[name] = settings.get(name, {}) | values
    return from_dict(settings)


def said(config: Config, texts: list[str], per_video: int = 3) -> list[Utterance]:
    """Utterances that say these texts, an empty one of which is missing, with 1 to 5 steps of audio."""
    read = texts_of(config)
    assert read is not None
    found = []
    for i, text in enumerate(texts):
        name = f"v{i // per_video}$_${i % per_video}"
        draw = torch.Generator().manual_seed(seed_for(name))
        features = {"text": read.pieces(text)[0], "audio": torch.randn(1 + i % 5, DIMS["audio"], generator=draw)}
        found.append(Utterance(name, features, i / 3 - 1, text=text))
    return found


TEXTS = [
    "I was so happy and joyful",
    "it was not very good",
    "",
    "sad",
    "I hate the film it was so bad",
    "so so",
    "love it and the day",
    "angry and sad was I not",
]


class ReadsOneByOne(nn.Module):
    """What :class:`gmsa.text.TextEncoder` does, utterance by utterance, with Hugging Face's network alone."""

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network, self.width = network, width

    def forward(self, numbers: Tensor, lengths: Tensor) -> Tensor:
        states = [numbers.new_zeros(0, self.width)]
        for part in numbers.split(lengths.tolist()):
            ids = [[int(piece) for piece in row if piece >= 0] for row in part.tolist()]
            flat = [*itertools.chain(*ids)]
            if not flat:
                continue
            sequence = torch.tensor([[SPECIALS.index("[CLS]"), *flat, SPECIALS.index("[SEP]")]])
            read = self.network(input_ids=sequence).last_hidden_state[0, 1:-1]
            states += [x.mean(0, keepdim=True) for x in read.split([len(row) for row in ids])]
        return torch.cat(states)

"""Text encoders for tests, as ``save_pretrained`` writes them: two layers, random weights; and what they read."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmsa.config import Config, from_dict
from gmsa.data import Utterance
from gmsa.rng import seed_for
from gmsa.text import texts_of
from helpers.tiny_data import tiny_content

FAMILIES = ("bert", "roberta", "distilbert")
OTHERS = ("albert", "mpnet")
"""Families whose networks differ from these: one layer that is used again, and biases by distance."""
WIDTH = 32
DIMS = {"text": 1, "audio": 4}
"""Features of a word piece, which is its number, and of audio."""
LETTERS = string.ascii_lowercase + ".,!?'"
WORDS = ("so", "it", "was", "not", "very", "and", "great", "good", "fine", "dull", "bad", "awful", "sad", "angry")
"""Words of one piece; the others are letters."""
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NUMBER = {piece: i for i, piece in enumerate((*SPECIALS, *WORDS, *LETTERS, *(f"##{x}" for x in LETTERS)))}
"""Numbers of the pieces of BERT."""
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


def make_encoder(
    folder: Path, family: str = "bert", seed: int = 0, dropout: float = 0.0, mask: bool = True, **settings: Any
) -> Path:
    """Writes an encoder with random weights and its tokenizer; returns its folder.

    Args:
        mask: the tokenizer has a mask piece.
        settings: of the family's config, in the place of those of a small one.
    """
    pytest.importorskip("tokenizers", reason="the extra 'text' is not installed")
    transformers = pytest.importorskip("transformers", reason="the extra 'text' is not installed")
    tokenizer = _tokenizer(family, mask)
    sizes: dict[str, Any] = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 64}
    if family == "distilbert":
        sizes |= {"dim": WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 48}
        sizes |= {"dropout": dropout, "attention_dropout": dropout}
    else:
        sizes |= {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
        sizes |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    sizes["pad_token_id"] = int(family in ("roberta", "mpnet"))
    config = transformers.AutoConfig.for_model(family, **sizes | {"initializer_range": 0.2} | settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = transformers.AutoModel.from_config(config)
        with torch.no_grad():
            for parameter in network.parameters():  # no bias is 0, no norm is 1
                parameter.add_(0.05 * torch.randn_like(parameter))
    transformers.utils.logging.disable_progress_bar()
    network.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    return folder


def _tokenizer(family: str, mask: bool) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    if family in ("roberta", "mpnet"):  # the bytes, and no merges
        specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        pieces = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
        tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        first, last = "<s>", "</s>"
    else:
        pieces = [piece for piece in NUMBER if mask or piece != "[MASK]"]
        specials = [piece for piece in SPECIALS if piece in pieces]
        tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        first, last = "[CLS]", "[SEP]"
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{first} $A {last}", None, [(x, specials.index(x)) for x in (first, last)]
    )
    return tokenizer


def spoken_content(prefix: str = "", silent: Callable[[int], bool] = lambda i: i % 5 == 4) -> dict[str, dict[str, Any]]:
    """The content of a file whose transcripts say the label; some utterances of each split say nothing."""
    content = tiny_content(prefix)
    rng = np.random.default_rng(len(prefix))
    for columns in content.values():
        texts = []
        for i, label in enumerate(columns["regression_labels"]):
            words = [*rng.choice([*WORDS, "film"], rng.integers(1, 7)), *(["good"] if label > 0 else ["bad"]) * 2]
            texts.append("" if silent(i) else " ".join(words))
        columns["raw_text"] = texts
    return content


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

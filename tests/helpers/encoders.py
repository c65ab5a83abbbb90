"""Text encoders for tests: small folders with random weights, as ``save_pretrained`` writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.tiny_data import tiny_content

FAMILIES = ("bert", "roberta", "distilbert")
OTHERS = ("albert", "mpnet")
"""Families whose networks differ from these: one layer that is used again, and biases by distance."""
SPECIALS = {
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "distilbert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "roberta": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
}
"""Special pieces by number."""
WORDS = ("so", "it", "was", "very", "good", "bad", "film", "dull", "fine", "not", "at", "all")
WIDTH = 32


def make_encoder(folder: Path, family: str = "bert", seed: int = 0, **settings: Any) -> Path:
    """Writes an encoder of two layers with random weights and its tokenizer; returns its folder.

    Args:
        settings: of the family's config, in the place of those of a small one without dropout.
    """
    import transformers

    tokenizer = _tokenizer(family)
    sizes: dict[str, Any] = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 64}
    if family == "distilbert":
        sizes |= {"dim": WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "dropout": 0.0, "attention_dropout": 0.0}
    else:
        sizes |= {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
        sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
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


def _tokenizer(family: str) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    specials = SPECIALS["roberta" if family == "mpnet" else family if family in SPECIALS else "bert"]
    if family in ("roberta", "mpnet"):  # the bytes, and no merges
        pieces = (*specials, *sorted(pre_tokenizers.ByteLevel.alphabet()))
        tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        first, last = "<s>", "</s>"
    else:  # letters, their continuations, and some words
        letters = "abcdefghijklmnopqrstuvwxyz.,!?'"
        pieces = (*specials, *letters, *(f"##{x}" for x in letters), *WORDS[:8])
        tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        first, last = "[CLS]", "[SEP]"
    tokenizer.add_special_tokens(list(specials))
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
            words = [*rng.choice(WORDS, rng.integers(1, 7)), *(["good"] if label > 0 else ["bad"]) * 2]
            texts.append("" if silent(i) else " ".join(words))
        columns["raw_text"] = texts
    return content

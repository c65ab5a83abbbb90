"""A text encoder of random weights, in milliseconds."""

from __future__ import annotations

import string
from pathlib import Path

import torch

WORDS = ("great", "good", "fine", "dull", "bad", "awful")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = (*SPECIALS, *WORDS, "so", "it", "was", "##ly", *string.ascii_lowercase, *(f"##{c}" for c in "aeiostn"))
NUMBER = {piece: number for number, piece in enumerate(VOCABULARY)}


def tiny_bert(folder: Path) -> Path:
    """Writes a BERT of 2 layers and width 32 for the words of :data:`VOCABULARY`; others are unknown pieces."""
    import tokenizers
    import transformers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    made = tokenizers.Tokenizer(models.WordPiece(NUMBER, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    settings = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=40, **settings)
        transformers.BertModel(config).save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))
    return folder

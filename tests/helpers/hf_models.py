"""Models of sound and pictures with random weights, as ``save_pretrained`` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SPEECH = ("hubert", "wav2vec2", "wavlm")
PICTURES = ("beit", "clip_vision_model", "deit", "dinov2", "siglip_vision_model", "vit")
WIDTH, LAYERS, SIDE = 32, 2, 32
"""Features of a state, layers, and pixels of a picture's side."""
_SMALL = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 48}


def make_model(folder: Path, family: str, **settings: Any) -> Path:
    """Writes a model with random weights and its processor; returns its folder."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    own: dict[str, Any]
    if family in SPEECH:
        own = _SMALL | {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
        processor = transformers.Wav2Vec2FeatureExtractor()
    elif family == "whisper":
        sizes = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in _WHISPER.items()}
        tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        own = {"d_model": WIDTH, "vocab_size": 99, **sizes, **tokens}
        processor = transformers.WhisperFeatureExtractor()
    else:
        pictures = _SMALL | {"image_size": SIDE, "patch_size": 8}
        if family == "clip":
            text = _SMALL | {"vocab_size": 99, "max_position_embeddings": 16}
            own = {"vision_config": pictures, "text_config": text, "projection_dim": 16}
        else:
            own = pictures
        processor = _processor(transformers, family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(family, **own | settings))
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


_WHISPER = {"layers": LAYERS, "attention_heads": 2, "ffn_dim": 48}


def _processor(transformers: Any, family: str) -> Any:
    names = {"clip": "CLIP", "clip_vision_model": "CLIP", "siglip_vision_model": "Siglip", "beit": "Beit"}
    size = {"height": SIDE, "width": SIDE}
    return getattr(transformers, f"{names.get(family, 'ViT')}ImageProcessorPil")(size=size, crop_size=size)

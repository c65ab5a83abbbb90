"""The folder of a Hugging Face text encoder, which may be a stranger's: what is read of it, and what is refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from gmsa.errors import ConfigError, GmsaError, cut, listed, short, shown
from gmsa.system.files import make_folder, sha256_of, write_bytes, write_text
from gmsa.system.memory import memory_of_machine
from gmsa.system.reading import entries, exists, expanded, is_folder, open_regular, read_bytes, read_json, read_text
from gmsa.text.packages import load_package

_WIDTHS = ("hidden_size", "dim")
KEY = "model.text_encoder"
"""The setting that names the folder, for errors."""
CONFIG, TOKENIZER, WEIGHTS, WHOLE = "config.json", "tokenizer.json", "*.safetensors", "model.safetensors"
MOST_TOKENIZER = 1 << 27
"""Bytes of a tokenizer's file, at most; that of a vocabulary of 250,000 pieces has 17 million."""
_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_FETCHED = ["*.json", "*.txt", "*.model", "*.safetensors"]
FAMILIES = (
    *("albert", "bert", "camembert", "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra", "ernie"),
    *("modernbert", "mpnet", "rembert", "roberta", "roberta-prelayernorm", "roformer", "xlm-roberta"),
    "xlm-roberta-xl",
)
"""Values of ``model_type`` that gmsa takes: encoders of text that are in transformers."""
_FROM_PADDING = {
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "mpnet"),
}
"""Families that count positions from the padding piece's number on."""
PASSED_OVER = {
    *("attn_implementation", "experts_implementation", "quantization_config", "pruned_heads"),
    *("id2label", "label2id", "num_labels", "return_dict", "output_attentions", "output_hidden_states"),
    *("torchscript", "torch_dtype", "dtype", "gradient_checkpointing", "architectures", "transformers_version"),
}
"""Entries of a ``config.json`` that are not read: they change no state, or ask for code or memory."""
_BOUNDS = {
    ("hidden_size", "dim"): 65_536,
    ("num_hidden_layers", "n_layers"): 128,
    ("num_hidden_groups", "inner_group_num"): 16,
    ("num_attention_heads", "n_heads"): 4096,
    ("max_position_embeddings",): 1 << 22,
    ("vocab_size",): 1 << 24,
}
"""Sizes in a ``config.json``, by their names in different families, and their limits."""
_VOCABULARIES = ("vocab.txt", "vocab.json")
"""Files that hold the pieces of a tokenizer which has no ``tokenizer.json``, beside those of SentencePiece."""
LARGEST = 1 << 24
"""Of any other whole number there."""


class EncoderFolder:
    """A folder with ``config.json``, a tokenizer, and weights as safetensors; no code of it is run.

    Args:
        name: the folder, an installed package that holds one, or an id on the Hub that is in the local cache.
        download: whether it may be fetched from the Hub.
        key: the setting that names it, for errors.

    Raises:
        ConfigError: there is none, or it holds what gmsa does not read.
    """

    def __init__(self, name: str, download: bool = False, key: str = KEY) -> None:
        self.name, self.key = name, key
        self.path = _find(name, download, key)
        found = read_json(self.path / CONFIG, kind=ConfigError)
        self._check(found)
        self.settings: dict[str, Any] = {k: x for k, x in found.items() if k not in PASSED_OVER and k[:1] != "_"}
        """What its ``config.json`` says of the network."""
        self._stamp = _stamp(self.path)

    def __repr__(self) -> str:
        return f"EncoderFolder({self.name!r})"

    @property
    def width(self) -> int:
        """Features of a state."""
        return int(next(self.settings[key] for key in _WIDTHS if key in self.settings))

    @property
    def padding(self) -> int:
        """Number of the piece that fills up a batch."""
        return int(self.settings.get("pad_token_id") or 0)

    @property
    def positions(self) -> int | None:
        """Most pieces that the encoder reads at once, the special ones among them; None where there is no limit."""
        found = self.settings.get("max_position_embeddings")
        if found is None:
            return None
        return int(found) - (self.padding + 1 if self.settings["model_type"] in _FROM_PADDING else 0)

    @property
    def is_changed(self) -> bool:
        """Whether its files have changed since it was opened; False where they are gone."""
        now = _stamp(self.path)
        return bool(now) and now != self._stamp

    @cached_property
    def tokenizer(self) -> str:
        """The content of ``tokenizer.json``, or of one that is made from other files where it is missing.

        Raises:
            ConfigError: there is no tokenizer, or none that can be read without code of its own.
        """
        if exists(self.path / TOKENIZER, ConfigError):
            return read_text(self.path / TOKENIZER, MOST_TOKENIZER, kind=ConfigError)
        transformers = load_package("transformers", self.key)
        try:
            if not any(p.name in _VOCABULARIES or p.suffix == ".model" for p in entries(self.path, ConfigError)):
                raise ValueError("no vocabulary")  # transformers would make one without words
            found = transformers.AutoTokenizer.from_pretrained(
                str(self.path),
                config=transformers.AutoConfig.for_model(**self.settings),
                local_files_only=True,
                trust_remote_code=False,
                use_fast=True,
            )
            return str(found.backend_tokenizer.to_str())
        except Exception as error:  # of many types, by what is missing
            raise ConfigError(
                f"'{self.key}': '{short(self.path)}' has no {TOKENIZER}, and no other tokenizer that can be read "
                f"({cut(error)}); save it with AutoTokenizer.save_pretrained"
            ) from None

    @cached_property
    def weights(self) -> list[Path]:
        """The files of its weights.

        Raises:
            ConfigError: there are none as safetensors.
        """
        found = [p for p in entries(self.path, ConfigError) if p.match(WEIGHTS)]
        if found:  # beside the whole, others may be those of other formats
            return [p for p in found if p.name == WHOLE] or found
        pickled = [p.name for p in entries(self.path, ConfigError) if p.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        raise ConfigError(
            f"'{self.key}': '{short(self.path)}' has no weights as safetensors"
            + (
                f", only {listed(pickled)}, which may run code when it is read; save it with "
                "save_pretrained(…, safe_serialization=True)"
                if pickled
                else "; name a folder that holds model.safetensors"
            )
        )

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file of weights; of several files, that of their SHA-256 in the order of their names."""
        found = [sha256_of(path, ConfigError) for path in self.weights]
        return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()

    @cached_property
    def tokenizer_sha256(self) -> str:
        """SHA-256 of the content of ``tokenizer.json``."""
        return hashlib.sha256(self.tokenizer.encode()).hexdigest()

    @property
    def about(self) -> dict[str, str]:
        """What a run records of its encoder."""
        return {
            "name": Path(self.name).name,
            "family": str(self.settings["model_type"]),
            "sha256": self.sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
        }

    def save(self, folder: Path, weights: bool = False) -> None:
        """Writes the settings and the tokenizer into a folder of the run.

        Args:
            weights: whether to write the weights, too.

        Raises:
            WriteError: they cannot be written.
        """
        make_folder(folder)
        write_text(folder / TOKENIZER, self.tokenizer)
        write_text(folder / CONFIG, json.dumps(self.settings, indent=2, sort_keys=True) + "\n")
        for path in self.weights if weights else ():
            write_bytes(folder / path.name, read_weights(path, memory_of_machine()))

    def _check(self, settings: Any) -> None:
        where = f"'{self.key}': '{short(self.path)}'"
        if not isinstance(settings, dict) or not isinstance(family := settings.get("model_type"), str):
            raise ConfigError(
                f"{where}: its {CONFIG} names no 'model_type'; name the folder of a text encoder, such as one that "
                "AutoModel.save_pretrained wrote"
            )
        if "auto_map" in settings:
            raise ConfigError(
                f"{where}: needs code of its own ('auto_map'), which gmsa does not run; choose an encoder of a family "
                "that transformers knows, such as bert or roberta"
            )
        if family not in FAMILIES or settings.get("is_decoder") or settings.get("is_encoder_decoder"):
            what = f"'model_type' {shown(family)}" if family not in FAMILIES else f"this {family}, a decoder,"
            raise ConfigError(f"{where}: {what} is no text encoder that gmsa takes; it takes {listed(FAMILIES)}")
        for keys, most in _BOUNDS.items():
            for key in keys:
                value = settings.get(key)
                if value is not None and not (type(value) is int and 1 <= value <= most):
                    raise ConfigError(
                        f"{where}: '{key}' in its {CONFIG} is {shown(value)}; it must be from 1 to {most:,}"
                    )
        for names in (_WIDTHS, ("vocab_size",)):
            if not any(settings.get(key) for key in names):
                raise ConfigError(f"{where}: its {CONFIG} has no {names[0]!r}; name the folder of a text encoder")
        padding = settings.get("pad_token_id")
        if padding is not None and not (type(padding) is int and 0 <= padding < settings["vocab_size"]):
            raise ConfigError(
                f"{where}: 'pad_token_id' in its {CONFIG} is {shown(padding)}; it must be the number of a piece"
            )
        if (large := too_large(settings)) is not None:
            raise ConfigError(f"{where}: its {CONFIG} holds {shown(large)}; no number there may be above {LARGEST:,}")


def has_weights(name: str, download: bool = False) -> bool:
    """Whether there is an encoder of this name with weights, whatever they are; the arguments are those of
    :class:`EncoderFolder`."""
    try:
        return any(path.match(WEIGHTS) for path in entries(_find(name, download), ConfigError))
    except ConfigError:
        return False


def read_weights(path: Path, most: int) -> bytes:
    """The content of a file of weights.

    Raises:
        ConfigError: it has more than ``most`` bytes, or cannot be read.
    """
    with open_regular(path, kind=ConfigError) as file:
        size = os.fstat(file.fileno()).st_size  # as many bytes of memory are asked for as may be read
    return read_bytes(path, min(most, size), kind=ConfigError)


def too_large(value: Any) -> int | None:
    """A whole number among nested values that is too large for a size."""
    if isinstance(value, (dict, list)):
        parts = value.values() if isinstance(value, dict) else value
        return next((found for part in parts if (found := too_large(part)) is not None), None)
    return value if type(value) is int and abs(value) > LARGEST else None


def _stamp(folder: Path) -> tuple[Any, ...]:
    """What changes when the files of an encoder do."""
    found = []
    with suppress(OSError, GmsaError):
        for path in entries(folder, ConfigError):
            if path.suffix in (".json", ".safetensors", ".txt", ".model"):
                about = path.stat()
                found.append((path.name, about.st_mtime_ns, about.st_size, about.st_ino))
    return tuple(found)


def _find(name: str, download: bool, key: str = KEY) -> Path:
    path = expanded(name, ConfigError)
    if is_folder(path, ConfigError):
        if not exists(path / CONFIG, ConfigError):
            raise ConfigError(
                f"'{key}': '{short(path)}' has no {CONFIG}; name the folder of a text encoder, such as one that "
                "AutoModel.save_pretrained wrote"
            )
        return path
    if exists(path, ConfigError) or name.startswith(".") or not _ID.fullmatch(name):
        state = "is a file" if exists(path, ConfigError) else "does not exist"
        raise ConfigError(f"'{key}': '{short(path)}' {state}; name the folder of a text encoder, or its id on the Hub")
    if (inside := _of_package(name)) is not None:
        return inside
    hub = load_package("huggingface_hub", key)
    try:
        return Path(hub.snapshot_download(repo_id=name, local_files_only=not download, allow_patterns=_FETCHED))
    except Exception as error:  # huggingface_hub's own, those of its HTTP library, and the system's
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        remedy = "check the id and the network" if download else "set 'text.download' to true to fetch it"
        raise ConfigError(
            f"'{key}': there is no folder or package '{cut(name)}', and the Hub's local cache lacks it ({reason}); "
            f"name a folder, or {remedy}"
        ) from None


def _of_package(name: str) -> Path | None:
    """The folder of an encoder that an installed package holds, which is not imported; None where there is none."""
    if not re.fullmatch(r"[A-Za-z][\w-]*", name):
        return None
    if (found := importlib.util.find_spec(name.replace("-", "_"))) is None:
        return None
    places = [Path(place) / part for place in found.submodule_search_locations or () for part in ("", "model")]
    return next((place for place in places if exists(place / CONFIG, ConfigError)), None)

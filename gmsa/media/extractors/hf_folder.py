"""The folder of a Hugging Face model of sound or pictures, which may be a stranger's: what is checked of it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from gmsa.errors import ConfigError, cut, listed, short, shown
from gmsa.system.files import sha256_of
from gmsa.system.packages import load_package
from gmsa.system.reading import entries, exists, expanded, is_folder, open_regular, read_json
from gmsa.text.folder import CONFIG, LARGEST, MOST_TOKENIZER, PASSED_OVER, WHOLE, too_large

PROCESSOR = "preprocessor_config.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
_UNUSED = ("masked_spec_embed", "pooler.", "mask_token")
"""Parts of names of weights that no state depends on, which a folder may lack."""


class ModelFolder:
    """A folder with ``config.json``, ``preprocessor_config.json`` and weights as safetensors; no code of it is run.

    Args:
        name: its path.
        key: the setting that names it, for errors.
        families: values of ``model_type`` that are taken.

    Raises:
        ConfigError: it is none of these, asks for code of its own, has pickled weights alone, or links that lead out.
    """

    def __init__(self, name: str, key: str, families: Collection[str]) -> None:
        self.path, self.key = expanded(name, ConfigError), key
        self.where = f"'{key}': '{short(self.path)}'"
        if not is_folder(self.path, ConfigError):
            raise ConfigError(f"{self.where} is no folder; name the folder of a model of Hugging Face")
        for needed in (CONFIG, PROCESSOR):
            if not exists(self.path / needed, ConfigError):
                raise ConfigError(
                    f"{self.where} has no {needed}; save the model and its processor with save_pretrained"
                )
        held = entries(self.path, ConfigError)
        contents = {p.name: read_json(p, MOST_TOKENIZER, inside=self.path, kind=ConfigError) for p in held if _json(p)}
        for file, content in contents.items():
            if _holds(content, "auto_map"):
                raise ConfigError(
                    f"{self.where}: needs code of its own ('auto_map' in {file}), which gmsa does not run; choose a "
                    f"model of a family that transformers knows: {listed(families)}"
                )
        if "adapter_config.json" in contents:
            raise ConfigError(f"{self.where} is an adapter, not a model; merge it into its model and save that")
        self.settings = self._checked(contents[CONFIG], families)
        """What its ``config.json`` says of the network."""
        self.weights = self._weights(held)

    @property
    def family(self) -> str:
        """Its ``model_type``."""
        return str(self.settings["model_type"])

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the weights; of several files, that of their SHA-256 in the order of their names."""
        found = [sha256_of(path, ConfigError) for path in self.weights]
        return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()

    def fingerprint(self) -> Mapping[str, str]:
        """SHA-256 of weights, settings and processor, and versions of the packages."""
        return {
            "weights": self.sha256,
            "config": sha256_of(self.path / CONFIG, ConfigError),
            "processor": sha256_of(self.path / PROCESSOR, ConfigError),
            **{name: version(name) for name in ("torch", "transformers")},
        }

    def processor(self, kind: str, **settings: Any) -> Any:
        """The processor of the folder, by the Auto class of transformers that is named.

        Raises:
            ConfigError: transformers cannot make it.
        """
        try:
            found = getattr(self._transformers, kind)
            return found.from_pretrained(str(self.path), local_files_only=True, trust_remote_code=False, **settings)
        except Exception as error:  # of many types, by what is wrong
            raise ConfigError(f"{self.where}: its {PROCESSOR} cannot be used ({cut(error)}); save it again") from None

    def network(self) -> Any:
        """The network with its weights, frozen.

        Raises:
            ConfigError: the weights are damaged, or not those of its ``config.json``.
        """
        try:
            wanted = self._transformers.AutoConfig.for_model(**self.settings)
            with torch.random.fork_rng(devices=[]):
                found, about = self._transformers.AutoModel.from_pretrained(
                    str(self.path),
                    config=wanted,
                    use_safetensors=True,
                    trust_remote_code=False,
                    local_files_only=True,
                    dtype=torch.float32,
                    output_loading_info=True,
                )
        except Exception as error:  # of many types, by what is wrong
            raise ConfigError(f"{self.where}: its weights cannot be read ({cut(error)}); fetch them again") from None
        if lacking := sorted(x for x in about["missing_keys"] if not any(part in x for part in _UNUSED)):
            raise ConfigError(
                f"{self.where}: its weights are not those of its {CONFIG} (they lack {lacking[0]!r}, {len(lacking)} in "
                "all); name the folder that they belong to"
            )
        return found.requires_grad_(False).eval()

    @cached_property
    def _transformers(self) -> Any:
        module = load_package("transformers", f"'{self.key}'", "media")
        module.logging.set_verbosity_error()
        module.logging.disable_progress_bar()
        return module

    def _checked(self, settings: Any, families: Collection[str]) -> dict[str, Any]:
        family = settings.get("model_type") if isinstance(settings, dict) else None
        if family not in families:
            raise ConfigError(
                f"{self.where}: 'model_type' in its {CONFIG} is {shown(family)}; gmsa takes {listed(families)} here"
            )
        if (large := too_large(settings)) is not None:
            raise ConfigError(
                f"{self.where}: its {CONFIG} holds {shown(large)}; no number there may be above {LARGEST:,}"
            )
        found: dict[str, Any] = _plain(settings)
        return found

    def _weights(self, held: list[Path]) -> list[Path]:
        found = [path for path in held if path.suffix == ".safetensors"]
        if not found:
            pickled = [path.name for path in held if path.suffix in _PICKLED]
            why = f"only {listed(pickled)}, which may run code when it is read" if pickled else "no others either"
            raise ConfigError(f"{self.where} has no weights as safetensors, {why}; save it with save_pretrained")
        found = [path for path in found if path.name == WHOLE] or found
        for path in found:
            open_regular(path, inside=self.path, kind=ConfigError).close()
        if found[0].name != WHOLE:
            index = self.path / f"{WHOLE}.index.json"
            parts = read_json(index, MOST_TOKENIZER, inside=self.path, kind=ConfigError)
            named = parts.get("weight_map") if isinstance(parts, dict) else None
            if not isinstance(named, dict) or not {*map(str, named.values())} <= {path.name for path in found}:
                raise ConfigError(f"{self.where}: {index.name} names weights that are not there; fetch it again")
        return found


def _json(path: Path) -> bool:
    return path.suffix == ".json"


def _holds(value: Any, key: str) -> bool:
    """Whether a key stands anywhere in nested values."""
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if key in part:
                return True
            parts += part.values()
        elif isinstance(part, list):
            parts += part
    return False


def _plain(value: Any) -> Any:
    """Settings without what changes no state, or asks for code or memory, at any depth."""
    if isinstance(value, dict):
        return {k: _plain(x) for k, x in value.items() if k not in PASSED_OVER and k[:1] != "_"}
    return value

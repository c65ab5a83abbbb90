"""Weights and training state on disk. Nothing here unpickles objects."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from gmsa.errors import RunError
from gmsa.files import write_bytes


def save_weights(path: Path, weights: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes tensors as safetensors, whole or not at all."""
    write_bytes(path, save_tensors({k: v.detach().cpu().contiguous() for k, v in weights.items()}, metadata))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        return load_tensors(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"'{path}' does not exist; train first, or name another run folder") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"'{path}' is damaged ({error}); restore it, or train again") from None


def load_into(model: nn.Module, path: Path) -> None:
    """Loads a safetensors file into ``model``.

    Raises:
        RunError: the file is missing or damaged, or holds the weights of another model.
    """
    weights = load_weights(path)
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        if name not in weights or name not in own or weights[name].shape != own[name].shape:
            raise RunError(
                f"'{path}' does not hold the weights of the model in the run's config.yaml ('{name}' differs); "
                "name the run folder that the weights came from"
            )
    model.load_state_dict(weights)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes a training state of tensors, numbers, strings, lists and dicts, whole or not at all."""
    stream = io.BytesIO()
    torch.save(state, stream)
    write_bytes(path, stream.getvalue())


def load_state(path: Path) -> dict[str, Any] | None:
    """Reads a training state; None where there is none.

    Raises:
        RunError: the file is damaged, or holds more than plain values and tensors.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged or hostile file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"'{path}' is damaged ({reason}); delete the seed's folder to train it again") from None
    if not isinstance(state, dict) or not {"history", "finished", "pending"} <= state.keys():
        raise RunError(f"'{path}' is damaged (not a training state); delete the seed's folder to train it again")
    return state

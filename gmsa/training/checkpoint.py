"""Weights and training states on disk, each with its SHA-256. Nothing here unpickles objects."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from gmsa.config.trained import other_settings
from gmsa.errors import RunError
from gmsa.system.files import write_bytes
from gmsa.system.reading import entries, parse_json

KEPT = 2
"""Training states kept on disk: the last, and the one before in case that is damaged."""
_STATE = re.compile(r"state-(\d{6,})\.([0-9a-f]{64})\.pt")
_AGAIN = "restore it, or train again"


def save_weights(path: Path, weights: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None) -> None:
    """Writes tensors as safetensors with their SHA-256 in the header, atomically.

    Args:
        settings: what they were trained with, which goes into the header too.

    Raises:
        WriteError: it cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    header = {"sha256": digest(tensors)}
    if settings is not None:  # one entry: safetensors writes several in any order, and equal runs are equal files
        header = {"trained": json.dumps(header | {"settings": settings}, sort_keys=True)}
    write_bytes(path, save_tensors(tensors, header))


def load_weights(path: Path, settings: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """Reads a safetensors file that :func:`save_weights` wrote.

    Args:
        settings: what they must have been trained with.

    Raises:
        RunError: the file is missing or damaged, or of other settings.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header: Any = file.metadata() or {}
        if "trained" in header:
            header = parse_json(header["trained"])
        expected, trained = header.get("sha256"), dict(header.get("settings", {}))
        weights = load_tensors(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"'{path}' does not exist; train first, or name another run folder") from None
    except Exception as error:  # safetensors raises many types for a damaged or hostile header
        kind = "" if isinstance(error, (SafetensorError, OSError)) else f"{type(error).__name__}: "
        raise RunError(f"'{path}' is damaged ({kind}{' '.join(str(error).split())}); {_AGAIN}") from None
    if digest(weights) != expected:
        raise RunError(f"'{path}' is damaged (its SHA-256 is not the one in its header); {_AGAIN}")
    if settings is not None and (others := other_settings(trained, settings)):
        raise RunError(
            f"'{path}' was trained with other settings than the run's config.yaml has ({'; '.join(others)}); "
            "put that file back, or train again"
        )
    return weights


def digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, whatever the order."""
    found = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        found.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def load_into(model: nn.Module, path: Path, settings: Mapping[str, Any] | None = None) -> None:
    """Loads a safetensors file into ``model``.

    Args:
        settings: what the weights must have been trained with.

    Raises:
        RunError: the file is missing or damaged, or holds the weights of another model or of other settings.
    """
    weights = load_weights(path, settings)
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        if name not in weights or name not in own or weights[name].shape != own[name].shape:
            raise RunError(
                f"'{path}' does not hold the weights of the model in the run's config.yaml ('{name}' differs); "
                "name the run folder that the weights came from"
            )
    model.load_state_dict(weights)


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Writes a training state of tensors, numbers, strings, lists and dicts; the last :data:`KEPT` ones stay.

    Its name counts up and ends in the SHA-256 of its content: ``state-000012.<64 hex digits>.pt``. So one rename writes
    both.

    Raises:
        WriteError: it cannot be written; the earlier ones are unchanged.
    """
    stream = io.BytesIO()
    torch.save(state, stream)
    content = stream.getbuffer()
    before = list_states(folder)
    number = before[-1][0] + 1 if before else 1
    write_bytes(folder / f"state-{number:06d}.{hashlib.sha256(content).hexdigest()}.pt", content)
    for _, path in before[: 1 - KEPT]:
        path.unlink(missing_ok=True)


def load_state(
    folder: Path, usable: Callable[[dict[str, Any]], None], say: Callable[[str], None]
) -> dict[str, Any] | None:
    """The last intact training state of a folder; None where there is none at all.

    Args:
        usable: raises a RunError where a file that the state needs is missing or damaged.
        say: takes a warning for each damaged state that is skipped.

    Raises:
        RunError: all of them are damaged.
    """
    problems: dict[Path, str] = {}
    for _, path in reversed(list_states(folder)):
        try:
            state = _read_state(path)
            usable(state)
        except RunError as error:
            problems[path] = str(error)
            continue
        for damaged, problem in problems.items():
            damaged.replace(damaged.with_name(f"damaged-{damaged.name}"))  # else it would count as one of those kept
            say(f"WARNING: {problem}; resuming from '{path.name[:12]}', the one before.")
        return state
    if problems:
        raise RunError(f"{next(iter(problems.values()))}; no other is left: delete '{folder}' to train it again")
    return None


def list_states(folder: Path) -> list[tuple[int, Path]]:
    """Numbers and paths of the training states, oldest first."""
    found = ((_STATE.fullmatch(path.name), path) for path in entries(folder))
    return sorted((int(match[1]), path) for match, path in found if match)


def _read_state(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"'{path}' cannot be read ({error.strerror or error})") from None
    match = _STATE.fullmatch(path.name)
    assert match is not None
    if hashlib.sha256(content).hexdigest() != match[2]:
        raise RunError(f"'{path}' is damaged (its SHA-256 is not the one in its name)")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a hostile file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"'{path}' is damaged ({reason})") from None
    if not isinstance(state, dict) or not {"history", "finished", "pending", "start"} <= state.keys():
        raise RunError(f"'{path}' is damaged (not a training state)")
    return state

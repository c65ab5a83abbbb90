"""Weights and training states on disk, each with its SHA-256. Nothing here unpickles objects."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from gmsa.config.trained import few, other_settings
from gmsa.errors import RunError, cut
from gmsa.system.files import remove, rename, write_bytes
from gmsa.system.reading import MOST_RECORDS, entries, exists, open_regular, parse_json, read_bytes, reason_of
from gmsa.system.records import ANY, TEXT, Fields, Items, Map, check_form, one_of, whole

KEPT = 2
"""Training states kept on disk: the last, and the one before in case that is damaged."""
_STATE = re.compile(r"state-(\d{6,12})\.([0-9a-f]{64})\.pt")
_AGAIN = "restore it, or train again"
MOST_HEADER = 1 << 24
"""Bytes of the header of a safetensors file: names and shapes of 100,000 tensors."""
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types of tensors that gmsa writes."""


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


def load_weights(
    path: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    like: Mapping[str, Tensor] | None = None,
    inside: Path | None = None,
    most: int = MOST_RECORDS,
) -> dict[str, Tensor]:
    """Reads a safetensors file that :func:`save_weights` wrote.

    Its header is compared with what is expected before any tensor is read.

    Args:
        settings: what they must have been trained with.
        like: tensors, maybe on the device ``meta``, whose names, types and shapes it must have.
        inside: a folder, maybe a stranger's, that links must not lead out of.
        most: bytes of all tensors, where ``like`` does not say.

    Raises:
        RunError: the file is missing or damaged, or of other settings or of another model.
    """
    if not exists(path):
        raise RunError(f"'{path}' does not exist; train first, or name another run folder")
    with open_regular(path, inside=inside) as file:
        try:
            header = _read_header(file)
            found = {name: _describe(name, entry) for name, entry in header.items() if name != "__metadata__"}
            expected, trained = _provenance(header.get("__metadata__", {}))
        except (OSError, ValueError) as error:
            raise RunError(f"'{path}' is damaged ({cut(reason_of(error))}); {_AGAIN}") from None
        if settings is not None and (others := other_settings(trained, settings)):
            raise RunError(
                f"'{path}' was trained with other settings than the run's config.yaml has ({few(others)}); "
                "put that file back, or train again"
            )
        if like is not None:
            _compare(found, like, path)
        size = sum(math.prod(shape) * dtype.itemsize for dtype, shape in found.values())
        if like is None and size > most:
            raise RunError(
                f"'{path}' is damaged (its header asks for {size:,} bytes, too many for such a file); {_AGAIN}"
            )
        try:
            begin = file.tell()
            if os.fstat(file.fileno()).st_size != begin + size:
                raise ValueError("its size is not the one that its header says")
            file.seek(0)
            weights = load_tensors(file.read(begin + size))
        except Exception as error:  # safetensors raises many types for a damaged or hostile header
            raise RunError(f"'{path}' is damaged ({cut(reason_of(error))}); {_AGAIN}") from None
    if digest(weights) != expected or {name: (x.dtype, tuple(x.shape)) for name, x in weights.items()} != found:
        raise RunError(f"'{path}' is damaged (its SHA-256 is not the one in its header); {_AGAIN}")
    return weights


def _read_header(file: BinaryIO) -> dict[str, Any]:
    """The header of a safetensors file: per tensor its type, shape and place; errors are ValueErrors."""
    length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise ValueError(f"a header of {length:,} bytes")
    content = file.read(length)
    if len(content) != length or not length:
        raise ValueError("its header is cut off")
    header = parse_json(content.decode("utf-8"))
    if not isinstance(header, dict):
        raise ValueError("its header is not a mapping")
    return header


def _describe(name: str, entry: Any) -> tuple[torch.dtype, tuple[int, ...]]:
    """Type and shape of a tensor in a header."""
    check_form(entry, Fields({"dtype": one_of(*_DTYPES), "shape": Items(whole(0, 2**48), 8)}), name)
    return _DTYPES[entry["dtype"]], tuple(entry["shape"])


def _provenance(header: Any) -> tuple[Any, Mapping[str, Any]]:
    """The SHA-256 and the settings that a header holds."""
    check_form(header, Map(TEXT), "__metadata__")
    if "trained" in header:
        header = parse_json(header["trained"])
        check_form(header, Fields({"sha256": TEXT}, {"settings": Map(ANY)}), "trained")
    return header.get("sha256"), header.get("settings", {})


def _compare(found: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], like: Mapping[str, Tensor], path: Path) -> None:
    for name in sorted(like.keys() | found.keys()):
        if name not in found or name not in like or found[name] != (like[name].dtype, tuple(like[name].shape)):
            raise RunError(
                f"'{path}' does not hold the weights of the model in the run's config.yaml ('{cut(name)}' differs); "
                "name the run folder that the weights came from"
            )


def digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, whatever the order."""
    found = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        found.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def load_into(
    model: nn.Module, path: Path, settings: Mapping[str, Any] | None = None, inside: Path | None = None
) -> None:
    """Loads a safetensors file into ``model``.

    Args:
        settings: what the weights must have been trained with.
        inside: a folder, maybe a stranger's, that links must not lead out of.

    Raises:
        RunError: the file is missing or damaged, or holds the weights of another model or of other settings.
    """
    model.load_state_dict(load_weights(path, settings, like=model.state_dict(), inside=inside))


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
        remove(path)


def load_state(
    folder: Path, usable: Callable[[dict[str, Any]], None], say: Callable[[str], None], most: int = MOST_RECORDS
) -> dict[str, Any] | None:
    """The last intact training state of a folder; None where there is none at all.

    Args:
        usable: raises a RunError where a part of the state is wrong, or a file that it needs is missing or damaged;
            a ValueError where the part of the state is not what it must be.
        say: takes a warning for each damaged state that is skipped.
        most: bytes that a state can have.

    Raises:
        RunError: all of them are damaged.
    """
    problems: dict[Path, str] = {}
    for _, path in reversed(list_states(folder)):
        try:
            state = _read_state(path, most)
            try:
                usable(state)
            except ValueError as error:
                raise RunError(f"'{path}' is damaged ({cut(error)})") from None
        except RunError as error:
            problems[path] = str(error)
            continue
        for damaged, problem in problems.items():
            rename(damaged, f"damaged-{damaged.name}")  # else it would count as one of those kept
            say(f"WARNING: {problem}; resuming from '{path.name[:12]}', the one before.")
        return state
    if problems:
        raise RunError(
            f"{next(iter(problems.values()))}; no other is left: restore one, or delete '{folder}' to train it again"
        )
    return None


def list_states(folder: Path) -> list[tuple[int, Path]]:
    """Numbers and paths of the training states, oldest first."""
    found = ((_STATE.fullmatch(path.name), path) for path in entries(folder))
    return sorted((int(match[1]), path) for match, path in found if match)


def _read_state(path: Path, most: int) -> dict[str, Any]:
    content = read_bytes(path, most, inside=path.parent)
    match = _STATE.fullmatch(path.name)
    assert match is not None
    if hashlib.sha256(content).hexdigest() != match[2]:
        raise RunError(f"'{path}' is damaged (its SHA-256 is not the one in its name)")
    try:
        if not content.startswith(b"PK\x03\x04"):  # torch would read it by its older formats
            raise ValueError("it is no archive")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:  # a small one may unpack to a large one
            if sum(entry.file_size for entry in archive.infolist()) > len(content):
                raise ValueError("it is compressed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, on how a hostile one was written
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a hostile file
        raise RunError(f"'{path}' is damaged ({cut(str(error) or type(error).__name__)})") from None
    if not isinstance(state, dict) or not {"history", "finished", "pending", "start"} <= state.keys():
        raise RunError(f"'{path}' is damaged (not a training state)")
    return state

"""Run folders as a stranger, or a broken disk, may leave them: each kind is a change of a finished run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load

from gmsa.training.checkpoint import save_weights

Change = Callable[[Path], object]
SEED = "seed-1"
WEIGHTS = f"{SEED}/model.safetensors"
HISTORY = f"{SEED}/history.jsonl"
STAGE = f"{SEED}/supervised.safetensors"
NORMALIZER = "normalizer.safetensors"
RECORD = ".writer.json"
LAST = f"{SEED}/state"
"""Stands for the last training state, whatever its name."""
FILES = {
    "config": "config.yaml",
    "environment": "environment.json",
    "normalizer": NORMALIZER,
    "weights": WEIGHTS,
    "stage": STAGE,
    "history": HISTORY,
    "summary": "summary.json",
    "robustness": "robustness.json",
    "record": RECORD,
    "state": LAST,
}
DEEP = "[" * 100_000


def outside(run: Path) -> Path:
    """A folder beside the run, in which nothing may change."""
    return run.parent / "outside"


# --- what may stand in the place of a file ---------------------------------------------------------------------------


def find(run: Path, name: str) -> Path:
    return max((run / SEED).glob("state-*.pt")) if name == LAST else run / name


def put(content: bytes, name: str, run: Path) -> None:
    find(run, name).write_bytes(content)


def replaced(act: Callable[[Path, bytes], object], name: str, run: Path) -> None:
    path = find(run, name)
    content = path.read_bytes() if path.exists() else b"{}"
    path.unlink(missing_ok=True)
    act(path, content)


def sparse(path: Path, content: bytes) -> None:
    path.touch()
    os.truncate(path, 100 << 30)


def linked_away(path: Path, content: bytes) -> None:
    run = next(folder for folder in path.parents if outside(folder).exists())
    target = outside(run) / path.name
    target.write_bytes(content)
    path.symlink_to(target)


def bound(path: Path, content: bytes) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


IN_PLACE: dict[str, Callable[[Path, bytes], object]] = {
    "a FIFO": lambda path, content: os.mkfifo(path),
    "a link to /dev/zero": lambda path, content: path.symlink_to("/dev/zero"),
    "a link that leads out": linked_away,
    "a link that leads nowhere": lambda path, content: path.symlink_to("nowhere"),
    "a link to itself": lambda path, content: path.symlink_to(path.name),
    "a folder": lambda path, content: path.mkdir(),
    "a socket": bound,
    "100 GB of nothing": sparse,
    "empty": lambda path, content: path.touch(),
    "noise": lambda path, content: path.write_bytes(bytes(range(256)) * 8),
    "cut in half": lambda path, content: path.write_bytes(content[: len(content) // 2]),
    "nested": lambda path, content: path.write_text(DEEP),
}


# --- settings and JSON -----------------------------------------------------------------------------------------------


def setting(key: str, value: Any, run: Path) -> None:
    """Changes a setting of the run, and of its weights' header too."""
    file = run / "config.yaml"
    settings = yaml.safe_load(file.read_text())
    *groups, last = key.split(".")
    group = settings
    for name in groups:
        group = group[name]
    group[last] = value
    file.write_text(yaml.safe_dump(settings))
    for path in (run / SEED).glob("*.safetensors"):
        save_weights(path, load(path.read_bytes()))  # without settings, as an earlier version wrote it


def entry(file: str, key: str, value: Any, run: Path) -> None:
    """Changes an entry of a JSON file; a value in angle brackets is put in as it is."""
    me = {"host": socket.gethostname(), "pid": 7, "boot": "", "since": "1999"}
    content = json.loads((run / file).read_text()) if (run / file).exists() else me
    *groups, last = key.split(".")
    group = content
    for name in groups:
        group = group[name]
    raw = value[1:-1] if isinstance(value, str) and value.startswith("<") else None
    group[last] = "RAW" if raw is not None else value
    text = json.dumps(content)
    (run / file).write_text(text if raw is None else text.replace('"RAW"', raw))


def without(file: str, key: str, run: Path) -> None:
    content = json.loads((run / file).read_text())
    del content[key]
    (run / file).write_text(json.dumps(content))


def epoch(key: str, raw: str, run: Path) -> None:
    """Changes an entry of the first row of the history."""
    first, *others = (run / HISTORY).read_text().splitlines()
    text = json.dumps(json.loads(first) | {key: "RAW"}).replace('"RAW"', raw)
    (run / HISTORY).write_text("\n".join([text, *others]) + "\n")


# --- tensors ---------------------------------------------------------------------------------------------------------


def tensors(name: str, change: Callable[[dict[str, torch.Tensor]], object], run: Path) -> None:
    """Changes the tensors of a file, under a true SHA-256."""
    weights = dict(load((run / name).read_bytes()))
    change(weights)
    save_weights(run / name, weights)


def cast(dtype: torch.dtype, weights: dict[str, torch.Tensor]) -> None:
    weights.update({name: tensor.to(dtype) for name, tensor in weights.items()})


def header(name: str, change: Callable[[dict[str, Any]], Any], run: Path) -> None:
    """Changes the header of a safetensors file."""
    raw = (run / name).read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    head = json.loads(raw[8 : 8 + length])
    changed = change(head)
    text = (changed if isinstance(changed, str) else json.dumps(head)).encode()
    (run / name).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def first_tensor(head: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(head[name] for name in head if name != "__metadata__")
    return found


def giant(name: str, run: Path) -> None:
    """A sparse file whose header says that it is right."""
    size = 1 << 40
    text = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    (run / name).write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(run / name, 8 + len(text) + size)


# --- training states -------------------------------------------------------------------------------------------------


def write_state(folder: Path, content: bytes, number: int) -> None:
    """Writes a state under its true SHA-256."""
    (folder / f"state-{number:06d}.{hashlib.sha256(content).hexdigest()}.pt").write_bytes(content)


def states(change: Callable[[dict[str, Any]], Any], run: Path) -> None:
    """Changes every state, under a true SHA-256."""
    for path in (run / SEED).glob("state-*.pt"):
        state = torch.load(path, weights_only=True)
        changed = change(state)
        stream = io.BytesIO()
        torch.save(state if changed is None else changed, stream)
        path.unlink()
        write_state(path.parent, stream.getvalue(), int(path.name[6:12]))


def bomb(run: Path) -> None:
    """A state that unpacks to 4 GB."""
    path = find(run, LAST)
    stream = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name.endswith("data.pkl"):
                with new.open(name, "w", force_zip64=True) as file:
                    file.write(old.read(name))
                    for _ in range(256):
                        file.write(bytes(1 << 20))
            else:
                new.writestr(name, old.read(name))
    for old_state in (run / SEED).glob("state-*.pt"):
        old_state.unlink()
    write_state(run / SEED, stream.getvalue(), 7)


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


def doubled(levels: int) -> list[Any]:
    """A list that is endless in print and small in a pickle."""
    found: list[Any] = []
    for _ in range(levels):
        found = [found, found]
    return found


# --- links -----------------------------------------------------------------------------------------------------------


def folder_linked(name: str, run: Path) -> None:
    """A folder of the run that is a link to one outside, in which a file lies that is not gmsa's to delete."""
    target = outside(run) / name
    if (run / name).exists():
        shutil.move(run / name, target)
    else:
        target.mkdir(parents=True)
    (target / f".x.{'0' * 16}.tmp").touch()
    (run / name).symlink_to(target)


def many_files(run: Path) -> None:
    for number in range(5_000):
        (run / SEED / f"state-{number:06d}.{'0' * 64}.pt.old").touch()


# --- the table -------------------------------------------------------------------------------------------------------

KINDS: dict[str, tuple[Change, str]] = {}
"""Per kind, what changes a finished run, and who must refuse it: ``p`` predict, ``e`` evaluate, ``m`` evaluate
--missing, ``r`` train --resume. The others must do as if nothing had been changed."""

_READERS = {
    "config": "pemr",
    "environment": "pemr",
    "normalizer": "pemr",
    "weights": "pem",  # a resumed run writes them again
    "stage": "",  # it is of a state that counts as damaged, and the one before is used
    "history": "e",
    "summary": "m",
    "robustness": "",  # costs its section alone
    "record": "",  # the lock decides, not its record
    "state": "",  # the one before is used
}
_OTHERWISE = {
    "record, a folder": "mr",
    "summary, a folder": "mr",
    "weights, a folder": "pemr",
    "robustness, a folder": "m",
    "stage, a folder": "r",
    "state, a link that leads nowhere": "",
}
for _name, _file in FILES.items():
    for _what, _act in IN_PLACE.items():
        _kind = f"{_name}, {_what}"
        KINDS[_kind] = (partial(replaced, _act, _file), _OTHERWISE.get(_kind, _READERS[_name]))

_SETTINGS: dict[str, tuple[Any, str]] = {
    "model.layers": (10**9, "pemr"),
    "model.shared_layers": ("maybe", "pemr"),
    "model.positions": (10**9, "pemr"),
    "model.channels": (65_536, "pemr"),
    "model.heads": (4096, "pemr"),
    "model.text_convs": ([[10**9, 1]], "pemr"),
    "model.audio_convs": ([[3, 1]] * 1000, "pemr"),
    "model.vision_convs": ([[1000, 1000]] * 20, "pemr"),
    "model.name": ("no_such", "pemr"),
    "model.layer": ("gatv2(heads=1000000000)", "pemr"),
    "model.modality_dropout.text": (1.5, "pemr"),
    "run.threads": (100_000, "pemr"),
    "run.workers": (10**6, "pemr"),
    "run.seeds": (list(range(20_000)), "pemr"),
    "run.select": ("\x1b]0;x\x07", "pemr"),
    "run.metrics": (["no_such"], "pemr"),
    "run.save_every": (float("nan"), "pemr"),
    "optim.batch_size": (10**18, "pemr"),
    "optim.epochs": (10**18, "pemr"),
    "optim.lr": ("1e400", "pemr"),
    "consistency.passes": (10**9, "pemr"),
    "distillation.teachers": (10**9, "pemr"),
    "self_training.rounds": (10**9, "pemr"),
    "self_training.k": (-1, "pemr"),
    "pretrain.epochs": (10**15, "pemr"),
    "pretrain.temperature": (1e-400, "pemr"),
    "graph.radius": (10**12, "pemr"),
    "graph.intra": ("window(radius=1000000000000)", "pemr"),
    "graph.inter": ("no_such", "pemr"),
    "graph.context": (10**12, "pemr"),
    "data.clip": (float("inf"), "pemr"),
    "data.modalities": (["text"], "pemr"),
    "data.normalize": ("audio", "pemr"),
    "data.path": ("/dev/zero", "emr"),
    "data.label_seed": (10**30, "pemr"),
    "data.missing": ({"train": "eta:7"}, "pemr"),
    "plugins": (["no_such_plugin"], ""),
    "base": ("mosi_graph", "pemr"),
}
for _key, (_value, _by) in _SETTINGS.items():
    KINDS[f"config, {_key} {str(_value)[:30]!r}"] = (partial(setting, _key, _value), _by)

_ENTRIES: list[tuple[str, str, Any, str]] = [
    *(("environment.json", "dims.text", value, "pemr") for value in (-5, 0, 10**12, True, "4", None, [4], 4.5)),
    *(("environment.json", "dims.text", raw, "pemr") for raw in ("<Infinity>", "<NaN>", f"<1{'0' * 400}>", "<1e999>")),
    ("environment.json", "dims.text", f"<{'9' * 10_000}>", "pemr"),
    ("environment.json", "dims.text", 5, "pem"),
    ("environment.json", "dims", {}, "pemr"),
    ("environment.json", "dims", {"odor": 4}, "pemr"),
    ("environment.json", "dims", [4, 3, 2], "pemr"),
    *(("environment.json", "data_sha256", value, "pemr") for value in (None, 5, "x" * 64, "0" * 10**5, ["0" * 64])),
    ("environment.json", "data_sha256", "0" * 64, "emr"),
    ("environment.json", "pool_sha256", 5, "pemr"),
    ("environment.json", "synthetic", "yes", "pemr"),
    ("environment.json", "plugins", {"a": 1}, "pemr"),
    ("environment.json", "plugins", ["a"] * 5000, "pemr"),
    ("environment.json", "versions", "1.0", "pemr"),
    ("environment.json", "saved", 1, "pemr"),
    ("environment.json", "git", DEEP, ""),
    ("summary.json", "valid", 5, "m"),
    ("summary.json", "valid.MAE", {"mean": "x", "std": 0, "values": [0]}, "m"),
    ("summary.json", "test.MAE.mean", f"<1{'0' * 400}>", "m"),
    ("summary.json", "test.MAE.mean", "<NaN>", "m"),
    ("summary.json", "seeds", "1", "m"),
    ("summary.json", "stages", [1], "m"),
    ("summary.json", "missing", {"test": 3}, "m"),
    ("summary.json", "parameters", "many", "m"),
    ("summary.json", "train_seconds", None, "m"),
    ("robustness.json", "protocols", {"eta": {"rows": []}}, ""),
    ("robustness.json", "protocols", {"eta": {"rows": [{}]}}, ""),
    ("robustness.json", "protocols", {"\x1b[2J": {"rows": []}}, ""),
    ("robustness.json", "protocols", 7, ""),
    ("robustness.json", "seeds", {"a": 1}, ""),
    ("robustness.json", "mask_seeds", f"<1{'0' * 5000}>", ""),
    ("robustness.json", "note", 5, ""),
    ("robustness.json", "hidden_in_training", ["x"], ""),
    (RECORD, "host", {"a": 1}, "mr"),
    (RECORD, "host", "\x1b]0;x\x07\x1b[2J", "mr"),
    (RECORD, "host", "h" * 10_000, "mr"),
    (RECORD, "pid", [1] * 1000, ""),
    (RECORD, "since", "\x1b[2J" * 1000, ""),
]
for _file, _key, _value, _by in _ENTRIES:
    KINDS[f"{_file}, {_key} {str(_value)[:20]!r} ({len(str(_value))})"] = (partial(entry, _file, _key, _value), _by)
for _key in ("dims", "synthetic", "data_sha256"):
    KINDS[f"environment.json, no {_key}"] = (partial(without, "environment.json", _key), "pemr")
for _key in ("valid", "seeds", "train_seconds", "missing"):
    KINDS[f"summary.json, no {_key}"] = (partial(without, "summary.json", _key), "m")

for _raw in ("NaN", "Infinity", f"1{'0' * 400}", "-1", '"1"', "null", "true", "[1]", "1e999"):
    KINDS[f"history, seconds {_raw[:20]}"] = (partial(epoch, "seconds", _raw), "e")
KINDS |= {
    "history, epoch 0": (partial(epoch, "epoch", "0"), "e"),
    "history, valid a list": (partial(epoch, "valid", "[1]"), "e"),
    "history, a nested row": (partial(put, b"[" * 9999, HISTORY), "e"),
    "history, a row that is a list": (partial(put, b"[1]\n", HISTORY), "e"),
    "history, not UTF-8": (partial(put, b"\xff\xfe\n", HISTORY), "e"),
    "history, too long": (partial(put, b"{}\n" * (23 << 20), HISTORY), "e"),
    "config, aliases": (partial(put, b"optim: &a {lr: *a}\n", "config.yaml"), "pemr"),
    "config, a Python object": (
        partial(put, b"!!python/object/apply:os.system ['touch canary']", "config.yaml"),
        "pemr",
    ),
    "config, a number of 5,000 digits": (partial(put, b"model: {layers: " + b"9" * 5000 + b"}", "config.yaml"), "pemr"),
    "config, a radius of 5,000 digits": (
        partial(setting, "graph.intra", f"window(radius={'9' * 5000})"),
        "pemr",
    ),
    "record, a list": (partial(put, b"[1]", RECORD), ""),
    "record, null": (partial(put, b"null", RECORD), ""),
}

_CHANGES: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "float8": partial(cast, torch.float8_e4m3fn),
    "bool": partial(cast, torch.bool),
    "float64": partial(cast, torch.float64),
    "float16": partial(cast, torch.float16),
    "one tensor less": lambda w: w.pop(sorted(w)[0]),
    "one tensor more": lambda w: w.update({"\x1b[2J more": torch.zeros(3)}),
    "none": lambda w: w.clear(),
    "transposed": lambda w: w.update({k: v.T.contiguous() for k, v in w.items() if v.ndim == 2}),
    "another length": lambda w: w.update({k: torch.cat([v, v]) if v.ndim else v for k, v in w.items()}),
    "NaN": lambda w: w.update({k: torch.full_like(v, float("nan")) for k, v in w.items()}),
    "infinity": lambda w: w.update({k: torch.full_like(v, float("inf")) for k, v in w.items()}),
}
for _name, _change in _CHANGES.items():
    KINDS[f"weights, {_name}"] = (partial(tensors, WEIGHTS, _change), "pem")
    KINDS[f"stage, {_name}"] = (partial(tensors, STAGE, _change), "")
    if _name not in ("float64", "transposed"):  # which changes none of them
        KINDS[f"normalizer, {_name}"] = (partial(tensors, NORMALIZER, _change), "pemr")
_OF_NORMALIZER: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "complex": partial(cast, torch.complex64),
    "a clip of two values": lambda w: w.update(clip=torch.ones(2, dtype=torch.float64)),
    "a clip of 0": lambda w: w.update(clip=torch.zeros((), dtype=torch.float64)),
    "a clip of -1": lambda w: w.update(clip=-torch.ones((), dtype=torch.float64)),
    "a clip of a whole number": lambda w: w.update(clip=torch.tensor(5)),
    "a negative deviation": lambda w: w.update({"audio.std": -w["audio.std"]}),
    "no deviation": lambda w: w.pop("audio.std"),
    "no mean": lambda w: w.pop("audio.mean"),
    "no clip": lambda w: w.pop("clip"),
    "an unknown modality": lambda w: w.update(
        {"odor.mean": w["audio.mean"].clone(), "odor.std": w["audio.std"].clone()}
    ),
    "a matrix": lambda w: w.update({"audio.mean": w["audio.mean"][None]}),
}
for _name, _change in _OF_NORMALIZER.items():
    KINDS[f"normalizer, {_name}"] = (partial(tensors, NORMALIZER, _change), "pemr")

_HEADERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a giant shape": lambda h: first_tensor(h).update(shape=[10**12, 10**6]),
    "a negative shape": lambda h: first_tensor(h).update(shape=[-1]),
    "a shape of text": lambda h: first_tensor(h).update(shape="4"),
    "an unknown type": lambda h: first_tensor(h).update(dtype="C64"),
    "a type of a list": lambda h: first_tensor(h).update(dtype=["F32"]),
    "wrong places": lambda h: first_tensor(h).update(data_offsets=[-4, 10**18]),
    "no places": lambda h: first_tensor(h).pop("data_offsets"),
    "metadata a list": lambda h: h.update(__metadata__=[1]),
    "settings nested": lambda h: h.update(__metadata__={"trained": DEEP}),
    "settings a list": lambda h: h.update(__metadata__={"trained": '{"sha256": "0", "settings": [1]}'}),
    "another SHA-256": lambda h: h.update(__metadata__={"sha256": "0" * 64}),
    "nested": lambda h: DEEP,
    "a list": lambda h: "[1]",
    "an entry a number": lambda h: h.update(x=5),
}
for _name, _change in _HEADERS.items():
    KINDS[f"weights, header with {_name}"] = (partial(header, WEIGHTS, _change), "pem")
    KINDS[f"normalizer, header with {_name}"] = (partial(header, NORMALIZER, _change), "pemr")
KINDS |= {
    "weights, a header of 2^60 bytes": (partial(put, struct.pack("<Q", 1 << 60) + b"{}", WEIGHTS), "pem"),
    "weights, a giant": (partial(giant, WEIGHTS), "pem"),
    "stage, a giant": (partial(giant, STAGE), ""),
    "normalizer, a giant": (partial(giant, NORMALIZER), "pemr"),
    "weights, of other settings": (
        lambda run: save_weights(run / WEIGHTS, load((run / WEIGHTS).read_bytes()), {"optim.lr": DEEP}),
        "pem",
    ),
}

_STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an object": lambda s: _Hostile(),
    "a list": lambda s: [1],
    "no history": lambda s: s.pop("history") and None,
    "history of text": lambda s: s.update(history="x" * 100),
    "history endless": lambda s: s.update(history=doubled(60)),
    "history of odd rows": lambda s: s.update(history=[{"stage": "supervised"}] * 3),
    "history of tensors": lambda s: s["history"][0].update(loss=torch.zeros(3)),
    "finished that leads out": lambda s: s.update(finished=["../../outside/x"]),
    "finished absolute": lambda s: s.update(finished=["/etc/passwd"]),
    "finished of numbers": lambda s: s.update(finished=[1]),
    "finished twice": lambda s: s.update(finished=s["finished"] * 2),
    "a stage unknown": lambda s: s.update(finished=["no_such"]),
    "start a tensor": lambda s: s.update(start=torch.zeros(3)),
    "settings endless": lambda s: s.update(settings={"optim.lr": doubled(60)}),
    "settings a tensor": lambda s: s.update(settings={"optim.lr": torch.zeros(3)}),
    "pending a list": lambda s: s.update(pending=[1]),
    "pending of nothing": lambda s: s.update(pending={"stage": "self_training_1"}),
}
for _name, _change in _STATES.items():
    # The one before has finished nothing, so that twice that is nothing too.
    KINDS[f"states, {_name}"] = (partial(states, _change), "" if _name == "finished twice" else "r")
KINDS |= {
    "states, a bomb": (bomb, "r"),
    "state, a number of 200 digits": (
        lambda run: (run / SEED / f"state-{'9' * 180}.{'0' * 64}.pt").write_bytes(b"x"),
        "",
    ),
    "states, 5,000 that are none": (many_files, ""),
    "seed-1 a link": (partial(folder_linked, SEED), "pemr"),
    "seed-7 a link": (partial(folder_linked, "seed-7"), "r"),
    "figures a link": (partial(folder_linked, "figures"), "mr"),
    "tensorboard a link": (partial(folder_linked, "tensorboard"), "r"),
    "seed-1 a file": (lambda run: (shutil.rmtree(run / SEED), (run / SEED).touch()), "pemr"),
    "seed-1 a FIFO": (lambda run: (shutil.rmtree(run / SEED), os.mkfifo(run / SEED)), "pemr"),
    "figures a file": (lambda run: (shutil.rmtree(run / "figures", True), (run / "figures").touch()), "mr"),
    "lock a link": (partial(replaced, lambda path, content: path.symlink_to("../outside/lock"), ".writer.lock"), "mr"),
    "lock a folder": (partial(replaced, IN_PLACE["a folder"], ".writer.lock"), "mr"),
    "no seed": (lambda run: shutil.rmtree(run / SEED), "pem"),
}

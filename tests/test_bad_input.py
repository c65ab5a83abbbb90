"""Bad inputs: each is one line that names what and the remedy, exit code 2, before any training."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from gmsa import evaluate, inspect, predict, train
from gmsa.models import build_model
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.system import cli
from gmsa.training import trainer as loop
from gmsa.training.checkpoint import save_weights

COMMANDS = {"train": train.main, "evaluate": evaluate.main, "predict": predict.main, "inspect": inspect.main}

SETTINGS = """\
data: {path: own.pkl, name: tiny}
model: {channels: 8, heads: 2}
optim: {lr: 5e-4, epochs: 1, min_steps: 0, batch_size: 8}
self_training: {k: 2}
run: {seeds: [1], device: cpu}
"""

TRAIN = ["train", "--config", "tiny.yaml", "--out", "run"]
RESUME = [*TRAIN, "--resume"]
EVALUATE = ["evaluate", "--run", "run"]
PREDICT = ["predict", "--run", "run", "--input", "own.pkl", "--out", "out.csv"]
INSPECT = ["inspect", "--config", "tiny.yaml", "--out", "graph.png", "--id"]

Change = Callable[[Any], Any]


class Hostile:
    """Pickles to a call of ``os.system``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # short relative names, and a canary that cannot hide
    monkeypatch.delenv("GMSA_DATA", raising=False)
    monkeypatch.setattr(results, "draw_run", lambda *_: None)  # figures take most of a small run's time


@pytest.fixture
def files(write_mmsa: Callable[..., Path]) -> Callable[..., Path]:
    """A valid ``tiny.yaml`` and ``own.pkl``; returns the writer of further data files."""
    Path("tiny.yaml").write_text(SETTINGS)
    write_mmsa("own.pkl")
    return write_mmsa


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the one run that several tests copy is kept."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def run(shelf: Path, files: Callable[..., Path]) -> Path:
    """A copy of a finished run of ``own.pkl``, in the folder ``run``."""
    if not (shelf / "run").exists():
        command, *arguments = [*TRAIN[:-1], str(shelf / "run")]
        COMMANDS[command](arguments)
    return Path(shutil.copytree(shelf / "run", "run"))


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a command, and checks that it is refused with a line that holds all of the given texts."""

    def call(arguments: list[str], *said: str) -> None:
        command, *rest = arguments
        before = contents(Path("run"))
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(loop.Trainer, "_epoch", lambda *_: pytest.fail("a model was trained"))
            patch.setattr(sys, "argv", [command, *rest])
            with pytest.raises(SystemExit) as caught:
                cli.run(COMMANDS[command], command)
        line = capsys.readouterr().err
        assert caught.value.code == 2, line
        check_line(line, *said)
        assert contents(Path("run")) == before, "the run folder was made or changed"
        assert not Path("canary").exists(), "a pickle ran code"

    return call


def check_line(line: str, *said: str) -> None:
    assert line.startswith(("gmsa.", "python -m gmsa.")), line
    assert line.endswith("\n"), line
    assert line.count("\n") == 1, line
    assert "Traceback" not in line
    for part in said:
        assert part in line


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file of a folder with its bytes, every folder with None; empty where there is nothing."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))} | (
        {".": None} if folder.exists() else {}
    )


# --- the data file ---------------------------------------------------------------------------------------------------


def columns(split: str, key: str, value: Any) -> Change:
    """Changes a column: ``value`` is the new one, or a function of the old."""

    def change(content: dict[str, Any]) -> None:
        content[split][key] = value(content[split][key]) if callable(value) else value

    return change


def entry(split: str, key: str, index: Any, value: Any) -> Change:
    """Changes entries of a column."""

    def change(content: dict[str, Any]) -> None:
        content[split][key][index] = value

    return change


def empty(content: dict[str, Any]) -> None:
    content["test"] = {key: column[:0] for key, column in content["test"].items()}


def rename_split(content: dict[str, Any]) -> None:
    content["vali"] = content.pop("valid")


def drop_features(content: dict[str, Any]) -> None:
    for split in content.values():
        for key in [key for key in split if key.startswith(("text", "audio", "vision"))]:
            del split[key]


def ragged(content: dict[str, Any]) -> None:
    content["train"]["text"] = [item[:, :3] if i == 5 else item for i, item in enumerate(content["train"]["text"])]


DATA = {
    "missing split": (rename_split, "own.pkl: has no split 'valid'"),
    "split is no dict": (
        lambda c: c.update(valid=[1, 2]),
        "own.pkl: split 'valid' is a list, not a dict; expected {'train': {'id': ",
    ),
    "empty split": (empty, "own.pkl: split 'test': is empty; every split needs utterances"),
    "label out of range": (
        entry("valid", "regression_labels", 4, 3.5),
        "own.pkl: split 'valid': 'regression_labels' of 'valid1$_$4' is 3.5, out of [-3, 3]; 1 of 48 labels",
    ),
    "no labels": (
        lambda c: c["test"].pop("regression_labels"),
        "own.pkl: split 'test': has no key 'regression_labels'; training and scoring need labels",
    ),
    "labels that are words": (
        columns("train", "regression_labels", ["positive"] * 24),
        "own.pkl: holds no intensities, but classes in 'regression_labels' (positive); set target.kind: classes",
    ),
    "count mismatch": (
        columns("train", "audio", lambda column: column[:5]),
        "own.pkl: split 'train': 'audio' has 5 entries but 'id' has 24; every key must hold one entry per utterance",
    ),
    "length beyond the sequence": (
        entry("train", "text_lengths", 2, 6),
        "own.pkl: split 'train': 'text_lengths' of 'train0$_$2' is 6, but 'text' has 5 steps; save features and",
    ),
    "negative length": (
        entry("train", "text_lengths", 2, -1),
        "own.pkl: split 'train': 'text_lengths' of 'train0$_$2' is -1; expected an integer of at least 0",
    ),
    "NaN feature": (
        entry("test", "text", (1, 0, 0), np.nan),
        "own.pkl: split 'test': 'text' of 'test0$_$1' holds NaN; in all, 'text' has 1 value in 1 utterance: repair",
    ),
    "features that are words": (
        columns("train", "audio", ["good film"] * 24),
        "own.pkl: split 'train': 'audio' of 'train0$_$0' is not numeric (type <U9); expected features, not text",
    ),
    "splits of other dimensions": (
        columns("test", "text", lambda column: column[:, :, :3]),
        "own.pkl: 'text' has 4 features per step in split 'train' but 3 in split 'test'; extract all splits alike",
    ),
    "an utterance of other dimensions": (
        ragged,
        "own.pkl: split 'train': 'text' of 'train1$_$5' has 3 features per step, but earlier ones have 4; extract all",
    ),
    "duplicate id": (
        entry("train", "id", 1, "train0$_$0"),
        "own.pkl: split 'train': duplicate id 'train0$_$0'; ids must be unique",
    ),
    "id in two splits": (
        entry("test", "id", 1, "train0$_$0"),
        "own.pkl: duplicate id 'train0$_$0' in splits 'train' and 'test'; splits must not overlap",
    ),
    "no ids": (lambda c: c["train"].pop("id"), "own.pkl: split 'train': has no key 'id'; every utterance needs an id"),
    "no features": (
        drop_features,
        "own.pkl: has none of the modalities text, audio, vision (its keys: id, raw_text, regression_labels); check",
    ),
    "hostile in place of features": (
        columns("train", "text", Hostile()),
        f"own.pkl: refused: the pickle asks for '{os.system.__module__}.system'; gmsa reads arrays, lists, dicts,",
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_data_that_is_not_what_the_format_promises(files, refused, case: str) -> None:
    change, said = DATA[case]
    files("own.pkl", change=change)
    refused(TRAIN, said)


def test_an_id_that_holds_a_line_break_is_still_one_line(files, refused) -> None:
    files("own.pkl", change=columns("train", "id", ["a\nb"] * 24))
    refused(TRAIN, r"duplicate id 'a\nb'; ids must be unique")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (None, ["data file 'own.pkl' does not exist; the README says where to get it", "use data.path=synthetic"]),
        (b"", ["own.pkl: is empty; download the file again and compare its SHA-256"]),
        (b"half", ["own.pkl: is truncated; download the file again and compare its SHA-256"]),
        (b"id,text\n1,good\n", ["own.pkl: no column holds paths of .npy or .npz files", "add one per modality"]),
        (b"version https://git-lfs.github.com/spec/v1", ["own.pkl: is a Git LFS pointer", "run 'git lfs pull'"]),
        (pickle.dumps([1]), ["own.pkl: holds a list, not a dict of splits; expected {'train': {'id': "]),
    ],
    ids=["missing", "empty", "truncated", "csv", "lfs", "list"],
)
def test_a_file_that_is_no_data_file(files, refused, raw: bytes | None, said: list[str]) -> None:
    own = Path("own.pkl")
    if raw is None:
        own.unlink()
    else:
        own.write_bytes(own.read_bytes()[:5000] if raw == b"half" else raw)
    refused(TRAIN, *said)


def test_data_named_by_the_environment_must_exist(files, refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMSA_DATA", "nowhere.pkl")
    Path("tiny.yaml").write_text(SETTINGS.replace("name: tiny", "name: tiny, if_missing: synthetic"))
    refused(TRAIN, "data file 'nowhere.pkl' does not exist; the README says where to get it", "$GMSA_DATA")


@pytest.mark.parametrize("arguments", [TRAIN, RESUME, EVALUATE, PREDICT, [*INSPECT, "train0$_$0"]], ids=" ".join)
def test_a_pickle_that_calls_os_system_runs_nothing(run: Path, refused, arguments: list[str]) -> None:
    if arguments == TRAIN:
        shutil.rmtree("run")
    Path("own.pkl").write_bytes(pickle.dumps({"train": Hostile()}))
    refused(arguments, f"own.pkl: refused: the pickle asks for '{os.system.__module__}.system'; gmsa reads", "Re-save")


@pytest.mark.parametrize(
    ("change", "prefix", "said"),
    [
        (None, "", "pool.pkl: id 'train0$_$0' of the pool is also in split 'train' of the data file; take it out of"),
        (
            lambda c: [split.update(text=split["text"][:, :, :3]) for split in c.values()],
            "pool-",
            "pool.pkl: 'text' has 3 features per step, training has 4; extract the features as for",
        ),
        (
            drop_features,
            "pool-",
            "pool.pkl: has none of the modalities text, audio, vision (its keys: id, raw_text, regression_",
        ),
        (entry("train", "audio", (0, 0, 0), np.nan), "pool-", "pool.pkl: split 'train': 'audio' of 'pool-train0$_$0'"),
        (columns("train", "raw_text", Hostile()), "pool-", "pool.pkl: refused: the pickle asks for"),
    ],
    ids=["shared ids", "other dimensions", "no features", "NaN", "hostile"],
)
def test_a_pool_that_does_not_fit(files, refused, change: Change | None, prefix: str, said: str) -> None:
    files("pool.pkl", change=change, prefix=prefix)
    refused([*TRAIN, "--set", "data.pool=pool.pkl"], said)


# --- the settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.lrr=1", "--set optim.lrr=1: unknown key 'optim.lrr' (did you mean 'lr'?)"),
        ("graf.radius=1", "--set graf.radius=1: unknown key 'graf' (did you mean 'graph'?)"),
        ("optim.lr.x=1", "unknown key 'optim.lr.x': 'lr' is a value, not a group"),
        ("optim=3", "--set optim=3: 'optim' must hold 'key: value' pairs (got 3)"),
        (
            "graph.intra=windo",
            "(got 'windo') (did you mean 'window'?)",
        ),
        ("optim.lr=-1e-3", "--set optim.lr=-1e-3: 'optim.lr' must be greater than 0 (got -0.001)"),
        ("optim.epochs=2.5", "--set optim.epochs=2.5: 'optim.epochs' must be a whole number (got 2.5)"),
        ("model.shared_layers=3", "--set model.shared_layers=3: 'model.shared_layers' must be true or false (got 3)"),
        ("model.heads=3", "'model.channels' must be divisible by 'model.heads' (got 8 and 3)"),
        ("model.audio_convs=[[2, 4]]", "'model.encoders.audio' needs 1 <= stride <= kernel (got kernel 2, stride 4)"),
        (
            "model.encoders.vision=[[0, 4]]",
            "'model.encoders.vision' needs 1 <= stride <= kernel (got kernel 0, stride 4)",
        ),
        ("model.encoders.vision=[[3, 1], [0, 0]]", "'model.encoders.vision' needs 1 <= stride <= kernel (got kernel 0"),
        (
            "data.modalities=text",
            "--set data.modalities=text: 'data.modalities' must be a list of texts or 'auto' (got 'text')",
        ),
        ("data.modalities=[text, text]", "'data.modalities' lists a value twice (got ['text', 'text'])"),
        ("self_training.k=some", "'self_training.k' must be a whole number or 'all' (got 'some')"),
        ("data.pool=nowhere.pkl", "nowhere.pkl: does not exist; check the path"),
        ("data.path=nowhere.pkl", "data file 'nowhere.pkl' does not exist; the README says where to get it"),
        ("data.path=.", ".: has none of the folders text, audio, visual; choose the folder that holds them"),
        ("optim.lr", "settings are changed by key=value, for example optim.lr=1e-3 (got 'optim.lr')"),
        ("=3", "settings are changed by key=value, for example optim.lr=1e-3 (got '=3')"),
        ("optim.lr=[1", "'optim.lr': value '[1': not valid YAML: line 1: "),
        pytest.param("model.positions=2", "'model.positions' allows 2; raise it, or stride more in 'model."),
    ],
)
def test_a_wrong_setting(files, refused, override: str, said: str) -> None:
    refused([*TRAIN, "--set", override], said)


def test_k_larger_than_the_pool(files, refused) -> None:
    refused(
        [*TRAIN, "--set", "data.label_ratio=0.5", "--set", "self_training.k=1000"],
        "'self_training.k' is 1000, but the unlabeled pool has 12 utterances; lower it, or set it to 'all'",
    )


def test_a_pool_for_the_synthetic_corpus(files, refused) -> None:
    refused(
        [*TRAIN, "--set", "data.path=synthetic", "--set", "data.pool=own.pkl"],
        "data.pool 'own.pkl': the synthetic corpus brings its own pool; leave data.pool out",
    )


@pytest.mark.parametrize("command", [TRAIN, [*INSPECT, "train0$_$0"]], ids=["train", "inspect"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "config file 'tiny.yaml' does not exist; give a file, or one that comes with gmsa: meld_context, "),
        ("optim: {lr: 1", "tiny.yaml: not valid YAML: line 1: expected ',' or '}'"),
        ("optim:\n\tlr: 1", "tiny.yaml: not valid YAML: line 2: found character"),
        (b"\x80\x04\xff", "'tiny.yaml': is not UTF-8 text (byte 0"),
        ("- optim", "tiny.yaml: expected 'key: value' pairs at the top (got list)"),
        ("optim: {lr: 1}\noptim: {lr: 2}", "tiny.yaml: not valid YAML: line 2: duplicate key 'optim'; leave one out"),
        ("optim: 3", "tiny.yaml: 'optim' must hold 'key: value' pairs (got 3)"),
        ("optm: {lr: 1}", "tiny.yaml: unknown key 'optm' (did you mean 'optim'?)"),
    ],
    ids=["missing", "not YAML", "tab", "binary", "list", "twice", "no group", "unknown key"],
)
def test_a_wrong_config_file(files, refused, command: list[str], text: str | bytes | None, said: str) -> None:
    if text is None:
        Path("tiny.yaml").unlink()
    else:
        Path("tiny.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    refused(command, said)
    assert not Path("graph.png").exists()


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train"], "the following arguments are required: --config (see --help)"),
        (["train", "--config"], "argument --config: expected one argument (see --help)"),
        (["evaluate"], "the following arguments are required: --run (see --help)"),
        (["predict", "--run", "run"], "one of the arguments --input --video is required (see --help)"),
        (["inspect", "--config", "tiny.yaml"], "the following arguments are required: --out (see --help)"),
        ([*TRAIN, "--seeds", "1,two"], "argument --seeds: expected seeds such as 1111,1112 (got '1,two')"),
        ([*TRAIN, "--seeds", ""], "argument --seeds: expected seeds such as 1111,1112 (got '')"),
        ([*TRAIN, "--seeds", "1,1"], "'run.seeds' lists a value twice (got [1, 1])"),
        ([*TRAIN, "--device", "tpu"], "argument --device: invalid choice: 'tpu' (choose from"),
        ([*TRAIN, "--epochs", "3"], "unrecognized arguments: --epochs 3 (see --help)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line(files, refused, arguments: list[str], said: str) -> None:
    refused(arguments, said)


@pytest.mark.parametrize("arguments", [TRAIN, EVALUATE, PREDICT], ids=lambda a: a[0])
def test_cuda_where_there_is_none(run: Path, refused, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    if arguments == TRAIN:
        shutil.rmtree("run")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused([*arguments, "--device", "cuda"], "no CUDA device is available; use --device cpu, or install a CUDA build")
    assert not Path("out.csv").exists()


def test_an_out_that_holds_a_run(run: Path, refused) -> None:
    refused(TRAIN, "'run' is not empty; add --resume (in Python: resume=True) to resume its run, or give another --out")


@pytest.mark.parametrize("command", [TRAIN, RESUME], ids=["train", "resume"])
def test_an_out_that_holds_something_else(files, refused, command: list[str]) -> None:
    Path("run").mkdir()
    Path("run/notes.txt").write_text("mine")
    refused(command, "'run' is not empty and holds no run; give another --out")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*TRAIN[:-1], "tiny.yaml"], "'tiny.yaml' is "),
        ([*TRAIN[:-1], "tiny.yaml/run"], "'tiny.yaml/run'"),
        ([*EVALUATE, "--out", "tiny.yaml"], "'tiny.yaml'"),
        ([*PREDICT[:-1], "nowhere/out.csv"], "cannot write 'nowhere/out.csv': the folder 'nowhere' does not exist;"),
        ([*PREDICT[:-1], "run"], "'run'"),
        ([*INSPECT[:4], "nowhere/graph.png", "--id", "train0$_$0"], "cannot write 'nowhere/graph.png': the folder"),
        ([*INSPECT[:4], "run", "--id", "train0$_$0"], "'run'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_out_that_cannot_be_written(run: Path, refused, arguments: list[str], said: str) -> None:
    refused(arguments, said)


# --- inspect ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ("train0$_$00", "own.pkl: no utterance 'train0$_$00' (did you mean 'train0$_$0'?)"),
        ("?", "own.pkl: no utterance '?', for example train0$_$0"),
    ],
)
def test_an_unknown_utterance(files, refused, identity: str, said: str) -> None:
    refused([*INSPECT, identity], said)
    assert not Path("graph.png").exists()


# --- resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.lr=0.01", "cannot resume 'run' with other settings: optim.lr was 0.0005, is 0.01; give another --out"),
        ("data.label_ratio=0.5", "cannot resume 'run' with other settings: data.label_ratio was 1.0, is 0.5; give"),
        ("run.select=Corr", "run.select was 'MAE', is 'Corr'"),
    ],
)
def test_resuming_with_other_settings(run: Path, refused, override: str, said: str) -> None:
    refused([*RESUME, "--set", override], said)


def test_resuming_with_another_file_under_the_same_name(run: Path, refused, files) -> None:
    files("own.pkl", change=columns("train", "regression_labels", lambda labels: -labels))
    refused(RESUME, "own.pkl", "was trained on")


def state(value: Any) -> bytes:
    """A value as torch saves it."""
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [None, b"", b"no state at all", state(Hostile()), state({}), state([1])],
    ids=["truncated", "empty", "text", "hostile", "no keys", "list"],
)
def test_resuming_with_damaged_states(run: Path, refused, content: bytes | None) -> None:
    for path in (run / "seed-1").glob("state-*"):
        if content is None:
            path.write_bytes(path.read_bytes()[:-500])
        else:  # under the hash that it has
            path.with_name(f"{path.name[:12]}.{hashlib.sha256(content).hexdigest()}.pt").write_bytes(content)
            path.unlink()
    refused(RESUME, "'run/seed-1/state-", "' is damaged (", "delete 'run/seed-1' to train it again")


def test_every_state_is_read_before_the_first_seed_is_trained(run: Path, refused) -> None:
    for path in (run / "seed-1").glob("state-*"):
        path.unlink()
    (run / "seed-2").mkdir()
    (run / "seed-2" / f"state-000001.{'0' * 64}.pt").write_bytes(b"")
    refused([*RESUME, "--seeds", "1,2"], "'run/seed-2/state-000001.0", "its SHA-256 is not the one in its name")


@pytest.mark.parametrize("text", ["optim: {lr: 1", "- optim", "", "optim: 3"])
def test_resuming_with_a_damaged_config(run: Path, refused, text: str) -> None:
    (run / "config.yaml").write_text(text)
    refused(RESUME, "'run' is damaged: ")


# --- a run folder ----------------------------------------------------------------------------------------------------


def swap_weights(run: Path) -> None:
    opened = Run(run)
    other = build_model(opened.dims, replace(opened.config, model=replace(opened.config.model, channels=16)))
    save_weights(run / "seed-1" / "model.safetensors", other.state_dict())


def edit_config(group: str, key: str, value: Any) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        settings = yaml.safe_load((run / "config.yaml").read_text())
        settings[group][key] = value
        (run / "config.yaml").write_text(yaml.safe_dump(settings))

    return edit


def edit_environment(change: Change) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        path = run / "environment.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return edit


def file(name: str, change: Callable[[bytes], bytes] | bytes | None) -> Callable[[Path], None]:
    """Changes a file of the run, or takes it away."""

    def edit(run: Path) -> None:
        path = run / name
        if change is None:
            path.unlink()
        else:
            path.write_bytes(change if isinstance(change, bytes) else change(path.read_bytes()))

    return edit


def other_normalizer(run: Path) -> None:
    shutil.copy(run / "seed-1" / "model.safetensors", run / "normalizer.safetensors")


def without(key: str) -> Change:
    return lambda environment: {k: v for k, v in environment.items() if k != key}


# Cases of RUNS that are a traceback today.


WEIGHTS = "seed-1/model.safetensors"
RUNS = {
    "no folder": (shutil.rmtree, "'run' is not a run folder: it has no config.yaml; name one that gmsa.train wrote"),
    "no environment": (file("environment.json", None), "'run' is not a run folder: it has no environment.json; name"),
    "no normalizer": (file("normalizer.safetensors", None), "'run' is not a run folder: it has no normalizer"),
    "other weights": (
        swap_weights,
        "'run/seed-1/model.safetensors' does not hold the weights of the model in the run's config.yaml ('",
    ),
    "other model": (
        edit_config("model", "channels", 16),
        "with other settings than the run's config.yaml has (model.channels was 8, is 16)",
    ),
    "other kind of model": (
        edit_config("model", "name", "hgt"),
        "with other settings than the run's config.yaml has (model.name was",
    ),
    "edited to nonsense": (edit_config("model", "nam", "hgt"), "unknown key 'model.nam' (did you mean 'name'?)"),
    "config not YAML": (
        file("config.yaml", b"optim: {lr: 1"),
        "'run' is damaged: config.yaml: not valid YAML: line 1: expected",
    ),
    "config not UTF-8": (file("config.yaml", b"\x80\x04"), "'run/config.yaml': is not UTF-8 text"),
    "config a list": (file("config.yaml", b"- optim"), "'run' is damaged: "),
    "environment not JSON": (file("environment.json", b"{"), "'run/environment.json': is damaged: "),
    "environment a list": (file("environment.json", b"[1]"), "'run' is damaged: "),
    "environment without dimensions": (edit_environment(without("dims")), "'run' is damaged: "),
    "environment with odd dimensions": (edit_environment(lambda e: e | {"dims": {"text": None}}), "'run' is damaged: "),
    "normalizer of something else": (other_normalizer, "'run/normalizer.safetensors'"),
    "damaged normalizer": (file("normalizer.safetensors", b""), "'run/normalizer.safetensors' is damaged ("),
    "truncated weights": (
        file(WEIGHTS, lambda raw: raw[: len(raw) // 2]),
        "'run/seed-1/model.safetensors' is damaged (",
    ),
    "no weights in it": (file(WEIGHTS, b"\x80\x04nothing"), "'run/seed-1/model.safetensors' is damaged ("),
    "unfinished seed": (file(WEIGHTS, None), "'run' has no finished seed 1; finish it with gmsa.train --resume"),
}


@pytest.mark.parametrize("command", [EVALUATE, PREDICT], ids=lambda command: command[0])
@pytest.mark.parametrize("case", list(RUNS))
def test_a_run_folder_that_cannot_be_used(run: Path, refused, case: str, command: list[str]) -> None:
    damage, said = RUNS[case]
    damage(run)
    refused(command, said)
    assert not Path("out.csv").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (edit_environment(without("data_sha256")), "'run' is damaged: "),
        (edit_environment(without("synthetic")), "'run' is damaged: "),
        (file("seed-1/history.jsonl", None), "history.jsonl"),
        (file("seed-1/history.jsonl", b"{"), "history.jsonl"),
    ],
    ids=["no SHA-256", "no synthetic", "no history", "damaged history"],
)
def test_a_run_folder_that_cannot_be_evaluated(run: Path, refused, damage: Callable[[Path], None], said: str) -> None:
    damage(run)
    refused(EVALUATE, said)


@pytest.mark.parametrize("command", [EVALUATE, PREDICT], ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ("7", "'run' has no seed 7; it has 1"),
        ("1,7", "'run' has no seed 7; it has 1"),
        ("x", "argument --seeds: expected seeds such as 1111,1112 (got 'x')"),
        ("1,1", "twice"),
    ],
)
def test_seeds_that_a_run_lacks(run: Path, refused, command: list[str], seeds: str, said: str) -> None:
    refused([*command, "--seeds", seeds], said)


# --- other files for a run -------------------------------------------------------------------------------------------


def test_evaluating_without_the_runs_own_file(run: Path, refused) -> None:
    Path("own.pkl").unlink()
    refused(EVALUATE, "'own.pkl', which 'run' was trained on (SHA-256 ", "is not there; put it back, or score another")


def test_evaluating_with_another_file_in_its_place(run: Path, refused, files) -> None:
    files("own.pkl", change=entry("train", "regression_labels", 0, 0))
    refused(EVALUATE, "'own.pkl' is not the file that 'run' was trained on (SHA-256", "score this one with --data")


@pytest.mark.parametrize("command", ["evaluate", "predict"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda c: [split.update(audio=split["audio"][:, :, :2]) for split in c.values()],
            "other.pkl: 'audio' has 2 features per step, training has 3; extract the features as for",
        ),
        (
            drop_features,
            "other.pkl: has none of the modalities text, audio, vision (its keys: id, raw_text, regression_labels)",
        ),
        (lambda c: c["test"].pop("id"), "other.pkl: split 'test': has no key 'id'; every utterance needs an id"),
        (entry("test", "id", 0, "test0$_$1"), "other.pkl: split 'test': duplicate id 'test0$_$1'; ids must be"),
        (columns("test", "text", Hostile()), "other.pkl: refused: the pickle asks for"),
        (None, "other.pkl: does not exist; check the path"),
    ],
    ids=["other dimensions", "no features", "no ids", "duplicate id", "hostile", "missing"],
)
def test_a_file_that_does_not_fit_the_run(
    run: Path, files, refused, command: str, change: Change | None, said: str
) -> None:
    if change is not None:
        files("other.pkl", change=change)
    options = {"evaluate": ["--data", "other.pkl"], "predict": ["--input", "other.pkl", "--out", "out.csv"]}
    refused([command, "--run", "run", *options[command]], said)
    assert not Path("out.csv").exists()


def test_scoring_a_file_with_nan(run: Path, files, refused) -> None:
    files("other.pkl", change=entry("test", "text", (0, 0, 0), np.nan))
    said = "other.pkl: split 'test': 'text' of 'test0$_$0' holds NaN; in all, 'text' has 1 value in 1 utterance: repair"
    refused([*EVALUATE, "--data", "other.pkl"], said)


def test_scoring_a_file_without_labels(run: Path, files, refused) -> None:
    files("other.pkl", change=lambda c: [split.pop("regression_labels") for split in c.values()])
    refused([*EVALUATE, "--data", "other.pkl"], "other.pkl: no utterance has a label; scoring needs labels")


# --- as a user runs it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            [*TRAIN, "--set", "optim.lrr=1"],
            "gmsa.train: error: --set optim.lrr=1: unknown key 'optim.lrr' (did you mean 'lr'?)",
        ),
        pytest.param(TRAIN, "gmsa.train: error: own.pkl: refused: the pickle asks for", marks=pytest.mark.slow),
    ],
    ids=["unknown key", "hostile pickle"],
)
def test_the_exit_code_is_two(files, arguments: list[str], said: str) -> None:
    files("own.pkl", change=columns("train", "text", Hostile()))
    command, *rest = arguments
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, "-m", f"gmsa.{command}", *rest], capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 2
    check_line(result.stderr, said)
    assert result.stdout == ""
    assert not Path("run").exists()
    assert not Path("canary").exists()

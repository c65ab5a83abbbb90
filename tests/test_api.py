"""gmsa from Python: fit, Run, load, search and compare, and the commands over them."""

from __future__ import annotations

import ast
import builtins
import csv
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.killed_runs import ended, forked

import gmsa
from gmsa import predict, registry, train
from gmsa.ablation.cells import train_cell
from gmsa.config import from_dict, load_config, to_dict
from gmsa.config.override import as_items, override
from gmsa.data import Row, Store, read_mmsa, write_store
from gmsa.errors import ConfigError, DataError, GmsaError, RunError
from gmsa.reports.run import markdown_table
from gmsa.runs import report as results
from gmsa.runs.save import without_places
from gmsa.system import cli
from gmsa.training.callbacks import Callback
from gmsa.tuning.workers import run_trials

pytestmark = pytest.mark.filterwarnings("ignore:the prediction is constant", "ignore:the truth is constant")

SETTINGS: dict[str, Any] = {
    "model": {"channels": 8, "heads": 2},
    "optim": {"epochs": 1, "min_steps": 0, "batch_size": 8},
    "protocol": {"name": "supervised"},
    "run": {"seeds": [1], "device": "cpu"},
}
QUICK = {
    "model.channels": 8,
    "model.heads": 2,
    "optim.epochs": 1,
    "optim.min_steps": 0,
    "protocol.name": "supervised",
    "run.device": "cpu",
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GMSA_DATA", raising=False)
    monkeypatch.setattr(results, "draw_run", lambda *_: None)  # figures take most of a small run's time


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run is that the tests share."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def own(shelf: Path, write_mmsa: Callable[..., Path]) -> Path:
    """The data file of the shared run."""
    if not (shelf / "own.pkl").exists():
        shutil.copy(write_mmsa(), shelf / "own.pkl")
    return shelf / "own.pkl"


@pytest.fixture
def run(shelf: Path, own: Path) -> gmsa.Run:
    """A finished run of two seeds, whose folder no test changes."""
    if not (shelf / "run").exists():
        return gmsa.fit(SETTINGS, data=own, out=shelf / "run", seeds=[1, 2])
    return gmsa.Run(shelf / "run")


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells and trials are trained in this process; processes of their own are tested below, and elsewhere."""
    monkeypatch.setattr(
        "gmsa.ablation.ablate.run_cells", lambda cells, jobs, ended: [ended(c, train_cell(c)) for c in cells]
    )
    monkeypatch.setattr("gmsa.tuning.study.run_workers", lambda task, jobs, look, say: (run_trials(task), look()))
    monkeypatch.setattr("gmsa.tuning.study.draw_study", lambda *a: [])
    monkeypatch.setattr("gmsa.ablation.comparison.figure_ablation", lambda *a: True)
    monkeypatch.setattr("gmsa.ablation.comparison.figure_costs", lambda *a: True)


def python(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Runs Python in the folder of the test, with this gmsa."""
    environment = {**os.environ, "PYTHONPATH": str(Path(gmsa.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, **more
    )


def content_of(file: Path) -> dict[str, dict[str, Any]]:
    return pickle.loads(file.read_bytes())


def whole(file: Path) -> dict[str, Any]:
    """The columns of all splits of a file, end to end."""
    splits = content_of(file).values()
    columns = {key: [x for split in splits for x in split[key]] for key in next(iter(splits))}
    return {k: np.stack(v) if k in ("text", "audio", "vision") else v for k, v in columns.items()}


def store_of(file: Path, folder: Path) -> Path:
    write_store(folder, [Row(split, u) for split, utterances in read_mmsa(file).items() for u in utterances])
    return folder


# --- fit -------------------------------------------------------------------------------------------------------------


def test_a_config_is_a_name_a_path_a_config_or_a_dict(own: Path) -> None:
    Path("mine.yaml").write_text("optim: {schedule: constant}\n")
    overrides = {**QUICK, "optim.schedule": "constant", "data.name": "own"}
    settings = load_config("mine.yaml", as_items({**overrides, "data.path": str(own)}))
    nested = to_dict(settings)
    kinds = {"name": "mosi_graph", "path": Path("mine.yaml"), "config": settings, "dict": nested, "dotted": overrides}
    found = {}
    for kind, config in kinds.items():
        asked: Any = () if kind in ("config", "dict", "dotted") else overrides
        run = gmsa.fit(config, data=own, out=kind, seeds=1, overrides=asked)
        assert run.folder == Path(kind)
        found[kind] = (run.folder / "seed-1" / "predictions.csv").read_bytes(), run.config.data.name
    assert set(found.values()) == {found["path"]}
    assert found["path"][1] == "own"
    assert nested == to_dict(settings), "the dict was changed"


def test_data_names_the_file_and_the_data_set(own: Path) -> None:
    assert gmsa.api._layers("mosi_graph", own, None, (), None, ())[0] == "mosi_graph"
    run = gmsa.fit("mosi_graph", data=own, overrides=[f"{k}={v}" for k, v in QUICK.items()], seeds=[3], device="cpu")
    assert run.folder == Path("runs/mosi_graph")
    assert (run.config.data.name, run.config.data.path, run.seeds) == ("own", str(own), (3,))
    assert not run.synthetic
    assert run.summary["dataset"] == "own"
    with pytest.raises(DataError, match=r"nowhere.pkl' does not exist"):  # never the synthetic corpus instead
        gmsa.fit("mosi_graph", data="nowhere.pkl", overrides=QUICK)


def test_overrides_are_a_dict_or_a_list(own: Path) -> None:
    base = from_dict(SETTINGS)
    values = {"optim.lr": 1e-5, "graph.intra": "window(radius=3)", "run.seeds": (1, 2), "data.pool": None}
    listed = ["optim.lr=1e-5", "graph.intra=window(radius=3)", "run.seeds=[1, 2]", "data.pool=null"]
    assert override(base, as_items(values)) == override(base, listed)
    assert override(base, as_items(values)).graph.intra.of("text") == "window(radius=3)"
    assert override(base, as_items({"data.name": "yes"})).data.name == "yes"  # text, not true
    assert override(base, [f"data.path={own}"]).data.name == "own"
    assert base == from_dict(SETTINGS)


@pytest.mark.parametrize(
    ("config", "arguments", "said"),
    [
        ("mosi_grph", {}, r"config file 'mosi_grph' does not exist \(did you mean 'mosi_graph'\?\)"),
        (3, {}, "expected the name of a config, a path, a Config or a dict"),
        ({"optim": {"lrr": 1}}, {}, r"unknown key 'optim.lrr' \(did you mean 'lr'\?\)"),
        (SETTINGS, {"overrides": ["optim.lr"]}, "settings are changed by key=value"),
        (SETTINGS, {"overrides": {"optim.lr": -1}}, "'optim.lr' must be greater than 0"),
        (SETTINGS, {"plugins": ["no_such_module"]}, "plug-in 'no_such_module' is not there"),
        (SETTINGS, {"seeds": []}, r"seeds are whole numbers, at least one, .* \(got \[\]\)"),
        (SETTINGS, {"seeds": "12"}, r"seeds are whole numbers"),  # not 1 and 2
        (SETTINGS, {"seeds": [1.5]}, r"seeds are whole numbers"),
        (
            SETTINGS,
            {"callbacks": [print]},
            r"expected objects of classes derived from gmsa.training.callbacks",
        ),
        (SETTINGS, {"callbacks": [Callback]}, r"expected objects of classes derived from"),
    ],
    ids=str,
)
def test_a_wrong_call_is_one_line(config: Any, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        gmsa.fit(config, **arguments)
    assert "\n" not in str(caught.value)
    assert not Path("runs").exists()


def test_the_callers_torch_settings_stay(own: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run = gmsa.fit(SETTINGS, data=own, overrides={"run.deterministic": True, "run.threads": 1}, out="run")
        run.predict(own), run.evaluate(own), run.load_model(1)
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(before)


# --- resuming --------------------------------------------------------------------------------------------------------


def test_a_job_script_is_the_same_line_every_time(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    line = ["--config", "tiny.yaml", "--data", str(own), "--out", "run", "--resume"]
    train.main(line)
    assert "nothing to resume in 'run' yet: starting\n" in capsys.readouterr().out
    first = (Path("run") / "seed-1" / "model.safetensors").read_bytes()
    train.main(line)
    assert "nothing to resume" not in capsys.readouterr().out
    train.main([*line, "--seeds", "1,2"])
    assert (Path("run") / "seed-1" / "model.safetensors").read_bytes() == first
    assert gmsa.Run("run").summary["seeds"] == [1, 2]


def test_resuming_starts_where_a_start_was_killed_early(own: Path, run: gmsa.Run) -> None:
    Path("run").mkdir()
    for name in ("normalizer.safetensors", "environment.json"):  # config.yaml comes last
        shutil.copy(run.folder / name, Path("run") / name)
    assert gmsa.fit(SETTINGS, data=own, out="run", resume=True).metrics == {
        split: {metric: gmsa_spread(run, split, metric, 0) for metric in run.metrics[split]} for split in run.metrics
    }


def gmsa_spread(run: gmsa.Run, split: str, metric: str, place: int) -> dict[str, Any]:
    """The scores of one of a run's seeds, as the metrics of a run of that seed alone."""
    value = run.metrics[split][metric]["values"][place]
    return {"mean": value, "std": 0.0, "values": [value]}


def test_several_processes_start_where_nothing_is_to_resume(own: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}

    def job() -> None:
        gmsa.fit(SETTINGS, data=own, resume=True)
        Path(f"went-on-{os.environ['RANK']}").touch()

    for _ in range(2):  # the second time, there is something
        processes = [forked(job, shared | {"RANK": str(i), "LOCAL_RANK": str(i)}) for i in range(2)]
        assert [ended(process) for process in processes] == [0, 0]
    assert [path.name for path in Path("runs").iterdir()] == [gmsa.Run("runs/own").name]
    assert Path("went-on-0").exists()
    assert not Path("went-on-1").exists()  # only the first process has the run


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_run_shows_what_it_holds(run: gmsa.Run) -> None:
    again = gmsa.Run(str(run.folder))
    assert type(run) is type(again) is gmsa.Run
    mae = again.metrics["test"]["MAE"]
    assert mae["values"] == json.loads((run.folder / "summary.json").read_text())["test"]["MAE"]["values"]
    assert mae["mean"] == pytest.approx(np.mean(mae["values"]))
    assert [(row["seed"], row["epoch"]) for row in again.history] == [(1, 1), (2, 1)]
    text = repr(again)
    for part in ("semi_iin on own", "seeds 1, 2", f"MAE {mae['mean']:.4f} ±"):
        assert part in text
    assert again.config.model.channels == 8


def test_a_run_that_is_not_finished_says_so(run: gmsa.Run) -> None:
    shutil.copytree(run.folder, "half")
    Path("half/summary.json").unlink()
    half = gmsa.Run("half")
    assert "not finished" in repr(half)
    with pytest.raises(RunError, match=r"'half' is not finished: it has no summary.json; finish it with --resume"):
        half.metrics  # noqa: B018


def test_a_model_by_itself_takes_what_the_run_prepares(run: gmsa.Run, own: Path) -> None:
    answers = run.predict(own, seeds=[2])
    batch = gmsa.collate(run.prepare(own), gmsa.graph_spec(run.config))
    model = run.load_model(2)
    with torch.inference_mode():
        value = model(batch).value.numpy()
    assert not model.training
    np.testing.assert_allclose(value, answers.values, atol=1e-5)
    assert not hasattr(gmsa, "open_run")


# --- predict ---------------------------------------------------------------------------------------------------------


def rows_of(path: str) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def test_all_that_can_be_predicted_equals_the_commands_csv(run: gmsa.Run, own: Path) -> None:
    predict.main(["--run", str(run.folder), "--input", str(own), "--out", "command.csv"])
    columns, store = whole(own), Store(store_of(own, Path("store")))
    utterances = [u for split in read_mmsa(own).values() for u in split]
    ragged = {"id": columns["id"], "raw_text": columns["raw_text"]}
    for m in ("text", "audio", "vision"):
        ragged[m] = [x[:n] for x, n in zip(columns[m], columns[f"{m}_lengths"], strict=True)]
    inputs = {
        "path": own,
        "string": str(own),
        "store": store,
        "folder of a store": "store",
        "rows of a store": store.utterances(),
        "utterances": utterances,
        "utterances that are read lazily": list(store.utterances()),
        "iterator": iter(utterances),
        "columns": columns,
        "a file's content": content_of(own),
        "lists": ragged,
        "tensors": {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in columns.items()},
        "without labels": {k: v for k, v in columns.items() if k != "regression_labels"},
    }
    expected = rows_of("command.csv")
    assert len(expected) == 48
    assert [row["split"] for row in expected] == ["train"] * 24 + ["valid"] * 12 + ["test"] * 12
    for kind, x in inputs.items():
        answers = run.predict(x)
        answers.to_csv("api.csv")
        found = rows_of("api.csv")
        # Arrays and utterances may come without splits, and arrays without labels.
        named = [{key: row[key] for key in row if key not in ("split", "label")} for row in (*found, *expected)]
        assert named[:48] == named[48:], kind
        assert {row["label"] for row in found} in ({""}, {row["label"] for row in expected}), kind
        assert {row["split"] for row in found} in ({"input"}, {"train", "valid", "test"}), kind
    assert (len(answers), answers.probabilities.shape) == (48, (48, 7))
    assert repr(answers).startswith("Answers(48 utterances, 7 classes, values ")
    assert answers.ids == columns["id"]
    assert answers.gate is not None
    one = run.predict(utterances[0])
    assert (one.ids, repr(one)[:22]) == ([utterances[0].id], "Answers(1 utterance, 7")
    np.testing.assert_allclose(one.values, answers.values[:1], atol=1e-6)


def test_features_are_normalized_as_in_training(run: gmsa.Run, own: Path) -> None:
    columns = whole(own)
    moved = run.predict({**columns, "audio": columns["audio"] + 100 * (columns["audio"] != 0)})
    assert not np.array_equal(moved.values, run.predict(columns).values)
    prepared = torch.cat([u.features["audio"] for u in run.prepare(own)[:24]])
    assert prepared.mean(0).abs().max() < 0.1


def test_ids_are_made_up_where_there_are_none(run: gmsa.Run, own: Path) -> None:
    columns = {k: v for k, v in whole(own).items() if k in ("text", "vision", "text_lengths", "vision_lengths")}
    answers = run.predict(columns)
    assert answers.ids == [str(i) for i in range(48)]
    named = run.predict({**columns, "id": answers.ids, "audio": None})
    assert np.array_equal(answers.values, named.values)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "an unknown modality": (
        lambda c: {"txt": c["text"]},
        r"'txt' is nothing that the run knows \(did you mean 'text'\?\); it reads text, audio, vision",
    ),
    "other dimensions": (
        lambda c: {"text": c["text"][..., :3]},
        "'text' has 3 features per step, training has 4; extract the features as for the training data",
    ),
    "other counts": (
        lambda c: {"text": c["text"], "audio": c["audio"][:7]},
        "'audio' has 7 entries but 'id' has 48; every key must hold one entry per utterance",
    ),
    "nothing that the run knows": (
        lambda c: {"raw_text": c["raw_text"]},
        "has none of the modalities text, audio, vision",
    ),
    "an empty dict": (lambda c: {}, "has none of the modalities text, audio, vision"),
    "no utterance": (lambda c: [], "no utterance to predict; give at least one"),
    "no number": (lambda c: {"text": [["a", "b"]]}, "'text' of '0'"),
    "another object": (lambda c: [3], r"expected gmsa.Utterance objects to predict \(got a int\)"),
    "no input at all": (lambda c: 3, "expected a path, a feature store, utterances or a dict of arrays"),
    "NaN": (
        lambda c: gmsa.Utterance("a", {"text": torch.full((2, 4), torch.nan)}),
        "utterance 'a': 'text' holds NaN or infinity",
    ),
    "an unknown modality of an utterance": (
        lambda c: gmsa.Utterance("a", {"smell": torch.ones(2, 4)}),
        r"utterance 'a': has no text or audio or vision to predict from \(it has smell\); give at least one of them",
    ),
    "other dimensions of an utterance": (
        lambda c: gmsa.Utterance("a", {"text": torch.ones(2, 5)}),
        "utterance 'a': 'text' has 5 features per step, training has 4",
    ),
    "an utterance without steps": (
        lambda c: gmsa.Utterance("a", {"text": torch.ones(0, 4)}),
        "utterance 'a': has no text or audio or vision to predict from; give at least one of them",
    ),
    "an id twice": (
        lambda c: [gmsa.Utterance("a", {"text": torch.ones(2, 4)})] * 2,
        "utterance 'a': is given twice; ids must be unique",
    ),
    "no file": (lambda c: "nowhere.pkl", "nowhere.pkl"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_input_is_one_clear_line(run: gmsa.Run, own: Path, case: str) -> None:
    make, said = WRONG[case]
    with pytest.raises(DataError, match=said) as caught:
        run.predict(make(whole(own)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"seeds": 3}, "has no seed 3; it has 1, 2"),
        ({"seeds": [1, 1]}, "a seed is named twice"),
        ({"seeds": []}, "seeds are whole numbers, at least one"),
        ({"device": "gpu"}, r"the device must be one of auto, cpu, cuda, mps \(got 'gpu'\)"),
        ({"device": "xla:1"}, r"the device must be one of auto, cpu, cuda, mps \(got 'xla:1'\)"),
    ],
    ids=str,
)
def test_wrong_seeds_and_devices_are_one_line(run: gmsa.Run, own: Path, arguments: dict[str, Any], said: str) -> None:
    for work in (run.predict, run.evaluate):
        with pytest.raises(GmsaError, match=said) as caught:
            work(own, **arguments)
        assert "\n" not in str(caught.value)


def test_one_seed_needs_no_list(run: gmsa.Run, own: Path) -> None:
    assert np.array_equal(run.predict(own, seeds=2).values, run.predict(own, seeds=[2]).values)
    assert run.evaluate(missing="eta:0.5", seeds=1, mask_seeds=0)["mask_seeds"] == [0]


def test_a_frame_needs_pandas(run: gmsa.Run, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = run.predict(own)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(RunError, match="to_frame needs pandas; install it"):
        answers.to_frame()
    fake: Any = types.ModuleType("pandas")
    fake.Index, fake.DataFrame = (lambda ids, name: (name, ids)), (lambda columns, index: (columns, index))
    monkeypatch.setitem(sys.modules, "pandas", fake)
    columns, index = answers.to_frame()
    assert index == ("id", answers.ids)
    assert [*columns] == ["prediction", *(f"p{c}" for c in range(7)), "gate_val", "gate_cls"]
    assert np.array_equal(columns["p6"], answers.probabilities[:, 6])


# --- evaluate --------------------------------------------------------------------------------------------------------


def test_evaluating_again_gives_the_same_and_writes_nothing(run: gmsa.Run, own: Path) -> None:
    before = sorted(path for path in run.folder.rglob("*"))
    scores = run.evaluate()
    assert {split: scores[split] for split in ("valid", "test")} == run.metrics
    assert str(scores) == scores.to_markdown() == scores._repr_markdown_()
    assert "| run | own | valid |" in str(scores)
    masked = run.evaluate(own, missing=["eta:0,0.5", "fixed:t"], mask_seeds=[0])
    assert {"eta", "fixed"} == set(masked["protocols"])
    assert "### eta" in str(masked)
    assert run.evaluate(missing="eta:0", mask_seeds=[0])["protocols"]["eta"]["rows"][0]["asked"] == 0
    assert sorted(path for path in run.folder.rglob("*")) == before
    with pytest.raises(ConfigError, match="mask seeds go with masks"):
        run.evaluate(mask_seeds=[1])


def test_another_file_is_evaluated_into_a_folder(run: gmsa.Run, write_mmsa: Callable[..., Path]) -> None:
    scores = run.evaluate(write_mmsa("other.pkl", prefix="other-"), seeds=[2], out="scores")
    assert (scores["dataset"], scores["seeds"]) == ("other", [2])
    assert json.loads(Path("scores/summary.json").read_text()) == scores
    run.evaluate("other.pkl", missing="eta:0.5", out="masked")
    assert Path("masked/robustness.json").exists()


# --- save and load ---------------------------------------------------------------------------------------------------


def test_a_saved_model_predicts_alone(run: gmsa.Run, own: Path) -> None:
    expected = run.predict(own)
    assert run.save("my-model") == Path("my-model")
    names = {str(path.relative_to("my-model")) for path in Path("my-model").rglob("*") if path.is_file()}
    assert names == {
        "README.md",
        "config.yaml",
        "environment.json",
        "normalizer.safetensors",
        "summary.json",
        "seed-1/model.safetensors",
        "seed-2/model.safetensors",
    }
    for path in Path("my-model").rglob("*.*"):
        assert str(own.parent).encode() not in path.read_bytes(), f"{path} says where the data lay"
    model = gmsa.load("my-model")
    assert np.array_equal(model.predict(own).values, expected.values)
    assert model.evaluate(own)["test"] == run.evaluate(own)["test"]
    assert (model.metrics, model.history) == (run.metrics, [])
    with pytest.raises(RunError, match=r"'own.pkl', which 'my-model' was trained on \(SHA-256 .*…\), is not there"):
        model.evaluate()
    with pytest.raises(RunError, match="'my-model' is not empty; name another folder"):
        run.save("my-model")
    model.save("again")
    assert np.array_equal(gmsa.load("again").predict(own).values, expected.values)


def test_a_saved_model_needs_no_callback() -> None:
    config = from_dict({"run": {"callbacks": ["tensorboard"]}, "protocol": {"init_from": "home/me/start"}})
    saved = without_places(config)
    assert (saved.run.callbacks, saved.protocol.init_from) == ((), "start")


def test_the_model_card_says_what_the_model_is(run: gmsa.Run) -> None:
    run.save("my-model")
    card = Path("my-model/README.md").read_text()
    assert card.startswith("---\nlibrary_name: gmsa\n")
    for part in ("semi_iin", f"own (SHA-256 {run.environment['data_sha256']})", "text 4, audio 3, vision 2"):
        assert part in card
    assert f"gmsa {gmsa.__version__}" in card
    assert "gmsa.load(" in card
    assert markdown_table([run.summary]) in card
    assert "SYNTHETIC" not in card


def test_a_damaged_or_unfinished_run_is_not_saved(run: gmsa.Run) -> None:
    shutil.copytree(run.folder, "half")
    Path("half/seed-2/model.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"model.safetensors' is damaged"):
        gmsa.Run("half").save("my-model")
    Path("half/summary.json").unlink()
    with pytest.raises(RunError, match="not finished"):
        gmsa.Run("half").save("my-model")
    assert not Path("my-model").exists()


def test_a_model_of_the_hub(run: gmsa.Run, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        RunError, match=r"needs huggingface_hub; install it \(in the clone: pip install '\.\[hub\]'\), or name a"
    ):
        gmsa.load("someone/mosi")
    run.save("snapshot")
    asked: list[dict[str, Any]] = []
    fake: Any = types.ModuleType("huggingface_hub")
    fake.snapshot_download = lambda **given: asked.append(given) or "snapshot"
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    model = gmsa.load("someone/mosi", revision="v1")
    assert (asked[0]["repo_id"], asked[0]["revision"]) == ("someone/mosi", "v1")
    assert np.array_equal(model.predict(own).values, run.predict(own).values)

    def offline(**_: Any) -> str:
        raise ConnectionError("no\nnetwork")

    fake.snapshot_download = offline
    with pytest.raises(RunError, match=r"the Hugging Face Hub does not give it \(ConnectionError: no network\); check"):
        gmsa.load("someone/mosi")
    with pytest.raises(RunError, match="'nowhere' is not a run folder"):
        gmsa.load("nowhere")
    with pytest.raises(RunError, match="is a folder, which has no revision"):
        gmsa.load("snapshot", revision="v1")


def test_a_run_that_was_moved_and_made_read_only_predicts(
    run: gmsa.Run, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run.predict(own).values
    moved = Path(shutil.copytree(run.folder, "elsewhere/moved"))
    for path in (*moved.rglob("*"), moved):
        path.chmod(0o555 if path.is_dir() else 0o444)

    def refuse(*arguments: Any, **_: Any) -> None:
        pytest.fail(f"something was written: {arguments}")

    opened = builtins.open

    def read_only(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if set(mode) & set("wax+") and str(file) != os.devnull:
            refuse(file, mode)
        return opened(file, mode, *rest, **more)

    with monkeypatch.context() as patch:  # root may write anywhere, so its modes prove nothing
        patch.setattr(builtins, "open", read_only)
        patch.setattr("io.open", read_only)
        for name in ("mkdir", "makedirs", "replace", "rename", "remove", "unlink", "symlink"):
            patch.setattr(os, name, refuse)
        answers = gmsa.Run(moved).predict(own)
        scores = gmsa.load(moved).evaluate(own)
    for path in (moved, *moved.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert np.array_equal(answers.values, expected)
    assert scores["test"] == run.evaluate(own)["test"]


# --- plug-ins --------------------------------------------------------------------------------------------------------

PLUGIN = """
from pathlib import Path

from gmsa.models.semi_iin import SemiIIN
from gmsa.registry import MODELS

Path("imported").touch()


@MODELS.register("mine_of_{name}")
class Mine(SemiIIN):
    pass
"""


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a plug-in that registers the model ``mine_of_NAME``; all is forgotten in the end."""
    parts, loaded, path = dict(registry.MODELS._parts), dict(registry._loaded), list(sys.path)

    def write(name: str) -> str:
        Path(f"{name}.py").write_text(PLUGIN.replace("{name}", name))
        return name

    yield write
    registry.MODELS._parts = parts
    registry._loaded.clear()
    registry._loaded.update(loaded)
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("gmsa_test_plugin")]:
        del sys.modules[name]


def forget(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As a new process begins: the plug-in is not imported."""
    monkeypatch.delitem(registry.MODELS._parts, f"mine_of_{name}")
    monkeypatch.delitem(registry._loaded, name)
    monkeypatch.delitem(sys.modules, name)
    Path("imported").unlink()


def test_a_run_with_a_plugin_asks_for_it_by_name(
    own: Path, plugin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = plugin("gmsa_test_plugin")
    run = gmsa.fit(SETTINGS, data=own, out="run", overrides={"model.name": f"mine_of_{name}"}, plugins=[name])
    assert run.config.plugins == (name,)
    assert run.environment["plugins"] == [name]
    expected = run.predict(own).values
    forget(monkeypatch, name)
    wanted = (
        "'run' needs the plug-in 'gmsa_test_plugin', which a run folder never makes gmsa import; name it with --plugin "
        "gmsa_test_plugin"
    )
    with pytest.raises(RunError, match=wanted):
        gmsa.Run("run")
    command = ["--run", "run", "--input", str(own), "--out", "out.csv"]
    monkeypatch.setattr(sys, "argv", ["predict", *command])
    with pytest.raises(SystemExit) as stopped:
        cli.run(predict.main, "predict")
    assert stopped.value.code == 2
    assert wanted in capsys.readouterr().err
    assert not Path("imported").exists(), "the run folder made gmsa import a module"
    predict.main([*command, "--plugin", name])
    assert Path("imported").exists()
    with open("out.csv", encoding="utf-8") as file:
        assert [np.float32(row["prediction"]) for row in csv.DictReader(file)] == expected.tolist()
    assert np.array_equal(gmsa.Run("run", plugins=[name]).predict(own).values, expected)
    assert gmsa.load("run", plugins=name).config.plugins == (name,)


def test_a_plugin_of_an_installed_package_is_recorded(own: Path, plugin) -> None:
    name = plugin("gmsa_test_plugin_installed")
    registry.load_plugins([name], Path.cwd())  # as an entry point is: no setting names it
    config = {**SETTINGS, "model": {**SETTINGS["model"], "name": f"mine_of_{name}"}}
    assert gmsa.fit(config, data=own, out="run").environment["plugins"] == [name]
    assert gmsa.fit(SETTINGS, data=own, out="plain").environment["plugins"] == []


def test_a_hostile_run_folder_has_nothing_imported(run: gmsa.Run, own: Path, plugin) -> None:
    name = plugin("gmsa_test_plugin_hostile")
    sys.path.append(str(Path.cwd()))  # it could be imported
    folder = Path(shutil.copytree(run.folder, "stranger"))
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps(environment | {"plugins": [name, "a b", 3]}))
    (folder / "config.yaml").write_text(yaml.safe_dump(settings | {"plugins": [name, "../x", 3]}))
    stranger = gmsa.Run(folder)
    assert stranger.config.plugins == ()
    stranger.predict(own)
    stranger.evaluate(own)
    gmsa.fit(stranger.config, data=own, out="from-its-config")  # neither by what is made of it
    shutil.copytree(folder, "resumed")
    gmsa.fit(SETTINGS, data=own, out="resumed", resume=True, seeds=[1, 2])
    settings_of_it = settings | {"plugins": [name], "model": settings["model"] | {"name": f"mine_of_{name}"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings_of_it))
    with pytest.raises(RunError, match=f"needs the plug-in '{name}'"):
        gmsa.Run(folder)
    assert not Path("imported").exists()
    assert name not in sys.modules
    (folder / "config.yaml").write_text(yaml.safe_dump(settings | {"base": "/etc/passwd"}))
    with pytest.raises(RunError, match=r"'stranger' is damaged: config.yaml builds on another file"):
        gmsa.Run(folder)


# --- search and compare ----------------------------------------------------------------------------------------------


def test_a_comparison_is_a_table(own: Path, no_processes: None) -> None:
    vary = {"model.fusion": ["gate", "add"]}
    table = gmsa.compare(SETTINGS, vary, data=own, seeds=[1, 2], out="table")
    assert {row["setting"] for row in table.rows} == {"model.fusion=gate", "model.fusion=add"}
    assert table.chosen == table.rows[0]["setting"]
    assert (len(table), table.complete, table.folder) == (2, True, Path("table"))
    assert table.to_markdown() == repr(table) == table._repr_markdown_()
    assert "| model.fusion=gate (reference) |" in repr(table)
    assert table.summary["seeds"] == [1, 2]
    Path("mine.yaml").write_text(yaml.safe_dump(SETTINGS))
    Path("pairs.yaml").write_text("- {name: gate, model.fusion: gate}\n- {name: add, model.fusion: add}\n")
    again = gmsa.compare("mine.yaml", settings="pairs.yaml", data=own, seeds=1)
    assert again.folder == Path("runs/ablate-mine-pairs")
    before = {row["setting"].partition("=")[2]: row["test"]["MAE"]["values"][0] for row in table.rows}
    assert {row["setting"]: row["test"]["MAE"]["mean"] for row in again.rows} == before
    with pytest.raises(ConfigError, match=r"settings file 'fusions' does not exist \(did you mean 'fusion'\?\)"):
        gmsa.compare(SETTINGS, settings="fusions")
    with pytest.raises(ConfigError, match=r"'optim.lr' gets a value from --set and from --vary; leave one out"):
        gmsa.compare(SETTINGS, {"optim.lr": [1e-3, 1e-4]}, overrides={"optim.lr": 1e-2})
    with pytest.raises(ConfigError, match=r"setting 'model.fusion=ad': 'model.fusion' must be one of"):
        gmsa.compare(SETTINGS, {"model.fusion": ["ad"]})
    with pytest.raises(ConfigError, match=r"'model.fusion': expected a list of values to compare \(got 'gate'\)"):
        gmsa.compare(SETTINGS, {"model.fusion": "gate"})
    with pytest.raises(ConfigError, match=r"setting 'model.fusion=ad': 'model.fusion' must be one of"):
        gmsa.compare(SETTINGS, "model.fusion=gate,ad")
    with pytest.raises(ConfigError, match="expected a number of trainings at a time from 1 on"):
        gmsa.compare(SETTINGS, vary, jobs=0)


def test_a_search_is_a_study(own: Path, no_processes: None) -> None:
    Path("small.yaml").write_text("optim.lr: {float: [1e-4, 1e-2], log: true}\n")
    study = gmsa.search(SETTINGS, "small.yaml", 2, data=own, seeds=1, out="study")
    assert isinstance(study.best, gmsa.Config)
    assert study.best.optim.lr == study.best_values.get("optim.lr", SETTINGS.get("optim.lr", 1e-3))
    assert [row["trial"] for row in study.trials] == ["0", "1"]
    assert (len(study), study.folder, study.complete) == (2, Path("study"), True)
    assert "2 trials, best valid MAE " in repr(study)
    assert study.summary["final"]["chosen"]
    more = gmsa.search(SETTINGS, "small.yaml", 3, data=own, seeds=1, out="study")  # the same call resumes
    assert len(more) == 3
    with pytest.raises(ConfigError, match="search space 'smal' does not exist"):
        gmsa.search(SETTINGS, "smal")


SCRIPT = """
import gmsa

settings = {settings!r}
run = gmsa.fit(settings, data={own!r}, out="run")
table = gmsa.compare(settings, {{"model.fusion": ["gate", "add"]}}, data={own!r}, jobs=2, out="table")
print("complete", table.complete, len(table), run.folder)
"""


@pytest.mark.parametrize("way", ["script.py", "-", "-c"])
def test_a_process_does_not_run_the_script_again(way: str) -> None:
    code = """
        import multiprocessing
        from gmsa.system.script import script_not_rerun
        print("script", flush=True)
        with script_not_rerun():
            process = multiprocessing.get_context("spawn").Process(target=print, args=["process"])
            process.start()
            process.join()
        print(__spec__ is None, process.exitcode)
    """
    Path("script.py").write_text(textwrap.dedent(code))
    more = {"-": {"input": textwrap.dedent(code)}}.get(way, {})
    done = python(way, *([textwrap.dedent(code)] if way == "-c" else []), **more)
    assert done.stdout == "script\nprocess\nTrue 0\n", done.stderr


def test_search_and_compare_start_processes_without_the_script(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main, seen = sys.modules["__main__"], []
    before = main.__spec__, getattr(main, "__file__", None)

    def look(*_: Any) -> None:
        seen.append((main.__spec__, hasattr(main, "__file__")))
        raise RunError("seen")

    monkeypatch.setattr("gmsa.ablation.ablate.run_cells", look)
    monkeypatch.setattr("gmsa.tuning.study.run_workers", look)
    Path("small.yaml").write_text("optim.lr: {float: [1e-4, 1e-2], log: true}\n")
    with pytest.raises(RunError, match="seen"):
        gmsa.compare(SETTINGS, {"model.fusion": ["gate", "add"]}, data=own)
    with pytest.raises(RunError, match="seen"):
        gmsa.search(SETTINGS, "small.yaml", 1, data=own)
    assert seen == [(None, False)] * 2
    assert (main.__spec__, getattr(main, "__file__", None)) == before


@pytest.mark.slow
@pytest.mark.parametrize("way", ["script", "stdin"])
def test_processes_work_from_a_script_without_a_guard_and_without_one(own: Path, way: str) -> None:
    code = SCRIPT.format(settings=SETTINGS, own=str(own))
    Path("script.py").write_text(code)
    done = python("script.py") if way == "script" else python("-", input=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("complete True 2 run\n")
    assert not Path("run-2").exists()


@pytest.mark.slow
def test_a_search_works_from_a_line_of_python(own: Path) -> None:
    Path("small.yaml").write_text("optim.lr: {float: [1e-4, 1e-2], log: true}\n")
    code = f"import gmsa; print(len(gmsa.search({SETTINGS!r}, 'small.yaml', 2, data={str(own)!r}, out='study')))"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n2\n")


# --- the package -----------------------------------------------------------------------------------------------------


def test_editors_see_all_names() -> None:
    tree = ast.parse(Path(gmsa.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {name.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert seen == gmsa._HOMES
    assert set(gmsa.__all__) == {*seen, "__version__"}
    assert set(gmsa.__all__) <= set(dir(gmsa))


def test_importing_gmsa_is_cheap() -> None:
    code = "import sys, gmsa; dir(gmsa); sys.exit(bool({'torch', 'numpy', 'yaml'} & sys.modules.keys()))"
    assert python("-c", code).returncode == 0
    code = "import sys, gmsa; gmsa.fit, gmsa.compare, gmsa.MODELS; sys.exit('torch' in sys.modules)"
    assert python("-c", code).returncode == 0


def test_errors_of_the_config_do_not_wait_for_torch() -> None:
    code = """
        import sys, gmsa
        try:
            gmsa.fit("mosi_graph", overrides={"optim.lrr": 1})
        except ValueError:
            sys.exit("torch" in sys.modules)
    """
    assert python("-c", textwrap.dedent(code)).returncode == 0


def test_the_front_door(small_synthetic: None) -> None:
    """The calls of a first session, on the synthetic corpus."""
    run = gmsa.fit("mosi_graph", out="runs/first", seeds=[1], overrides=QUICK)
    assert run.synthetic
    assert "synthetic data (not mosi)" in repr(run)
    assert {"mean", "std", "values"} == run.metrics["test"]["MAE"].keys()
    clips = gmsa.load_corpus(run.config.data).splits["test"]
    answers = run.predict(clips)
    answers.to_csv("answers.csv")
    assert answers.values.shape == (len(clips),)
    assert gmsa.Run("runs/first").history
    run.save("my-model")
    assert "SYNTHETIC" in Path("my-model/README.md").read_text()
    assert np.array_equal(gmsa.load("my-model").predict(clips).values, answers.values)
    assert gmsa.load("my-model").evaluate()["test"] == run.metrics["test"]
    assert issubclass(GmsaError, Exception)


def test_arrays_in_the_place_of_a_data_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'data' is the path of a file or a feature store \(got a dict\); write"):
        gmsa.fit("synthetic", data={"train": {}}, out=tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()

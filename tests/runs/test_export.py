"""Exported programs predict what their runs do, for batches of any size; what cannot be exported says why."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_data import tiny_run

import gmsa
from gmsa import export
from gmsa.config import from_dict
from gmsa.data.notes import collected
from gmsa.errors import DataError, RunError
from gmsa.registry import LAYERS, MODELS
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.exporting import check, refusals
from gmsa.runs.exporting import export as exporting

Module = Callable[..., Mapping[str, torch.Tensor]]
MTAG = {"intra": "mtag", "inter": "mtag"}


@pytest.fixture
def make(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Trains a run of one seed on the tiny file, and opens it."""
    monkeypatch.setattr(results, "draw_run", lambda *_: None)

    def train(name: str, **groups: Any) -> Run:
        with collected():
            groups = {"run": {"seeds": [1]}} | groups
            return Run(tiny_run(tiny / f"exported {name}", tiny / "own.pkl", **groups))

    return train


@pytest.fixture(scope="module")
def program(tiny: Path) -> Path:
    """The program of the run of an intensity, of its first seed."""
    file = tiny / "intensity.pt2"
    assert Run(tiny / "intensity").export(file, seeds=1).largest_difference < 1e-5
    return file


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What the program's file says of itself, once it is opened."""
    return {"gmsa.json": ""}


@pytest.fixture(scope="module")
def module(program: Path, said: dict[str, str]) -> Module:
    """The program, opened."""
    return torch.export.load(program, extra_files=said).module()


def assert_same(run: Run, file: Path, clips: Path, module: Module | None = None, seeds: int | None = None) -> None:
    """The program of a run predicts as it does: a file at once, and the utterances of a dialogue at a time."""
    module, inputs = module or torch.export.load(file).module(), gmsa.ProgramInputs(file)
    expected = run.predict(clips, seeds=seeds)
    found = module(inputs(clips))
    np.testing.assert_allclose(found["probabilities"].numpy(), expected.probabilities, atol=1e-5)
    if expected.values is not None:
        np.testing.assert_allclose(found["value"].numpy(), expected.values, atol=1e-5)
    if expected.gate is not None:
        np.testing.assert_allclose(found["gate"].numpy(), expected.gate, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in refusals.MODELS else pytest.mark.slow) for n in MODELS],
)
def test_every_model_is_exported_or_says_why(name: str, make: Callable[..., Run], tmp_path: Path, tiny: Path) -> None:
    settings: dict[str, Any] = {"graph": MTAG} if name == "mtag" else {}
    if name in refusals.MODELS and name != "hgt":
        settings = {"graph": {"scope": "dialogue"}}
    if name == "cogmen":
        name = "cogmen(feedforward=32)"
    run = make(f"model {name}", model={"name": name}, **settings)
    if name.partition("(")[0] in refusals.MODELS:
        with pytest.raises(RunError, match=r"'model.name: .*' cannot be exported: it .* cannot know; use gmsa predict"):
            run.export(tmp_path / "model.pt2")
        assert not [*tmp_path.iterdir()]
        return
    assert run.export(tmp_path / "model.pt2").largest_difference < 1e-5
    assert_same(run, tmp_path / "model.pt2", tiny / "other.pkl")


@pytest.mark.parametrize(
    "layer", [pytest.param(name, marks=[] if name in refusals.LAYERS else pytest.mark.slow) for name in LAYERS]
)
def test_every_layer_is_exported_or_says_why(layer: str, make: Callable[..., Run], tmp_path: Path) -> None:
    run = make(f"layer {layer}", model={"layer": layer, "layers": 1})
    if layer in refusals.LAYERS:
        with pytest.raises(RunError, match=rf"'model.layer: {layer}' cannot be exported: it asks how many edges"):
            run.export(tmp_path / "model.pt2")
    else:
        assert run.export(tmp_path / "model.pt2").largest_difference < 1e-5


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param({"scope": "dialogue"}, marks=pytest.mark.slow),
        pytest.param({"scope": "hierarchical"}, marks=pytest.mark.slow),
        pytest.param({"scope": "dialogue", "speakers": "same_other", "future": 0}, marks=pytest.mark.slow),
        pytest.param({"scope": "dialogue", "weights": "angular"}, marks=pytest.mark.slow),
        pytest.param({"scope": "hierarchical", "between": "learned"}, marks=pytest.mark.slow),
        pytest.param({"intra": "knn", "inter": "window"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_graphs(graph: dict[str, Any], make: Callable[..., Run], tmp_path: Path, tiny: Path) -> None:
    run = make(str(sorted(graph.items())), graph=graph)
    run.export(tmp_path / "model.pt2")
    assert_same(run, tmp_path / "model.pt2", tiny / "other.pkl")


@pytest.mark.slow
def test_classes(emotion: Run, tmp_path: Path, tiny: Path) -> None:
    found = emotion.export(tmp_path / "model.pt2")
    assert [one["name"] for one in found.description["outputs"]] == ["probabilities", "gate"]
    assert found.description["target"]["classes"] == ["anger", "fear", "joy"]
    assert_same(emotion, tmp_path / "model.pt2", tiny / "words.pkl")


def test_one_seed(run: Run, program: Path, module: Module, tiny: Path) -> None:
    assert_same(run, program, tiny / "other.pkl", module, seeds=1)


@pytest.mark.slow
def test_the_mean_of_seeds(run: Run, tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.export(tmp_path / "both.pt2")
    assert gmsa.ProgramInputs(tmp_path / "both.pt2").description["seeds"] == [1, 2]
    assert_same(run, tmp_path / "both.pt2", tiny / "other.pkl")
    export.main(["--run", str(tiny / "intensity"), "--out", str(tmp_path / "second.pt2"), "--seeds", "2"])
    said = " ".join(capsys.readouterr().out.split())
    assert "second.pt2: semi_iin, seed 2 On batches of 1 to 64 utterances it differs from the run by at most" in said
    inputs = gmsa.ProgramInputs(tmp_path / "second.pt2")
    found = torch.export.load(tmp_path / "second.pt2").module()(inputs(tiny / "other.pkl"))["value"]
    expected = run.predict(tiny / "other.pkl", seeds=2).values
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert np.abs(expected - run.predict(tiny / "other.pkl", seeds=1).values).max() > 1e-3


def test_what_is_missing(run: Run, program: Path, module: Module) -> None:
    """A modality that one utterance, or all of a batch, lack; one utterance by itself."""
    inputs = gmsa.ProgramInputs(program)
    draw = torch.Generator().manual_seed(0)
    clips = [
        gmsa.Utterance("a", {"text": torch.randn(3, 4, generator=draw)}),
        gmsa.Utterance("b", {"audio": torch.randn(9, 3, generator=draw), "vision": torch.randn(1, 2, generator=draw)}),
        gmsa.Utterance("c", {"text": torch.randn(1, 4, generator=draw)}),
    ]
    for batch in (clips, clips[:1], clips[1:2], [clips[0], clips[2]]):
        with collected():
            found, expected = module(inputs(batch))["value"], run.predict(batch, seeds=1).values
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.slow
def test_a_saved_model_with_other_versions(run: Run, tmp_path: Path, tiny: Path) -> None:
    """A run that an older gmsa wrote lacks settings that came since."""
    folder = run.save(tmp_path / "saved")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text("\n".join(x for x in text.splitlines() if not x.startswith("plugins")))
    environment = json.loads((folder / "environment.json").read_text())
    environment.pop("extraction", None)
    (folder / "environment.json").write_text(json.dumps(environment))
    old = gmsa.load(folder)
    old.export(tmp_path / "model.pt2", seeds=1)
    np.testing.assert_allclose(
        torch.export.load(tmp_path / "model.pt2").module()(
            gmsa.ProgramInputs(tmp_path / "model.pt2")(tiny / "own.pkl")
        )["value"],
        run.predict(tiny / "own.pkl", seeds=1).values,
        atol=1e-5,
    )


@pytest.mark.slow
def test_it_runs_without_gmsa(run: Run, program: Path, tmp_path: Path, tiny: Path) -> None:
    torch.save(gmsa.ProgramInputs(program)(tiny / "other.pkl"), tmp_path / "inputs.pt")
    code = (
        "import sys, torch; sys.modules['gmsa'] = sys.modules['torch_geometric'] = None\n"
        f"program = torch.export.load({str(program)!r}).module()\n"
        f"print(program(torch.load({str(tmp_path / 'inputs.pt')!r}, weights_only=True))['value'].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    np.testing.assert_allclose(json.loads(done.stdout), run.predict(tiny / "other.pkl", seeds=1).values, atol=1e-5)


def test_what_the_file_says_of_itself(
    run: Run, program: Path, module: Module, said: dict[str, str], tiny: Path
) -> None:
    facts = json.loads(said["gmsa.json"])
    assert facts == gmsa.ProgramInputs(program).description == gmsa.ProgramInputs(facts).description
    assert facts["versions"] == {"gmsa": gmsa.__version__, "torch": torch.__version__}
    assert facts["seeds"] == [1]
    assert {m: x["features"] for m, x in facts["modalities"].items()} == run.dims
    assert facts["modalities"]["audio"]["steps_per_token"] == 8
    assert facts["normalization"]["mean"]["audio"] == run.normalizer.means["audio"].tolist()
    assert facts["config"]["data"]["path"] == "own.pkl"  # where it lay is nobody's business
    given = gmsa.ProgramInputs(program)(tiny / "other.pkl")
    for one in facts["inputs"]:
        x = given[one["name"]]
        assert str(x.dtype) == f"torch.{one['dtype']}"
        assert all(size in (None, n) for size, n in zip(one["shape"], x.shape, strict=True)), one
    assert {one["name"]: one["shape"] for one in facts["inputs"]}["features.text"] == [None, 4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"graph": {"scope": "dialogue"}, "model": {"sequence": "transformer"}},
            "'model.sequence: transformer' cannot be exported: it",
        ),
        (
            {"graph": {"scope": "hierarchical", "dialogue_node": True}, "model": {"propagation": 0.1}},
            "'graph.dialogue_node' cannot be exported: with 'model.propagation' it",
        ),
    ],
)
def test_settings_that_cannot_be_exported(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        refusals.check(from_dict(settings))


def test_a_text_encoder_cannot_be_exported() -> None:
    config = from_dict({})
    config = replace(config, model=replace(config.model, text_encoder="some/encoder"))
    with pytest.raises(RunError, match=r"'model.text_encoder' cannot be exported: .* train with features of the text"):
        refusals.check(config)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "hgt" else []) for name in refusals.MODELS]
)
def test_what_is_refused_cannot_be_traced(
    name: str, make: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusals are no more than what torch refuses; one that is not foreseen says what torch says."""
    graph = {} if name == "hgt" else {"graph": {"scope": "dialogue"}}
    run = make(f"refused {name}", model={"name": "cogmen(feedforward=32)" if name == "cogmen" else name}, **graph)
    monkeypatch.setattr(refusals, "check", lambda _: None)
    with pytest.raises(RunError, match=rf"torch.export cannot trace 'model.name: {name}' for batches of any size \("):
        run.export(tmp_path / "model.pt2")


def test_a_program_that_differs_is_not_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    utterances = check.made_up(run, 1, 0)
    assert utterances[0].steps
    inputs = gmsa.ProgramInputs(exporting_description(run))
    expected = run.predict(utterances)

    def off(_: object) -> dict[str, torch.Tensor]:
        return {
            "probabilities": torch.from_numpy(expected.probabilities),
            "value": torch.from_numpy(expected.values) + 2e-5,
            "gate": torch.from_numpy(expected.gate),
        }

    with pytest.raises(
        RunError, match=r"on a batch of 1 made-up utterances the program differs by 2e-05 .*not written"
    ):
        check.compare(run, run.seeds, off, inputs)

    def fails(_: object) -> dict[str, torch.Tensor]:
        raise AssertionError("Guard failed: x.size()[0] >= 4")

    with pytest.raises(RunError, match=r"the program fails on a batch of 1 .*Guard failed: .*use gmsa predict"):
        check.compare(run, run.seeds, fails, inputs)


def exporting_description(run: Run) -> dict[str, Any]:
    """The description of a program of the run, without inputs."""
    return exporting.describe(run, run.seeds, {}, {}, {})


def test_a_wrong_place(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"must end in \.pt2 or \.onnx"):
        run.export(tmp_path / "model.pt")
    with pytest.raises(RunError, match=r"the folder '.*none' does not exist"):
        run.export(tmp_path / "none" / "model.pt2")
    with pytest.raises(RunError, match="has no seed 7"):
        run.export(tmp_path / "model.pt2", seeds=7)
    found = importlib.util.find_spec
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxscript" else found("json"))
    with pytest.raises(RunError, match=r"ONNX needs onnxscript, not installed; .*or write model\.pt2"):
        run.export(tmp_path / "model.onnx")


def test_onnx(run: Run, tmp_path: Path, tiny: Path, make: Callable[..., Run]) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    file = tmp_path / "model.onnx"
    run.export(file, seeds=1)
    session = runtime.InferenceSession(file.read_bytes())
    inputs = gmsa.ProgramInputs(session.get_modelmeta().custom_metadata_map["gmsa.json"])
    given = {name: x.numpy() for name, x in inputs(tiny / "other.pkl").items()}
    (value,) = session.run(["value"], given)
    np.testing.assert_allclose(value, run.predict(tiny / "other.pkl", seeds=1).values, atol=1e-5)
    with pytest.raises(RunError, match=r"torch\.onnx cannot write the program .*repeat_interleave.*\.pt2"):
        make("onnx sslmm", model={"name": "sslmm"}).export(tmp_path / "other.onnx")


def test_wrong_descriptions(program: Path, tmp_path: Path) -> None:
    facts = gmsa.ProgramInputs(program).description
    other = tmp_path / "other.pt2"
    with pytest.raises(RunError, match="does not exist"):
        gmsa.ProgramInputs(other)
    other.write_text("no archive")
    with pytest.raises(RunError, match=r"is no program that gmsa export wrote: it has no gmsa\.json"):
        gmsa.ProgramInputs(other)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("archive/extra/gmsa.json", "{")
    with pytest.raises(RunError, match=r"other\.pt2' is damaged"):
        gmsa.ProgramInputs(other)
    with pytest.raises(RunError, match=r"is of another form than this gmsa reads \(format 1\)"):
        gmsa.ProgramInputs(facts | {"format": 2})
    with pytest.raises(RunError, match=r"is damaged .*export the run again"):
        gmsa.ProgramInputs({key: x for key, x in facts.items() if key != "inputs"})
    with pytest.raises(RunError, match=r"settings that this gmsa does not take .*plugins="):
        gmsa.ProgramInputs(facts | {"config": facts["config"] | {"model": {"name": "mine"}}})
    with pytest.raises(DataError, match=r"makes no input 'features\.smell'"):
        gmsa.ProgramInputs(facts | {"inputs": [{"name": "features.smell"}]})(clip(3))


def test_wrong_utterances(program: Path) -> None:
    inputs = gmsa.ProgramInputs(program)
    with pytest.raises(DataError, match=r"'model\.positions' allows 16"):
        inputs(clip(17))
    with pytest.raises(DataError, match="has no text or audio or vision to predict from"):
        inputs([gmsa.Utterance("a", {})])
    with pytest.raises(DataError, match="'text' has 5 features per step, training has 4"):
        inputs([gmsa.Utterance("a", {"text": torch.zeros(2, 5)})])


def clip(steps: int) -> list[gmsa.Utterance]:
    """One utterance with all modalities."""
    return [gmsa.Utterance("a", {m: torch.ones(steps, dim) for m, dim in {"text": 4, "audio": 3, "vision": 2}.items()})]

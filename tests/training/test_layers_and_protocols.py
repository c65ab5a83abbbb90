"""Every layer with every protocol in every scope: trained, interrupted, resumed, predicted, compared and tuned."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.graphs import clip
from helpers.killed_runs import ended, left, run_once, together
from helpers.layers import sees_graph, variants
from helpers.sslmm import small_sslmm
from helpers.studies import rows_of, tune

from gmsa.ablate import main as ablate
from gmsa.ablation import ablate as ablation
from gmsa.ablation import comparison
from gmsa.ablation.cells import train_cell
from gmsa.config import Config, load_config, to_dict
from gmsa.errors import ConfigError
from gmsa.models import check
from gmsa.registry import LAYERS, PROTOCOLS
from gmsa.reports.pages import html
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.predict import predict_file
from gmsa.training.callbacks.progress import Progress
from gmsa.training.checkpoint import digest, load_weights
from gmsa.tuning import study as studies
from gmsa.tuning.workers import run_trials

MODELS = ("semi_iin", "sslmm")
"""Those whose streams take any layer."""
SCOPES = ("utterance", "dialogue", "hierarchical")
PRETRAINED = "pre-trained, then supervised"
WAYS = [*sorted(PROTOCOLS), PRETRAINED]
TRAINED = [way for way in WAYS if way != "pretrain"]
"""Those that leave a model that predicts."""


def alternating(*axes: Sequence[str], last: Sequence[str]) -> list[tuple[str, ...]]:
    """All combinations, each with one of the last axis: along every other axis these alternate."""
    places = itertools.product(*map(range, map(len, axes)))
    return [(*(a[i] for a, i in zip(axes, place, strict=True)), last[sum(place) % len(last)]) for place in places]


CASES = alternating(sorted(LAYERS), WAYS, SCOPES, last=MODELS)
PLAIN = [
    next(
        case
        for case in CASES
        if case[:3] == (layer, WAYS[(i + 4) % len(WAYS)], SCOPES[(i + i // len(WAYS)) % len(SCOPES)])
    )
    for i, layer in enumerate(sorted(LAYERS))
]
"""One for each layer, that together have everything once: those of the plain suite. All others are slow."""


@pytest.fixture
def config_of(write_mmsa: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """A config that trains in a fraction of a second, saves after every step, and leaves no figures and no page."""
    for name in ("draw_run", "finish_report"):
        monkeypatch.setattr(results, name, lambda *a: None)

    def make(way: str, scope: str, name: str, layer: Any = "attention", **groups: dict[str, Any]) -> Config:
        settings: dict[str, dict[str, Any]] = {
            "model": {"name": name, "layer": layer, "channels": 8, "heads": 2, "dropout": 0.1},
            "graph": {"scope": scope, "edge_dropout": 0.1},
            "protocol": {"name": "supervised" if way == PRETRAINED else way},
            "pretrain": {"epochs": int(way in (PRETRAINED, "pretrain"))},
            "reconstruction": {"weight": 0.0},
            "data": {"label_ratio": 0.5, "missing": {"train": "eta:0.3"}},
            "run": {"seeds": [1], "device": "cpu", "save_every": 1e-6},
        }
        return small_sslmm(
            write_mmsa, **{name: settings.get(name, {}) | groups.get(name, {}) for name in {*settings, *groups}}
        )

    return make


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ablations and studies train in this process, without figures: each process takes seconds to start."""
    monkeypatch.setattr(comparison, "figure_ablation", lambda *a: True)
    monkeypatch.setattr(comparison, "figure_costs", lambda *a: True)
    monkeypatch.setattr(studies, "draw_study", lambda *a: [])
    monkeypatch.setattr(html, "plotly_script", lambda: "")
    monkeypatch.setattr(ablation, "run_cells", lambda cells, jobs, ended: [ended(c, train_cell(c)) for c in cells])
    monkeypatch.setattr(studies, "run_workers", lambda task, jobs, look, say: (run_trials(task), look()))


class Lost(BaseException):
    """The process is lost in the middle of a step."""


def train(config: Config, folder: Path, lost: int = 0) -> int:
    """Trains; where the step of that number is lost, resumes. Returns the number of steps, of all stages."""
    steps = 0

    def on_step(self: Progress, ids: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == lost:
            raise Lost

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "on_step", on_step)
        if lost:
            with pytest.raises(Lost):
                run_once(config, folder)
        run_once(config, folder)
    return steps


def answers(path: Path) -> dict[str, list[float]]:
    """Of validation and test: of training utterances a run has what it predicts behind its masks."""
    columns = ("prediction", "gate_val", "gate_cls")
    rows = [row for row in csv.DictReader(path.open()) if row["split"] != "train"]
    return {row["id"]: [float(row[column] or "nan") for column in columns] for row in rows}


def check_whole(config: Config, folder: Path) -> None:
    """A run trains; interrupted in its middle it ends with the same bits; its folder predicts as it did."""
    seldom = replace(config, run=replace(config.run, save_every=300.0))
    steps = train(seldom, folder / "whole")
    assert train(config, folder / "resumed", lost=steps // 2 + 1) == steps + 1
    assert left(folder / "whole")
    assert left(folder / "resumed") == left(folder / "whole")
    summary = json.loads((folder / "whole" / "summary.json").read_text())
    if config.protocol.name == "pretrain":
        assert np.isfinite(summary["valid"]["loss"]["mean"])
        return
    assert np.isfinite([summary[split]["MAE"]["mean"] for split in ("valid", "test")]).all()
    predict_file(folder / "resumed", Path(config.data.path), folder / "out.csv")
    own, found = answers(folder / "whole" / "seed-1" / "predictions.csv"), answers(folder / "out.csv")
    assert own.keys() == found.keys()
    np.testing.assert_allclose([found[i] for i in own], list(own.values()), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "way", "scope", "model"),
    [pytest.param(*case, marks=() if case in PLAIN else pytest.mark.slow) for case in CASES],
)
def test_a_layer_trains_resumes_and_predicts(
    config_of, tmp_path: Path, layer: str, way: str, scope: str, model: str
) -> None:
    check_whole(config_of(way, scope, model, layer), tmp_path)


def test_the_plain_suite_has_each_layer_protocol_scope_and_model() -> None:
    assert [{*column} for column in zip(*PLAIN, strict=True)] == [{*LAYERS}, {*WAYS}, {*SCOPES}, {*MODELS}]
    assert len(PLAIN) == len(LAYERS)


SPECS = variants(*sorted(LAYERS))
"""Each layer with its defaults, and with parameters that have paths of their own."""


@pytest.mark.parametrize("model", [MODELS[0], pytest.param(MODELS[1], marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("intra", "inter"),
    [
        pytest.param(spec, SPECS[i - 5], marks=() if spec.startswith("gatv2(") else pytest.mark.slow)
        for i, spec in enumerate(SPECS)
    ],
)
def test_parameters_of_layers_by_stream(config_of, tmp_path: Path, intra: str, inter: str, model: str) -> None:
    layers = {"intra": intra, "inter": inter}
    check_whole(config_of("supervised", "hierarchical", model, layers, reconstruction={"weight": 0.5}), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "scope", "model"), alternating(sorted(LAYERS), SCOPES, last=MODELS))
def test_a_run_starts_from_pretrained_weights(config_of, tmp_path: Path, layer: str, scope: str, model: str) -> None:
    run_once(config_of("pretrain", scope, model, layer), tmp_path / "pretrained")
    start = {"init_from": str(tmp_path / "pretrained"), "name": "supervised"}
    run_once(config_of("supervised", scope, model, layer, protocol=start), tmp_path / "apart")
    run_once(config_of(PRETRAINED, scope, model, layer), tmp_path / "together")
    apart, both = (load_weights(tmp_path / run / "seed-1" / "model.safetensors") for run in ("apart", "together"))
    assert digest(apart) == digest(both)


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "scope", "model"), alternating(sorted(LAYERS), SCOPES[1:], last=MODELS))
def test_a_growing_dialogue_is_answered_as_the_file_is(
    config_of, tmp_path: Path, layer: str, scope: str, model: str
) -> None:
    config = config_of("supervised", scope, model, layer, graph={"scope": scope, "past": 2, "future": 0})
    if sees_graph(layer):
        with pytest.raises(ConfigError, match=r"'graph.future' is 0, but a layer of 'model.layer' attends to all"):
            check(config)
        return
    run_once(config, tmp_path / "run")
    run = Run(tmp_path / "run")
    dims = {"text": 4, "audio": 3, "vision": 2}
    said = [clip(f"call$_${i}", dims, (1 + i % 4, 2 * i % 7, i % 3), speaker="ab"[i % 3 > 1]) for i in range(8)]
    stream = run.stream()
    found = [stream.add(utterance) for utterance in said]
    whole = run.predict(said)
    assert whole.values is not None
    np.testing.assert_allclose([float(a.values[0]) for a in found], whole.values, rtol=0, atol=1e-5)
    for i, answer in enumerate(found if scope == "hierarchical" else ()):  # nodes of dialogues have positions in them
        window = run.predict(said[max(0, i - stream.before) : i + 1])
        assert (answer.values[0], *answer.probabilities[0]) == (window.values[-1], *window.probabilities[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "scope", "way"), alternating(sorted(LAYERS), SCOPES, last=("supervised", "sslmm")))
def test_two_processes_give_what_one_gives(config_of, tmp_path: Path, layer: str, scope: str, way: str) -> None:
    """Without dropout, which each process draws for itself."""
    spec = "mtag(dropout=0)" if layer == "mtag" else layer  # its own, 0.1 by default
    config = config_of(
        way, scope, "semi_iin", spec, model={"dropout": 0, "input_dropout": 0}, graph={"edge_dropout": 0}
    )
    run_once(config, tmp_path / "one")
    assert [ended(number) for number in together(2, lambda: run_once(config, tmp_path / "two"))] == [0, 0]
    one, two = (answers(tmp_path / name / "seed-1" / "predictions.csv") for name in ("one", "two"))
    assert one.keys() == two.keys()
    np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=1e-4, atol=1e-4)


# --- compared and tuned ----------------------------------------------------------------------------------------------


def written(config: Config, path: Path) -> str:
    path.write_text(yaml.safe_dump(to_dict(config)))
    return str(path)


@pytest.mark.parametrize(
    ("way", "scope", "model", "layers"),
    [
        ("supervised", "utterance", MODELS[0], ("attention", "rgcn", "gatv2")),
        *(
            pytest.param(*case, sorted(LAYERS), marks=pytest.mark.slow)
            for case in alternating(TRAINED, SCOPES, last=MODELS)
        ),
    ],
)
def test_layers_are_compared(
    here: None, config_of, tmp_path: Path, way: str, scope: str, model: str, layers: Sequence[str]
) -> None:
    base = written(config_of(way, scope, model), tmp_path / "base.yaml")
    out = tmp_path / "out"
    specs = [*layers, "gatv2(heads=4)"]
    ablate(["--config", base, "--out", str(out), "--vary", f"model.layer={','.join(specs)}"])
    rows = json.loads((out / "summary.json").read_text())["rows"]
    assert sorted(row["values"]["model.layer"] for row in rows) == sorted(specs)
    assert sorted(row["rank"] for row in rows) == [*range(1, len(specs) + 1)]
    assert len({row["valid"]["MAE"]["mean"] for row in rows}) == len(specs)


@pytest.mark.parametrize(
    ("layer", "way", "scope"),
    [
        ("rgcn(bases=2)", "supervised", "utterance"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in alternating(sorted(LAYERS), TRAINED, last=SCOPES)),
    ],
)
def test_a_layer_is_tuned(here: None, config_of, tmp_path: Path, layer: str, way: str, scope: str) -> None:
    """The config's trial has the layer in both streams, the others have it in one at least."""
    base = written(config_of(way, scope, "semi_iin", layer), tmp_path / "base.yaml")
    space = tmp_path / "space.yaml"
    other = "sage" if layer == "attention" else "attention"
    space.write_text(
        f"optim.lr: {{float: [1e-4, 1e-2], log: true}}\nmodel.layer.inter: {{choice: ['{layer}', {other}]}}\n"
    )
    out = tmp_path / "study"
    assert tune(Path(base), out, "--space", str(space), "--trials", "2", "--pruner", "off") == 0
    rows = rows_of(out)
    assert [row["state"] for row in rows] == ["complete", "complete"]
    assert rows[0]["model.layer.inter"] == layer
    assert np.isfinite([float(row["MAE"]) for row in rows]).all()
    best = load_config(out / "best.yaml").model.layer
    assert (best.of("intra"), best.of("inter")) in [(layer, layer), (layer, other)]

"""Cross-validation: every setting on every fold, with the numbers of trainings by hand."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import gmsa
from gmsa.ablate import main
from gmsa.ablation import ablate as ablation
from gmsa.ablation import comparison
from gmsa.ablation.cells import Cell, CellKey, train_cell
from gmsa.ablation.folder import Table
from gmsa.ablation.variants import read_variants
from gmsa.config import load_config
from gmsa.data import load_corpus
from gmsa.errors import ConfigError, GmsaError
from gmsa.figures import figure_ablation
from gmsa.metrics import holm, paired_bootstrap
from gmsa.reports.pages import html
from gmsa.runs import report as results

pytestmark = pytest.mark.filterwarnings("ignore::gmsa.errors.DataWarning")
SPEAKERS = 7
FUSIONS = ["gate", "add"]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[CellKey]:
    """Trains cells in this process, without figures, as each process takes seconds to start; notes which."""
    found: list[CellKey] = []

    def run_cells(waiting: list[Cell], jobs: int, ended: Callable) -> None:
        for cell in waiting:
            found.append(cell.key)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                ended(cell, train_cell(cell))

    monkeypatch.delenv("GMSA_DATA", raising=False)
    monkeypatch.setattr(ablation, "run_cells", run_cells)
    monkeypatch.setattr(results, "draw_run", lambda *a: None)
    monkeypatch.setattr(comparison, "figure_ablation", lambda *a: True)
    monkeypatch.setattr(comparison, "figure_costs", lambda *a: True)
    monkeypatch.setattr(html, "plotly_script", lambda: "")  # 5 MB
    return found


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A config that trains in a moment on a file of speakers without splits."""
    return write_base(tmp_path, {})


def write_base(folder: Path, columns: dict[str, Any], labels: np.ndarray | None = None, **settings: Any) -> Path:
    rng = np.random.default_rng(0)
    count = 6 * SPEAKERS
    labels = np.linspace(-2.5, 2.5, count).astype(np.float32) if labels is None else labels
    content = {
        "id": [f"v{i // 3}$_${i}" for i in range(count)],
        "speaker": [f"person {i % SPEAKERS}" for i in range(count)],
        "regression_labels": labels,
        "text": rng.standard_normal((count, 4, 3)).astype(np.float32) + labels[:, None, None],
        "audio": rng.standard_normal((count, 5, 2)).astype(np.float32),
    }
    path = folder / "people.pkl"
    path.write_bytes(pickle.dumps({"all": content | columns}))
    chosen = {
        "data": {"path": str(path), "modalities": ["text", "audio"]},
        "model": {"channels": 8, "heads": 2, "layers": 1},
        "optim": {"epochs": 1, "min_steps": 0},
        "protocol": {"name": "supervised"},
        "run": {"seeds": [1], "device": "cpu"},
    }
    for group, values in settings.items():
        chosen[group] = chosen.get(group, {}) | values
    file = folder / "base.yaml"
    file.write_text(yaml.safe_dump(chosen))
    return file


def summary_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def answers(path: Path, split: str) -> dict[str, float]:
    rows = csv.DictReader(path.open())
    return {r["id"]: abs(float(r["prediction"]) - float(r["label"])) for r in rows if r["split"] == split}


@pytest.mark.filterwarnings("ignore:the prediction is constant")
def test_folds_by_speaker_give_the_numbers_of_trainings_by_hand(base: Path, tmp_path: Path, trained: list) -> None:
    out = tmp_path / "out"
    table = gmsa.compare(base, {"model.fusion": FUSIONS}, folds=3, by="speaker", out=out)
    assert len(trained) == 2 * 3
    assert table.complete
    summary = summary_of(out)
    assert (summary["folds"]["by"], summary["folds"]["seed"]) == ("speaker", 0)
    assert [part["fold"] for part in summary["folds"]["parts"]] == list(range(3))

    tested: list[str] = []
    for fold, part in enumerate(summary["folds"]["parts"]):
        asked = [f"data.split.{key}" for key in ("folds=3", f"fold={fold}", "by=speaker")]
        config = load_config(base, [*asked, "model.fusion=add"])
        splits = load_corpus(config.data, config.target).splits
        assert {name: len(members) for name, members in splits.items()} == {s: part[s] for s in splits}
        speakers = [{u.speaker for u in members} for members in splits.values()]
        assert not any(a & b for i, a in enumerate(speakers) for b in speakers[i + 1 :])
        assert set.union(*speakers) == {f"person {i}" for i in range(SPEAKERS)}
        tested += [u.id for u in splits["test"]]

        by_hand = gmsa.fit(config, out=tmp_path / f"hand-{fold}")
        row = next(r for r in summary["rows"] if r["values"]["model.fusion"] == "add")
        own = out / "cells" / "model.fusion=add" / f"fold-{fold}" / "seed-1" / "seed-1" / "predictions.csv"
        assert own.read_bytes() == (by_hand.folder / "seed-1" / "predictions.csv").read_bytes()
        for split in ("valid", "test"):
            for metric, found in by_hand.metrics[split].items():
                assert row[split][metric]["values"][fold] == found["mean"]
    assert len(tested) == len(set(tested)) == 6 * SPEAKERS

    for row in summary["rows"]:
        for split in ("valid", "test"):
            values = row[split]["MAE"]["values"]
            assert len(values) == 3
            assert row[split]["MAE"]["mean"] == pytest.approx(np.mean(values))
            assert row[split]["MAE"]["std"] == pytest.approx(np.std(values, ddof=1))
    means = [row["valid"]["MAE"]["mean"] for row in summary["rows"]]
    assert means == sorted(means)

    # The paired test is over the utterances of all folds.
    other = next(row for row in summary["rows"] if not row["reference"])
    for split in ("valid", "test"):
        errors = {}
        for fusion in FUSIONS:
            found: dict[str, float] = {}
            for fold in range(3):
                cell = out / "cells" / f"model.fusion={fusion}" / f"fold-{fold}" / "seed-1"
                more = answers(cell / "seed-1" / "predictions.csv", split)
                assert not found.keys() & more.keys()
                found |= more
            assert found.keys() == set(tested)
            errors[fusion] = np.array([list(found.values())])
        expected = paired_bootstrap(errors["gate"], errors["add"])
        corrected = {"p_holm": holm([expected.p])[0]}
        assert other["difference"][split] == pytest.approx(vars(expected) | corrected, abs=1e-9)

    text = (out / "summary.md").read_text()
    assert "mean ± standard deviation over 3 folds. Test took" in text
    assert "over seeds and the utterances of all folds" in text
    rows = list(csv.DictReader((out / "ablation.csv").open()))
    assert {(r["setting"], r["fold"], r["seed"]) for r in rows} == {(a, str(b), str(c)) for a, b, c in trained}
    page = (out / "report.html").read_text()
    for row in summary["rows"]:
        for value in row["test"]["MAE"]["values"]:
            assert f"{value:.4f}" in page
    assert f'href="{summary["rows"][0]["folder"].replace("=", "%3D")}/fold-2/seed-1/report.html"' in page
    assert "--folds 3" in page

    # Cells that are done are not trained again, and the files say the same.
    before = {name: (out / name).read_bytes() for name in ("summary.json", "ablation.csv", "summary.md")}
    (out / "cells" / "model.fusion=add" / "fold-1" / "seed-1" / "cell.json").write_text("{}")
    trained.clear()
    main([*command(base, out), "--folds", "3", "--by", "speaker"])
    assert trained == [("model.fusion=add", 1, 1)]
    assert (out / "summary.md").read_bytes().splitlines()[:6] == before["summary.md"].splitlines()[:6]
    trained.clear()
    with pytest.raises(GmsaError, match=r"fold-0/seed-1' with other settings: data.split.by was 'speaker', is"):
        main([*command(base, out), "--folds", "3", "--by", "video"])
    assert not trained


def command(base: Path, out: Path) -> list[str]:
    return ["--config", str(base), "--out", str(out), "--vary", "model.fusion=gate,add"]


@pytest.mark.usefixtures("rendered")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the prediction is constant")
def test_the_folds_of_a_file_and_a_failed_one(tmp_path: Path, trained: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes, whose sessions are the folds."""
    names = np.array(["calm", "cross", "glad"])
    count = 6 * SPEAKERS
    sessions = [f"Session{i % SPEAKERS % 3 + 1}" for i in range(count)]
    columns = {"emotion": names[np.arange(count) % 3].tolist(), "fold": sessions}
    base = write_base(tmp_path, columns, target={"kind": "classes", "field": "emotion"}, run={"seeds": [1, 2]})
    drawn: list[Any] = []
    monkeypatch.setattr(comparison, "figure_ablation", lambda *a: drawn.append(a) or figure_ablation(*a))
    out = tmp_path / "out"
    with pytest.raises(GmsaError, match=r"its own folds are 3 \(Session1, .*set data.split.folds=3"):
        main([*command(base, out), "--folds", "5", "--by", "speaker"])
    main([*command(base, out), "--folds", "3", "--by", "speaker"])
    summary = summary_of(out)
    assert summary["select"] == "weighted_F1"
    assert [part["name"] for part in summary["folds"]["parts"]] == ["Session1", "Session2", "Session3"]
    for row in summary["rows"]:
        cells = [f"{row['folder']}/fold-{fold}/seed-{{}}/cell.json" for fold in range(3)]
        for split in ("valid", "test"):
            records = [[json.loads((out / c.format(seed)).read_text()) for seed in (1, 2)] for c in cells]
            folds = [np.mean([record[split]["weighted_F1"] for record in seeds]) for seeds in records]
            assert row[split]["weighted_F1"]["values"] == pytest.approx(folds)
        difference = row.get("difference", {"valid": None})["valid"]
        assert row["reference"] or -1 <= difference["low"] <= difference["difference"] <= difference["high"] <= 1
    assert "over 3 folds of the mean over 2 seeds" in (out / "summary.md").read_text()
    means = [row["valid"]["weighted_F1"]["mean"] for row in summary["rows"]]
    assert means == sorted(means, reverse=True)
    assert drawn[0][3:] == ("weighted_F1 (%)", "", "3 folds")
    assert (out / "figures" / "ablation.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text()
    assert "Session2" in page
    assert "3, as the file says" in page
    assert "bars are 95 % intervals" in page

    cell = out / "cells" / "model.fusion=add" / "fold-1" / "seed-1"
    (cell / "cell.json").unlink()

    def train(cell: Cell) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr("gmsa.ablation.cells._train", train)
    with pytest.raises(SystemExit):
        main([*command(base, out), "--folds", "3", "--by", "speaker"])
    failed = summary_of(out)["rows"][-1]
    assert (failed["rank"], failed["failed"]) == (None, {"fold 1, seed 1": "RuntimeError: no memory"})
    assert "- model.fusion=add, fold 1, seed 1: RuntimeError: no memory" in (out / "summary.md").read_text()


@pytest.mark.filterwarnings("ignore:the prediction is constant")
def test_a_config_is_cross_validated_alone(base: Path, tmp_path: Path, trained: list) -> None:
    out = tmp_path / "out"
    table = gmsa.compare(base, folds=3, by="speaker", out=out)
    assert trained == [("base", fold, 1) for fold in range(3)]
    assert (table.chosen, len(table)) == ("base", 1)
    again = load_config(out / "base.yaml")
    assert [v.name for v in read_variants(again, [], [], out / "settings.yaml")] == ["base"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "speaker"], "--by says what stays together in a fold; give --folds, too"),
        (["--folds", "2"], r"--folds takes a whole number from 3 .*\(got 2\)"),
        (["--folds", "0"], r"--folds takes a whole number from 3 .*\(got 0\)"),
        (["--folds", "5", "--set", "data.split.fold=1"], "'data.split.fold' gets a value from --set and from --folds"),
        (
            ["--folds", "5", "--set", "data.split.keep_test=true"],
            "--folds tests on every part in turn, but 'data.split.keep_test' has one test split for all",
        ),
        (["--folds", "5", "--vary", "data.split.seed=1,2"], "'data.split.seed' cannot be varied: .* same utterances"),
        (["--vary", "target.range=[-1,1],[-2,2]"], "'target.range' cannot be varied: .* same target"),
        (["--vary", "data.labels=mosi,sims"], "'data.labels' cannot be varied: .* same target"),
        (
            ["--vary", "data.video_from=auto,text"],
            "'data.video_from' cannot be varied: splits are made of",
        ),
        (["--folds", "8", "--by", "speaker"], "has 7 labeled speakers, fewer than data.split.folds=8"),
    ],
)
def test_mistakes_are_named_before_anything_runs(
    base: Path, tmp_path: Path, trained: list, arguments: list[str], message: str
) -> None:
    with pytest.raises(GmsaError, match=message):
        main([*command(base, tmp_path / "out"), *arguments])
    assert not trained
    with pytest.raises(ConfigError, match="--folds takes a whole number"):
        gmsa.compare(base, {"model.fusion": FUSIONS}, folds=True)


@pytest.mark.filterwarnings("ignore:the prediction is constant")
@pytest.mark.slow
def test_modalities_and_class_weights_are_varied(tmp_path: Path, trained: list) -> None:
    names = np.array(["calm", "glad"])
    columns = {"emotion": names[np.arange(6 * SPEAKERS) % 5 // 4].tolist()}
    base = write_base(
        tmp_path,
        columns,
        data={"path": str(tmp_path / "people.pkl"), "split": {"valid": 0.2, "test": 0.2}},
        target={"kind": "classes", "field": "emotion"},
        run={"seeds": [1], "device": "cpu"},
    )
    out = tmp_path / "out"
    arguments = ["--config", str(base), "--out", str(out), "--vary"]
    main([*arguments, "data.modalities=[text],[text,audio]"])
    rows = summary_of(out)["rows"]
    assert sorted(row["values"]["data.modalities"] for row in rows) == [["text"], ["text", "audio"]]
    assert all(row["rank"] for row in rows)
    assert rows[0]["nodes"] != rows[1]["nodes"]
    main([*arguments, "loss.class_weights=none,balanced", "--out", str(tmp_path / "weights")])
    assert sorted(row["values"]["loss.class_weights"] for row in summary_of(tmp_path / "weights")["rows"]) == [
        "balanced",
        "none",
    ]


@pytest.mark.filterwarnings("ignore:the prediction is constant")
@pytest.mark.slow
def test_an_ablation_of_an_earlier_gmsa_opens_and_goes_on(
    write_mmsa: Callable[..., Path], tmp_path: Path, trained: list
) -> None:
    """Its configs name ``data.labels`` and a setting per modality; its p-values are not corrected."""
    settings: dict[str, Any] = {
        "data": {"path": str(write_mmsa()), "name": "tiny", "labels": "mosi"},
        "model": {"channels": 8, "heads": 2, "layers": 1, "text_convs": [[5, 1]]},
        "optim": {"epochs": 1, "min_steps": 0},
        "protocol": {"name": "supervised"},
        "run": {"seeds": [1], "device": "cpu"},
    }
    base, out = tmp_path / "base.yaml", tmp_path / "out"
    base.write_text(yaml.safe_dump(settings))
    main(command(base, out))
    assert len(trained) == 2
    for path in out.glob("cells/*/seed-1/config.yaml"):
        config = yaml.safe_load(path.read_text())
        del config["target"]
        for key in ("split", "nan", "video_from"):
            del config["data"][key]
        config["data"]["labels"] = "mosi"
        convs = config["model"].pop("encoders")
        config["model"] |= {f"{m}_convs": convs[m] for m in ("text", "audio", "vision")}
        path.write_text(yaml.safe_dump(config))
    summary = summary_of(out)
    for row in summary["rows"]:
        for difference in row.get("difference", {}).values():
            del difference["p_holm"]
    (out / "summary.json").write_text(json.dumps(summary))
    table = Table(out)
    assert len(table) == 2
    assert "p = " in table.to_markdown()
    trained.clear()
    main(command(base, out))
    assert not trained

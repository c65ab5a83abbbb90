"""Several runs on several data sets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.tiny_data import tiny_content, write_pickle

from gmsa import evaluate as command
from gmsa.errors import ConfigError
from gmsa.runs import Run
from gmsa.runs.scoring import matrix as module
from gmsa.runs.scoring.matrix import evaluate_matrix

pytestmark = pytest.mark.filterwarnings("ignore:the prediction is constant")


def test_every_cell_is_an_evaluation(run: Run, emotion: Run, tiny: Path, tmp_path: Path) -> None:
    narrow = tiny_content("n-", text=(5, 3))
    write_pickle(tmp_path / "narrow.pkl", narrow)
    files = [tiny / "own.pkl", tiny / "other.pkl", tiny / "words.pkl", tmp_path / "narrow.pkl", tmp_path / "no.pkl"]
    options = [part for file in files for part in ("--data", str(file))]
    runs = ["--run", str(run.folder), "--run", str(emotion.folder)]
    command.main([*runs, *options, "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "matrix.json").read_text())
    assert found["runs"] == ["intensity", "emotion"]
    assert found["data"] == ["own", "other", "words", "narrow", "no"]
    assert found["metrics"] == ["MAE", "Corr", "weighted_F1"]
    cells = {(cell["run"], cell["data"]): cell for cell in found["cells"]}
    assert len(cells) == 10
    assert cells["intensity", "own"]["own"]
    assert cells["intensity", "own"]["scores"] == run.metrics["test"]
    assert not cells["intensity", "other"]["own"]
    assert cells["intensity", "other"]["scores"] == run.evaluate(tiny / "other.pkl")["test"]
    assert cells["emotion", "words"]["own"]
    assert cells["emotion", "words"]["scores"] == emotion.metrics["test"]
    for place in (("intensity", "words"), ("intensity", "narrow"), ("intensity", "no"), ("emotion", "other")):
        assert "scores" not in cells[place]
        assert "\n" not in cells[place]["reason"]
    assert "'text' has 3 features per step, training has 4" in cells["intensity", "narrow"]["reason"]
    text = (tmp_path / "out" / "matrix.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| intensity |"))
    mae = run.metrics["test"]["MAE"]
    assert line.startswith(f"| intensity | {mae['mean']:.4f} ± {mae['std']:.4f} \\* | ")
    assert "– (1)" in line
    assert "\n1. intensity on words: " in text
    figures = sorted(path.name for path in (tmp_path / "out" / "figures").glob("*.png"))
    assert figures == ["matrix_Corr.png", "matrix_MAE.png", "matrix_weighted_F1.png"]


def test_metrics_splits_and_names(run: Run, tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pkl"
    shutil.copy(tiny / "other.pkl", other)
    files = [tiny / "other.pkl", other]
    found = evaluate_matrix([run], files, ["Mult_acc_7"], seeds=1, split="valid")
    assert found["metrics"] == ["Mult_acc_7"]
    assert found["data"] == [str(file) for file in files]
    assert [cell["split"] for cell in found["cells"]] == ["valid", "valid"]
    assert "the split 'valid' was scored" in str(found)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metrics": ["MEA"]}, r"--metric MEA is none of the runs' metrics \(did you mean 'MAE'\?\); they have "),
        ({"data": ["a.pkl", "a.pkl"]}, "--data names 'a.pkl' twice; name each once"),
        ({"runs": 2}, "--run names two runs that are called 'intensity'; name each once, or rename a folder"),
    ],
)
def test_what_is_refused_before_any_scoring(
    run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch, change: dict, said: str
) -> None:
    monkeypatch.setattr(module, "predict_whole", lambda *_: pytest.fail("scored"))
    with pytest.raises(ConfigError, match=said):
        evaluate_matrix(
            [run] * change.get("runs", 1), change.get("data", [tiny / "other.pkl"]), change.get("metrics", ())
        )

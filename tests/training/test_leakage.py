"""What training must not see: hidden features, the labels of the pool, the test split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.sslmm import config_of, of_the_same_videos, small_sslmm, task_of
from torch import Tensor

from gmsa.config import MODALITIES
from gmsa.config.groups.missing import Missing
from gmsa.data import apply_missing, from_mmsa, withhold_labels
from gmsa.runs import report as results
from gmsa.runs.train import train
from gmsa.training.tasks import FineTuning

SCOPES = ("utterance", "dialogue", "hierarchical")


def plainly(scope: str) -> list[Any]:
    """All scopes, of which all but one are slow: each of the tests that train has another one."""
    return [pytest.param(one, marks=[pytest.mark.slow] * (one != scope)) for one in SCOPES]


def one_step(task: FineTuning) -> list[Tensor]:
    """Loss, output-determining gradients of one step."""
    torch.manual_seed(0)
    model, teacher = task.build_module(), task.build_module()
    torch.manual_seed(1)
    total = torch.zeros(())
    for batch in task.batches(1, "stage", 1):
        total = total + task.loss(model, batch, teacher, 0.5)
    total.backward()
    return [total.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["sslmm", "semi_iin"])
@pytest.mark.parametrize("target", ["observed_only", "oracle"])
def test_features_of_a_missing_modality_change_nothing(make_utterance, scope: str, name: str, target: str) -> None:
    config = config_of(
        name,
        graph={"scope": scope},
        reconstruction={"weight": 0.5, "target": target},
        optim={"batch_size": 4},
    )
    whole = [make_utterance(f"v{i // 3}$_${i % 3}", (4, 6, 3), i / 3 - 1) for i in range(9)]
    masked = apply_missing(whole, Missing("eta", 0.5), MODALITIES, 3)
    others = [replace(u, withheld={m: torch.randn_like(x) * 100 for m, x in u.withheld.items()}) for u in masked]
    assert sum(len(u.withheld) for u in masked) > 5
    before, after = one_step(task_of(masked, config)), one_step(task_of(others, config))
    same = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert same == (target == "observed_only")


@pytest.mark.parametrize("scope", plainly("dialogue"))
def test_what_is_hidden_in_the_file_reaches_no_stage(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    """From the file to the predictions: normalization, both stages and scoring."""
    monkeypatch.setattr(results, "draw_run", lambda *a: None)
    changed = []

    def change(content: dict[str, Any]) -> None:
        for split, utterances in from_mmsa(content, "x").items():
            hidden = apply_missing(utterances, Missing("eta", 0.5), MODALITIES, 0)
            for i, (before, after) in enumerate(zip(utterances, hidden, strict=True)):
                for m in MODALITIES:
                    if before.lengths[m] and not after.lengths[m]:
                        content[split][m][i][: before.lengths[m]] *= 7
                        content[split][m][i][: before.lengths[m]] += 3
                        changed.append(before.id)

    data = {"missing": "eta:0.5", "label_ratio": 0.5, "normalize": list(MODALITIES)}
    for path in (write_mmsa("a.pkl"), write_mmsa("b.pkl", change)):
        config = small_sslmm(write_mmsa, graph={"scope": scope}, data={"path": str(path), **data})
        train(config, "tiny", tmp_path / path.stem)
    assert len(changed) > 50
    for file in ("pretrain.safetensors", "model.safetensors", "predictions.csv"):
        one, two = ((tmp_path / run / "seed-1" / file).read_bytes() for run in "ab")
        assert one == two, file


@pytest.mark.parametrize("scope", plainly("utterance"))
def test_training_reaches_the_scores_of_the_other_splits_by_the_weights_alone(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    """The steps are too small to move a weight."""
    monkeypatch.setattr(results, "draw_run", lambda *a: None)

    def change(content: dict[str, Any]) -> None:
        of_the_same_videos(content)
        for modality in MODALITIES:
            content["train"][modality] = content["train"][modality] * 3

    for name, how in (("a", of_the_same_videos), ("b", change)):
        config = small_sslmm(
            write_mmsa,
            data={"path": str(write_mmsa(f"{name}.pkl", how)), "normalize": []},
            graph={"scope": scope},
            optim={"lr": 1e-40},
            pretrain={"epochs": 0},
        )
        train(config, "tiny", tmp_path / name)
    rows = [(tmp_path / run / "seed-1" / "predictions.csv").read_text().splitlines() for run in "ab"]
    for split in ("valid", "test"):
        one, two = ([line for line in lines if line.startswith(split)] for lines in rows)
        assert one == two
        assert len(one) == 12
    assert rows[0] != rows[1]


@pytest.mark.parametrize("scope", plainly("hierarchical"))
def test_labels_of_the_pool_change_nothing(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    """Nor does anything of the test split, though its clips are of the same videos: the weights are equal bytes."""
    monkeypatch.setattr(results, "draw_run", lambda *a: None)

    path = str(write_mmsa("shared.pkl", of_the_same_videos))
    config = small_sslmm(write_mmsa, data={"label_ratio": 0.5, "label_seed": 1, "path": path}, graph={"scope": scope})

    def flip(content: dict[str, Any]) -> None:
        of_the_same_videos(content)
        labeled, _ = withhold_labels(from_mmsa(content, "x")["train"], 0.5, 1)
        kept = {u.id for u in labeled}
        columns = content["train"]
        for i, name in enumerate(columns["id"]):
            if name not in kept:  # in the same class, so that the same half keeps its labels
                columns["regression_labels"][i] *= 0.99
        for modality in MODALITIES:
            content["test"][modality] = content["test"][modality] * 3 + 1
        content["test"]["regression_labels"] = content["test"]["regression_labels"][::-1].copy()

    other = replace(config, data=replace(config.data, path=str(write_mmsa("other.pkl", flip))))
    train(config, "tiny", tmp_path / "one")
    train(other, "tiny", tmp_path / "two")
    weights = [(tmp_path / run / "seed-1" / "model.safetensors").read_bytes() for run in ("one", "two")]
    assert weights[0] == weights[1]
    rows = [(tmp_path / run / "seed-1" / "predictions.csv").read_text().splitlines() for run in ("one", "two")]
    valid = [[line for line in lines if line.startswith("valid")] for lines in rows]
    assert valid[0] == valid[1]
    assert rows[0] != rows[1]

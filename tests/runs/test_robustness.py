"""The robustness report of a run, against predictions and metrics made by hand."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid

from gmsa import evaluate as command
from gmsa.config import MODALITIES, from_dict
from gmsa.config.groups.missing import Missing, joined, subsets
from gmsa.data import apply_missing, read_mmsa
from gmsa.errors import ConfigError, RunError
from gmsa.reports.robustness import Point, markdown_tables, robustness_csv, robustness_report
from gmsa.reports.run import markdown_report
from gmsa.runs import Run, robustness
from gmsa.runs import report as results
from gmsa.runs.train import train
from gmsa.system import cli
from gmsa.training.scoring import predict_utterances

pytestmark = pytest.mark.filterwarnings("ignore:the prediction is constant")

SUBSETS = subsets(MODALITIES)

SETTINGS: dict[str, Any] = {
    "data": {"name": "tiny", "missing": {"train": "eta:0.2", "test": "eta:0.6"}},
    "model": {"channels": 8, "heads": 2},
    "optim": {"epochs": 2, "min_steps": 0, "batch_size": 8},
    "protocol": {"name": "supervised"},
    "run": {"seeds": [1, 2], "device": "cpu"},
}
ASKED = ["--missing", "eta:0.3,0,0.6", "--missing", "fixed:all", "--missing", "frame:0,0.5", "--missing", "sample:0.5"]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the data file and the runs are that several tests share."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def trained(shelf: Path, write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Copies a finished run into the folder of the test; trains it first, once, under each name."""
    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    if not (shelf / "own.pkl").exists():
        shutil.copy(write_mmsa(), shelf / "own.pkl")

    def run(name: str = "run", **changes: dict[str, Any]) -> Path:
        if not (shelf / name).exists():
            settings = {key: SETTINGS.get(key, {}) | changes.get(key, {}) for key in {*SETTINGS, *changes}}
            settings["data"]["path"] = str(shelf / "own.pkl")
            train(from_dict(settings), name, shelf / name)
        return Path(shutil.copytree(shelf / name, tmp_path / name))

    return run


@pytest.fixture(scope="module")
def reported(shelf: Path) -> dict[str, Path]:
    """The run folder with the report that several tests read."""
    return {}


@pytest.fixture
def report(trained, shelf: Path, reported, capsys: pytest.CaptureFixture) -> Path:
    """A run folder with its report, and what the command printed beside it."""
    if not reported:
        reported["folder"] = folder = Path(shutil.move(trained(), shelf / "reported"))
        capsys.readouterr()  # of the training
        command.main(["--run", str(folder), *ASKED])
        (folder / "printed.txt").write_text(capsys.readouterr().out)
    return reported["folder"]


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "robustness.json").read_text())


def by_hand(folder: Path, file: Path, missing: Missing, mask_seed: int, seed: int) -> dict[str, float]:
    """Masks raw utterances first, then normalizes: the order in which a run is prepared."""
    run = Run(folder)
    hidden = apply_missing(read_mmsa(file)["test"], missing, MODALITIES, mask_seed)
    shown = [run.normalizer.apply(u) for u in hidden]
    cpu = torch.device("cpu")
    return predict_utterances(run.load_model(seed, cpu), shown, run.config, cpu).metrics(run.config)


def scored(folder: Path, protocol: str, seed: int, mask_seed: int | None, **where: Any) -> dict[str, float]:
    """The metrics of a row of ``robustness.json``."""
    found = read(folder)
    row = next(r for r in found["protocols"][protocol]["rows"] if all(r[key] == value for key, value in where.items()))
    place = found["seeds"].index(seed) * len(row["mask_seeds"]) + row["mask_seeds"].index(mask_seed)
    return {metric: spread["values"][place] for metric, spread in row["metrics"].items()}


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "mask_seed"),
    [
        (Missing("eta", 0.3), 0),
        (Missing("eta", 0.6), 2),
        (Missing("eta", 0.0), None),
        (Missing("sample", 0.5), 1),
        (Missing("frame", 0.5), 1),
        (Missing("frame", 0.0), None),
        *((Missing("fixed", left=left), None) for left in SUBSETS),
    ],
    ids=str,
)
def test_scores_are_those_of_masked_utterances(report: Path, shelf: Path, missing: Missing, mask_seed) -> None:
    where = {"left": joined(missing.left)} if missing.protocol == "fixed" else {"asked": missing.rate}
    for seed in (1, 2):
        expected = by_hand(report, shelf / "own.pkl", missing, mask_seed or 0, seed)
        assert scored(report, missing.protocol, seed, mask_seed, **where) == expected


def test_the_complete_set_is_what_the_data_have(report: Path, shelf: Path) -> None:
    # Also not what data.missing.test masks: the run's own summary was scored with that.
    for seed in (1, 2):
        expected = by_hand(report, shelf / "own.pkl", Missing("none"), 0, seed)
        assert scored(report, "fixed", seed, None, left="tav") == expected
        assert scored(report, "eta", seed, None, asked=0) == scored(report, "frame", seed, None, asked=0) == expected
    own = json.loads((report / "summary.json").read_text())
    assert own["missing"]["test"]["asked"] == 0.6
    assert own["test"]["MAE"]["values"][1] == by_hand(report, shelf / "own.pkl", Missing("eta", 0.6), 0, 2)["MAE"]


def test_rows_come_in_order_with_what_was_realized(report: Path, shelf: Path) -> None:
    protocols = read(report)["protocols"]
    assert [row["asked"] for row in protocols["eta"]["rows"]] == [0, 0.3, 0.6]
    assert [row["left"] for row in protocols["fixed"]["rows"]] == ["tav", *map(joined, SUBSETS)]
    assert [row["mask_seeds"] for row in protocols["eta"]["rows"]] == [[None], [0, 1, 2], [0, 1, 2]]
    utterances = read_mmsa(shelf / "own.pkl")["test"]
    for row in protocols["eta"]["rows"]:
        for place, mask_seed in enumerate(row["mask_seeds"]):
            hidden = apply_missing(utterances, Missing("eta", row["asked"]), MODALITIES, mask_seed or 0)
            there = np.array([[u.lengths[m] > 0 for m in MODALITIES] for u in hidden])
            assert row["realized"]["values"][place] == pytest.approx(1 - there.mean())
            assert row["with_text"]["values"][place] == pytest.approx(there[:, 0].mean())
    fixed = {row["left"]: row for row in protocols["fixed"]["rows"]}
    assert fixed["tav"]["realized"]["mean"] == pytest.approx(4 / 36)  # the file lacks vision in every third
    assert fixed["v"]["realized"]["mean"] == pytest.approx(28 / 36)
    assert (fixed["av"]["with_text"]["mean"], fixed["t"]["with_text"]["mean"]) == (0, 1)
    steps = sum(u.steps for u in utterances)
    lost = [sum(u.steps for u in apply_missing(utterances, Missing("frame", 0.5), MODALITIES, s)) for s in range(3)]
    assert protocols["frame"]["rows"][1]["realized"]["values"] == pytest.approx([1 - n / steps for n in lost])


def test_mean_deviation_and_area(report: Path) -> None:
    found = read(report)["protocols"]
    for protocol, rates in (("eta", [0, 0.3, 0.6]), ("frame", [0, 0.5])):
        rows = found[protocol]["rows"]
        for metric, area in found[protocol]["area"].items():
            spreads = [row["metrics"][metric] for row in rows]
            for spread in spreads:
                assert spread["mean"] == pytest.approx(np.mean(spread["values"]))
                assert spread["std"] == pytest.approx(np.std(spread["values"], ddof=1))
            assert [len(spread["values"]) for spread in spreads] == [2, *([6] * (len(rows) - 1))]
            curves = [np.repeat(spreads[0]["values"], 3), *(spread["values"] for spread in spreads[1:])]
            areas = trapezoid(np.array(curves).T, rates) / rates[-1]
            assert area["values"] == pytest.approx(areas)
            assert area["mean"] == pytest.approx(trapezoid([s["mean"] for s in spreads], rates) / rates[-1])
            assert area["std"] == pytest.approx(np.std(areas, ddof=1))
    assert "area" not in found["fixed"]
    assert "area" not in found["sample"]  # a single rate


def test_an_utterance_with_nothing_left_is_predicted(trained, shelf: Path) -> None:
    run = Run(trained())
    hidden = apply_missing(read_mmsa(shelf / "own.pkl")["test"], Missing("fixed", left=("vision",)), MODALITIES, 0)
    empty = [i for i, u in enumerate(hidden) if not u.steps]
    assert len(empty) == 4
    found = predict_utterances(run.load_model(1, torch.device("cpu")), hidden, run.config, torch.device("cpu"))
    assert np.isfinite(found.value).all()
    assert np.ptp(found.value[empty]) == pytest.approx(0, abs=1e-6)  # readout nodes alone tell nothing apart
    assert np.ptp(found.value) > 1e-4


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("dialogue", {"graph": {"scope": "dialogue"}}),
        ("hierarchical", {"graph": {"scope": "hierarchical", "dialogue_node": True, "context_dropout": 0.2}}),
        ("late", {"model": {"name": "late_fusion"}}),
    ],
)
def test_other_models_take_whatever_is_left(trained, shelf: Path, name: str, changes: dict) -> None:
    folder = trained(name, **changes, run={"seeds": [1]})
    asked = ("fixed:v,a", "frame:1", "eta:0.5")
    command.main(["--run", str(folder), *(x for one in asked for x in ("--missing", one)), "--mask-seeds", "5"])
    found = read(folder)["protocols"]
    # In graphs of dialogues all utterances are masked, not one by one beside whole ones.
    for missing in (Missing("eta", 0.5), Missing("fixed", left=("vision",))):
        where = {"left": "v"} if missing.left else {"asked": 0.5}
        expected = by_hand(folder, shelf / "own.pkl", missing, 5, 1)
        assert scored(folder, missing.protocol, 1, None if missing.left else 5, **where) == expected
    assert found["frame"]["rows"][0]["realized"]["mean"] == 1
    assert found["frame"]["rows"][0]["with_text"]["mean"] == 0
    assert [row["left"] for row in found["fixed"]["rows"]] == ["tav", "a", "v"]


# --- files -----------------------------------------------------------------------------------------------------------


def test_files_of_a_report(report: Path) -> None:
    figures = {path.name for path in (report / "figures").iterdir()}
    assert figures == {
        f"robustness_{p}.{ending}" for p in ("eta", "frame") for ending in ("png", "svg")
    }  # a single rate of sample makes no line
    rows = list(csv.DictReader((report / "robustness.csv").open()))
    assert len(rows) == 2 * ((1 + 3 + 3) + 7 + (1 + 3) + 3)
    last = next(r for r in rows if (r["protocol"], r["asked"], r["seed"], r["mask_seed"]) == ("eta", "0.6", "2", "1"))
    assert {metric: float(last[metric]) for metric in list(last)[9:]} == scored(report, "eta", 2, 1, asked=0.6)
    assert float(last["realized"]) == read(report)["protocols"]["eta"]["rows"][2]["realized"]["values"][1]
    assert {(r["asked"], r["left"], r["mask_seed"]) for r in rows if r["protocol"] == "fixed"} == {
        ("", left, "") for left in ("tav", *map(joined, SUBSETS))
    }
    assert {r["run"] for r in rows} == {"reported"}
    assert not list(report.rglob("*.tmp"))


def test_tables_say_what_the_values_are(report: Path) -> None:
    found = read(report)
    text = (report / "summary.md").read_text()
    own, section = text.split("\n## Robustness\n\n")
    assert own == markdown_report(json.loads((report / "summary.json").read_text()), report)
    assert section in (report / "printed.txt").read_text()
    assert section == markdown_tables(found)
    printed = (report / "printed.txt").read_text().splitlines()
    mae = found["protocols"]["fixed"]["rows"][2]["metrics"]["MAE"]["mean"]
    assert f"fixed:a: test MAE {mae:.4f}" in printed
    assert [line.split(": test")[0] for line in printed[:4]] == ["eta:0", "eta:0.3", "eta:0.6", "nothing masked"]
    assert "seeds (1, 2) and mask seeds (0, 1, 2)" in section
    assert "Hidden in training: eta:0.2." in section
    tables = {block.split("\n")[0]: block for block in section.split("### ")[1:]}
    assert list(tables) == ["eta", "fixed", "frame", "sample"]
    row = found["protocols"]["eta"]["rows"][1]
    mae, accuracy = row["metrics"]["MAE"], row["metrics"]["Non0_acc_2"]
    start = f"| 0.3 | {row['realized']['mean']:.4f} | {100 * row['with_text']['mean']:.2f} |"
    line = next(line for line in tables["eta"].splitlines() if line.startswith(start))
    assert f"| {mae['mean']:.4f} ± {mae['std']:.4f} |" in line
    assert f"| {100 * accuracy['mean']:.2f} ± {100 * accuracy['std']:.2f} |" in line
    assert "Non0_acc_2 (%)" in tables["eta"].splitlines()[4]
    assert "| area |  |  |" in tables["eta"]
    assert "area" not in tables["fixed"]
    assert "area" not in tables["sample"].split("\n\nArea")[0]


def test_a_second_report_takes_the_place_of_the_first(trained) -> None:
    folder = trained()
    before = (folder / "summary.json").read_bytes()
    for asked in ("eta:0,0.3", "frame:0,0.9"):
        command.main(["--run", str(folder), "--missing", asked, "--mask-seeds", "7", "--seeds", "2"])
    text = (folder / "summary.md").read_text()
    assert text.count("## Robustness") == 1
    assert "### frame" in text
    assert "### eta" not in text
    assert (folder / "summary.json").read_bytes() == before
    figures = sorted(path.name for path in (folder / "figures").iterdir())
    assert figures == ["robustness_frame.png", "robustness_frame.svg"]
    found = read(folder)
    assert (found["seeds"], found["mask_seeds"], list(found["protocols"])) == ([2], [7], ["frame"])
    assert "±" not in text.split("### frame")[1].split("\n\n")[2]  # one seed, one mask: nothing to deviate


def test_out_leaves_the_run_as_it_is(trained, tmp_path: Path, shelf: Path) -> None:
    folder = trained()
    (folder / "summary.json").unlink()  # not needed here
    before = sorted(path.name for path in folder.rglob("*"))
    command.main(["--run", str(folder), "--missing", "eta:0,0.6", "--mask-seeds", "3", "--out", str(tmp_path / "new")])
    assert sorted(path.name for path in folder.rglob("*")) == before
    names = sorted(path.name for path in (tmp_path / "new").rglob("*.*"))
    assert names == ["robustness.csv", "robustness.json", "robustness.md", "robustness_eta.png", "robustness_eta.svg"]
    assert (tmp_path / "new" / "robustness.md").read_text() == (
        f"# Robustness of run\n\n{markdown_tables(read(tmp_path / 'new'))}"
    )
    expected = by_hand(folder, shelf / "own.pkl", Missing("eta", 0.6), 3, 1)
    assert scored(tmp_path / "new", "eta", 1, 3, asked=0.6) == expected


def test_another_file(trained, write_mmsa, shelf: Path) -> None:
    folder, other, out = trained(), write_mmsa("other.pkl", prefix="other-"), shelf / "on-other"
    arguments = ["--missing", "eta:0.6", "--mask-seeds", "0", "--data", str(other), "--out", str(out)]
    command.main(["--run", str(folder), *arguments])
    found = read(out)
    assert found["dataset"] == "other"
    assert "Test split of other, SHA-256 " in (out / "robustness.md").read_text()
    own = by_hand(folder, shelf / "own.pkl", Missing("eta", 0.6), 0, 1)
    assert scored(out, "eta", 1, 0, asked=0.6) == by_hand(folder, other, Missing("eta", 0.6), 0, 1) != own


def test_several_runs_are_compared_under_the_same_masks(
    trained, tmp_path: Path, shelf: Path, capsys: pytest.CaptureFixture
) -> None:
    one, two = trained(), trained("two-seeds", optim={"lr": 0.01})
    arguments = ["--missing", "eta:0,0.3", "--missing", "fixed:t,a", "--mask-seeds", "0,4"]
    capsys.readouterr()
    command.main(["--run", str(one), "--run", str(two), *arguments, "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    for folder in (one, two):
        found = tmp_path / "out" / folder.name
        assert scored(found, "eta", 2, 4, asked=0.3) == by_hand(folder, shelf / "own.pkl", Missing("eta", 0.3), 4, 2)
        assert not (folder / "robustness.json").exists()
    text = (tmp_path / "out" / "robustness.md").read_text()
    assert text.split("\n\n", 1)[1] in printed
    reports = [read(tmp_path / "out" / name) for name in ("run", "two-seeds")]
    section = text.split("### eta")[1].split("### fixed")[0]
    for metric, digits in (("MAE", 4), ("Corr", 4)):
        table = section.split(f"\n{metric}:\n\n")[1].split("\n\n")[0].splitlines()
        assert table[0] == "| Rate | Realized | With text (%) | run | two-seeds |"
        row = [report["protocols"]["eta"]["rows"][1] for report in reports]
        means = [f"{r['metrics'][metric]['mean']:.{digits}f} ± {r['metrics'][metric]['std']:.{digits}f}" for r in row]
        assert table[3] == (
            f"| 0.3 | {row[0]['realized']['mean']:.4f} | {100 * row[0]['with_text']['mean']:.2f} | "
            f"{means[0]} | {means[1]} |"
        )
        areas = [report["protocols"]["eta"]["area"][metric]["mean"] for report in reports]
        assert [cell.split(" ± ")[0] for cell in table[4].split("| ")[4:]] == [f"{a:.{digits}f}" for a in areas]
    fixed = text.split("### fixed")[1]
    assert [line.split(" | ")[0] for line in fixed.splitlines() if line.startswith("| t")] == ["| tav", "| t"] * 3
    rows = list(csv.DictReader((tmp_path / "out" / "robustness.csv").open()))
    assert len(rows) == 2 * 2 * (1 + 2 + 3)
    last = next(r for r in rows if (r["run"], r["asked"], r["seed"], r["mask_seed"]) == ("two-seeds", "0.3", "2", "4"))
    assert {metric: float(last[metric]) for metric in list(last)[9:]} == scored(
        tmp_path / "out" / "two-seeds", "eta", 2, 4, asked=0.3
    )
    figures = sorted(path.name for path in (tmp_path / "out" / "figures").iterdir())
    assert figures == ["robustness_eta.png", "robustness_eta.svg"]


def test_what_cannot_be_compared(trained, tmp_path: Path, write_mmsa, monkeypatch: pytest.MonkeyPatch) -> None:
    one, text = trained(), trained("text", data=SETTINGS["data"] | {"missing": "fixed:t"}, run={"seeds": [1]})
    two = trained("two", data=SETTINGS["data"] | {"modalities": ["text", "audio"], "missing": "none"})
    monkeypatch.setattr(robustness, "predict_whole", lambda *_: pytest.fail("scored"))
    compare = robustness.compare_robustness
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="two runs that are called 'run'; name each once, or rename a folder"):
        compare([one, one], ["eta:0.1"], out)
    with pytest.raises(RunError, match=r"run' and '.*two' differ in data.modalities, so .*; evaluate each alone"):
        compare([one, two], ["eta:0.1"], out)
    with pytest.raises(RunError, match="text' has no seed 2"):
        compare([one, text], ["eta:0.1"], out, seeds=[2])
    with pytest.raises(ConfigError, match="--missing takes one of"):
        compare([one, text], ["etas:0.1"], out)
    with pytest.raises(RunError, match="it holds a run"):
        compare([one, text], ["eta:0.1"], one)
    environment = json.loads((text / "environment.json").read_text())
    (text / "environment.json").write_text(json.dumps(environment | {"data_sha256": "0" * 64}))
    with pytest.raises(RunError, match="differ in the data that they were trained on"):
        compare([one, text], ["eta:0.1"], out)
    assert not out.exists()


@pytest.mark.parametrize("other", [False, True])
def test_what_training_never_saw_counts_but_is_not_shown(trained, write_mmsa, tmp_path: Path, other: bool) -> None:
    folder = trained("text", data=SETTINGS["data"] | {"missing": "fixed:t"}, run={"seeds": [1]})
    assert list(Run(folder).dims) == ["text"]
    arguments = ["--missing", "eta:0,0.6", "--missing", "fixed:ta,t", "--mask-seeds", "0", "--out", str(tmp_path / "o")]
    if other:
        arguments += ["--data", str(write_mmsa("other.pkl", prefix="other-"))]
    command.main(["--run", str(folder), *arguments])
    found = read(tmp_path / "o")
    assert found["modalities"] == list(MODALITIES)
    assert found["protocols"]["eta"]["rows"][0]["realized"]["mean"] == pytest.approx(4 / 36)
    whole, alone, both = (row["metrics"]["MAE"]["mean"] for row in found["protocols"]["fixed"]["rows"])
    assert whole == alone == both
    assert found["protocols"]["eta"]["rows"][1]["metrics"]["MAE"]["mean"] != whole


def test_synthetic_is_said() -> None:
    facts = {"name": "x", "dataset": "mosi", "synthetic": True, "data_sha256": "ab", "seeds": [1], "mask_seeds": [0]}
    facts |= {"modalities": ["text", "audio"], "hidden_in_training": "none"}
    record = {"realized": 0.0, "with_text": 1.0, "lacking": {"text": 0.0, "audio": 0.0}}
    points = {"fixed": [Point(Missing("none"), [None], [record], [[{"MAE": 1.0}]])]}
    found = robustness_report(facts, points)
    assert markdown_tables(found).startswith("> **SYNTHETIC")
    assert "Test split of synthetic (not mosi), SHA-256 ab. " in markdown_tables(found)
    assert "| ta | 0.0000 | 100.00 | 1.0000 |" in markdown_tables(found)
    assert robustness_csv({"x": found}).splitlines()[1] == "x,synthetic (not mosi),fixed,,ta,1,,0.0,1.0,1.0"

    # A run with further metrics leaves those columns empty for the other.
    (row,) = found["protocols"]["fixed"]["rows"]
    more = row | {"metrics": row["metrics"] | {"CCC": {"mean": 0.5, "std": 0.0, "values": [0.5]}}}
    both = {"x": found, "y": found | {"protocols": {"fixed": {"rows": [more]}}}}
    assert [line.rsplit(",", 2)[1:] for line in robustness_csv(both).splitlines()[1:]] == [["1.0", ""], ["1.0", "0.5"]]


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--missing", "etta:0.1"], "--missing takes one of eta, sample, frame, fixed (got 'etta:0.1') (did you mean"),
        (["--missing", "none"], "--missing none masks nothing; to score that too, add the rate 0, as eta:0,0.1"),
        (["--missing", "frame_uniform"], "to score its rates, say frame:0,0.1,...,0.9"),
        (["--missing", "eta"], "'--missing': eta takes a rate from 0 to 0.875, as eta:0.3 (got 'eta:')"),
        (["--missing", "eta:0,0.9"], "'--missing': eta takes a rate from 0 to 0.875, as eta:0.3 (got 'eta:0.9')"),
        (
            ["--missing", "eta:0,0.7"],
            "eta:0.7 cannot be reached with 3 modalities, of which one always stays",
        ),
        (["--missing", "frame:0,x"], "(got 'frame:x')"),
        (["--missing", "eta:0.1,,0.2"], "(got 'eta:')"),
        (["--missing", "eta:0.1,0.10"], "--missing eta names 0.1 twice; name each once (got 'eta:0.1,0.10')"),
        (["--missing", "fixed:ta,at"], "--missing fixed names ta twice"),
        (
            ["--missing", "fixed:tav"],
            "--missing fixed:tav: the data have text, audio, vision, so name proper",
        ),
        (["--missing", "eta:0", "--missing", "eta:0.1"], "--missing names eta twice; combine them into one, sep"),
        (["--missing", "eta:0.1", "--mask-seeds", "1,1"], "--mask-seeds names a seed twice (got 1, 1); name each once"),
        (["--missing", "eta:0.1", "--mask-seeds", "x"], "argument --mask-seeds: expected seeds such as"),
        (["--missing", "eta:0.1", "--seeds", "7"], "has no seed 7; it has 1, 2"),
        (["--mask-seeds", "1"], "--mask-seeds goes with --missing"),
        (["--missing", "eta:0.1", "--data", "other.pkl"], "--missing or --noise with --data needs --out DIR"),
        (
            ["--missing", "eta:0.1", "--run", "other"],
            "several --run are compared with modalities masked or noise; add --out DIR",
        ),
        (["--run", "other", "--out", "new"], "several --run are scored on files, as --data FILE, or compared with"),
        (["--missing", "eta:0.1", "--data", "a.pkl", "--data", "b.pkl"], "--missing and --noise take one --data"),
        (["--metric", "MAE"], "--metric goes with several --run or --data"),
        (["--set", "target.preset=sims"], "--set goes with --predictions, where it says the target"),
        (["--noise", "audio"], "'--noise' takes decibels from -100 to 100, as text:10dB; fewer are more noise"),
        (["--noise", "eeg:10dB"], "'--noise': the data have no modality 'eeg', they have text, audio, vision"),
        (["--noise", "audio:10dB,10dB"], "--noise audio names 10dB twice; name each once (got 'audio:10dB,10dB')"),
        (["--noise", "audio:10dB", "--noise", "audio:0dB"], "--noise names 'audio' twice; combine them into one"),
        (["--noise", "audio+audio:1"], "'--noise': 'audio' is named twice; name each modality once"),
        (["--noise", "audio:200dB"], "'--noise' takes decibels from -100 to 100"),
        (["--noise", "audio:10dB", "--split", "tset"], "has no labeled split 'tset' (did you mean 'test'?)"),
        (["--noise", "audio:10dB", "--split", "train"], "add --include-training to score them as 'train'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_refused_before_any_scoring(
    trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments: list[str], said: str
) -> None:
    folder = trained()
    monkeypatch.setattr(robustness, "predict_whole", lambda *_: pytest.fail("scored"))
    monkeypatch.setattr("sys.argv", ["gmsa.evaluate"])
    with pytest.raises(SystemExit) as stopped:
        cli.run(lambda _: command.main(["--run", str(folder), *arguments]), "evaluate")
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (folder / "robustness.json").exists()


def test_what_does_not_fit_the_data_or_the_folder(trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(robustness, "predict_whole", lambda *_: pytest.fail("scored"))
    folder = trained("two", data=SETTINGS["data"] | {"modalities": ["text", "audio"], "missing": "none"})
    run = robustness.robustness
    with pytest.raises(ConfigError, match=r"eta:0.6 cannot be reached with 2 modalities.*the most is eta:0.5"):
        run(folder, ["eta:0.1,0.6"])
    with pytest.raises(ConfigError, match="fixed:v,ta: the data have text, audio, so name proper subsets of 'ta'"):
        run(folder, ["fixed:t,v,ta"])
    with pytest.raises(RunError, match="it holds a run, whose summary would be lost; name another --out"):
        run(folder, ["eta:0.1"], out=folder)
    (folder / "summary.json").write_text("{}")
    with pytest.raises(RunError, match=r"summary.json' is damaged .*; train again, or give --out"):
        run(folder, ["eta:0.1"])
    (folder / "summary.json").unlink()
    with pytest.raises(RunError, match=r"has no summary\.json; finish it with gmsa.train --resume, or give --out"):
        run(folder, ["eta:0.1"])


def test_all_subsets_are_those_that_the_data_have(trained) -> None:
    folder = trained("two", data=SETTINGS["data"] | {"modalities": ["text", "audio"], "missing": "none"})
    command.main(["--run", str(folder), "--missing", "fixed:all", "--seeds", "1"])
    assert [row["left"] for row in read(folder)["protocols"]["fixed"]["rows"]] == ["ta", "t", "a"]


@pytest.mark.parametrize("content", ['{"a":', "{}"])
def test_a_damaged_report_costs_a_resumed_run_its_section_alone(trained, content: str) -> None:
    folder = trained("resumed")
    (folder / "robustness.json").write_text(content)
    with pytest.warns(UserWarning, match=r"robustness.json' is damaged .*; run gmsa.evaluate --run .* --missing again"):
        train(Run(folder).config, "resumed", folder, resume=True)
    assert "Robustness" not in (folder / "summary.md").read_text()


def test_a_run_has_a_name_also_from_inside(trained, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = trained("two-seeds", optim={"lr": 0.01})
    monkeypatch.chdir(folder)
    command.main(["--run", ".", "--missing", "fixed:t", "--seeds", "1", "--out", "new"])
    assert (folder / "new" / "robustness.md").read_text().startswith("# Robustness of two-seeds\n")


def test_resuming_a_finished_run_keeps_its_report(trained) -> None:
    folder = trained("resumed")
    command.main(["--run", str(folder), "--missing", "eta:0,0.5", "--mask-seeds", "0"])
    before = (folder / "summary.md").read_text()
    assert "## Robustness" in before
    run = Run(folder)
    train(run.config, "resumed", folder, resume=True)
    assert (folder / "summary.md").read_text() == before

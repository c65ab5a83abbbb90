"""``python -m gmsa.data``: what it prints, writes, finds and refuses."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.brought import told

from gmsa import train
from gmsa.config import DataConfig, TargetConfig
from gmsa.data import Row, Store, Utterance, load_corpus, write_store
from gmsa.data.__main__ import main
from gmsa.data.checks.findings import KNOWN, findings_of, recognise
from gmsa.data.checks.survey import Moments, Survey
from gmsa.data.targets import Target
from gmsa.errors import DataError
from gmsa.figures.data import figure_check
from gmsa.system import cli

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GMSA_DATA", raising=False)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["gmsa.data", *arguments])
    try:
        cli.run(main, "data")
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def found_in(path: str | Path, out: str = "report", code: int | None = None) -> dict[tuple[str, str], dict[str, Any]]:
    """Findings of a check by severity and their first words, from ``check.json``."""
    shutil.rmtree(out, ignore_errors=True)
    exited = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gmsa.figures.data.figure_check", lambda *_: True)  # takes most of the time
        try:
            main(["check", str(path), "--out", out])
        except SystemExit as exit_:
            exited = int(exit_.code or 0)
    findings = json.loads(Path(out, "check.json").read_text())["findings"]
    assert exited == any(f["severity"] == "error" for f in findings)
    if code is not None:
        assert exited == code
    return {(f["severity"], f"{f['what']} @ {f['where']}"): f for f in findings}


@pytest.mark.usefixtures("rendered")
def test_import_info_check(
    write_mmsa: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mmsa("tiny.pkl")
    assert run(monkeypatch, "import", "tiny.pkl", "--out", "made/store", "--dtype", "float16") == 0
    said = capsys.readouterr().out
    assert "Wrote made/store\n" in said
    assert "tiny.pkl (" in said
    store = Store("made/store")
    assert {s.dtype for s in store.manifest.modalities.values()} == {"float16"}
    assert run(monkeypatch, "info", "made/store") == 0
    described = capsys.readouterr().out
    assert described.strip() == said.split("Wrote")[0].strip()
    assert f"SHA-256: {store.sha256} (of its manifest)" in described
    assert run(monkeypatch, "info", "tiny.pkl") == 0
    pickled = capsys.readouterr().out
    assert pickled.splitlines()[-4:] == described.splitlines()[-4:]  # the same table
    assert "| valid | 12 | 12 | 100.0% |" in described
    assert run(monkeypatch, "check", "made/store", "--out", "report") == 0
    printed = capsys.readouterr().out
    assert Path("report/check.md").read_text().strip() in printed
    assert Path("report/check.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(Path("report/check.json").read_text())["sha256"] == store.sha256


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["import", "none.pkl", "--out", "x"], "'none.pkl' does not exist; check the path"),
        (["import", "tiny.pkl", "--out", "."], "'.' exists already, and a store is never overwritten"),
        (["import", "tiny.pkl", "--out", "tiny.pkl/x"], "cannot write into 'tiny.pkl/x'"),
        (["import", "tiny.pkl", "--out", "x", "--labels", "sims"], "out of [-1, 1]"),
        (["import", "tiny.pkl", "--out", "x", "--splits", "none.csv"], "none.csv: does not exist"),
        (["import", "tiny.pkl", "--out", "x", "--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        (
            ["import", "tiny.pkl", "--out", "x", "--form", "json"],
            "'--format' must be one of mmsa, semi_iin, manifest, csd, datasets, mds (got 'json')",
        ),
        (["import", "tiny.pkl"], "required: --out"),
        (["info", "none.pkl"], "'none.pkl' does not exist; check the path"),
        (["info", "page.pkl"], "page.pkl: is a web page or XML"),
        (["check", "empty"], "empty: has none of the folders text, audio, visual"),
        (["check", "data.csv"], "data.csv: is empty"),
        (["check", "cut"], "cut/text.npy: has 100 bytes"),
        (["check", "tiny.pkl", "--out", "page.pkl"], "cannot write into 'page.pkl'"),
        (["check", "nothing.pkl"], "has no key 'id'; every utterance needs an id"),
        (["info", "tiny.pkl", "--set", "target.rang=[1, 5]"], "--set target.rang=[1, 5]: unknown key 'target.rang'"),
        (["check", "tiny.pkl", "--set", "target.range=[5, 1]"], "--set target.range=[5, 1]: 'target.range' must be"),
        (["info", "tiny.pkl", "--set", "optim.lr=1"], "--set optim.lr=1: only settings of data and target"),
        (["info", "tiny.pkl", "--labels", "sims", "--set", "data.nan=no"], "--set data.nan=no: 'data.nan' must be"),
        (["import", "tiny.pkl", "--out", "x", "--set", "data.split.test=0.1"], "--set data.split: is of training"),
        (["import", "tiny.pkl", "--out", "x", "--set", "data.clip=3"], "--set data.clip: is of training"),
        (["import", "tiny.pkl", "--out", "x", "--set", "data.normalize=[]"], "--set data.normalize: is of training"),
        (["import", "tiny.pkl", "--out", "x", "--set", "data.label_seed=3"], "--set data.label_seed: is of training"),
        (["import", "tiny.pkl", "--out", "x", "--set", "data.name=a"], "--set data.name: is of training"),
        (
            ["import", "tiny.pkl", "--out", "x", "--set", "data.if_missing=synthetic"],
            "--set data.if_missing: is of training",
        ),
        (["import", "tiny.pkl", "--out", "x", "--features", "eeg"], "--features takes NAME=FILE"),
        (["import", "tiny.pkl", "--out", "x", "--text", "none.npz"], "none.npz: does not exist"),
        (["import", "tiny.pkl", "--out", "x", "--text", "a", "--features", "text=b"], "--features text: has two files"),
        (["look"], "invalid choice: 'look'"),
        ([], "required: COMMAND"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    write_mmsa: Write,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    write_mmsa("tiny.pkl")
    Path("page.pkl").write_text("<html>")
    Path("nothing.pkl").write_bytes(pickle.dumps({"train": {"text": [1]}}))
    Path("empty").mkdir()
    Path("data.csv").touch()
    write_store("cut", [Row("train", Utterance("a", {"text": torch.ones(2, 3)}, 1.0))])
    with open("cut/text.npy", "r+b") as file:
        file.truncate(100)
    assert run(monkeypatch, *arguments) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1, line
    assert said in line
    assert not Path("x").exists()


def test_a_store_trains_as_its_pickle_does(write_mmsa: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mmsa("tiny.pkl")
    main(["import", "tiny.pkl", "--out", "store"])
    settings = (
        "data: {name: tiny}\nmodel: {channels: 8, heads: 2}\noptim: {epochs: 1, min_steps: 0, batch_size: 8}\n"
        "protocol: {name: supervised}\nrun: {seeds: [1], device: cpu}\n"
    )
    Path("tiny.yaml").write_text(settings)
    monkeypatch.setattr("gmsa.runs.report.draw_run", lambda *_: None)
    for path in ("tiny.pkl", "store"):
        train.main(["--config", "tiny.yaml", "--set", f"data.path={path}", "--out", f"run-{path}"])
    ours, theirs = (Path(f"run-{p}/seed-1/predictions.csv").read_bytes() for p in ("store", "tiny.pkl"))
    assert ours == theirs


# --- what a check finds ----------------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_a_good_file(write_mmsa: Write) -> None:
    for path in (write_mmsa(), "store"):
        if path == "store":
            main(["import", "tiny.pkl", "--out", "store"])
        found = found_in(path, code=0)
        assert ("note", "vision is missing in 33.3% @ train") in found
        assert not [key for key in found if key[0] == "error"]


def test_known_files() -> None:
    assert len(KNOWN) == 5
    for sha256, name in KNOWN.items():
        assert [f.what for f in recognise(["0" * 64, sha256])] == [f"is MMSA's {name}, byte for byte"]
    unlike = "is not one of the files that MMSA publishes, by its SHA-256, though it looks like one"
    assert [f.what for f in recognise(["0"], "aligned_50.pkl")] == [unlike]
    assert [f.what for f in recognise(["0"], "own.pkl", {"text": 768, "audio": 33, "vision": 709})] == [unlike]
    assert not recognise(["0"], "own.pkl", {"text": 768, "audio": 33, "vision": 35})


def test_all_that_is_wrong_with_a_pickle_is_found(write_mmsa: Write) -> None:
    def change(content: dict[str, Any]) -> None:
        first, test = content["train"], content["test"]
        first["text"][2, 0, 1] = np.nan
        first["text"][5, 0, 0] = np.nan
        first["vision"][1, 0, 0] = np.inf
        first["audio"][3, 0, 0] = -np.inf
        first["regression_labels"][4] = np.nan
        first["regression_labels"][6] = 4
        first["annotations"] = ["Positive" if label > 0 else "Negative" for label in first["regression_labels"]]
        first["annotations"][0] = "Positive"
        first["id"][8] = first["id"][7]
        test["id"][0] = first["id"][0]
        test["audio"] = test["audio"].astype(float) * 50 + 400
        content["valid"]["vision"] = np.ones((12, 3, 9))

    found = found_in(write_mmsa(change=change), code=1)
    nan = found["error", "NaN in text @ train"]
    assert (nan["count"], nan["examples"]) == (2, ["train0$_$2", "train1$_$5"])
    assert found["error", "infinity in vision @ train"]["examples"] == ["train0$_$1"]
    assert found["note", "infinity in audio, read as 0 @ train"]["count"] == 1
    [beyond] = [f for key, f in found.items() if "is 4, out of [-3, 3]" in key[1] and key[1].endswith(" @ train")]
    assert (beyond["count"], beyond["examples"]) == (1, ["train1$_$6: 4"])
    assert "target.range" in beyond["what"]
    assert found["error", "label and annotation of opposite sign @ train"]["examples"] == ["train0$_$0: -2.8, Positive"]
    assert found["warning", "neutral by label or by annotation, but not by both @ train"]["count"] == 3
    assert found["error", "duplicate id @ train"]["examples"] == ["train1$_$7"]
    assert found["error", "duplicate id in two splits @ train, test"]["examples"] == ["train0$_$0"]
    assert found["warning", "the same video in two splits: its speaker is known from training @ train, test"]
    assert [key for key in found if "vision differs in features per step: 2 in train, 9 in valid, 2 in" in key[1]]
    assert [key for key in found if "features of audio are on another scale" in key[1] and key[1].endswith("test")]


def test_what_cannot_be_read_hides_nothing_else(write_mmsa: Write) -> None:
    def change(content: dict[str, Any]) -> None:
        content["train"]["audio"] = content["train"]["audio"][:-1]
        content["train"]["text"] = ["words"] * 24
        content["valid"]["vision_lengths"][0] = 99
        content["test"]["audio"][0, 0, 0] = np.nan
        content["test"]["regression_labels"] = ["good"] * 12
        content["more"] = {"text": np.ones((2, 3, 4))}
        content["train"]["regression_labels_T"] = np.full(24, 7.0)

    everything = found_in(write_mmsa(change=change), code=1)
    assert ("warning", "text is missing from all utterances @ train") in everything
    found = {key[1] for key in everything if key[0] == "error"}
    for said in (
        "'audio' has 23 entries but 'id' has 24; every key must hold one entry per utterance @ train",
        "'vision_lengths' of 'valid0$_$0' is 99, but 'vision' has 3 steps; save features and lengths together @ valid",
        "NaN in audio @ test",
        "has no key 'id'; every utterance needs an id @ more",
    ):
        assert said in found
    assert any("'regression_labels' of 'test0$_$0' is 'good', not a number" in what for what in found)
    assert any(what.startswith("'regression_labels_T' of 'train0$_$0' is 7") for what in found)


def rows_of(count: int, split: str, change: Callable[[int, Utterance], Utterance] | None = None) -> list[Row]:
    """Made-up utterances: text of one to nine steps, audio of one."""
    g = torch.Generator().manual_seed(count)
    made = [
        Utterance(
            f"{split}{i // 5}$_${i % 5}",
            {"text": torch.randn(1 + i % 9, 4, generator=g), "audio": torch.randn(1, 3, generator=g)},
            ((i * 7) % 13 - 6) / 2,
        )
        for i in range(count)
    ]
    return [Row(split, change(i, u) if change else u) for i, u in enumerate(made)]


def surveyed(*rows: Row, target: Target | None = None) -> dict[str, tuple[str, int, tuple[str, ...]]]:
    survey = Survey(["text", "audio"])
    for row in rows:
        survey.add(row)
    return {f"{f.what} @ {f.where}": (f.severity, f.count, f.examples) for f in findings_of(survey, target)}


def test_duplicates() -> None:
    train, test = rows_of(40, "train"), rows_of(20, "test")
    assert not [what for what in surveyed(*train, *test) if "equal features" in what]
    train[3].utterance.features.update(train[7].utterance.features)  # type: ignore[attr-defined]
    test[5].utterance.features.update(train[20].utterance.features)  # type: ignore[attr-defined]
    found = surveyed(*train, *test)
    assert found["equal features in all modalities @ train"] == ("warning", 1, ("train0$_$3 = train1$_$2",))
    assert found["equal features in all modalities @ train, test"] == ("error", 1, ("train4$_$0 = test1$_$0",))
    for one in (train[20], test[5]):
        one.utterance.features["audio"] = one.utterance.features["audio"][:0]  # type: ignore[index]
    assert surveyed(*train, *test)["equal features in all modalities @ train, test"][0] == "warning"


def test_lengths() -> None:
    def change(i: int, u: Utterance) -> Utterance:
        text = torch.ones(200, 4) * i if i == 8 else u.features["text"]
        text = u.features["text"][:0] if i in (2, 3) else text
        return Utterance(u.id, {"text": text, "audio": u.features["audio"][: i != 3]}, u.label)

    found = surveyed(*rows_of(30, "train", change), *rows_of(9, "valid"), *rows_of(3, "test"))
    assert found["all modalities missing @ train"] == ("warning", 1, ("train0$_$3",))
    assert found["text is missing in 6.7% @ train"][:2] == ("note", 2)
    assert found["text longer than 10 times the median of 5 steps @ train"] == ("note", 1, ("train1$_$3: 200",))
    text_only = [Row("train", Utterance(str(i), {"text": torch.randn(5, 4)}, 1.0)) for i in range(9)]
    assert surveyed(*text_only)["audio is missing from all utterances @ train"][:2] == ("warning", 9)


@pytest.mark.parametrize(
    ("lengths", "truncated"),
    [
        ([min(3 * i, 50) for i in range(1, 40)], True),
        ([3 * i for i in range(1, 40)], False),
        ([50] * 40, False),
        ([min(i, 5) for i in range(1, 40)], False),
        ([1] * 40, False),
    ],
    ids=["cut", "varied", "fixed", "short", "one"],
)
def test_what_looks_truncated(lengths: list[int], truncated: bool) -> None:
    rows = [Row("train", Utterance(str(i), {"text": torch.randn(n, 4)}, 1.0)) for i, n in enumerate(lengths)]
    found = [what for what in surveyed(*rows) if "truncated" in what]
    assert bool(found) == truncated
    assert all(what.startswith("text: 59% of the sequences have 50 steps, none more") for what in found)


def test_what_looks_padded() -> None:
    def rows(zeros: int, audio: int = 1) -> list[Row]:
        made = []
        for i in range(20):
            text = torch.ones(8 + i % 3, 4)
            text[len(text) - zeros :] = 0
            made.append(Row("train", Utterance(str(i), {"text": text, "audio": torch.ones(audio, 3)}, 1.0)))
        return made

    def padded(made: list[Row]) -> list[str]:
        return [what for what in surveyed(*made) if "padding" in what]

    assert padded(rows(0)) == padded(rows(1)) == []
    assert padded(rows(3))[0].startswith("text: 100% of the sequences end with two or more steps of zeros")
    aligned = rows(3)
    for row in aligned:
        row.utterance.features["audio"] = torch.ones(len(row.utterance.features["text"]), 3)  # type: ignore[index]
    assert padded(aligned) == []  # steps that another modality has


def test_scales_and_constants() -> None:
    def change(i: int, u: Utterance) -> Utterance:
        audio = u.features["audio"].clone()
        audio[:, 0] = 7.1
        return Utterance(u.id, {"text": u.features["text"] * 500, "audio": audio}, u.label)

    same = surveyed(*rows_of(200, "train"), *rows_of(100, "test"))
    assert not [what for what in same if "scale" in what or "constant" in what]
    found = surveyed(*rows_of(200, "train", change), *rows_of(100, "test"))
    assert found["1 of 3 features of audio are constant; normalized, they become 0 @ train"][:2] == ("note", 1)
    [large] = [what for what in found if "vary by up to" in what]
    assert large.startswith("features of text vary by up to 5")
    assert "list text in data.normalize" in large
    other = [what for what in found if what.startswith("4 of 4 features of text are on another scale")]
    assert found[other[0]][:2] == ("warning", 4)


def test_labels() -> None:
    none = surveyed(*(Row("train", Utterance(str(i), {"text": torch.randn(2, 4)})) for i in range(3)))
    assert none["no labels @ train"][:2] == ("note", 3)
    rows = rows_of(5, "test", lambda i, u: Utterance(u.id, u.features, None if i == 2 else 1.0))
    found = surveyed(*rows)
    assert found["without a label @ test"] == ("error", 1, ("test0$_$2",))
    assert found["all labels are 1 @ test"][:2] == ("warning", 4)


def test_moments_are_numpys() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((20000, 5)) * [1, 1e3, 1e-3, 1, 0] + [0, 1e6, 5, -3, 2]
    moments = Moments()
    for part in np.split(values, np.sort(rng.choice(np.arange(1, 20000), 300, replace=False))):
        moments.add(part)
    moments.settle()
    assert moments.count == 20000
    np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(moments.std[:4], values.std(0)[:4], rtol=1e-9)
    assert moments.std[4] == 0


def test_a_store_that_was_changed(write_mmsa: Write) -> None:
    write_mmsa()
    main(["import", "tiny.pkl", "--out", "store"])
    with open("store/text.npy", "r+b") as file:
        file.seek(128 + 4)
        file.write(struct.pack("<f", float("nan")))
    found = found_in("store", code=1)
    what = (
        "SHA-256 differs from that of the import: the file is damaged or was changed; import the data again @ text.npy"
    )
    assert ("error", what) in found
    assert found["error", "NaN in text @ train"]["examples"] == ["train0$_$0"]


@pytest.mark.parametrize("name", ["mosi_dev.pkl", "mmmo.pkl"])
def test_real_data_has_no_errors(real_data: Callable[[str], Path], name: str) -> None:
    found = found_in(real_data(name), code=0)
    if name == "mmmo.pkl":
        assert ("warning", "'text' is missing from all 220 utterances @ train") in found


def test_a_figure_of_little(tmp_path: Path) -> None:
    assert not figure_check({"splits": {}}, tmp_path / "a.png")
    write_store("store", [Row("all", Utterance("a", {"audio": torch.ones(1, 2)}))])
    main(["check", "store", "--out", "report"])
    assert Path("report/check.png").is_file()


# --- targets, modalities and other formats ---------------------------------------------------------------------------


def with_words(content: dict[str, Any]) -> None:
    """Adds a class in words, of which one is rare and one in test alone, speakers, and a fourth modality."""
    for name, split in content.items():
        count = len(split["id"])
        words = ["mirth"] * count
        words[0], words[1] = ("grief", "mirth") if name == "train" else ("awe" if name == "test" else "grief", "grief")
        split["feeling"], split["speaker"] = words, [f"p{i % 3}" for i in range(count)]
        split["eeg"] = np.random.default_rng(len(name)).standard_normal((count, 4, 2)).astype(np.float32)


CLASSES = ("--set", "target.kind=classes", "--set", "target.field=feeling")


def test_classes(write_mmsa: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write_mmsa(change=with_words)
    main(["info", "tiny.pkl", *CLASSES])
    said = capsys.readouterr().out
    assert "Target: 3 classes: awe, grief, mirth, metrics classes" in said
    assert "| grief | 1 | 2 | 1 |" in said
    assert "| mirth | 23 | 10 | 10 |" in said
    main(["import", "tiny.pkl", "--out", "store", *CLASSES])
    main(["check", "store", "--out", "report"])
    found = json.loads(Path("report/check.json").read_text())
    assert found["target"]["classes"] == ["awe", "grief", "mirth"]
    assert found["splits"]["test"]["labels"]["classes"] == {"awe": 1, "grief": 1, "mirth": 10}
    assert found["splits"]["test"]["speakers"] == 3
    findings = [(f["severity"], f["what"]) for f in found["findings"]]
    for severity, said in (
        ("note", "class 'grief' has 1 label, 'mirth' 23: loss.class_weights: balanced"),
        ("note", "the same speaker in two splits"),
        ("warning", "'awe' of 'label' is in no training label"),
        ("warning", "'eeg' is not used; set data.modalities"),
    ):
        assert any(kind == severity and what.startswith(said) for kind, what in findings), (said, findings)
    with pytest.raises(DataError, match="was imported with 3 classes: awe, grief, mirth, but the target is"):
        load_corpus(DataConfig(path="store"), TargetConfig())


def test_other_labels_of_equal_features() -> None:
    rows = rows_of(40, "train")
    rows[3].utterance.features.update(rows[7].utterance.features)  # type: ignore[attr-defined]
    found = surveyed(*rows)
    [what] = [what for what in found if "different labels" in what]
    assert found[what][:2] == ("note", 1)
    assert found[what][2][0].startswith("train0$_$3: ")
    same = rows[3]._replace(utterance=replace(rows[3].utterance, label=rows[7].utterance.label))
    assert not [what for what in surveyed(*rows[:3], same, *rows[4:]) if "different labels" in what]


def test_the_same_words_are_no_duplicate() -> None:
    def said(*texts: str) -> list[str]:
        one = {"text": torch.ones(1, 4)}
        rows = [Row(f"s{i}", Utterance(f"v{i}$_$0", one, 1.0, {}, text)) for i, text in enumerate(texts)]
        return [what for what in surveyed(*rows) if what.startswith("equal features")]

    assert said("Go, go!", "GO GO") == []
    assert said("Go, go!", "Stop!") == ["equal features in all modalities @ s0, s1"]
    assert said("", "") == ["equal features in all modalities @ s0, s1"]


def test_import_takes_all_modalities_or_those_that_are_named(
    write_mmsa: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mmsa(change=with_words)
    for name, settings, dims in (
        ("all", (), ["text", "audio", "vision", "eeg"]),
        ("some", ("--set", "data.modalities=[eeg, text]"), ["eeg", "text"]),
    ):
        main(["import", "tiny.pkl", "--out", name, *settings])
        assert list(Store(name).dims) == dims
    main(["info", "all", "--set", "data.modalities=auto"])
    assert re.search(r"Features: text .*, eeg 2 float32", capsys.readouterr().out)


def test_import_takes_features_of_other_files(write_mmsa: Write) -> None:
    content = pickle.loads(write_mmsa().read_bytes())
    ids = [identity for split in content.values() for identity in split["id"]]
    np.savez("own.npz", **{identity: np.full((2, 5), i + 1.0, np.float32) for i, identity in enumerate(ids)})
    np.savez("eeg.npz", **{identity: np.ones((3, 2), np.float32) for identity in ids[1:]})
    options = ("--audio", "own.npz", "--features", "eeg=eeg.npz")
    said = told(main, "data", ["import", "tiny.pkl", "--out", "store", *options])
    assert said.code == 0
    assert "has no 'eeg' of 1 of 48 utterances of tiny.pkl" in said.err
    store = Store("store")
    assert (store.dims["audio"], store.dims["eeg"]) == (5, 2)
    assert [float(u.features["audio"][0, 0]) for u in store.utterances()] == list(range(1, len(ids) + 1))
    assert [len(u.features["eeg"]) for u in store.utterances()] == [0, *[3] * (len(ids) - 1)]
    assert [file["name"] for file in store.manifest.source["files"]] == ["tiny.pkl", "own.npz", "eeg.npz"]
    Path("own.csv").write_text("id,split,label,text\nv$_$0,train,1,own.npz#v\n")
    said = told(main, "data", ["import", "own.csv", "--out", "x", *options])
    assert said.code == 2
    assert "features of other files go with a pickle only" in said.err


def test_a_table_is_described_and_checked(capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["id,split,label,text"]
    for i in range(30):
        np.save(f"{i}.npy", np.random.default_rng(i).standard_normal((4 + i % 5, 3)).astype(np.float32))
        rows.append(f"v{i}$_$0,{('train', 'dev', 'test')[i % 3]},{(i % 7 - 3) / 3:.3f},{i}.npy")
    Path("own.csv").write_text("\n".join(rows))
    text = ("--set", "data.modalities=[text]")
    main(["info", "own.csv", *text, "--set", "target.range=[-1, 1]"])
    said = capsys.readouterr().out
    assert "own.csv (table" in said
    assert "Target: intensity in [-1, 1], metrics sims" in said
    assert "| valid | 10 | 10 | 100.0% |" in said
    main(["check", "own.csv", *text])
    said = capsys.readouterr().out
    assert "| warning | all labels in 'label' lie in [-1, 1]" in said
    main(["check", "own.csv", *text, "--labels", "sims"])
    assert "all labels" not in capsys.readouterr().out


def test_info_says_what_training_says_and_what_stops_it(write_mmsa: Write) -> None:
    def change(content: dict[str, Any]) -> None:
        with_words(content)
        content["dev"] = content.pop("valid")
        content["unlabeled"] = {key: values[:5] for key, values in content.pop("test").items()}

    write_mmsa(change=change)
    said = told(main, "data", ["info", "tiny.pkl"])
    assert said.code == 0
    assert "| pool | 5 |" in said.out
    assert "Training: would stop: tiny.pkl: has no split 'test'" in said.out
    assert "data.split" in said.err
    assert "'eeg' looks like features and is not used" in said.err
    # It is good data, but for training.
    assert told(main, "data", ["check", "tiny.pkl", "--out", "report"]).code == 0
    found = {f["what"]: f["severity"] for f in json.loads(Path("report/check.json").read_text())["findings"]}
    assert [severity for what, severity in found.items() if what.startswith("has no split 'test'")] == ["warning"]
    said = told(main, "data", ["info", "tiny.pkl", "--set", "data.split.test=0.3"])
    assert said.code == 0
    assert "would stop" not in said.out


def test_every_key_of_a_report_is_listed(write_mmsa: Write) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "run_folder.md").read_text()
    listed = {*re.findall(r"`([^`\n]+)`", page.partition("## Report of a data check")[2])}
    write_mmsa(change=with_words)
    main(["check", "tiny.pkl", "--out", "report", *CLASSES])
    found = json.loads(Path("report/check.json").read_text())
    split = found["splits"]["train"]
    for group in (found, found["target"], split, split["labels"], split["lengths"]["text"], found["findings"][0]):
        assert [key for key in group if key not in listed] == []


@pytest.mark.parametrize("scale", ["mosi", "sims"])
def test_a_store_of_a_former_version(write_mmsa: Write, scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    def narrow(content: dict[str, Any]) -> None:
        for split in content.values():
            split["regression_labels"] = split["regression_labels"] / (3 if scale == "sims" else 1)

    write_mmsa(change=narrow)
    main(["import", "tiny.pkl", "--out", "old", "--labels", scale])
    new = json.loads(Path("old/manifest.json").read_text())
    old = {key: value for key, value in new.items() if key not in ("target", "columns")}
    Path("old/manifest.json").write_text(json.dumps({**old, "version": 1, "labels": scale}))
    capsys.readouterr()
    main(["info", "old"])
    assert f"metrics {scale}" in capsys.readouterr().out
    found = found_in("old", code=0)
    assert not [key for key in found if "target" in key[1]]
    main(["import", "old", "--out", "new", "--dtype", "float16"])
    store, former = Store("new"), Store("old")
    assert store.manifest.target == former.manifest.target
    assert store.labels.tolist() == former.labels.tolist()
    assert [file["name"] for file in store.manifest.source["files"]] == ["old", "tiny.pkl"]
    said = told(main, "data", ["import", "old", "--out", "x", "--set", "target.kind=classes"])
    assert said.code == 2
    assert "was imported with intensity in" in said.err


def test_a_store_of_classes_is_imported_again(write_mmsa: Write) -> None:
    write_mmsa(change=with_words)
    main(["import", "tiny.pkl", "--out", "first", *CLASSES])
    main(["import", "first", "--out", "second", "--set", "data.modalities=[eeg]"])
    first, second = Store("first"), Store("second")
    assert list(second.dims) == ["eeg"]
    assert second.manifest.target == first.manifest.target
    assert second.labels.tolist() == first.labels.tolist()
    assert [u.speaker for u in second.utterances()] == [u.speaker for u in first.utterances()]


def test_what_stops_training_is_not_hidden_by_another_fault(write_mmsa: Write) -> None:
    def change(content: dict[str, Any]) -> None:
        content["dev"] = {key: values[:4] for key, values in content["valid"].items()}
        content["test"]["audio"][0, 0, 0] = np.nan

    found = [key[1] for key in found_in(write_mmsa(change=change), code=1) if key[0] == "error"]
    assert "NaN in audio @ test" in found
    assert [what for what in found if what.startswith("the splits 'valid' and 'dev' are both the valid split")]
    assert len(found) == 2

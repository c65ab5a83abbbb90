"""Growing dialogues: each utterance is answered from what was said before, in Python and in the shell."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_data import tiny_content, tiny_run, write_pickle

from gmsa import predict as command
from gmsa.data import Utterance
from gmsa.data.notes import collected
from gmsa.errors import DataError, RunError
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.predict import Answers
from gmsa.system import cli

CAUSAL = {"scope": "hierarchical", "past": 2, "future": 0, "speakers": "same_other"}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Runs that are trained once, by their settings."""
    folder = tmp_path_factory.mktemp("live")
    own = write_pickle(folder / "own.pkl", tiny_content())

    def trained(name: str, model: Any = None, seeds: Any = (1,), **graph: Any) -> Run:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(results, "draw_run", lambda *_: None)
            run = {"seeds": [*seeds]}
            return Run(tiny_run(folder / name, own, model={"layers": 3, **(model or {})}, graph=graph, run=run))

    return trained


@pytest.fixture
def run(live: Callable[..., Run]) -> Run:
    return live("causal", **CAUSAL)


@pytest.fixture
def ahead(run: Run, tmp_path: Path) -> Run:
    """The same, as if its graphs had looked two utterances ahead."""
    shutil.copytree(run.folder, tmp_path / "ahead")
    settings = (tmp_path / "ahead" / "config.yaml").read_text()
    assert settings.count("  future: 0\n") == 1
    (tmp_path / "ahead" / "config.yaml").write_text(settings.replace("  future: 0\n", "  future: 2\n"))
    return Run(tmp_path / "ahead")


def said(number: int, dialogue: str = "call", missing: str = "", **more: Any) -> Utterance:
    draw = torch.Generator().manual_seed(100 * len(dialogue) + number)
    shapes = {"text": (2 + number % 3, 4), "audio": (1 + number % 7, 3), "vision": (1 + number % 2, 2)}
    features = {m: torch.randn(shape, generator=draw)[: 0 if m == missing else 9] for m, shape in shapes.items()}
    return Utterance(f"{dialogue}$_${number}", features, speaker="ab"[number % 5 > 2], **more)


def row(answers: Answers, place: int = -1) -> list[float]:
    parts = [] if answers.values is None else [answers.values[[place]]]
    gates = [] if answers.gate is None else [answers.gate[place]]
    return np.concatenate([*parts, answers.probabilities[place], *gates]).tolist()


def table_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["semi_iin", "sslmm"])
def test_an_answer_is_that_of_the_window_bit_for_bit(live: Callable[..., Run], run: Run, name: str) -> None:
    if name != "semi_iin":
        run = live(name, {"name": name}, **CAUSAL)
    stream, utterances = run.stream(), [said(i) for i in range(9)]
    assert stream.before == 4
    found = [stream.add(u) for u in utterances]
    assert [a.ids for a in found] == [[u.id] for u in utterances]
    for i, answers in enumerate(found):
        assert row(answers) == row(run.predict(utterances[max(0, i - stream.before) : i + 1])), i
    # One utterance less is another answer: the context counts.
    assert row(found[-1]) != row(run.predict(utterances[9 - stream.before :]))
    # The whole dialogue at once multiplies larger matrices, which round otherwise.
    whole = run.predict(utterances)
    np.testing.assert_allclose([row(a) for a in found], [row(whole, i) for i in range(9)], rtol=0, atol=1e-6)


def test_the_mean_over_seeds(live: Callable[..., Run]) -> None:
    run, utterances = live("seeds", {"layers": 2}, (1, 2), scope="hierarchical", past=1, future=0), [said(0), said(1)]
    for seeds in (None, 2):
        stream = run.stream(seeds)
        assert row([stream.add(u) for u in utterances][-1]) == row(run.predict(utterances, seeds))
    with pytest.raises(RunError, match="seed"):
        run.stream(seeds=7)


def test_only_what_can_count_is_kept(run: Run) -> None:
    stream = run.stream()
    for i in range(7):
        stream.add(said(i))
        assert len(stream._dialogues["call"].said) == min(i + 1, stream.before)
    assert stream.dialogues == ("call",)
    stream.end("call")
    stream.end("never begun")
    assert stream.dialogues == ()
    again = said(3)
    assert row(stream.add(again)) == row(run.predict([again]))


def test_with_all_of_the_past_all_is_kept(live: Callable[..., Run]) -> None:
    run = live("all", scope="hierarchical", past="all", future=0)
    stream, utterances = run.stream(), [said(i) for i in range(6)]
    found = [stream.add(u) for u in utterances]
    assert len(stream._dialogues["call"].said) == 6
    assert row(found[-1]) == row(run.predict(utterances))


def test_interleaved_dialogues_equal_separate_ones(run: Run) -> None:
    names = ("call", "dialog")
    together, found = run.stream(), {}
    for i in range(6):
        for name in names:
            found[name, i] = row(together.add(said(i, name)))
    for name in names:
        alone = run.stream()
        assert [row(alone.add(said(i, name))) for i in range(6)] == [found[name, i] for i in range(6)]


def test_the_order_is_that_of_adding_whatever_the_ids_say(run: Run) -> None:
    utterances = [said(i) for i in (5, 3, 4)]
    stream = run.stream()
    found = [stream.add(u) for u in utterances][-1]
    assert row(found) == row(run.predict([replace(u, place=k) for k, u in enumerate(utterances)]))
    assert row(found) != row(run.predict(sorted(utterances, key=lambda u: u.clip)), 1)


def test_an_utterance_without_a_modality(run: Run) -> None:
    utterances = [said(0, missing="text"), said(1), said(2, missing="vision"), said(3)]
    utterances[3] = replace(utterances[3], features={"audio": utterances[3].features["audio"]})
    stream = run.stream()
    with collected() as notes:
        found = [stream.add(u) for u in utterances]
    assert row(found[-1]) == row(run.predict(utterances))
    assert notes == []
    # One that has none can be answered from what was said before, in its dialogue alone.
    nothing = replace(said(4), features={m: x[:0] for m, x in said(4).features.items()})
    assert row(stream.add(nothing)) == row(run.predict([*utterances, nothing]))
    with pytest.raises(DataError, match="has no text or audio or vision to predict from"):
        stream.add(replace(nothing, id="other$_$1"))
    assert stream.dialogues == ("call",)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "dims": ({"text": torch.ones(2, 5)}, "'text' has 5 features per step, training has 4"),
    "nan": ({"text": torch.full((2, 4), torch.nan)}, "'text' holds NaN or infinity"),
    "huge": ({"text": torch.full((2, 4), 3e38)}, "is not finite: its 'text' features"),
    "twice": ({}, "utterance 'call$_$1': is given twice; ids must be unique"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_utterance_leaves_its_dialogue_as_it_was(run: Run, name: str) -> None:
    features, reason = REFUSED[name]
    stream, undisturbed = run.stream(), run.stream()
    for i in range(3):
        stream.add(said(i))
        undisturbed.add(said(i))
    bad = said(1) if name == "twice" else replace(said(3), features=features)
    with pytest.raises((DataError, RunError)) as caught:
        stream.add(bad)
    assert reason in str(caught.value)
    assert row(stream.add(said(3))) == row(undisturbed.add(said(3)))
    with pytest.raises(DataError, match=r"expected gmsa\.Utterance objects"):
        stream.add("call$_$4")  # type: ignore[arg-type]


def test_a_caller_may_write_into_its_tensors_again(run: Run) -> None:
    stream, first, second = run.stream(), said(0), said(1)
    expected = row(run.predict([first, second]))
    stream.add(first)
    for x in first.features.values():
        x.fill_(7)
    assert row(stream.add(second)) == expected


def test_a_note_is_given_once(run: Run) -> None:
    stream = run.stream()
    with collected() as notes:
        for i in range(3):
            stream.add(replace(said(i), features={**said(i).features, "eeg": torch.ones(2, 2)}))
    assert len(notes) == 1
    assert "'eeg' is no modality that the run knows" in notes[0]


def test_torch_settings_are_kept(run: Run) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    run.stream().add(said(0))
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


# --- other graphs ----------------------------------------------------------------------------------------------------


def test_nodes_with_positions_keep_them(live: Callable[..., Run]) -> None:
    run = live("places", {"positions": 9}, scope="dialogue", past=1, future=0)
    stream, utterances = run.stream(), [said(i) for i in range(11)]
    assert stream.before == 2
    with collected() as notes:
        found = [row(stream.add(u)) for u in utterances]
    for i in range(3):
        assert found[i] == row(run.predict(utterances[: i + 1]))
    whole = run.predict(utterances[:9])
    np.testing.assert_allclose(found[:9], [row(whole, i) for i in range(9)], rtol=0, atol=1e-6)
    shifted = row(run.predict(utterances[6:9]))
    assert np.abs(np.subtract(found[8], shifted)).max() > 1e-5  # without their positions the answers are others
    assert [n.partition(",")[0] for n in notes] == ["dialogue 'call' has more than 9 utterances"]
    assert found[9:] == [row(run.predict(utterances[9:10])), row(run.predict(utterances[9:11]))]
    assert not stream._models[0].training


def test_of_graphs_of_utterances_nothing_is_kept(live: Callable[..., Run]) -> None:
    run = live("alone")
    stream = run.stream()
    for i in range(3):
        assert row(stream.add(said(i))) == row(run.predict([said(i)]))
    assert stream.dialogues == ()


def test_graphs_that_look_ahead_are_refused(ahead: Run) -> None:
    message = r"'.*ahead': its answers depend on utterances that are said later \('graph.future' is 2\); train with"
    with pytest.raises(RunError, match=message):
        ahead.stream()


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_file_is_answered_in_its_order(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content = tiny_content("o-")
    del content["train"]
    content["test"]["text"][2, 0, 0] = np.nan
    file = write_pickle(tmp_path / "other.pkl", content)
    command.main(["--run", str(run.folder), "--input", str(file), "--stream"])
    rows = table_of(capsys.readouterr().out)
    with collected():
        whole = run.predict(file)
    assert [r["id"] for r in rows] == whole.ids
    assert [r["split"] for r in rows] == [*whole.splits]
    assert {r["id"]: r["reason"] for r in rows if r["reason"]} == whole.reasons
    assert list(whole.reasons) == ["o-test0$_$2"]
    found = [float(r["prediction"] or "nan") for r in rows]
    np.testing.assert_allclose(found, whole.values, rtol=0, atol=1e-6)
    assert rows[3]["label"] == "0"
    with pytest.raises(DataError, match="NaN"):
        command.main(["--run", str(run.folder), "--input", str(file), "--stream", "--strict"])


def test_a_file_whose_rows_are_not_in_the_order_of_speech(run: Run, tmp_path: Path, capsys: Any) -> None:
    columns = tiny_content("o-")["valid"]
    mixed = [7, 1, 0, 2, 3, 6, 5, 4]
    columns = {k: v[mixed] if isinstance(v, np.ndarray) else [v[i] for i in mixed] for k, v in columns.items()}
    file = write_pickle(tmp_path / "mixed.pkl", columns)
    command.main(["--run", str(run.folder), "--input", str(file), "--stream"])
    rows = table_of(capsys.readouterr().out)
    assert [r["id"].partition("$_$")[2] for r in rows] == ["4", "0", "1", "2", "3", "5", "6", "7"]
    whole = run.predict(file)
    known = dict(zip(whole.ids, whole.values, strict=True))
    np.testing.assert_allclose([float(r["prediction"]) for r in rows], [known[r["id"]] for r in rows], atol=1e-6)


def fed(monkeypatch: pytest.MonkeyPatch, lines: str | bytes) -> None:
    raw = lines if isinstance(lines, bytes) else lines.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))


def saved(folder: Path, number: int) -> dict[str, str]:
    names = {}
    for modality, x in said(number).features.items():
        names[modality] = str(folder / f"{number}-{modality}.npy")
        np.save(names[modality], x.numpy())
    return names


def test_json_lines_on_stdin(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    files = [saved(tmp_path, i) for i in range(5)]
    speakers = [said(i).speaker for i in range(5)]
    lines = [{"id": f"call$_${i}", "speaker": speakers[i], **files[i]} for i in range(4)]
    other = {"id": "x", "dialogue": "chat", "speaker": speakers[4], "text": files[4]["text"]}
    lines = [lines[0], lines[1], other, lines[2], {"end": "chat"}, other, lines[3]]
    fed(monkeypatch, "\n".join(map(json.dumps, lines)) + "\n\n")
    command.main(["--run", str(run.folder), "--input", "-", "--stream"])
    rows = table_of(capsys.readouterr().out)
    assert [r["id"] for r in rows] == ["call$_$0", "call$_$1", "x", "call$_$2", "x", "call$_$3"]
    assert {(r["split"], r["label"], r["reason"]) for r in rows} == {("input", "", "")}
    stream = run.stream()
    expected = [stream.add(said(i)).values[0] for i in range(4)]
    assert [np.float32(r["prediction"]) for r in rows if r["id"] != "x"] == expected
    assert rows[2] == rows[4]


LINES: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"{'id': 1}", "{line}: is not JSON"),
    "no object": (b'["a"]', "{line}: is not an object; write one, as"),
    "no id": (b'{"text": "a.npy"}', "{line}: has no id; add one"),
    "unknown key": (b'{"id": "a", "txet": "a.npy"}', "{line}: has the key 'txet' (did you mean 'text'?)"),
    "no text": (b'{"id": "a", "text": [1.0]}', "{line}: 'text' must be a text"),
    "no file": (b'{"id": "a", "text": "none.npy"}', "none.npy"),
    "end and more": (b'{"end": "a", "id": "a"}', "{line}: 'end' stands alone"),
    "no modality": (b'{"id": "a"}', "has no text or audio or vision to predict from"),
    "not UTF-8": (b'{"id": "\xff"}', "{line}: is not JSON"),
    "too long": (b'{"id": "' + b"a" * (2 << 20) + b'"}', "{line}: has more than 1,048,576 bytes"),
}


def test_a_bad_line_has_a_row_that_says_why(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    good = [json.dumps({"id": f"call$_${i}", **saved(tmp_path, i)}).encode() for i in range(2)]
    bad = [line for line, _ in LINES.values()]
    fed(monkeypatch, b"\n".join([good[0], *bad, good[1]]))
    command.main(["--run", str(run.folder), "--input", "-", "--stream"])
    first, *rows, last = table_of(capsys.readouterr().out)
    assert [bool(r["prediction"]) for r in (first, *rows, last)] == [True, *[False] * len(bad), True]
    for number, (found, (_, reason)) in enumerate(zip(rows, LINES.values(), strict=True), 2):
        assert reason.format(line=f"line {number}") in found["reason"]
        assert len(found["reason"]) <= 400
        assert found["id"] in ("a", f"line {number}")
    fed(monkeypatch, bad[0])
    with pytest.raises(DataError, match="line 1: is not JSON"):
        command.main(["--run", str(run.folder), "--input", "-", "--stream", "--strict"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--input", "-", "--out", "x.csv"], "--input - reads utterances as they are said; add --stream"),
        (["--input", "-", "--stream", "--out", "x.csv"], "--stream prints its rows; leave out --out"),
        (["--input", "-", "--stream", "--features", "x.npz"], "--stream prints its rows; leave out --out"),
    ],
)
def test_options_that_do_not_fit(run: Run, arguments: list[str], reason: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--run", str(run.folder), *arguments])
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err


def test_bad_settings_end_before_any_work(
    ahead: Run, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # reading it would fail
    for folder, source, reason in (
        (ahead.folder, "-", "train with --set graph.future=0"),
        (run.folder, "-", "stdin is closed"),
        (run.folder, "none.pkl", "none.pkl"),
    ):
        with pytest.raises(SystemExit) as caught, cli.exit_codes("gmsa.predict"):
            command.main(["--run", str(folder), "--input", source, "--stream"])
        assert caught.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert reason in err
        assert err.count("\n") == 1


@pytest.mark.slow
def test_rows_come_at_once_and_ctrl_c_ends_cleanly(run: Run, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "gmsa.predict", "--run", str(run.folder), "--input", "-", "--stream"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(arguments, text=True, **streams) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline().startswith("split,id,")
            for i in range(2):  # each answer is there before the next utterance is said: else this would hang
                process.stdin.write(json.dumps({"id": f"call$_${i}", **saved(tmp_path, i)}) + "\n")
                process.stdin.flush()
                assert process.stdout.readline().startswith(f"input,call$_${i},")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert (process.returncode, out, err.strip()) == (130, "", "gmsa.predict: interrupted")

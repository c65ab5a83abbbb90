"""The measured tables: each says how it was measured, stands on one page, and is measured anew by one command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ROOT / "docs"

sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "benchmarks")]

import common  # noqa: E402
import corpora_table  # noqa: E402
import result_tables as tables  # noqa: E402
import results as tool  # noqa: E402

NAMES = sorted(path.stem for path in RESULTS.glob("*.md"))
HEAD = ("Command", "Commit", "Data", "Machine", "Date")
COMMIT = r"[0-9a-f]{7,}( with changes)?"
MEASURED = re.compile(r"\d ± \d|\d \[[-+]?\d[\d.,]*(–|, )[-+]?\d|[-+]\d\.\d+ \[|^\d[\d.]* (ms|s|MiB|MB|GB)$")


def head(name: str) -> list[tuple[str, str]]:
    """Keys and values of a file's head."""
    lines = (RESULTS / f"{name}.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("- Command: "))
    found = []
    for line in lines[start:]:
        if not line.startswith("- "):
            break
        key, _, value = line.removeprefix("- ").partition(": ")
        found.append((key, value))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_table_says_how_it_was_measured(name: str) -> None:
    assert (RESULTS / f"{name}.md").read_text(encoding="utf-8").startswith("# ")
    found = head(name)
    assert [key for key in dict.fromkeys(key for key, _ in found) if key != "Circumstances"] == list(HEAD)
    assert [value for key, value in found if key == "Command"] == [f"`{c}`" for c in tool.shown_commands(name)]
    commit = dict(found)["Commit"]
    assert re.match(f"{COMMIT}$|not recorded; .*{COMMIT}", commit), commit
    assert all(value.strip() for _, value in found)


def test_each_table_is_made_by_a_command() -> None:
    assert tool.RESULTS_BY_NAME.keys() == set(NAMES)


def test_each_table_stands_on_one_page() -> None:
    included = re.compile(r"```\{include\} (?:\.\./)+benchmarks/results/(\w+)\.md")
    found = [name for page in PAGES.rglob("*.md") for name in included.findall(page.read_text(encoding="utf-8"))]
    assert sorted(found) == NAMES


def measured_tables(text: str) -> list[str]:
    """First lines of the tables of measured numbers in a page."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [[part.strip(" *") for part in line.strip("| \n").split(" | ")] for line in table.splitlines()[2:]]
        cells = [part for row in rows for part in row[1:] if part]
        numbers = sum(bool(re.fullmatch(r"[-+]?[\d.,]+( / [\d.]+| ?%)?", part)) for part in cells)
        if any(map(MEASURED.search, cells)) or (len(rows) > 1 and numbers > len(cells) / 2):
            found.append(table.splitlines()[0])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_tables_of_measured_numbers_are_recognized(name: str) -> None:
    assert measured_tables((RESULTS / f"{name}.md").read_text(encoding="utf-8"))


def test_pages_copy_no_table() -> None:
    """They include it, so that no number stands twice. The README has one table, which is compared with the files."""
    limits = PAGES / "guides" / "strangers_files.md"  # its table has limits, which nobody measured
    pages = [path for path in PAGES.rglob("*.md") if "_build" not in path.parts and path != limits]
    found = {path.name: measured_tables(path.read_text(encoding="utf-8")) for path in pages}
    assert {name: copied for name, copied in found.items() if copied} == {}


def test_the_readme_has_one_table() -> None:
    assert len(measured_tables((ROOT / "README.md").read_text(encoding="utf-8"))) <= 1


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which the tool refuses."""
    with pytest.raises(SystemExit) as error:
        tool.main(arguments)
    assert error.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("results.py: error: ")
    assert len(line) <= 400
    return line


def test_mistakes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GMSA_REAL_DATA", raising=False)
    assert "--data" in refused(["ablation_fusion"], capsys)
    assert "'nothing.pkl' does not exist" in refused(["ablation_fusion", "--data", "nothing.pkl"], capsys)
    other = tmp_path / "other.pkl"
    other.write_bytes(b"")
    assert "reads mosi_dev.pkl" in refused(["step", "--data", str(other)], capsys)
    monkeypatch.setenv("GMSA_REAL_DATA", str(tmp_path))
    assert "mosi_dev.pkl' does not exist" in refused(["missing_summary"], capsys)
    assert "'nonsense' is no result" in refused(["nonsense"], capsys)
    assert "--out" in refused(["step", "--quick"], capsys)
    assert "--list" in refused([], capsys)
    for where in ("--out", "--runs"):
        assert "cannot be written" in refused(["store", "--out", str(tmp_path), where, str(other)], capsys)
    (tmp_path / "store.md").mkdir()
    assert "is a folder" in refused(["store", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")], capsys)


def test_runs_of_another_commit_or_of_other_data_are_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The head of a result names today's commit and data: runs of others must not stand under it."""
    data, runs = tmp_path / "mosi_dev.pkl", tmp_path / "runs"
    data.write_bytes(b"abc")
    command = f'{sys.executable} -c \'open("OUT/run", "a"); print("| a |")\''.replace(sys.executable, "python")
    monkeypatch.setitem(tool.RESULTS_BY_NAME, "ablation_fusion", tool.Result([command], 0, data=["mosi_dev.pkl"]))
    arguments = ["ablation_fusion", "--data", str(data), "--out", str(tmp_path), "--runs", str(runs)]
    monkeypatch.setattr(common, "commit", lambda: "0123abc")
    tool.main(arguments)
    tool.main(arguments)
    capsys.readouterr()
    monkeypatch.setattr(common, "commit", lambda: "4567def")
    assert "was begun with commit 0123abc and `mosi_dev.pkl`, SHA-256 ba7816bf" in refused(arguments, capsys)
    monkeypatch.setattr(common, "commit", lambda: "0123abc")
    data.write_bytes(b"other")
    assert "was begun with" in refused(arguments, capsys)
    (runs / "ablation_fusion.json").unlink()
    assert "nobody knows which code" in refused(arguments, capsys)


def test_the_list_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    tool.main(["--list"])
    shown = capsys.readouterr().out
    assert all(f"{name} (about " in shown for name in NAMES)
    assert "gmsa ablate --config mosi_graph --settings streams --set data.path=mosi_dev.pkl" in shown


def spread(value: float, std: float = 0.0) -> dict[str, float]:
    return {"mean": value, "std": std}


def summary(*rows: tuple[str, float, float]) -> dict[str, Any]:
    """The content of an ablation's ``summary.json``: name, validation and test MAE of each setting."""
    metrics = {name: spread(0.5, 0.01) for name in ("Corr", "Non0_acc_2", "Non0_F1_score", "Mult_acc_7")}
    costs = {"parameters": 1234, "nodes": 19.6, "edges": 542, "seconds_per_epoch": 2.0, "peak_memory_mb": 600.2}
    found = []
    for rank, (name, valid, test) in enumerate(rows, 1):
        row: dict[str, Any] = {"rank": rank, "setting": name, "reference": name == rows[0][0], **costs}
        row |= {"valid": {"MAE": spread(valid, 0.02), **metrics}, "test": {"MAE": spread(test), **metrics}}
        row["train_seconds"] = spread(12.4)
        difference = {"difference": valid - rows[0][1], "low": -0.01, "high": 0.03, "p": 0.04}
        if not row["reference"]:
            row["difference"] = {"valid": difference, "test": difference}
        found.append(row)
    return {"seeds": [1, 2], "rows": found}


def test_a_table_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The title and the text before the head stay; the head and the table are of today."""
    data, out, ran = tmp_path / "mosi_dev.pkl", tmp_path / "out", []
    data.write_bytes(b"abc")

    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        ran.append(words)
        folder = Path(words[words.index("--out") + 1])
        (folder / "summary.json").write_text(json.dumps(summary(("gate", 0.79, 0.76), ("add", 0.8, 0.75))))
        return subprocess.CompletedProcess(words, 0, stdout="")

    monkeypatch.setattr(common, "commit", lambda: "0123abc with changes")
    monkeypatch.setattr(tool.subprocess, "run", run)
    arguments = ["ablation_fusion", "--data", str(data), "--out", str(out), "--runs", str(tmp_path / "runs")]
    tool.main([*arguments, "--note", "beside other work"])
    (words,) = ran
    assert words[:4] == [sys.executable, "-m", "gmsa", "ablate"]
    assert f"data.path={data}" in words
    text = (out / "ablation_fusion.md").read_text(encoding="utf-8")
    kept, _, measured = text.partition("\n- Command: ")
    assert kept.strip() == tool.kept_text(RESULTS / "ablation_fusion.md")
    assert measured.startswith(
        f"`{tool.shown_commands('ablation_fusion')[0]}`\n- Commit: 0123abc with changes\n- Data:"
    )
    assert "SHA-256 ba7816bf" in measured
    assert "- Circumstances: beside other work\n" in measured
    assert "| 1 | gate (reference) | 0.790 ± 0.020 | 0.500 ± 0.010 | 0.760 ± 0.000 |" in measured
    assert "+0.010 [-0.010, +0.030] p = 0.040 | 19.6 | 542.0 | 2.00 | 600 |" in measured
    assert "over 2 seeds" in measured


def test_what_is_printed_becomes_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the last line, which is the machine; what fails is not written."""
    output = "| a |\\n| --: |\\n| 1 |\\n\\nA processor; torch_geometric 1; commit 0123abc"
    monkeypatch.setattr(common, "commit", lambda: "0123abc")
    arguments = ["store", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    for code in (1, 0):
        command = f"""python -c 'print("{output}"); raise SystemExit({code})'"""
        monkeypatch.setitem(tool.RESULTS_BY_NAME, "store", tool.Result([command], 0))
        if code:
            with pytest.raises(SystemExit, match="exit code 1; nothing is written"):
                tool.main(arguments)
            assert not (tmp_path / "store.md").exists()
    tool.main(arguments)
    text = (tmp_path / "store.md").read_text(encoding="utf-8")
    assert "\n- Commit: 0123abc\n- Data: made up\n- Machine: A processor; torch_geometric 1\n- Date: " in text
    assert text.endswith("\n\n| a |\n| --: |\n| 1 |\n")


def test_the_commit_says_whether_there_are_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    monkeypatch.setattr(common, "ROOT", tmp_path)
    assert common.commit() == "not recorded"
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    for file in (tmp_path / "code.py", tmp_path / "benchmarks" / "results" / "step.md"):
        file.write_text("one")
    git("init")
    git("add", "-A")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "Begin")
    (tmp_path / "benchmarks" / "results" / "step.md").write_text("two")
    clean = common.commit()
    assert re.fullmatch(r"[0-9a-f]{7,}", clean)
    (tmp_path / "code.py").write_text("two")
    assert common.commit() == f"{clean} with changes"


def test_conditions_stand_side_by_side(tmp_path: Path) -> None:
    for i, name in enumerate(tables.CONDITIONS):
        (tmp_path / name).mkdir()
        rows = ("sslmm", 0.8 + i / 100, 0.9), ("semi_iin", 0.85, 0.89)
        (tmp_path / name / "summary.json").write_text(json.dumps(summary(*rows)))
    text = tables.conditions(tmp_path / "missing_summary", "")
    assert r"| sslmm | **0.800 ± 0.020** | **0.810 ± 0.020** |" in text
    assert r"| semi_iin | 0.850 ± 0.020 \* |" in text
    assert r"| semi_iin | **0.890 ± 0.000** \* |" in text
    assert "| all labels, nothing missing | -0.050 [-0.030, +0.010] 0.04 |" in text


def test_rows_of_corpora_are_those_of_the_files_that_they_name() -> None:
    text = (
        "## a\n| | MAE |\n| :-- | --: |\n| one | 1 |\n\n## b\n| x | MAE |\n| :-- | --: |\n| **one** (`c`) | **2** |\n"
    )
    assert corpora_table.row_in(text, "one") == {"": "one", "MAE": "1"}
    assert corpora_table.row_in(text, "one", "## b")["MAE"] == "2"
    with pytest.raises(ValueError, match="no row 'two' after '## b'"):
        corpora_table.row_in(text, "two", "## b")
    made = (RESULTS / "corpora.md").read_text(encoding="utf-8")
    rows = [row for row in corpora_table.ROWS if row.source.endswith(".md")]
    assert len(rows) > 10
    for row in rows:  # nothing was measured anew since without the table of corpora
        cells = corpora_table._of_file(row, corpora_table.COLUMNS[row.corpus])
        assert f"| {row.trained} | {row.features} | {' | '.join(cells)} |" in made


def test_areas_and_epochs(tmp_path: Path) -> None:
    """An area by hand: over 0, 0.2 and 0.6 of 1, 2, 3 it is (0.2 · 1.5 + 0.4 · 2.5) / 0.6."""
    lines = ["run,protocol,asked,left,seed,mask_seed,realized,with_text,MAE,Corr"]
    for rate, value in ((0.0, 1), (0.2, 2), (0.6, 3)):
        lines += [f"a,eta,{rate},,1,{mask},{rate},0.5,{value},0.5" for mask in (("",) if rate == 0 else (0, 1))]
    lines += ["a,fixed,,t,1,,0.667,1.0,0.9,0.6"]
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared" / "robustness.csv").write_text("\n".join(lines) + "\n")
    text = tables.robustness(tmp_path, "")
    assert "| area |  |  | 2.167 ± 0.000 | 0.500 ± 0.000 |" in text
    assert "| t | 0.667 | 100 | 0.900 ± 0.000 |" in text

    for condition in tables.CONDITIONS:
        for number, setting in enumerate(("sslmm", "without pre-training")):
            cell = tmp_path / condition / "cells" / f"slug-{number}" / "seed-1"
            (cell / "seed-1").mkdir(parents=True)
            (cell / "cell.json").write_text(json.dumps({"setting": setting, "seed": 1}))
            records = [{"stage": "pretrain", "valid": {"loss": 0.1}}]
            records += [{"stage": "sslmm", "valid": {"MAE": mae}} for mae in (1.2, 1.04 + 0.05 * number, 0.99)]
            (cell / "seed-1" / "history.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    text = tables.epochs(tmp_path / "pretraining_epochs", "")
    assert "| all labels, nothing missing | 1.200 / 1.200 | 2 / 2 | 2 / 3 | 3 / 3 |  |  |  |" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(tool.RESULTS_BY_NAME))
def test_a_quick_run_writes_its_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GMSA_REAL_DATA", raising=False)
    tool.main([name, "--quick", "--out", str(tmp_path)])
    text = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
    assert tool.MADE_QUICKLY in text
    assert measured_tables(text)
    assert re.search(rf"^- Commit: (not recorded|{COMMIT})$", text, re.MULTILINE)
    machine = re.search(r"^- Machine: (.*)$", text, re.MULTILINE)
    assert machine is not None
    assert "torch_geometric" in machine[1]

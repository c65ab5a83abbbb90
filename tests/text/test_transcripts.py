"""Transcripts as data: files, stores, tables and strings without features of text, for runs with a text encoder."""

from __future__ import annotations

import csv
import json
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.text_encoders import NUMBER, make_encoder

from gmsa.config import Config, from_dict
from gmsa.data import Row, Utterance, load_corpus, write_store
from gmsa.data.mmsa import from_mmsa
from gmsa.errors import ConfigError, DataError, DataWarning
from gmsa.runs import report
from gmsa.runs.folder import Run
from gmsa.runs.inputs import read_inputs
from gmsa.runs.prepare import checked_texts, prepare
from gmsa.runs.train import train
from gmsa.training.batches import SampleGroups
from gmsa.training.examples import Example

pytest.importorskip("transformers", reason="the extra 'text' is not installed")

COUNTS = {"train": 12, "valid": 6, "test": 6}
FEELINGS = ("great", "good", "fine", "dull", "bad", "awful")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights: 2 layers, width 32."""
    return make_encoder(tmp_path_factory.mktemp("encoders") / "bert")


def said(i: int) -> str:
    return f"it was so {FEELINGS[i % 6]}"


def content(*, audio: bool = False, text: bool = False) -> dict[str, Any]:
    """A pickle with transcripts and labels alone, or with features of audio and of text."""
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for split, count in COUNTS.items():
        made[split] = {
            "id": [f"{split}{i // 3}$_${i}" for i in range(count)],
            "raw_text": [said(i) for i in range(count)],
            "regression_labels": np.float32([2.5 - i % 6 for i in range(count)]),
        }
        if audio:
            made[split]["audio"] = rng.standard_normal((count, 4, 3)).astype(np.float32)
        if text:
            made[split]["text"] = rng.standard_normal((count, 5, 7)).astype(np.float32)
    return made


def bert_of(texts: list[str], width: int = 8) -> np.ndarray:
    """What BERT's tokenizer gives for transcripts of known words ``[N, 3, L]``."""
    table = np.zeros((len(texts), 3, width), np.float32)
    for row, words in zip(table, texts, strict=True):
        ids = [2, *(NUMBER[word] for word in words.split()), 3]
        row[0, : len(ids)], row[1, : len(ids)] = ids, 1
    return table


def save(path: Path, made: Any) -> Path:
    path.write_bytes(pickle.dumps(made))
    return path


def settings(file: Path, encoder: Path, /, **groups: Mapping[str, Any]) -> Config:
    return from_dict(
        {
            "data": {"path": str(file), "name": "tiny", **groups.get("data", {})},
            "model": {"text_encoder": str(encoder), "channels": 16, "heads": 2, **groups.get("model", {})},
            "text": groups.get("text", {}),
            "graph": groups.get("graph", {}),
            "optim": {"epochs": 1, "min_steps": 0, "batch_size": 8},
            "protocol": {"name": "supervised"},
            "run": {"seeds": [1], "device": "cpu"},
            **{k: v for k, v in groups.items() if k not in ("data", "model", "text", "graph")},
        }
    )


def loaded(config: Config) -> tuple[Any, list[str]]:
    """The corpus of a config, and the notes that its loading gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        corpus = load_corpus(config.data, config.target, checked_texts(config))
    return corpus, [str(w.message) for w in caught if issubclass(w.category, DataWarning)]


def numbers(corpus: Any, split: str = "train") -> list[list[int]]:
    return [u.features["text"].flatten().int().tolist() for u in corpus.splits[split]]


WANTED = [[NUMBER[word] for word in said(i).split()] for i in range(COUNTS["train"])]


# --- files without features of text ----------------------------------------------------------------------------------


def table(path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label", "split"])
        for split, columns in content().items():
            rows = zip(columns["id"], columns["raw_text"], columns["regression_labels"], strict=True)
            writer.writerows([*row, split] for row in rows)
    return path


def parquet(path: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet as writer

    columns: dict[str, list[Any]] = {"id": [], "text": [], "label": [], "split": []}
    for split, found in content().items():
        for key, values in zip(columns, (found["id"], found["raw_text"], found["regression_labels"]), strict=False):
            columns[key] += list(values)
        columns["split"] += [split] * len(found["id"])
    writer.write_table(pyarrow.table(columns), path)
    return path


def in_a_store(path: Path) -> Path:
    splits = from_mmsa(content(audio=True), "made", ["audio"])
    write_store(path, [Row(s, u) for s, us in splits.items() for u in us], dtypes={"audio": "float32"})
    return path


def as_words(path: Path) -> Path:
    made = content()
    for columns in made.values():
        columns["text"] = columns.pop("raw_text")
    return save(path, made)


SOURCES: dict[str, Callable[[Path], Path]] = {
    "a table": lambda folder: table(folder / "clips.csv"),
    "JSON lines": lambda folder: json_lines(folder / "clips.jsonl"),
    "Parquet": lambda folder: parquet(folder / "clips.parquet"),
    "a pickle of transcripts": lambda folder: save(folder / "clips.pkl", content()),
    "a pickle whose text is transcripts": lambda folder: as_words(folder / "clips.pkl"),
    "a flat pickle": lambda folder: save(folder / "clips.pkl", flat(content())),
    "a pickle with audio": lambda folder: save(folder / "clips.pkl", content(audio=True)),
    "a pickle with features of text": lambda folder: save(folder / "clips.pkl", content(text=True)),
    "a store": lambda folder: in_a_store(folder / "store"),
}


def flat(made: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {key: [x for columns in made.values() for x in columns[key]] for key in made["train"]}
    return found | {"split": [split for split, columns in made.items() for _ in columns["id"]]}


def json_lines(path: Path) -> Path:
    rows = [
        {"id": i, "raw_text": text, "label": float(label), "split": split}
        for split, c in content().items()
        for i, text, label in zip(c["id"], c["raw_text"], c["regression_labels"], strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize("modalities", ["auto", ["text"], ["audio", "text"]], ids=["auto", "text", "audio and text"])
@pytest.mark.parametrize("source", SOURCES)
def test_transcripts_need_no_features(source: str, modalities: Any, encoder: Path, tmp_path: Path) -> None:
    path = SOURCES[source](tmp_path)
    corpus, notes = loaded(settings(path, encoder, data={"modalities": modalities}))
    with_audio = source in ("a pickle with audio", "a store") and modalities != ["text"]
    assert corpus.dims == ({"text": 1, "audio": 3} if with_audio else {"text": 1})
    assert numbers(corpus) == WANTED
    assert [u.label for u in corpus.splits["train"]] == [2.5 - i % 6 for i in range(12)]
    told = " ".join(notes)
    assert ("'text' is not used: model.text_encoder reads raw_text" in told) == (source.endswith("features of text"))
    assert "has no text" not in told
    assert "missing" not in told.replace("has no audio: missing", "")
    assert ("has no audio: missing from all" in told) == (modalities == ["audio", "text"] and not with_audio)


def test_missing_transcripts_are_counted_once_per_split(encoder: Path, tmp_path: Path) -> None:
    made = content(audio=True)
    made["train"]["raw_text"][3:5] = ["", "  "]
    made["valid"]["raw_text"] = [""] * 6
    corpus, notes = loaded(settings(save(tmp_path / "clips.pkl", made), encoder, data={"modalities": "auto"}))
    assert [u.lengths["text"] for u in corpus.splits["train"]][2:6] == [4, 0, 0, 4]
    assert [note.removeprefix(f"{tmp_path}/") for note in notes] == [
        "clips.pkl: split 'train': 2 of 12 utterances have no 'raw_text': text is missing there",
        "clips.pkl: split 'valid': 6 of 6 utterances have no 'raw_text': text is missing there",
    ]


@pytest.mark.parametrize("alone", [False, True], ids=["with audio", "alone"])
def test_a_file_without_transcripts_is_refused(alone: bool, encoder: Path, tmp_path: Path) -> None:
    made = content(audio=not alone)
    for columns in made.values():
        del columns["raw_text"]
    path = save(tmp_path / "clips.pkl", made)
    what = "has no 'raw_text', which model.text_encoder reads" if alone else "no utterance has 'raw_text', which model"
    with pytest.raises(DataError, match=what):
        loaded(settings(path, encoder, data={"modalities": "auto"}))


def test_a_table_without_transcripts_is_refused(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("id,label,split\na,1,train\nb,1,valid\nc,0,test\n")
    with pytest.raises(DataError, match=r"no utterance has 'raw_text', which model\.text_encoder reads; add it"):
        loaded(settings(tmp_path / "clips.csv", encoder, data={"modalities": "auto"}))


def test_without_an_encoder_errors_name_it(tmp_path: Path) -> None:
    from gmsa.config import DataConfig

    for path in (table(tmp_path / "clips.csv"), save(tmp_path / "clips.pkl", content())):
        with pytest.raises(DataError, match=r"set model\.text_encoder, which reads"):
            load_corpus(DataConfig(path=str(path)))


def test_features_of_text_that_are_not_used_may_be_wrong(encoder: Path, tmp_path: Path) -> None:
    made = content(audio=True, text=True)
    made["train"]["text"][0] = np.nan
    corpus, _ = loaded(settings(save(tmp_path / "clips.pkl", made), encoder, data={"modalities": "auto"}))
    assert numbers(corpus) == WANTED


def test_a_store_stays_lazy(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gmsa.data.features import LazyFeatures
    from gmsa.data.store.store import StoredFeatures

    path = in_a_store(tmp_path / "store")
    monkeypatch.setattr(StoredFeatures, "__getitem__", lambda self, modality: pytest.fail("features are read"))
    corpus, _ = loaded(settings(path, encoder, data={"modalities": "auto"}))
    assert numbers(corpus) == WANTED
    assert all(isinstance(u.features, LazyFeatures) for u in corpus.splits["train"])


@pytest.mark.parametrize("most", [2, 1000])
def test_long_transcripts_are_cut_and_a_note_says_what_helps(most: int, encoder: Path, tmp_path: Path) -> None:
    made = content()
    made["train"]["raw_text"][3] = "so " * 70
    corpus, notes = loaded(settings(save(tmp_path / "clips.pkl", made), encoder, text={"most": most}))
    assert len(numbers(corpus)[3]) == min(most, 62)
    remedy = "raise 'text.most' if the encoder takes more" if most == 2 else "the encoder takes no more"
    more = "" if most == 1000 else " and 11 others"
    said = f"'train0$_$0'{more} have more than 2" if most == 2 else "'train1$_$3' have more than 62"
    assert (
        f"{tmp_path}/clips.pkl: split 'train': the transcripts of {said} word pieces and are cut there; {remedy}"
        in notes
    )


@pytest.mark.parametrize("source", ["raw_text", "text_bert"])
def test_a_whole_transcript_is_one_node(source: str, encoder: Path, tmp_path: Path) -> None:
    made = content() if source == "raw_text" else with_bert()
    made["train"]["raw_text"][1] = long = "it was so good that I said so to all of them"
    if source == "raw_text":
        made["train"]["raw_text"][2] = " "
    else:
        made["train"]["text_bert"][2] = 0
    reads = {"nodes": "transcript", "source": source}
    config = settings(save(tmp_path / "clips.pkl", made), encoder, data={"modalities": "auto"}, text=reads)
    corpus, _ = loaded(config)
    features = [u.features["text"] for u in corpus.splits["train"]]
    assert [x.shape for x in features[:4]] == [(1, 62), (1, 62), (0, 62), (1, 62)]
    assert [int(i) for i in features[3].flatten() if i >= 0] == WANTED[3]
    texts = checked_texts(config)
    assert texts is not None
    assert texts.say(corpus.splits["train"][1]) == [long]
    assert texts.say(corpus.splits["train"][2]) == []
    train = [Example(u) for u in corpus.splits["train"]]
    assert SampleGroups(train, config).sizes.tolist() == [len(x) + int((x >= 0).sum()) for x in features]
    again = texts(corpus.splits["train"], ["text"], "here")  # what a file's pieces once gave is left as it is
    assert all(torch.equal(a.features["text"], b) for a, b in zip(again, features, strict=True))


# --- text_bert -------------------------------------------------------------------------------------------------------

READS_BERT = {"data": {"modalities": "auto"}, "text": {"source": "text_bert"}}
SHAPES: dict[str, Callable[[np.ndarray], Any]] = {
    "[N, 3, L]": lambda table: table,
    "[N, L, 3]": lambda table: table.transpose(0, 2, 1),
    "lists": lambda table: table.astype(int).tolist(),
    "ragged": lambda table: [row[:, : int(row[1].sum())] for row in table],
    "padded in front": lambda table: np.concatenate([np.zeros_like(table), table], 2),
}


def with_bert(shape: str = "[N, 3, L]", audio: bool = False) -> dict[str, Any]:
    made = content(audio=audio)
    for columns in made.values():
        columns["text_bert"] = SHAPES[shape](bert_of(columns["raw_text"]))
        columns["raw_text"] = ["something else"] * len(columns["id"])
    return made


@pytest.mark.parametrize("shape", SHAPES)
def test_word_pieces_of_a_file_are_read(shape: str, encoder: Path, tmp_path: Path) -> None:
    corpus, notes = loaded(settings(save(tmp_path / "clips.pkl", with_bert(shape)), encoder, **READS_BERT))
    assert numbers(corpus) == WANTED
    assert corpus.splits["train"][0].features["text"].dtype == torch.float32
    assert notes == []


def test_an_utterance_of_special_pieces_alone_has_no_text(encoder: Path, tmp_path: Path) -> None:
    made = with_bert()
    made["train"]["text_bert"][1] = bert_of([""])[0]
    made["train"]["text_bert"][2] = 0
    corpus, notes = loaded(settings(save(tmp_path / "clips.pkl", made), encoder, **READS_BERT))
    assert [len(ids) for ids in numbers(corpus)[:4]] == [4, 0, 0, 4]
    assert notes == [
        f"{tmp_path}/clips.pkl: split 'train': 2 of 12 utterances have no 'text_bert': text is missing there"
    ]


def broken(change: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    made = with_bert()
    made["valid"]["text_bert"] = change(made["valid"]["text_bert"])
    return made


def put(row: int, column: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(table: np.ndarray) -> np.ndarray:
        table[4, row, column] = value
        return table

    return change


WRONG: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "beyond the vocabulary": (put(0, 2, 30000), "30000 is among its word pieces, but those of 'model.text_encoder' h"),
    "negative": (put(0, 2, -1), "-1 is among its word pieces"),
    "a fraction": (put(0, 2, 7.5), "the first row of its 'text_bert' is no whole numbers"),
    "NaN": (put(0, 2, np.nan), "the first row of its 'text_bert' is no whole numbers"),
    "another first piece": (
        put(0, 0, 4),
        r"begin with 4 and end with 3, but the special .* are \[2\] and \[3\]",
    ),
    "another last piece": (put(0, 5, 7), "begin with 2 and end with 7"),
    "a mask of 2": (put(1, 2, 2), "the second row of its 'text_bert' is no mask of 0 and 1"),
    "[N, L]": (lambda table: table[:, 0], r"has a 'text_bert' of shape \[8\]; expected \[3, L\]"),
    "words": (lambda table: [["so", "bad", "it"]] * 6, r"has a 'text_bert' of shape \[0\]; expected \[3, L\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_word_pieces_are_refused(name: str, encoder: Path, tmp_path: Path) -> None:
    change, message = WRONG[name]
    path = save(tmp_path / "clips.pkl", broken(change))
    with pytest.raises(DataError, match=message) as error:
        loaded(settings(path, encoder, **READS_BERT))
    assert "clips.pkl: split 'valid': 'valid" in str(error.value)
    assert len(str(error.value)) <= 400 + len(str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["a table", "a pickle of transcripts", "a store"])
def test_text_bert_must_be_there(source: str, encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no 'text_bert', which 'text\.source' names; set it to raw_text"):
        loaded(settings(SOURCES[source](tmp_path), encoder, **READS_BERT))


def test_words_need_transcripts(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'text\.nodes: words' needs the transcripts"):
        settings(tmp_path / "clips.pkl", encoder, text={"source": "text_bert", "nodes": "words"})


# --- what numbers of pieces cannot give ------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "intra": ({"graph": {"intra": {"text": "knn"}}}, "'graph.intra.text: knn' compares features of text"),
    "everywhere": ({"graph": {"intra": "knn(neighbors=2)"}}, "'graph.intra.text: knn' compares features of text"),
    "inter": ({"graph": {"inter": {"audio_to_text": "knn"}}}, "'graph.inter.audio_to_text: knn' compares features"),
    "between": ({"graph": {"scope": "dialogue", "between": "knn"}}, "'graph.between: knn' compares features of text"),
    "normalize": ({"data": {"normalize": ["text", "audio"]}}, "'data.normalize' names 'text'"),
    "not named": ({"data": {"modalities": ["audio", "vision"]}}, "'data.modalities' does not name it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_asks_for_features_of_text_is_refused(name: str, encoder: Path, tmp_path: Path) -> None:
    groups, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        prepare(settings(tmp_path / "not there.pkl", encoder, **groups))


def test_other_relations_may_compare_features(encoder: Path, tmp_path: Path) -> None:
    checked_texts(settings(tmp_path / "clips.pkl", encoder, graph={"intra": {"audio": "knn"}}))
    frozen = {"graph": {"intra": "knn"}, "text": {"tuning": "frozen"}}
    checked_texts(settings(tmp_path / "clips.pkl", encoder, **frozen))


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def _no_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw_run", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def runs(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run that reads transcripts, and one that reads ``text_bert``."""
    folder = tmp_path_factory.mktemp("runs")
    files = {"raw_text": content(audio=True), "text_bert": with_bert(audio=True)}
    for source, made in files.items():
        config = settings(
            save(folder / f"{source}.pkl", made), encoder, data={"modalities": "auto"}, text={"source": source}
        )
        train(config, source, folder / source)
    return {source: Run(folder / source) for source in files}


TWO = ["it was so good", "so dull"]
SOUND = np.ones((2, 4, 3), np.float32)


def utterances(*, audio: bool = False) -> list[Utterance]:
    features = [{"audio": torch.from_numpy(x)} if audio else {} for x in SOUND]
    return [Utterance(f"v$_${i}", x, text=text) for i, (x, text) in enumerate(zip(features, TWO, strict=True))]


ALONE: dict[str, Callable[[], Any]] = {
    "strings": lambda: TWO,
    "an array of strings": lambda: np.array(TWO),
    "a generator": lambda: (text for text in TWO),
    "raw_text": lambda: {"raw_text": TWO},
    "text": lambda: {"text": TWO},
    "by split": lambda: {"test": {"id": ["a", "b"], "raw_text": TWO}},
}
BESIDE: dict[str, Callable[[], Any]] = {
    "raw_text": lambda: {"raw_text": TWO, "audio": SOUND},
    "[L, D]": lambda: {"raw_text": TWO[:1], "audio": SOUND[0]},
    "one string": lambda: {"raw_text": TWO[0], "audio": SOUND[:1]},
    "a file": lambda: {"id": ["a", "b"], "raw_text": TWO, "audio": SOUND, "text": SOUND},
}


@pytest.mark.filterwarnings("ignore::gmsa.errors.DataWarning")
@pytest.mark.parametrize("source", ["raw_text", "text_bert"])
def test_runs_predict_transcripts(source: str, runs: Mapping[str, Run], tmp_path: Path) -> None:
    run = runs[source]
    wanted, beside = run.predict(utterances()).values, run.predict(utterances(audio=True)).values
    assert len({*wanted.tolist(), *beside.tolist()}) == 4
    assert run.predict(TWO).ids == ["0", "1"]
    for name, make in ALONE.items():
        np.testing.assert_allclose(run.predict(make()).values, wanted, rtol=1e-5, atol=1e-7, err_msg=name)
    for name, make in BESIDE.items():
        found = run.predict(make()).values
        np.testing.assert_allclose(found, beside[: len(found)], rtol=1e-5, atol=1e-7, err_msg=name)
    np.testing.assert_array_equal(run.predict(save(tmp_path / "a.pkl", {"raw_text": TWO})).values, wanted)
    np.testing.assert_array_equal(run.predict([TWO[0], utterances()[1]]).values, wanted)
    with_none = run.predict([*TWO, ""])
    assert np.isnan(with_none.values).tolist() == [False, False, True]
    assert "has no text or audio to predict from" in with_none.reasons["2"]


@pytest.mark.filterwarnings("ignore::gmsa.errors.DataWarning")
def test_runs_predict_files_stores_and_tables(runs: Mapping[str, Run], tmp_path: Path) -> None:
    run = runs["raw_text"]
    whole = run.predict(runs["raw_text"].config.data.path)
    assert whole.ids == [i for columns in content().values() for i in columns["id"]]
    stored = run.predict(str(in_a_store(tmp_path / "store")))
    np.testing.assert_array_equal(stored.values, whole.values)
    words = run.predict(str(table(tmp_path / "clips.csv")))
    np.testing.assert_allclose(words.values[:2], run.predict([said(0), said(1)]).values, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore::gmsa.errors.DataWarning")
def test_word_pieces_are_predicted(runs: Mapping[str, Run], tmp_path: Path) -> None:
    run = runs["text_bert"]
    wanted = run.predict(TWO).values
    pieces = {"text_bert": bert_of(TWO), "raw_text": ["awful"] * 2}
    np.testing.assert_allclose(run.predict(pieces).values, wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(run.predict(save(tmp_path / "a.pkl", {"id": ["a", "b"], **pieces})).values, wanted)
    ids = [torch.tensor([2, *(NUMBER[w] for w in text.split()), 3])[:, None] for text in TWO]
    own = [Utterance(str(i), {"text": x}) for i, x in enumerate(ids)]
    np.testing.assert_allclose(run.predict(own).values, wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(run.predict(run.prepare(own)).values, run.predict(own).values)  # it reads its own
    with pytest.raises(DataError, match="the input: '0': expected the numbers of word pieces"):
        run.predict([Utterance("0", {"text": torch.ones(3, 7)})])


NOT_TRANSCRIPTS: dict[str, tuple[Any, str]] = {
    "a string": ("so dull", r"'so dull' does not exist; check the path \(a transcript goes into a list"),
    "numbers": ([1, 2], r"expected transcripts or gmsa.Utterance objects to predict \(got a int\)"),
    "features of text": ({"text": SOUND}, r"has none of audio, raw_text \(its keys: text\)"),
    "word pieces": ({"text_bert": bert_of(TWO)}, r"has none of audio, raw_text \(its keys: text_bert\)"),
    "nothing": ([], "no utterance to predict"),
}


@pytest.mark.parametrize("name", NOT_TRANSCRIPTS)
def test_what_is_no_transcript_is_refused(name: str, runs: Mapping[str, Run]) -> None:
    given, message = NOT_TRANSCRIPTS[name]
    with pytest.raises(DataError, match=message):
        runs["raw_text"].predict(given)


def test_a_run_without_an_encoder_reads_no_transcripts(tmp_path: Path) -> None:
    dims, config = {"audio": 3}, from_dict({"data": {"modalities": ["audio"], "normalize": []}})
    with pytest.raises(DataError, match="the run has no text encoder to read the transcript 'so dull'; give utteranc"):
        read_inputs(["so dull"], dims, config)


@pytest.mark.filterwarnings("ignore::gmsa.errors.DataWarning")
@pytest.mark.parametrize("source", ["raw_text", "text_bert"])
def test_a_stream_reads_transcripts(source: str, runs: Mapping[str, Run]) -> None:
    from io import BytesIO

    from gmsa.runs.live.rows import rows_of, turns_of_file, turns_of_lines

    run = runs[source]
    one = run.predict(TWO[:1]).values
    np.testing.assert_array_equal(run.stream().add(utterances()[0]).values, one)
    lines = b'{"id": "a$_$1", "text": "it was so good"}\n{"id": "a$_$2", "text": ""}\n'
    rows = list(rows_of(run.stream(), turns_of_lines(run, BytesIO(lines))))
    assert float(rows[1][3]) == pytest.approx(float(one[0]), abs=1e-6)
    assert "has no text or audio" in rows[2][-1]
    whole = run.predict(run.config.data.path)
    rows = list(rows_of(run.stream(), turns_of_file(run, run.config.data.path)))[1:]
    assert [float(row[3]) for row in rows] == pytest.approx(whole.values.tolist(), abs=1e-5)


def test_noise_on_word_pieces_is_refused(runs: Mapping[str, Run]) -> None:
    for noise in ("text:10dB", "all:10dB", "text+audio:20dB"):
        with pytest.raises(ConfigError, match="--noise: 'text' of this run is word pieces, which take no noise"):
            runs["raw_text"].evaluate(noise=noise)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What pictures of attention write over the nodes of text."""
    found: list[Any] = []

    def draw(out: Path, title: str, counts: object, streams: object, text: Any = "", notes: object = None) -> None:
        found.append(text)

    monkeypatch.setattr("gmsa.runs.pictures.attention.draw_weights", draw)
    return found


@pytest.mark.parametrize("source", ["raw_text", "text_bert"])
def test_pictures_name_word_pieces(source: str, runs: Mapping[str, Run], drawn: list[Any], tmp_path: Path) -> None:
    from gmsa.inspect import main

    main(
        ["--run", str(runs[source].folder), "--attention", "--id", "train0$_$1", "--out", str(tmp_path / "weights.svg")]
    )
    assert drawn == [said(1).split()]


def test_a_picture_of_what_is_masked_shows_no_text(
    encoder: Path, runs: Mapping[str, Run], drawn: list[Any], tmp_path: Path
) -> None:
    from gmsa.inspect import main

    file = Path(runs["raw_text"].config.data.path)
    config = settings(file, encoder, data={"modalities": "auto", "missing": {"train": "fixed:a"}})
    train(config, "masked", tmp_path / "masked")
    main(
        ["--run", str(tmp_path / "masked"), "--attention", "--id", "train0$_$1", "--out", str(tmp_path / "weights.svg")]
    )
    assert drawn == [[]]

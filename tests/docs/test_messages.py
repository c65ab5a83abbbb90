"""The notes and errors that the page on own data lists are what gmsa says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.pages import ROOT

from gmsa.config import load_config
from gmsa.data import load_corpus, tell_order, tell_shared
from gmsa.data.notes import collected
from gmsa.errors import GmsaError
from gmsa.graph import collate
from gmsa.models import graph_spec

PAGE = (ROOT / "docs" / "start" / "own_data.md").read_text(encoding="utf-8")
TORCH = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x00."
SPLITS = ("train", "valid", "test")


class Case(NamedTuple):
    """What brings about a message: a change of a small file, or another file, and settings."""

    change: Callable[[dict[str, Any]], None] | bytes
    settings: tuple[str, ...] = ()


def lines_of(heading: str) -> list[str]:
    """The messages in the table of a section: the code in its first column."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = [row.split(" | ")[0] for row in section.splitlines() if row.startswith("| ")][2:]
    return [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]


def put(key: str, values: Any, splits: tuple[str, ...] = SPLITS) -> Callable[[dict[str, Any]], None]:
    """Sets a column to a value, or to ``values(column)``; None removes it."""

    def change(content: dict[str, Any]) -> None:
        for split in splits:
            before = content[split].pop(key, None)
            after = values(before) if callable(values) else values
            if after is not None:
                content[split][key] = after

    return change


def words(labels: Any) -> list[str]:
    return ["joy" if label > 0 else "anger" for label in labels]


def marked(value: float, key: str = "text") -> Callable[[dict[str, Any]], None]:
    """Puts a value into the features of one training utterance, as float64."""

    def change(content: dict[str, Any]) -> None:
        content["train"][key] = content["train"][key].astype(np.float64)
        content["train"][key][1, 0, 0] = value

    return change


def unlabeled(split: str, count: int) -> Callable[[dict[str, Any]], None]:
    return put("regression_labels", lambda x: np.where(np.arange(len(x)) < count, np.nan, x), (split,))


def without(split: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.pop(split)


def flat(content: dict[str, Any]) -> None:
    columns = content["train"]
    content.clear()
    content.update(columns)


def rare_class(content: dict[str, Any]) -> None:
    put("emotion", lambda _: ["anger", "fear"] * 6, ("valid", "test"))(content)
    put("emotion", lambda _: ["anger", "fear"] * 12, ("train",))(content)
    content["test"]["emotion"][0] = "joy"


def same_id(content: dict[str, Any]) -> None:
    content["test"]["id"][0] = content["train"]["id"][0]


def plain_ids(content: dict[str, Any]) -> None:
    for split in SPLITS:
        content[split]["id"] = [i.replace("$_$", "-") for i in content[split]["id"]]


def torn(content: dict[str, Any]) -> None:
    """Dialogues of which some utterances are unlabeled, with clips that are no numbers."""
    content["train"]["id"] = [i.replace("$_$", "$_$x") for i in content["train"]["id"]]
    content["unlabeled"] = {key: column[:12] for key, column in content["train"].items()}
    content["unlabeled"]["id"] = [f"{i}y" for i in content["train"]["id"][:12]]


def shared(content: dict[str, Any]) -> None:
    content["test"]["id"] = [f"{i}9".replace("test", "train") for i in content["test"]["id"]]


def to_seven(labels: Any) -> Any:
    return np.tile(labels[:, None], (1, 7))


CLASSES = ("target.kind=classes",)
EMOTION = ("target.kind=classes", "target.field=emotion")
NOTES = {
    "'eeg' looks like features and is not used": Case(
        lambda c: [c[s].update(eeg=np.ones((len(c[s]["id"]), 3, 2))) for s in SPLITS]
    ),
    "'visual' is read as vision": Case(lambda c: [c[s].update(visual=c[s].pop("vision")) for s in SPLITS]),
    "has no audio: missing from all utterances": Case(put("audio", None)),
    "has no features of text: raw_text would need a text encoder": Case(put("text", None)),
    "split 'extra' (40 utterances) is not used": Case(
        lambda c: c.update(extra={k: v[:4] for k, v in c["test"].items()} | {"id": list("abcd")})
    ),
    "holds two values only, 0 and 1: as an intensity in [-3, 3], its scores by sign mean nothing": Case(
        put("regression_labels", lambda x: (x > 0) * 1.0)
    ),
    "all labels … lie in [-1, 1], but are read as an intensity in [-3, 3]": Case(
        put("regression_labels", lambda x: x / 3)
    ),
    "no label … is below 0": Case(put("regression_labels", abs)),
    "all labels in … lie in …, those of other splits in …": Case(put("regression_labels", lambda x: x / 9, ("test",))),
    "'joy' … is in no training label, so it is never learned": Case(rare_class, EMOTION),
    "no id has '$_$' between video and clip": Case(plain_ids),
    "6 dialogues have two utterances of one place": Case(
        plain_ids, (r"data.video_from=(?P<video>[a-z]+)(?P<clip>\d+)",)
    ),
    "one dialogue has clips with and without a number": Case(
        lambda c: c["train"].update(id=[f"{c['train']['id'][0]}a", *c["train"]["id"][1:]])
    ),
    "6 dialogues have utterances in train and in the pool, and no numbers tell their order": Case(torn),
    "70 dialogues have utterances in two splits": Case(shared),
    "7 of 64 utterances have no label … and join the pool": Case(unlabeled("train", 7)),
    "3 of 9 utterances have no label and are not scored": Case(unlabeled("valid", 3)),
    "'text' of '…' reaches 3e+38, half of the utterances stay below 4.1": Case(marked(3e38)),
}
ERRORS = {
    "has no split 'valid' (its splits: …)": Case(without("valid")),
    "has no key 'regression_labels'": Case(put("regression_labels", None)),
    "holds no intensities, but classes in 'emotion'": Case(
        lambda c: [c[s].update(emotion=words(c[s].pop("regression_labels"))) for s in SPLITS]
    ),
    "has shape [80, 7], not one label per utterance": Case(put("regression_labels", to_seven)),
    "is 3.8, out of [-3, 3]; …": Case(put("regression_labels", lambda x: x * 2)),
    "is 'happy', not a number": Case(
        lambda c: [c[s].update(regression_labels=["1"] * (len(c[s]["id"]) - 1) + ["happy"]) for s in SPLITS]
    ),
    "is none of the 7 classes": Case(put("regression_labels", words), (*CLASSES, "target.classes=[joy, fear]")),
    "has no key 'emotion' (target.preset: meld)": Case(lambda c: None, ("target.preset=meld",)),
    "split 'valid': no utterance has a label": Case(unlabeled("valid", 12)),
    "does not say who speaks in '…'": Case(
        flat, ("data.split.valid=0.2", "data.split.test=0.2", "data.split.by=speaker")
    ),
    "no utterance has a speaker in '…'": Case(
        lambda c: [c[s].update(who=[""] * len(c[s]["id"])) for s in SPLITS], ("data.speaker_from=who",)
    ),
    "data.speaker_from '…' does not match 3 of 64 ids": Case(lambda c: None, ("data.speaker_from=x(?P<speaker>.)",)),
    "'text' of '…' holds NaN; in all, …": Case(marked(np.nan)),
    "holds 1e+300, which float32 does not hold": Case(marked(1e300)),
    "holds ids of word pieces (tokens), not features": Case(
        put("text", lambda x: np.random.default_rng(0).integers(100, 30000, (len(x), 50)))
    ),
    "looks transposed": Case(
        lambda c: [
            c[s].update(audio=[np.ones((3, 4 + i % 5)) for i in range(len(c[s]["id"]))]) or c[s].pop("audio_lengths")
            for s in SPLITS
        ]
    ),
    "has 16 features per step in split 'train' but 9 in split 'test'": Case(
        put("text", lambda x: x[..., :3], ("test",))
    ),
    "has 9 entries but 'id' has 20": Case(put("raw_text", lambda x: x[:5], ("test",))),
    "duplicate id '…' in splits 'train' and 'test'": Case(same_id),
    "'text_lengths' of '…' is 99, but 'text' has 6 steps": Case(put("text_lengths", lambda x: [99, *x[1:]])),
    "refused: the pickle asks for 'torch._utils…'": Case(TORCH),
    "was saved by torch.save; re-save it: …": Case(b"torch.save"),
    "is a video (…)": Case(b"\0\0\0\x18ftypmp42" + bytes(64)),
    "is a recording (…)": Case(b"RIFF\x24\0\0\0WAVEfmt " + bytes(64)),
    "is truncated": Case(b"cut"),
    "not a readable pickle": Case(b"\x80\x04\xff\xff\xff\xff\xff\xff"),
    "has 600 tokens, 'model.positions' allows 512": Case(lambda c: None, ("model.positions=2",)),
    "'text' has 16 features per step, training has 24": Case(lambda c: None, ("data.pool=pool.pkl",)),
}


def test_every_line_of_the_page_is_tried() -> None:
    assert lines_of("Notes: what is not used, and what looks wrong") == [*NOTES]
    assert lines_of("Errors and what they mean") == [*ERRORS]


def said_of(case: Case, write_mmsa: Callable[..., Path], folder: Path) -> list[str]:
    """The notes and the error that loading a case brings about."""
    change = case.change
    file = write_mmsa(change=None if isinstance(change, bytes) else change)
    if change == b"cut":
        file.write_bytes(file.read_bytes()[:-200])
    elif change == b"torch.save":
        torch = pytest.importorskip("torch")
        torch.save({"text": torch.zeros(2)}, file)
    elif isinstance(change, bytes):
        file.write_bytes(change)
    narrow = write_mmsa("pool.pkl", put("text", lambda x: x[..., :2]), prefix="other-")
    settings = [item.replace("pool.pkl", str(narrow)) for item in case.settings]
    error = []
    with collected() as notes:
        try:
            config = load_config("mosi_graph", [f"data.path={file}", *settings])
            corpus = load_corpus(config.data, config.target)
            tell_order(corpus.splits, corpus.pool, str(file))  # as in training with context
            tell_shared(corpus.splits, str(file))
            collate(corpus.splits["train"], graph_spec(config))
        except GmsaError as problem:
            error = [str(problem)]
    return [*error, *notes]


def pattern(line: str) -> re.Pattern[str]:
    """A message for any numbers, and for any names where the page has dots."""
    text = re.escape(line).replace("…", ".*")
    return re.compile(re.sub(r"-?\d[\d.]*(e\\\+\d+)?", r"-?[\\d.,e+]+", text.replace("\\-", "-")))


@pytest.mark.parametrize("line", [*NOTES, *ERRORS])
def test_gmsa_says_what_the_page_says(line: str, write_mmsa, tmp_path: Path) -> None:
    said = said_of({**NOTES, **ERRORS}[line], write_mmsa, tmp_path)
    assert any(pattern(line).search(text) for text in said), (line, said)

"""The states of a frozen encoder are computed once, and kept on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from helpers.text_encoders import make_encoder

from gmsa.config import Config
from gmsa.data import Utterance, load_corpus
from gmsa.errors import DataWarning
from gmsa.text import EncoderFolder, TextEncoder, Texts, states, texts_of
from gmsa.text.encoder import pretrained_weights
from gmsa.text.pieces import Nodes, Pieces

SAID = ["it was very good", "", "dull, dull, dull!", "so"]


@pytest.fixture
def folder(encoders: dict[str, Path]) -> EncoderFolder:
    return EncoderFolder(str(encoders["roberta"]))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often an encoder is run."""
    counts: list[int] = []
    compute = states._compute
    monkeypatch.setattr(states, "_compute", lambda *given: (counts.append(1), compute(*given))[1])
    return counts


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "states").iterdir())


@pytest.mark.parametrize("nodes", get_args(Nodes))
def test_they_are_those_of_the_encoder(folder: EncoderFolder, nodes: Nodes) -> None:
    pieces = Pieces(folder, nodes)
    numbers = [pieces(text)[0] for text in SAID]
    encoder = TextEncoder(folder, pieces).eval()
    encoder.network.load_state_dict(pretrained_weights(folder))
    lengths = torch.tensor([len(x) for x in numbers])
    with torch.no_grad():
        expected = encoder(torch.cat(numbers), lengths).split(lengths.tolist())
    torch.manual_seed(5)
    drawn = torch.random.get_rng_state()
    for found in (states.states_of(folder, pieces, numbers), states.states_of(folder, pieces, numbers)):
        assert [x.dtype for x in found] == [torch.float32] * 4
        torch.testing.assert_close([*found], [*expected], rtol=1e-3, atol=1e-4)  # rounded to float16
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_no_encoder_is_run_a_second_time(folder: EncoderFolder, computed: list[int], tmp_path: Path) -> None:
    pieces = Pieces(folder)
    numbers = [pieces(text)[0] for text in SAID]
    first = states.states_of(folder, pieces, numbers)
    again = states.states_of(EncoderFolder(str(folder.path)), pieces, numbers)
    assert computed == [1]
    assert len(files(tmp_path)) == 1
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    states.states_of(folder, pieces, numbers[::-1])
    states.states_of(folder, pieces, [torch.zeros(0, 1)] * 3)  # nothing to encode
    assert computed == [1, 1]
    (tmp_path / "other").mkdir()
    other = EncoderFolder(str(make_encoder(tmp_path / "other", "roberta", seed=1)))
    assert not torch.equal(states.states_of(other, pieces, numbers)[0], first[0])
    assert len(files(tmp_path)) == 3


def test_a_damaged_file_is_computed_again(folder: EncoderFolder, computed: list[int], tmp_path: Path) -> None:
    pieces = Pieces(folder)
    numbers = [pieces(text)[0] for text in SAID]
    first = states.states_of(folder, pieces, numbers)
    (path,) = files(tmp_path)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[-3] ^= 1
    for damaged in (b"", content[:40], content[:-2], bytes(flipped), b"\xff" * 8 + content[8:]):
        path.write_bytes(damaged)
        torch.testing.assert_close(states.states_of(folder, pieces, numbers), first, rtol=0, atol=0)
        assert path.read_bytes() == content
    assert len(computed) == 6
    path.unlink()
    path.mkdir()
    with pytest.warns(DataWarning, match="the states of the text encoder are not kept"):
        torch.testing.assert_close(states.states_of(folder, pieces, numbers), first, rtol=0, atol=0)


def test_a_cache_that_cannot_be_written(folder: EncoderFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = Pieces(folder)
    numbers = [pieces(text)[0] for text in SAID]
    first = states.states_of(folder, pieces, numbers)
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("GMSA_CACHE", str(tmp_path / "taken"))
    with pytest.warns(DataWarning, match="the states of the text encoder are not kept"):
        torch.testing.assert_close(states.states_of(folder, pieces, numbers), first, rtol=0, atol=0)
    if getattr(os, "geteuid", int)():  # root may write anywhere
        monkeypatch.setenv("GMSA_CACHE", str(tmp_path / "locked"))
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.warns(DataWarning, match="the states of the text encoder are not kept"):
            states.states_of(folder, pieces, numbers)


def test_texts_give_pieces_or_states(config_of: Callable[..., Config], encoders: dict[str, Path]) -> None:
    given = [Utterance("a", {"audio": torch.ones(2, 3)}, text=SAID[0]), Utterance("b", {"text": torch.ones(1, 9)})]
    sizes = {"pieces": 1, "words": 8, "transcript": 62}  # the last as many as the encoder takes, whatever is asked for
    for tuning, nodes, dim in (*(("full", *size) for size in sizes.items()), *(("frozen", n, 32) for n in sizes)):
        texts = texts_of(config_of(tuning, text={"tuning": tuning, "nodes": nodes}))
        assert isinstance(texts, Texts)
        assert texts.dim == dim
        first, second = texts(given, ["audio", "text"], "here")
        assert list(first.features) == ["audio", "text"]
        assert first.features["text"].shape == (1 if nodes == "transcript" else 4, dim)
        assert second.features["text"].shape == (0, dim)  # it says nothing: its text is missing
    config = config_of()
    corpus = load_corpus(config.data, config.target, texts_of(config))
    assert corpus.dims == {"text": 1, "audio": 3, "vision": 2}
    silent = [u for u in corpus.splits["train"] if not u.text]
    assert silent
    assert not any(u.present["text"] for u in silent)

"""Text features: a step per word, the mean of its pieces, however long the text is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.model_weights import weights
from helpers.sentences import Clip
from helpers.text_encoders import FAMILIES, OTHERS, WIDTH, make_encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from gmsa.errors import ConfigError
from gmsa.media.extractors.text import OVERLAP, WINDOW, HFText, MiniLM, windows
from gmsa.media.types import MediaError, Missing, Word

transformers = pytest.importorskip("transformers", reason="the extra 'text' is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="the extra 'text' is not installed")

TEXT = ["So", "it", "was", "not", "very", "good,", "and", "the", "film's", "end", "was", "awful", "!"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("encoders")
    return {family: make_encoder(place / family, family) for family in (*FAMILIES, *OTHERS)}


def said(words: Sequence[str]) -> list[Word]:
    return [Word(word, i / 2, i / 2 + 0.4) for i, word in enumerate(words)]


def by_transformers(folder: Path, words: Sequence[str], layer: int = -1) -> np.ndarray:
    """States of words by transformers and a plain loop over the characters of the pieces."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    found = tokenizer.encode(" ".join(words))
    with torch.no_grad():
        network: Any = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
        states = network(torch.tensor([found.ids]), output_hidden_states=True).hidden_states[layer][0]
    rows, at = [], 0
    for word in words:
        own = [
            i
            for i, (start, stop) in enumerate(found.offsets)
            if not found.special_tokens_mask[i]
            and at - 1 <= max(stop - 1, start) < at + len(word)  # a space goes with the next word
        ]
        rows.append(states[own].mean(0).numpy())
        at += len(word) + 1
    return np.stack(rows)


@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_a_word_is_the_mean_of_its_pieces(folders: dict[str, Path], family: str) -> None:
    steps = HFText(str(folders[family]))(Clip(said=said(TEXT)))
    np.testing.assert_allclose(steps.values, by_transformers(folders[family], TEXT), atol=1e-5)
    assert steps.values.dtype == np.float32
    assert steps.start.tolist() == [w.start for w in said(TEXT)]
    assert steps.stop.tolist() == [w.stop for w in said(TEXT)]


@pytest.mark.parametrize("layer", [0, 1, -2])
def test_other_layers(folders: dict[str, Path], layer: int) -> None:
    found, _ = HFText(str(folders["bert"]), layer=layer).states(TEXT)
    np.testing.assert_allclose(found, by_transformers(folders["bert"], TEXT, layer), atol=1e-5)


def test_words_of_several_parts_are_one_step(folders: dict[str, Path]) -> None:
    """Punctuation that stands alone goes with the word before it, as alignment leaves it."""
    extractor = HFText(str(folders["bert"]))
    joined, _ = extractor.states(["so --", "it", "was ?"])
    apart, _ = extractor.states(["so", "--", "it", "was", "?"])
    np.testing.assert_allclose(joined[1], apart[2], atol=1e-6)
    np.testing.assert_allclose(joined[2], (apart[3] + apart[4]) / 2, atol=1e-6)


def test_a_word_of_which_nothing_is_kept_has_no_step(folders: dict[str, Path]) -> None:
    words = said(["so", "\u200b", "good"])
    steps = HFText(str(folders["bert"]))(Clip(said=words))
    assert steps.start.tolist() == [words[0].start, words[2].start]
    with pytest.raises(Missing, match="pieces of 1 words"):
        HFText(str(folders["bert"]))(Clip(said=words[1:2]))


# --- long texts ------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 40), min_size=1, max_size=700), st.integers(40, 400))
@settings(max_examples=50)
def test_windows_cover_every_word(counts: list[int], room: int) -> None:
    found = list(windows(np.array(counts), room))
    assert found[0][0] == 0
    assert found[-1][1] == len(counts)
    assert all(first < stop <= first + WINDOW and sum(counts[first:stop]) <= room for first, stop in found)
    for (before, stop), (first, _) in zip(found, found[1:], strict=False):  # noqa: RUF007
        assert before < first <= stop
        assert stop - first == min(OVERLAP, (stop - before) // 2)


def test_a_long_text_is_read_in_windows(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path, "bert", max_position_embeddings=512)
    words = [TEXT[(i * i + 3 * i) % len(TEXT)] for i in range(300)]
    found, there = HFText(str(folder)).states(words)
    assert there.all()
    spans = [(0, 128), (112, 240), (224, 300)]
    edges = [0, 120, 232, 300]
    for (first, stop), low, high in zip(spans, edges, edges[1:], strict=False):
        expected = by_transformers(folder, words[first:stop])
        np.testing.assert_allclose(found[low:high], expected[low - first : high - first], atol=1e-5)


def test_windows_fit_into_the_encoder(folders: dict[str, Path]) -> None:
    found, there = HFText(str(folders["bert"])).states(TEXT * 12)  # it reads 64 pieces
    assert there.all()
    assert np.isfinite(found).all()
    assert (np.abs(found).sum(1) > 0).all()
    with pytest.raises(MediaError, match=r"is a word of 90 pieces.* reads 62 at once"):
        HFText(str(folders["bert"])).states(["so", "x" * 90])


# --- folders ---------------------------------------------------------------------------------------------------------


def test_what_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'text: hf_text': .* does not exist"):
        HFText(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="'text: hf_text': 'layer' is 3, but the encoder has layers 0 to 2"):
        HFText(str(folders["bert"]), layer=3)
    with pytest.raises(Missing, match="words"):
        HFText(str(folders["bert"]))(Clip())


def test_the_fingerprint_tells_weights_and_layer(folders: dict[str, Path], tmp_path: Path) -> None:
    one, other = HFText(str(folders["bert"])), HFText(str(make_encoder(tmp_path, "bert", seed=1)))
    assert one.fingerprint() != other.fingerprint()
    assert one.fingerprint() != HFText(str(folders["bert"]), layer=0).fingerprint()
    assert one.fingerprint() == HFText(str(folders["bert"])).fingerprint()
    assert len(one.columns) == WIDTH


def test_minilm() -> None:
    folder = weights("minilm")
    extractor = MiniLM(str(folder))
    assert len(extractor.columns) == 384
    found, _ = extractor.states(TEXT)
    np.testing.assert_allclose(found, by_transformers(folder, TEXT), atol=1e-4)

"""Missing modalities on purpose: rates, subsets and masks, counted from the utterances alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from gmsa.config import MODALITIES, Config, from_dict, load_config
from gmsa.config.groups.missing import Missing, MissingConfig, joined, parse_missing, subsets
from gmsa.data import Utterance, apply_missing, describe_missing
from gmsa.errors import ConfigError
from gmsa.reports.summary import missing_lines
from gmsa.runs import report as results
from gmsa.runs.prepare import hide, leave_out_unseen, prepare
from gmsa.runs.train import train
from gmsa.training.masking import mask_steps

N = 2000
SEEDS = (0, 1, 2)
TWO_THIRDS = 2 / 3
ALL = [
    *(Missing("eta", rate) for rate in (0.0, 0.3, 0.5, TWO_THIRDS)),
    *(Missing("sample", rate) for rate in (0.5, 1.0)),
    *(Missing("fixed", left=left) for left in subsets(MODALITIES)),
    *(Missing("frame", rate) for rate in (0.0, 0.3, 1.0)),
    Missing("frame_uniform"),
]
LEFT = "letters of text, audio, vision such as ta, or names joined by +"
SHORT = pytest.mark.parametrize("missing", ALL, ids=str)


def corpus(lengths: Sequence[int] = (3, 4, 2), count: int = N, modalities: Sequence[str] = MODALITIES):
    """Utterances whose steps are numbered in their first feature, from 0."""
    steps = {
        m: torch.arange(float(length))[:, None].repeat(1, 2) for m, length in zip(modalities, lengths, strict=True)
    }
    return [Utterance(f"video{i // 10}$_${i % 10}", steps, 0.5) for i in range(count)]


COMPLETE = corpus()
LONG = corpus((40, 40, 40), 200)


def partly(count: int = 160) -> list[Utterance]:
    """Utterances with every combination of modalities that a file may hold, the empty one among them."""
    found = []
    for i, u in enumerate(COMPLETE[:count]):
        features = {m: x if i >> bit & 1 else x[:0] for bit, (m, x) in enumerate(u.features.items())}
        found.append(replace(u, features=features))
    return found


def there(utterances: Sequence[Utterance], modalities: Sequence[str] = MODALITIES) -> np.ndarray:
    """Which modalities the utterances have ``[N, M]``."""
    return np.array([[len(u.features[m]) > 0 for m in modalities] for u in utterances])


def steps(utterance: Utterance) -> dict[str, list[int]]:
    """The numbers of the steps that are left."""
    return {m: x[:, 0].int().tolist() for m, x in utterance.features.items()}


# --- eta -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
def test_eta_is_the_share_of_missing_pairs(rate: float) -> None:
    present = [there(apply_missing(COMPLETE, Missing("eta", rate), MODALITIES, seed)) for seed in range(4)]
    shares = [1 - p.mean() for p in present]
    assert shares[0] == pytest.approx(rate, abs=0.01)  # seed 0 is the default
    assert np.mean(shares) == pytest.approx(rate, abs=0.01)
    # A single mask may be further off: two modalities go by chance, which gives the share this deviation.
    chance = (3 * (1 - rate) - 1) / 2
    deviation = np.sqrt(2 * chance * (1 - chance) / N) / 3
    assert shares == pytest.approx([rate] * 4, abs=4 * deviation)
    assert all(p.any(1).all() for p in present)
    # No modality is favoured.
    assert 1 - np.mean(present, (0, 1)) == pytest.approx(np.full(3, rate), abs=4 * np.sqrt(rate * (1 - rate) / N / 4))


def test_eta_over_many_masks_is_exact_in_mean_and_deviation() -> None:
    some, count, chance = COMPLETE[:200], 100, 0.4
    shares = [1 - there(apply_missing(some, Missing("eta", 0.4), MODALITIES, seed)).mean() for seed in range(count)]
    deviation = np.sqrt(2 * chance * (1 - chance) / len(some)) / 3
    assert np.mean(shares) == pytest.approx(0.4, abs=4 * deviation / np.sqrt(count))
    assert np.std(shares, ddof=1) == pytest.approx(deviation, rel=0.25)


def test_eta_keeps_one_and_each_other_by_gcnets_chance() -> None:
    # P(k kept) = the one, and k - 1 of two others with chance (3 (1 - eta) - 1) / 2 each.
    eta = 0.4
    kept = np.bincount(there(apply_missing(COMPLETE, Missing("eta", eta), MODALITIES, 0)).sum(1), minlength=4)
    chances = stats.binom.pmf(np.arange(3), 2, (3 * (1 - eta) - 1) / 2)
    assert kept[0] == 0
    assert stats.chisquare(kept[1:], N * chances).pvalue > 0.01


@pytest.mark.parametrize("seed", SEEDS)
def test_eta_of_two_thirds_leaves_exactly_one_drawn_uniformly(seed: int) -> None:
    present = there(apply_missing(COMPLETE, parse_missing("eta:0.67", "key"), MODALITIES, seed))
    assert (present.sum(1) == 1).all()
    assert stats.chisquare(present.sum(0)).pvalue > 0.01


@pytest.mark.parametrize("seed", SEEDS)
def test_half_of_the_utterances_have_text_at_eta_one_half(seed: int) -> None:
    hidden = apply_missing(COMPLETE, Missing("eta", 0.5), MODALITIES, seed)
    share = np.mean([len(u.features["text"]) > 0 for u in hidden])
    assert share == pytest.approx(0.5, abs=0.03)
    assert describe_missing(COMPLETE, hidden, Missing("eta", 0.5), MODALITIES)["with_text"] == pytest.approx(share)


# --- sample ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_sample_takes_proper_subsets_uniformly(seed: int) -> None:
    present = there(apply_missing(COMPLETE, Missing("sample", 0.5), MODALITIES, seed))
    assert 1 - present.mean() == pytest.approx(0.25, abs=0.02)
    incomplete = present[~present.all(1)]
    assert len(incomplete) / N == pytest.approx(0.5, abs=0.04)
    subsets = Counter(map(tuple, incomplete.tolist()))
    assert len(subsets) == 6
    assert (False, False, False) not in subsets
    assert stats.chisquare(list(subsets.values())).pvalue > 0.01


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_sample_of_none_and_of_all(rate: float) -> None:
    present = there(apply_missing(COMPLETE, Missing("sample", rate), MODALITIES, 0))
    assert (present.all(1) == (rate == 0)).all()


# --- fixed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "expected"),
    [("t", (1, 0, 0)), ("a", (0, 1, 0)), ("v", (0, 0, 1)), ("ta", (1, 1, 0)), ("tv", (1, 0, 1)), ("av", (0, 1, 1))],
)
def test_fixed_leaves_the_same_to_all(left: str, expected: tuple[int, ...]) -> None:
    missing = parse_missing(f"fixed:{left}", "key")
    assert missing.left in subsets(MODALITIES)
    assert joined(missing.left) == left
    hidden = apply_missing(COMPLETE[:50], missing, MODALITIES, 0)
    assert (there(hidden) == np.array(expected, bool)).all()
    some = apply_missing(partly(), missing, MODALITIES, 0)
    assert (there(some) == there(partly()) & np.array(expected, bool)).all()  # may leave nothing


# --- frames ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_frame_loses_steps_one_by_one(rate: float) -> None:
    missing = Missing("frame", rate)
    hidden = apply_missing(LONG, missing, MODALITIES, 0)
    total = 3 * 40 * len(LONG)
    kept = sum(u.steps for u in hidden)
    assert 1 - kept / total == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / total))
    assert describe_missing(LONG, hidden, missing, MODALITIES)["realized"] == pytest.approx(1 - kept / total)
    # Steps go by themselves: how many a modality keeps is binomial, and no place or modality is favoured.
    counts = np.array([[u.lengths[m] for m in MODALITIES] for u in hidden])
    assert counts.var() == pytest.approx(40 * rate * (1 - rate), rel=0.15)
    places = np.array([[np.isin(range(40), steps(u)[m]) for m in MODALITIES] for u in hidden])
    spread = 5 * np.sqrt(rate * (1 - rate) / len(LONG))
    assert places.mean(0) == pytest.approx(np.full((3, 40), 1 - rate), abs=spread)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(places[:, one].ravel(), places[:, other].ravel())[0, 1]) < 0.04


@pytest.mark.parametrize("missing", [Missing("frame", 0.5), Missing("frame_uniform")], ids=str)
def test_frames_that_stay_are_in_order_and_untouched(missing: Missing) -> None:
    for before, after in zip(LONG, apply_missing(LONG, missing, MODALITIES, 0), strict=True):
        for modality, numbers in steps(after).items():
            assert numbers == sorted(set(numbers))
            torch.testing.assert_close(after.features[modality], before.features[modality][numbers], rtol=0, atol=0)


def test_frame_of_all_leaves_nothing() -> None:
    assert not there(apply_missing(COMPLETE[:20], Missing("frame", 1.0), MODALITIES, 0)).any()


def test_frame_uniform_draws_a_rate_for_each_utterance_and_modality() -> None:
    long = corpus((300, 300, 300), 200)
    hidden = apply_missing(long, Missing("frame_uniform"), MODALITIES, 0)
    lost = 1 - np.array([[u.lengths[m] for m in MODALITIES] for u in hidden]) / 300
    for column in lost.T:
        assert stats.kstest(column, "uniform").pvalue > 0.01
    correlation = np.corrcoef(lost.T)[np.triu_indices(3, 1)]
    assert np.abs(correlation).max() < 4 / np.sqrt(200)
    other = apply_missing(long[:50], Missing("frame_uniform"), MODALITIES, 0, "epoch", 2)
    assert [steps(u) for u in other] != [steps(u) for u in hidden[:50]]


# --- what holds of every protocol ------------------------------------------------------------------------------------


@SHORT
def test_a_mask_is_a_function_of_seed_and_id(missing: Missing) -> None:
    utterances = partly(80)

    def masks(chosen: Sequence[Utterance], *seed: int | str) -> dict[str, dict[str, list[int]]]:
        return {u.id: steps(u) for u in apply_missing(chosen, missing, MODALITIES, *seed)}

    whole = masks(utterances, 3)
    assert masks(utterances[::-1], 3) == whole
    assert masks(utterances[50:60], 3) == {u.id: whole[u.id] for u in utterances[50:60]}
    assert {k: v for u in utterances[:16] for k, v in masks([u], 3).items()} == {
        u.id: whole[u.id] for u in utterances[:16]
    }
    drawn = missing.protocol == "frame_uniform" or 0 < missing.rate < 1 or missing == Missing("sample", 1.0)
    assert (masks(utterances, 4) != whole) == drawn
    renamed = [replace(u, id=f"other-{u.id}") for u in utterances]
    assert (list(masks(renamed, 3).values()) != list(whole.values())) == drawn


@pytest.mark.parametrize(
    ("protocol", "rates"),
    [("eta", (0.0, 0.1, 0.4, 0.66)), ("sample", (0.0, 0.3, 1.0)), ("frame", (0.0, 0.2, 0.9, 1.0))],
)
def test_what_a_lower_rate_hides_a_higher_one_hides_too(protocol: str, rates: tuple[float, ...]) -> None:
    utterances = partly()
    nested = [apply_missing(utterances, Missing(protocol, rate), MODALITIES, 0) for rate in rates]
    for less, more in pairwise(nested):
        for a, b in zip(less, more, strict=True):
            assert all(set(steps(b)[m]) <= set(steps(a)[m]) for m in MODALITIES)
        assert sum(u.steps for u in more) < sum(u.steps for u in less)


@SHORT
def test_what_the_file_lacks_stays_missing_and_counts(missing: Missing) -> None:
    before = partly()
    after = apply_missing(before, missing, MODALITIES, 0)
    assert not (there(after) & ~there(before)).any()
    record = describe_missing(before, after, missing, MODALITIES)
    assert record["lacking"] == pytest.approx(dict(zip(MODALITIES, 1 - there(after).mean(0), strict=True)))
    assert record["with_text"] == pytest.approx(there(after)[:, 0].mean())
    assert record["protocol"] == missing.protocol
    assert record.get("asked") == (missing.rate if missing.protocol in ("eta", "sample", "frame") else None)
    assert record.get("left") == (joined(missing.left) or None)
    if missing.protocol.startswith("frame"):
        assert record["realized"] == pytest.approx(1 - sum(u.steps for u in after) / sum(u.steps for u in before))
    else:
        assert record["realized"] == pytest.approx(1 - there(after).mean())
    if missing.protocol in ("eta", "sample"):  # never all of an utterance that has something
        assert (there(after).any(1) == there(before).any(1)).all()


@SHORT
def test_withheld_is_what_went_and_nothing_else(missing: Missing) -> None:
    earlier = {"text": torch.ones(1, 2)}  # what was withheld before
    for before in partly(48):
        (after,) = apply_missing([before], missing, MODALITIES, 0)
        gone = {m for m in MODALITIES if len(before.features[m]) and not len(after.features[m])}
        assert set(after.withheld) == gone
        assert all(after.withheld[m] is before.features[m] for m in gone)
        assert (after.id, after.label, set(after.features)) == (before.id, before.label, set(MODALITIES))
        assert all(x.shape[1] == 2 for x in after.features.values())
    empty = replace(COMPLETE[0], features={**COMPLETE[0].features, "text": torch.zeros(0, 2)}, withheld=earlier)
    (again,) = apply_missing([empty], missing, MODALITIES, 0)
    assert again.withheld["text"] is earlier["text"]


@SHORT
def test_nothing_is_changed_in_place(missing: Missing) -> None:
    utterances = corpus(count=20)
    apply_missing(utterances, missing, MODALITIES, 0)
    assert all(steps(u) == {"text": [0, 1, 2], "audio": [0, 1, 2, 3], "vision": [0, 1]} for u in utterances)
    assert not any(u.withheld for u in utterances)
    assert apply_missing([], missing, MODALITIES, 0) == []


def test_none_is_as_in_the_file() -> None:
    assert apply_missing(COMPLETE, Missing("none"), MODALITIES, 0) == COMPLETE
    record = describe_missing(partly(), partly(), Missing("none"), MODALITIES)
    assert record == {
        "protocol": "none", "realized": 0.5, "with_text": 0.5, "lacking": dict.fromkeys(MODALITIES, 0.5),
    }  # fmt: skip


# --- two modalities --------------------------------------------------------------------------------------------------

PAIR = ("text", "audio")
PAIRS = corpus((3, 4), modalities=PAIR)


@pytest.mark.parametrize(
    ("missing", "share"),
    [(Missing("eta", 0.3), 0.3), (Missing("eta", 0.5), 0.5), (Missing("sample", 0.6), 0.3)],
    ids=str,
)
def test_two_modalities(missing: Missing, share: float) -> None:
    present = there(apply_missing(PAIRS, missing, PAIR, 0), PAIR)
    assert 1 - present.mean() == pytest.approx(share, abs=0.02)
    assert present.any(1).all()
    if share == 0.5:
        assert (present.sum(1) == 1).all()


def test_a_rate_that_the_modalities_cannot_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^eta:0.6 cannot be reached with 2 modalities, .* the most is eta:0.5$"):
        apply_missing(PAIRS, Missing("eta", 0.6), PAIR, 0)
    with pytest.raises(ConfigError, match="'sample' needs two modalities or more"):
        apply_missing(corpus((3,), 5, ("text",)), Missing("sample", 0.5), ("text",), 0)


# --- settings --------------------------------------------------------------------------------------------------------


@SHORT
def test_what_is_written_is_read_again(missing: Missing) -> None:
    again = parse_missing(str(missing), "key")
    assert (again.protocol, again.left) == (missing.protocol, missing.left)
    assert again.rate == pytest.approx(missing.rate, abs=1e-6)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("etta:1", "'data.missing.test' must be one of none, eta, sample, frame, fixed, frame_uniform (got 'etta:1')"
                   " (did you mean 'eta'?)"),
        ("", "'data.missing.test' must be one of none, eta, sample, frame, fixed, frame_uniform (got '')"),
        ("eta", "'data.missing.test': eta takes a rate from 0 to 0.875, as eta:0.3 (got 'eta')"),
        ("eta:nan", "'data.missing.test': eta takes a rate from 0 to 0.875, as eta:0.3 (got 'eta:nan')"),
        ("sample:-0.1", "'data.missing.test': sample takes a rate from 0 to 1, as sample:0.3 (got 'sample:-0.1')"),
        ("frame:1.1", "'data.missing.test': frame takes a rate from 0 to 1, as frame:0.3 (got 'frame:1.1')"),
        ("frame:half", "'data.missing.test': frame takes a rate from 0 to 1, as frame:0.3 (got 'frame:half')"),
        ("frame_uniform:0.5", "'data.missing.test': frame_uniform takes no rate (got 'frame_uniform:0.5')"),
        ("none:0", "'data.missing.test': none takes no rate (got 'none:0')"),
        ("fixed", f"'data.missing.test': fixed takes what is left, {LEFT} (got 'fixed')"),
        ("fixed:tt", f"'data.missing.test': fixed takes what is left, {LEFT} (got 'fixed:tt')"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_by_its_key(spec: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        MissingConfig(test=spec)
    assert str(error.value) == said


def test_the_order_of_letters_and_the_spaces_do_not_matter() -> None:
    assert parse_missing("fixed:at", "key") == Missing("fixed", left=("text", "audio"))
    assert parse_missing(" eta : 0.5 ", "key") == Missing("eta", 0.5)
    assert parse_missing("eta:0.67", "key").rate == 0.67  # meant as two thirds


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("eta:0.5", ("eta:0.5", "eta:0.5", "eta:0.5")),
        ({"train": "eta:0.5", "test": "fixed:t"}, ("eta:0.5", "none", "fixed:t")),
        (None, ("none", "none", "none")),
    ],
)
@pytest.mark.parametrize("overrides", [[], ["data.missing.test=frame:0.1"], ["data.missing=sample:0.2"]])
def test_settings_for_all_splits_or_for_some(tmp_path: Path, missing: Any, expected, overrides: list[str]) -> None:
    (tmp_path / "a.yaml").write_text(f"data: {{missing: {missing or '{}'}}}".replace("'", '"'))
    found = load_config(tmp_path / "a.yaml", overrides, environ={}).data.missing
    if overrides == ["data.missing.test=frame:0.1"]:
        expected = (*expected[:2], "frame:0.1")
    if overrides == ["data.missing=sample:0.2"]:
        expected = ("sample:0.2",) * 3
    assert (found.train, found.valid, found.test) == expected
    assert [str(found.of(split)) for split in ("train", "valid", "test")] == list(expected)


# --- a run -----------------------------------------------------------------------------------------------------------


def tiny(write_mmsa, seed: int, **data: Any) -> Config:
    return from_dict(
        {
            "data": {"path": str(write_mmsa()), "name": "tiny", **data},
            "model": {"channels": 8, "heads": 2},
            "optim": {"epochs": 1, "min_steps": 0},
            "protocol": {"name": "supervised"},
            "run": {"seeds": [seed], "device": "cpu"},
        }
    )


@pytest.mark.parametrize(
    ("spec", "lengths"),
    [
        ("eta:0.5", "040 400 040 400 400 040 400 440"),
        ("sample:0.5", "444 040 444 400 444 044 444 400"),
        ("fixed:tv", "404 404 404 404 404 404 404 404"),
        ("frame:0.5", "342 133 430 124 313 012 121 101"),
        ("frame_uniform", "012 022 404 312 330 230 441 412"),
    ],
)
def test_masks_are_the_same_in_every_process_and_version(spec: str, lengths: str) -> None:
    """Written down, as draws that change with the process or a release would make results incomparable."""
    utterances = [Utterance(f"v{i // 3}$_${i % 3}", {m: torch.ones(4, 1) for m in MODALITIES}) for i in range(8)]
    hidden = apply_missing(utterances, parse_missing(spec, "key"), MODALITIES, 7)
    assert " ".join("".join(str(u.lengths[m]) for m in MODALITIES) for u in hidden) == lengths


def test_masks_are_the_same_in_every_run(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    found, summaries = [], []
    for seed in (1, 2):
        config = tiny(write_mmsa, seed, missing={"train": "eta:0.5", "test": "frame:0.5"})
        prepared = prepare(config)
        found.append({s: [u.lengths for u in utterances] for s, utterances in prepared.splits.items()})
        summaries.append(train(config, "tiny", tmp_path / str(seed)))
    assert found[0] == found[1]
    assert summaries[0]["missing"] == summaries[1]["missing"]
    assert summaries[0]["test"] != summaries[1]["test"]
    other = prepare(tiny(write_mmsa, 1, missing={"train": "eta:0.5", "test": "frame:0.5", "seed": 1}))
    assert [u.lengths for u in other.splits["test"]] != found[0]["test"]


def test_a_run_records_what_each_split_misses(write_mmsa) -> None:
    prepared = prepare(tiny(write_mmsa, 1, missing={"train": "eta:0.5", "valid": "fixed:ta"}))
    for split, expected in (("train", "eta"), ("valid", "fixed"), ("test", "none")):
        record = prepared.missing[split]
        assert record["protocol"] == expected
        assert record["realized"] == pytest.approx(1 - there(prepared.splits[split]).mean())
    assert prepared.missing["test"]["realized"] == pytest.approx(4 / 36)
    assert prepared.missing["valid"]["lacking"] == {"text": 0, "audio": 0, "vision": 1}


def test_a_run_says_at_once_what_is_missing(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    config = tiny(write_mmsa, 1, missing={"train": "eta:0.5", "valid": "fixed:ta"})
    summary = train(config, "tiny", tmp_path / "run")
    printed = capsys.readouterr().out.split("epoch 1/1")[0]
    realized = 100 * summary["missing"]["train"]["realized"]
    assert f"\nMissing modalities, train: eta:0.5; {realized:.1f} % of the modalities missing; text in " in printed
    assert "\nMissing modalities, valid: fixed:ta; 33.3 % of the modalities missing; text in 100.0 %" in printed
    assert "\nMissing modalities, test: as in the data; 11.1 % of" in printed
    train(tiny(write_mmsa, 1), "tiny", tmp_path / "whole")
    assert "Missing modalities" not in capsys.readouterr().out.split("epoch 1/1")[0]


def test_a_rate_that_cannot_be_reached_is_named_with_its_key(write_mmsa) -> None:
    with pytest.raises(ConfigError, match=r"'data.missing.valid': eta takes a rate from 0 to 0.5 with 2 modalities"):
        tiny(write_mmsa, 1, modalities=["text", "audio"], missing={"train": "none", "valid": "eta:0.6"})


def test_training_frames_are_whole_until_an_epoch_draws(write_mmsa) -> None:
    whole, masked = (prepare(tiny(write_mmsa, 1, missing=m)) for m in ("none", "frame_uniform"))
    assert [u.lengths for u in masked.splits["train"]] == [u.lengths for u in whole.splits["train"]]
    assert [u.lengths for u in masked.splits["test"]] != [u.lengths for u in whole.splits["test"]]


def test_a_modality_hidden_from_all_of_training_is_left_out(write_mmsa) -> None:
    prepared = prepare(tiny(write_mmsa, 1, missing="fixed:ta"))
    assert list(prepared.unseen) == ["vision"]
    assert list(prepared.corpus.dims) == ["text", "audio"]
    assert all(list(u.features) == ["text", "audio"] for u in prepared.splits["test"])
    assert prepared.missing["train"]["lacking"]["vision"] == 1  # but counts


def test_the_pool_is_masked_as_training_is(write_mmsa) -> None:
    from gmsa.data import Corpus

    whole = Corpus(
        {"train": COMPLETE[:30], "valid": COMPLETE[30:40], "test": COMPLETE[40:50]}, dict.fromkeys(MODALITIES, 2)
    )
    whole = replace(whole, pool=COMPLETE[50:80])
    hidden = hide(whole, MissingConfig(train="fixed:t"))
    assert (there([*hidden.splits["train"], *hidden.pool]) == [True, False, False]).all()
    assert there([*hidden.splits["valid"], *hidden.splits["test"]]).all()
    assert leave_out_unseen(hidden)[1] == ["audio", "vision"]


# --- whole dialogues -------------------------------------------------------------------------------------------------

WHOLE = [m._replace(unit="dialogue") for m in ALL]


@pytest.mark.parametrize("missing", WHOLE, ids=str)
def test_all_utterances_of_a_dialogue_have_the_same_mask(missing: Missing) -> None:
    given = corpus((6, 5, 4), 200)
    masked = apply_missing(given, missing, MODALITIES, 3)
    left = {u.video: steps(u) for u in masked}
    assert len(left) == 20
    assert all(steps(u) == left[u.video] for u in masked)
    # A function of seed and dialogue alone: not of the other utterances, their order or their ids.
    some = [replace(u, id=f"{u.video}$_$x{i}") for i, u in enumerate(reversed(given)) if i % 3]
    assert all(steps(u) == left[u.video] for u in apply_missing(some, missing, MODALITIES, 3))
    if missing.rate and missing.rate < 1:
        assert len({str(x) for x in left.values()}) > 1
        other = {u.video: steps(u) for u in apply_missing(given, missing, MODALITIES, 4)}
        assert other != left


@pytest.mark.parametrize("missing", [m for m in WHOLE if m.protocol in ("eta", "sample")], ids=str)
def test_what_an_utterance_lacks_does_not_change_the_mask_of_its_dialogue(missing: Missing) -> None:
    given = [replace(u, id=f"d{i // 8}$_${i}") for i, u in enumerate(partly(800))]
    whole = {
        u.video: u
        for u in apply_missing([replace(u, features=COMPLETE[0].features) for u in given], missing, MODALITIES, 0)
    }
    for before, after in zip(given, apply_missing(given, missing, MODALITIES, 0), strict=True):
        asked = {m for m, there in whole[before.video].present.items() if there}
        own = {m for m, there in before.present.items() if there}
        kept = {m for m, there in after.present.items() if there}
        if own & asked:
            assert kept == own & asked
        else:
            assert len(kept) == min(1, len(own))


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_the_rate_is_kept_over_dialogues_and_recorded(rate: float) -> None:
    given = [replace(u, of_video=f"d{i // 4}") for i, u in enumerate(corpus((1, 1, 1), 12000))]
    missing = Missing("eta", rate, unit="dialogue")
    record = describe_missing(given, apply_missing(given, missing, MODALITIES, 0), missing, MODALITIES)
    assert record["realized"] == pytest.approx(rate, abs=0.02)
    assert (record["unit"], record["asked"]) == ("dialogue", rate)
    assert "unit" not in describe_missing(given, given, Missing("eta", rate), MODALITIES)


def test_an_utterance_that_is_alone_has_the_mask_of_both_units() -> None:
    alone = [replace(u, id=f"u{i}") for i, u in enumerate(COMPLETE[:200])]
    for missing in (Missing("eta", 0.5), Missing("sample", 0.7), Missing("frame", 0.4)):
        ours, theirs = (apply_missing(alone, m, MODALITIES, 1) for m in (missing, missing._replace(unit="dialogue")))
        assert [steps(u) for u in ours] == [steps(u) for u in theirs]


def test_the_unit_of_a_config_goes_to_every_split() -> None:
    config = from_dict({"data": {"missing": {"train": "frame_uniform", "test": "eta:0.5", "unit": "dialogue"}}})
    missing = config.data.missing
    assert {missing.of(split).unit for split in ("train", "valid", "test")} == {"dialogue"}
    assert {MissingConfig().of(split).unit for split in ("train", "valid", "test")} == {"utterance"}
    assert from_dict({"data": {"missing": "eta:0.5"}}).data.missing.unit == "utterance"
    with pytest.raises(ConfigError, match=r"data\.missing\.unit"):
        from_dict({"data": {"missing": {"unit": "video"}}})
    clips = [replace(u, of_video="d") for u in LONG[:3]]
    drawn = [mask_steps(clips, config, 1, epoch) for epoch in (0, 1)]
    assert all(steps(u) == steps(masked[0]) for masked in drawn for u in masked)
    assert steps(drawn[0][0]) != steps(drawn[1][0])


def test_a_run_masks_and_withholds_whole_dialogues() -> None:
    data = {"path": "synthetic_two_back", "label_ratio": 0.5, "label_unit": "dialogue"}
    data["missing"] = {"train": "eta:0.5", "test": "eta:0.5", "unit": "dialogue"}
    prepared = prepare(from_dict({"data": data}))
    for utterances in (prepared.splits["train"], prepared.splits["test"]):
        masks: dict[str, set[str]] = {}
        for u in utterances:
            masks.setdefault(u.video, set()).add(str(u.present))
        assert all(len(found) == 1 for found in masks.values())
        assert len(set.union(*masks.values())) > 3
    assert prepared.missing["test"]["unit"] == "dialogue"
    assert "unit" not in prepared.missing["valid"]
    found = prepared.training_data(prepared.config, 1)
    labeled, pool = ({e.utterance.video for e in found.labeled}, {u.video for u in found.pool})
    assert abs(len(labeled) - 40) <= 2
    assert not labeled & pool
    line = missing_lines(prepared.missing)["Missing modalities, test"]
    assert line.startswith("eta:0.5, one mask per dialogue; ")

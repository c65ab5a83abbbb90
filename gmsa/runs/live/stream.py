"""Answers to the utterances of growing dialogues, one by one."""

# K classes
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from gmsa.data import Target, Utterance
from gmsa.data.notes import collected, note
from gmsa.errors import DataError, RunError, short, shown
from gmsa.graph import GraphBatch
from gmsa.models import Output, reach
from gmsa.runs.folder import Run
from gmsa.runs.inputs import INPUT, check_utterances, with_texts
from gmsa.runs.predict import Answers, answers_of
from gmsa.runs.scoring.windows import predict_whole
from gmsa.system.device import set_up
from gmsa.system.script import torch_settings_kept
from gmsa.training.scoring import Predictions, why_not_finite


class _Dialogue(NamedTuple):
    said: Sequence[Utterance] = ()
    """The last utterances, as the models take them: as many as the next answer can depend on."""
    length: int = 0
    """Utterances so far, those that are forgotten too."""


class AnswerStream:
    """Answers the utterances of growing dialogues one by one, each from what was said before: :meth:`Run.stream`.

    An answer is, bit for bit, what the run's models predict for the last utterance of the window: it and as many before
    it as can change its answer, which is all that a stream keeps of a dialogue. Several dialogues may be under way.

    Args:
        run: whose graphs are causal (``graph.future: 0``), or of single utterances.
        seeds, device: as for :meth:`Run.stream`.

    Raises:
        RunError: an answer depends on what is said later; or as for :meth:`Run.predict`.
    """

    def __init__(self, run: Run, seeds: int | Sequence[int] | None = None, device: str | None = None) -> None:
        self.before, after = reach(run.config)
        """How many utterances before one can change its answer."""
        if after:
            raise RunError(
                f"'{short(run.folder)}': its answers depend on utterances that are said later ('graph.future' is "
                f"{run.config.graph.reach[1]}); train with --set graph.future=0 to answer a growing dialogue"
            )
        self._run, self._named_device = run, device
        with torch_settings_kept():
            self._device = set_up(run.config.run, device)
            self._models = [run.load_model(seed, self._device) for seed in run.chosen_seeds(seeds)]
        self._dialogues: dict[str, _Dialogue] = {}
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"AnswerStream({str(self._run.folder)!r}: {len(self._dialogues)} dialogues)"

    @property
    def dialogues(self) -> tuple[str, ...]:
        """The dialogues that are under way."""
        return tuple(self._dialogues)

    def add(self, utterance: Utterance, split: str = INPUT) -> Answers:
        """Answers the next utterance of its dialogue, ``utterance.video``, from those that were added before.

        Their order is the one in which they are added, whatever their ids say. An utterance that is refused leaves the
        dialogue as it was.

        Args:
            utterance: with raw features, as :meth:`Run.predict` takes them.
            split: split that the answer names.

        Returns:
            The answers to this utterance alone.

        Raises:
            DataError: the utterance cannot be predicted, or has the id of one before.
            RunError: its prediction is not finite.
        """
        with collected() as notes:
            answers, dialogue = self._answer(utterance, split)
        for text in notes:  # each once, whatever utterance it is about
            kind = re.sub(r"\d", "", text.replace(shown(utterance.id), ""))
            if kind not in self._told:
                self._told.add(kind)
                note(text)
        if self._run.config.graph.has_dialogues:
            self._dialogues[utterance.video] = dialogue
        return answers

    def end(self, dialogue: str) -> None:
        """Forgets a dialogue; the next utterance with its name begins another."""
        self._dialogues.pop(dialogue, None)

    def refused(self, identity: str, reason: str, split: str = INPUT, label: float | None = None) -> Answers:
        """The row of an utterance that cannot be predicted: NaN, and the reason."""
        target = Target.of(self._run.config.target)
        nothing = None if target.is_classes else np.full(1, np.nan, dtype=np.float32)
        chances = np.full((1, target.num_classes), np.nan, dtype=np.float32)
        labels = np.array([np.nan if label is None else label], dtype=np.float32)
        return Answers([identity], nothing, chances, None, target, [split], labels, {identity: reason})

    def _answer(self, utterance: Utterance, split: str) -> tuple[Answers, _Dialogue]:
        """The answers, and its dialogue as it is then."""
        config, dims, positions = self._run.config, self._run.dims, self._run.config.model.positions
        said, count = self._dialogues.get(getattr(utterance, "video", ""), _Dialogue())
        if config.graph.scope == "dialogue" and count == positions:
            note(
                f"dialogue {shown(utterance.video)} has more than {positions} utterances, which 'model.positions' "
                "allows: it begins anew every so many"
            )
            said, count = (), 0
        pairs = with_texts([(split, utterance)], dims, config)
        inputs = check_utterances(pairs, dims, config, {u.video for u in said if u.steps})
        inputs.check_all()
        if utterance.id in {u.id for u in said}:
            raise DataError(f"utterance {shown(utterance.id)}: is given twice; ids must be unique")
        (own,) = inputs.utterances
        own = replace(own, features={m: x.clone() for m, x in own.features.items()})  # callers may reuse their tensors
        window = [*said, replace(self._run.normalizer.apply(own), place=count)]
        with torch_settings_kept():
            set_up(config.run, self._named_device)
            try:
                found = [self._predict(model, window, count - len(said)) for model in self._models]
            except RunError:  # those before it were finite
                raise RunError(why_not_finite(window[-1])) from None
        answers = answers_of(inputs, found, Target.of(config.target))
        return answers, _Dialogue(window[max(0, len(window) - self.before) :], count + 1)

    def _predict(self, model: nn.Module, window: Sequence[Utterance], first: int) -> Predictions:
        """The prediction for the last utterance of a window."""
        if first and self._run.config.graph.scope == "dialogue":
            model = _Later(model, first)
        whole = predict_whole(model, window, self._run.config, self._device)
        value, gate = (None if x is None else x[-1:] for x in (whole.value, whole.gate))
        last: dict[str, Any] = {"value": value, "probabilities": whole.probabilities[-1:], "gate": gate}
        return replace(whole, ids=whole.ids[-1:], labels=whole.labels[-1:], **last)


class _Later(nn.Module):
    """A model of graphs of dialogues, whose first node's position is ``first``."""

    def __init__(self, model: nn.Module, first: int) -> None:
        super().__init__()
        self.model, self.first = model, first
        self.train(model.training)

    def forward(self, batch: GraphBatch) -> Output:
        output: Output = self.model(replace(batch, position=batch.position + self.first))
        return output

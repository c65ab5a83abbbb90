"""Compares a program with the run that it is of, on batches of made-up utterances."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gmsa.data import Target, Utterance
from gmsa.data.notes import collected
from gmsa.errors import RunError
from gmsa.models import graph_spec
from gmsa.rng import generator
from gmsa.runs.folder import Run

SIZES = (1, 2, 3, 8, 33, 64)
"""Utterances of the batches on which a program is compared."""
TOLERANCE = 1e-5
"""Largest difference between the program and the run: of probabilities, and of intensities on the models' scale."""
_MOST_TOKENS = 12
_MISSING = 0.2

Program = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


def made_up(run: Run, count: int, number: int, missing: Collection[str] = ()) -> list[Utterance]:
    """Utterances whose features have the mean and the spread of the run's training data, in dialogues of 1, 2, 3, ...

    One in five modalities of an utterance is missing, but never all.

    Args:
        number: one makes other utterances than another.
        missing: modalities that all of them lack.
    """
    rng = generator(number, "export")
    spec, left = graph_spec(run.config), [m for m in run.dims if m not in missing]
    found = []
    for i in range(count):
        video = int((2 * i + 0.25) ** 0.5 + 0.5)
        gone = {m for m in left if rng.random() < _MISSING} - {left[int(rng.integers(len(left)))]} | {*missing}
        features = {}
        for modality, dim in run.dims.items():
            most = min(_MOST_TOKENS, spec.positions) * spec.strides[modality]
            steps = 0 if modality in gone else int(rng.integers(1, most + 1))
            x = torch.from_numpy(rng.standard_normal((steps, dim)))
            if modality in run.normalizer.means:
                x = x * run.normalizer.stds[modality] + run.normalizer.means[modality]
            features[modality] = x.float()
        found.append(Utterance(f"made-up {video}$_${i}", features, speaker=f"speaker {i % 3}"))
    return found


def compare(
    run: Run, seeds: Sequence[int], program: Program, inputs: Callable[[list[Utterance]], dict[str, Tensor]]
) -> float:
    """The largest difference between a program and the run's own predictions, on batches of 1 to 64 utterances.

    Besides batches of :data:`SIZES` there are those in which one modality, or all but one, are missing.

    Raises:
        RunError: it is more than :data:`TOLERANCE`, or the program fails.
    """
    names = [*run.dims]
    gone: list[tuple[str, ...]] = [()]
    if len(names) > 1:
        gone += [(m,) for m in names] + [tuple(n for n in names if n != m) for m in names]
    batches = [(size, ()) for size in SIZES] + [(size, missing) for missing in gone[1:] for size in (1, 5)]
    unit, worst = Target.of(run.config.target).scale[1], 0.0
    for number, (size, missing) in enumerate(batches):
        utterances = made_up(run, size, number, missing)
        with collected():  # what they lack is meant
            answers = run.predict(utterances, seeds, "cpu", strict=True)
            given = inputs(utterances)
        try:
            found = program(given)
        except Exception as error:  # an assertion of the program, or what its runtime raises
            lacking = f" without {', '.join(missing)}" if missing else ""
            raise RunError(
                f"the program fails on a batch of {size} made-up utterances{lacking} ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:160]}): not written; use gmsa predict"
            ) from error
        pairs = [("probabilities", answers.probabilities, 1.0), ("value", answers.values, unit)]
        for name, expected, scale in (*pairs, ("gate", answers.gate, 1.0)):
            if expected is not None:
                worst = max(worst, float(np.abs(found[name].numpy() - expected).max()) / scale)
        if not worst <= TOLERANCE:
            raise RunError(
                f"on a batch of {size} made-up utterances the program differs by {worst:.2g} from the run's own "
                f"predictions ({TOLERANCE:g} is allowed): not written; use gmsa predict"
            )
    return worst

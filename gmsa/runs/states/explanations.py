"""Explanations of a run's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gmsa.data import Target
from gmsa.errors import ConfigError, DataError, RunError, nearest, shown
from gmsa.explain import Explanations, explain
from gmsa.runs.folder import Run
from gmsa.runs.inputs import Input, Inputs
from gmsa.runs.states.common import read
from gmsa.system.device import set_up


def explanations(
    run: Run,
    x: Input,
    ids: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
    device: str | None = None,
    words: bool = True,
    limit: int | None = None,
) -> Explanations:
    """Explains predictions of a run; see :meth:`Run.explain`."""
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"expected a number of utterances to explain from 1 on (got {shown(limit)})")
    where = set_up(run.config.run, device)
    chosen = run.chosen_seeds(seeds)
    base = _base(run)
    models = [run.load_model(seed, where) for seed in chosen]  # all that can fail comes before the work
    inputs = read(run, x)
    rows = _rows(inputs, ids)[:limit]
    utterances = [run.normalizer.apply(u) for u in inputs.utterances]
    found = explain(models, utterances, run.config, device=where, chosen=rows, base=base, seeds=chosen, words=words)
    refused = {r.id: r.reason for r in inputs.refused}
    return replace(found, reasons=refused | dict(found.reasons))


def _rows(inputs: Inputs, ids: str | Sequence[str] | None) -> list[int]:
    """Places of the utterances to explain.

    Raises:
        DataError: there is no such utterance, or it cannot be predicted.
    """
    known = {u.id: i for i, u in enumerate(inputs.utterances)}
    if ids is None:
        return list(known.values())
    refused = {r.id: r.reason for r in inputs.refused}
    names = [ids] if isinstance(ids, str) else list(dict.fromkeys(ids))
    for name in names:
        if name in refused:
            raise DataError(f"utterance {shown(name)} cannot be explained: {refused[name]}")
        if name not in known:
            raise DataError(f"no utterance of the input is {shown(name)}{nearest(name, known)}; name one of its ids")
    if not names:
        raise DataError("no utterance to explain; name at least one id, or leave ids out for all")
    return [known[name] for name in names]


def _base(run: Run) -> list[float] | None:
    """What the explanations of a run start from; None for one that was trained before gmsa kept it."""
    base = run.environment.get("base")
    if base is None:
        return None
    target = Target.of(run.config.target)
    wanted = target.num_classes if target.is_classes else 1
    if len(base) != wanted:
        raise RunError(f"'{run.folder}' is damaged: environment.json: 'base' must have {wanted} numbers; train again")
    return [float(x) for x in base]

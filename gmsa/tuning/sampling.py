"""Samplers and pruners by name. A trial's draws are a pure function of the study's seed, its number and its history."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from gmsa.config import Config
from gmsa.rng import seed_for
from gmsa.training.protocols import build_protocol
from gmsa.tuning.optuna_adapter import id_of, storage_of
from gmsa.tuning.trials import place_of

RELATIVE = "gmsa:relative"
"""System attribute of a trial: the values that were drawn together; a resumed trial does not draw again."""
_QMC_SEED = "scramble"


def _tpe(seed: int) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)  # groups: conditional ones together


def _gp(seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed, independent_sampler=_tpe(seed), warn_independent_sampling=False)


def _qmc(seed: int) -> BaseSampler:
    return optuna.samplers.QMCSampler(scramble=True, seed=seed, warn_independent_sampling=False)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": _tpe,
    "gp": _gp,
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "qmc": _qmc,
}
"""Samplers by name, made from a seed."""
PRUNERS = ("median", "hyperband", "off")
"""Pruners by name."""


class SeededSampler(BaseSampler):
    """A sampler that seeds every draw by itself, from (study, trial, parameter).

    Optuna's samplers carry a random state from trial to trial, so that a resumed study, or one with another number of
    workers, would draw other values than an uninterrupted one.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are drawn together."""
        self._relative = self._of(trial, "relative")
        return self._relative.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of the parameters that are drawn together; of a resumed trial, those of before."""
        if RELATIVE not in trial.system_attrs:
            drawn = self._relative.sample_relative(study, trial, search_space)
            storage_of(study).set_trial_system_attr(id_of(trial), RELATIVE, json.dumps(drawn))
            return drawn
        before = json.loads(trial.system_attrs[RELATIVE])
        return {name: value for name, value in before.items() if name in search_space}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        """The value of one parameter that is drawn by itself."""
        return self._of(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Nothing: no state is kept."""

    def _of(self, trial: FrozenTrial, purpose: str) -> BaseSampler:
        # A quasi-random sequence is one for the whole study; the storage knows the trial's position in it.
        key = (_QMC_SEED,) if self.name == "qmc" and purpose == "relative" else (place_of(trial), purpose)
        return SAMPLERS[self.name](seed_for(self.seed, *key) % 2**32)


def make_pruner(name: str, config: Config) -> optuna.pruners.BasePruner:
    """A pruner for curves with a value per epoch.

    ``median`` prunes after a quarter of the first seed's epochs, and once five trials have ended.
    """
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, config.optim.epochs // 4))
    if name == "hyperband":
        # Optuna would take it from whichever trial is complete when a worker starts.
        most = config.optim.epochs * build_protocol(config).stages(config) * len(config.run.seeds)
        least = max(1, config.optim.epochs // 4)
        return optuna.pruners.HyperbandPruner(min_resource=least, max_resource=max(most, least))
    return optuna.pruners.NopPruner()

"""Objectives that cost next to nothing, for tests of studies: importable by worker processes."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import optuna

from gmsa.errors import ConfigError
from gmsa.tuning.trials import Claim


@dataclass(frozen=True)
class Bowl:
    """A parabola over one number and one choice, whose best value is 0; notes in a file which places it has done."""

    log: Path
    seconds: float = 0.0

    def __call__(self, claim: Claim) -> list[float]:
        x = claim.trial.suggest_float("x", -5, 5)
        kind = claim.trial.suggest_categorical("kind", ["a", "b"])
        if kind == "b":
            x += claim.trial.suggest_float("shift", 0, 1)
        time.sleep(self.seconds)
        with self.log.open("a") as file:
            file.write(f"{claim.place} {os.getpid()}\n")
        return [x * x]


@dataclass(frozen=True)
class Curves:
    """Parabolas that come down over ten steps, for pruners."""

    def __call__(self, claim: Claim) -> list[float]:
        x = claim.trial.suggest_float("x", -5, 5)
        for step in range(1, 11):
            claim.trial.report(x * x + 10 / step, step)
            if claim.trial.should_prune():
                raise optuna.TrialPruned
        return [x * x + 1]


@dataclass(frozen=True)
class Failing:
    """Fails in another way at every place; from place 6 on it returns 1."""

    def __call__(self, claim: Claim) -> list[float]:
        claim.trial.suggest_float("x", 0, 1)
        match claim.place:
            case 0:
                return [float("nan")]
            case 1:
                return [float("-inf")]
            case 2:
                raise MemoryError
            case 3:
                raise ConfigError("'optim.lr' is wrong; change it")
            case 4:
                raise RuntimeError("CUDA out of memory\nand much more")
            case 5:
                raise optuna.TrialPruned
        return [1.0]


@dataclass(frozen=True)
class Deadly:
    """Kills its own process at place 1, always."""

    def __call__(self, claim: Claim) -> list[float]:
        if claim.place == 1:
            os.kill(os.getpid(), 9)
        return [float(claim.place)]


@dataclass(frozen=True)
class Wordy:
    """Fails, with a message that no line of a journal holds."""

    def __call__(self, claim: Claim) -> list[float]:
        raise ConfigError("x" * (1 << 21))

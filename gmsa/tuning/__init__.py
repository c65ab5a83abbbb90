"""Optuna studies: a search space over a config, trials in many processes or machines, and what they find."""

from gmsa.tuning.space import Parameter, Space
from gmsa.tuning.space_file import read_space
from gmsa.tuning.study import StudyOptions, tune

__all__ = ["Parameter", "Space", "StudyOptions", "read_space", "tune"]

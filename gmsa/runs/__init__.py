"""Runs: from a config to a run folder, and what a finished run is used for."""

from gmsa.runs.folder import Run
from gmsa.runs.train import train

__all__ = ["Run", "train"]

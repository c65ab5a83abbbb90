"""Runs: from a config to a run folder, and what a finished run is used for."""

from gmsa.runs.folder import Run, open_run
from gmsa.runs.train import train

__all__ = ["Run", "open_run", "train"]

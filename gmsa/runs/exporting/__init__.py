"""A run's models as one program of ``torch.export``, and what serves it."""

from gmsa.runs.exporting.inputs import ProgramInputs

__all__ = ["ProgramInputs"]

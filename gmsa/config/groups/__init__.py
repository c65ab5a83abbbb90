"""The groups of settings, one dataclass each."""

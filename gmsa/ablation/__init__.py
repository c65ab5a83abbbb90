"""Ablations: every variant trained with every seed, and compared."""

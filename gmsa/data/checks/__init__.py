"""Checks of a data file or a feature store."""

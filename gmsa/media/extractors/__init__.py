"""Extractors: from a clip to the steps of a modality, one file each."""

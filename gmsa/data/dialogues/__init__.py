"""Dialogues: the order of their utterances, and made-up ones."""

"""Dialogues that are going on: each utterance is answered when it is said."""

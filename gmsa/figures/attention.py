"""The picture of what a trained model attends to, in an utterance or along a dialogue."""

from __future__ import annotations


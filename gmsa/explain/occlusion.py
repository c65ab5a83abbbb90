"""Occlusion: how much the prediction falls when a token is taken out of the graph."""

from __future__ import annotations

import numpy as np

from gmsa.explain.score import Score, in_chunks, pairs_of
from gmsa.explain.views import View


def occlusion(score: Score, view: View) -> dict[str, np.ndarray]:
    """The score less that without each token, ``[L]`` per modality; in batches, of which one is in memory at a time.

    After Zeiler and Fergus: Visualizing and understanding convolutional networks, ECCV 2014. Here no features are put
    in the token's place: its node and its edges are gone.
    """
    tokens = view.tokens
    whole = float(score([view])[0])
    found = {m: np.zeros(length) for m, length in view.own.lengths.items()}
    for part in in_chunks(tokens, [pairs_of(view)] * len(tokens)):
        for (m, place), value in zip(part, score([view.without([token]) for token in part]).tolist(), strict=True):
            found[m][place] = whole - value
    return found

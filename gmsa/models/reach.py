"""How far an answer looks in its dialogue."""

from __future__ import annotations

from dataclasses import fields, replace

from gmsa.config import Config
from gmsa.config.graph import WHOLE
from gmsa.models.build import model_class
from gmsa.models.parts import find_part
from gmsa.registry import MODELS


def reach(config: Config) -> tuple[int, int]:
    """How many utterances before one and after it can change its answer.

    .. math:: before = hops \\cdot past, \\qquad after = hops \\cdot future

    Edges between the modalities of an utterance, and those of its readout nodes, add nothing. It is
    :data:`~gmsa.config.graph.WHOLE` where the whole dialogue can: ``all``, the node of the dialogue, a sequential
    encoder, or a model that does not say its :meth:`~gmsa.models.Model.hops`; after it, only where ``graph.future`` is
    not 0.
    """
    graph = config.graph
    if not graph.has_dialogues:
        return 0, 0
    given = find_part(config.model.name, MODELS, "model.name")[1]  # as in hgt(layers=3)
    settings = {f.name: given[f.name] for f in fields(config.model) if f.name in given}
    hops = model_class(config).hops(replace(config, model=replace(config.model, **settings)))
    past, future = graph.reach
    if hops is None or graph.dialogue_node or config.model.sequence != "none":
        return WHOLE, WHOLE if future else 0
    return min(WHOLE, hops * past), min(WHOLE, hops * future)

"""How far an answer looks in its dialogue."""

from __future__ import annotations

from gmsa.config import Config
from gmsa.config.groups.graph import WHOLE
from gmsa.models.build import counts_degrees, looks_at_dialogues, model_class


def reach(config: Config) -> tuple[int, int]:
    """How many utterances before one and after it can change its answer.

    .. math:: before = hops \\cdot past, \\qquad after = hops \\cdot future

    Edges between the nodes of one utterance add nothing; in scope ``hierarchical`` the propagation of predictions is
    one hop more, and so is, in either scope, a layer that weighs a message by the edges of its sender. It is
    :data:`~gmsa.config.groups.graph.WHOLE` where the whole dialogue can: with ``all``, the node of the dialogue, a
    sequential encoder, a layer that sees whole graphs, or a model that does not say its
    :meth:`~gmsa.models.Model.hops`; after it, only where ``graph.future`` is not 0.
    """
    graph = config.graph
    if not graph.has_dialogues:
        return 0, 0
    hops = None if looks_at_dialogues(config) else model_class(config).hops(config)
    past, future = graph.reach
    if hops is not None:
        hops += counts_degrees(config)
    if hops is not None and graph.scope == "hierarchical":
        hops += config.model.propagation > 0  # of predictions, after the last layer
    if hops is None or graph.dialogue_node or config.model.sequence != "none":
        return WHOLE, WHOLE if future else 0
    return min(WHOLE, hops * past), min(WHOLE, hops * future)

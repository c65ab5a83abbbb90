"""Graphs as PyG has them: utterances as the HeteroData that a model takes."""

# N utterances, U of a dialogue, M modalities; E edges of all graphs
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch_geometric.data import Batch, HeteroData

from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, listed
from gmsa.graph.batch import check_positions
from gmsa.graph.build import build_dialogue_graph, build_graph, speakers_of
from gmsa.graph.connect import edges_between
from gmsa.graph.nodes import node_features
from gmsa.graph.schema import UTTERANCE
from gmsa.graph.spec import GraphSpec

OF_UTTERANCE = f"{UTTERANCE}."
"""Prefix of the types of nodes that stand for a whole utterance, such as ``utterance.text``."""
BETWEEN = (UTTERANCE, "context", UTTERANCE)
"""Edges between the utterances of a dialogue as such, and of each to itself."""


def as_hetero(utterances: Utterance | Sequence[Utterance], spec: GraphSpec) -> HeteroData:
    """The graph that a model takes, as PyG has it: of one utterance, or of a dialogue in scopes of dialogues.

    Of an utterance it is what :func:`build_graph` gives. Of a dialogue it has the tokens of all its utterances, their
    edges in scope ``hierarchical``, and the nodes and edges that :func:`build_dialogue_graph` gives, with the prefix
    ``utterance.`` before their types, as in ``utterance.text``, and without features, which tokens have.

    Args:
        utterances: one; of a dialogue, all of its utterances.
        spec: how the graphs look.

    Shapes:
        - as those of :func:`build_graph`, with ``y`` instead of ``label``; of a dialogue, tokens and readout nodes also
          have ``utterance`` :math:`(N_m)`, the index of theirs; ``y`` :math:`(U)`, ``steps`` :math:`(U, M)`, and nodes
          ``utterance`` have ``speaker`` :math:`(U)`, and edges ``("utterance", "context", "utterance")`` with ``kind``
          :math:`(E)`, by distance and speakers

    Raises:
        DataError: the utterances are not of one graph; one has more nodes than ``model.positions``.
    """
    members = [utterances] if isinstance(utterances, Utterance) else list(utterances)
    found = len({u.video if spec.graph.has_dialogues else u.id for u in members})
    if found != 1:
        kind = "a dialogue" if spec.graph.has_dialogues else "one utterance"
        raise DataError(
            f"expected the utterances of one graph, that of {kind} (got {found}: "
            f"{listed(u.id for u in members)}); gmsa.graph.as_dataset parts them"
        )
    check_positions(members, spec.inside if spec.graph.scope == "hierarchical" else spec)
    if not spec.graph.has_dialogues:
        data = build_graph(members[0], spec.graph, spec.strides, spec.convs, spec.readouts)
    else:
        data = _dialogue(sorted(members, key=lambda u: u.clip), spec)
    data.y = data.label
    del data.label
    return data


def _dialogue(members: Sequence[Utterance], spec: GraphSpec) -> HeteroData:
    context = build_dialogue_graph(members, spec.graph, spec.convs, spec.readouts)
    data, strides = HeteroData(), spec.strides
    modalities = spec.schema.modalities
    if spec.graph.scope == "hierarchical":
        tokens = Batch.from_data_list(
            [build_graph(u, spec.inside.graph, strides, spec.convs, spec.readouts) for u in members]
        )
        for node_type, store in tokens.node_items():
            more = {"x": store.x} if "x" in store else {}
            data[node_type].update({"num_nodes": store.num_nodes, "pos": store.pos, "utterance": store.batch} | more)
        for relation, store in tokens.edge_items():
            data[relation].update({"edge_index": store.edge_index, "temporal_type": store.temporal_type})
    else:
        for modality in modalities:
            parts = [node_features(u.features[modality], strides[modality]) for u in members if modality in u.features]
            counts = torch.tensor([len(part) for part in parts], dtype=torch.long)
            store = data[modality]
            store.num_nodes = int(counts.sum())
            store.pos = torch.cat([torch.empty(0, dtype=torch.long), *map(torch.arange, counts.tolist())])
            store.utterance = torch.repeat_interleave(counts)
            if parts:
                store.x = torch.cat(parts)
    data[UTTERANCE].num_nodes, data[UTTERANCE].pos = len(members), torch.arange(len(members))
    data[UTTERANCE].speaker = torch.tensor(speakers_of(members, spec.graph))
    for node_type, store in context.node_items():
        kept = {key: value for key, value in store.items() if key != "x"}
        data[outer_type(node_type)].update(kept)
    for (source, stream, target), store in context.edge_items():
        data[outer_type(source), stream, outer_type(target)].update(dict(store.items()))
    between = edges_between(members, spec.outside)
    data[BETWEEN].edge_index, data[BETWEEN].kind = between.pairs.clone(), between.kind.clone()
    data.id, data.ids, data.speakers, data.label = context.id, context.ids, context.speakers, context.label
    data.steps = torch.tensor([[len(u.features.get(m, ())) for m in modalities] for u in members])
    return data


def outer_type(node_type: str) -> str:
    """The type of a dialogue's nodes that in :func:`build_dialogue_graph` have this one."""
    return f"{OF_UTTERANCE}{node_type}"

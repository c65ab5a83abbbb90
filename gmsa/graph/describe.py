"""Says in words what a graph is made of."""

from __future__ import annotations

from torch_geometric.data import HeteroData

from gmsa.graph.schema import DIALOGUE, READOUTS, STREAMS, is_among_tokens
from gmsa.graph.view import TIMES


def describe_dialogue(data: HeteroData, by_speaker: bool) -> list[str]:
    """The nodes and edges of a dialogue's graph: each modality, each relation by time and speaker, each stream."""
    lines = []
    for node_type in data.node_types:
        count = data[node_type].num_nodes
        if count and node_type not in (*READOUTS, DIALOGUE):
            missing = int((~data[node_type].present).sum())
            lines.append(f"{node_type}: {count} nodes" + (f", {missing} missing" if missing else ""))
    for relation in data.edge_types:
        store = data[relation]
        if not is_among_tokens(relation) or not store.num_edges:
            continue
        times = store.temporal_type.bincount(minlength=len(TIMES)).tolist()
        parts = [", ".join(f"{count} {TIMES[time]}" for time, count in enumerate(times) if count)]
        if by_speaker and relation[0] == relation[2]:
            same = int(store.same_speaker.sum())
            parts.append(f"{same} same speaker, {store.num_edges - same} other")
        lines.append(f"{'-'.join(relation)}: {store.num_edges} edges ({'; '.join(parts)})")
    for name, types in (("readouts", READOUTS), ("dialogue's node", (DIALOGUE,))):
        ends = [r for r in data.edge_types if r[1] == "intra" and {r[0], r[2]} & {*types}]
        ends = [r for r in ends if name != "readouts" or DIALOGUE not in r]
        if count := sum(data[r].num_edges for r in ends):
            lines.append(f"{name}: {count} edges in each stream")
    return [*lines, *describe_streams(data)]


def describe_streams(data: HeteroData) -> list[str]:
    """The edges of each stream."""
    counts = {stream: sum(data[r].num_edges for r in data.edge_types if r[1] == stream) for stream in STREAMS}
    return [f"{stream}: {count} edges" for stream, count in counts.items()]

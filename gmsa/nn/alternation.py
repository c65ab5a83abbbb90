"""A block in which messages cross intra-modal edges first, then cross-modal ones."""

# V nodes, C channels
from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from gmsa.nn.dropout import Dropout
from gmsa.nn.edges import Edges
from gmsa.nn.layers.attention import Interaction
from gmsa.nn.layers.make import make_layer
from gmsa.nn.relations import Relations
from gmsa.nn.streams import StreamLayer, call_layer


class AlternatingBlock(nn.Module):
    r"""Messages within each modality, then between modalities.

    .. math::
        h' &= \mathrm{StreamLayer}_{intra}(h) \\
        v &= \mathrm{Attention}_{inter}(h'), \qquad z = \sigma(W [h'; v] + b) \\
        h'' &= \mathrm{LN}(h' + z \odot v)

    SSLMM's alternation; the gate and the norms are our design, as the paper's form is not public. ``inter_first``
    swaps the two halves; ``simultaneous`` lets both see h, so that nothing crosses an intra and an inter edge in one
    block. Without one of the ``halves`` the block ignores that half's edges.

    Args:
        channels (int): Width C.
        heads (int): Attention heads; must divide ``channels``.
        dropout (float, default 0.0): Dropout after attention and feed-forward.
        edge_types (int, default 0): Edge types with a learned bias; 0 where edges are not typed.
        order (str, default "intra_first"): ``intra_first``, ``inter_first``, or ``simultaneous``.
        halves (tuple[str, ...], default ("intra", "inter")): Which halves the block has.
        layer (Callable, default Interaction): Constructor of the layer that passes messages, or by ``intra`` and
            ``inter`` one for each half.
        relations (Mapping, optional): The relations of each half, for layers that have weights for each.
        number (int, default 1): Number of the block, from 1.

    Shapes:
        - h :math:`(V, C)`; source_log_weight :math:`(V)`, see :class:`~gmsa.nn.Interaction`; output :math:`(V, C)`

    Example:
        >>> import torch
        >>> from gmsa.nn import SparseEdges
        >>> edges = SparseEdges(torch.tensor([[0, 1, 2], [1, 1, 0]]))  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> inter = SparseEdges(torch.tensor([[0, 2], [2, 0]]))
        >>> AlternatingBlock(channels=8, heads=2)(torch.randn(3, 8), edges, inter).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        dropout: float = 0.0,
        edge_types: int = 0,
        order: str = "intra_first",
        halves: tuple[str, ...] = ("intra", "inter"),
        layer: Callable[..., nn.Module] | Mapping[str, Callable[..., nn.Module]] = Interaction,
        relations: Mapping[str, Relations] | None = None,
        number: int = 1,
    ) -> None:
        super().__init__()
        self.order = order
        chosen = layer if isinstance(layer, Mapping) else dict.fromkeys(("intra", "inter"), layer)
        known = relations or {}
        self.within = None
        if "intra" in halves:
            self.within = StreamLayer(channels, heads, dropout, edge_types, chosen["intra"], known.get("intra"), number)
        self.across = None
        if "inter" in halves:
            self.across = make_layer(
                chosen["inter"],
                channels=channels,
                heads=heads,
                edge_types=edge_types,
                relations=known.get("inter"),
                number=number,
            )
            self.gate = nn.Linear(2 * channels, channels)
            self.norm = nn.LayerNorm(channels)
        self.dropout = Dropout(dropout)

    def intra(
        self,
        h: Tensor,
        edges: Edges | None,
        source_log_weight: Tensor | None = None,
        initial: Tensor | None = None,
    ) -> Tensor:
        """The half that crosses intra edges."""
        if self.within is None:
            return h
        found: Tensor = self.within(h, edges, source_log_weight=source_log_weight, initial=initial)
        return found

    def inter(
        self,
        h: Tensor,
        edges: Edges | None,
        source_log_weight: Tensor | None = None,
        seen: Tensor | None = None,
        initial: Tensor | None = None,
    ) -> Tensor:
        """The half that crosses inter edges; what passes them is ``seen``, by default h."""
        if self.across is None:
            return h
        assert edges is not None
        received = call_layer(self.across, h if seen is None else seen, edges, None, source_log_weight, initial)
        opened = torch.sigmoid(self.gate(torch.cat([h, received], dim=-1)))
        return self.norm(h + opened * self.dropout(received))

    def forward(
        self,
        h: Tensor,
        intra: Edges | None,
        inter: Edges | None,
        source_log_weight: Tensor | None = None,
        initial: Tensor | None = None,
    ) -> Tensor:
        if self.order == "inter_first":
            first = self.inter(h, inter, source_log_weight, initial=initial)
            return self.intra(first, intra, source_log_weight, initial)
        seen = h if self.order == "simultaneous" else None
        return self.inter(self.intra(h, intra, source_log_weight, initial), inter, source_log_weight, seen, initial)

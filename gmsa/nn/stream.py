"""A stack of interaction layers that sees one kind of edge."""

# B utterances, T nodes each, C channels
from __future__ import annotations

from torch import Tensor, nn

from gmsa.nn.dropout import Dropout
from gmsa.nn.interaction import Interaction


class StreamLayer(nn.Module):
    r"""One interaction layer.

    .. math::
        X = \mathrm{LN}(Z), \qquad Y = \mathrm{MaskedAttention}(X) + X, \qquad
        Z' = \mathrm{FFN}(\mathrm{LN}(Y)) + \mathrm{LN}(Y)

    Semi-IIN, section "Masked attention"; the FFN is two linear maps over 4 C channels with a ReLU.

    Shapes:
        - z :math:`(B, T, C)`, edges and receivers as :class:`~gmsa.nn.Interaction` takes them;
          output :math:`(B, R, C)`, R = T by default
    """

    def __init__(self, channels: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(channels)
        self.attention = Interaction(channels, heads)
        self.norm_mid = nn.LayerNorm(channels)
        self.ffn = nn.Sequential(nn.Linear(channels, 4 * channels), nn.ReLU(), nn.Linear(4 * channels, channels))
        self.dropout = Dropout(dropout)

    def forward(self, z: Tensor, edges: Tensor, receivers: int | None = None) -> Tensor:
        x = self.norm_in(z)
        y = self.norm_mid(self.dropout(self.attention(x, edges, receivers)) + x[:, :receivers])
        return self.dropout(self.ffn(y)) + y


class Stream(nn.Module):
    """``layers`` interaction layers over the same edges, with one set of weights if ``shared`` (Semi-IIN).

    The last layer computes what it is read at alone: the readout nodes, which stand in front.

    Shapes:
        - z :math:`(B, T, C)`; output :math:`(B, R, C)` for R ``readouts``
        - edges among all nodes, and edges to the readout nodes, as :class:`~gmsa.nn.Interaction` takes them
    """

    def __init__(self, channels: int, heads: int, layers: int, shared: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.repeats = layers if shared else 1
        self.layers = nn.ModuleList(StreamLayer(channels, heads, dropout) for _ in range(1 if shared else layers))

    def forward(self, z: Tensor, edges: Tensor, readout_edges: Tensor, readouts: int) -> Tensor:
        *inner, last = [layer for layer in self.layers for _ in range(self.repeats)]
        for layer in inner:
            z = layer(z, edges)
        return last(z, readout_edges, readouts)

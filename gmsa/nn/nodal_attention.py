"""Attention of each utterance over all of its dialogue."""

# N utterances of G dialogues of up to T, C channels
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gmsa.nn.attention_weights import AttentionWeights
from gmsa.nn.sequence import padded
from gmsa.system.late import not_compiled


class NodalAttention(nn.Module):
    r"""Replaces the state of each utterance by a mean over its dialogue, weighed by likeness.

    .. math::
        \beta_{ij} = \operatorname{softmax}_j \big( (h_i W_\beta + b) \, h_j^\top \big), \qquad
        \tilde h_i = \sum_j \beta_{ij} \, h_j

    DialogueGCN's readout (Ghosal et al., EMNLP-IJCNLP 2019); j are all utterances of the dialogue, in a ``causal`` one
    those up to i.

    Args:
        channels (int): Width C.
        tanh (bool, default False): Whether the scores pass a tanh first, as in DialogueGCN's released code: then no
            weight is more than e² times another.
        causal (bool, default False): Whether no utterance hears a later one.

    Shapes:
        - h :math:`(N, C)`, the dialogues end to end; sizes: utterances of each dialogue :math:`(G)`; output
          :math:`(N, C)`

    Example:
        >>> NodalAttention(channels=8)(torch.randn(5, 8), [3, 2]).shape
        torch.Size([5, 8])
    """

    def __init__(self, channels: int, tanh: bool = False, causal: bool = False) -> None:
        super().__init__()
        self.tanh, self.causal = tanh, causal
        self.score = nn.Linear(channels, channels)

    @not_compiled  # padding needs the sizes as numbers
    def forward(self, h: Tensor, sizes: Sequence[int]) -> Tensor:
        rows, index, real = padded(h, sizes)
        weight, _ = self._weights(rows, real)
        return (weight.to(rows.dtype) @ rows).flatten(0, 1).index_select(0, index)

    def attention_weights(self, h: Tensor, sizes: Sequence[int]) -> AttentionWeights:
        r"""The :math:`\beta` of all pairs of utterances, for the arguments of :meth:`forward`."""
        rows, _, real = padded(h, sizes)
        weight, heard = self._weights(rows, real)
        dialogue, target, source = (heard & real[:, :, None]).nonzero(as_tuple=True)
        first = torch.tensor(sizes, device=h.device).cumsum(0) - torch.tensor(sizes, device=h.device)
        found = weight[dialogue, target, source][:, None]
        meaning = f"softmax over all utterances{' so far' * self.causal} of the dialogue, whatever its edges"
        return AttentionWeights(first[dialogue] + source, first[dialogue] + target, found, meaning)

    def _weights(self, rows: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """:math:`\\beta` of padded dialogues, and who is heard ``[G, T, T]``."""
        score = self.score(rows) @ rows.transpose(1, 2)
        heard = real[:, None, :].expand_as(score)
        heard = heard.tril() if self.causal else heard
        return (score.tanh() if self.tanh else score).masked_fill(~heard, -torch.inf).softmax(-1), heard

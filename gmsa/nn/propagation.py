"""Predictions that propagate along a dialogue."""

# N utterances of G dialogues, E edges between them, K numbers that are predicted of each
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from gmsa.nn.sequence import send


class Propagation(nn.Module):
    r"""Adds to the prediction of each utterance those of the others of its dialogue, by one weight per kind of them.

    .. math::
        \tilde y_i = y_i + \sum_{k} w_k \, \mathrm{mean}_{j \in N_k(i)} \, y_j, \qquad
        k \in \{before, after, dialogue\}

    :math:`N_{before}` and :math:`N_{after}` are the earlier and the later utterances that an edge joins with i,
    :math:`N_{dialogue}` all others of the dialogue, or all before i in a causal one; where there is none, :math:`y_i`
    stands for their mean. Of classes, y are the logarithms of their probabilities, and all share the weights.

    So few weights cannot fit single dialogues, which the layers before can: what a video's other utterances say of this
    one is learned even from few videos. The baseline of a linear map over neighbouring predictions, within the model;
    after the propagation of predictions in Huang et al. (Combining label propagation and simple models out-performs
    graph neural networks, ICLR 2021). Our design.

    Args:
        dialogue (bool): Whether all utterances of the dialogue count.
        causal (bool): Whether no utterance hears a later one.
        weight (float, default 0.1): The weights at the start. Training moves them little, since it can fit its own
            dialogues without them: this says how much to trust the others.

    Shapes:
        - y :math:`(N, K)`, the dialogues' utterances end to end; index of the edges :math:`(2, E)`; sizes of the
          dialogues; output :math:`(N, K)`

    Example:
        >>> index = torch.tensor([[0, 1], [1, 0]])  # two utterances hear each other
        >>> Propagation(dialogue=True, causal=False)(torch.randn(2, 1), index, sizes=[2]).shape
        torch.Size([2, 1])
    """

    def __init__(self, dialogue: bool, causal: bool, weight: float = 0.1) -> None:
        super().__init__()
        self.dialogue, self.causal = dialogue, causal
        self.weight = nn.Parameter(torch.full((3,), weight))

    def forward(self, y: Tensor, index: Tensor, sizes: Sequence[int]) -> Tensor:
        source, target = index
        before, after, dialogue = self.weight
        y = y.float() if y.dtype in (torch.float16, torch.bfloat16) else y
        found = y + before * _mean(y, index, source < target)
        if not self.causal:
            found = found + after * _mean(y, index, source > target)
        return found + dialogue * self._of_dialogue(y, sizes) if self.dialogue else found

    def _of_dialogue(self, y: Tensor, sizes: Sequence[int]) -> Tensor:
        """The mean over the others of each dialogue, or over those before ``[N, K]``."""
        size = send(np.array(sizes), y.device)
        number = torch.repeat_interleave(size, output_size=len(y))
        place = torch.arange(len(y), device=y.device) - (size.cumsum(0) - size)[number]
        if self.causal:
            # Dialogue by dialogue, so that the sums of one do not depend on how the others round.
            padded = y.new_zeros(len(sizes) * max(sizes), y.shape[1])
            at = number * max(sizes) + place
            sums = padded.index_copy(0, at, y).view(len(sizes), max(sizes), -1).cumsum(1).flatten(0, 1)
            total, count = sums.index_select(0, at) - y, place
        else:
            total = scatter(y, number, dim_size=len(sizes)).index_select(0, number) - y
            count = size[number] - 1
        return torch.where((count > 0)[:, None], total / count.clamp(min=1)[:, None].to(y.dtype), y)


def _mean(y: Tensor, index: Tensor, counts: Tensor) -> Tensor:
    """The mean over the sources of each target's edges that count, or its own where none does ``[N, K]``."""
    # The others add zeros: their number is not known without waiting for a GPU.
    total = scatter(y.index_select(0, index[0]).masked_fill(~counts[:, None], 0), index[1], dim_size=len(y))
    count = scatter(counts.long(), index[1], dim_size=len(y))
    return torch.where((count > 0)[:, None], total / count.clamp(min=1)[:, None].to(y.dtype), y)

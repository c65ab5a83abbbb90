"""From one modality of an utterance to the target."""

# N utterances, C channels, K classes
from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch_geometric.nn.module_dict import ModuleDict

from gmsa.nn.dropout import Dropout


class UnimodalHeads(nn.Module):
    r"""Predicts the target from each modality by itself.

    .. math::
        \hat y_m = W_m \mathrm{ReLU}(V_m \bar h_m + b_m) + c_m

    The subtask per modality of the multi-task models MLF-DNN and MTFN (Yu et al.: CH-SIMS, ACL 2020); there a
    modality's representation is that of its subnetwork, here :math:`\bar h_m`, the mean of its embedded tokens.

    Args:
        modalities (Iterable[str]): Names of the modalities.
        channels (int): Width C.
        classes (int, default 0): Number of classes K; 0 where the target is an intensity.
        dropout (float, default 0.0): Dropout after the first layer.

    Shapes:
        - means, of each modality :math:`(N, C)`; output: of each the intensity :math:`(N)`, or logits :math:`(N, K)`

    Example:
        >>> import torch
        >>> heads = UnimodalHeads(["text", "eeg"], channels=8)
        >>> {m: y.shape for m, y in heads({"text": torch.randn(2, 8), "eeg": torch.randn(2, 8)}).items()}
        {'text': torch.Size([2]), 'eeg': torch.Size([2])}
    """

    def __init__(self, modalities: Iterable[str], channels: int, classes: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.intensity = not classes
        self.heads = ModuleDict(
            {
                m: nn.Sequential(
                    nn.Linear(channels, channels), nn.ReLU(), Dropout(dropout), nn.Linear(channels, classes or 1)
                )
                for m in modalities
            }
        )

    def forward(self, means: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {m: head(means[m]) for m, head in self.heads.items()}
        return {m: y.squeeze(-1) for m, y in found.items()} if self.intensity else found

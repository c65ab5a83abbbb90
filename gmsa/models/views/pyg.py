"""A model with the face of a PyG model: features and edges by type in, predictions out."""

# N utterances, K classes, E edges of a relation
from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.module_dict import ModuleDict

from gmsa.errors import ConfigError
from gmsa.graph.schema import Relation
from gmsa.models.base import Model, Output


class EdgeMask(MessagePassing):
    """Holds the mask that ``torch_geometric.explain`` puts on the edges of a relation."""

    @property
    def weight(self) -> Tensor | None:
        """Weight of each edge ``[E]``; None without a mask."""
        mask = cast("Tensor | None", self._edge_mask)
        return mask.sigmoid() if mask is not None and self._apply_sigmoid else mask


class PygModel(nn.Module):
    """A model on the graphs of ``data``, as :func:`as_pyg` makes it.

    Shapes:
        - x_dict: per node type features, edge_index_dict: per relation :math:`(2, E)`, both may leave out what stays as
          it is in the data; output: intensities :math:`(N)` or class scores :math:`(N, K)`

    Example:
        >>> from gmsa.config import from_dict
        >>> from gmsa.data import Utterance
        >>> from gmsa.graph import as_hetero
        >>> from gmsa.models import build_model
        >>> model = build_model({"text": 6}, from_dict({"model": {"channels": 16, "heads": 2}}))
        >>> clip = Utterance("video$_$1", {"text": torch.randn(5, 6)})
        >>> explained = as_pyg(model, as_hetero(clip, model.spec))
        >>> explained({"text": torch.zeros(5, 6)}).shape  # edges as they are
        torch.Size([1])
    """

    def __init__(self, model: Model, data: HeteroData, output: Literal["value", "logits"]) -> None:
        super().__init__()
        self.model, self.data, self.output = model, data, output
        weighs = model.spec is not None and model.spec.takes_weights
        self.masks = ModuleDict({relation: EdgeMask() for relation in data.edge_types if weighs})
        self.x_dict: dict[str, Tensor] = {}
        """Features on which the predictions depend."""
        self.edge_index_dict: dict[Relation, Tensor] = {}
        """Edges on which they depend."""
        self._find_inputs()
        self.train(model.training)  # an explainer gives this mode back to both

    def forward(
        self,
        x_dict: Mapping[str, Tensor] | None = None,
        edge_index_dict: Mapping[Relation, Tensor] | None = None,
    ) -> Tensor:
        data = copy.copy(self.data)
        for node_type, x in (x_dict or {}).items():
            data[node_type].x = x
        for relation, edge_index in (edge_index_dict or {}).items():
            data[relation].edge_index = edge_index
        for relation, part in self.masks.items():
            if (weight := part.weight) is not None:
                _weigh(data, relation, weight)
        output: Output = self.model(data)
        return cast(Tensor, getattr(output, self.output))

    def _find_inputs(self) -> None:
        """Finds the inputs whose gradient is not zero everywhere: an explainer takes the mean over those of each."""
        training, kept = self.model.training, copy.copy(self.data)
        leaves: dict[str | Relation, Tensor] = {}
        for node_type, store in kept.node_items():
            if "x" in store and store.x.numel():
                leaves[node_type] = store.x = store.x.detach().clone().requires_grad_()
        for relation in self.masks.keys():  # noqa: SIM118 (iterating PyG's ModuleDict gives its internal keys)
            count = kept[relation].edge_index.shape[1]
            if count:
                like = next(iter(leaves.values()))
                leaves[relation] = kept[relation].edge_weight = like.new_ones(count).requires_grad_()
        with torch.enable_grad():
            predicted = getattr(self.model.eval()(kept), self.output)
            drawn = torch.rand(predicted.shape, generator=torch.Generator().manual_seed(0)).to(predicted)
            found = torch.autograd.grad((predicted * drawn).sum(), list(leaves.values()), allow_unused=True)
        self.model.train(training)
        for key, gradient in zip(leaves, found, strict=True):
            if gradient is None or not bool(gradient.any()):
                continue
            if isinstance(key, tuple):
                self.edge_index_dict[key] = self.data[key].edge_index
            else:
                self.x_dict[key] = self.data[key].x


def as_pyg(model: Model, data: HeteroData, output: Literal["value", "logits"] | None = None) -> PygModel:
    """A model as ``torch_geometric.explain`` wants it: called with features and edges by type.

    Its :attr:`~PygModel.x_dict` and :attr:`~PygModel.edge_index_dict` are those on which its predictions for ``data``
    depend. Gradients reach ``x`` through the encoders. Masks of edges count as weights of edges: they need a model and
    a layer that take such (``semi_iin``, ``sslmm``); of others, such as ``hgt``, features can be explained.

    Args:
        data: graphs as :func:`gmsa.graph.as_hetero` gives them, or a ``Batch`` of them; what is not given to the model
            comes from there.
        output: what it predicts, intensities or class scores; by default intensities where the model has them.

    Raises:
        ConfigError: the model has no intensities.
    """
    training = model.training
    with torch.no_grad():
        has_intensity = model.eval()(data).value is not None
    model.train(training)
    if output == "value" and not has_intensity:
        raise ConfigError("the model predicts classes alone; ask as_pyg for the output 'logits'")
    return PygModel(model, data, output or ("value" if has_intensity else "logits"))


def _weigh(data: HeteroData, relation: Relation, weight: Tensor) -> None:
    """Gives the edges of a relation weights; those of weight 0 are left out."""
    store = data[relation]
    kept = weight.detach() > 0
    if not bool(kept.all()):
        for name, value in store.items():
            if isinstance(value, Tensor) and value.shape[-1:] == kept.shape:
                store[name] = value[..., kept]
        weight = weight[kept]
    store.edge_weight = weight * store.edge_weight if "edge_weight" in store else weight

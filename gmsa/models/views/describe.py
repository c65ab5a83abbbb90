"""Says what a model is made of: its stages, their parameters, and which layer passes messages along which relations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gmsa.config import Config
from gmsa.config.components import component_name
from gmsa.models.base import Model
from gmsa.models.build import check, model_skeleton
from gmsa.models.views.stages import Row, Stage, parameters_of


@dataclass(frozen=True)
class Description:
    """What a model is made of."""

    name: str
    """Its name in a config."""
    scope: str
    """Whose graphs it takes."""
    stages: Sequence[Row]
    """Its stages, in their order; those of a row are side by side."""

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return sum(stage.parameters for row in self.stages for stage in row)


def describe_model(dims: Mapping[str, int], config: Config) -> Description:
    """Says what the model of a config is made of, without making its weights.

    Args:
        dims: feature dimension of each modality.

    Raises:
        ConfigError: the model does not take the settings.
    """
    check(config)
    skeleton = model_skeleton(dims, config)
    rows = _counted(skeleton, [*_with_added(skeleton, skeleton.describe_stages(config), config)])
    return Description(component_name(config.model.name), config.graph.scope, rows)


def _with_added(model: Model, rows: Sequence[Row], config: Config) -> list[Row]:
    """The rows with what :func:`~gmsa.models.build_model` adds to any model."""
    rows, graph = [row for row in rows if row], config.graph
    outer = [i for i, row in enumerate(rows) if row[0].level == "dialogue" and row[0].layer]
    if len(model.between):
        chosen = [] if graph.between == "window" else [graph.between]
        note = ", ".join(chosen + [f"{graph.weights} weights"] * (graph.weights != "none"))
        rows.insert(
            outer[0] if outer else len(rows), (Stage("Edges between utterances", note, (model.between,), "dialogue"),)
        )
    if len(model.propagations):
        note = "each prediction hears those of the other utterances, by three weights"
        rows.append((Stage("Propagation", note, (model.propagations,), "dialogue"),))
    beside = []
    if model.unimodal is not None:
        beside.append(Stage("Unimodal heads", "what each modality predicts alone", (model.unimodal,), "training"))
    if model.reconstruction is not None:
        note = "features of missing modalities"
        beside.append(Stage("Reconstruction", note, (model.reconstruction,), "training"))
    return [*rows, tuple(beside)] if beside else rows


def _counted(model: Model, rows: Sequence[Row]) -> list[Row]:
    """The rows with the parameters of each stage instead of its parts; each parameter counts once."""
    seen: set[int] = set()
    found = []
    for row in rows:
        stages = []
        for stage in row:
            its = {id(p): p.numel() for p in parameters_of(stage.parts)}
            new = sum(count for key, count in its.items() if key not in seen)
            note = f"{stage.note}, the same weights as above" if its and its.keys() <= seen else stage.note
            seen |= its.keys()
            stages.append(stage._replace(note=note, parts=(), parameters=new))
        found.append(tuple(stages))
    others = {name: p.numel() for name, p in model.named_parameters() if id(p) not in seen}
    if others:
        note = ", ".join(dict.fromkeys(name.split(".")[0] for name in others))
        known = [i for i, row in enumerate(found) if row[0].level != "training"]
        level = found[known[-1]][0].level if known else "utterance"
        found.insert(len(known), (Stage("Other parameters", note, (), level, parameters=sum(others.values())),))
    return found

"""What ``torch.export`` cannot trace for batches of any size: known parts, and why."""

from __future__ import annotations

from gmsa.config import Config
from gmsa.config.components import component_name
from gmsa.errors import RunError
from gmsa.models.build import model_class

_COUNTED = "it asks how many edges each relation has, which a program for all batches cannot know"
_SIZED = "it reads dialogue by dialogue, whose sizes must be numbers, which a program for all batches cannot know"
MODELS = {"hgt": _COUNTED, "cogmen": _SIZED, "dialogue_gcn": _SIZED, "gcnet": _SIZED, "mmgcn": _SIZED}
"""Models that cannot be exported, and why."""
LAYERS = {"hgt": _COUNTED, "rgcn": _COUNTED}
"""The same of layers."""


def check(config: Config) -> None:
    """Refuses a run that cannot be exported, before any work.

    Raises:
        RunError: names the setting, why, and what to do.
    """
    settings, graph = config.model, config.graph
    name = component_name(settings.name)
    if name in MODELS:
        _refuse(f"model.name: {name}", MODELS[name], "a model that can, such as semi_iin or sslmm")
    if settings.text_encoder is not None:
        why = "the encoder reads word pieces, which its tokenizer makes outside of the program"
        _refuse("model.text_encoder", why, "features of the text (gmsa data extract writes them)")
    streams = (*model_class(config).seen_streams(settings), *model_class(config).seen_outside(settings))
    for layer in dict.fromkeys(component_name(settings.layer.of(stream)) for stream in streams):
        if layer in LAYERS:
            _refuse(f"model.layer: {layer}", LAYERS[layer], "a layer that can, such as attention or rgat")
    if graph.has_dialogues and settings.sequence != "none":
        _refuse(f"model.sequence: {settings.sequence}", _SIZED, "'model.sequence: none'")
    if graph.scope == "hierarchical" and graph.dialogue_node and settings.propagation:
        _refuse("graph.dialogue_node", f"with 'model.propagation' {_SIZED}", "one of the two turned off")


def _refuse(setting: str, why: str, instead: str) -> None:
    raise RunError(f"'{setting}' cannot be exported: {why}; use gmsa predict, or train with {instead}")

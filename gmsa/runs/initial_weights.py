"""Initial weights: those of a text encoder, and of a pre-trained run, where the settings name one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gmsa.config import Config, to_dict
from gmsa.errors import RunError, short
from gmsa.models.build import model_skeleton
from gmsa.runs.folder import Run
from gmsa.runs.prepare import Prepared
from gmsa.system.distributed import SINGLE_PROCESS, Group
from gmsa.text import texts_of
from gmsa.text.encoder import pretrained_weights
from gmsa.text.folder import KEY
from gmsa.training.protocols import build_protocol
from gmsa.training.trainer import to_start_from

NOT_IN_WEIGHTS = {
    "model": {"dropout", "input_dropout", "modality_dropout", "route", "text_encoder"},
    "graph": {"edge_dropout", "context_dropout"},
    "text": {"dropout", "checkpointing", "download", "frozen_layers"},
}
"""Settings that may differ between a run and the one whose weights it starts from; where a text encoder is, its
content says whether it is the same."""
_ENCODER = "embedding.text_encoder.network."
"""How the names of a text encoder's weights begin in a model."""
ON_FEATURES = ("normalize", "clip")
"""Settings of ``data`` that scale the features that the weights were trained on."""


def start_of(
    config: Config,
    prepared: Prepared,
    seed: int,
    device: torch.device,
    group: Group = SINGLE_PROCESS,
    encoder_sha256: str | None = None,
) -> dict[str, Tensor] | None:
    """The weights that a seed starts from: of ``protocol.init_from``, or of ``model.text_encoder`` where it is trained
    with the rest; None where neither is set, or the encoder's are gone.

    Args:
        encoder_sha256: that of the text encoder, where its weights are gone.

    Raises:
        RunError: they are missing, damaged or of another model.
        ConfigError: those of the text encoder are.
    """
    corpus = prepared.corpus
    dims = dict(corpus.dims)
    if config.protocol.init_from is None:
        return None if encoder_sha256 else encoder_weights(config, dims)
    return group.broadcast(
        initial_weights(config, dims, corpus.sha256, seed, device, encoder_sha256) if group.is_main else None
    )


def lost_weights(config: Config, encoder: str | None, encoder_sha256: str | None) -> str:
    """Why :func:`start_of` has no weights for a run whose text encoder is gone, for an error; empty where it has.

    Args:
        encoder: ``model.text_encoder`` as the user named it.
        encoder_sha256: as for :func:`start_of`.
    """
    if encoder_sha256 is None or config.protocol.init_from is not None:
        return ""
    named = f"'{short(encoder or '')}' (SHA-256 {encoder_sha256[:12]}…)"
    return f"starts from the weights of '{KEY}', {named}, which are gone; put that encoder back"


def encoder_weights(config: Config, dims: Mapping[str, int]) -> dict[str, Tensor] | None:
    """The weights of the text encoder by their names in the model; None where the model has none."""
    texts = texts_of(config)
    if texts is None or texts.frozen or texts.modality not in dims:
        return None
    given = pretrained_weights(texts.folder)
    names = [name for name in model_skeleton(dims, config).state_dict() if name.startswith(_ENCODER)]
    plain = {name: name.removeprefix(_ENCODER).replace(".base_layer.", ".") for name in names}
    return {name: given[own] for name, own in plain.items() if own in given}  # LoRA's own start at random


def initial_weights(
    config: Config,
    dims: dict[str, int],
    data_sha256: str,
    seed: int,
    device: torch.device,
    encoder_sha256: str | None = None,
) -> dict[str, Tensor]:
    """The weights of ``protocol.init_from`` for a seed.

    Args:
        data_sha256: of the data that this run learns from.
        encoder_sha256: that of the text encoder, where its weights are gone.

    Raises:
        RunError: it is no run folder of the protocol ``pretrain``, has no such seed, holds another model, or was
            trained on what this run masks.
    """
    folder = config.protocol.init_from
    assert folder is not None
    before = Run(folder)
    protocol = before.config.protocol.name
    if build_protocol(before.config).predicts:
        raise RunError(
            f"'protocol.init_from': '{folder}' is a run of the protocol '{protocol}', whose weights have seen labels; "
            "name one of the protocol 'pretrain'"
        )
    _check_encoder(before, config, encoder_sha256)
    then, now = to_dict(before.config), to_dict(config)
    groups = {g: passed for g, passed in NOT_IN_WEIGHTS.items() if g != "text" or config.model.text_encoder is not None}
    keys = [(group, key) for group, passed in groups.items() for key in sorted(then[group].keys() - passed)]
    for group, key in [*keys, *(("data", key) for key in ON_FEATURES)]:
        if then[group][key] != now[group][key]:
            raise RunError(
                f"'protocol.init_from': '{folder}' was trained with {group}.{key} {then[group][key]!r}, "
                f"this run has {now[group][key]!r}; make them equal"
            )
    # Weights trained on the same data must not have seen what this run masks.
    if before.environment["data_sha256"] == data_sha256:
        for key in ("train", "seed", "unit"):
            masked, masks = then["data"]["missing"][key], now["data"]["missing"][key]
            if masked != masks:
                raise RunError(
                    f"'protocol.init_from': '{folder}' was trained on the same data with data.missing.{key} "
                    f"{masked!r}, this run has {masks!r}, so its weights may know what is masked here; make them equal"
                )
    if seed not in before.config.run.seeds:
        raise RunError(
            f"'protocol.init_from': '{folder}' has no seed {seed}; add it there with gmsa.train --resume --seeds {seed}"
        )
    found = to_start_from(before.load_model(seed, device))
    own = to_start_from(model_skeleton(dims, config))
    for name in sorted(own.keys() | found.keys()):
        if name not in own or name not in found or own[name].shape != found[name].shape:
            raise RunError(
                f"'protocol.init_from': '{folder}' was trained on features of other dimensions ('{name}' differs); "
                "extract these as those were"
            )
    return found


def _check_encoder(before: Run, config: Config, encoder_sha256: str | None) -> None:
    """Checks that the run before read text with the encoder of this one."""
    folder, own = config.protocol.init_from, texts_of(config)
    wanted = before.environment.get("encoder_sha256")
    found = None if own is None else encoder_sha256 or own.folder.sha256
    if wanted != found:
        with_, has = (x and f"the text encoder of SHA-256 {x[:12]}…" for x in (wanted, found))
        raise RunError(
            f"'protocol.init_from': '{folder}' was trained with {with_ or 'no text encoder'}, this run has "
            f"{has or 'none'}; make 'model.text_encoder' that one"
        )
    other = texts_of(before.config)
    if own is not None and other is not None and other.folder.tokenizer_sha256 != own.folder.tokenizer_sha256:
        raise RunError(
            f"'protocol.init_from': '{folder}' was trained with another tokenizer than that of "
            f"'{short(own.folder.path)}'; make them equal"
        )

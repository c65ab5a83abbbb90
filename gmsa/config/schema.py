"""The schema of all settings: frozen dataclasses, one per concern."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from gmsa.config.components import component_name
from gmsa.config.groups.data import DataConfig
from gmsa.config.groups.graph import WHOLE, GraphConfig
from gmsa.config.groups.missing import Missing
from gmsa.config.groups.model import ModelConfig, check_convs
from gmsa.config.groups.run import RunConfig
from gmsa.config.groups.target import AUTO, SELECTABLE, SELECTED, TargetConfig
from gmsa.config.groups.text import TextConfig
from gmsa.config.groups.training import (
    ConsistencyConfig,
    DistillationConfig,
    LossConfig,
    OptimConfig,
    PretrainConfig,
    ProtocolConfig,
    ReconstructionConfig,
    SelfTrainingConfig,
)
from gmsa.config.presets import MODALITIES, MOST_MODALITIES, OTHERS
from gmsa.errors import ConfigError, cut, listed, nearest, shown


@dataclass(frozen=True)
class Config:
    """All settings of a run, one dataclass per concern."""

    data: DataConfig = field(default_factory=DataConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    text: TextConfig = field(default_factory=TextConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    self_training: SelfTrainingConfig = field(default_factory=SelfTrainingConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    run: RunConfig = field(default_factory=RunConfig)
    plugins: tuple[str, ...] = ()
    """Modules that register parts of your own (models, edge builders, protocols, metrics, callbacks)."""

    def __post_init__(self) -> None:
        model, data, run = self.model, self.data, self.run
        if model.channels % model.heads:
            raise ConfigError(
                f"'model.channels' must be divisible by 'model.heads' (got {model.channels} and {model.heads})"
            )
        one = data.modalities != AUTO and len(data.modalities) < 2
        nothing_hidden = one or not any(model.modality_dropout.of(m) for m in self.named_modalities)
        if self.reconstruction.target == "oracle":
            nothing_hidden = nothing_hidden and data.missing.train == "none"
        if self.reconstruction.weight and nothing_hidden:
            raise ConfigError(
                "'reconstruction.weight' has nothing to reconstruct: hide modalities in training by "
                "'model.modality_dropout', or by 'data.missing.train' with 'reconstruction.target: oracle'"
            )
        if self.pretrain.epochs and self.graph.scope == "dialogue" and one:
            raise ConfigError(
                "'pretrain.epochs' masks whole modalities in graphs of dialogues, of which 'data.modalities' has one; "
                "set it to 0, or 'graph.scope' to utterance or hierarchical"
            )
        if self.pretrain.epochs and one and self.trains_text_encoder and self.text.nodes == "transcript":
            raise ConfigError(
                "'pretrain.epochs' masks some nodes of an utterance, of which 'text.nodes: transcript' gives one and "
                "'data.modalities' no other; set it to 0, or 'text.nodes' to pieces"
            )
        if self.protocol.init_from is not None and self.pretrain.epochs:
            raise ConfigError("'protocol.init_from' and 'pretrain.epochs' both say where to start; leave one out")
        past, future = self.graph.reach
        if self.graph.has_dialogues and model.sequence == "gru" and (past < WHOLE or 0 < future < WHOLE):
            raise ConfigError(
                "'model.sequence: gru' reaches all utterances of a dialogue; set 'graph.past' to all, and "
                "'graph.future' to all or to 0, or 'model.sequence' to transformer, which keeps to their reach"
            )
        self._check_modalities()
        for modality, convs in model.encoders.items():
            check_convs(convs, f"model.encoders.{modality}")
        selectable = (AUTO, *SELECTABLE[self.target.chosen_metrics], *map(component_name, run.metrics))
        if run.select not in selectable:
            raise ConfigError(
                f"'run.select' must be one of {listed(selectable)} (got {shown(run.select)})"
                f"{nearest(run.select, selectable)}; name another metric in 'run.metrics' first"
            )
        for key, chosen in (("data.modalities", data.modalities), ("run.seeds", run.seeds)):
            if not chosen:
                raise ConfigError(f"'{key}' must not be empty")
            if len(set(chosen)) != len(chosen):
                raise ConfigError(f"'{key}' lists a value twice (got {shown(list(chosen))})")

    @property
    def trains_text_encoder(self) -> bool:
        """Whether a text encoder is trained with the rest: the features of ``text`` are numbers of word pieces then."""
        return self.model.text_encoder is not None and self.text.tuning != "frozen"

    @property
    def named_modalities(self) -> tuple[str, ...]:
        """The modalities of ``data.modalities``; those of the presets and of other settings where it is ``auto``."""
        if isinstance(self.data.modalities, tuple):
            return self.data.modalities
        return tuple(dict.fromkeys((*MODALITIES, *self.model.encoders.named, *self.model.modality_dropout.named)))

    @property
    def select(self) -> str:
        """The validation metric that selects the checkpoint."""
        return SELECTED[self.target.chosen_metrics] if self.run.select == AUTO else self.run.select

    def _check_modalities(self) -> None:
        """Checks the names in ``data.modalities`` and in the settings by modality."""
        data = self.data
        for key in ("modalities", "normalize"):
            for name in getattr(data, key) if getattr(data, key) != AUTO else ():
                check_modality(name, f"data.{key}")
        if data.modalities == AUTO:
            return
        for split in data.missing.one_for_all:
            check_missing(data.missing.of(split), data.modalities, f"data.missing.{split}")
        if len(data.modalities) > MOST_MODALITIES:
            raise ConfigError(f"'data.modalities' lists {len(data.modalities)}; at most {MOST_MODALITIES} are used")
        known = dict.fromkeys((*data.modalities, *MODALITIES))
        pairs = [f"{a}_to_{b}" for a in known for b in known if a != b]
        for key, names, allowed in (
            ("model.encoders", self.model.encoders.named, known),
            ("model.modality_dropout", self.model.modality_dropout.named, known),
            ("graph.intra", self.graph.intra.named, known),
            ("graph.inter", self.graph.inter.named, pairs),
        ):
            for name in names:
                if name not in allowed:
                    raise ConfigError(
                        f"unknown key '{key}.{cut(name)}'{nearest(name, allowed)}: 'data.modalities' has "
                        f"{listed(data.modalities)}; add the modality there, or leave the key out"
                    )
        for name in () if data.normalize == AUTO else data.normalize:
            if name not in known:
                raise ConfigError(
                    f"'data.normalize' names {shown(name)}{nearest(name, known)}, which is none of 'data.modalities' "
                    f"({listed(data.modalities)}); leave it out"
                )


def check_missing(missing: Missing, modalities: Sequence[str], key: str) -> None:
    """Checks that a protocol of missing modalities fits the modalities of a data set.

    Raises:
        ConfigError: its rate cannot be reached, or it keeps all of them, or one that is not there.
    """
    count = len(modalities)
    if missing.protocol == "eta" and missing.rate > 1 - 1 / count + 0.005:  # 0.67 is meant as two thirds
        raise ConfigError(
            f"'{key}': eta takes a rate from 0 to {1 - 1 / count:.4g} with {count} modalities, of which one always "
            f"stays (got eta:{missing.rate:g})"
        )
    if missing.protocol == "fixed":
        for name in missing.left:
            if name not in (*modalities, *MODALITIES):
                raise ConfigError(
                    f"'{key}': fixed keeps {shown(name)}{nearest(name, modalities)}, which is none of "
                    f"{listed(modalities)}"
                )
        if set(modalities) <= set(missing.left):
            raise ConfigError(f"'{key}': {missing} keeps every modality; name fewer, or use none")


def check_modality(name: str, key: str) -> None:
    """Refuses a name that no modality may have.

    Raises:
        ConfigError: it is not letters, digits and underscores, or a word that means something else in settings.
    """
    if _DEVICES.fullmatch(name):
        raise ConfigError(f"'{key}': Windows keeps the name {shown(name)} for itself; rename the modality")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name) or "_to_" in name or name in _RESERVED:
        raise ConfigError(
            f"'{key}': a modality's name begins with a letter and has letters, digits and underscores, not "
            f"{', '.join(_RESERVED)} or '_to_' (got {shown(name)})"
        )


_DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)
"""Names that no file may have on Windows."""
_RESERVED = (
    *(OTHERS, AUTO, "val", "cls", "dialogue", "all", "none", "id", "ids", "label", "steps", "training"),
    "smart_apply",  # a method that transformers adds to every module of torch
)

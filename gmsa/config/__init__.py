"""Settings: frozen dataclasses, read from strict YAML, changed by dotted overrides."""

from gmsa.config.fields import ByModality
from gmsa.config.groups.data import SYNTHETIC, SYNTHETIC_DIALOGUES, DataConfig, SplitConfig
from gmsa.config.groups.graph import GraphConfig
from gmsa.config.groups.missing import MissingConfig
from gmsa.config.groups.model import ModelConfig
from gmsa.config.groups.run import RunConfig
from gmsa.config.groups.target import AUTO, TargetConfig
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
from gmsa.config.load import change, from_dict, load_config, to_dict
from gmsa.config.presets import MODALITIES
from gmsa.config.schema import Config

__all__ = [
    "AUTO",
    "MODALITIES",
    "SYNTHETIC",
    "SYNTHETIC_DIALOGUES",
    "ByModality",
    "Config",
    "ConsistencyConfig",
    "DataConfig",
    "DistillationConfig",
    "GraphConfig",
    "LossConfig",
    "MissingConfig",
    "ModelConfig",
    "OptimConfig",
    "PretrainConfig",
    "ProtocolConfig",
    "ReconstructionConfig",
    "RunConfig",
    "SelfTrainingConfig",
    "SplitConfig",
    "TargetConfig",
    "TextConfig",
    "change",
    "from_dict",
    "load_config",
    "to_dict",
]

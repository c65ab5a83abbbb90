"""Settings: frozen dataclasses, read from strict YAML, changed by dotted overrides."""

from gmsa.config.data import SYNTHETIC, SYNTHETIC_DIALOGUES, DataConfig, SplitConfig
from gmsa.config.fields import ByModality
from gmsa.config.graph import GraphConfig
from gmsa.config.load import change, from_dict, load_config, to_dict
from gmsa.config.missing import MissingConfig
from gmsa.config.presets import MODALITIES
from gmsa.config.schema import (
    Config,
    ConsistencyConfig,
    DistillationConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    PretrainConfig,
    ProtocolConfig,
    ReconstructionConfig,
    RunConfig,
    SelfTrainingConfig,
    TextConfig,
)
from gmsa.config.target import AUTO, TargetConfig

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

"""Settings: frozen dataclasses, read from strict YAML, changed by dotted overrides."""

from gmsa.config.graph import GraphConfig
from gmsa.config.load import change, from_dict, load_config, to_dict
from gmsa.config.missing import MissingConfig
from gmsa.config.schema import (
    MODALITIES,
    SHARED,
    SYNTHETIC,
    Config,
    ConsistencyConfig,
    DataConfig,
    DistillationConfig,
    LossConfig,
    ModalityDropout,
    ModelConfig,
    OptimConfig,
    PretrainConfig,
    ProtocolConfig,
    ReconstructionConfig,
    RunConfig,
    SelfTrainingConfig,
)

__all__ = [
    "MODALITIES",
    "SHARED",
    "SYNTHETIC",
    "Config",
    "ConsistencyConfig",
    "DataConfig",
    "DistillationConfig",
    "GraphConfig",
    "LossConfig",
    "MissingConfig",
    "ModalityDropout",
    "ModelConfig",
    "OptimConfig",
    "PretrainConfig",
    "ProtocolConfig",
    "ReconstructionConfig",
    "RunConfig",
    "SelfTrainingConfig",
    "change",
    "from_dict",
    "load_config",
    "to_dict",
]

"""Settings: frozen dataclasses, read from strict YAML, changed by dotted overrides."""

from gmsa.config.graph import GraphConfig
from gmsa.config.load import change, from_dict, load_config, to_dict
from gmsa.config.missing import MissingConfig
from gmsa.config.schema import (
    MODALITIES,
    SHARED,
    SYNTHETIC,
    Config,
    DataConfig,
    LossConfig,
    ModalityDropout,
    ModelConfig,
    OptimConfig,
    PretrainConfig,
    ProtocolConfig,
    RunConfig,
)

__all__ = [
    "MODALITIES",
    "SHARED",
    "SYNTHETIC",
    "Config",
    "DataConfig",
    "GraphConfig",
    "LossConfig",
    "MissingConfig",
    "ModalityDropout",
    "ModelConfig",
    "OptimConfig",
    "PretrainConfig",
    "ProtocolConfig",
    "RunConfig",
    "change",
    "from_dict",
    "load_config",
    "to_dict",
]

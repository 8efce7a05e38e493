"""Settings of language-model training: typed, checked, merged from YAML files and the command line."""

from innerloop.llm.config.load import (
    ConfigWarning,
    available_configs,
    config_from_dict,
    load_config,
    method_config,
    to_dict,
    to_yaml,
    with_overrides,
)
from innerloop.llm.config.schema import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    ExperimentConfig,
    FsdpConfig,
    ImplicitConfig,
    MetaConfig,
    MethodConfig,
    ModelConfig,
    PrepareConfig,
    TaskEntry,
    TrainerConfig,
)
from innerloop.settings.optim import OptimConfig

__all__ = [
    "CheckpointConfig",
    "Config",
    "ConfigWarning",
    "DataConfig",
    "EvaluateConfig",
    "ExperimentConfig",
    "FsdpConfig",
    "ImplicitConfig",
    "MetaConfig",
    "MethodConfig",
    "ModelConfig",
    "OptimConfig",
    "PrepareConfig",
    "TaskEntry",
    "TrainerConfig",
    "available_configs",
    "config_from_dict",
    "load_config",
    "method_config",
    "to_dict",
    "to_yaml",
    "with_overrides",
]

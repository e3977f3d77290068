"""What PEFT objects say; PEFT is imported only where a model of its is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any


def is_peft_model(value: Any) -> bool:
    return not isinstance(value, Mapping) and hasattr(value, "peft_config")


def read_peft_model(model: Any, adapter: str | None) -> tuple[dict[str, Any], Any]:
    """The tensors and the config of one adapter of the model; its active one by default."""
    from peft import get_peft_model_state_dict

    name = adapter or model.active_adapter
    if not isinstance(name, str):
        raise ValueError(f"Expected one adapter but several are active: {name}; say which by adapter=")
    return get_peft_model_state_dict(model, adapter_name=name), model.peft_config[name]


def config_dict(config: Any) -> dict[str, Any]:
    """adapter_config.json of a dict or of a PEFT config."""
    if isinstance(config, Mapping):
        return {str(key): _plain(value) for key, value in config.items()}
    keys = config_dict(config.to_dict())
    # A trainer's config says that it trains; what is pushed is for inference, as what save_pretrained writes.
    return {**keys, "inference_mode": True}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        # Sets have no order, and the config is part of the digest.
        return sorted(_plain(item) for item in value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    return value

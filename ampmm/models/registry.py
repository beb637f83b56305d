"""Which architectures there are: name to (model, hyperparameters)."""

from collections.abc import Mapping
from typing import Any

from ampmm.errors import InputError
from ampmm.models.amp import AMP
from ampmm.models.amp_bms import AMPBMS
from ampmm.models.amp_bms_config import AMPBMSConfig
from ampmm.models.amp_config import AMPConfig
from ampmm.models.base import Hyperparameters, Model

_REGISTRY: dict[str, tuple[type[Model], type[Hyperparameters]]] = {
    AMP.architecture: (AMP, AMPConfig),
    AMPBMS.architecture: (AMPBMS, AMPBMSConfig),
}


def architectures() -> tuple[str, ...]:
    """The known architecture names."""
    return tuple(_REGISTRY)


def build_model(architecture: str, hyperparameters: Mapping[str, Any]) -> Model:
    """A fresh model of a named architecture; unknown names of either kind raise `InputError`."""
    if architecture not in _REGISTRY:
        raise InputError(f"architecture: expected one of {', '.join(_REGISTRY)}, got {architecture!r}")
    model, config = _REGISTRY[architecture]
    return model(config.from_dict(hyperparameters))  # type: ignore[call-arg]

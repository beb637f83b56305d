"""ML/MM molecular dynamics with anisotropic message passing in OpenMM.

The public names are imported when they are first used, so that `import ampmm` takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ampmm.embedding import add_force, create_mixed_system, load_structure
    from ampmm.export import load_model, shipped_models
    from ampmm.types import Evaluation

__all__ = [
    "Evaluation",
    "__version__",
    "add_force",
    "create_mixed_system",
    "load_model",
    "load_structure",
    "shipped_models",
]

_HOMES = {
    "Evaluation": "ampmm.types",
    "add_force": "ampmm.embedding",
    "create_mixed_system": "ampmm.embedding",
    "load_model": "ampmm.export",
    "load_structure": "ampmm.embedding",
    "shipped_models": "ampmm.export",
}
_ROOMS = ("data", "embedding", "evaluation", "export", "models", "reference", "simulation", "training")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("ampmm")
    if name in _ROOMS:
        return importlib.import_module(f"ampmm.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'ampmm' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

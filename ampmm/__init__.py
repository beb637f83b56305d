"""ML/MM molecular dynamics with anisotropic message passing in OpenMM.

The public names are imported when they are first used, so that `import ampmm` takes no time.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ampmm.embedding import add_force, create_mixed_system, load_structure
    from ampmm.export import load_model
    from ampmm.types import Evaluation

__all__ = [
    "Evaluation",
    "__version__",
    "add_force",
    "create_mixed_system",
    "load_model",
    "load_structure",
    "models",
]

_HOMES = {
    "Evaluation": "ampmm.types",
    "add_force": "ampmm.embedding",
    "create_mixed_system": "ampmm.embedding",
    "load_model": "ampmm.export",
    "load_structure": "ampmm.embedding",
}


_ROOMS = ("data", "embedding", "evaluation", "export", "reference", "simulation", "training")


class _ShippedModels(ModuleType):
    """The module `ampmm.models`, which called as a function lists the models that ship with ampmm."""

    def __call__(self) -> tuple[str, ...]:
        return importlib.import_module("ampmm.export").models()


class _Package(ModuleType):
    """Importing a room sets it as an attribute here; `models` is a room and a public function at once."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "models" and isinstance(value, ModuleType):
            value.__class__ = _ShippedModels
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "models":
        return importlib.import_module("ampmm.models")
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

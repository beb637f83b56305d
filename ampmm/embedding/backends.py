"""How a potential becomes an OpenMM force: TorchForce of the `openmmtorch` wheel, or OpenMM's own PythonForce.

Both run the same scripted module, so they agree to rounding. TorchForce stays in C++; PythonForce goes through Python
at every step, works with any torch, and can be copied, serialised, and put into a CustomCVForce.
"""

import importlib
import logging
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Final

import openmm
import torch
from torch import nn

from ampmm.embedding.computations import GraphComputation, PotentialComputation
from ampmm.errors import BackendError, InputError
from ampmm.export import use_simple_executor

FORCE_NAME: Final = "ampmm"


class Backend(ABC):
    """One way for OpenMM to call a potential."""

    name: ClassVar[str]

    @abstractmethod
    def missing(self) -> str:
        """Why the backend cannot run here and what to install; empty if it can."""

    @abstractmethod
    def make_force(self, potential: nn.Module, periodic: bool, cuda_graphs: bool = False) -> openmm.Force:
        """A force that calls the potential.

        Args:
            potential: scriptable, ``forward(positions, boxvectors=None) -> (energy, forces)`` over all particles of the
                Context, in nm, kJ/mol and kJ/mol/nm.
            periodic: whether it needs the box vectors.
            cuda_graphs: whether its calls are replayed as a CUDA graph; it has to be a `FixedShapePotential` then.
        """


class TorchForceBackend(Backend):
    """TorchForce: LibTorch called from C++.

    With OpenMM 8.6 the wheel openmmtorch 1.5 writes a force to XML but crashes the process when it reads one, which
    `copy.deepcopy(system)` and a CustomCVForce do too. `ampmm.embedding.deserialize_system` reads such XML.
    """

    name = "torchforce"

    def missing(self) -> str:
        try:
            import_openmmtorch()
        except Exception as error:  # a missing module, or a library of another torch or CUDA
            return (
                f"openmmtorch does not load here ({type(error).__name__}: {error}; torch {torch.__version__}, OpenMM "
                f'{openmm.version.short_version}); install ampmm with its extra "torchforce" (openmmtorch 1.5 needs '
                "torch 2.9 with CUDA 12 libraries)"
            )
        return ""

    def make_force(self, potential: nn.Module, periodic: bool, cuda_graphs: bool = False) -> openmm.Force:
        force = import_openmmtorch().TorchForce(_script(potential))
        force.setOutputsForces(True)
        if cuda_graphs:
            force.setProperty("useCUDAGraphs", "true")
        force.setUsesPeriodicBoundaryConditions(periodic)
        return force


class PythonForceBackend(Backend):
    """PythonForce: OpenMM calls Python, which calls torch. The force serialises together with its module."""

    name = "python"

    def missing(self) -> str:
        if hasattr(openmm, "PythonForce"):
            return ""
        return f"OpenMM {openmm.version.short_version} has no PythonForce; install OpenMM 8.4 or newer"

    def make_force(self, potential: nn.Module, periodic: bool, cuda_graphs: bool = False) -> openmm.Force:
        computation = GraphComputation if cuda_graphs else PotentialComputation
        force = openmm.PythonForce(computation(_script(potential), periodic))
        force.setUsesPeriodicBoundaryConditions(periodic)
        return force


BACKENDS: Final[dict[str, Backend]] = {each.name: each for each in (TorchForceBackend(), PythonForceBackend())}


def get_backend(name: str = "auto") -> Backend:
    """The backend of a name; ``"auto"`` takes TorchForce where it loads and PythonForce elsewhere.

    Raises:
        InputError: there is no backend of that name.
        BackendError: it does not load here; the message says what to install.
    """
    if name == "auto":
        reasons = {}
        for each in BACKENDS.values():
            reasons[each.name] = each.missing()
            if not reasons[each.name]:
                return each
        raise BackendError("backend: none loads here: " + "; ".join(f"{k}: {why}" for k, why in reasons.items()))
    if name not in BACKENDS:
        raise InputError(f'backend: expected "auto", {", ".join(map(repr, BACKENDS))}, got {name!r}')
    reason = BACKENDS[name].missing()
    if reason:
        others = [f'"{other}"' for other, each in BACKENDS.items() if other != name and not each.missing()]
        instead = f"; or use backend={' or '.join(others)}" if others else ""
        raise BackendError(f"backend {name!r}: {reason}{instead}")
    return BACKENDS[name]


@cache
def import_openmmtorch() -> ModuleType:
    """The module openmmtorch, with its kernels, and without the warning that its outdated way of importing OpenMM logs.

    Its libraries need those of torch. In a script that imports OpenMM before torch, OpenMM has already tried to load the
    kernels, in vain: they are loaded here.
    """
    root = logging.getLogger()
    root.addFilter(_is_no_simtk_warning)
    try:
        module = importlib.import_module("openmmtorch")
    finally:
        root.removeFilter(_is_no_simtk_warning)
    loaded, failures = list(openmm.pluginLoadedLibNames), []
    for plugin in sorted((Path(openmm.version.openmm_library_path) / "plugins").glob("*OpenMMTorch*")):
        if str(plugin) not in loaded:
            try:
                openmm.Platform.loadPluginLibrary(str(plugin))
                loaded.append(str(plugin))
            except openmm.OpenMMException as error:  # a platform that is not installed, or torch libraries missing
                failures.append(str(error))
    if not any("OpenMMTorch" in name for name in loaded):
        raise ImportError(f"no kernels of openmmtorch could be loaded: {failures}")
    return module


def _is_no_simtk_warning(record: logging.LogRecord) -> bool:
    return "simtk.openmm" not in record.getMessage()


def _script(potential: nn.Module) -> torch.jit.ScriptModule:
    use_simple_executor()
    return potential if isinstance(potential, torch.jit.ScriptModule) else torch.jit.script(potential)

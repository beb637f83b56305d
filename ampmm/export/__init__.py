"""Models as files and at run time: cards, `.pt` archives, and the potential that OpenMM calls."""

from ampmm.export.cuda_graphs import capture
from ampmm.export.evaluator import Evaluator
from ampmm.export.executor import use_simple_executor
from ampmm.export.fixed_shapes import FixedShapePotential
from ampmm.export.loaded_model import LoadedModel, checked_cutoff
from ampmm.export.metadata import Card
from ampmm.export.native_modules import load_scripted, uses_native_operators
from ampmm.export.runtime import Potential
from ampmm.export.torchscript import load_model, save_model, shipped_models

__all__ = [
    "Card",
    "Evaluator",
    "FixedShapePotential",
    "LoadedModel",
    "Potential",
    "capture",
    "checked_cutoff",
    "load_model",
    "load_scripted",
    "save_model",
    "shipped_models",
    "use_simple_executor",
    "uses_native_operators",
]

"""The QM region inside an OpenMM System: selection, classical terms, backends, files."""

from ampmm.embedding.backends import BACKENDS, Backend, get_backend
from ampmm.embedding.bounds import Bounds, bounds_from_card
from ampmm.embedding.computations import EvaluatorComputation, make_evaluator_force
from ampmm.embedding.electrostatics import longest_cutoff
from ampmm.embedding.mixed_system import add_force, bonds_within, create_mixed_system, warn_of_charge
from ampmm.embedding.mm_forces import Stripped, read_charges, strip_qm_terms
from ampmm.embedding.nonbonded import nonbonded_charges
from ampmm.embedding.presets import PRESETS, Preset, create_preset_system, get_preset
from ampmm.embedding.regions import select_qm_atoms
from ampmm.embedding.serialization import deserialize_system, serialize_system
from ampmm.embedding.shifted_reaction_field import use_shifted_reaction_field
from ampmm.embedding.structure_files import LoadedStructure, load_structure
from ampmm.export import Evaluator

__all__ = [
    "BACKENDS",
    "PRESETS",
    "Backend",
    "Bounds",
    "Evaluator",
    "EvaluatorComputation",
    "LoadedStructure",
    "Preset",
    "Stripped",
    "add_force",
    "bonds_within",
    "bounds_from_card",
    "create_mixed_system",
    "create_preset_system",
    "deserialize_system",
    "get_backend",
    "get_preset",
    "load_structure",
    "longest_cutoff",
    "make_evaluator_force",
    "nonbonded_charges",
    "read_charges",
    "select_qm_atoms",
    "serialize_system",
    "strip_qm_terms",
    "use_shifted_reaction_field",
    "warn_of_charge",
]

"""The published simulation set-ups of AMP-BMS by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import openmm
import torch
from openmm import app

from ampmm.embedding.mixed_system import Model, create_mixed_system
from ampmm.embedding.shifted_reaction_field import use_shifted_reaction_field
from ampmm.errors import InputError
from ampmm.units import NM_PER_ANGSTROM


@dataclass(frozen=True)
class Preset:
    """Water, solute and cutoff of a set-up: rigid water, unconstrained solute, shifted reaction field everywhere."""

    force_fields: tuple[str, ...]  # files of OpenMM
    water_model: str  # for `Modeller.addSolvent`
    water_sites: int  # of one molecule
    cutoff: float  # Å; of MM–MM and QM–MM electrostatics and Lennard-Jones


PRESETS: Final = {
    "tip3p": Preset(("amber14-all.xml", "amber14/tip3p.xml"), "tip3p", 3, 9.0),
    "tip4p-fb": Preset(("amber14-all.xml", "amber14/tip4pfb.xml"), "tip4pew", 4, 9.0),  # addSolvent's own four-site geometry
}


def get_preset(name: str) -> Preset:
    """The preset of a name; an unknown one raises `InputError` with the known ones."""
    if name not in PRESETS:
        raise InputError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]


def create_preset_system(
    topology: app.Topology,
    qm_atoms: str | Sequence[int] | np.ndarray,
    model: Model,
    preset: str = "tip3p",
    force_field: app.ForceField | None = None,
    **options: Any,
) -> tuple[openmm.System, np.ndarray]:
    """A System as AMP-BMS was published with, from a solvated Topology.

    Args:
        topology: of the whole periodic system, with the preset's water and its virtual sites.
        qm_atoms, model, options: see `create_mixed_system`.
        preset: "tip3p" or "tip4p-fb".
        force_field: for other solutes; default Amber14 with the preset's water. It has to hold the preset's water.

    Returns:
        The System, and the QM atoms' indices (N,), ascending.
    """
    chosen = get_preset(preset)
    classical = (force_field or app.ForceField(*chosen.force_fields)).createSystem(
        topology,
        nonbondedMethod=app.CutoffPeriodic,
        nonbondedCutoff=chosen.cutoff * NM_PER_ANGSTROM,
        constraints=None,
        rigidWater=True,
    )
    system, qm = create_mixed_system(topology, classical, qm_atoms, model, coulomb_cutoff=chosen.cutoff, **options)
    precise = options.get("dtype") == torch.float64
    use_shifted_reaction_field(system, chosen.cutoff, backend=options.get("backend", "auto"), precise=precise)
    return system, qm

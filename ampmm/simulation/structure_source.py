"""A run from a structure file and a preset: what is QM, and water around a solute that comes without."""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import openmm
from openmm import app, unit

from ampmm.embedding import LoadedStructure, Preset, get_preset, load_structure
from ampmm.errors import InputError
from ampmm.simulation.config import STRUCTURE_SUFFIXES, SimulationConfig
from ampmm.simulation.system_files import SystemFiles
from ampmm.units import AVOGADRO, NM_PER_ANGSTROM

SOLVATED: Final = "solvated.pdb"
LEAST_DENSITY: Final = 0.8  # g/mL, of a box without a warning
_COORDINATE_FILES: Final = (".pdb", ".cif", ".pdbx")
_RELAXATIONS: Final = 10  # iterations of the classical minimisation of a new box, for each of `minimize`


def is_structure_file(system: str) -> bool:
    """Whether a config's `system` is a structure file rather than a system's folder or name."""
    return Path(system).suffix.lower() in STRUCTURE_SUFFIXES


def solvate_if_needed(config: SimulationConfig, claim: Callable[[], None] = lambda: None) -> SimulationConfig:
    """The config of the run, with a solvated PDB in the run's folder for a solute that came without water.

    A solute gets the hydrogens it lacks, the preset's water in a cube that leaves `padding` between it and its images
    (and is at least twice as wide), and ions that neutralise it. With `minimize`, the new box is relaxed under the classical
    force field. Waters of a crystal structure, which have no hydrogens, and its unit cell are left out. `claim` is called
    before anything is written.

    Raises:
        InputError: no preset, a file that cannot be read, or residues that the preset's force field does not know.
    """
    if not is_structure_file(config.system):
        return config
    if not config.preset:
        raise InputError(
            f'preset: expected "tip3p" or "tip4p-fb" with the structure file {config.system}, got none; give --preset, or '
            "a folder with a system.yaml in the place of the file"
        )
    preset, path = get_preset(config.preset), Path(config.system)
    if path.suffix.lower() not in _COORDINATE_FILES:
        _refuse_padding(config)
        return config
    structure = load_structure(path, parameters=preset.force_fields)
    if has_whole_waters(structure.topology):
        _refuse_padding(config)
        return config
    topology, positions = _solvated(structure, preset, config)
    claim()
    config.folder.mkdir(parents=True, exist_ok=True)
    target = config.folder / SOLVATED
    with target.open("w") as file:
        app.PDBFile.writeFile(topology, positions, file, keepIds=True)
    return dataclasses.replace(config, system=str(target.resolve()), output=str(config.folder))


def _refuse_padding(config: SimulationConfig) -> None:
    if config.padding != SimulationConfig.padding:
        raise InputError(
            f"padding: expected with a solute to solvate, got {config.padding:g} Å with {config.system}, which has its water"
        )


def read_structure(config: SimulationConfig) -> tuple[SystemFiles, LoadedStructure]:
    """What a folder's `system.yaml` would say about a solvated structure file, and the structure.

    Raises:
        InputError: files that cannot be read, no water, no periodic box, or water of another number of sites than the preset's.
    """
    preset, path = get_preset(config.preset), _where_it_is_now(config)
    if path.suffix.lower() in _COORDINATE_FILES:
        structure = _with_virtual_sites(load_structure(path, parameters=preset.force_fields), preset)
    else:
        structure = load_structure(path, config.coordinates or None)
    if structure.box_vectors is None:
        raise InputError(f"system: expected a periodic box with {path}, got none; a PDB has it in its CRYST1 record")
    check_water(structure.topology, config.preset, path)
    _check_density(structure, path)
    qm_atoms: Any = config.qm_atoms or solute_atoms(structure.topology)
    files = SystemFiles(
        name=path.stem, topology=path, coordinates=path, qm_atoms=qm_atoms, qm_charge=None, model="", droplet=None
    )
    return files, structure


def check_water(topology: app.Topology, preset: str, path: Path) -> None:
    """Refuse water, read from `path`, that has another number of sites than the named preset's."""
    expected = get_preset(preset).water_sites
    sites = {len(list(residue.atoms())) for residue in topology.residues() if is_water(residue)}
    if sites != {expected}:
        raise InputError(
            f"preset: {preset} has water of {expected} sites, got {path} with water of "
            f"{', '.join(map(str, sorted(sites))) or 'no'} sites; choose the preset of its water, or solvate it anew"
        )


def _check_density(structure: LoadedStructure, path: Path) -> None:
    """Warn of a box that is mostly empty: a crystal's unit cell with a few waters that got hydrogens is not solvated."""
    elements = [atom.element for atom in structure.topology.atoms() if atom.element is not None]
    mass = sum(element.mass.value_in_unit(unit.dalton) for element in elements)
    volume = float(np.linalg.det(np.array(structure.box_vectors.value_in_unit(unit.nanometer))))
    density = mass / (AVOGADRO * 1e-21) / volume  # 1 nm³ is 1e-21 mL
    if density < LEAST_DENSITY:
        warnings.warn(
            f"system: the box of {path} has a density of {density:.2f} g/mL, less than water's; if it is not meant to be empty "
            "in part, delete its waters, so that it gets new ones",
            stacklevel=2,
        )


def _where_it_is_now(config: SimulationConfig) -> Path:
    """The structure file; the solvated one of a run whose folder was moved has moved along."""
    path = Path(config.system)
    own = config.folder / SOLVATED
    return own if path.name == SOLVATED and not path.is_file() and own.is_file() else path


def is_water(residue: Any) -> bool:
    """Whether a residue of a Topology has an oxygen, its hydrogens if any, and virtual sites."""
    symbols = sorted(atom.element.symbol for atom in residue.atoms() if atom.element is not None)
    return symbols in (["H", "H", "O"], ["O"])


def has_whole_waters(topology: app.Topology) -> bool:
    """Whether there is water with hydrogens."""
    return any(is_water(residue) and len(list(residue.atoms())) > 1 for residue in topology.residues())


def solute_atoms(topology: app.Topology) -> list[int]:
    """All atoms of residues that are neither water nor single ions.

    Raises:
        InputError: there are none.
    """
    solute = [residue for residue in topology.residues() if len(list(residue.atoms())) > 1 and not is_water(residue)]
    if not solute:
        raise InputError("system: expected a solute, got nothing but water and ions; name the QM atoms with --qm-atoms")
    return [atom.index for residue in solute for atom in residue.atoms()]


def _with_virtual_sites(structure: LoadedStructure, preset: Preset) -> LoadedStructure:
    """Three-site water with the fourth site that the preset's has."""
    modeller = app.Modeller(structure.topology, structure.positions)
    force_field = app.ForceField(*preset.force_fields)
    try:
        modeller.addExtraParticles(force_field)
    except ValueError as error:
        raise InputError(f"system: {_unknown(error)}") from None
    if modeller.topology.getNumAtoms() == structure.topology.getNumAtoms():
        return structure
    topology = modeller.topology

    def create_system(**options: Any) -> openmm.System:
        return force_field.createSystem(topology, **options)

    return LoadedStructure(topology, modeller.positions, structure.box_vectors, create_system)


def _solvated(structure: LoadedStructure, preset: Preset, config: SimulationConfig) -> tuple[app.Topology, unit.Quantity]:
    modeller = app.Modeller(structure.topology, structure.positions)
    modeller.delete([residue for residue in structure.topology.residues() if is_water(residue)])
    modeller.topology.setPeriodicBoxVectors(None)
    force_field = app.ForceField(*preset.force_fields)
    try:
        modeller.addHydrogens(force_field)
        modeller.addSolvent(force_field, model=preset.water_model, padding=config.padding * NM_PER_ANGSTROM * unit.nanometer)
        if not config.minimize:
            return modeller.topology, modeller.positions
        system = force_field.createSystem(
            modeller.topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=preset.cutoff * NM_PER_ANGSTROM
        )
    except ValueError as error:
        raise InputError(f"system: {_unknown(error)}") from None
    try:
        context = openmm.Context(system, openmm.VerletIntegrator(0.001))
    except openmm.OpenMMException as error:
        raise InputError(
            f"padding: OpenMM cannot set up the solvated box: {error}. It has to be wider than twice the cutoff of "
            f"{preset.cutoff:g} Å; give a larger --padding"
        ) from None
    context.setPositions(modeller.positions)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=_RELAXATIONS * config.minimize)
    positions = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    return modeller.topology, np.asarray(positions) * unit.nanometer


def _unknown(error: ValueError) -> str:
    return (
        f"Amber14 cannot describe it ({error}); mend missing atoms (PDBFixer), or bring the solvated system as an Amber "
        "or GROMACS topology with --coordinates"
    )

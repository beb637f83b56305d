"""From a config to an OpenMM Simulation: files, model, ML/MM System, restraints, barostat, integrator."""

import hashlib
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import openmm
import torch
from openmm import app, unit

from ampmm.embedding import (
    Bounds,
    Preset,
    bonds_within,
    bounds_from_card,
    create_mixed_system,
    get_preset,
    load_structure,
    longest_cutoff,
    nonbonded_charges,
    select_qm_atoms,
    use_shifted_reaction_field,
    warn_of_charge,
)
from ampmm.errors import InputError
from ampmm.export import LoadedModel, load_model, shipped_models
from ampmm.simulation.config import CLASSICAL, SimulationConfig
from ampmm.simulation.droplet import add_droplet_restraints, check_wall
from ampmm.simulation.restraints import add_restraints, check_atoms
from ampmm.simulation.structure_source import check_water, is_structure_file, read_structure
from ampmm.simulation.system_files import SystemFiles, read_system
from ampmm.units import ANGSTROM_PER_NM, NM_PER_ANGSTROM

MM_CUTOFF_NM: Final = 1.0
CONSTRAINT_TOLERANCE: Final = 1e-6
SEED_SPAN: Final = 2**31 - 1


class Region(NamedTuple):
    """The QM region of a run and what evaluates it."""

    model: Any  # an Evaluator, or None for a classical run
    indices: np.ndarray  # (N,) int
    numbers: np.ndarray  # (N,) int
    labels: tuple[str, ...]  # unique atom names
    mm_indices: np.ndarray  # (M,) int
    mm_charges: np.ndarray  # (M,) e
    qm_charge: int
    bounds: Bounds
    options: dict[str, Any]  # further arguments of the model's `evaluate`: the run's precision and cutoff


class Assembled(NamedTuple):
    """All that a run needs."""

    topology: app.Topology
    system: openmm.System
    positions: np.ndarray  # (n_atoms, 3) nm
    region: Region
    restraints: tuple[str, ...]  # in words
    system_digest: str  # of its files, see `SystemFiles.digest`


def assemble(config: SimulationConfig, model: Any = None) -> Assembled:
    """Read the system, load the model, build the ML/MM System with the ensemble's forces.

    Args:
        config: the run's settings.
        model: an Evaluator to use instead of the one that the config names.

    Raises:
        InputError, EmbeddingError, ModelFileError, BackendError: see the functions called.
    """
    preset = get_preset(config.preset) if config.preset else None
    if is_structure_file(config.system):
        files, structure = read_structure(config)
    else:
        files = read_system(config.system, config.form)
        structure = load_structure(files.topology, files.coordinates)
        if preset is not None:
            check_water(structure.topology, config.preset, files.topology)
    topology = structure.topology
    check_atoms(files.restraints, topology.getNumAtoms())
    mm_system = _classical_system(structure, files, preset)
    _check_graphs(config)
    if model is None:
        model = named_model(config.model or files.model, files.name, model_device(config))
    indices = np.asarray(select_qm_atoms(topology, config.qm_atoms or files.qm_atoms), dtype=np.int64)
    region = _region(config, files, topology, mm_system, indices, model)
    system = mm_system
    if model is not None:
        system, _ = create_mixed_system(
            topology,
            mm_system,
            indices,
            model,
            backend=config.backend,
            electrostatics=config.electrostatics,
            coulomb_cutoff=region.options.get("coulomb_cutoff"),
            qm_charge=region.qm_charge,
            dtype=_dtype(config),
            cuda_graphs=config.cuda_graphs,
        )
    if preset is not None:
        implementation = "auto" if config.platform.lower() in ("auto", "cpu") else "openmm"
        use_shifted_reaction_field(system, preset.cutoff, implementation, config.backend, config.precision == "float64")
    positions = np.asarray(structure.positions.value_in_unit(unit.nanometer))
    if files.droplet is not None:
        check_wall(files.droplet.wall_radius, topology, indices, positions)
        add_droplet_restraints(system, topology, indices, *files.droplet)
    add_restraints(system, files.restraints)
    if config.ensemble == "NPT":
        barostat = openmm.MonteCarloBarostat(config.pressure * unit.bar, config.temperature * unit.kelvin)
        barostat.setRandomNumberSeed(_seed(config, 1))
        system.addForce(barostat)
    restraints = tuple(each.describe(topology) for each in files.restraints)
    return Assembled(topology, system, positions, region, restraints, files.digest)


def named_model(name: str, system: str, device: str = "cpu") -> Any:
    """A shipped model or one from a `.pt` file, on a device; None for "classical".

    Raises:
        InputError: no name is given; `system` is what none ships for.
        ModelFileError: there is no such model.
    """
    if name == CLASSICAL:
        return None
    if not name:
        shipped = ", ".join(shipped_models()) or "none"
        raise InputError(
            f"model: expected a .pt file, a shipped model's name ({shipped}) or 'classical', got nothing, and no model ships "
            f"for {system}; give --model. AMP-BMS (docs/amp_bms.md) with --preset is for peptides and other organic molecules, "
            "`ampmm train` makes a model of your own, 'classical' is the force field alone"
        )
    return load_model(name, device)


def model_device(config: SimulationConfig) -> str:
    """Where the model computes: on the GPU if OpenMM does, on its CUDA platform."""
    platforms = {openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())}
    on_gpu = config.platform.lower() in ("auto", "cuda") and "CUDA" in platforms and torch.cuda.is_available()
    return "cuda" if on_gpu else "cpu"


def _check_graphs(config: SimulationConfig) -> None:
    if config.cuda_graphs and torch.cuda.is_available() and model_device(config) != "cuda":  # else create_mixed_system refuses
        raise InputError(
            f"cuda_graphs: expected OpenMM's CUDA platform, got platform {config.platform!r}, where no graph is made of the "
            "model's calls; leave one of them out, or install OpenMM's CUDA platform"
        )


def model_digest(model: Any) -> str:
    """The first digits of the SHA-256 of a model's file: names are used again; empty for what has no file."""
    path = getattr(model, "path", None)
    return "" if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]


def _classical_system(structure: Any, files: SystemFiles, preset: Preset | None) -> openmm.System:
    periodic = files.droplet is None
    method, cutoff = app.PME if periodic else app.NoCutoff, MM_CUTOFF_NM
    if preset is not None:
        method, cutoff = app.CutoffPeriodic, NM_PER_ANGSTROM * preset.cutoff
    return structure.create_system(
        nonbondedMethod=method,
        nonbondedCutoff=cutoff * unit.nanometer,
        constraints=None,
        rigidWater=True,
        removeCMMotion=periodic,
    )


def _region(
    config: SimulationConfig,
    files: SystemFiles,
    topology: app.Topology,
    mm_system: openmm.System,
    indices: np.ndarray,
    model: Any,
) -> Region:
    atoms = list(topology.atoms())
    place = {int(index): i for i, index in enumerate(indices)}
    numbers = np.array([atoms[index].element.atomic_number for index in indices])
    names = [atoms[index].name for index in indices]
    labels = tuple(names if len(set(names)) == len(names) else (f"{n}{i}" for i, n in enumerate(names)))
    bonds = bonds_within(topology, indices)
    card = getattr(model, "card", None)
    bounds = bounds_from_card(getattr(card, "bounds", None) or {}, numbers, bonds, config.distance_slack, config.force_slack)
    force = next(force for force in mm_system.getForces() if isinstance(force, openmm.NonbondedForce))
    charges = nonbonded_charges(force)  # `read_charges` asks for what only a model needs
    mm_indices = np.array([i for i in range(len(atoms)) if i not in place and charges[i] != 0.0], dtype=np.int64)
    qm_charge = None if config.qm_atoms else files.qm_charge  # the system's is that of its own region
    if qm_charge is None:
        qm_charge = round(float(charges[indices].sum()))
    if model is None:  # else it is compared where the model's force is made
        warn_of_charge(qm_charge, float(charges[indices].sum()))
    options: dict[str, Any] = {"coulomb_cutoff": get_preset(config.preset).cutoff} if config.preset else {}
    if isinstance(model, LoadedModel):  # other evaluators have a precision of their own
        options["dtype"] = _dtype(config)
        if mm_system.usesPeriodicBoundaryConditions():
            longest = longest_cutoff(mm_system, with_barostat=config.ensemble == "NPT")
            options.setdefault("coulomb_cutoff", model.default_coulomb_cutoff(longest))
    return Region(model, indices, numbers, labels, mm_indices, charges[mm_indices], qm_charge, bounds, options)


def _dtype(config: SimulationConfig) -> torch.dtype:
    return torch.float64 if config.precision == "float64" else torch.float32


def _seed(config: SimulationConfig, stream: int) -> int:
    """One seed for each random stream, 1 to 2³¹−1: OpenMM reads 0 as "choose one yourself"."""
    return (config.seed - 1 + stream * 7919) % SEED_SPAN + 1


def make_simulation(config: SimulationConfig, assembled: Assembled) -> app.Simulation:
    """The Simulation, at its start: positions set, velocities not.

    Raises:
        InputError: an unknown platform, or OpenMM cannot set the System up on it.
    """
    platform, simulation = _platform(config), None
    try:
        if platform is None:
            simulation = app.Simulation(assembled.topology, assembled.system, _integrator(config))
            platform = simulation.context.getPlatform()
        properties = _properties(platform, config)
        if simulation is None or properties:  # a platform that OpenMM chose computes in single precision unless it is told
            simulation = None
            simulation = app.Simulation(assembled.topology, assembled.system, _integrator(config), platform, properties)
    except openmm.OpenMMException as error:
        raise InputError(
            f"system: OpenMM cannot set {config.system} up on the platform {config.platform}: {error}. A box has to be wider "
            f"than twice the classical cutoff ({2 * MM_CUTOFF_NM:g} nm without a preset); a GPU platform needs its driver"
        ) from None
    simulation.context.setPositions(assembled.positions)
    return simulation


def _integrator(config: SimulationConfig) -> openmm.Integrator:
    timestep = config.timestep * unit.femtoseconds
    if config.ensemble == "NVE":
        integrator: openmm.Integrator = openmm.VerletIntegrator(timestep)
    else:
        integrator = openmm.LangevinMiddleIntegrator(
            config.temperature * unit.kelvin, config.friction / unit.picosecond, timestep
        )
        integrator.setRandomNumberSeed(_seed(config, 2))
    integrator.setConstraintTolerance(CONSTRAINT_TOLERANCE)
    return integrator


def _platform(config: SimulationConfig) -> openmm.Platform | None:
    """The platform asked for; None for "auto", which leaves the choice to OpenMM: the fastest that works."""
    if config.platform == "auto":
        return None
    names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    known = {name.lower(): name for name in names}
    if config.platform.lower() not in known:
        hint = "; it comes with `pip install 'openmm[cuda12]'`" if config.platform.lower() == "cuda" else ""
        raise InputError(f"platform: expected auto or one of {', '.join(names)}, got {config.platform!r}{hint}")
    return openmm.Platform.getPlatformByName(known[config.platform.lower()])


def _properties(platform: openmm.Platform, config: SimulationConfig) -> dict[str, str]:
    """The precision of a platform that lets one choose it: CUDA, OpenCL, HIP."""
    if "Precision" not in platform.getPropertyNames():
        return {}
    return {"Precision": "double" if config.precision == "float64" else "mixed"}


def draw_velocities(simulation: app.Simulation, config: SimulationConfig) -> None:
    """Maxwell–Boltzmann velocities at the config's temperature, from its seed."""
    simulation.context.setVelocitiesToTemperature(config.temperature * unit.kelvin, _seed(config, 3))


def evaluate_region(region: Region, positions_nm: np.ndarray, box_nm: np.ndarray | None) -> Any:
    """The model's Evaluation of a frame; positions (n_atoms, 3) nm, box (3, 3) nm or None."""
    positions = positions_nm * ANGSTROM_PER_NM
    return region.model.evaluate(
        region.numbers,
        positions[region.indices],
        positions[region.mm_indices],
        region.mm_charges,
        box=None if box_nm is None else box_nm * ANGSTROM_PER_NM,
        qm_charge=region.qm_charge,
        **region.options,
    )

"""A classical System with a model in it: the QM region's energy, polarized by the MM charges around it."""

import io
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import openmm
import torch
from openmm import unit
from openmm.app import Element, Topology

from ampmm.embedding.backends import BACKENDS, FORCE_NAME, get_backend
from ampmm.embedding.bonded import bonded_atoms, constraints_within, molecule_force
from ampmm.embedding.boundary import refuse_boundary, refuse_virtual_sites
from ampmm.embedding.bounds import bounds_from_card
from ampmm.embedding.computations import EvaluatorComputation, make_evaluator_force
from ampmm.embedding.electrostatics import check_cutoffs, choose_electrostatics
from ampmm.embedding.mm_forces import read_charges, refuse_qm_terms, strip_qm_terms
from ampmm.embedding.regions import check_system_matches, select_qm_atoms
from ampmm.errors import BackendError, EmbeddingError, InputError
from ampmm.export import Evaluator, FixedShapePotential, LoadedModel, Potential, load_model
from ampmm.memory import keep_freed_memory
from ampmm.physics.walls import DistanceWalls

CHARGE_TOLERANCE: Final = 0.1  # e; classical charges rarely add up to a whole number

Model = str | Path | LoadedModel | Evaluator


@dataclass(frozen=True)
class ForceOptions:
    """How the model's force is made; the keywords of `create_mixed_system` and `add_force`."""

    backend: str  # "auto", "torchforce" or "python"
    electrostatics: str  # "auto", "reaction-field" or "bare"
    coulomb_cutoff: float | None  # Å
    qm_charge: int | None  # e
    force_group: int
    skin: float  # Å
    walls: bool
    dtype: torch.dtype
    cuda_graphs: bool


def create_mixed_system(
    topology: Topology,
    mm_system: openmm.System,
    qm_atoms: str | Sequence[int] | np.ndarray,
    model: Model,
    backend: str = "auto",
    electrostatics: str = "auto",
    coulomb_cutoff: float | None = None,
    qm_charge: int | None = None,
    force_group: int = 0,
    skin: float = 1.0,
    walls: bool = True,
    keep: Iterable[str] = (),
    dtype: torch.dtype = torch.float32,
    cuda_graphs: bool = False,
) -> tuple[openmm.System, np.ndarray]:
    """A new System in which the model stands for the QM region and everything else is classical.

    Args:
        topology: of the whole system.
        mm_system: its classical System with MM charges; it is not changed.
        qm_atoms: atom indices, a residue name, or an MDTraj selection.
        model: name of a shipped model, path of a ``.pt`` file, a `LoadedModel`, or any `Evaluator` (droplets only).
        backend: ``"auto"``, ``"torchforce"`` or ``"python"``.
        electrostatics: between QM and MM atoms: ``"auto"``, ``"reaction-field"`` or ``"bare"``. Auto takes the shifted
            reaction field if the System has periodic boundaries, else bare Coulomb.
        coulomb_cutoff: of the reaction field, Å; default the model's own if its card has one, else 12 Å, or half the box
            if that is less, and a twentieth less again if the System has a barostat already.
        qm_charge: net charge of the QM region, e; default the model's own, or for an Evaluator and for models that take
            any charge the sum of the classical charges, rounded.
        force_group: of the model's force, 0 to 31.
        skin: of the neighbour lists, Å.
        walls: whether QM distances beyond those of the model's training, as its card has them, are driven back by a
            harmonic wall (`ampmm.physics.walls`). Inside the bounds the walls are zero.
        keep: names of forces to leave as they are; see `strip_qm_terms`.
        dtype: `torch.float32` or `torch.float64`, the model's arithmetic.
        cuda_graphs: replay the model's calls as a CUDA graph, for a Context on OpenMM's CUDA platform alone; arrays have fixed
            shapes then (`ampmm.export.FixedShapePotential`). With ``backend="python"`` the model has to be loaded on the GPU,
            and an integrator that asks for energies without forces (Monte Carlo by a CustomIntegrator) needs this backend.

    Returns:
        The new System, and the QM atoms' indices (N,), ascending.

    Raises:
        InputError, EmbeddingError, BackendError, ModelFileError: an argument does not fit the others; see the message.
    """
    options = ForceOptions(backend, electrostatics, coulomb_cutoff, qm_charge, force_group, skin, walls, dtype, cuda_graphs)
    qm = _selected(topology, mm_system, qm_atoms)
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    _refuse_second_model(mm_system, keep)
    stripped = strip_qm_terms(mm_system, qm, topology, keep)
    _add(stripped.system, topology, qm, stripped.charges, model, options, float(stripped.charges[qm].sum()))
    return stripped.system, qm


def add_force(
    system: openmm.System,
    topology: Topology,
    qm_atoms: str | Sequence[int] | np.ndarray,
    model: Model,
    backend: str = "auto",
    electrostatics: str = "auto",
    coulomb_cutoff: float | None = None,
    qm_charge: int | None = None,
    force_group: int = 0,
    skin: float = 1.0,
    walls: bool = True,
    keep: Iterable[str] = (),
    dtype: torch.dtype = torch.float32,
    cuda_graphs: bool = False,
) -> np.ndarray:
    """Add only the model's force to a System whose QM terms are already out (`strip_qm_terms`, or the user's own script).

    The System gets the force in place. Constraints between QM atoms may stay, as the user's choice. The arguments are
    those of `create_mixed_system`; forces named in `keep` are not searched for QM terms. An Evaluator and a model for any net
    charge need `qm_charge`: the System's QM charges are zero already.

    Returns:
        The QM atoms' indices (N,), ascending.

    Raises:
        EmbeddingError: the System still counts QM energies or charges, which the force would count a second time.
        InputError, BackendError, ModelFileError: an argument does not fit the others; see the message.
    """
    options = ForceOptions(backend, electrostatics, coulomb_cutoff, qm_charge, force_group, skin, walls, dtype, cuda_graphs)
    qm = _selected(topology, system, qm_atoms)
    region = set(map(int, qm))
    kept = frozenset([keep] if isinstance(keep, str) else keep)
    charges = read_charges(system, region)
    refuse_boundary(system, region, topology, kept)
    refuse_virtual_sites(system, region, topology)
    refuse_qm_terms(system, region, kept)
    _refuse_second_model(system, kept)
    _add(system, topology, qm, charges, model, options, None)
    _join(system, topology, qm)
    return qm


def _join(system: openmm.System, topology: Topology, qm: np.ndarray) -> None:
    """Make molecules of QM atoms whose bonds are not in the System: a barostat would pull them apart."""
    qm_set = set(map(int, qm))
    known = {tuple(sorted(pair)) for pair in constraints_within(system, qm_set)}
    for force in system.getForces():
        if type(force).__name__ in ("HarmonicBondForce", "CustomBondForce"):
            known |= {tuple(sorted(pair)) for pair in bonded_atoms(force) if qm_set.issuperset(pair)}
    bonds = [(int(qm[i]), int(qm[j])) for i, j in bonds_within(topology, qm)]
    if any(tuple(sorted(pair)) not in known for pair in bonds):
        system.addForce(molecule_force(bonds))


def _refuse_second_model(system: openmm.System, kept: Collection[str]) -> None:
    if FORCE_NAME not in kept and any(force.getName() == FORCE_NAME for force in system.getForces()):
        raise EmbeddingError(
            f"system: expected one without a model, got one that holds a force {FORCE_NAME!r} already; a second would count "
            "the same atoms twice, and two QM regions do not see each other's charges, so start from the classical "
            f"System, or, if this is meant, give keep=[{FORCE_NAME!r}]"
        )


def _selected(topology: Topology, system: openmm.System, qm_atoms: str | Sequence[int] | np.ndarray) -> np.ndarray:
    check_system_matches(topology, system)
    if topology.getPeriodicBoxVectors() is not None and not system.usesPeriodicBoundaryConditions():
        warnings.warn(
            "system: the Topology has a periodic box and the System has no periodic boundaries: this is a droplet in vacuum; "
            "for the box, make the System with nonbondedMethod=PME (OpenMM's default is NoCutoff), for a droplet, call "
            "topology.setPeriodicBoxVectors(None)",
            stacklevel=3,
        )
    return select_qm_atoms(topology, qm_atoms)


def _add(
    system: openmm.System,
    topology: Topology,
    qm: np.ndarray,
    charges: np.ndarray,
    model: Model,
    options: ForceOptions,
    classical_charge: float | None,
) -> None:
    """Add the force; the rounded classical charge of the QM region stands in where neither the caller nor the model has one."""
    if options.force_group not in range(32):
        raise InputError(f"force_group: expected a whole number from 0 to 31, got {options.force_group!r}")
    if not np.isfinite(charges).all():
        raise EmbeddingError("system: expected finite charges in the NonbondedForce, got NaN or infinity")
    atoms = list(topology.atoms())
    numbers = np.array([atoms[i].element.atomic_number for i in qm], dtype=np.int64)
    mm = np.setdiff1d(np.flatnonzero(charges), qm)  # uncharged sites feel and do nothing
    if isinstance(model, (str, Path)):
        model = load_model(model)
    if isinstance(model, LoadedModel) and not model.card.base:
        charge = _net_charge(model, options.qm_charge, classical_charge)
        force = _model_force(system, model, numbers, qm, mm, charges, charge, options, bonds_within(topology, qm))
    else:
        force = _evaluator_force(system, model, numbers, qm, mm, charges, classical_charge, options)
    force.setName(FORCE_NAME)
    force.setForceGroup(options.force_group)
    system.addForce(force)


def _model_force(
    system: openmm.System,
    model: LoadedModel,
    numbers: np.ndarray,
    qm: np.ndarray,
    mm: np.ndarray,
    charges: np.ndarray,
    charge: int,
    options: ForceOptions,
    bonds: Sequence[tuple[int, int]],
) -> openmm.Force:
    numbers = model.check_numbers(numbers)
    if options.dtype not in (torch.float32, torch.float64):
        raise InputError(f"dtype: expected torch.float32 or torch.float64, got {options.dtype!r}")
    if not isinstance(options.skin, (int, float)) or not options.skin > 0.0:
        raise InputError(f"skin: expected a positive length in Å, got {options.skin!r}")
    periodic = system.usesPeriodicBoundaryConditions()
    electrostatics, coulomb_cutoff = choose_electrostatics(system, model, options.electrostatics, options.coulomb_cutoff)
    if periodic:
        cutoffs = {
            "coulomb_cutoff": coulomb_cutoff,
            "the model's polarization cutoff": _polarization(model),
            "the model's QM–QM cutoff": float(model.card.cutoffs["qm"]),
        }
        check_cutoffs(system, cutoffs)
    if options.cuda_graphs:
        _check_graphs(model, options)
    keep_freed_memory()
    kind = FixedShapePotential if options.cuda_graphs else Potential
    potential = kind(
        model.module if options.dtype == torch.float32 else _converted(model.module, options.dtype),
        torch.as_tensor(numbers),
        torch.as_tensor(qm),
        torch.as_tensor(mm),
        torch.as_tensor(charges[mm]),
        float(charge),
        cutoff=float(model.card.cutoffs["qm"]),
        polarization_cutoff=_polarization(model),
        long_range_cutoff=float(model.card.cutoffs.get("long_range", 0.0)),
        periodic=periodic,
        electrostatics=electrostatics,
        coulomb_cutoff=coulomb_cutoff,
        walls=_walls(model, numbers, bonds) if options.walls else None,
        skin=float(options.skin),
        dtype=options.dtype,
    ).to(next(model.module.buffers()).device)
    return get_backend(options.backend).make_force(potential, periodic, options.cuda_graphs)


def _check_graphs(model: LoadedModel, options: ForceOptions) -> None:
    if not torch.cuda.is_available():
        raise InputError(f"cuda_graphs: expected a GPU that torch {torch.__version__} can use, and it finds none; leave it out")
    on_gpu = next(model.module.buffers()).device.type == "cuda"
    if get_backend(options.backend).name == "python" and not on_gpu:
        raise InputError(
            f'cuda_graphs: expected a model on the GPU with backend="python", got one on the CPU; load it by '
            f'ampmm.load_model({model.card.name!r}, device="cuda")'
        )


def _evaluator_force(
    system: openmm.System,
    evaluator: Evaluator,
    numbers: np.ndarray,
    qm: np.ndarray,
    mm: np.ndarray,
    charges: np.ndarray,
    classical_charge: float | None,
    options: ForceOptions,
) -> openmm.Force:
    if not callable(getattr(evaluator, "evaluate", None)):
        raise InputError(
            "model: expected a shipped model's name, a .pt path, a LoadedModel or an object with evaluate(), "
            f"got {type(evaluator).__name__}"
        )
    if options.cuda_graphs:
        raise InputError("cuda_graphs: an evaluator is Python code, of which no graph can be made; leave it out")
    if isinstance(evaluator, LoadedModel):  # a Δ-model, which is evaluated together with its base
        numbers = evaluator.check_numbers(numbers)
        evaluator.check_base()
    if system.usesPeriodicBoundaryConditions():
        raise EmbeddingError(
            "model: an evaluator (a labeller, say) sees bare charges around it, which only a droplet has, got a System "
            "with periodic boundaries; cut out a droplet, or use a .pt model"
        )
    if options.electrostatics not in ("auto", "bare") or options.coulomb_cutoff is not None:
        raise InputError("electrostatics: an evaluator works with bare Coulomb; leave electrostatics and its cutoff out")
    if options.backend not in ("auto", "python"):
        raise BackendError(f'backend: an evaluator is Python code and needs backend="python", got {options.backend!r}')
    reason = BACKENDS["python"].missing()
    if reason:
        raise BackendError(f"backend 'python': {reason}")
    charge = _net_charge(evaluator, options.qm_charge, classical_charge)
    precision = {"dtype": options.dtype} if isinstance(evaluator, LoadedModel) else {}  # others have their own
    return make_evaluator_force(EvaluatorComputation(evaluator, numbers, charges[mm], charge, **precision), qm, mm)


def _net_charge(evaluator: Evaluator, asked: int | None, classical: float | None) -> int:
    """The net charge of the QM region: what was asked for if it fits, else the model's own, else the classical one, rounded."""
    if isinstance(evaluator, LoadedModel) and evaluator.card.qm_charge is not None:
        charge: int | None = evaluator.check_charge(asked)
    else:
        charge = round(classical) if asked is None and classical is not None else asked
        if isinstance(evaluator, LoadedModel):
            charge = evaluator.check_charge(charge)
    if charge is None:
        raise InputError(
            "qm_charge: expected the net charge of the QM region in e, got None; the System's own QM charges are zero already"
        )
    if classical is not None:
        warn_of_charge(charge, classical, stacklevel=5)
    return charge


def warn_of_charge(charge: int, classical: float, stacklevel: int = 2) -> None:
    """Warn where the QM region's net charge is not what its classical charges (e) add up to."""
    if abs(classical - charge) > CHARGE_TOLERANCE:
        warnings.warn(
            f"qm_charge: the QM region is given {charge:+d} e, its classical charges add up to {classical:+.2f} e; is this the "
            "molecule, in the same protonation state, that is meant?",
            stacklevel=stacklevel,
        )


def bonds_within(topology: Topology, qm: np.ndarray) -> list[tuple[int, int]]:
    """Bonds of the Topology between QM atoms, as positions within the QM region."""
    place = {int(index): i for i, index in enumerate(qm)}
    return [
        (place[bond[0].index], place[bond[1].index])
        for bond in topology.bonds()
        if bond[0].index in place and bond[1].index in place
    ]


def _walls(model: LoadedModel, numbers: np.ndarray, bonds: Sequence[tuple[int, int]]) -> DistanceWalls:
    bounds = bounds_from_card(model.card.bounds, numbers.tolist(), bonds)
    masses = [Element.getByAtomicNumber(int(number)).mass.value_in_unit(unit.dalton) for number in numbers]
    return DistanceWalls(torch.as_tensor(bounds.min_distance), torch.as_tensor(bounds.max_distance), torch.tensor(masses))


def _polarization(model: LoadedModel) -> float:
    return float(model.card.cutoffs["polarization"])


def _converted(module: torch.jit.ScriptModule, dtype: torch.dtype) -> torch.jit.ScriptModule:
    # `to` works in place, and the loaded model must stay as it is; a deep copy's parameters would be no leaves.
    archive = io.BytesIO()
    torch.jit.save(module, archive)
    archive.seek(0)
    return torch.jit.load(archive).to(dtype)

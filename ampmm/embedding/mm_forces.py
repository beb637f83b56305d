"""What leaves the classical System when some of its atoms become the QM region.

Out go, because the model's energy replaces them: bonded force-field terms wholly inside the QM region, nonbonded
interactions between QM atoms, the charges of QM atoms, and constraints between QM atoms. Everything else stays. Forces
are told apart by class: the bonded classes in `BONDED` are force-field terms, those in `UNTOUCHED` (external, centroid,
collective-variable, RMSD … forces, barostats, forces written in Python or Torch) are restraints, biases or couplings.
A restraint that is written as one of the bonded classes is kept by naming it in `keep`.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import openmm
from openmm import unit
from openmm.app import Topology

from ampmm.embedding.bonded import (
    BONDED,
    bonded_atoms,
    constraints_within,
    energetic_terms_within,
    molecule_force,
    strip_bonded,
)
from ampmm.embedding.boundary import refuse_boundary, refuse_virtual_sites
from ampmm.embedding.nonbonded import (
    nonbonded_charges,
    qm_part_of_custom_nonbonded,
    qm_part_of_nonbonded,
    strip_custom_nonbonded,
    strip_nonbonded,
)
from ampmm.embedding.regions import check_system_matches, select_qm_atoms
from ampmm.embedding.serialization import copy_force, force_kind
from ampmm.errors import EmbeddingError, InputError

# Restraints, biases, thermostats, barostats and forces of the user's own: never part of the classical energy of a bond.
UNTOUCHED: Final = frozenset(
    {
        "AndersenThermostat",
        "CMMotionRemover",
        "CustomCVForce",
        "CustomCentroidBondForce",
        "CustomExternalForce",
        "CustomVolumeForce",
        "MonteCarloAnisotropicBarostat",
        "MonteCarloBarostat",
        "MonteCarloFlexibleBarostat",
        "MonteCarloMembraneBarostat",
        "OrientationRestraintForce",
        "PythonForce",
        "RGForce",
        "RMSDForce",
        "RPMDMonteCarloBarostat",
        "TorchForce",
    }
)


class Stripped(NamedTuple):
    """A classical System without what the model replaces."""

    system: openmm.System  # new; the given one is untouched
    charges: np.ndarray  # (n_particles,) e, those of the original NonbondedForce, QM atoms included
    removed: dict[str, int]  # terms taken out, by the name of the force; constraints as "constraints"


def strip_qm_terms(
    system: openmm.System,
    qm_atoms: str | Sequence[int] | np.ndarray,
    topology: Topology | None = None,
    keep: Iterable[str] = (),
) -> Stripped:
    """A new System without the classical terms of the QM region.

    Args:
        system: the classical System; it is not changed.
        qm_atoms: (N,) particle indices of the QM atoms; with a topology, a residue name or an MDTraj selection, too.
        topology: names the atoms in messages and is searched for bonds that cross the boundary.
        keep: names (`Force.getName()`) of forces to leave as they are: restraints that a user wrote as a bonded
            class, or forces of a class that ampmm does not know.

    Raises:
        EmbeddingError: a bond, bonded term or constraint crosses the boundary; the MM atoms carry no charges; a force
            cannot be split into QM and MM parts.
        InputError: indices out of range, or `keep` names no force.
    """
    qm = _checked_indices(system, qm_atoms, topology)
    kept = _checked_keep(system, keep)
    refuse_boundary(system, qm, topology, kept)
    refuse_virtual_sites(system, qm, topology)
    charges = read_charges(system, qm)

    stripped = _without_forces(system, qm)
    removed = {"constraints": system.getNumConstraints() - stripped.getNumConstraints()}
    molecule_bonds = constraints_within(system, qm)
    for force in system.getForces():
        new, n_removed = _strip_force(force, qm, kept)
        stripped.addForce(new)
        if n_removed:
            removed[force.getName()] = removed.get(force.getName(), 0) + n_removed
        if type(force).__name__ in ("HarmonicBondForce", "CustomBondForce") and force.getName() not in kept:
            molecule_bonds += [pair for pair in bonded_atoms(force) if qm.issuperset(pair)]
    if molecule_bonds:
        stripped.addForce(molecule_force(molecule_bonds))
    return Stripped(stripped, charges, removed)


def refuse_qm_terms(system: openmm.System, qm: set[int], kept: frozenset[str] = frozenset()) -> None:
    """Raise `EmbeddingError` if the System still counts energies or charges of the QM region, forces in `kept` aside."""
    for force in system.getForces():
        if force.getName() in kept:
            continue
        kind = force_kind(force)
        found = ""
        if kind in BONDED:
            inside = energetic_terms_within(force, qm)
            found = f"{inside} terms inside the QM region" if inside else ""
        elif kind == "NonbondedForce":
            found = qm_part_of_nonbonded(force, qm)
        elif kind == "CustomNonbondedForce":
            found = qm_part_of_custom_nonbonded(force, qm)
        else:
            _strip_force(force, qm, kept)  # raises for what cannot be split
        if found:
            raise EmbeddingError(
                f"system: expected a System without the QM region's classical terms, got {kind} {force.getName()!r} with "
                f"{found}; the model would count them twice, so use create_mixed_system, or strip_qm_terms first"
            )


def read_charges(system: openmm.System, qm: set[int]) -> np.ndarray:
    """The particles' charges, e, from the System's one NonbondedForce; some MM charge must differ from zero.

    Raises:
        EmbeddingError: no or several NonbondedForces, no MM charges, or MM charges that depend on a global parameter.
    """
    nonbonded = [force for force in system.getForces() if isinstance(force, openmm.NonbondedForce)]
    if len(nonbonded) != 1:
        raise EmbeddingError(
            f"system: expected one NonbondedForce to read the MM charges from, got {len(nonbonded)}; "
            "make the System from a fixed-charge force field"
        )
    force = nonbonded[0]
    charges = nonbonded_charges(force)
    mm = np.setdiff1d(np.arange(charges.size), list(qm))
    if not np.any(charges[mm]):
        raise EmbeddingError(
            "system: expected charges on MM atoms, got none different from zero; electrostatic embedding needs a "
            "force field with charges in the NonbondedForce"
        )
    for k in range(force.getNumParticleParameterOffsets()):
        parameter, particle, charge_scale, _, _ = force.getParticleParameterOffset(k)
        if charge_scale != 0.0 and particle not in qm:
            raise EmbeddingError(
                f"system: expected fixed MM charges, got a charge offset of particle {particle} by the global "
                f"parameter {parameter!r}; the model would not follow it, so fix the charge first"
            )
    return charges


def _strip_force(force: openmm.Force, qm: set[int], kept: frozenset[str]) -> tuple[openmm.Force, int]:
    """A copy of the force without its QM part, and how many terms were taken out."""
    kind = force_kind(force)
    if force.getName() in kept:
        return copy_force(force), 0
    if kind in BONDED:
        return strip_bonded(force, qm)
    if kind == "NonbondedForce":
        return strip_nonbonded(force, qm)
    if kind == "CustomNonbondedForce":
        return strip_custom_nonbonded(force, qm)
    if kind in UNTOUCHED:
        _refuse_hidden_charges(force)
        return copy_force(force), 0
    if kind == "GayBerneForce" and _gay_berne_ignores(force, qm):
        return copy.deepcopy(force), 0
    if kind == "CustomHbondForce" and _hbond_ignores(force, qm):
        return copy.deepcopy(force), 0
    raise _unsplittable(force)


def _without_forces(system: openmm.System, qm: set[int]) -> openmm.System:
    """Particles, masses, box, virtual sites and the constraints that are not inside the QM region."""
    new = openmm.System()
    for i in range(system.getNumParticles()):
        new.addParticle(system.getParticleMass(i))
    for i in range(system.getNumParticles()):
        if system.isVirtualSite(i):
            site = system.getVirtualSite(i)
            new.setVirtualSite(i, type(site)(site))
    new.setDefaultPeriodicBoxVectors(*system.getDefaultPeriodicBoxVectors())
    for k in range(system.getNumConstraints()):
        i, j, distance = system.getConstraintParameters(k)
        if not (i in qm and j in qm):
            new.addConstraint(i, j, distance)
    return new


def _checked_indices(system: openmm.System, qm_atoms: str | Sequence[int] | np.ndarray, topology: Topology | None) -> set[int]:
    if not isinstance(system, openmm.System):
        raise InputError(
            f"system: expected an OpenMM System, got {type(system).__name__}; the QM atoms and the topology follow"
        )
    if isinstance(qm_atoms, str):
        if topology is None:
            raise InputError(f"qm_atoms: expected particle indices where no topology is given, got {qm_atoms!r}; give both")
        qm_atoms = select_qm_atoms(topology, qm_atoms)
    qm = {int(i) for i in qm_atoms}
    n_particles = system.getNumParticles()
    if not qm or len(qm) != len(qm_atoms) or min(qm) < 0 or max(qm) >= n_particles or len(qm) == n_particles:
        raise InputError(
            f"qm_atoms: expected some, not all, of 0 to {n_particles - 1}, each once, got {len(qm_atoms)} indices "
            f"from {min(qm, default=None)} to {max(qm, default=None)}, {len(qm)} of them different; "
            "use ampmm.embedding.select_qm_atoms"
        )
    if topology is not None:
        check_system_matches(topology, system)
    return qm


def _checked_keep(system: openmm.System, keep: Iterable[str]) -> frozenset[str]:
    kept = frozenset([keep] if isinstance(keep, str) else keep)
    names = {force.getName() for force in system.getForces()}
    if kept - names:
        raise InputError(f"keep: expected names of forces in the System {sorted(names)}, got {sorted(kept - names)}")
    if any(isinstance(force, openmm.NonbondedForce) and force.getName() in kept for force in system.getForces()):
        raise InputError("keep: expected restraints, got the NonbondedForce, whose QM charges would be counted twice")
    return kept


def _refuse_hidden_charges(force: openmm.Force) -> None:
    if not isinstance(force, openmm.CustomCVForce):
        return
    for k in range(force.getNumCollectiveVariables()):
        if isinstance(force.getCollectiveVariable(k), openmm.NonbondedForce):
            raise EmbeddingError(
                f"system: expected the NonbondedForce in the System itself, got one inside {force.getName()!r} "
                "(CustomCVForce), where the QM charges cannot be taken out; make the QM region before such a force"
            )


def _gay_berne_ignores(force: openmm.GayBerneForce, qm: set[int]) -> bool:
    epsilons = [force.getParticleParameters(i)[1] for i in qm]
    return all(epsilon.value_in_unit(unit.kilojoule_per_mole) == 0.0 for epsilon in epsilons)


def _hbond_ignores(force: openmm.CustomHbondForce, qm: set[int]) -> bool:
    groups = [force.getDonorParameters(k)[:3] for k in range(force.getNumDonors())]
    groups += [force.getAcceptorParameters(k)[:3] for k in range(force.getNumAcceptors())]
    return all(qm.isdisjoint(group) for group in groups)


def _unsplittable(force: openmm.Force) -> EmbeddingError:
    return EmbeddingError(
        f"system: expected forces that can be split into QM and MM parts, got {force_kind(force)} {force.getName()!r}, "
        "whose energy has no separate QM–QM part to take out (polarizable and implicit-solvent models, many-body and "
        "unknown forces); make the System without it, or, if it is a restraint, give its name in `keep`"
    )

"""The QM region in nonbonded forces: no charges, no QM–QM interactions, Lennard-Jones with MM atoms as before.

All QM–QM pairs become exceptions (or exclusions) in every nonbonded force, since CUDA wants the same pairs excluded in
all of them. Particle sigmas and epsilons stay, so the long-range dispersion correction is that of the whole system.
"""

import copy
from itertools import combinations
from typing import Final

import numpy as np
import openmm
from openmm import unit

# Per-particle parameters of a CustomNonbondedForce that hold a charge.
CHARGE_PARAMETERS: Final = ("charge", "q")


def nonbonded_charges(force: openmm.NonbondedForce) -> np.ndarray:
    """The particles' charges, (n_particles,) e."""
    return np.array([_charge(force.getParticleParameters(i)[0]) for i in range(force.getNumParticles())])


def strip_nonbonded(force: openmm.NonbondedForce, qm: set[int]) -> tuple[openmm.NonbondedForce, int]:
    """A copy without QM charges and QM–QM interactions, and the number of QM–QM pairs."""
    new = copy.deepcopy(force)
    for i in qm:
        _, sigma, epsilon = new.getParticleParameters(i)
        new.setParticleParameters(i, 0.0, sigma, epsilon)
    for k in range(new.getNumExceptions()):
        i, j, _, sigma, epsilon = new.getExceptionParameters(k)
        if i in qm and j in qm:
            new.setExceptionParameters(k, i, j, 0.0, sigma, 0.0)
        elif i in qm or j in qm:
            new.setExceptionParameters(k, i, j, 0.0, sigma, epsilon)
    for i, j in combinations(sorted(qm), 2):
        new.addException(i, j, 0.0, 1.0, 0.0, replace=True)
    _strip_offsets(new, qm)
    return new, len(qm) * (len(qm) - 1) // 2


def strip_custom_nonbonded(force: openmm.CustomNonbondedForce, qm: set[int]) -> tuple[openmm.CustomNonbondedForce, int]:
    """A copy with all QM–QM pairs excluded and QM charge parameters zero, and the number of QM–QM pairs."""
    new = copy.deepcopy(force)
    excluded = _excluded_pairs(new)
    for pair in combinations(sorted(qm), 2):
        if pair not in excluded:
            new.addExclusion(*pair)
    charges = _charge_parameters(new)
    if charges:
        for i in qm:
            values = list(new.getParticleParameters(i))
            for k in charges:
                values[k] = 0.0
            new.setParticleParameters(i, values)
    return new, len(qm) * (len(qm) - 1) // 2


def qm_part_of_nonbonded(force: openmm.NonbondedForce, qm: set[int]) -> str:
    """What of the QM region's charges and QM–QM interactions this force still has, in words; empty if nothing."""
    charged = [i for i in sorted(qm) if _charge(force.getParticleParameters(i)[0]) != 0.0]
    if charged:
        return f"charges on {len(charged)} QM atoms (first: atom {charged[0]})"
    for k in range(force.getNumParticleParameterOffsets()):
        parameter, particle, charge_scale, _, _ = force.getParticleParameterOffset(k)
        if particle in qm and charge_scale != 0.0:
            return f"a charge offset of QM atom {particle} by {parameter!r}"
    for k in range(force.getNumExceptionParameterOffsets()):
        parameter, index, charge_scale, _, epsilon_scale = force.getExceptionParameterOffset(k)
        i, j = force.getExceptionParameters(index)[:2]
        inside = i in qm and j in qm
        if (charge_scale != 0.0 and not qm.isdisjoint((i, j))) or (epsilon_scale != 0.0 and inside):
            return f"an offset of the exception of atoms {i} and {j} by {parameter!r}"
    silent = set()
    for k in range(force.getNumExceptions()):
        i, j, charge_product, _, epsilon = force.getExceptionParameters(k)
        if _charge_product(charge_product) != 0.0 and not qm.isdisjoint((i, j)):
            return f"a charge product in the exception of atoms {i} and {j}"
        if epsilon.value_in_unit(unit.kilojoule_per_mole) == 0.0:
            silent.add((min(i, j), max(i, j)))
    loud = [pair for pair in combinations(sorted(qm), 2) if pair not in silent]
    return f"{len(loud)} interacting QM–QM pairs (first: atoms {loud[0][0]} and {loud[0][1]})" if loud else ""


def qm_part_of_custom_nonbonded(force: openmm.CustomNonbondedForce, qm: set[int]) -> str:
    """As `qm_part_of_nonbonded`, for a CustomNonbondedForce."""
    excluded = _excluded_pairs(force)
    loud = [pair for pair in combinations(sorted(qm), 2) if pair not in excluded]
    if loud:
        return f"{len(loud)} QM–QM pairs that are not excluded (first: atoms {loud[0][0]} and {loud[0][1]})"
    for k in _charge_parameters(force):
        charged = [i for i in sorted(qm) if force.getParticleParameters(i)[k] != 0.0]
        if charged:
            return f"the charge parameter of {len(charged)} QM atoms not zero (first: atom {charged[0]})"
    return ""


def _charge(charge: unit.Quantity) -> float:
    return charge.value_in_unit(unit.elementary_charge)


def _charge_product(product: unit.Quantity) -> float:
    return product.value_in_unit(unit.elementary_charge**2)


def _excluded_pairs(force: openmm.CustomNonbondedForce) -> set[tuple[int, int]]:
    pairs = (force.getExclusionParticles(k) for k in range(force.getNumExclusions()))
    return {(min(pair), max(pair)) for pair in pairs}


def _charge_parameters(force: openmm.CustomNonbondedForce) -> list[int]:
    names = [force.getPerParticleParameterName(k) for k in range(force.getNumPerParticleParameters())]
    return [k for k, name in enumerate(names) if name.lower() in CHARGE_PARAMETERS]


def _strip_offsets(force: openmm.NonbondedForce, qm: set[int]) -> None:
    for k in range(force.getNumParticleParameterOffsets()):
        parameter, particle, _, sigma_scale, epsilon_scale = force.getParticleParameterOffset(k)
        if particle in qm:
            force.setParticleParameterOffset(k, parameter, particle, 0.0, sigma_scale, epsilon_scale)
    for k in range(force.getNumExceptionParameterOffsets()):
        parameter, index, _, sigma_scale, epsilon_scale = force.getExceptionParameterOffset(k)
        i, j = force.getExceptionParameters(index)[:2]
        if i in qm and j in qm:
            force.setExceptionParameterOffset(k, parameter, index, 0.0, 0.0, 0.0)
        elif i in qm or j in qm:
            force.setExceptionParameterOffset(k, parameter, index, 0.0, sigma_scale, epsilon_scale)

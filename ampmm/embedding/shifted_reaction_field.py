"""Classical electrostatics as AMP-BMS was published with: the shifted reaction field between MM charges, too."""

import openmm
from openmm import unit

from ampmm.errors import EmbeddingError, InputError
from ampmm.physics.coulomb import ReactionField
from ampmm.units import ANGSTROM_PER_NM, COULOMB_CONSTANT, NM_PER_ANGSTROM

MM_COULOMB_NAME = "shifted reaction field"


def use_shifted_reaction_field(system: openmm.System, cutoff: float) -> None:
    """Replace the Coulomb energy of a periodic System's NonbondedForce by `ampmm.physics.coulomb.ReactionField`, in place.

    The NonbondedForce keeps Lennard-Jones, cut at the same distance, and its exceptions (1–4 pairs, bare); its charges move to
    a CustomNonbondedForce in the same force group. To be called on what `create_mixed_system` returns, which needs the
    charges where they were.

    Args:
        system: with one NonbondedForce.
        cutoff: of both, Å.

    Raises:
        EmbeddingError: the System is not periodic, has not exactly one NonbondedForce, or has charge offsets.
    """
    found = [force for force in system.getForces() if isinstance(force, openmm.NonbondedForce)]
    if len(found) != 1 or not system.usesPeriodicBoundaryConditions():
        raise EmbeddingError(
            f"system: expected one NonbondedForce and periodic boundaries, got {len(found)} and "
            f"periodic={system.usesPeriodicBoundaryConditions()}"
        )
    nonbonded = found[0]
    if not 0.0 < cutoff < float("inf"):
        raise InputError(f"cutoff: expected a positive length in Å, got {cutoff}")
    if nonbonded.getNumParticleParameterOffsets():
        raise EmbeddingError("system: its NonbondedForce has parameter offsets, which the reaction field does not follow")
    system.addForce(_coulomb(nonbonded, cutoff))
    for i in range(nonbonded.getNumParticles()):
        _, sigma, epsilon = nonbonded.getParticleParameters(i)
        nonbonded.setParticleParameters(i, 0.0, sigma, epsilon)
    nonbonded.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    nonbonded.setCutoffDistance(cutoff * NM_PER_ANGSTROM)


def _coulomb(nonbonded: openmm.NonbondedForce, cutoff: float) -> openmm.CustomNonbondedForce:
    kernel = ReactionField(cutoff)
    force = openmm.CustomNonbondedForce(
        f"{COULOMB_CONSTANT!r}*charge1*charge2*(1/d + s*({kernel.quadratic!r} + s*({kernel.quartic!r} + s*{kernel.sextic!r})) "
        f"- {kernel.shift!r}); s=d*d; d={ANGSTROM_PER_NM!r}*r"
    )
    force.setName(MM_COULOMB_NAME)
    force.setForceGroup(nonbonded.getForceGroup())
    force.addPerParticleParameter("charge")
    for i in range(nonbonded.getNumParticles()):
        force.addParticle([nonbonded.getParticleParameters(i)[0].value_in_unit(unit.elementary_charge)])
    for k in range(nonbonded.getNumExceptions()):
        force.addExclusion(*nonbonded.getExceptionParameters(k)[:2])
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(cutoff * NM_PER_ANGSTROM)
    return force

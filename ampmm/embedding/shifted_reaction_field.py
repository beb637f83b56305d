"""Classical electrostatics as AMP-BMS was published with: the shifted reaction field between MM charges, too."""

from typing import Final, Optional

import numpy as np
import openmm
import torch
from torch import Tensor, nn

from ampmm.embedding.backends import get_backend
from ampmm.embedding.nonbonded import nonbonded_charges
from ampmm.errors import EmbeddingError, InputError
from ampmm.nn import native
from ampmm.physics.coulomb import ReactionField
from ampmm.units import ANGSTROM_PER_NM, COULOMB_CONSTANT, NM_PER_ANGSTROM

MM_COULOMB_NAME: Final = "shifted reaction field"
IMPLEMENTATIONS: Final = ("auto", "openmm", "native")
# Platforms on which OpenMM's own force is the faster one.
_GPU_PLATFORMS: Final = {"CUDA", "HIP", "OpenCL", "Metal"}


def use_shifted_reaction_field(
    system: openmm.System, cutoff: float, implementation: str = "auto", backend: str = "auto", precise: bool = False
) -> None:
    """Replace the Coulomb energy of a periodic System's NonbondedForce by `ampmm.physics.coulomb.ReactionField`, in place.

    The NonbondedForce keeps Lennard-Jones, cut at the same distance, and its exceptions (1–4 pairs, bare); its charges move to
    a force of the same force group. To be called on what `create_mixed_system` returns, which needs the charges where they
    were.

    Args:
        system: with one NonbondedForce.
        cutoff: of both, Å.
        implementation: "openmm" is a CustomNonbondedForce, for every platform; "native" ampmm's own operator, several times
            faster on the CPU, through a TorchForce or PythonForce.
            "auto" takes the native one where its library is built and OpenMM has no GPU platform.
        backend: of the native one, see `create_mixed_system`.
        precise: pairs of the native one in double precision; else in single precision, as on OpenMM's CPU platform.

    Raises:
        EmbeddingError: the System is not periodic, has not exactly one NonbondedForce, or has charge offsets.
        InputError: an argument is not one of those above, or the native operator is not there.
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
    if _takes_native(implementation):
        potential = NativeReactionField(*_charges_and_exclusions(nonbonded), cutoff, precise)
        force = get_backend(backend).make_force(potential, periodic=True)
    else:
        force = _custom_force(nonbonded, cutoff)
    force.setName(MM_COULOMB_NAME)
    force.setForceGroup(nonbonded.getForceGroup())
    system.addForce(force)
    for i in range(nonbonded.getNumParticles()):
        _, sigma, epsilon = nonbonded.getParticleParameters(i)
        nonbonded.setParticleParameters(i, 0.0, sigma, epsilon)
    nonbonded.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    nonbonded.setCutoffDistance(cutoff * NM_PER_ANGSTROM)


def _takes_native(implementation: str) -> bool:
    if implementation not in IMPLEMENTATIONS:
        raise InputError(f"implementation: expected one of {', '.join(map(repr, IMPLEMENTATIONS))}, got {implementation!r}")
    if implementation == "native" and not native.available():
        raise InputError(f"implementation: expected the native operators for 'native', but they are {native.load()}")
    if implementation != "auto":
        return implementation == "native"
    platforms = {openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())}
    return native.available() and not platforms & _GPU_PLATFORMS


class NativeReactionField(nn.Module):
    """The shifted reaction field between charges in a box, by the native operator `reaction_field`.

    Args:
        charges: (n_particles,) e; those without a charge take no part.
        exclusions: (m, 2) particles that do not feel each other.
        cutoff: Å.
        precise: pairs in double precision.
    """

    def __init__(self, charges: np.ndarray, exclusions: np.ndarray, cutoff: float, precise: bool = False) -> None:
        super().__init__()
        self.kernel = ReactionField(cutoff).constants
        self.cutoff = cutoff
        self.constant = COULOMB_CONSTANT
        self.precise = precise
        charged = np.flatnonzero(charges)
        place = np.full(len(charges), -1)
        place[charged] = np.arange(len(charged))
        pairs = place[np.asarray(exclusions, dtype=np.int64).reshape(-1, 2)]
        self.register_buffer("indices", torch.as_tensor(charged))
        self.register_buffer("charges", torch.as_tensor(charges[charged], dtype=torch.float64))
        self.register_buffer("exclusions", torch.as_tensor(pairs[(pairs >= 0).all(axis=1)]))

    def forward(self, positions: Tensor, boxvectors: Optional[Tensor] = None) -> tuple[Tensor, Tensor]:
        """Positions (n, 3) of all particles and box vectors (3, 3), nm, to energy (), kJ/mol, and forces (n, 3), kJ/mol/nm."""
        if boxvectors is None:
            raise ValueError("boxvectors: the shifted reaction field is periodic and needs them")
        box = 10.0 * boxvectors.detach().cpu().double()
        if not 2.0 * self.cutoff <= float(torch.diagonal(box).min()):  # a NaN in the box ends here too
            raise ValueError("box: the cutoff of the shifted reaction field is now over half the box; use a larger box")
        everyone = positions.detach()
        own = 10.0 * everyone[self.indices.to(everyone.device)].cpu().double()
        energy, own_forces = torch.ops.ampmm.reaction_field(
            own, self.charges.cpu(), self.exclusions.cpu(), box, self.kernel, self.precise
        )
        forces = torch.zeros_like(everyone)
        given = (10.0 * self.constant * own_forces).to(forces)
        return self.constant * energy, forces.index_add(0, self.indices.to(forces.device), given)


def _charges_and_exclusions(nonbonded: openmm.NonbondedForce) -> tuple[np.ndarray, np.ndarray]:
    """Charges (n,) e, and the pairs (m, 2) whose Coulomb energy stays with the NonbondedForce."""
    exceptions = [nonbonded.getExceptionParameters(k)[:2] for k in range(nonbonded.getNumExceptions())]
    return nonbonded_charges(nonbonded), np.array(exceptions, dtype=np.int64).reshape(-1, 2)


def _custom_force(nonbonded: openmm.NonbondedForce, cutoff: float) -> openmm.CustomNonbondedForce:
    kernel = ReactionField(cutoff)
    force = openmm.CustomNonbondedForce(
        f"{COULOMB_CONSTANT!r}*charge1*charge2*(1/d + s*({kernel.quadratic!r} + s*({kernel.quartic!r} + s*{kernel.sextic!r})) "
        f"- {kernel.shift!r}); s=d*d; d={ANGSTROM_PER_NM!r}*r"
    )
    force.addPerParticleParameter("charge")
    charges, exclusions = _charges_and_exclusions(nonbonded)
    for charge in charges:
        force.addParticle([charge])
    for pair in exclusions:
        force.addExclusion(*map(int, pair))
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(cutoff * NM_PER_ANGSTROM)
    return force

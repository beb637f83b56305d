"""What holds a droplet together: a flat-bottom wall around the MM molecules, a weak spring on the QM region's centre.

Both forces are written once, here, so that the sampler's frames and the simulation's feel the same droplet.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import openmm
from openmm import app

from ampmm.errors import InputError

WALL_NAME: Final = "DropletWall"
CENTER_NAME: Final = "DropletCenter"


class DropletForces(NamedTuple):
    """Where the two restraints stand in the System, and whom the wall holds."""

    wall: int  # force index
    center: int  # force index
    held: tuple[int, ...]  # MM atoms the wall acts on


def wall_atoms(topology: app.Topology, qm_indices: Sequence[int]) -> tuple[int, ...]:
    """The MM atoms a wall acts on: every heavy MM atom (a water's oxygen), not hydrogens and not virtual sites."""
    qm = {int(index) for index in qm_indices}
    return tuple(
        atom.index
        for atom in topology.atoms()
        if atom.index not in qm and atom.element is not None and atom.element.atomic_number > 1
    )


def check_wall(radius_nm: float, topology: app.Topology, qm_indices: Sequence[int], positions_nm: np.ndarray) -> None:
    """Refuse a wall that is far outside of the droplet, or deep in it; positions (n_atoms, 3) nm, around the origin."""
    held = list(wall_atoms(topology, qm_indices))
    farthest = float(np.linalg.norm(np.asarray(positions_nm)[held], axis=1).max()) if held else radius_nm
    if not 0.5 * farthest <= radius_nm <= 3.0 * farthest:
        raise InputError(
            f"wall_radius: expected nm, about the {farthest:.2f} nm of the outermost MM atom, got {radius_nm:g}; is this in Å?"
        )


def add_droplet_restraints(
    system: openmm.System,
    topology: app.Topology,
    qm_indices: Sequence[int],
    radius_nm: float,
    wall_force_constant: float = 2000.0,
    center_force_constant: float = 1000.0,
    center_nm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> DropletForces:
    """Add the droplet's wall and centre spring to `system`, in place.

    The wall is ½ k max(0, r − R)² on each heavy MM atom, r its distance from `center_nm`; inside R nobody feels it.
    The spring is ½ k d² on the distance d of the QM region's centre of mass from the same point: the QM region
    turns and vibrates freely, and does not drift to the surface.

    Args:
        system: a System without periodic boundaries.
        topology: its Topology, same atom order.
        qm_indices: the QM atoms, (N,) int.
        radius_nm: R, nm.
        wall_force_constant: kJ/mol/nm².
        center_force_constant: kJ/mol/nm².
        center_nm: the droplet's centre, nm.

    Raises:
        InputError: the System is periodic, its atom count differs from the Topology's, the QM region is empty,
            there are no MM atoms, or a number is not positive.
    """
    n_atoms = system.getNumParticles()
    if topology.getNumAtoms() != n_atoms:
        raise InputError(
            f"topology: expected the System's {n_atoms} atoms, got {topology.getNumAtoms()}; "
            "give the Topology the System was made from"
        )
    if system.usesPeriodicBoundaryConditions():
        raise InputError(
            "system: expected a droplet without periodic boundaries, got a periodic System; create it with NoCutoff "
            "or CutoffNonPeriodic, or leave the droplet's settings out"
        )
    for name, value in (
        ("radius_nm", radius_nm),
        ("wall_force_constant", wall_force_constant),
        ("center_force_constant", center_force_constant),
    ):
        if not value > 0.0:
            raise InputError(f"{name}: expected a positive number, got {value}")
    indices = [int(index) for index in qm_indices]
    if not indices:
        raise InputError("qm_indices: expected at least one atom, got none; the droplet is centred on the QM region")
    held = wall_atoms(topology, indices)
    if not held:
        raise InputError("topology: expected heavy MM atoms for the wall to hold, got none outside the QM region")

    # The tiny number keeps the gradient finite for an atom exactly at the centre.
    wall = openmm.CustomExternalForce("0.5*wall_k*max(0, r-wall_radius)^2; r=sqrt((x-x0)^2+(y-y0)^2+(z-z0)^2+1e-12)")
    wall.setName(WALL_NAME)
    spring = openmm.CustomCentroidBondForce(1, "0.5*center_k*((x1-x0)^2+(y1-y0)^2+(z1-z0)^2)")
    spring.setName(CENTER_NAME)
    wall.addGlobalParameter("wall_k", wall_force_constant)
    wall.addGlobalParameter("wall_radius", radius_nm)
    spring.addGlobalParameter("center_k", center_force_constant)
    for name, value in zip(("x0", "y0", "z0"), center_nm, strict=True):
        wall.addGlobalParameter(name, value)
        spring.addGlobalParameter(name, value)
    for index in held:
        wall.addParticle(index, [])
    spring.addGroup(indices)
    spring.addBond([0], [])
    return DropletForces(wall=system.addForce(wall), center=system.addForce(spring), held=held)

"""Relaxing the surroundings before dynamics, with the QM region held where it is."""

import math
from collections.abc import Iterable
from typing import Final

import openmm
from openmm import unit

TOLERANCE: Final = 10.0  # root mean square force, kJ/mol/nm
STIFFNESS: Final = 1.0e6  # kJ/mol/nm²: a force of 1000 kJ/mol/nm moves a held atom by 0.001 nm


def minimize_around(context: openmm.Context, held: Iterable[int], iterations: int) -> bool:
    """Minimise the energy of a Context with the particles `held` on stiff springs to where they are.

    A minimiser tries steps far outside of what thermal motion visits, and accepts whatever lowers the energy there; a
    model was never trained on that. Held in place, the QM region keeps the structure it was given, which is one its model
    knows, while the surroundings relax in its field. A trial step may still put a charge on top of a QM atom, where the
    energy is not finite: then the positions are those from before.

    Returns:
        Whether it went well; if not, nothing has moved.
    """
    positions = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    springs = openmm.CustomExternalForce(f"{0.5 * STIFFNESS}*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    for name in ("x0", "y0", "z0"):
        springs.addPerParticleParameter(name)
    for index in held:
        springs.addParticle(int(index), positions[int(index)])
    system = context.getSystem()
    place = system.addForce(springs)
    finite = True
    try:
        context.reinitialize(preserveState=True)
        openmm.LocalEnergyMinimizer.minimize(context, TOLERANCE, iterations)
        energy = context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        finite = math.isfinite(energy)
    except openmm.OpenMMException as error:
        if not any(words in str(error) for words in ("NaN", "infinity", "not finite")):
            raise
        finite = False
    finally:
        system.removeForce(place)
        context.reinitialize(preserveState=True)
    if not finite:
        context.setPositions(positions)
    return finite

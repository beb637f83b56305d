"""Relaxing the surroundings before dynamics, with the QM region held where it is."""

import math
from collections.abc import Callable, Iterable
from typing import Final

import openmm
from openmm import unit

TOLERANCE: Final = 10.0  # root mean square force, kJ/mol/nm
STIFFNESS: Final = 1.0e6  # kJ/mol/nm²: a force of 1000 kJ/mol/nm moves a held atom by 0.001 nm


def minimize_around(
    context: openmm.Context, held: Iterable[int], iterations: int, refused: Callable[[], bool] = lambda: False
) -> bool:
    """Minimise the energy of a Context with the particles `held` on stiff springs to where they are.

    A minimiser tries steps far outside of what thermal motion visits, and accepts whatever lowers the energy there; a
    model was never trained on that. Held in place, the QM region keeps the structure it was given, which is one its model
    knows, while the surroundings relax in its field. A trial step may still put a charge on top of a QM atom, where the
    energy is not finite, or which the engine refuses: then the positions are those from before.

    Args:
        context: with positions.
        held: indices of the particles.
        iterations: at most.
        refused: asked after an error of OpenMM's whether it was the engine refusing a structure.

    Returns:
        Whether it went well; if not, nothing has moved.
    """
    system = context.getSystem()
    periodic = system.usesPeriodicBoundaryConditions()
    positions = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    # A platform may put molecules into other periodic images than those where they were given.
    square = "periodicdistance(x,y,z,x0,y0,z0)^2" if periodic else "(x-x0)^2+(y-y0)^2+(z-z0)^2"
    springs = openmm.CustomExternalForce(f"{0.5 * STIFFNESS}*({square})")
    for name in ("x0", "y0", "z0"):
        springs.addPerParticleParameter(name)
    for index in held:
        springs.addParticle(int(index), positions[int(index)])
    place = system.addForce(springs)
    finite = True
    try:
        context.reinitialize(preserveState=True)
        openmm.LocalEnergyMinimizer.minimize(context, TOLERANCE, iterations)
        energy = context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        finite = math.isfinite(energy)
    except openmm.OpenMMException as error:
        if not refused() and not any(words in str(error) for words in ("NaN", "infinity", "not finite")):
            raise
        finite = False
    finally:
        system.removeForce(place)
        context.reinitialize(preserveState=True)
    if not finite:
        context.setPositions(positions)
    return finite

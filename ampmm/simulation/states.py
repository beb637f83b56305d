"""What an OpenMM State holds, in arrays and in a PDB file."""

from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from ampmm.units import AVOGADRO, GAS_CONSTANT


def take_state(simulation: app.Simulation) -> openmm.State:
    """All that a check or a restart looks at."""
    return simulation.context.getState(positions=True, velocities=True, forces=True, energy=True, parameters=True)


def positions_of(state: openmm.State) -> np.ndarray:
    """(n_atoms, 3) nm."""
    return state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def box_of(system: openmm.System, state: openmm.State) -> np.ndarray | None:
    """Box vectors, (3, 3) nm; None without periodic boundaries."""
    if not system.usesPeriodicBoundaryConditions():
        return None
    return state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)


def thermodynamics(system: openmm.System, state: openmm.State, box: np.ndarray | None) -> tuple[float, ...]:
    """Potential, kinetic, total energy (kJ/mol), temperature (K), volume (nm³), density (g/mL)."""
    potential = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
    masses = np.array([system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(system.getNumParticles())])
    freedom = 3 * int((masses > 0).sum()) - system.getNumConstraints()
    freedom -= 3 * any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces())
    temperature = 2.0 * kinetic / (freedom * GAS_CONSTANT)
    volume = float("nan") if box is None else float(abs(np.linalg.det(box)))
    density = masses.sum() / (AVOGADRO * 1e-21) / volume  # 1 nm³ is 1e-21 mL
    return potential, kinetic, potential + kinetic, temperature, volume, density


def write_pdb(path: Path, topology: app.Topology, state: openmm.State) -> None:
    """A frame with its own box, which a barostat has made another than the Topology's."""
    box = topology.getPeriodicBoxVectors()
    try:
        if box is not None:
            topology.setPeriodicBoxVectors(state.getPeriodicBoxVectors())
        with path.open("w") as file:
            app.PDBFile.writeFile(topology, state.getPositions(), file, keepIds=True)
    finally:
        topology.setPeriodicBoxVectors(box)

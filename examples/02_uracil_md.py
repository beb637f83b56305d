"""Uracil in its water box, step by step with the Python API: minimise, NVT, and a table of the model's energy and charges.

From the root of the clone: python examples/02_uracil_md.py --steps 2000 --output uracil_md
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from openmm import Context, LangevinMiddleIntegrator, LocalEnergyMinimizer, VerletIntegrator, app, unit

import ampmm
from ampmm.export import LoadedModel

MODEL_GROUP = 1  # a force group of its own, so that the model's energy can be asked for alone


class ModelReporter:
    """Writes the model's energy, the QM dipole and the atomic charges; an OpenMM reporter."""

    def __init__(
        self, path: Path, interval: int, model: LoadedModel, numbers: np.ndarray, qm: np.ndarray, charges: np.ndarray
    ) -> None:
        self._file, self._interval = path.open("w"), interval
        self._model, self._numbers, self._qm = model, numbers, qm
        self._mm = np.setdiff1d(np.flatnonzero(charges), qm)
        self._charges_mm = charges[self._mm]
        names = ["time_ps", "force_energy_kJ_per_mol", "energy_kJ_per_mol", "dipole_x_eA", "dipole_y_eA", "dipole_z_eA"]
        print(*names, *(f"charge_{i}_e" for i in qm), sep=",", file=self._file)

    def describeNextReport(self, simulation: app.Simulation) -> dict:
        """When to be called next, and with what."""
        steps = self._interval - simulation.currentStep % self._interval
        return {"steps": steps, "periodic": False, "include": ["positions"]}

    def report(self, simulation: app.Simulation, state) -> None:
        """Write a row."""
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        result = self._model.evaluate(self._numbers, positions[self._qm], positions[self._mm], self._charges_mm, box=box)
        alone = simulation.context.getState(energy=True, groups={MODEL_GROUP}).getPotentialEnergy()
        row = [state.getTime().value_in_unit(unit.picosecond), alone.value_in_unit(unit.kilojoule_per_mole), result.energy]
        print(*(f"{value:.6g}" for value in row[:1]), *(f"{value:.4f}" for value in row[1:]), sep=",", end=",", file=self._file)
        print(*(f"{value:.4f}" for value in [*result.dipole, *result.charges_qm]), sep=",", file=self._file, flush=True)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="uracil", help="a shipped model or a .pt file")
    parser.add_argument("--backend", default="auto", choices=["auto", "torchforce", "python"])
    parser.add_argument("--steps", type=int, default=2000, help="of 0.5 fs")
    parser.add_argument("--interval", type=int, default=100, help="steps between reports")
    parser.add_argument("--iterations", type=int, default=50, help="of the minimiser")
    parser.add_argument("--output", type=Path, default=Path("uracil_md"), help="a new folder")
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"--output: {arguments.output} exists, and nothing is overwritten; give a new folder")
    arguments.output.mkdir(parents=True)

    # The classical system, and the same with the model in it.
    amber = ampmm.load_structure("systems/uracil/uracil_box.prmtop", "systems/uracil/uracil_box.inpcrd")
    mm_system = amber.create_system(nonbondedMethod=app.PME, nonbondedCutoff=1.0 * unit.nanometer, rigidWater=True)
    model = ampmm.load_model(arguments.model)
    system, qm = ampmm.create_mixed_system(
        amber.topology, mm_system, "resname URA", model, backend=arguments.backend, force_group=MODEL_GROUP
    )

    # NVT from velocities at 300 K.
    integrator = LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtoseconds)
    simulation = app.Simulation(amber.topology, system, integrator)
    simulation.context.setPositions(minimized(mm_system, amber.positions, arguments.iterations))
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin)

    # What to write: frames, OpenMM's own state data, the model's energy and charges, and a progress line.
    numbers = np.array([atom.element.atomic_number for atom in amber.topology.atoms()])
    simulation.reporters += [
        app.DCDReporter(str(arguments.output / "trajectory.dcd"), arguments.interval),
        app.StateDataReporter(
            str(arguments.output / "state.csv"), arguments.interval, step=True, potentialEnergy=True, temperature=True
        ),
        ModelReporter(arguments.output / "ml.csv", arguments.interval, model, numbers[qm], qm, mm_charges(mm_system)),
        app.StateDataReporter(
            sys.stdout, arguments.interval, totalSteps=arguments.steps, progress=True, speed=True, remainingTime=True
        ),
    ]
    simulation.step(arguments.steps)
    print(f"trajectory: {arguments.output / 'trajectory.dcd'}")


def minimized(mm_system, positions, iterations: int):
    """Positions minimised with the classical System: a minimiser's long trial steps would leave what a model has seen."""
    context = Context(mm_system, VerletIntegrator(0.5 * unit.femtoseconds))
    context.setPositions(positions)
    LocalEnergyMinimizer.minimize(context, maxIterations=iterations)
    return context.getState(positions=True).getPositions(asNumpy=True)


def mm_charges(system) -> np.ndarray:
    """The charges of a classical System, (n_atoms,) e."""
    force = next(force for force in system.getForces() if force.getName() == "NonbondedForce")
    charges = (force.getParticleParameters(i)[0] for i in range(force.getNumParticles()))
    return np.array([charge.value_in_unit(unit.elementary_charge) for charge in charges])


if __name__ == "__main__":
    main()

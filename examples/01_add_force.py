"""A model's force in your own OpenMM script. From the root of the clone: python examples/01_add_force.py [MODEL STEPS]"""

import sys

from openmm import LangevinMiddleIntegrator, app, unit

import ampmm

model_name, n_steps = (*sys.argv[1:3], *("uracil", 1000)[len(sys.argv) - 1 :])
amber = ampmm.load_structure("systems/uracil/uracil_box.prmtop", "systems/uracil/uracil_box.inpcrd")
mm_system = amber.create_system(nonbondedMethod=app.PME, nonbondedCutoff=1.0 * unit.nanometer, rigidWater=True)
model = ampmm.load_model(model_name)  # a shipped model, or the path of a .pt file
system, qm_atoms = ampmm.create_mixed_system(amber.topology, mm_system, "resname URA", model)
integrator = LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtoseconds)
simulation = app.Simulation(amber.topology, system, integrator)
simulation.context.setPositions(amber.positions)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin)
simulation.reporters.append(app.StateDataReporter(sys.stdout, 100, step=True, potentialEnergy=True, temperature=True))
simulation.step(int(n_steps))

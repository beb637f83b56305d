"""The force between cysteine and the methyl group of SAM in water: python examples/07_sam_cysteine.py [MODEL] [STEPS] [Å ...]

Holds the distance S···CH3 near each value (3.6, 3.4 and 3.2 Å unless given) by a stiff spring and prints the distance's mean
and the spring's mean force: what umbrella integration turns into a free energy (J. Kästner, W. Thiel, J. Chem. Phys. 2005).
"""

import sys

import numpy as np
from openmm import CustomBondForce, LangevinMiddleIntegrator, app, unit

import ampmm

SULFUR, METHYL = 52, 0  # atoms of the box: S of cysteine, C of SAM's methyl group
STIFFNESS = 2000.0  # kJ/mol/Å²
INTERVAL = 10  # steps of 0.5 fs

model_name, n_steps = (*sys.argv[1:3], *("sam", "2000")[len(sys.argv[1:3]) :])
windows = [float(value) for value in sys.argv[3:]] or [3.6, 3.4, 3.2]
amber = ampmm.load_structure("systems/sam/sam_box.prmtop", "systems/sam/sam_box.inpcrd")
mm_system = amber.create_system(nonbondedMethod=app.PME, nonbondedCutoff=1.0 * unit.nanometer, rigidWater=True)
system, _ = ampmm.create_mixed_system(amber.topology, mm_system, "resname SAM CYN", ampmm.load_model(model_name))
spring = CustomBondForce("0.5*stiffness*(10*r-target)^2")
spring.addGlobalParameter("stiffness", STIFFNESS)
spring.addGlobalParameter("target", windows[0])
spring.addBond(SULFUR, METHYL)
system.addForce(spring)
simulation = app.Simulation(
    amber.topology, system, LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtoseconds)
)
simulation.context.setPositions(amber.positions)  # equilibrated at 300 K
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin)

print("target_A,mean_A,mean_force_kJ_per_mol_per_A", flush=True)
for target in windows:
    simulation.context.setParameter("target", target)
    distances = []
    for _ in range(int(n_steps) // INTERVAL):
        simulation.step(INTERVAL)
        positions = simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        distances.append(np.linalg.norm(positions[SULFUR] - positions[METHYL]))
    mean = np.mean(distances[len(distances) // 2 :])  # the first half is for the spring to settle
    print(f"{target:.2f},{mean:.3f},{STIFFNESS * (target - mean):.1f}", flush=True)

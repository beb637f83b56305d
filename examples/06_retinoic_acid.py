"""Two torsions of retinoic acid in water along ML/MM dynamics: python examples/06_retinoic_acid.py [MODEL] [STEPS]

Writes them to retinoic_acid.csv, in degrees: the ring against the chain, which turns easily, and a double bond, which does not.
"""

import csv
import sys
from pathlib import Path

import mdtraj
import numpy as np
from openmm import LangevinMiddleIntegrator, app, unit

import ampmm

TORSIONS = {"ring_to_chain": ["C2", "C3", "C10", "C11"], "double_bond": ["C11", "C12", "C14", "C15"]}
INTERVAL = 20  # steps of 0.5 fs
OUTPUT = Path("retinoic_acid.csv")

if OUTPUT.exists():
    sys.exit(f"{OUTPUT} exists and is not overwritten; move it away first")

model_name, n_steps = (*sys.argv[1:], *("ra", "2000")[len(sys.argv) - 1 :])
amber = ampmm.load_structure("systems/ra/ra_box.prmtop", "systems/ra/ra_box.inpcrd")
mm_system = amber.create_system(nonbondedMethod=app.PME, nonbondedCutoff=1.0 * unit.nanometer, rigidWater=True)
system, qm = ampmm.create_mixed_system(amber.topology, mm_system, "resname RTA", ampmm.load_model(model_name))
simulation = app.Simulation(
    amber.topology, system, LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtoseconds)
)
simulation.context.setPositions(amber.positions)  # equilibrated at 300 K
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin)

solute = mdtraj.Topology.from_openmm(amber.topology).subset(qm)
place = {atom.name: atom.index for atom in solute.atoms}
atoms = [[place[name] for name in names] for names in TORSIONS.values()]
with OUTPUT.open("x", newline="") as file:
    table = csv.writer(file)
    table.writerow(["time_ps", *TORSIONS])
    for _ in range(int(n_steps) // INTERVAL):
        simulation.step(INTERVAL)
        state = simulation.context.getState(positions=True)
        frame = mdtraj.Trajectory(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)[qm], solute)
        angles = np.degrees(mdtraj.compute_dihedrals(frame, atoms, periodic=False)[0])
        table.writerow([f"{state.getTime().value_in_unit(unit.picosecond):.3f}", *(f"{angle:.1f}" for angle in angles)])
        print(*(f"{name} {angle:.1f}°" for name, angle in zip(TORSIONS, angles, strict=True)), sep=", ", flush=True)

"""Alanine dipeptide in water with AMP-BMS, in its published set-up: python examples/04_dipeptide.py MODEL.pt

MODEL.pt is made by `ampmm import-weights` (docs/amp_bms.md). It may be followed by a preset (tip3p or tip4p-fb), steps (1000)
and iterations of the minimisation (50). `ampmm simulate examples/dipeptide.pdb --preset tip3p --model MODEL.pt` does the same
with restarts; this is how to do it in a script of one's own.
"""

import sys
from pathlib import Path

from openmm import LangevinMiddleIntegrator, app, unit

import ampmm
from ampmm.embedding import create_preset_system, get_preset

if len(sys.argv) < 2:
    sys.exit(__doc__)
model_name, preset_name, n_steps, n_iterations = (*sys.argv[1:], *("tip3p", "1000", "50")[len(sys.argv) - 2 :])
peptide = app.PDBFile(str(Path(__file__).with_name("dipeptide.pdb")))
preset = get_preset(preset_name)
force_field = app.ForceField(*preset.force_fields)
modeller = app.Modeller(peptide.topology, peptide.positions)
modeller.addHydrogens(force_field)
n_qm = modeller.topology.getNumAtoms()  # 22
modeller.addSolvent(force_field, model=preset.water_model, padding=1.0 * unit.nanometer)
model = ampmm.load_model(model_name)
system, qm_atoms = create_preset_system(modeller.topology, list(range(n_qm)), model, preset_name)
integrator = LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtoseconds)
simulation = app.Simulation(modeller.topology, system, integrator)
simulation.context.setPositions(modeller.positions)
if int(n_iterations):
    simulation.minimizeEnergy(maxIterations=int(n_iterations))
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
every = max(1, int(n_steps) // 10)
simulation.reporters.append(
    app.StateDataReporter(sys.stdout, every, step=True, potentialEnergy=True, temperature=True, speed=True)
)
simulation.step(int(n_steps))

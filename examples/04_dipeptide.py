"""Alanine dipeptide in water with AMP-BMS, in its published set-up: python examples/04_dipeptide.py MODEL.pt

MODEL.pt is made by `ampmm import-weights` (docs/amp_bms.md). It may be followed by a preset (tip3p or tip4p-fb), steps (1000)
and iterations of the minimisation (50).
"""

import io
import sys

from openmm import LangevinMiddleIntegrator, app, unit

import ampmm
from ampmm.embedding import create_preset_system, get_preset

HEAVY_ATOMS = (  # Å
    ("CH3", "ACE", 2.000, 2.090, 0.000), ("C", "ACE", 3.427, 2.641, 0.000), ("O", "ACE", 4.391, 1.877, 0.000),
    ("N", "ALA", 3.555, 3.970, 0.000), ("CA", "ALA", 4.853, 4.614, 0.000), ("CB", "ALA", 5.661, 4.221, -1.232),
    ("C", "ALA", 4.713, 6.129, 0.000), ("O", "ALA", 3.601, 6.653, 0.000),
    ("N", "NME", 5.846, 6.835, 0.000), ("C", "NME", 5.846, 8.284, 0.000),
)  # fmt: skip
RESIDUES = ("ACE", "ALA", "NME")

model_name, preset_name, n_steps, n_iterations = (*sys.argv[1:], *("tip3p", "1000", "50")[len(sys.argv) - 2 :])
pdb = "".join(
    f"ATOM  {i:5d}  {name:<3s} {residue} A{RESIDUES.index(residue) + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00"
    f"           {name[0]}\n"
    for i, (name, residue, x, y, z) in enumerate(HEAVY_ATOMS, start=1)
)
peptide = app.PDBFile(io.StringIO(pdb + "END\n"))
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

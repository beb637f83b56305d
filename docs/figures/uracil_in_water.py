"""Uracil in its water, seen onto its plane: atomic charges of the model, and the forces it puts on the water.

python docs/figures/uracil_in_water.py -o docs/figures/uracil_in_water.png
"""

import argparse

import matplotlib
import numpy as np
from openmm import NonbondedForce, app, unit

import ampmm
from ampmm.embedding import select_qm_atoms
from ampmm.geometry.bonds import bonded_pairs

matplotlib.use("agg")
import matplotlib.pyplot as plt

SIZES = {1: 60, 6: 240, 7: 240, 8: 240}
SLAB = 2.5  # Å above and below the plane


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", required=True, help="PNG")
    arguments = parser.parse_args()
    amber = ampmm.load_structure("systems/uracil/uracil_droplet.prmtop", "systems/uracil/uracil_droplet.inpcrd")
    numbers = np.array([atom.element.atomic_number for atom in amber.topology.atoms()])
    positions = np.array(amber.positions.value_in_unit(unit.angstrom))
    qm = select_qm_atoms(amber.topology, "resname URA")
    mm = np.setdiff1d(np.arange(len(numbers)), qm)
    system = amber.create_system(nonbondedMethod=app.NoCutoff)
    nonbonded = next(force for force in system.getForces() if isinstance(force, NonbondedForce))
    charges = np.array([nonbonded.getParticleParameters(int(i))[0].value_in_unit(unit.elementary_charge) for i in mm])
    result = ampmm.load_model("uracil").evaluate(numbers[qm], positions[qm], positions[mm], charges)

    centred = positions - positions[qm].mean(axis=0)
    axes = np.linalg.svd(centred[qm])[2]  # rows: two in the plane of the ring, then its normal
    flat, forces = centred @ axes.T, result.forces_mm @ axes.T
    figure, ax = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
    waters = mm.reshape(-1, 3)
    for water, force in zip(waters, forces.reshape(-1, 3, 3), strict=True):
        if np.abs(flat[water[0], 2]) > SLAB or np.abs(flat[water[0], :2]).max() > 8.0:
            continue
        for hydrogen in water[1:]:
            ax.plot(*flat[[water[0], hydrogen], :2].T, color="0.8", lw=2, zorder=1)
        ax.scatter(*flat[water, :2].T, s=[90, 25, 25], c="0.75", zorder=2)
        arrows = {"angles": "xy", "scale_units": "xy", "scale": 25, "width": 0.004}
        ax.quiver(*flat[water, :2].T, *force[:, :2].T, color="C3", zorder=4, **arrows)
    for i, j in bonded_pairs(numbers[qm], positions[qm]):
        ax.plot(*flat[qm[[i, j]], :2].T, color="0.3", lw=3, zorder=2)
    sizes, colours = [SIZES[number] for number in numbers[qm]], {"cmap": "RdBu", "vmin": -0.6, "vmax": 0.6}
    dots = ax.scatter(*flat[qm, :2].T, s=sizes, c=result.charges_qm, edgecolor="0.2", zorder=3, **colours)
    figure.colorbar(dots, label="atomic charge, e", shrink=0.7)
    ax.set(aspect="equal", xlim=(-8, 8), ylim=(-7, 7), xlabel="Å", ylabel="Å")
    figure.savefig(arguments.output, dpi=150)


if __name__ == "__main__":
    main()

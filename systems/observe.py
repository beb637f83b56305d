"""Means of a run's distances and torsions, as a system's recipe.yaml lists them under `observe`.

    python systems/observe.py NAME RUN        # RUN: the folder of an `ampmm simulate NAME` run

Prints one row each: mean and standard deviation over the frames of the second half, of distances in Å and of
torsions in degrees (on the circle), and the share of frames in which a torsion is trans, |angle| > 120°.
"""

import argparse
from pathlib import Path

import mdtraj
import numpy as np
import yaml

HERE = Path(__file__).resolve().parent


def atom_index(topology: mdtraj.Topology, name: str) -> int:
    """The index of RESIDUE:ATOM."""
    residue, atom = name.split(":")
    found = [a.index for a in topology.atoms if (a.residue.name, a.name) == (residue, atom)]
    if len(found) != 1:
        raise SystemExit(f"recipe.yaml: observe: expected one atom {name!r} in the topology, got {len(found)}")
    return found[0]


def on_circle(angles: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of angles, (n_frames,) degrees, by their unit vectors (K. V. Mardia, 1972)."""
    vector = np.exp(1j * np.radians(angles)).mean()
    return float(np.degrees(np.angle(vector))), float(np.degrees(np.sqrt(-2.0 * np.log(np.abs(vector)))))


def row(label: str, atoms: list[int], trajectory: mdtraj.Trajectory) -> str:
    """One line of the table. No periodic images: a run's frames hold the QM region whole."""
    if len(atoms) == 2:
        distance = 10.0 * mdtraj.compute_distances(trajectory, [atoms], periodic=False)[:, 0]
        return f"| {label} | {distance.mean():.2f} Å | {distance.std():.2f} Å | |"
    if len(atoms) == 3:
        angle = np.degrees(mdtraj.compute_angles(trajectory, [atoms], periodic=False)[:, 0])
        return f"| {label} | {angle.mean():.0f}° | {angle.std():.0f}° | |"
    torsion = np.degrees(mdtraj.compute_dihedrals(trajectory, [atoms], periodic=False)[:, 0])
    mean, deviation = on_circle(torsion)
    return f"| {label} | {mean:.0f}° | {deviation:.0f}° | {(np.abs(torsion) > 120.0).mean():.0%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(path.parent.name for path in HERE.glob("*/recipe.yaml")))
    parser.add_argument("run", type=Path)
    arguments = parser.parse_args()
    recipe = yaml.safe_load((HERE / arguments.name / "recipe.yaml").read_text())
    trajectory = mdtraj.load(str(arguments.run / "trajectory.dcd"), top=str(arguments.run / "initial.pdb"))
    trajectory = trajectory[trajectory.n_frames // 2 :]
    print(f"{trajectory.n_frames} frames\n\n| coordinate | mean | standard deviation | trans |\n|---|---|---|---|")
    for label, names in recipe.get("observe", {}).items():
        print(row(label, [atom_index(trajectory.topology, name) for name in names], trajectory))


if __name__ == "__main__":
    main()

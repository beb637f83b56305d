"""Distributions of distances and torsions: frames driven by a model beside frames driven by its reference.

python docs/figures/distributions.py ra --model md_300K.h5 --reference ref_300K.h5 -o distributions_ra.png \
    --show "ring to chain" "carboxyl"

Both are files of `ampmm sample`, with or without labels, or folders of `ampmm simulate` whose QM region comes first; the
coordinates are those that the system's recipe.yaml observes.
Prints mean, standard deviation (torsions: on the circle) and how much the two histograms overlap (1: all).
"""

import argparse
from pathlib import Path

import mdtraj
import numpy as np
import yaml

from ampmm.data import read_frames
from ampmm.embedding import load_structure, select_qm_atoms

SYSTEMS = Path(__file__).resolve().parents[2] / "systems"
BINS = 36


def observed(system: Path, wanted: list[str]) -> tuple[dict[str, list[int]], list[int]]:
    """Coordinates of recipe.yaml whose names contain a wanted text, as positions among the QM atoms; the indices of those."""
    recipe = yaml.safe_load((system / "recipe.yaml").read_text(encoding="utf-8"))
    settings = yaml.safe_load((system / "system.yaml").read_text(encoding="utf-8"))
    topology = load_structure(system / settings["droplet"]["topology"], system / settings["droplet"]["coordinates"]).topology
    atoms = list(topology.atoms())
    qm = select_qm_atoms(topology, settings["qm_atoms"])
    place = {f"{atoms[index].residue.name}:{atoms[index].name}": position for position, index in enumerate(qm)}
    chosen = {name: [place[atom] for atom in names] for name, names in recipe["observe"].items()
              if not wanted or any(text in name for text in wanted)}  # fmt: skip
    if not chosen:
        raise SystemExit(f"--show: expected part of a name in {system / 'recipe.yaml'}, observe, got {wanted}")
    return chosen, qm.tolist()


def values_of(positions: np.ndarray, atoms: list[int]) -> np.ndarray:
    """Distances in Å, angles and torsions in degrees, of (F, N, 3) Å: (F,)."""
    trajectory = mdtraj.Trajectory(positions, None)
    if len(atoms) == 2:
        return mdtraj.compute_distances(trajectory, [atoms], periodic=False, opt=False)[:, 0]
    compute = mdtraj.compute_angles if len(atoms) == 3 else mdtraj.compute_dihedrals
    return np.degrees(compute(trajectory, [atoms], periodic=False, opt=False)[:, 0])


def edges_for(atoms: list[int], *values: np.ndarray) -> np.ndarray:
    """Bins of a histogram: the whole circle for torsions, what occurs for the others."""
    if len(atoms) == 4:
        return np.linspace(-180.0, 180.0, BINS + 1)
    everything = np.concatenate(values)
    return np.linspace(everything.min(), everything.max(), BINS + 1)


def overlap(model: np.ndarray, reference: np.ndarray, edges: np.ndarray) -> float:
    """∫ min(p, q): 1 for equal histograms, 0 for disjoint ones."""
    p, q = (np.histogram(values, edges)[0] / len(values) for values in (model, reference))
    return float(np.minimum(p, q).sum())


def summary(values: np.ndarray, circular: bool) -> str:
    """Mean and standard deviation; on the circle by their unit vectors."""
    if not circular:
        return f"{values.mean():.3f} ± {values.std():.3f}"
    vector = np.exp(1j * np.radians(values)).mean()
    return f"{np.degrees(np.angle(vector)):.1f} ± {np.degrees(np.sqrt(-2.0 * np.log(np.abs(vector)))):.1f}"


def positions_of(paths: list[Path], temperature: float | None, qm: list[int]) -> np.ndarray:
    """The QM atoms of all frames of one temperature, (F, N, 3) Å; of a run's folder the atoms `qm` of all frames."""
    found = []
    for path in paths:
        if path.is_dir():
            run = mdtraj.load(str(path / "trajectory.dcd"), top=str(path / "initial.pdb"), atom_indices=qm)
            found.append(10.0 * run.xyz)
            continue
        frames = read_frames(path)
        near = np.ones(frames.n_frames, bool) if temperature is None else np.abs(frames.temperature - temperature) < 0.5
        found.append(frames.positions_qm[near])
    return np.concatenate(found)


def plot(rows: list[tuple[str, list[int], np.ndarray, np.ndarray]], path: Path) -> None:
    """One panel a coordinate."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(rows), figsize=(4.2 * len(rows), 3.2), layout="constrained", squeeze=False)
    for axis, (name, atoms, model, reference) in zip(axes[0], rows, strict=True):
        edges = edges_for(atoms, model, reference)
        axis.hist(reference, edges, density=True, color="0.75", label=f"reference, {len(reference)} frames")
        axis.hist(model, edges, density=True, histtype="step", lw=1.8, color="#1f5fa8", label=f"model, {len(model)} frames")
        axis.set(title=name, xlabel="Å" if len(atoms) == 2 else "degrees", yticks=[])
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Print the table, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", help="a folder under systems/")
    parser.add_argument("--model", type=Path, nargs="+", required=True, help="frames, or a run's folder, driven by the model")
    parser.add_argument("--reference", type=Path, nargs="+", required=True, help="frames driven by the reference")
    parser.add_argument("--temperature", type=float, help="K; of the frames taken, where the files have several")
    parser.add_argument("--show", nargs="+", default=[], help="parts of the names of the coordinates")
    parser.add_argument("-o", "--output", type=Path, help="PNG file")
    given = parser.parse_args()
    chosen, qm = observed(SYSTEMS / given.system, given.show)
    model, reference = (positions_of(paths, given.temperature, qm) for paths in (given.model, given.reference))
    rows = [(name, atoms, values_of(model, atoms), values_of(reference, atoms)) for name, atoms in chosen.items()]
    print("| coordinate | model | reference | overlap |\n|---|---|---|---|")
    for name, atoms, own, expected in rows:
        cells = [summary(values, len(atoms) == 4) for values in (own, expected)]
        print(f"| {name} | {' | '.join(cells)} | {overlap(own, expected, edges_for(atoms, own, expected)):.2f} |")
    if given.output:
        plot(rows, given.output)


if __name__ == "__main__":
    main()

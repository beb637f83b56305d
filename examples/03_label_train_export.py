"""From a structure to a model of your own, at toy size: sample, label, train, export, evaluate, simulate.

It runs the command line's own commands and prints each before it runs, so that they can be typed as well. The toy's
model is small and hardly trained; docs/reproduce.md has the commands behind the shipped ones.

From the root of the clone: python examples/03_label_train_export.py OUTPUT_FOLDER
"""

import argparse
import sys
from pathlib import Path

import yaml

from ampmm.cli import group

TRAINING = {
    "name": "toy",
    "hyperparameters": {"order": 1, "n_layers": 2, "width": 16, "n_radial_weights": 4, "polarization_cutoff": 6.0},
    "batch_size": 4,
    "validation_interval": 10,
    "checkpoint_interval": 10,
}
# The toy has seen little and its forces are far from the labels: short steps, and wide bounds before a run is stopped.
DYNAMICS = {
    "form": "droplet",
    "timestep": 0.1,  # fs
    "minimize": 0,
    "report_interval": 10,
    "checkpoint_interval": 10,
    "distance_slack": 0.5,
    "force_slack": 10.0,
}


def run(*words: object) -> None:
    """Print a command and run it in this process."""
    line = [str(word) for word in words]
    sys.argv = ["ampmm", *line]  # the commands store their own line in the files they write
    print("\n$ ampmm", *line, flush=True)
    group.main(line, prog_name="ampmm", standalone_mode=False)


def main() -> None:
    """Read the arguments and run the chain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="a new folder")
    parser.add_argument("--system", default="systems/uracil", help="folder with a system.yaml that describes a droplet")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--train-steps", type=int, default=50)
    parser.add_argument("--md-steps", type=int, default=20)
    arguments = parser.parse_args()
    folder, n_frames = arguments.output, arguments.frames
    folder.mkdir(parents=True)

    # 1. QM/MM dynamics of a droplet, driven by GFN2-xTB: a frame every 2 fs.
    times = ("--time", n_frames * 0.002, "--interval", 2, "--equilibration", 0.005)  # ps, fs, ps
    run("sample", arguments.system, *times, "-o", folder / "frames.h5")
    # 2. Energies, forces and charges of every frame.
    run("label", folder / "frames.h5", "-o", folder / "labelled.h5")
    # 3. Train on two thirds of them.
    n_test = n_frames // 6
    sizes = {"n_train": n_frames - 2 * n_test, "n_validation": n_test, "n_test": n_test, "n_validation_checked": n_test}
    settings = {**TRAINING, **sizes, "data": str(folder / "labelled.h5"), "steps": arguments.train_steps}
    (folder / "train.yaml").write_text(yaml.safe_dump(settings))
    run("train", folder / "train.yaml", "-o", folder / "run")
    # 4. The .pt file with its card, and the card.
    run("export", folder / "run", "-o", folder / "toy.pt")
    run("info", folder / "toy.pt")
    # 5. Its errors, as a table and as plots.
    run("evaluate", folder / "toy.pt", folder / "labelled.h5", "-o", folder / "evaluation")
    # 6. Dynamics with it.
    (folder / "md.yaml").write_text(yaml.safe_dump({**DYNAMICS, "system": arguments.system}))
    run("simulate", folder / "md.yaml", "--model", folder / "toy.pt", "--steps", arguments.md_steps, "-o", folder / "md")


if __name__ == "__main__":
    main()

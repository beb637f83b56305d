"""Runs of the small system of conftest.py, and what they wrote."""

import mdtraj
import numpy as np

from ampmm.simulation.config import SimulationConfig
from ampmm.simulation.runner import start


def config(system, folder, **changes):
    settings = {
        "system": str(system), "form": "droplet", "model": "classical", "platform": "Reference", "steps": 40,
        "report_interval": 10, "checkpoint_interval": 20, "minimize": 5, "output": str(folder),
    }  # fmt: skip
    return SimulationConfig(**(settings | changes))


def run(*arguments, **changes):
    return start(config(*arguments, **changes), progress=False)


def table(path):
    return np.genfromtxt(path, delimiter=",", names=True)


def frames(folder):
    return mdtraj.load(str(folder / "trajectory.dcd"), top=str(folder / "initial.pdb"))

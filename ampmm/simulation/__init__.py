"""Molecular dynamics: running and resuming simulations, and sampling frames for a data set."""

import torch  # noqa: F401  before OpenMM, whose TorchForce plugin finds its CUDA libraries only in a process that has torch

from ampmm.simulation.config import SimulationConfig, config_from
from ampmm.simulation.droplet import DropletForces, add_droplet_restraints
from ampmm.simulation.runner import Result, resume, start
from ampmm.simulation.system_files import SystemFiles, known_systems, read_system

__all__ = [
    "DropletForces",
    "Result",
    "SimulationConfig",
    "SystemFiles",
    "add_droplet_restraints",
    "config_from",
    "known_systems",
    "read_system",
    "resume",
    "start",
]

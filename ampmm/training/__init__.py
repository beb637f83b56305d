"""Training: configuration, loss (Eq. 12), loop and checkpoints."""

from ampmm.training.config import TrainingConfig, split_settings
from ampmm.training.processes import Processes, choose_device, joined_processes
from ampmm.training.restore import RestoredRun, read_run_frames, restore_run
from ampmm.training.trainer import TrainedModel, Trainer

__all__ = [
    "Processes",
    "RestoredRun",
    "TrainedModel",
    "Trainer",
    "TrainingConfig",
    "choose_device",
    "joined_processes",
    "read_run_frames",
    "restore_run",
    "split_settings",
]

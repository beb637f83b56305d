"""Training: configuration, loss (Eq. 12), loop and checkpoints."""

from ampmm.training.config import TrainingConfig
from ampmm.training.restore import RestoredRun, restore_run
from ampmm.training.trainer import TrainedModel, Trainer

__all__ = ["RestoredRun", "TrainedModel", "Trainer", "TrainingConfig", "restore_run"]

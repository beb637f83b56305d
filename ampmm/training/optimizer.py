"""The optimisers: Adam, or Muon on the matrices with Adam on the rest."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, Optimizer

from ampmm.errors import InputError
from ampmm.training.config import TrainingConfig

# Matrices with fewer rows or columns are last layers and embeddings of elements, which Muon is not meant for.
SMALLEST_MATRIX = 16
ADAM = {"betas": (0.9, 0.999), "eps": 1.0e-7}


def make_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """The optimiser that `config.optimizer` names, over all parameters of the model."""
    if config.optimizer == "adam":
        return Adam(model.parameters(), lr=config.learning_rate, **ADAM)
    if not hasattr(torch.optim, "Muon"):
        raise InputError(f"optimizer: muon needs torch 2.9 or newer, this is torch {torch.__version__}; update it, or use adam")
    matrices, others = [], []
    for each in model.parameters():
        (matrices if each.ndim == 2 and min(each.shape) >= SMALLEST_MATRIX else others).append(each)
    # Steps of the size of Adam's, so that both have one learning rate and one schedule.
    muon = torch.optim.Muon(matrices, lr=config.learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    return Together(muon, Adam(others, lr=config.learning_rate, **ADAM))


class Together(Optimizer):
    """Several optimisers, each with its own parameters, as one."""

    def __init__(self, *optimizers: Optimizer) -> None:
        super().__init__([group for each in optimizers for group in each.param_groups], {})
        self.optimizers = optimizers
        self._share_groups()

    def _share_groups(self) -> None:
        # The same dictionaries, so that a schedule that sets a rate here sets it there.
        self.param_groups = [group for each in self.optimizers for group in each.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One step of each."""
        for each in self.optimizers:
            each.step()

    def state_dict(self) -> dict[str, Any]:
        """Those of all."""
        return {"optimizers": [each.state_dict() for each in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of all, in the same order."""
        for each, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            each.load_state_dict(state)
        self._share_groups()

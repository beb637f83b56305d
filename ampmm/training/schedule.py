"""How the learning rate runs: linear warm-up, then an exponential fall, or cosine cycles with warm restarts."""

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, LinearLR, LRScheduler, SequentialLR

from ampmm.training.config import TrainingConfig


def learning_rate_schedule(optimizer: Optimizer, config: TrainingConfig) -> LRScheduler:
    """From `learning_rate` to `final_learning_rate` over the steps after the warm-up, once or in `cycles`."""
    falling_steps = max(1, config.steps - config.warmup_steps)
    ratio = config.final_learning_rate / config.learning_rate
    falling: LRScheduler
    if config.schedule == "cosine":
        falling = LambdaLR(optimizer, partial(cosine_factor, steps=falling_steps, cycles=config.cycles, ratio=ratio))
    else:
        falling = ExponentialLR(optimizer, gamma=ratio ** (1.0 / falling_steps))
    if config.warmup_steps == 0:
        return falling
    warmup = LinearLR(optimizer, start_factor=0.01, total_iters=config.warmup_steps)
    return SequentialLR(optimizer, [warmup, falling], milestones=[config.warmup_steps])


def cosine_factor(step: int, steps: int, cycles: int, ratio: float) -> float:
    """Factor of the learning rate: 1 at the start of each of the equal cycles, falling to `ratio` at its end."""
    position = cycles * min(step, steps) / steps
    within = position - min(math.floor(position), cycles - 1)  # 1 at the very end, not the 0 of a further cycle
    return ratio + (1.0 - ratio) * 0.5 * (1.0 + math.cos(math.pi * within))

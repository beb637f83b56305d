"""The smooth step of AMP-BMS between two regimes of a pair energy."""

import torch
from torch import Tensor


def smooth_step(x: Tensor) -> Tensor:
    """6x⁵ - 15x⁴ + 10x³ clipped to [0, 1]: 0 for x ≤ 0, 1 for x ≥ 1, with two derivatives that vanish at both ends.

    The polynomial is monotonic, so that clipping it and clipping x are the same.
    """
    x = torch.clamp(x, 0.0, 1.0)
    return x * x * x * (10.0 + x * (6.0 * x - 15.0))


def smooth_step_slope(x: Tensor) -> Tensor:
    """The derivative of `smooth_step`, 30 x² (1 - x)², zero outside of [0, 1]."""
    x = torch.clamp(x, 0.0, 1.0)
    product = x * (1.0 - x)
    return 30.0 * product * product

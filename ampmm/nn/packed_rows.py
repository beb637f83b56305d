"""R^1 and R^2 of unit vectors, component by component: the layout in which sums over many pairs are fast.

`ampmm.nn.multipoles.packed_tensors` has the same numbers one pair after another.
"""

import torch
from torch import Tensor


def packed_rows(unit: Tensor) -> Tensor:
    """Unit vectors (3, n) to their components and the five packed ones of r̂r̂ - I/3: (8, n)."""
    x, y, z = unit.unbind(0)
    s2 = 2.0**0.5
    s6 = 6.0**0.5
    return torch.stack(
        [x, y, z, s2 * x * y, s2 * x * z, s2 * y * z, (x * x - y * y) / s2, (3.0 * z * z - 1.0) / s6]
    )  # fmt: skip

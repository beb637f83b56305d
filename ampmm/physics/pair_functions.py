"""Energies of pairs as functions of distance whose derivative is written out.

Differentiated by autograd, a polynomial of ten operations costs thirty more on every pair.
"""

from torch import Tensor


def with_slope(distances: Tensor, value: Tensor, slope: Tensor) -> Tensor:
    """`value` with `slope` as its derivative by `distances`, all (n_pairs,); second derivatives by distances are lost.

    Forces need the first alone, and training on them the derivatives of that by the parameters.
    """
    return value + slope * (distances - distances.detach())

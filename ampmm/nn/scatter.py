"""Sums of per-pair or per-atom values onto atoms or frames."""

from torch import Tensor


def scatter_sum(values: Tensor, index: Tensor, size: int) -> Tensor:
    """out[index[p]] += values[p]: (n, ...) to (size, ...)."""
    return values.new_zeros([size] + list(values.shape[1:])).index_add(0, index, values)

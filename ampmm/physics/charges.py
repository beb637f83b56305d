"""Atomic charges: conservation of the net charge, and the moments they give."""

import torch
from torch import Tensor

from ampmm.nn.scatter import scatter_sum


def conserve_charge(charges: Tensor, batch: Tensor, net_charge: Tensor) -> Tensor:
    """Shift all charges of a frame by one constant so that they sum to its net charge.

    `charges` (N,) e, `batch` (N,) frame of each atom, `net_charge` (B,) e; returns (N,).
    """
    n_frames = net_charge.shape[0]
    missing = net_charge - scatter_sum(charges, batch, n_frames)
    shift = missing / scatter_sum(torch.ones_like(charges), batch, n_frames)
    return charges + shift[batch]


def dipole_moment(charges: Tensor, positions: Tensor) -> Tensor:
    """Σ q_i (r_i - r̄) about the mean position r̄: (N,) e and (N, 3) Å to (3,) e·Å."""
    return charges @ (positions - positions.mean(dim=0))

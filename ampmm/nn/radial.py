"""Radial functions: sines under a polynomial envelope (DimeNet, Klicpera et al. 2020, Eqs. 7 and 8)."""

import math

import torch
from torch import Tensor, nn


def polynomial_envelope(d: Tensor, p: int) -> Tensor:
    """d·u(d) = 1 + a d^p + b d^(p+1) + c d^(p+2): 1 at d = 0, and 0 with two derivatives at d = 1.

    `d` = r / cutoff, any shape; zero for d ≥ 1.
    """
    a = -(p + 1) * (p + 2) / 2.0
    b = float(p * (p + 2))
    c = -p * (p + 1) / 2.0
    d = d.clamp(max=1.0)
    return 1.0 + d.pow(p) * (a + d * (b + d * c))


class RadialBasis(nn.Module):
    """u(d) sin(nπd), n = 1..`n_functions`, d = r / `cutoff`, with fixed frequencies."""

    def __init__(self, n_functions: int, cutoff: float, envelope_exponent: int) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.envelope_exponent = envelope_exponent
        frequencies = math.pi * torch.arange(1, n_functions + 1, dtype=torch.float64)
        self.register_buffer("frequencies", frequencies.to(torch.get_default_dtype()), persistent=False)

    def forward(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """(n_pairs,) Å to the functions (n_pairs, n_functions) and the envelope d·u(d) (n_pairs,)."""
        d = distances / self.cutoff
        envelope = polynomial_envelope(d, self.envelope_exponent)
        return (envelope / d).unsqueeze(-1) * torch.sin(d.unsqueeze(-1) * self.frequencies), envelope


def radial_rows(distances: Tensor, frequencies: Tensor, cutoff: float, envelope_exponent: int) -> tuple[Tensor, Tensor]:
    """The same, component by component: (n_pairs,) Å to (n_functions, n_pairs) and (n_pairs,)."""
    d = distances / cutoff
    envelope = polynomial_envelope(d, envelope_exponent)
    return (envelope / d) * torch.sin(frequencies.unsqueeze(1) * d), envelope

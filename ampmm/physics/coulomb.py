"""Electrostatics between QM atoms and MM charges: the kernels, the potential they make, and its forces.

The potential does not depend on a model's weights, so its derivatives are written out here: models take φ_i as an
input and the N×M sum stays out of their autograd graph.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from ampmm.errors import InputError
from ampmm.nn import native
from ampmm.nn.scatter import scatter_sum
from ampmm.types import Pairs
from ampmm.units import COULOMB_CONSTANT


class BareCoulomb(nn.Module):
    """1/r without a cutoff: droplets and clusters."""

    def __init__(self) -> None:
        super().__init__()
        self.constants = [0.0, 0.0, 0.0, 0.0, float("inf")]  # as in ReactionField

    def forward(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Kernel w(r) and its derivative w'(r): (n,) Å to (n,) 1/Å and (n,) 1/Å²."""
        inverse = torch.reciprocal(distances)
        return inverse, -inverse * inverse


class ReactionField(nn.Module):
    """Shifted reaction field: 1/r + k_rf r² + a_4 r⁴ + a_6 r⁶ - c_rf, zero at and beyond the cutoff.

    The two extra powers (m = 4, n = 6, as in AMP-BMS) make value, slope and curvature vanish at the cutoff R. Constants
    for permittivity ε (78.4: water): k_rf = (ε-1)/(1+2ε)/R³; a_m = 3R^-(m+1)/(m(n-m))·(2ε+n-1)/(1+2ε);
    a_n = 3R^-(n+1)/(n(m-n))·(2ε+m-1)/(1+2ε); c_rf = 3ε/(1+2ε)/R + a_m R^m + a_n R^n.
    """

    def __init__(self, cutoff: float, permittivity: float = 78.4) -> None:
        super().__init__()
        m, n, eps, denominator = 4, 6, permittivity, 1.0 + 2.0 * permittivity
        self.cutoff = cutoff
        self.quadratic = (eps - 1.0) / denominator / cutoff**3
        self.quartic = 3.0 * cutoff ** -(m + 1) / (m * (n - m)) * (2.0 * eps + n - 1.0) / denominator
        self.sextic = 3.0 * cutoff ** -(n + 1) / (n * (m - n)) * (2.0 * eps + m - 1.0) / denominator
        self.shift = 3.0 * eps / denominator / cutoff + self.quartic * cutoff**m + self.sextic * cutoff**n
        self.constants = [self.quadratic, self.quartic, self.sextic, self.shift, cutoff]  # for native operators

    def forward(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Kernel w(r) and its derivative w'(r): (n,) Å to (n,) 1/Å and (n,) 1/Å²."""
        inverse = torch.reciprocal(distances)
        square = distances * distances
        inside = (distances < self.cutoff).to(distances.dtype)
        polynomial = square * (self.quadratic + square * (self.quartic + square * self.sextic))
        slope = distances * (2.0 * self.quadratic + square * (4.0 * self.quartic + square * (6.0 * self.sextic)))
        return (inverse + polynomial - self.shift) * inside, (slope - inverse * inverse) * inside


# Default cutoff of the QM–MM reaction field, Å; smaller boxes take half their width.
DEFAULT_CUTOFF: Final = 12.0
ELECTROSTATICS: Final = ("reaction-field", "bare")


def coulomb_kernel(electrostatics: str, cutoff: float | None) -> nn.Module:
    """The kernel of a named option: "reaction-field" needs a cutoff (Å), "bare" takes none."""
    if electrostatics == "reaction-field" and cutoff is not None and cutoff > 0.0:
        return ReactionField(cutoff)
    if electrostatics == "bare" and cutoff is None:
        return BareCoulomb()
    raise InputError(
        f"electrostatics: expected 'reaction-field' with a positive coulomb_cutoff in Å, or 'bare' with coulomb_cutoff=None, "
        f"got {electrostatics!r} with {cutoff!r}"
    )


class PotentialTerms(NamedTuple):
    """The potential at the QM atoms and, for its forces, each pair's part."""

    potential: Tensor  # (N,) kJ/mol/e
    pair_gradients: Tensor  # (n_pairs, 3) derivative of a pair's potential by its vector, kJ/mol/e/Å


class ElectrostaticPotential(nn.Module):
    """φ_i = k_e Σ_m q_m w(r_im) of MM charges at QM atoms, for one kernel w; natively on the CPU where the library is built."""

    native: torch.jit.Final[bool]

    def __init__(self, kernel: nn.Module) -> None:
        super().__init__()
        self.kernel = kernel
        self.native = native.available()
        self.gpu = native.gpu_device()
        self.constant = COULOMB_CONSTANT

    def forward(self, pairs: Pairs, charges: Tensor, n_atoms: int) -> PotentialTerms:
        """From the pairs and all MM `charges` (M,) e, the potential at the `n_atoms` centers."""
        differentiable = pairs.vectors.requires_grad or charges.requires_grad
        device = pairs.vectors.device.type
        if self.native and not differentiable and (device == "cpu" or device == self.gpu):
            sources = self.constant * charges
            potential, gradients = torch.ops.ampmm.charge_potential(
                pairs.vectors, sources, pairs.centers, pairs.neighbors, n_atoms, self.kernel.constants
            )
            return PotentialTerms(potential, gradients)
        components = pairs.vectors.t()  # vector_norm takes ten times as long where vectors lie component by component
        distances = (components * components).sum(dim=0).sqrt()
        value, slope = self.kernel(distances)
        source = self.constant * charges[pairs.neighbors]
        potential = scatter_sum(source * value, pairs.centers, n_atoms)
        return PotentialTerms(potential, (source * slope / distances).unsqueeze(-1) * pairs.vectors)

"""London dispersion with Becke–Johnson damping (the pair terms of D4), from atomic C6 coefficients."""

from torch import Tensor, nn

from ampmm.physics.pair_functions import with_slope
from ampmm.units import ANGSTROM_PER_BOHR_AMP_BMS, KJ_PER_MOL_PER_HARTREE_AMP_BMS


class Dispersion(nn.Module):
    """-√(C6_i C6_j) [1/(R⁶ + f⁶) + s8 (s_i s_j)²/(R⁸ + f⁸)], f = a1 s_i s_j + a2, in atomic units.

    C6 is a factor times that of the free atom; s = √(r4/r2). The damping parameters are those of AMP-BMS.
    """

    def __init__(self) -> None:
        super().__init__()
        self.s8, self.a1, self.a2 = 0.7761, 0.7514, 2.7099
        self.bohr, self.hartree = ANGSTROM_PER_BOHR_AMP_BMS, KJ_PER_MOL_PER_HARTREE_AMP_BMS

    def forward(self, distances: Tensor, first: Tensor, second: Tensor, sqrt_c6: Tensor, sqrt_r4r2: Tensor) -> Tensor:
        """Energies of pairs.

        Args:
            distances: (n_pairs,) Å.
            first, second: (n_pairs,) indices of a pair's atoms.
            sqrt_c6, sqrt_r4r2: (N,) of the atoms, atomic units.

        Returns:
            (n_pairs,) kJ/mol; differentiable once by the distances.
        """
        product = sqrt_r4r2.index_select(0, first) * sqrt_r4r2.index_select(0, second)
        value, slope = self.kernel(distances.detach(), product)
        return sqrt_c6.index_select(0, first) * sqrt_c6.index_select(0, second) * with_slope(distances, value, slope)

    def kernel(self, distances: Tensor, product: Tensor) -> tuple[Tensor, Tensor]:
        """The energy at √(C6_i C6_j) = 1 and its derivative by distance, kJ/mol and kJ/mol/Å; `product` is s_i s_j."""
        r = distances / self.bohr
        square = r * r
        fourth = square * square
        damping = self.a1 * product + self.a2
        damping = damping * damping
        damping_sixth = damping * damping * damping
        share_8 = self.s8 * product * product
        sum_6 = 1.0 / (fourth * square + damping_sixth)
        sum_8 = 1.0 / (fourth * fourth + damping_sixth * damping)
        value = -self.hartree * (sum_6 + share_8 * sum_8)
        falls = 6.0 * sum_6 * sum_6 + 8.0 * share_8 * square * sum_8 * sum_8
        return value, (self.hartree / self.bohr) * fourth * r * falls

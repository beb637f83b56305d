"""London dispersion with Becke–Johnson damping (the pair terms of D4), from atomic C6 coefficients."""

from torch import Tensor, nn

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
            (n_pairs,) kJ/mol.
        """
        product = sqrt_r4r2[first] * sqrt_r4r2[second]
        square = (distances / self.bohr) ** 2
        damping = (self.a1 * product + self.a2) ** 2
        sixth, damping_sixth = square**3, damping**3
        sum_6 = 1.0 / (sixth + damping_sixth)
        sum_8 = self.s8 * product**2 / (sixth * square + damping_sixth * damping)
        return -self.hartree * sqrt_c6[first] * sqrt_c6[second] * (sum_6 + sum_8)

"""Coulomb and dispersion of QM pairs at long range, as AMP-BMS has them."""

import torch
from torch import Tensor, nn

from ampmm.nn import native
from ampmm.physics.coulomb import ReactionField
from ampmm.physics.dispersion import Dispersion
from ampmm.physics.pair_functions import with_slope
from ampmm.physics.switching import smooth_step, smooth_step_slope
from ampmm.units import COULOMB_CONSTANT


class LongRangeEnergies(nn.Module):
    """k_e ρ_i ρ_j w(r) s(r/`graph_cutoff`) and the dispersion energy of QM pairs within `cutoff` (Å), each pair once.

    s is the smooth step from 0 to 1: nearer pairs are the graph's matter.
    """

    def __init__(self, cutoff: float, graph_cutoff: float) -> None:
        super().__init__()
        self.graph_cutoff = graph_cutoff
        self.constant = COULOMB_CONSTANT
        self.kernel = ReactionField(cutoff)
        self.dispersion = Dispersion()

    def forward(
        self, vectors: Tensor, charges: Tensor, sqrt_c6: Tensor, sqrt_r4r2: Tensor, centers: Tensor, neighbors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Vectors (n, 3) Å of pairs; charges (N,) e, √C6 and √(r4/r2) (N,) in atomic units, to energies (n,) twice, kJ/mol.

        Differentiable once by the vectors.
        """
        components = vectors.t()
        distances = (components * components).sum(0).sqrt()
        r = distances.detach()
        x = r / self.graph_cutoff
        value, slope = self.kernel(r)
        step = smooth_step(x)
        kernel = with_slope(distances, value * step, slope * step + value * smooth_step_slope(x) / self.graph_cutoff)
        coulomb = self.constant * charges.index_select(0, centers) * charges.index_select(0, neighbors) * kernel
        return coulomb, self.dispersion(distances, centers, neighbors, sqrt_c6, sqrt_r4r2)


class NativeLongRangeEnergies(nn.Module):
    """Native `LongRangeEnergies`, for evaluations: training differentiates twice, with the twin."""

    def __init__(self, twin: LongRangeEnergies) -> None:
        super().__init__()
        self.twin = twin
        damping = twin.dispersion
        self.parameters_ = [
            *twin.kernel.constants, twin.graph_cutoff, twin.constant,
            damping.s8, damping.a1, damping.a2, damping.bohr, damping.hartree,
        ]  # fmt: skip
        self.train(twin.training)

    def forward(
        self, vectors: Tensor, charges: Tensor, sqrt_c6: Tensor, sqrt_r4r2: Tensor, centers: Tensor, neighbors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As the twin."""
        if vectors.device.type != "cpu" or self.training:
            return self.twin(vectors, charges, sqrt_c6, sqrt_r4r2, centers, neighbors)
        return torch.ops.ampmm.long_range_energies(vectors, charges, sqrt_c6, sqrt_r4r2, centers, neighbors, self.parameters_)


native.register(LongRangeEnergies, NativeLongRangeEnergies)

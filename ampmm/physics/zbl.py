"""Repulsion of screened nuclei at short range (Ziegler, Biersack, Littmark, 1985)."""

import torch
from torch import Tensor, nn

from ampmm.nn import native
from ampmm.physics.pair_functions import with_slope
from ampmm.physics.switching import smooth_step, smooth_step_slope
from ampmm.units import ANGSTROM_PER_BOHR_AMP_BMS, COULOMB_CONSTANT


class ZBLRepulsion(nn.Module):
    """k_e Z_i Z_j/r Σ_k c_k exp(-a_k r/a), switched off over the last Å before `cutoff` (Å).

    The screening length is a = 0.8854 Bohr/(Z_i^0.23 + Z_j^0.23).
    """

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.constant = COULOMB_CONSTANT
        self.screening = 0.8854 * ANGSTROM_PER_BOHR_AMP_BMS
        self.heights = (0.18180, 0.50990, 0.28020, 0.02817)
        self.decays = (3.2, 0.9423, 0.4028, 0.2016)

    def forward(self, distances: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Distances (n_pairs,) Å and atomic numbers (n_pairs,) of both atoms to energies (n_pairs,), kJ/mol.

        Differentiable once by the distances.
        """
        dtype = distances.dtype
        z_first, z_second = first.to(dtype), second.to(dtype)
        r = distances.detach()
        per_length = (z_first**0.23 + z_second**0.23) / self.screening  # 1/Å
        screened, falls = torch.zeros_like(r), torch.zeros_like(r)
        for height, decay in zip(self.heights, self.decays):  # noqa: B905 (TorchScript has no strict zip)
            part = height * torch.exp(-decay * per_length * r)
            screened, falls = screened + part, falls + decay * part
        bare = self.constant * z_first * z_second / r
        x = r - (self.cutoff - 1.0)
        kept = 1.0 - smooth_step(x)
        slope = -bare * ((falls * per_length + screened / r) * kept + screened * smooth_step_slope(x))
        return with_slope(distances, bare * screened * kept, slope)


class NativeZBLRepulsion(nn.Module):
    """Native `ZBLRepulsion`, for evaluations: training differentiates twice, with the twin."""

    def __init__(self, twin: ZBLRepulsion) -> None:
        super().__init__()
        self.twin = twin
        self.parameters_ = [twin.cutoff, twin.constant, twin.screening, *twin.heights, *twin.decays]
        self.train(twin.training)

    def forward(self, distances: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """As the twin."""
        if distances.device.type != "cpu" or self.training:
            return self.twin(distances, first, second)
        return torch.ops.ampmm.nuclear_repulsion(distances, first, second, self.parameters_)


native.register(ZBLRepulsion, NativeZBLRepulsion)

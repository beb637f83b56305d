"""Small AMP models in float64 and random QM regions among MM charges, for tests of what holds for every variant."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ampmm.geometry.neighbors import edges_within, pairs_between
from ampmm.models import AMP, AMPConfig
from ampmm.physics.coulomb import BareCoulomb
from ampmm.physics.forces import EnergiesAndForces, ForceEvaluator
from ampmm.types import Frame, Pairs

ELEMENTS = (1, 6, 7, 8)
CUTOFF, POLARIZATION_CUTOFF = 3.0, 4.5  # Å; some pairs of `random_region` are inside and some are not
VARIANTS = {
    AMPConfig(ELEMENTS, *settings).name: settings
    for settings in (
        *(
            (order, polarization, long_range, "pairs")
            for order in (None, 0, 1, 2, 3)
            for polarization in (False, True)[: 2 if order else 1]
            for long_range in (False, True)
        ),
        (1, True, False, "fields"),
        (3, True, True, "fields"),
    )
}
LONG_RANGE = [name for name, (_, _, long_range, _) in VARIANTS.items() if long_range]
POLARIZED = [name for name, (_, polarization, _, _) in VARIANTS.items() if polarization]


def small_config(variant: str, **changes) -> AMPConfig:
    """Two narrow layers whose multipoles are large enough to matter in an untrained model."""
    settings = {
        "n_layers": 2,
        "width": 16,
        "n_radial": 8,
        "n_radial_weights": 4,
        "n_radial_weights_mm": 4,
        "multipole_scale": 0.1,
    }
    settings |= {"cutoff": CUTOFF, "polarization_cutoff": POLARIZATION_CUTOFF}
    return AMPConfig(ELEMENTS, *VARIANTS[variant], **(settings | changes))


def small_model(variant: str, seed: int = 0, dtype: torch.dtype = torch.float64, **changes) -> AMP:
    """An untrained model of a variant, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AMP(small_config(variant, **changes))
    model.set_element_energies({number: -10.0 * number for number in ELEMENTS})
    return model.to(dtype).eval()


class Region(NamedTuple):
    """One QM region among MM charges."""

    numbers: Tensor  # (N,)
    qm: Tensor  # (N, 3) Å
    mm: Tensor  # (M, 3) Å
    charges: Tensor  # (M,) e
    charge: float = 0.0  # of the QM region, e


def random_region(n_qm: int = 7, n_mm: int = 12, charge: float = 0.0, seed: int = 1) -> Region:
    """QM atoms at least 1 Å apart within about 4 Å, MM charges at least 1.5 Å from them and up to 8 Å away."""
    random = torch.Generator().manual_seed(seed)
    qm = _scattered(n_qm, 2.2, 1.0, torch.zeros(0, 3, dtype=torch.float64), random)
    mm = _scattered(n_mm, 5.0, 1.5, qm, random)
    numbers = torch.tensor(ELEMENTS)[torch.arange(n_qm) % len(ELEMENTS)]
    return Region(numbers, qm, mm, torch.randn(n_mm, dtype=torch.float64, generator=random), charge)


def _scattered(count: int, half_width: float, apart: float, others: Tensor, random: torch.Generator) -> Tensor:
    points, own = others, others[:0]
    while len(own) < count:
        point = half_width * (2.0 * torch.rand(1, 3, dtype=torch.float64, generator=random) - 1.0)
        if len(points) == 0 or torch.cdist(point, points).min() > apart:
            points, own = torch.cat([points, point]), torch.cat([own, point])
    return own


def evaluate(
    model: nn.Module,
    regions: Region | Sequence[Region],
    *,
    kernel: nn.Module | None = None,
    edge_cutoff: float = CUTOFF,
    pair_cutoff: float = POLARIZATION_CUTOFF,
    create_graph: bool = False,
) -> EnergiesAndForces:
    """Energies and forces of one region or of a batch, without a box; Coulomb pairs are not cut."""
    regions = [regions] if isinstance(regions, Region) else list(regions)
    edges, near, all_pairs, batch = [], [], [], []
    n = m = 0
    for index, region in enumerate(regions):
        edges.append(_shifted(edges_within(region.qm, edge_cutoff, None), n, n))
        near.append(_shifted(pairs_between(region.qm, region.mm, pair_cutoff, None), n, m))
        all_pairs.append(_shifted(pairs_between(region.qm, region.mm, float("inf"), None), n, m))
        batch.append(torch.full_like(region.numbers, index))
        n, m = n + len(region.qm), m + len(region.mm)
    like = {"dtype": regions[0].qm.dtype, "device": regions[0].qm.device}
    frame = Frame(
        torch.cat([region.numbers for region in regions]),
        torch.cat(batch),
        torch.tensor([region.charge for region in regions], **like),
        _joined(edges),
    )
    charges = torch.cat([region.charges for region in regions])
    evaluator = ForceEvaluator(model, BareCoulomb() if kernel is None else kernel)
    return evaluator(frame, charges, _joined(near), _joined(all_pairs), create_graph)


def _shifted(pairs: Pairs, n: int, m: int) -> Pairs:
    return Pairs(pairs.centers + n, pairs.neighbors + m, pairs.vectors)


def _joined(pairs: Sequence[Pairs]) -> Pairs:
    return Pairs(*(torch.cat(parts) for parts in zip(*pairs, strict=True)))

"""Random QM regions among random MM charges, at the densities of molecules and of water.

What an evaluation costs depends on the numbers of atoms, charges and pairs, not on where exactly they are.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch

from ampmm.errors import InputError
from ampmm.geometry.neighbors import edges_within, pairs_between, pairs_closer_than
from ampmm.types import Frame, Pairs

ELEMENTS: Final = (1, 6, 7, 8)
# QM atoms and MM charges of the paper's Table 4.
PAPER_REGIONS: Final = {"uracil": (12, 1490), "ra": (50, 1000), "sam": (63, 1000)}
ATOM_DENSITY: Final = 0.1  # of QM and MM atoms, 1/Å³
QM_SPACING: Final = 1.0  # Å, the least between QM atoms
MM_SPACING: Final = 1.7  # Å, the least between a QM atom and an MM charge
WATER_CHARGES: Final = (-0.834, 0.417, 0.417)  # e, TIP3P


class Region(NamedTuple):
    """A QM region in MM charges."""

    numbers: np.ndarray  # (N,)
    positions_qm: np.ndarray  # (N, 3) Å
    positions_mm: np.ndarray  # (M, 3) Å
    charges_mm: np.ndarray  # (M,) e


class Arguments(NamedTuple):
    """What an evaluator takes."""

    frame: Frame
    charges: torch.Tensor
    polarization: Pairs
    coulomb: Pairs


def parse_region(text: str) -> tuple[int, int]:
    """QM atoms and MM charges, from one of the paper's systems or from e.g. ``50x2400``."""
    if text in PAPER_REGIONS:
        return PAPER_REGIONS[text]
    match = re.fullmatch(r"(\d+)[x×](\d+)", text)
    if match is None or int(match[1]) < 2:
        raise InputError(
            f"region: expected {', '.join(PAPER_REGIONS)}, or QM atoms (2 or more) and MM charges as in 50x2400; got {text!r}"
        )
    return int(match[1]), int(match[2])


def random_region(n_qm: int, n_mm: int, seed: int = 0, elements: Sequence[int] = ELEMENTS) -> Region:
    """A ball of `n_qm` atoms, of `elements` (atomic numbers) in turn, with the `n_mm` charges nearest to it."""
    random = np.random.default_rng(seed)
    qm = _random_ball(n_qm, random)
    half = 1.15 * ((n_mm / ATOM_DENSITY + 12 * n_qm) * 0.75 / np.pi) ** (1 / 3)
    mm = random.uniform(-half, half, (int(ATOM_DENSITY * (2 * half) ** 3), 3))
    nearest = np.min([np.linalg.norm(mm - atom, axis=-1) for atom in qm], axis=0)
    order = np.argsort(nearest)
    chosen = order[nearest[order] > MM_SPACING][:n_mm]
    numbers = np.resize(elements, n_qm)
    return Region(numbers, qm, mm[chosen], np.resize(WATER_CHARGES, n_mm)[: len(chosen)])


def _random_ball(count: int, random: np.random.Generator) -> np.ndarray:
    radius = (count / ATOM_DENSITY * 0.75 / np.pi) ** (1 / 3) + 0.3
    placed = np.empty((0, 3))
    while len(placed) < count:
        point = random.uniform(-radius, radius, 3)
        if np.linalg.norm(point) < radius and (np.linalg.norm(placed - point, axis=-1) > QM_SPACING).all():
            placed = np.vstack([placed, point])
    return placed


def lists_of(
    region: Region, cutoff: float, polarization_cutoff: float, coulomb_cutoff: float, device: torch.device
) -> tuple[Pairs, Pairs, Pairs]:
    """The pairs of one region: QM graph, polarization, Coulomb (infinite cutoff: all); in double precision, as in dynamics."""
    qm, mm = torch.as_tensor(region.positions_qm, device=device), torch.as_tensor(region.positions_mm, device=device)
    coulomb = pairs_between(qm, mm, max(coulomb_cutoff, polarization_cutoff), None)
    return edges_within(qm, cutoff, None), pairs_closer_than(coulomb, polarization_cutoff), coulomb


def batched(
    regions: list[Region],
    cutoff: float,
    polarization_cutoff: float,
    coulomb_cutoff: float = float("inf"),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Arguments:
    """The arguments of an evaluator for regions laid one after another."""
    device = torch.device(device)
    parts: tuple[list[Pairs], ...] = ([], [], [])
    n = m = 0
    for region in regions:
        found = lists_of(region, cutoff, polarization_cutoff, coulomb_cutoff, device)
        for part, pairs, first in zip(parts, found, (n, m, m), strict=True):
            part.append(Pairs(pairs.centers + n, pairs.neighbors + first, pairs.vectors.to(dtype)))
        n, m = n + len(region.numbers), m + len(region.positions_mm)
    edges, near, everything = (Pairs(*map(torch.cat, zip(*part, strict=True))) for part in parts)
    numbers = torch.as_tensor(np.concatenate([each.numbers for each in regions]), device=device)
    counts = torch.tensor([len(each.numbers) for each in regions], device=device)
    batch = torch.arange(len(regions), device=device).repeat_interleave(counts)
    charges = torch.as_tensor(np.concatenate([each.charges_mm for each in regions]), device=device, dtype=dtype)
    net = torch.zeros(len(regions), device=device, dtype=dtype)
    return Arguments(Frame(numbers, batch, net, edges), charges, near, everything)

"""Pair energies of AMP-BMS in their known limits."""

import math

import pytest
import torch

from ampmm.physics.dispersion import Dispersion
from ampmm.physics.switching import smooth_step
from ampmm.physics.zbl import ZBLRepulsion
from ampmm.units import COULOMB_CONSTANT


def distances(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_the_step_goes_from_0_to_1_with_two_derivatives():
    x = distances(-1.0, 0.0, 0.5, 1.0, 5.0)
    value = smooth_step(x)
    torch.testing.assert_close(value.detach(), x.new_tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert slope.tolist() == pytest.approx([0.0, 0.0, 1.875, 0.0, 0.0])
    assert curvature.abs().max() < 1e-12


@pytest.mark.parametrize(
    "energies",
    [
        lambda r: ZBLRepulsion(4.0)(r, torch.tensor([1, 6, 8, 16]), torch.tensor([8, 7, 8, 1])),
        lambda r: Dispersion()(r, torch.arange(4), torch.tensor([1, 2, 3, 0]), torch.arange(1, 5).double(),
                               torch.tensor([2.0, 3.0, 2.6, 4.0]).double()),
    ],
    ids=["repulsion", "dispersion"],
)  # fmt: skip
def test_the_written_slopes_are_those_of_the_energies(energies):
    r, step = distances(1.0, 2.4, 3.3, 3.9), 1e-5
    (slope,) = torch.autograd.grad(energies(r).sum(), r)
    with torch.no_grad():
        expected = (energies(r + step) - energies(r - step)) / (2.0 * step)
    torch.testing.assert_close(slope, expected, rtol=1e-7, atol=1e-9)
    assert slope.abs().min() > 1e-6


def test_repulsion_of_close_nuclei_is_that_of_bare_ones():
    r = distances(1e-6)
    energy = ZBLRepulsion(4.0)(r, torch.tensor([8]), torch.tensor([6]))
    assert (energy * r).item() == pytest.approx(COULOMB_CONSTANT * 48.0 * (0.1818 + 0.5099 + 0.2802 + 0.02817), rel=1e-5)


def test_repulsion_ends_smoothly_at_the_cutoff():
    r = distances(2.9, 3.5, 4.0, 4.5)
    energy = ZBLRepulsion(4.0)(r, torch.tensor([1] * 4), torch.tensor([8] * 4))
    (slope,) = torch.autograd.grad(energy.sum(), r)
    assert energy[0] > energy[1] > 0.0 and (slope[:2] < 0.0).all()
    assert (energy[2:] == 0.0).all() and slope[2:].abs().max() < 1e-10


def test_dispersion_far_away_is_minus_c6_over_r6():
    """In atomic units 1 Hartree = 2625.5 kJ/mol; C8 adds the share s8 (s_i s_j)²/R²."""
    bohr = 200.0
    energy = Dispersion()(distances(bohr * 0.529177), torch.tensor([0]), torch.tensor([1]),
                          torch.tensor([3.0, 4.0]).double(), torch.tensor([2.0, 3.0]).double())  # fmt: skip
    expected = -2625.5 * 12.0 / bohr**6 * (1.0 + 0.7761 * 36.0 / bohr**2)
    assert energy.item() == pytest.approx(expected, rel=1e-4)


def test_dispersion_of_joined_atoms_is_damped_to_a_constant():
    r = distances(1e-3, 2e-3)
    energy = Dispersion()(r, torch.tensor([0, 0]), torch.tensor([1, 1]), torch.ones(2).double(), torch.ones(2).double())
    assert math.isfinite(energy[0].item()) and energy[0].item() == pytest.approx(energy[1].item(), rel=1e-9)
    assert energy[0] < 0.0

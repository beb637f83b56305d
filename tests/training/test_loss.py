"""Eq. 12: (1-λ)·energy + λ·(QM forces + w·MM forces), each a mean of squares."""

import pytest
import torch

from ampmm.data.batching import Batch
from ampmm.physics.forces import EnergiesAndForces
from ampmm.training.loss import weighted_loss
from ampmm.types import Energies, Frame, Pairs


def prediction_and_labels(energy_error: float, qm_error: float, mm_error: float, n_mm: int = 4):
    pairs = Pairs(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0, 3))
    frame = Frame(torch.ones(3, dtype=torch.long), torch.tensor([0, 0, 1]), torch.zeros(2), pairs)
    energy = torch.tensor([-1.0e6, -2.0e6], dtype=torch.float64)
    batch = Batch(frame, torch.zeros(n_mm), pairs, pairs, energy, torch.zeros(3, 3), torch.zeros(n_mm, 3))
    energies = Energies(energy + energy_error, energy, torch.zeros(2), torch.zeros(3))
    return EnergiesAndForces(energies, torch.full((3, 3), qm_error), torch.full((n_mm, 3), mm_error)), batch


@pytest.mark.parametrize(
    ("errors", "expected"),
    [((0.5, 0.0, 0.0), 0.2 * 0.25), ((0.0, 2.0, 0.0), 0.8 * 4.0), ((0.0, 0.0, 0.1), 0.8 * 100.0 * 0.01)],
)
def test_each_term_has_its_weight(errors, expected):
    loss = weighted_loss(*prediction_and_labels(*errors), force_weight=0.8, mm_force_weight=100.0)
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)


def test_terms_add_up():
    loss = weighted_loss(*prediction_and_labels(0.5, 2.0, 0.1), force_weight=0.8, mm_force_weight=100.0)
    assert loss.total.item() == pytest.approx(0.05 + 3.2 + 0.8, rel=1e-5)
    assert (loss.energy.item(), loss.forces_qm.item(), loss.forces_mm.item()) == pytest.approx((0.25, 4.0, 0.01))


def test_small_differences_of_large_energies_survive():
    loss = weighted_loss(*prediction_and_labels(1e-3, 0.0, 0.0), force_weight=0.0, mm_force_weight=0.0)
    assert loss.total.item() == pytest.approx(1e-6, rel=1e-4)


def test_batch_without_mm_charges_has_a_finite_loss():
    loss = weighted_loss(*prediction_and_labels(0.5, 2.0, 0.0, n_mm=0), force_weight=0.8, mm_force_weight=100.0)
    assert loss.forces_mm.item() == 0.0
    assert loss.total.item() == pytest.approx(3.25)

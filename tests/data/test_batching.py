"""A batch is its frames side by side: no frame feels another, whatever the numbers of their MM charges."""

import numpy as np
import pytest
import torch
from support.bms_models import small_bms
from support.toy_frames import CHARGES, toy_energy_and_forces, toy_frames

from ampmm.data.batching import Batch, Batcher
from ampmm.models import build_model
from ampmm.physics.coulomb import BareCoulomb
from ampmm.physics.evaluators import force_evaluator
from ampmm.physics.forces import EnergiesAndForces, ForceEvaluator

COUNTS = (8, 0, 5, 10)
CUTOFF, POLARIZATION_CUTOFF = 5.0, 4.0


@pytest.fixture(scope="module")
def frames():
    return toy_frames(8, charge_counts=COUNTS)


@pytest.fixture(scope="module")
def batcher(frames):
    return Batcher(frames, CUTOFF, POLARIZATION_CUTOFF, dtype=torch.float64)


@pytest.fixture(scope="module")
def evaluator():
    torch.manual_seed(0)
    model = build_model(
        "amp",
        {"elements": [1, 8], "width": 16, "n_layers": 2, "multipole_scale": 0.1, "polarization_cutoff": POLARIZATION_CUTOFF},
    )
    return ForceEvaluator(model.double(), BareCoulomb())


def evaluate(evaluator: ForceEvaluator, batch: Batch) -> EnergiesAndForces:
    return evaluator(batch.frame, batch.charges, batch.polarization, batch.coulomb)


def test_toy_labels_are_the_gradient_of_their_energy(frames):
    record, step = frames.record(0), 1e-5
    positions = np.concatenate([record.positions_qm, record.positions_mm.astype(float)])
    charges = record.charges_mm.astype(float)
    _, forces_qm, forces_mm = toy_energy_and_forces(positions[:3], positions[3:], charges)
    numeric = np.zeros_like(positions)
    for place in np.ndindex(positions.shape):
        ends = []
        for sign in (1.0, -1.0):
            moved = positions.copy()
            moved[place] += sign * step
            ends.append(toy_energy_and_forces(moved[:3], moved[3:], charges)[0])
        numeric[place] = -(ends[0] - ends[1]) / (2.0 * step)
    np.testing.assert_allclose(np.concatenate([forces_qm, forces_mm]), numeric, atol=1e-5)


def test_a_batch_gives_what_its_frames_give_alone(batcher, evaluator):
    together = evaluate(evaluator, batcher.batch([0, 1, 2, 3]))
    alone = [evaluate(evaluator, batcher.batch([index])) for index in range(4)]
    torch.testing.assert_close(together.energies.total, torch.cat([each.energies.total for each in alone]))
    torch.testing.assert_close(together.forces_qm, torch.cat([each.forces_qm for each in alone]))
    torch.testing.assert_close(together.forces_mm, torch.cat([each.forces_mm for each in alone]))
    assert together.forces_mm.abs().max() > 0.1


def test_order_of_the_frames_in_a_batch_does_not_matter(batcher, evaluator):
    order = [2, 0, 3, 1]
    first, second = evaluate(evaluator, batcher.batch([0, 1, 2, 3])), evaluate(evaluator, batcher.batch(order))
    torch.testing.assert_close(second.energies.total, first.energies.total[order])
    torch.testing.assert_close(second.forces_qm.view(4, 3, 3), first.forces_qm.view(4, 3, 3)[order])


def test_targets_are_the_labels_of_the_chosen_frames(frames, batcher):
    batch = batcher.batch([5, 0])
    np.testing.assert_array_equal(batch.energy, frames.energy[[5, 0]])
    np.testing.assert_array_equal(batch.forces_qm, frames.forces_qm[[5, 0]].reshape(-1, 3))
    expected = np.concatenate([frames.record(5).forces_mm, frames.record(0).forces_mm])
    np.testing.assert_array_equal(batch.forces_mm, expected.astype(float))


def test_pairs_join_atoms_and_charges_of_one_frame(frames, batcher):
    batch = batcher.batch([0, 1, 2, 3])
    owner_of_charge = torch.arange(4).repeat_interleave(torch.tensor(COUNTS))
    for pairs in (batch.coulomb, batch.polarization):
        assert torch.equal(batch.frame.batch[pairs.centers], owner_of_charge[pairs.neighbors])
    assert torch.equal(batch.frame.batch[batch.frame.edges.centers], batch.frame.batch[batch.frame.edges.neighbors])
    assert len(batch.coulomb.centers) == 3 * sum(COUNTS)
    distances = torch.linalg.vector_norm(batch.coulomb.vectors, dim=-1)
    assert len(batch.polarization.centers) == int((distances < POLARIZATION_CUTOFF).sum()) < len(distances)


def test_frames_without_mm_charges_have_energy_and_no_electrostatics(batcher, evaluator):
    batch = batcher.batch([1, 5])
    result = evaluate(evaluator, batch)
    assert batch.charges.shape == (0,)
    assert result.forces_mm.shape == (0, 3)
    assert torch.equal(result.energies.coulomb, torch.zeros(2, dtype=torch.float64))
    assert torch.isfinite(result.forces_qm).all()


def test_net_charge_of_the_file_reaches_the_model(frames, evaluator):
    charged = frames._replace(header=type(frames.header)("toy", -1, "all", "droplet", level_of_theory="toy"))
    batch = Batcher(charged, CUTOFF, POLARIZATION_CUTOFF, dtype=torch.float64).batch([0, 2])
    charges = evaluate(evaluator, batch).energies.charges
    torch.testing.assert_close(charges.view(2, 3).sum(dim=1), torch.full((2,), -1.0, dtype=torch.float64))
    assert abs(CHARGES.sum()) < 1e-12


def test_batches_cover_all_frames_once(batcher):
    energies = torch.cat([batch.energy for batch in batcher.batches(np.arange(8), 3)])
    assert len(energies) == 8
    assert len(set(energies.tolist())) == 8


def test_a_model_with_long_range_pairs_gets_each_once_and_its_batch_is_its_frames():
    """Energies and forces of a batch of AMP-BMS are those of its frames alone."""
    frames, model = toy_frames(4), small_bms()
    batcher = Batcher(
        frames, model.cutoff, model.polarization_cutoff, dtype=torch.float64, long_range_cutoff=model.long_range_cutoff
    )
    evaluator = force_evaluator(model, BareCoulomb())

    def of(batch: Batch):
        return evaluator(batch.frame, batch.charges, batch.polarization, batch.coulomb, long_range=batch.long_range)

    batch = batcher.batch(range(4))
    assert len(batch.long_range.vectors) == 4 * 3 and (batch.long_range.centers < batch.long_range.neighbors).all()
    together, alone = of(batch), [of(batcher.batch([index])) for index in range(4)]
    torch.testing.assert_close(together.energies.total, torch.cat([each.energies.total for each in alone]))
    torch.testing.assert_close(together.forces_qm, torch.cat([each.forces_qm for each in alone]))
    torch.testing.assert_close(together.forces_mm, torch.cat([each.forces_mm for each in alone]))

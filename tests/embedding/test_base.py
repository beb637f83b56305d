"""A Δ-model in OpenMM: refused without its base; with it, the force is the sum of both."""

import dataclasses

import numpy as np
import pytest
import torch
from embedding_systems import context, energy, forces

from ampmm.embedding import create_mixed_system, strip_qm_terms
from ampmm.errors import EmbeddingError, InputError
from ampmm.types import Evaluation

GROUP = 7


class Springs:
    """A cheap method: QM atoms pull each MM charge by a spring as strong as the charge."""

    level_of_theory = "springs"

    def __init__(self, **settings):
        self.settings = {"stiffness": 1.0, "version": "2", **settings}

    def evaluate(self, numbers, positions_qm, positions_mm, charges_mm, box=None, qm_charge=None):
        vectors = positions_qm[:, None] - positions_mm[None]
        pull = charges_mm[None, :, None] * vectors
        total = 0.5 * (charges_mm * (vectors**2).sum(-1)).sum()
        return Evaluation(total, -pull.sum(1), pull.sum(0), np.full(len(numbers), qm_charge / len(numbers)), np.ones(3))


@pytest.fixture(scope="module")
def delta(model):
    """The small model with a card that says it corrects the springs."""
    base = {"level_of_theory": "springs", "level_settings": {"stiffness": 1.0, "version": "1"}}
    return dataclasses.replace(model, card=dataclasses.replace(model.card, base=base))


def frame(droplet):
    charges = strip_qm_terms(droplet.system, range(4)).charges
    mm = np.flatnonzero(charges)[4:]
    return mm, ([6, 8, 8, 1], 10 * droplet.positions[:4], 10 * droplet.positions[mm], charges[mm])


def test_energies_forces_and_charges_are_sums(delta, droplet):
    _, values = frame(droplet)
    whole = delta.with_base(Springs()).evaluate(*values, dtype=torch.float64)
    base = Springs().evaluate(*values, qm_charge=-1)
    assert whole.charges_qm.sum() == pytest.approx(-1.0)  # the base has the net charge, the model's own charges have none
    difference = [mine - theirs for mine, theirs in zip(whole, base, strict=True)]
    assert difference[3].sum() == pytest.approx(0.0, abs=1e-5)
    shifted = np.array(values[1]) + 1e-3 * np.eye(4, 3)
    other = delta.with_base(Springs()).evaluate(values[0], shifted, *values[2:], dtype=torch.float64)
    step = other.energy - whole.energy
    mean_force = 0.5 * (whole.forces_qm + other.forces_qm)
    assert step == pytest.approx(-1e-3 * np.trace(mean_force[:3]), rel=0.02, abs=1e-5)


@pytest.mark.parametrize(("dtype", "resolution"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_the_force_in_a_droplet_is_the_sum(delta, droplet, dtype, resolution):
    together = delta.with_base(Springs())
    system, _ = create_mixed_system(droplet.topology, droplet.system, "FOR", together, force_group=GROUP, dtype=dtype)
    mm, values = frame(droplet)
    expected = together.evaluate(*values, dtype=dtype)
    here = context(system, droplet.positions)
    assert energy(here, {GROUP}) == pytest.approx(expected.energy, rel=resolution)
    got = forces(here, {GROUP})
    scale = np.abs(expected.forces_qm).max()
    assert np.allclose(got[:4], 10 * expected.forces_qm, atol=1e-4 * scale)
    assert np.allclose(got[mm], 10 * expected.forces_mm, atol=1e-4 * scale)


def test_without_its_base_it_is_refused(delta, droplet, box):
    _, values = frame(droplet)
    message = r"is a correction to springs and no energy by itself; add that method with .*with_base"
    with pytest.raises(InputError, match=message):
        delta.evaluate(*values)
    for case in (droplet, box):
        with pytest.raises((InputError, EmbeddingError), match=message):
            create_mixed_system(case.topology, case.system, "FOR", delta)


def test_a_base_knows_no_periodic_images(delta, box):
    with pytest.raises(EmbeddingError, match="cut out a droplet"):
        create_mixed_system(box.topology, box.system, "FOR", delta.with_base(Springs()))


def test_only_the_cards_base_is_taken(delta, model):
    with pytest.raises(InputError, match=r"trained with other settings of springs: stiffness 2.0, not 1.0"):
        delta.with_base(Springs(stiffness=2.0))
    with pytest.raises(InputError, match=r"corrects springs, got GFN2-xTB"):
        other = Springs()
        other.level_of_theory = "GFN2-xTB"
        delta.with_base(other)
    with pytest.raises(InputError, match=r"corrects springs, got object"):
        delta.with_base(object())
    with pytest.raises(InputError, match=r"is no Δ-model"):
        model.with_base(Springs())

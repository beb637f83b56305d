"""Any object with `evaluate` in the place of a model: what it needs, and where it does not fit."""

import numpy as np
import openmm
import pytest
from embedding_systems import ML_GROUP, context, energy, forces, mixed

from ampmm.embedding import add_force, deserialize_system, serialize_system, strip_qm_terms
from ampmm.errors import BackendError, EmbeddingError, InputError
from ampmm.types import Evaluation


class Springs:
    """An evaluator: QM atoms pull each MM charge by a spring as strong as the charge."""

    def evaluate(self, numbers, positions_qm, positions_mm, charges_mm, box=None, qm_charge=None):
        vectors = positions_qm[:, None] - positions_mm[None]
        pull = charges_mm[None, :, None] * vectors
        total = 0.5 * (charges_mm * (vectors**2).sum(-1)).sum() + qm_charge
        return Evaluation(total, -pull.sum(1), pull.sum(0), np.zeros(len(numbers)), np.zeros(3))


def test_any_evaluator_in_a_droplet(droplet):
    system = mixed(droplet, Springs())
    here = context(system, droplet.positions)
    charges = strip_qm_terms(droplet.system, range(4)).charges
    vectors = 10 * (droplet.positions[:4, None] - droplet.positions[None, 4:])
    expected = 0.5 * (charges[4:] * (vectors**2).sum(-1)).sum() - 1  # the classical charges sum to −1
    assert energy(here, {ML_GROUP}) == pytest.approx(expected, rel=1e-9)
    pull = 10 * (charges[4:, None] * vectors).sum(0)
    assert np.allclose(forces(here, {ML_GROUP})[4:], pull, rtol=1e-6, atol=1e-6)
    assert energy(context(deserialize_system(serialize_system(system)), droplet.positions), {ML_GROUP}) == pytest.approx(
        expected
    )


def test_an_evaluator_needs_a_net_charge_where_the_system_knows_none(droplet):
    system = strip_qm_terms(droplet.system, range(4), droplet.topology).system
    with pytest.raises(InputError, match="qm_charge: expected the net charge of the QM region in e, got None"):
        add_force(system, droplet.topology, "FOR", Springs())
    add_force(system, droplet.topology, "FOR", Springs(), qm_charge=-1, force_group=ML_GROUP)
    expected = energy(context(mixed(droplet, Springs()), droplet.positions), {ML_GROUP})
    assert energy(context(system, droplet.positions), {ML_GROUP}) == pytest.approx(expected, rel=1e-12)


def test_evaluator_that_cannot_be_pickled_says_so(droplet):
    evaluator = Springs()
    evaluator.handle = lambda: None
    with pytest.raises(BackendError, match="picklable"):
        serialize_system(mixed(droplet, evaluator))


def test_a_system_serialises_after_a_failed_evaluation(droplet):
    system = mixed(droplet, Springs())
    with pytest.raises(openmm.OpenMMException, match="at NaN or infinity; the simulation has blown up"):
        energy(context(system, np.full_like(droplet.positions, np.nan)), {ML_GROUP})
    assert np.isfinite(energy(context(deserialize_system(serialize_system(system)), droplet.positions), {ML_GROUP}))


def test_evaluator_where_it_does_not_fit(box, droplet):
    with pytest.raises(EmbeddingError, match="droplet"):
        mixed(box, Springs())
    with pytest.raises(BackendError, match='needs backend="python"'):
        mixed(droplet, Springs(), backend="torchforce")
    with pytest.raises(InputError, match="bare Coulomb"):
        mixed(droplet, Springs(), electrostatics="reaction-field")
    with pytest.raises(InputError, match=r"an object with evaluate\(\), got dict"):
        mixed(droplet, {})

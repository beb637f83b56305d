"""The native operators of AMP-BMS against their twins: values and derivatives, single precision, and what they refuse."""

import copy

import pytest
import torch
from support.amp_models import random_region
from support.bms_models import evaluate, small_bms
from support.native_library import library_missing

from ampmm.nn import native

pytestmark = pytest.mark.skipif(bool(library_missing()), reason=library_missing())

REGIONS = {
    "random": random_region(7, 12, charge=1.0),
    "more pairs than a tile holds": random_region(20, 60, seed=50),  # no two atoms so close that their forces are all there is
    "one pair": random_region(2, 1),
    "one atom, no charges": random_region(1, 0),
    "no charges": random_region(4, 0, charge=1.0),  # neutral, its Coulomb energy is a small difference
    "no edges": random_region(1, 3),
}


def both(dtype: torch.dtype = torch.float64):
    """A model and its copy with native operators, for evaluations."""
    model = small_bms(dtype, n_channels=5).eval().requires_grad_(False)
    return model, native.use_native(copy.deepcopy(model))


def results(model, region, **options):
    """Everything a model returns, and the forces."""
    got = evaluate(model, region, **options)
    return [each.detach() for each in (*got.energies, got.forces_qm, got.forces_mm)]


def assert_close(got, wanted, tolerance, floor=1e-6):
    """`tolerance` relative to the largest number of each, or to `floor`."""
    for one, other in zip(got, wanted, strict=True):
        assert one.shape == other.shape
        if other.numel():
            assert float((one - other).abs().max()) <= tolerance * max(floor, float(other.abs().max()))


@pytest.mark.parametrize("coulomb_cutoff", [None, 6.0])
@pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS)
def test_values_and_forces_are_those_of_the_twins(region, coulomb_cutoff):
    model, fast = both()
    assert native.is_native(fast) and list(fast.state_dict()) == list(model.state_dict())
    wanted = results(model, region, coulomb_cutoff=coulomb_cutoff)
    assert_close(results(fast, region, coulomb_cutoff=coulomb_cutoff), wanted, 1e-10)


@pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS)
def test_single_precision_is_as_close_as_the_twin_is(region):
    single = region._replace(qm=region.qm.float(), mm=region.mm.float(), charges=region.charges.float())
    model, fast = both(torch.float32)
    got, wanted = results(fast, single, dtype=torch.float32), results(model, single, dtype=torch.float32)
    assert_close(got[1:], wanted[1:], 1e-5, floor=0.01)  # charges are small differences


def test_training_uses_the_twins_second_derivatives():
    gradients = []
    for fast in (False, True):
        model = small_bms()
        if fast:
            native.use_native(model)
        result = evaluate(model, REGIONS["random"], create_graph=True)
        loss = result.energies.total.square().sum() + result.forces_qm.square().sum() + result.forces_mm.square().sum()
        gradients.append(torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True))
    assert_close(gradients[1], gradients[0], 1e-10)


def test_second_derivatives_of_an_evaluation_are_refused_by_name():
    _, fast = both()
    fast.requires_grad_(True)
    with pytest.raises(RuntimeError, match="training mode"):
        evaluate(fast, REGIONS["random"], create_graph=True)


def test_scripted_is_eager_at_every_call():
    _, fast = both()
    scripted = torch.jit.script(fast)
    regions = [random_region(5, 6, 1.0, seed) for seed in (1, 2, 3)]
    expected = [results(fast, region) for region in regions]
    for call in range(20):
        assert_close(results(scripted, regions[call % 3]), expected[call % 3], 1e-12)


def test_the_number_of_threads_changes_nothing_but_rounding():
    _, fast = both()
    region, before = REGIONS["more pairs than a tile holds"], torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = results(fast, region)
        torch.set_num_threads(3)
        three = results(fast, region)
    finally:
        torch.set_num_threads(before)
    assert_close(three, one, 1e-12)

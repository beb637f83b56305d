"""Forces of every variant: against finite differences, and their sums."""

import pytest
import torch
from support.amp_models import LONG_RANGE, POLARIZED, VARIANTS, Region, evaluate, random_region, small_model
from torch import nn

from ampmm.physics.coulomb import BareCoulomb, ReactionField
from ampmm.physics.forces import EnergiesAndForces


def displaced(region: Region, step: float) -> list[Region]:
    """The region with each coordinate of each atom and charge moved in turn."""
    out = []
    for name in ("qm", "mm"):
        positions = getattr(region, name)
        for place in range(positions.numel()):
            moved = positions.clone()
            moved.view(-1)[place] += step
            out.append(region._replace(**{name: moved}))
    return out


def assert_forces_are_minus_the_gradient(model: nn.Module, kernel: nn.Module) -> EnergiesAndForces:
    region, step = random_region(5, 7), 1e-4
    result = evaluate(model, region, kernel=kernel)
    plus = evaluate(model, displaced(region, step), kernel=kernel).energies.total
    minus = evaluate(model, displaced(region, -step), kernel=kernel).energies.total
    expected = -(plus - minus).view(-1, 3) / (2.0 * step)
    torch.testing.assert_close(torch.cat([result.forces_qm, result.forces_mm]), expected, rtol=1e-5, atol=1e-5)
    return result


@pytest.mark.parametrize("variant", VARIANTS)
def test_forces_are_minus_the_gradient(variant):
    result = assert_forces_are_minus_the_gradient(small_model(variant), BareCoulomb())
    assert result.forces_qm.abs().max() > 0.1
    assert (result.forces_mm.abs().max() > 1e-4) == (variant in LONG_RANGE + POLARIZED)


@pytest.mark.parametrize("variant", ["GNN-P", "AMP(3)-DP"])
def test_forces_are_minus_the_gradient_in_a_reaction_field(variant):
    assert_forces_are_minus_the_gradient(small_model(variant), ReactionField(6.0))


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_isolated_system_feels_no_net_force_and_no_net_torque(variant):
    region = random_region(charge=1.0)
    result = evaluate(small_model(variant), region)
    positions, forces = torch.cat([region.qm, region.mm]), torch.cat([result.forces_qm, result.forces_mm]).detach()
    assert forces.abs().max() > 0.1
    assert forces.sum(0).abs().max() < 1e-9 * forces.abs().sum()
    torque = torch.linalg.cross(positions, forces)
    assert torque.sum(0).abs().max() < 1e-7 * torque.abs().sum()  # multipole bases are rounded to float32


def test_loss_on_forces_has_the_right_gradient_by_parameters():
    """What training does: the derivative of squared forces by a weight, against finite differences."""
    model, region, step = small_model("AMP(3)-DP"), random_region(4, 6), 1e-5

    def loss() -> torch.Tensor:
        result = evaluate(model, region, create_graph=True)
        return (result.forces_qm**2).sum() + 10.0 * (result.forces_mm**2).sum()

    polarization = model.layers[-1].polarization
    for weight in (model.embedding.weight, polarization.first.pair.weight, model.atomic_charge.first.weight):
        (gradient,) = torch.autograd.grad(loss(), weight)
        place = int(gradient.abs().argmax())
        values = []
        for shift in (step, -2.0 * step, step):  # above, below, and back
            with torch.no_grad():
                weight.view(-1)[place] += shift
            values.append(loss().item())
        expected = (values[0] - values[1]) / (2.0 * step)
        assert gradient.view(-1)[place].item() == pytest.approx(expected, rel=1e-4)

"""AMP-BMS with random weights: forces, symmetries, limits, TorchScript and training's second derivatives."""

import pytest
import torch
from support.amp_models import Region, random_region
from support.bms_models import evaluate, small_bms

from ampmm.export import use_simple_executor
from ampmm.models import AMPBMS, build_model

use_simple_executor()  # as wherever the package runs TorchScript

BOX = torch.tensor([[16.0, 0.0, 0.0], [2.0, 15.0, 0.0], [-3.0, 1.0, 17.0]], dtype=torch.float64)


def region_with_far_atoms() -> Region:
    """Seven atoms and, 4 Å away, beyond the graph but not beyond the long-range cutoff, three more."""
    near, far = random_region(7, 12, charge=1.0), random_region(3, 0, seed=4)
    return near._replace(
        numbers=torch.cat([near.numbers, far.numbers]), qm=torch.cat([near.qm, far.qm * 0.6 + torch.tensor([5.5, 0.3, 0.1])])
    )


def test_every_term_matters():
    energies = evaluate(small_bms(), region_with_far_atoms()).energies
    for term in (energies.nodes, energies.coulomb, energies.dispersion, energies.repulsion):
        assert term.abs() > 0.1
    torch.testing.assert_close(
        energies.total, energies.nodes + energies.coulomb + energies.dispersion + energies.repulsion, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("coulomb_cutoff", [None, 6.0])
@pytest.mark.parametrize("box", [None, BOX])
def test_forces_are_minus_the_gradient(coulomb_cutoff, box):
    model, region, step = small_bms(), random_region(4, 5, charge=-1.0), 1e-4
    result = evaluate(model, region, box=box, coulomb_cutoff=coulomb_cutoff)
    assert min(result.forces_qm.abs().max(), result.forces_mm.abs().max()) > 0.1
    for name, forces in (("qm", result.forces_qm), ("mm", result.forces_mm)):
        for place in range(forces.numel()):
            energies = []
            for shift in (step, -step):
                moved = getattr(region, name).clone()
                moved.view(-1)[place] += shift
                moved_region = region._replace(**{name: moved})
                energies.append(evaluate(model, moved_region, box=box, coulomb_cutoff=coulomb_cutoff).energies.total.item())
            expected = -(energies[0] - energies[1]) / (2.0 * step)
            assert forces.view(-1)[place].item() == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_forces_sum_to_zero_and_make_no_torque():
    region = region_with_far_atoms()
    result = evaluate(small_bms(), region)
    positions, forces = torch.cat([region.qm, region.mm]), torch.cat([result.forces_qm, result.forces_mm]).detach()
    assert forces.sum(0).abs().max() < 1e-10 * forces.abs().sum()
    assert torch.linalg.cross(positions, forces).sum(0).abs().max() < 1e-10 * forces.abs().sum()


def test_rotations_turn_forces_and_multipoles():
    region, model = region_with_far_atoms(), small_bms()
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    if torch.linalg.det(turn) < 0:
        turn = -turn
    before = evaluate(model, region)
    after = evaluate(model, region._replace(qm=region.qm @ turn.T + 3.0, mm=region.mm @ turn.T + 3.0))
    torch.testing.assert_close(after.energies.total, before.energies.total)
    torch.testing.assert_close(after.energies.charges, before.energies.charges)
    torch.testing.assert_close(after.forces_qm, before.forces_qm @ turn.T)
    torch.testing.assert_close(after.forces_mm, before.forces_mm @ turn.T)
    torch.testing.assert_close(after.energies.dipoles, before.energies.dipoles @ turn.T)
    torch.testing.assert_close(after.energies.quadrupoles, turn @ before.energies.quadrupoles @ turn.T)


def test_any_order_of_atoms_of_several_molecules_gives_the_same():
    region, model = region_with_far_atoms(), small_bms()
    order = torch.randperm(len(region.qm), generator=torch.Generator().manual_seed(3))
    before = evaluate(model, region)
    after = evaluate(model, region._replace(numbers=region.numbers[order], qm=region.qm[order]))
    torch.testing.assert_close(after.energies.total, before.energies.total)
    torch.testing.assert_close(after.forces_qm, before.forces_qm[order])
    torch.testing.assert_close(after.forces_mm, before.forces_mm)
    torch.testing.assert_close(after.energies.quadrupoles, before.energies.quadrupoles[order])


def test_periodic_images_of_atoms_and_sites_make_no_difference():
    region, model = random_region(5, 8), small_bms()
    before = evaluate(model, region, box=BOX, coulomb_cutoff=6.0)
    shifts = torch.tensor([[1.0, -1.0, 2.0], [0.0, 3.0, -1.0], [0.0, 0.0, 0.0], [-2.0, 0.0, 1.0], [1.0, 1.0, 1.0]]).double()
    moved = region._replace(qm=region.qm + shifts @ BOX, mm=region.mm - BOX[2])
    after = evaluate(model, moved, box=BOX, coulomb_cutoff=6.0)
    torch.testing.assert_close(after.energies.total, before.energies.total)
    torch.testing.assert_close(after.forces_qm, before.forces_qm)


@pytest.mark.parametrize("charge", [-2.0, 0.0, 1.0])
def test_charges_sum_to_the_net_charge(charge):
    energies = evaluate(small_bms(), random_region(charge=charge)).energies
    assert energies.charges.sum().item() == pytest.approx(charge, abs=1e-12)
    assert energies.quadrupoles.diagonal(dim1=1, dim2=2).sum(-1).abs().max() < 1e-12


def test_a_single_atom_without_surroundings_is_a_region_too():
    result = evaluate(small_bms(), random_region(1, 0, 1.0))
    assert torch.isfinite(result.energies.total).all() and (result.forces_qm == 0.0).all()
    assert result.energies.charges.item() == pytest.approx(1.0)


def test_scripted_is_eager_at_every_call():
    model = small_bms()
    scripted = torch.jit.script(model)
    regions = [random_region(5, 6, 1.0, seed) for seed in (1, 2, 3)] + [random_region(1, 0), region_with_far_atoms()]
    expected = [evaluate(model, region) for region in regions]
    for call in range(1, 21):
        got, wanted = evaluate(scripted, regions[call % 5]), expected[call % 5]
        if call in (1, 2, 3, 20):
            for one, other in zip([*got.energies, *got[1:]], [*wanted.energies, *wanted[1:]], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_squared_forces_have_the_right_gradient_by_parameters():
    """What training does, against finite differences."""
    model, region, step = small_bms(), random_region(4, 5), 1e-5

    def loss() -> torch.Tensor:
        result = evaluate(model, region, create_graph=True)
        return (result.forces_qm**2).sum() + 10.0 * (result.forces_mm**2).sum()

    for weight in (model.response.last.weight, model.polarization.coefficients.last.weight, model.atomic_charge.last.weight,
                   model.hidden_layers[0].coefficients.rest.last.weight):  # fmt: skip
        (gradient,) = torch.autograd.grad(loss(), weight)
        place = int(gradient.abs().argmax())
        values = []
        for shift in (step, -2.0 * step, step):  # above, below, and back
            with torch.no_grad():
                weight.view(-1)[place] += shift
            values.append(loss().item())
        expected = (values[0] - values[1]) / (2.0 * step)
        assert gradient.view(-1)[place].item() == pytest.approx(expected, rel=1e-3)


def test_the_registry_builds_it():
    model = build_model("amp-bms", {"elements": [1, 6], "n_layers": 1})
    assert isinstance(model, AMPBMS) and model.hyperparameters.cutoff == 4.0
    model.set_element_energies({1: -1.0, 6: -2.0})
    assert model.element_energies.tolist() == [-1.0, -2.0]

"""What may not change the energy of any variant, and what turns the forces with it."""

import pytest
import torch
from support.amp_models import VARIANTS, evaluate, random_region, small_model

TOLERANCE = 2e-6  # kJ/mol, kJ/mol/Å of about 10: the multipole bases are rounded to float32

REFLECTION = torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))


def rotation(seed: int = 3) -> torch.Tensor:
    q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    return q * torch.det(q)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("operation", [rotation(), REFLECTION @ rotation()], ids=["rotation", "reflection"])
def test_rotations_and_reflections_turn_the_forces(variant, operation):
    model, region = small_model(variant), random_region(charge=-1.0)
    before = evaluate(model, region)
    after = evaluate(model, region._replace(qm=region.qm @ operation.T, mm=region.mm @ operation.T))
    torch.testing.assert_close(after.energies.total, before.energies.total, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(after.energies.charges, before.energies.charges, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(after.forces_qm, before.forces_qm @ operation.T, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(after.forces_mm, before.forces_mm @ operation.T, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_translations_change_nothing(variant):
    model, region = small_model(variant), random_region()
    shift = torch.tensor([3.0, -40.0, 7.5], dtype=torch.float64)
    before, after = evaluate(model, region), evaluate(model, region._replace(qm=region.qm + shift, mm=region.mm + shift))
    for got, expected in zip(after[1:], before[1:], strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(after.energies.total, before.energies.total)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_order_of_atoms_and_charges_does_not_matter(variant):
    model, region = small_model(variant), random_region()
    random = torch.Generator().manual_seed(4)
    qm, mm = torch.randperm(len(region.qm), generator=random), torch.randperm(len(region.mm), generator=random)
    before = evaluate(model, region)
    after = evaluate(
        model, region._replace(numbers=region.numbers[qm], qm=region.qm[qm], mm=region.mm[mm], charges=region.charges[mm])
    )
    torch.testing.assert_close(after.energies.total, before.energies.total)
    torch.testing.assert_close(after.energies.charges, before.energies.charges[qm])
    torch.testing.assert_close(after.forces_qm, before.forces_qm[qm], rtol=0, atol=1e-9)
    torch.testing.assert_close(after.forces_mm, before.forces_mm[mm], rtol=0, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_elements_or_another_shape_give_another_energy(variant):
    """The symmetric tests above would pass for a model that sees nothing."""
    model, region = small_model(variant), random_region()
    swapped = region.numbers.clone()
    swapped[:2] = swapped[:2].flip(0)
    bent = region.qm.clone()
    bent[0] += 0.1
    energies = evaluate(model, [region, region._replace(numbers=swapped), region._replace(qm=bent)]).energies.total
    assert (energies[1:] - energies[0]).abs().min() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_gives_what_single_frames_give(variant):
    """Frames of different sizes, charges and numbers of MM sites, one without any."""
    model = small_model(variant)
    regions = [
        random_region(7, 12, 0.0, 1),
        random_region(4, 3, -1.0, 2),
        random_region(5, 0, 2.0, 3),
        random_region(1, 5, 1.0, 4),
    ]
    together = evaluate(model, regions)
    alone = [evaluate(model, region) for region in regions]
    for name in ("total", "nodes", "coulomb", "charges"):
        expected = torch.cat([getattr(each.energies, name) for each in alone])
        torch.testing.assert_close(getattr(together.energies, name), expected)
    torch.testing.assert_close(together.forces_qm, torch.cat([each.forces_qm for each in alone]))
    torch.testing.assert_close(together.forces_mm, torch.cat([each.forces_mm for each in alone]))

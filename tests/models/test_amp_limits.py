"""Known limits of every variant: cutoffs crossed smoothly, no charges, far charges, net charges, lone atoms."""

import pytest
import torch
from support.amp_models import (
    CUTOFF,
    LONG_RANGE,
    POLARIZATION_CUTOFF,
    POLARIZED,
    VARIANTS,
    Region,
    evaluate,
    random_region,
    small_model,
)

from ampmm.units import COULOMB_CONSTANT

NEAR = 1e-4  # Å inside the cutoff: (1 - d)³ is 1e-13 there, its slope 1e-8
ATOM_MOVES = torch.tensor([[0.0, 0.0, 0.0], [1.2, 0.3, 0.0], [0.4, 1.3, 0.2]], dtype=torch.float64)


def assert_same(one, other, tolerance: float) -> None:
    torch.testing.assert_close(one.energies.total, other.energies.total, rtol=0, atol=tolerance)
    torch.testing.assert_close(one.forces_qm, other.forces_qm, rtol=0, atol=tolerance)
    torch.testing.assert_close(one.forces_mm, other.forces_mm, rtol=0, atol=tolerance)


def with_atom_at(distance: float) -> Region:
    """Three atoms, and a fourth at a distance from the first one and farther from the others."""
    fourth = ATOM_MOVES.new_tensor([[-distance, 0.0, 0.0]])
    region = random_region(4, 6)
    return region._replace(
        qm=torch.cat([ATOM_MOVES, fourth]), mm=region.mm + region.mm / region.mm.norm(dim=1, keepdim=True) * 3.0
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_qm_atom_crosses_the_cutoff_without_a_step_in_energy_or_force(variant):
    """Just inside the cutoff the pair is left out of the graph, and nothing changes; well inside it matters."""
    model = small_model(variant)
    at_cutoff, inside = with_atom_at(CUTOFF - NEAR), with_atom_at(0.7 * CUTOFF)
    assert_same(evaluate(model, at_cutoff), evaluate(model, at_cutoff, edge_cutoff=CUTOFF - 2.0 * NEAR), 1e-5)
    torch.testing.assert_close(
        evaluate(model, at_cutoff).energies.total,
        evaluate(model, at_cutoff, edge_cutoff=CUTOFF - 2.0 * NEAR).energies.total, rtol=0, atol=1e-9,
    )  # fmt: skip
    dropped = evaluate(model, inside, edge_cutoff=0.69 * CUTOFF).energies.total
    assert (evaluate(model, inside).energies.total - dropped).abs() > 1e-3


@pytest.mark.parametrize("variant", POLARIZED)
def test_an_mm_charge_crosses_the_polarization_cutoff_without_a_step(variant):
    model, region = small_model(variant), random_region(4, 1)
    region = region._replace(qm=torch.cat([ATOM_MOVES, ATOM_MOVES[:1] + 1.5]))

    def at(distance: float) -> Region:
        return region._replace(mm=region.mm.new_tensor([[-distance, 0.0, 0.0]]))

    edge = POLARIZATION_CUTOFF
    assert_same(evaluate(model, at(edge - NEAR)), evaluate(model, at(edge - NEAR), pair_cutoff=edge - 2.0 * NEAR), 1e-6)
    dropped = evaluate(model, at(0.6 * edge), pair_cutoff=0.59 * edge).energies.total
    assert (evaluate(model, at(0.6 * edge)).energies.total - dropped).abs() > 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
def test_pairs_beyond_the_cutoffs_contribute_exactly_nothing(variant):
    """So neighbour lists may hold more than they need."""
    model, region = small_model(variant), random_region()
    wide = evaluate(model, region, edge_cutoff=2.0 * CUTOFF, pair_cutoff=2.0 * POLARIZATION_CUTOFF)
    assert_same(wide, evaluate(model, region), 1e-11)


@pytest.mark.parametrize("variant", [name for name in POLARIZED if VARIANTS[name][3] == "pairs"])
@pytest.mark.parametrize("chunk", [1, 7])
def test_polarization_in_chunks_is_the_whole_sum(variant, chunk):
    model, region = small_model(variant), random_region()
    whole = evaluate(model, region)
    model.layers[-1].polarization.sum.pairs_per_chunk = chunk
    assert_same(evaluate(model, region), whole, 1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_uncharged_sites_contribute_nothing_and_feel_nothing(variant):
    model, region = small_model(variant), random_region()
    ghosts = random_region(seed=9).mm + 0.05
    joint = region._replace(
        mm=torch.cat([region.mm, ghosts]), charges=torch.cat([region.charges, torch.zeros(len(ghosts)).double()])
    )
    without, with_ghosts = evaluate(model, region), evaluate(model, joint)
    torch.testing.assert_close(with_ghosts.energies.total, without.energies.total, rtol=0, atol=1e-10)
    torch.testing.assert_close(with_ghosts.forces_qm, without.forces_qm, rtol=0, atol=1e-10)
    assert (with_ghosts.forces_mm[len(region.mm) :] == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_mm_sites_is_the_same_as_uncharged_ones(variant):
    model, region = small_model(variant), random_region(charge=1.0)
    alone = evaluate(model, region._replace(mm=region.mm[:0], charges=region.charges[:0]))
    uncharged = evaluate(model, region._replace(charges=torch.zeros_like(region.charges)))
    torch.testing.assert_close(uncharged.energies.total, alone.energies.total)
    torch.testing.assert_close(uncharged.forces_qm, alone.forces_qm)
    assert alone.forces_mm.shape == (0, 3) and alone.energies.coulomb.item() == 0.0


@pytest.mark.parametrize("variant", LONG_RANGE)
@pytest.mark.parametrize("charge", [-1.0, 0.0, 2.0])
def test_atomic_charges_sum_to_the_net_charge(variant, charge):
    charges = evaluate(small_model(variant), random_region(charge=charge)).energies.charges
    assert charges.sum().item() == pytest.approx(charge, abs=1e-12)
    assert charges.std() > 1e-3


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in LONG_RANGE])
def test_without_p_there_is_no_electrostatics(variant):
    energies = evaluate(small_model(variant), random_region(charge=1.0)).energies
    assert energies.coulomb.item() == 0.0 and (energies.charges == 0).all()


@pytest.mark.parametrize("variant", LONG_RANGE)
@pytest.mark.parametrize("charge", [-1.0, 0.0, 2.0])
def test_a_far_charge_sees_a_point_charge(variant, charge):
    """V → k_e Q q / r, and the force on the charge is k_e Q q / r² along r; a neutral region's vanishes faster."""
    r, q = 1.0e5, 0.7
    region = random_region(5, 1, charge)
    region = region._replace(qm=region.qm - region.qm.mean(0), charges=torch.tensor([q], dtype=torch.float64))
    far = evaluate(small_model(variant), region._replace(mm=region.mm.new_tensor([[0.0, r, 0.0]])))
    alone = evaluate(small_model(variant), region._replace(mm=region.mm[:0], charges=region.charges[:0]))
    expected = COULOMB_CONSTANT * charge * q / r
    assert (far.energies.total - alone.energies.total).item() == pytest.approx(expected, rel=1e-3, abs=1e-5)
    force = far.forces_mm[0] * r
    torch.testing.assert_close(force, force.new_tensor([0.0, expected, 0.0]), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_single_atom_is_a_region_too(variant):
    """No edges: the energy is finite and, with -P, the charge is the net charge."""
    model, region = small_model(variant), random_region(1, 5, 1.0)
    result = evaluate(model, region)
    assert torch.isfinite(result.energies.total).all() and torch.isfinite(result.forces_qm).all()
    assert result.energies.charges.item() == (pytest.approx(1.0) if variant in LONG_RANGE else 0.0)
    torch.testing.assert_close(result.forces_qm.sum(0), -result.forces_mm.sum(0))


@pytest.mark.parametrize("variant", VARIANTS)
def test_atoms_out_of_reach_of_each_other_are_independent(variant):
    """Two lone atoms: node energies are those of the single atoms, and no forces act without MM charges."""
    model, lone = small_model(variant), random_region(2, 0)
    apart = lone._replace(qm=torch.tensor([[0.0, 0.0, 0.0], [50.0, 0.0, 0.0]], dtype=torch.float64))
    singles = [lone._replace(numbers=lone.numbers[i : i + 1], qm=apart.qm[i : i + 1]) for i in (0, 1)]
    result = evaluate(model, apart)
    torch.testing.assert_close(result.energies.nodes[0], evaluate(model, singles).energies.nodes.sum())
    assert (result.forces_qm == 0).all()

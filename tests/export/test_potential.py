"""The potential that OpenMM calls: periodic images, its neighbour list, its units, and when it refuses."""

import itertools

import numpy as np
import pytest
import torch
from support.amp_models import Region, evaluate, random_region, small_model
from torch import Tensor

from ampmm.errors import InputError
from ampmm.export import FixedShapePotential, Potential, use_simple_executor
from ampmm.nn.native import use_native
from ampmm.physics.coulomb import ReactionField

use_simple_executor()  # as wherever the package runs TorchScript

COULOMB_CUTOFF = 6.0  # Å
ORTHORHOMBIC = torch.diag(torch.tensor([12.5, 13.0, 15.0], dtype=torch.float64))
TRICLINIC = torch.tensor([[13.5, 0.0, 0.0], [6.0, 12.5, 0.0], [-5.0, 5.5, 13.0]], dtype=torch.float64)
BOXES = pytest.mark.parametrize("box", [ORTHORHOMBIC, TRICLINIC], ids=["orthorhombic", "triclinic"])
N_QM, N_MM, N_OTHER = 5, 40, 3
N = N_QM + N_MM + N_OTHER


def shuffled() -> Tensor:
    return torch.randperm(N, generator=torch.Generator().manual_seed(3))


QM, MM = shuffled()[:N_QM], shuffled()[N_QM : N_QM + N_MM]
CHARGES = torch.randn(N_MM, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
SMALL = random_region(N_QM, 0)


def positions_in(box: Tensor, seed: int = 5) -> Tensor:
    """(N, 3) Å: the QM region whole, MM sites all over the box but not closer than 1.5 Å, the others anywhere."""
    random = torch.Generator().manual_seed(seed)
    positions = 10.0 * torch.rand(N, 3, dtype=torch.float64, generator=random)
    positions[QM] = SMALL.qm
    shifts = torch.tensor(list(itertools.product((-1, 0, 1), repeat=3)), dtype=torch.float64) @ box
    placed = 0
    while placed < N_MM:
        site = torch.rand(3, dtype=torch.float64, generator=random) @ box
        if torch.cdist(SMALL.qm, site + shifts).min() > 1.5:
            positions[MM[placed]] = site
            placed += 1
    return positions


def potential(
    periodic: bool = True, dtype: torch.dtype = torch.float64, kind: type[Potential] = Potential, **changes
) -> Potential:
    model = small_model("AMP(3)-DP", dtype=torch.float32).to(dtype)
    model.element_energies = model.element_energies.double()
    values = {
        "cutoff": model.cutoff, "polarization_cutoff": model.polarization_cutoff, "periodic": periodic, "dtype": dtype,
        "electrostatics": "reaction-field" if periodic else "bare", "coulomb_cutoff": COULOMB_CUTOFF if periodic else None,
    }  # fmt: skip
    return kind(model, SMALL.numbers, QM, MM, CHARGES, 1.0, **(values | changes))


def call(module: torch.nn.Module, positions: Tensor, box: Tensor | None) -> tuple[float, Tensor]:
    """Energy (kJ/mol) and forces (kJ/mol/Å) from positions and box in Å, passed in nm as OpenMM does."""
    energy, forces = module(positions / 10.0, None if box is None else box / 10.0)
    return energy.item(), forces / 10.0


def assert_same(one: tuple[float, Tensor], other: tuple[float, Tensor], tolerance: float = 1e-8) -> None:
    assert one[0] == pytest.approx(other[0], abs=tolerance)
    torch.testing.assert_close(one[1], other[1], rtol=0, atol=tolerance)


@BOXES
def test_energy_and_forces_are_the_sum_over_all_images_within_the_cutoff(box):
    positions = positions_in(box)
    energy, forces = call(potential(), positions, box)
    shifts = torch.tensor(list(itertools.product(range(-2, 3), repeat=3)), dtype=torch.float64) @ box
    images = (positions[MM] + shifts.unsqueeze(1)).reshape(-1, 3)
    region = Region(SMALL.numbers, positions[QM], images, CHARGES.repeat(len(shifts)), 1.0)
    model = potential().evaluator.model
    expected = evaluate(model, region, kernel=ReactionField(COULOMB_CUTOFF))
    assert energy == pytest.approx(expected.energies.total.item(), abs=1e-8)
    torch.testing.assert_close(forces[QM], expected.forces_qm, rtol=0, atol=1e-8)
    torch.testing.assert_close(forces[MM], expected.forces_mm.reshape(len(shifts), -1, 3).sum(0), rtol=0, atol=1e-8)
    in_reach = torch.cdist(positions[QM], images).min(0).values < COULOMB_CUTOFF
    outside_of_home = in_reach.reshape(len(shifts), -1).sum(1)
    assert (outside_of_home > 0).sum() > 3  # images in several neighbouring boxes matter


@BOXES
def test_atoms_may_come_in_any_image(box):
    """Each atom moved by whole box vectors, and the QM molecule broken over the boundary, forces unchanged."""
    positions = positions_in(box)
    expected = call(potential(), positions, box)
    random = torch.Generator().manual_seed(6)
    steps = torch.randint(-3, 4, (N, 3), generator=random).double()
    assert_same(call(potential(), positions + steps @ box, box), expected)
    inside = positions - torch.floor(torch.linalg.solve(box.T, positions.T).T) @ box
    assert (inside[QM].max(0).values - inside[QM].min(0).values).max() > 8.0  # in pieces
    assert_same(call(potential(), inside, box), expected)
    same = potential()
    call(same, positions, box)
    assert_same(call(same, positions + steps @ box, box), expected)  # without new lists


@pytest.mark.parametrize("box", [None, ORTHORHOMBIC, TRICLINIC], ids=["droplet", "orthorhombic", "triclinic"])
def test_forces_are_minus_the_gradient_and_others_feel_none(box):
    module, positions, step = potential(box is not None), positions_in(TRICLINIC if box is None else box), 1e-4
    _, forces = call(module, positions, box)
    others = sorted(set(range(N)) - set(QM.tolist()) - set(MM.tolist()))
    nearest = MM[torch.cdist(SMALL.qm, positions[MM]).min(0).values.argsort()[:2]]
    assert len(others) == N_OTHER and (forces[others] == 0).all()
    for atom in [*QM[:2].tolist(), *nearest.tolist()]:
        for axis in range(3):
            shift = torch.zeros_like(positions)
            shift[atom, axis] = step
            slope = (call(module, positions + shift, box)[0] - call(module, positions - shift, box)[0]) / (2.0 * step)
            assert forces[atom, axis].item() == pytest.approx(-slope, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("box", [None, TRICLINIC], ids=["droplet", "triclinic"])
@pytest.mark.parametrize("skin", [0.0, 1.0])
def test_kept_lists_give_what_new_lists_give(box, skin):
    """Over many small moves, after a jump of everything, and after a change of the box."""
    periodic = box is not None
    module, positions = potential(periodic, skin=skin), positions_in(TRICLINIC)
    random = torch.Generator().manual_seed(7)
    for step in range(20):
        positions = positions + 0.08 * torch.randn(N, 3, dtype=torch.float64, generator=random)
        positions[QM] = SMALL.qm + 0.1 * torch.randn(N_QM, 3, dtype=torch.float64, generator=random)
        if step == 12:
            positions[MM] = positions_in(TRICLINIC, seed=8)[MM]
        if step in (15, 18) and periodic:
            box = box * (1.05 if step == 15 else 0.985)
        assert_same(call(module, positions, box), call(potential(periodic), positions, box))


@BOXES
def test_lists_hold_every_pair_within_cutoff_and_skin(box):
    """Also where cutoff and skin together exceed half the box, and the nearest image by rounding is not the shortest."""
    sites = torch.rand(800, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(10)) @ box
    mm = torch.arange(N_QM, N_QM + 800)
    module = Potential(
        small_model("GNN-P"), SMALL.numbers, torch.arange(N_QM), mm, torch.ones(800), 1.0, cutoff=3.0, polarization_cutoff=0.0,
        periodic=True, electrostatics="reaction-field", coulomb_cutoff=COULOMB_CUTOFF, skin=1.0, dtype=torch.float64,
    )  # fmt: skip
    call(module, torch.cat([SMALL.qm, sites]), box)
    shifts = torch.tensor(list(itertools.product((-1, 0, 1), repeat=3)), dtype=torch.float64) @ box
    distances = torch.cdist(SMALL.qm, (sites.unsqueeze(1) + shifts).reshape(-1, 3)).reshape(N_QM, 800, -1).min(-1).values
    needed = set(zip(*(each.tolist() for each in torch.nonzero(distances < COULOMB_CUTOFF + 1.0, as_tuple=True)), strict=True))
    assert needed <= set(zip(module.pair_centers.tolist(), module.pair_neighbors.tolist(), strict=True))


@BOXES
def test_images_that_a_shrinking_box_brings_near_are_seen(box):
    """The atoms stay where they are, so only the box tells that the lists are old."""
    module, positions = potential(), positions_in(box)
    call(module, positions, 1.4 * box)
    assert_same(call(module, positions, box), call(potential(), positions, box))


def test_lists_are_made_again_by_displacement_not_by_counting_calls():
    module, positions = potential(skin=1.0), positions_in(TRICLINIC)
    call(module, positions, TRICLINIC)
    made = module.listed_positions
    for _ in range(30):
        call(module, positions, TRICLINIC)
    moved = positions.clone()
    moved[MM[3], 0] += 0.49
    call(module, moved, TRICLINIC)
    assert module.listed_positions is made
    moved[MM[3], 0] += 0.02
    call(module, moved, TRICLINIC)
    assert module.listed_positions is not made
    made = module.listed_positions
    call(module, moved, TRICLINIC * 1.0001)
    assert module.listed_positions is not made


@pytest.mark.parametrize("box", [None, TRICLINIC], ids=["droplet", "triclinic"])
def test_scripted_is_eager(box):
    eager, positions = potential(box is not None), positions_in(TRICLINIC)
    scripted = torch.jit.script(potential(box is not None))
    random = torch.Generator().manual_seed(9)
    for _ in range(6):
        positions = positions + 0.1 * torch.randn(N, 3, dtype=torch.float64, generator=random)
        assert_same(call(scripted, positions, box), call(eager, positions, box))


@BOXES
def test_single_precision_is_close_to_double(box):
    positions = positions_in(box)
    energy, forces = call(potential(dtype=torch.float32), positions.float(), box.float())
    expected = call(potential(), positions.float().double(), box.float().double())
    assert energy == pytest.approx(expected[0], abs=2e-3)
    assert forces.dtype == torch.float32
    torch.testing.assert_close(forces.double(), expected[1], rtol=0, atol=1e-4 * float(expected[1].abs().max()))


@BOXES
def test_a_loaded_model_evaluates_to_the_same(loaded, box):
    """`LoadedModel.evaluate` and the potential are two ways to the same numbers."""
    positions = positions_in(box)
    module = Potential(
        use_native(small_model("AMP(3)-DP", dtype=torch.float32)).double(), SMALL.numbers, QM, MM, CHARGES, 0.0, cutoff=3.0,
        polarization_cutoff=4.5, periodic=True, electrostatics="reaction-field", coulomb_cutoff=COULOMB_CUTOFF,
        dtype=torch.float64,
    )  # fmt: skip
    energy, forces = call(module, positions, box)
    result = loaded.evaluate(
        SMALL.numbers.numpy(), positions[QM].numpy(), positions[MM].numpy(), CHARGES.numpy(), box=box.numpy(),
        coulomb_cutoff=COULOMB_CUTOFF, dtype=torch.float64,
    )  # fmt: skip
    assert result.energy == pytest.approx(energy, abs=1e-7)
    np.testing.assert_allclose(result.forces_qm, forces[QM], rtol=0, atol=1e-7)
    np.testing.assert_allclose(result.forces_mm, forces[MM], rtol=0, atol=1e-7)


def test_the_boundary_of_the_box_is_crossed_smoothly():
    """One MM charge walks through the whole box: its energy has no step, not even where the nearest image changes."""
    module, positions = potential(), positions_in(ORTHORHOMBIC)
    walker, step = MM[0], 0.05
    path = []
    for place in torch.arange(0.0, 13.0, step, dtype=torch.float64):
        positions[walker] = torch.tensor([3.2, place, 0.5], dtype=torch.float64)
        energy, forces = call(module, positions, ORTHORHOMBIC)
        path.append((energy, forces[walker, 1].item()))
    energies, along = np.array(path).T
    assert np.ptp(energies) > 1.0
    mean_force = 0.5 * (along[1:] + along[:-1])
    np.testing.assert_allclose(np.diff(energies), -mean_force * step, rtol=0, atol=0.01 * step * np.abs(along).max())


@pytest.mark.parametrize("where", [QM[0], MM[0]], ids=["QM", "MM"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("first", [True, False])
def test_positions_that_are_no_numbers_are_refused(where, value, first):
    module, positions = potential(), positions_in(TRICLINIC)
    if not first:
        call(module, positions, TRICLINIC)
    positions[where, 1] = value
    with pytest.raises(ValueError, match="positions: a QM atom or MM charge is at NaN or infinity"):
        call(module, positions, TRICLINIC)


def test_a_box_that_became_too_small_or_no_number_is_refused():
    module, positions = potential(), positions_in(ORTHORHOMBIC)
    call(module, positions, ORTHORHOMBIC)
    for box in (0.95 * ORTHORHOMBIC, ORTHORHOMBIC * float("nan")):
        with pytest.raises(ValueError, match="over half the box"):
            call(module, positions, box)
    with pytest.raises(ValueError, match="boxvectors: this potential is periodic"):
        call(module, positions, None)


@pytest.mark.parametrize("kind", [Potential, FixedShapePotential])
def test_a_cutoff_of_half_the_box_fits_into_the_box_in_single_precision(kind):
    """Rounded to it, as TorchForce passes boxes on CUDA, half of the edges become shorter."""
    for edge in (12.1 + 0.1 * k for k in range(6)):
        box = torch.diag(torch.full((3,), edge, dtype=torch.float64))
        boxes = 0.1 * box, (0.1 * box).float()  # nm
        module = potential(coulomb_cutoff=0.5 * edge, kind=kind)
        energies = [module(0.1 * positions_in(box), each)[0].item() for each in boxes]
        assert energies[1] == pytest.approx(energies[0], abs=1e-3)


def test_scripted_refusals_carry_the_message():
    scripted, positions = torch.jit.script(potential()), positions_in(ORTHORHOMBIC)
    with pytest.raises(torch.jit.Error, match="over half the box"):
        call(scripted, positions, 0.9 * ORTHORHOMBIC)


def test_a_periodic_potential_needs_a_cutoff():
    for electrostatics in ("bare", "reaction-field"):
        with pytest.raises(InputError, match="electrostatics: a periodic potential needs"):
            potential(electrostatics=electrostatics, coulomb_cutoff=None)


def test_no_mm_charges_at_all():
    empty = torch.zeros(0, dtype=torch.long)
    model = small_model("AMP(3)-DP")
    settings = {
        "cutoff": 3.0,
        "polarization_cutoff": 4.5,
        "electrostatics": "bare",
        "coulomb_cutoff": None,
        "dtype": torch.float64,
    }
    module = Potential(model, SMALL.numbers, QM, empty, CHARGES[:0], 1.0, periodic=False, **settings)
    energy, forces = call(module, positions_in(ORTHORHOMBIC), None)
    expected = evaluate(model, SMALL._replace(charge=1.0))
    assert energy == pytest.approx(expected.energies.total.item(), abs=1e-9)
    torch.testing.assert_close(forces[QM], expected.forces_qm)

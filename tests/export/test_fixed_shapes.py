"""The potential of fixed shapes: it gives what `Potential` gives, and no shape depends on a value."""

import pytest
import torch
from support.amp_models import CUTOFF, POLARIZATION_CUTOFF, VARIANTS, random_region, small_model
from torch import Tensor

from ampmm.errors import InputError
from ampmm.export import FixedShapePotential, Potential, use_simple_executor
from ampmm.geometry.neighbors import edges_within, pairs_between
from ampmm.nn.native import use_native, use_twins

use_simple_executor()  # as wherever the package runs TorchScript

N_QM, N_MM, N_OTHER = 7, 40, 3
REGION = random_region(N_QM, N_MM)
QM, MM = torch.arange(N_QM) + 1, torch.arange(N_MM) + N_QM + 2
COULOMB_CUTOFF = 6.0  # Å
BOX = torch.tensor([[13.5, 0.0, 0.0], [3.0, 12.5, 0.0], [-2.0, 5.5, 14.0]], dtype=torch.float64)
BOXES = pytest.mark.parametrize("box", [None, BOX], ids=["droplet", "triclinic"])


def potential(kind: type[Potential], box: Tensor | None, variant: str = "AMP(3)-DP", **options) -> Potential:
    model = use_native(small_model(variant))
    electrostatics = "bare" if box is None else "reaction-field"
    values = {"cutoff": model.cutoff, "polarization_cutoff": model.polarization_cutoff, "electrostatics": electrostatics}
    values |= {"periodic": box is not None, "coulomb_cutoff": None if box is None else COULOMB_CUTOFF, "dtype": torch.float64}
    return kind(model, REGION.numbers, QM, MM, REGION.charges, REGION.charge, **(values | options))


def moved(scale: float, seed: int) -> Tensor:
    """Positions of all particles, nm."""
    positions = torch.zeros(N_QM + N_MM + N_OTHER, 3, dtype=torch.float64)
    positions[QM], positions[MM] = REGION.qm, REGION.mm
    random = torch.Generator().manual_seed(seed)
    return 0.1 * (positions + scale * torch.randn(positions.shape, dtype=torch.float64, generator=random))


def assert_same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(one[1], other[1], rtol=0, atol=1e-9 * max(1.0, float(other[1].abs().max())))  # kJ/mol/nm


@BOXES
@pytest.mark.parametrize("variant", VARIANTS)
def test_gives_what_the_potential_with_lists_gives(variant, box):
    for operators in (use_native, use_twins):
        expected, fixed = (operators(potential(kind, box, variant)) for kind in (Potential, FixedShapePotential))
        fixed.headroom = 2.0  # the random moves are wide
        for seed in range(4):
            positions = moved(0.08 * seed, seed)
            boxvectors = None if box is None else 0.1 * box * (1.0 + 0.01 * seed)
            result = fixed(positions, boxvectors)
            assert torch.isfinite(result[0]) and result[1].abs().max() > 1.0
            assert_same(result, expected(positions, boxvectors))


@BOXES
def test_scripted_is_eager_call_after_call_and_shapes_stay(box):
    eager, scripted = potential(FixedShapePotential, box), torch.jit.script(potential(FixedShapePotential, box))
    boxvectors = None if box is None else 0.1 * box
    lengths = set()
    for call in range(20):
        positions = moved(0.05, call)
        assert_same(scripted(positions, boxvectors), eager(positions, boxvectors))
        lengths.add((scripted.n_edges, scripted.n_pairs, scripted.n_polarization))
    assert len(lengths) == 1 and min(min(lengths)) > 1


@BOXES
def test_single_precision_follows(box):
    model = small_model("AMP(3)-DP").float()
    model.element_energies = model.element_energies.double()
    options = {"electrostatics": "bare" if box is None else "reaction-field", "periodic": box is not None}
    options |= {"coulomb_cutoff": None if box is None else COULOMB_CUTOFF, "dtype": torch.float32}
    fixed = FixedShapePotential(
        model,
        REGION.numbers,
        QM,
        MM,
        REGION.charges,
        0.0,
        cutoff=model.cutoff,
        polarization_cutoff=POLARIZATION_CUTOFF,
        **options,
    )
    boxvectors = None if box is None else 0.1 * box
    energy, forces = potential(FixedShapePotential, box)(moved(0.0, 0), boxvectors)
    single = fixed(moved(0.0, 0), boxvectors)
    assert single[0].item() == pytest.approx(energy.item(), abs=1e-3)
    torch.testing.assert_close(single[1], forces, rtol=0, atol=1e-4 * forces.abs().max().item())


@BOXES
@pytest.mark.parametrize("scripted", [False, True], ids=["eager", "scripted"])
@pytest.mark.parametrize("variant", ["AMP(3)-DP", "AMP(3)-FP"])
def test_no_operation_needs_a_value(box, variant, scripted):
    """On the meta device, where there are none: neither copies to the host nor shapes that depend on values."""

    def on_meta(kind: type[Potential]) -> torch.nn.Module:
        module = potential(kind, box, variant)
        if isinstance(module, FixedShapePotential):
            module.n_edges, module.n_pairs, module.n_polarization = 50, 200, 100
        module = module.to("meta")
        return torch.jit.script(module) if scripted else module

    positions = moved(0.0, 0).to("meta")
    boxvectors = None if box is None else BOX.to("meta")
    energy, forces = on_meta(FixedShapePotential)(positions, boxvectors)
    assert energy.device.type == forces.device.type == "meta" and forces.shape == positions.shape
    with pytest.raises((RuntimeError, NotImplementedError)):
        on_meta(Potential)(positions, boxvectors)


def test_what_cannot_be_computed_is_nan():
    fixed = potential(FixedShapePotential, BOX, headroom=1.0)
    boxvectors = 0.1 * BOX
    assert torch.isfinite(fixed(moved(0.0, 0), boxvectors)[0])
    for positions, vectors in (
        (moved(0.0, 0).index_fill(0, MM[:1], float("nan")), boxvectors),
        (moved(0.0, 0), 0.8 * boxvectors),  # narrower than two cutoffs
    ):
        energy, forces = fixed(positions, vectors)
        assert torch.isnan(energy) and torch.isnan(forces).all()


def test_too_short_arrays_give_nan():
    expected = potential(Potential, BOX)(moved(0.0, 0), 0.1 * BOX)
    counts = {
        "n_edges": edges_within(REGION.qm, CUTOFF, BOX),
        "n_pairs": pairs_between(REGION.qm, REGION.mm, COULOMB_CUTOFF, BOX),
        "n_polarization": pairs_between(REGION.qm, REGION.mm, POLARIZATION_CUTOFF, BOX),
    }
    for name, pairs in counts.items():
        fixed = potential(FixedShapePotential, BOX)
        fixed(moved(0.0, 0), 0.1 * BOX)
        assert getattr(fixed, name) > len(pairs.centers)
        setattr(fixed, name, len(pairs.centers))
        assert_same(fixed(moved(0.0, 0), 0.1 * BOX), expected)
        setattr(fixed, name, len(pairs.centers) - 1)
        energy, forces = fixed(moved(0.0, 0), 0.1 * BOX)
        assert torch.isnan(energy) and torch.isnan(forces).all(), name


def test_a_region_without_charges_and_a_single_atom():
    for n_qm, mm in ((N_QM, MM[:0]), (1, MM)):
        model = small_model("AMP(3)-DP")
        given = (model, REGION.numbers[:n_qm], QM[:n_qm], mm, REGION.charges[: len(mm)], 0.0)
        options = {"cutoff": 3.0, "polarization_cutoff": 4.5, "periodic": False, "electrostatics": "bare"}
        both = [kind(*given, **options, coulomb_cutoff=None, dtype=torch.float64) for kind in (FixedShapePotential, Potential)]
        assert_same(*(each(moved(0.0, 0)) for each in both))


def test_bad_input():
    with pytest.raises(InputError, match="headroom: expected a number of at least 1"):
        potential(FixedShapePotential, BOX, headroom=0.5)
    with pytest.raises(InputError, match="long-range"):
        potential(FixedShapePotential, BOX, long_range_cutoff=9.0)

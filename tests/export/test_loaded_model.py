"""Single evaluations: the same numbers as the model itself, and clear errors for what cannot be evaluated."""

import numpy as np
import openmm.unit as unit
import pytest
import torch
from support.amp_models import evaluate, random_region, small_model
from support.model_files import write_small_model

from ampmm.errors import InputError
from ampmm.export import load_model
from ampmm.nn.native import use_native

BOX = np.array([[14.0, 0.0, 0.0], [4.0, 13.0, 0.0], [-5.0, 4.0, 13.5]])
REGION = random_region()
NUMBERS, QM, MM, CHARGES = (tensor.numpy() for tensor in REGION[:4])


def test_evaluate_is_the_eager_model(loaded):
    result = loaded.evaluate(NUMBERS, QM, MM, CHARGES, dtype=torch.float64)
    # With native operators where the loaded one has them: constants rounded to float32 when it was made differ by 1e-8.
    expected = evaluate(use_native(small_model("AMP(3)-DP", dtype=torch.float32)).double(), REGION)
    assert result.energy == pytest.approx(expected.energies.total.item(), abs=1e-6)
    np.testing.assert_allclose(result.forces_qm, expected.forces_qm, rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.forces_mm, expected.forces_mm, rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.charges_qm, expected.energies.charges.detach(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.dipole, result.charges_qm @ (QM - QM.mean(0)), rtol=0, atol=1e-9)
    assert isinstance(result.energy, float)
    assert {each.dtype for each in result[1:]} == {np.dtype(np.float64)}


def test_single_precision_is_close_to_double_and_changes_nothing(loaded):
    single, double = loaded.evaluate(NUMBERS, QM, MM, CHARGES), loaded.evaluate(NUMBERS, QM, MM, CHARGES, dtype=torch.float64)
    assert single.energy == pytest.approx(double.energy, abs=1e-3)
    np.testing.assert_allclose(single.forces_qm, double.forces_qm, rtol=0, atol=1e-3)
    assert loaded.evaluate(NUMBERS, QM, MM, CHARGES).energy == single.energy
    assert next(loaded.module.parameters()).dtype == torch.float32


def test_lists_work_and_gradient_mode_does_not_matter(loaded):
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            again = load_model(loaded.path)
            result = again.evaluate(NUMBERS.tolist(), QM.tolist(), MM.tolist(), CHARGES.tolist(), qm_charge=0)
        assert result.energy == pytest.approx(loaded.evaluate(NUMBERS, QM, MM, CHARGES).energy, abs=1e-9)
        assert again.evaluate(NUMBERS, QM, MM, CHARGES).energy == result.energy


def test_no_mm_charges(loaded):
    result = loaded.evaluate(NUMBERS, QM, np.zeros((0, 3)), np.zeros(0))
    assert np.isfinite(result.energy) and result.forces_mm.shape == (0, 3)
    assert loaded.evaluate(NUMBERS, QM, [], []).energy == loaded.evaluate(NUMBERS, QM, np.zeros((0, 3)), []).energy


def test_any_periodic_image_of_any_atom_gives_the_same(loaded):
    """Also the dipole, though the molecule comes in pieces."""
    shifts = np.random.default_rng(0).integers(-2, 3, size=(len(QM) + len(MM), 3)) @ BOX
    whole = loaded.evaluate(NUMBERS, QM, MM, CHARGES, box=BOX, dtype=torch.float64)
    broken = loaded.evaluate(NUMBERS, QM + shifts[: len(QM)], MM + shifts[len(QM) :], CHARGES, box=BOX, dtype=torch.float64)
    assert broken.energy == pytest.approx(whole.energy, abs=1e-9)
    for got, expected in zip(broken[1:], whole[1:], strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


def test_box_lengths_are_a_rectangular_box(loaded):
    lengths = loaded.evaluate(NUMBERS, QM, MM, CHARGES, box=[14.0, 13.0, 15.0])
    vectors = loaded.evaluate(NUMBERS, QM, MM, CHARGES, box=np.diag([14.0, 13.0, 15.0]))
    assert lengths.energy == vectors.energy
    other = loaded.evaluate(NUMBERS, QM, MM, CHARGES, box=[14.0, 13.0, 15.0], coulomb_cutoff=5.0)
    assert abs(other.energy - lengths.energy) > 1e-3


def nan(array: np.ndarray) -> np.ndarray:
    out = array.copy()
    out.flat[4] = np.nan
    return out


BAD_INPUT = {
    "QM in nm": ({"positions_qm": QM / 10}, "positions_qm: expected Å, got two atoms .* in nm"),
    "MM in nm": ({"positions_mm": QM[:1] + 0.1 + 0.01 * MM}, "positions_mm: expected Å, got a charge and an atom .* in nm"),
    "Coulomb cutoff in nm": ({"box": np.diag([14.0, 13.0, 15.0]), "coulomb_cutoff": 0.6}, "coulomb_cutoff: .* is this in nm"),
    "Amber's charges": ({"charges_mm": 18.2223 * CHARGES}, "charges_mm: expected e, got one of .* Amber's"),
    "NaN in QM": ({"positions_qm": nan(QM)}, "positions_qm: 1 values are NaN or infinite"),
    "infinite MM": ({"positions_mm": MM * np.inf}, "positions_mm: .* values are NaN or infinite"),
    "NaN charge": ({"charges_mm": nan(CHARGES)}, "charges_mm: 1 values are NaN"),
    "no charges": ({"charges_mm": None}, r"charges_mm: expected shape \(12,\), got \(\)"),
    "wrong count": ({"charges_mm": CHARGES[:-1]}, r"charges_mm: expected shape \(12,\), got \(11,\)"),
    "transposed": ({"positions_qm": QM.T}, r"positions_qm: expected shape \(7, 3\), got \(3, 7\)"),
    "flat": ({"positions_mm": MM.ravel()}, r"positions_mm: expected shape \(M, 3\), got \(36,\)"),
    "ragged": ({"positions_mm": [[0.0, 1.0, 2.0], [3.0]]}, "positions_mm: expected an array of numbers"),
    "words": ({"positions_qm": "here"}, "positions_qm: expected an array of numbers"),
    "units": (
        {"positions_qm": QM * unit.angstrom},
        "positions_qm: expected a plain array in Å or e, got a Quantity in angstrom; convert",
    ),
    "units in box": ({"box": BOX * unit.angstrom}, "box: expected a plain array"),
    "units in charges": ({"charges_mm": CHARGES * unit.elementary_charge}, "charges_mm: expected a plain array"),
    "element": ({"numbers": [17, *NUMBERS[1:]]}, "numbers: model 'small' knows H, C, N, O, got Cl; choose another"),
    "no element": ({"numbers": [0, *NUMBERS[1:]]}, "atomic number: expected 1 to"),
    "symbols": ({"numbers": list("HCNOHCN")}, r"numbers: expected \(N,\) atomic numbers"),
    "no atoms": ({"numbers": [], "positions_qm": np.zeros((0, 3))}, r"numbers: expected \(N,\) atomic numbers"),
    "charge": ({"qm_charge": -1}, "qm_charge: model 'small' was trained for a net charge of 0, got -1"),
    "small box": ({"box": [11.0, 8.9, 11.0]}, r"box: the model's polarization cutoff of 4.5 Å is over half the box \(4.45 Å\)"),
    "long cutoff": ({"box": BOX, "coulomb_cutoff": 7.0}, "box: coulomb_cutoff of 7.0 Å is over half the box"),
    "negative cutoff": ({"box": BOX, "coulomb_cutoff": -1.0}, "coulomb_cutoff: expected a length in Å, of at least 3"),
    "cutoff in words": ({"box": BOX, "coulomb_cutoff": "long"}, "coulomb_cutoff: expected a plain number in Å"),
    "half precision": ({"dtype": torch.float16}, "dtype: expected torch.float32"),
    "cutoff without box": ({"coulomb_cutoff": 7.0}, "coulomb_cutoff: without a box"),
    "skewed box": ({"box": [[14, 0, 0], [8, 13, 0], [0, 0, 13]]}, "box: expected positive lengths, or reduced box vectors"),
    "upper triangle": ({"box": BOX.T}, "box: expected positive lengths, or reduced box vectors"),
    "negative box": ({"box": [14, -13, 13]}, "box: expected positive lengths"),
    "NaN box": ({"box": [14, np.nan, 13]}, "box: 1 values are NaN"),
    "four lengths": ({"box": [14, 13, 13, 13]}, r"box: expected shape \(3,\)"),
    "box of words": ({"box": "large"}, "box: expected an array of numbers"),
    "same place": ({"positions_mm": np.concatenate([QM[:1], MM[1:]])}, "positions: .* not finite here"),
    "same QM place": ({"positions_qm": np.concatenate([QM[1:2], QM[1:]])}, "positions: .* not finite here"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_named(loaded, case):
    changes, message = BAD_INPUT[case]
    values = {"numbers": NUMBERS, "positions_qm": QM, "positions_mm": MM, "charges_mm": CHARGES}
    with pytest.raises(InputError, match=message):
        loaded.evaluate(**(values | changes))


def test_a_model_of_one_molecule_refuses_others(tmp_path):
    model = load_model(write_small_model(tmp_path / "m.pt", "GNN-P", composition=(8, 1, 1), qm_charge=1))
    water = np.array([[0.96, 0.0, 0.0], [0.0, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    result = model.evaluate([1, 8, 1], water, MM + 5.0, CHARGES)
    assert result.charges_qm.sum() == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(InputError, match="trained on H2O alone, got H2; its energies mean nothing"):
        model.evaluate([1, 1], water[:2], MM, CHARGES)


def test_a_box_may_not_be_smaller_than_the_graph(tmp_path):
    """Without polarization the QM–QM cutoff of 3 Å is what a box has to hold twice."""
    model = load_model(write_small_model(tmp_path / "m.pt", "GNN-P"))
    with pytest.raises(InputError, match=r"the model's QM-QM cutoff of 3\.0 Å is over half the box"):
        model.evaluate(NUMBERS[:2], QM[:2], MM, CHARGES, box=[5.9, 5.9, 5.9])

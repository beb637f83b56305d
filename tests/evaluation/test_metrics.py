"""Errors and their table, against numbers that can be checked by hand."""

import json

import numpy as np
import pytest

from ampmm.evaluation import Predictions, error_table, errors_of, write_errors


def predictions(energy_errors, qm_error=0.0, mm_errors=(0.0,)):
    energy = np.array(energy_errors, dtype=float)
    mm = np.zeros((len(mm_errors), 3))
    mm[:, 0] = mm_errors
    qm = np.zeros((2, 3))
    return Predictions(energy - 1e6, qm + qm_error, mm, np.full(len(energy), -1e6), qm, np.zeros_like(mm))


def test_mae_rmse_and_maximum():
    errors = errors_of(predictions([1.0, -3.0], qm_error=2.0, mm_errors=[0.3, -0.6]))
    assert errors.energy == pytest.approx((2.0, np.sqrt(5.0), 3.0))
    assert errors.forces_qm == pytest.approx((2.0, 2.0, 2.0))
    # Per component: two of six are not zero.
    assert errors.forces_mm == pytest.approx((0.9 / 6, np.sqrt(0.45 / 6), 0.6))


def test_without_mm_charges_there_is_no_mm_error():
    errors = errors_of(predictions([1.0], mm_errors=[]))
    assert errors.forces_mm is None
    assert set(errors.to_dict()) == {"energy", "forces_qm"}
    assert "–" in error_table({"test": errors.to_dict()}, {"test": "1"})


def test_table_has_a_row_for_every_part_in_aligned_columns():
    small, large = errors_of(predictions([0.0123])), errors_of(predictions([12.3, 456.0]))
    table = error_table({"train": small.to_dict(), "independent_300K": large.to_dict()}, {"train": "1 of 70"})
    lines = table.splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines[1:]}) == 1
    assert lines[2].split()[:5] == ["train", "1", "of", "70", "0.0123"]
    assert lines[3].split()[:4] == ["independent_300K", "234", "323", "456"]


def test_json_holds_every_number(tmp_path):
    errors = {"test": errors_of(predictions([1.0, -3.0]))}
    write_errors(tmp_path / "errors.json", errors, {"test": 2}, {"model": "toy"})
    stored = json.loads((tmp_path / "errors.json").read_text())
    assert stored["model"] == "toy"
    assert stored["errors"]["test"]["frames"] == 2
    assert stored["errors"]["test"]["energy"] == {"mae": 2.0, "rmse": pytest.approx(5.0**0.5), "max": 3.0}

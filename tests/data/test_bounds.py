"""What a model saw of its QM region: the extremes of its training frames, and of those of the models it came from."""

import numpy as np
import pytest
from support.toy_frames import toy_frames

from ampmm.data import bounds as bounds_module
from ampmm.data.bounds import training_bounds, wider
from ampmm.geometry.bonds import bonded_pairs


def test_bounds_are_the_extremes_of_the_training_frames_alone():
    frames = toy_frames(12)
    train = np.array([0, 3, 5])
    positions = frames.positions_qm[train]
    o_h = np.linalg.norm(positions[:, 1:] - positions[:, :1], axis=-1)
    h_h = np.linalg.norm(positions[:, 1] - positions[:, 2], axis=-1)
    bounds = training_bounds(frames, train)
    assert bounds["min_distance"] == pytest.approx({"H-H": h_h.min(), "H-O": o_h.min()}, abs=1e-4)
    assert bounds["max_bond"] == pytest.approx({"H-O": o_h.max()}, abs=1e-4)
    norms = np.linalg.norm(frames.forces_qm[train], axis=-1)
    assert bounds["max_force_qm"] == pytest.approx(norms.max(), abs=0.01)
    everything = training_bounds(frames, np.arange(12))
    assert everything["min_distance"]["H-O"] < bounds["min_distance"]["H-O"]


def test_bonds_follow_from_covalent_radii():
    # Methanol: three C-H, C-O and O-H; the nearest pair that is not bonded is 1.9 Å apart.
    numbers = np.array([6, 8, 1, 1, 1, 1])
    positions = np.array([
        [-0.047, 0.664, 0.0], [-0.047, -0.758, 0.0], [-1.093, 0.970, 0.0],
        [0.438, 1.071, 0.889], [0.438, 1.071, -0.889], [0.862, -1.057, 0.0],
    ])  # fmt: skip
    assert bonded_pairs(numbers, positions).tolist() == [[0, 1], [0, 2], [0, 3], [0, 4], [1, 5]]


def test_a_bond_is_what_most_frames_have():
    """A first frame in which a bond is broken, or another is made for a moment, does not decide."""
    frames = toy_frames(9)
    usual = training_bounds(frames, np.arange(1, 9))
    frames.positions_qm[0, 1] += 1.5 * (frames.positions_qm[0, 1] - frames.positions_qm[0, 0])  # O–H broken
    frames.positions_qm[0, 2] = frames.positions_qm[0, 1] + [0.0, 0.0, 0.75]  # H–H made
    assert list(training_bounds(frames, np.arange(9))["max_bond"]) == list(usual["max_bond"]) == ["H-O"]


def test_many_frames_are_looked_at_in_parts(monkeypatch):
    frames = toy_frames(24)
    at_once = training_bounds(frames, np.arange(24))
    monkeypatch.setattr(bounds_module, "FRAMES_AT_ONCE", 5)
    assert training_bounds(frames, np.arange(24)) == at_once


def test_bounds_of_two_sets_of_frames_are_those_of_all_of_them():
    frames, half = toy_frames(24), np.arange(12)
    first, second = training_bounds(frames, half), training_bounds(frames, half + 12)
    assert first != second
    assert wider(first, second) == wider(second, first) == training_bounds(frames, np.arange(24))


def test_bounds_that_only_one_knows_are_kept():
    first = {"min_distance": {"C-H": 1.0, "H-H": 1.5}, "max_force_qm": 300.0}
    second = {"min_distance": {"C-H": 0.9, "C-O": 1.1}, "max_bond": {"C-H": 1.3}}
    assert wider(first, second) == {
        "min_distance": {"C-H": 0.9, "C-O": 1.1, "H-H": 1.5}, "max_bond": {"C-H": 1.3}, "max_force_qm": 300.0,
    }  # fmt: skip
    assert wider(first, {}) == wider({}, first) == first

"""Labels minus a base's: matched by coordinates, refused when they do not belong together."""

import dataclasses

import numpy as np
import pytest
from support.toy_frames import toy_frames

from ampmm.data.combine import concatenated
from ampmm.data.differences import minus_base
from ampmm.errors import InputError


def base_of(frames, scale=0.75, **header):
    """A cheaper level: every label scaled, the frames in reverse order."""
    order = np.arange(frames.n_frames)[::-1]
    parts = [np.arange(frames.mm_offsets[i], frames.mm_offsets[i + 1]) for i in order]
    rows = np.concatenate(parts)
    values = {name: scale * getattr(frames, name)[order] for name in ("energy", "forces_qm", "charges_qm", "dipole")}
    return frames._replace(
        header=dataclasses.replace(frames.header, **{"level_of_theory": "cheap", **header}),
        mm_offsets=np.concatenate([[0], np.cumsum([len(part) for part in parts])]),
        positions_qm=frames.positions_qm[order],
        positions_mm=frames.positions_mm[rows],
        charges_mm=frames.charges_mm[rows],
        forces_mm=(scale * frames.forces_mm[rows]).astype(np.float32),
        **values,
    )


def test_differences_are_of_the_same_frames():
    frames, others = toy_frames(9), toy_frames(4, seed=1)
    both = concatenated(frames, [others])
    difference = minus_base(both, [base_of(others), base_of(frames)])
    for name in ("energy", "forces_qm", "forces_mm", "charges_qm", "dipole"):
        np.testing.assert_allclose(getattr(difference, name), 0.25 * getattr(both, name), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(difference.positions_mm, both.positions_mm)


def test_what_is_left_to_learn_has_no_net_charge():
    frames = toy_frames(4)
    ion = frames._replace(header=dataclasses.replace(frames.header, qm_charge=-1))
    assert minus_base(ion, [base_of(ion)]).qm_charge == 0


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (lambda f: base_of(toy_frames(8, seed=2)), r"base's labels of all 8 frames, got none for 8 of them"),
        (lambda f: base_of(f)._replace(energy=None), r"file 1 has no labels"),
        (lambda f: base_of(f, qm_charge=1), r"with charge 0, got \[8, 1, 1\] with charge 1 in file 1"),
        (lambda f: base_of(f)._replace(numbers=np.array([16, 1, 1])), r"QM atoms \[8, 1, 1\] .* got \[16, 1, 1\]"),
        (lambda f: f, r"expected a cheaper level than the data's"),
    ],
)
def test_what_does_not_belong_is_refused(base, message):
    frames = toy_frames(8)
    with pytest.raises(InputError, match=message):
        minus_base(frames, [base(frames)])


def test_bases_of_two_levels_are_refused():
    frames = toy_frames(8)
    with pytest.raises(InputError, match=r"one level_of_theory in all files, got 'cheap' in file 1, 'cheaper' in file 2"):
        minus_base(frames, [base_of(frames), base_of(frames, level_of_theory="cheaper")])

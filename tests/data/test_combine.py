"""Sets joined into one: provenance is kept, and what does not belong is refused by name."""

import dataclasses

import numpy as np
import pytest
from support.toy_frames import toy_frames

from ampmm.data.combine import concatenated, difference_of_atoms
from ampmm.errors import InputError


def test_rounds_and_drivers_are_kept():
    old = toy_frames(3)._replace(round=None, driver=None)
    new = toy_frames(2, seed=1)._replace(round=np.array([2, 2], dtype=np.int32), driver=np.array(["GFN-FF", "model.pt"]))
    for joined, order in ((concatenated(old, [new]), (0, 0, 0, 2, 2)), (concatenated(new, [old]), (2, 2, 0, 0, 0))):
        assert joined.round.tolist() == list(order)
        assert [joined.record(index).driver for index in range(5)].count("") == 3
        assert {"GFN-FF", "model.pt"} < set(joined.driver.tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"system": "ice"}, "system: 'toy' and 'ice'"),
        ({"level_of_theory": "B3LYP"}, "level_of_theory: .* and 'B3LYP'"),
        ({"level_settings": {"k": 1.0}}, "level_settings"),
        ({"qm_charge": 1}, "qm_charge: 0 and 1"),
    ],
)
def test_another_data_set_is_refused_by_name(change, message):
    other = toy_frames(2)
    other = other._replace(header=dataclasses.replace(other.header, **change))
    with pytest.raises(InputError, match=message):
        concatenated(toy_frames(3), [other])


def test_a_frame_in_two_files_is_refused():
    """It would be trained on and tested on."""
    first, other = toy_frames(4), toy_frames(3, seed=1)
    other.positions_qm[2] = first.positions_qm[1]
    with pytest.raises(InputError, match=r"extra_data: frame \d+ of trajectory \d+ is there twice, in file 2 and in"):
        concatenated(first, [toy_frames(3, seed=2), other])


def test_another_order_of_elements_is_refused_by_name():
    other = toy_frames(2)
    with pytest.raises(InputError, match=r"the same elements in another order \(atom 0 is O and H\)"):
        concatenated(toy_frames(3), [other._replace(numbers=other.numbers[::-1])])
    assert difference_of_atoms(np.array([8, 1, 1]), np.array([8, 1])) == "3 atoms and 2 atoms"
    assert difference_of_atoms(np.array([8, 1, 1]), np.array([8, 1, 6])) == "H2O and CHO"

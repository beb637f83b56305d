"""The parts of a split: disjoint, reproducible, and in time order where asked."""

import numpy as np
import pytest
from support.toy_frames import toy_frames

from ampmm.data.splits import fingerprint, split_frames
from ampmm.errors import InputError


@pytest.mark.parametrize("scheme", ["random", "temporal"])
def test_parts_are_disjoint_and_of_the_asked_sizes(scheme):
    split = split_frames(toy_frames(24), scheme, (12, 6, 4), seed=3)
    assert [len(part) for part in split] == [12, 6, 4]
    assert len(set(np.concatenate(split).tolist())) == 22


def test_random_split_depends_on_the_seed_and_on_nothing_else():
    first = split_frames(toy_frames(24, seed=0), "random", (12, 6, 6), seed=3)
    again = split_frames(toy_frames(24, seed=1), "random", (12, 6, 6), seed=3)
    other = split_frames(toy_frames(24, seed=0), "random", (12, 6, 6), seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.train, other.train)
    assert not np.array_equal(first.train, np.sort(first.train))


def test_temporal_split_follows_trajectories_and_time_however_the_frames_are_stored():
    frames = toy_frames(24)
    shuffled = np.random.default_rng(5).permutation(24)
    frames = frames._replace(time=frames.time[shuffled], trajectory=frames.trajectory[shuffled])
    split = split_frames(frames, "temporal", (12, 6, 6), seed=0)
    order = np.concatenate(split)
    keys = list(zip(frames.trajectory[order].tolist(), frames.time[order].tolist(), strict=True))
    assert keys == sorted(keys)
    assert frames.trajectory[split.train].max() == 0
    assert frames.trajectory[split.test].min() == 1


@pytest.mark.parametrize("sizes", [(20, 4, 1), (12, 0, 4), (12, -1, 4)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(InputError, match=r"split sizes: expected three positive numbers .* at most 24"):
        split_frames(toy_frames(24), "random", sizes, seed=0)


def test_unknown_scheme_lists_the_known():
    with pytest.raises(InputError, match="expected one of random, temporal, got 'shuffled'"):
        split_frames(toy_frames(4), "shuffled", (2, 1, 1), seed=0)


def test_fingerprint_changes_with_any_frame_and_with_their_order():
    frames = toy_frames(8)
    swapped = np.array([1, 0, 2, 3, 4, 5, 6, 7])
    others = (
        toy_frames(9),
        frames._replace(energy=frames.energy + 1e-9),
        frames._replace(energy=frames.energy[swapped], positions_qm=frames.positions_qm[swapped]),
    )
    assert fingerprint(frames) == fingerprint(toy_frames(8))
    assert fingerprint(frames) not in {fingerprint(each) for each in others}

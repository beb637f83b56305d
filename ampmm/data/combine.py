"""Several files of one system as one set of frames."""

from collections.abc import Sequence

import numpy as np

from ampmm.data.schema import NEW_IN_VERSION_2, PER_CHARGE, FrameSet, Record
from ampmm.elements import formula, symbol
from ampmm.errors import InputError

_SHARED = ("header", "numbers", "mm_offsets")


def concatenated(first: FrameSet, others: Sequence[FrameSet], name: str = "extra_data") -> FrameSet:
    """The frames of all sets one after another, under the first one's header; `name` begins the error messages.

    Raises:
        InputError: a set has another system, QM region, order of elements, net charge, boundary or level of theory, or is
            unlabelled beside labelled ones, or a frame is in two sets: it would be trained on and tested on.
    """
    for position, other in enumerate(others, start=1):
        _check_alike(first, other, f"{name}: file {position}")
    if not others:
        return first
    sets = [first, *others]
    _check_distinct(sets, name)
    values = {name: _joined([_column(each, name) for each in sets]) for name in FrameSet._fields if name not in _SHARED}
    counts = np.concatenate([np.diff(each.mm_offsets) for each in sets])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(first.mm_offsets.dtype)
    return FrameSet(header=first.header, numbers=first.numbers, mm_offsets=offsets, **values)


def first_frames(frames: FrameSet, count: int) -> FrameSet:
    """The first `count` frames of a set; all of them if it has no more."""
    if count >= frames.n_frames:
        return frames
    n_charges = int(frames.mm_offsets[count])
    values = {}
    for name in FrameSet._fields:
        array = getattr(frames, name)
        if name not in _SHARED and array is not None:
            values[name] = array[: n_charges if name in PER_CHARGE else count]
    return frames._replace(mm_offsets=frames.mm_offsets[: count + 1], **values)


def _column(frames: FrameSet, name: str) -> np.ndarray | None:
    values = getattr(frames, name)
    if values is None and name in NEW_IN_VERSION_2:
        return np.full(frames.n_frames, Record._field_defaults[name])
    return values


def _joined(arrays: list[np.ndarray | None]) -> np.ndarray | None:
    return None if arrays[0] is None else np.concatenate(arrays)


def first_shared(frames: FrameSet, others: Sequence[FrameSet]) -> int | None:
    """The first frame whose QM positions are also those of a frame of another set; None where there is none."""
    seen = {positions.tobytes() for each in others for positions in each.positions_qm}
    return next((index for index, positions in enumerate(frames.positions_qm) if positions.tobytes() in seen), None)


def _check_distinct(sets: Sequence[FrameSet], name: str) -> None:
    for position, each in enumerate(sets):
        place = first_shared(each, sets[:position])
        if place is not None:
            raise InputError(
                f"{name}: frame {each.source_index[place]} of trajectory {each.trajectory[place]} is there twice, in file "
                f"{position} and in one before it; give each file once, and files that share no frames"
            )


def _check_alike(first: FrameSet, other: FrameSet, which: str) -> None:
    pairs = {
        "system": (first.header.system, other.header.system),
        "qm_charge": (first.qm_charge, other.qm_charge),
        "boundary": (first.header.boundary, other.header.boundary),
        "level_of_theory": (first.header.level_of_theory, other.header.level_of_theory),
        "level_settings": (first.header.level_settings, other.header.level_settings),
    }
    differing = [f"{name}: {mine!r} and {theirs!r}" for name, (mine, theirs) in pairs.items() if mine != theirs]
    if not np.array_equal(first.numbers, other.numbers):
        differing.append(f"QM atoms: {difference_of_atoms(first.numbers, other.numbers)}")
    if differing:
        raise InputError(f"{which} does not belong to the same data set: {'; '.join(differing)}")


def difference_of_atoms(first: np.ndarray, second: np.ndarray) -> str:
    """In words, how two lists of atomic numbers differ."""
    if len(first) != len(second):
        return f"{len(first)} atoms and {len(second)} atoms"
    if sorted(first.tolist()) != sorted(second.tolist()):
        return f"{formula(first)} and {formula(second)}"
    place = int(np.flatnonzero(np.asarray(first) != np.asarray(second))[0])
    mine, theirs = (symbol(int(each[place])) for each in (first, second))
    return f"the same elements in another order (atom {place} is {mine} and {theirs})"

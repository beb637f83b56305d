"""Several files of one system as one set of frames."""

from collections.abc import Sequence

import numpy as np

from ampmm.data.schema import FrameSet
from ampmm.errors import InputError


def concatenated(first: FrameSet, others: Sequence[FrameSet]) -> FrameSet:
    """The frames of all sets one after another, under the first one's header.

    Raises:
        InputError: a set has another QM region, net charge, boundary or level of theory, or is unlabelled beside labelled ones.
    """
    for position, other in enumerate(others, start=1):
        _check_alike(first, other, position)
    if not others:
        return first
    sets = [first, *others]
    values = {name: _joined([getattr(each, name) for each in sets]) for name in FrameSet._fields if name not in _SHARED}
    counts = np.concatenate([np.diff(each.mm_offsets) for each in sets])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(first.mm_offsets.dtype)
    return FrameSet(header=first.header, numbers=first.numbers, mm_offsets=offsets, **values)


_SHARED = ("header", "numbers", "mm_offsets")


def _joined(arrays: list[np.ndarray | None]) -> np.ndarray | None:
    return None if arrays[0] is None else np.concatenate(arrays)


def _check_alike(first: FrameSet, other: FrameSet, position: int) -> None:
    pairs = {
        "the QM atoms": (first.numbers.tolist(), other.numbers.tolist()),
        "qm_charge": (first.qm_charge, other.qm_charge),
        "boundary": (first.header.boundary, other.header.boundary),
        "level_of_theory": (first.header.level_of_theory, other.header.level_of_theory),
        "level_settings": (first.header.level_settings, other.header.level_settings),
    }
    differing = [f"{name}: {mine!r} and {theirs!r}" for name, (mine, theirs) in pairs.items() if mine != theirs]
    if differing:
        raise InputError(f"extra_data: file {position} does not belong to the same data set: {'; '.join(differing)}")

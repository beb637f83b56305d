"""Which frames are for training, validation and test.

"random" is the paper's shuffled split; "temporal" takes the parts in time order, trajectory after trajectory ("unshuffled").
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ampmm.data.schema import FrameSet
from ampmm.errors import InputError

SCHEMES = ("random", "temporal")


class Split(NamedTuple):
    """Frame indices of the three parts; no frame is in two of them."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_frames(frames: FrameSet, scheme: str, sizes: tuple[int, int, int], seed: int) -> Split:
    """Split into parts of the given sizes (train, validation, test); what is left over is not used.

    A random split depends on `seed` and the number of frames alone, so it can be made again from a model's card.
    """
    if scheme not in SCHEMES:
        raise InputError(f"split: expected one of {', '.join(SCHEMES)}, got {scheme!r}")
    total = sum(sizes)
    if min(sizes) < 1 or total > frames.n_frames:
        raise InputError(
            f"split sizes: expected three positive numbers with a sum of at most {frames.n_frames} frames, got "
            f"{sizes[0]} + {sizes[1]} + {sizes[2]} = {total}; label more frames or ask for fewer"
        )
    if scheme == "random":
        order = np.random.default_rng(seed).permutation(frames.n_frames)
    else:
        order = np.lexsort((frames.time, frames.trajectory))
    train, validation, test = np.split(order[:total], np.cumsum(sizes)[:2])
    return Split(train, validation, test)


def thinned(indices: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` of the indices, evenly spaced; 0 is no limit."""
    if limit <= 0 or len(indices) <= limit:
        return indices
    return indices[np.linspace(0, len(indices) - 1, limit).round().astype(int)]


def fingerprint(frames: FrameSet, count: int | None = None) -> str:
    """A short hash of the labelled frames (the first `count`) in their order; where it agrees, so does a split made again."""
    digest = hashlib.sha256()
    for array in (frames.numbers, frames.energy[:count], frames.positions_qm[:count]):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def learned_part(frames: FrameSet, learned: Mapping[str, Mapping[str, Any]]) -> tuple[int, Mapping[str, Any]] | None:
    """How many frames, from the first on, are those of a file that a model has learned from, and what is known of that file.

    A file to which more frames were added begins with those that were learned.

    Args:
        learned: by fingerprint; "frames" is the number of them, without it all of the file.
    """
    found = None
    for each, about in learned.items():
        count = about.get("frames", frames.n_frames)
        if count <= frames.n_frames and (found is None or count > found[0]) and fingerprint(frames, count) == each:
            found = count, about
    return found

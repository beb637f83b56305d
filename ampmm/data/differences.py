"""Labels minus those of a cheaper method for the same frames: what a Δ-model learns."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from ampmm.data.schema import FrameSet, Header
from ampmm.errors import InputError


def check_base(target: Header, base: Sequence[FrameSet]) -> Header:
    """The header that all base files share in what matters; their level has to be another than the target's.

    Raises:
        InputError: a file has no labels, or a level or settings that the first one or the difference does not allow.
    """
    first = base[0].header
    for position, each in enumerate(base, start=1):
        if each.energy is None:
            raise InputError(f"base_data: file {position} has no labels; run `ampmm label` on the frames with the base engine")
        for name in ("level_of_theory", "level_settings"):
            mine, theirs = getattr(first, name), getattr(each.header, name)
            if mine != theirs:
                raise InputError(
                    f"base_data: expected one {name} in all files, got {mine!r} in file 1, {theirs!r} in file {position}"
                )
    if (first.level_of_theory, first.level_settings) == (target.level_of_theory, target.level_settings):
        raise InputError(
            f"base_data: expected a cheaper level than the data's, got {first.level_of_theory!r} for both, so that "
            "every difference is 0"
        )
    return first


def minus_base(frames: FrameSet, base: Sequence[FrameSet]) -> FrameSet:
    """The frames with energies and forces minus the base's, which may hold other frames too, in any order.

    The net charge of the result is 0: the base has that of the QM region, and what is left to learn has none.
    Atomic charges and dipoles are differences too.

    Raises:
        InputError: the base lacks a frame, or is of another QM region or net charge.
    """
    if frames.energy is None:
        raise InputError("data: the frames have no labels to subtract a base from; run `ampmm label` on them first")
    check_base(frames.header, base)
    for position, each in enumerate(base, start=1):
        if not np.array_equal(each.numbers, frames.numbers) or each.qm_charge != frames.qm_charge:
            raise InputError(
                f"base_data: expected the QM atoms {frames.numbers.tolist()} with charge {frames.qm_charge}, got "
                f"{each.numbers.tolist()} with charge {each.qm_charge} in file {position}"
            )
    places = {_key(each, index): (each, index) for each in base for index in range(each.n_frames)}
    found = [places.get(_key(frames, index)) for index in range(frames.n_frames)]
    missing = [index for index, place in enumerate(found) if place is None]
    if missing:
        raise InputError(
            f"base_data: expected the base's labels of all {frames.n_frames} frames, got none for {len(missing)} of them "
            f"(the first is frame {missing[0]}); label the same frames with the base engine, or leave out those it fails on"
        )
    records = [each.record(index) for each, index in found]
    return frames._replace(
        header=dataclasses.replace(frames.header, qm_charge=0),
        energy=frames.energy - np.array([record.energy for record in records]),
        forces_qm=frames.forces_qm - np.stack([record.forces_qm for record in records]),
        forces_mm=frames.forces_mm - np.concatenate([record.forces_mm for record in records]),
        charges_qm=frames.charges_qm - np.stack([record.charges_qm for record in records]),
        dipole=frames.dipole - np.stack([record.dipole for record in records]),
    )


def _key(frames: FrameSet, index: int) -> bytes:
    """A hash of a frame's coordinates and charges, which labelling leaves as they are."""
    record = frames.record(index)
    digest = hashlib.sha256()
    for array in (record.positions_qm, record.positions_mm, record.charges_mm):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()

"""Reading frames from HDF5: what is wrong with a file is named, and nothing beyond the committed frames is seen."""

import json
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np

from ampmm.data.schema import FORMAT, READABLE_VERSIONS, TEXT, Failure, Field, FrameSet, Header, fields_of
from ampmm.errors import DataFileError


def read_header(path: str | Path) -> Header:
    """The root attributes of a file.

    Raises:
        DataFileError: the file is missing, damaged, or not of the schema.
    """
    with open_frames(path) as file:
        return header_of(file, Path(path))


def read_frames(path: str | Path) -> FrameSet:
    """All committed frames of a file, also while another process writes it.

    Raises:
        DataFileError: the file is missing, damaged, or not of the schema; the message names what is wrong.
    """
    with open_frames(path) as file:
        header = header_of(file, Path(path))
        try:
            return _read(file, header, Path(path))
        except OSError as error:
            raise DataFileError(f"{path}: damaged, its arrays cannot be read ({error}); make it again or use a copy") from error


def read_frame_keys(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """(trajectory, source_index) of the committed frames, without the frames themselves."""
    trajectory, source_index = read_columns(path, ("trajectory", "source_index"))
    return trajectory, source_index


def read_columns(path: str | Path, names: Sequence[str]) -> list[np.ndarray]:
    """Some datasets of the committed frames; names of `FIELDS` whose first axis is the frame."""
    with open_frames(path) as file:
        header_of(file, Path(path))
        n_frames = _n_frames(file, Path(path))
        return [file[name][:n_frames] for name in names]


def read_failures(path: str | Path) -> list[Failure]:
    """The frames that a labelling run left out, and why."""
    with open_frames(path) as file:
        header_of(file, Path(path))
        if "n_failed" not in file:  # schema version 1
            return []
        columns = [file[f"failed_{name}"][: int(file["n_failed"][()])] for name in Failure._fields]
    return [Failure(int(a), int(b), c.decode(errors="replace")) for a, b, c in zip(*columns, strict=True)]


def open_frames(path: str | Path) -> h5py.File:
    """The file, for reading; it may have a writer.

    Raises:
        DataFileError: there is no file, or it is no HDF5.
    """
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise DataFileError(
            f"{path}: expected an HDF5 file of ampmm frames, found {found} there; check the path, "
            f"which counts from {Path.cwd()}"
        )
    try:
        # Reading beside a writer retries for ever where the file is cut short, so only where there is, or was, a writer.
        return h5py.File(path, "r", libver="latest", swmr=_has_writer(path))
    except OSError as error:
        raise DataFileError(
            f"{path}: expected an HDF5 file of ampmm frames, cannot open it ({error}); it is damaged or another format"
        ) from error


def _has_writer(path: Path) -> bool:
    """Whether a writer is at work on the file, or was killed: its mark in the superblock (HDF5 format, version 3).

    Raises:
        OSError: the file is shorter than its superblock says.
    """
    with path.open("rb") as file:
        start = file.read(36)
        size = file.seek(0, os.SEEK_END)
    if len(start) < 36 or not start.startswith(b"\x89HDF\r\n\x1a\n") or start[8] != 3:
        return False
    if size < int.from_bytes(start[28:36], "little"):
        raise OSError("it is shorter than it should be")
    return start[11] != 0


def header_of(file: h5py.File, path: Path) -> Header:
    """The root attributes, after format, version, units and the presence of every dataset were checked."""
    attributes = file.attrs
    if attributes.get("format") != FORMAT:
        raise DataFileError(
            f"{path}: expected root attribute format={FORMAT!r}, got {attributes.get('format')!r}; "
            "this HDF5 file was not written by ampmm. Frames are made with `ampmm sample` and `ampmm label`"
        )
    version = attributes.get("schema_version")
    if version not in READABLE_VERSIONS:
        raise DataFileError(
            f"{path}: expected schema_version {' or '.join(map(str, READABLE_VERSIONS))}, got {version}; "
            "use the ampmm version that wrote it"
        )
    missing = [name for name in (each.name for each in fields(Header)) if name not in attributes]
    if missing:
        raise DataFileError(f"{path}: root attributes missing: {', '.join(missing)}; the file is damaged or was edited")
    header = Header(
        **{name: str(attributes[name]) for name in ("system", "mm_region", "boundary", "level_of_theory", "command")},
        qm_charge=int(attributes["qm_charge"]),
        level_settings=json.loads(attributes["level_settings"]),
        sampling=json.loads(attributes["sampling"]),
    )
    expected = fields_of(header, version_of(file))
    absent = [each.name for each in expected if each.name not in file]
    if absent or "n_frames" not in file:
        raise DataFileError(f"{path}: datasets missing: {', '.join(absent or ['n_frames'])}; the file is damaged or was edited")
    _check_units(file, expected, path)
    return header


def version_of(file: h5py.File) -> int:
    """The schema version that the file was written with."""
    return int(file.attrs["schema_version"])


def _check_units(file: h5py.File, expected: tuple[Field, ...], path: Path) -> None:
    stated = json.loads(file.attrs.get("units", "{}"))
    for each in expected:
        for unit in (stated.get(each.name, each.unit), file[each.name].attrs.get("unit", each.unit)):
            if unit != each.unit:
                raise DataFileError(
                    f"{path}: {each.name}: expected the unit {each.unit}, got {unit}; convert the numbers and write them "
                    "anew with `ampmm.data.FrameWriter`"
                )


def _n_frames(file: h5py.File, path: Path) -> int:
    n_frames = int(file["n_frames"][()])
    available = len(file["source_index"])
    if not 0 <= n_frames <= available:
        raise DataFileError(f"{path}: n_frames is {n_frames}, but the arrays hold {available} frames; the file is damaged")
    return n_frames


def _read(file: h5py.File, header: Header, path: Path) -> FrameSet:
    n_frames = _n_frames(file, path)
    numbers = file["numbers"][:]
    offsets = file["mm_offsets"][: n_frames + 1]
    if len(offsets) != n_frames + 1 or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise DataFileError(f"{path}: mm_offsets: expected {n_frames + 1} ascending numbers from 0; the file is damaged")
    sizes = {"F": n_frames, "F+1": n_frames + 1, "N": len(numbers), "M": int(offsets[-1])}
    arrays = {}
    for each in fields_of(header, version_of(file)):
        expected = tuple(sizes.get(axis, axis) for axis in each.axes)
        array = file[each.name][: expected[0]]
        if array.shape != expected or array.dtype != np.dtype(each.dtype):
            raise DataFileError(
                f"{path}: dataset {each.name}: expected shape {expected} of {each.dtype}, "
                f"got {array.shape} of {array.dtype}; the file is damaged or was edited"
            )
        arrays[each.name] = np.char.decode(array, "utf-8", "replace") if each.dtype.startswith(TEXT) else array
    if version_of(file) == 1:
        arrays["round"] = np.zeros(n_frames, dtype=np.int32)
        arrays["driver"] = _drivers_of_version_1(header, arrays["trajectory"])
    return FrameSet(header=header, **arrays)


def _drivers_of_version_1(header: Header, trajectory: np.ndarray) -> np.ndarray:
    """Version 1 named the driver in the header alone, for every trajectory."""
    known = {int(each.get("trajectory_id", 0)): str(each.get("driver", "")) for each in header.trajectories()}
    return np.array([known.get(int(each), "") for each in trajectory], dtype=np.str_)

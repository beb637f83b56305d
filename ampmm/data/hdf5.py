"""Reading and writing frames in HDF5: whole frames or none, whatever kills the writer.

The writer works in HDF5's single-writer mode, which keeps the file readable at every moment, and bumps the dataset
`n_frames` only after a frame's arrays are flushed. Readers trust `n_frames` and nothing beyond it.
"""

import contextlib
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

from ampmm.data.schema import FORMAT, SCHEMA_VERSION, Field, FrameSet, Header, Record, fields_of, units_json
from ampmm.errors import DataFileError, InputError

_FRAMES_PER_CHUNK = 32
_MM_ROWS_PER_CHUNK = 16384


class FrameWriter:
    """Appends frames to a file of the schema; use as a context manager.

    Args:
        path: the file; refused when it exists, unless `append`.
        header: what holds for all frames.
        numbers: (N,) atomic numbers of the QM atoms.
        append: continue an existing file; its header and numbers must agree.

    Raises:
        DataFileError: the file exists already, or is another system's or another level's.
    """

    def __init__(self, path: str | Path, header: Header, numbers: np.ndarray, *, append: bool = False) -> None:
        self._path, self._header = Path(path), header
        self._numbers = np.asarray(numbers, dtype=np.int64)
        self._fields = tuple(each for each in fields_of(header) if each.name != "numbers")
        exists = self._path.exists()
        if exists and not append:
            raise DataFileError(f"{self._path} exists and is not overwritten; choose another name or remove it first")
        if exists:
            _rewrite_committed(self._path, self._header, self._numbers)
            self._file = h5py.File(self._path, "r+", libver="latest")
        else:
            self._file = _create(self._path, header, self._numbers, self._fields)
        self._file.swmr_mode = True
        self._count = int(self._file["n_frames"][()])

    @property
    def n_frames(self) -> int:
        """Frames safely in the file."""
        return self._count

    def append(self, *records: Record) -> None:
        """Add frames; after return they are in the file whole, and after an exception none of them is.

        Raises:
            InputError: a frame lacks a field or has a wrong shape.
            DataFileError: the disk is full or the file cannot be written; frames of earlier calls stay readable.
        """
        if not records:
            return
        if not self._file:
            raise DataFileError(f"{self._path}: expected an open file, got a closed one; open a new FrameWriter")
        for record in records:
            self._check(record)
        try:
            self._write(records)
        except (OSError, RuntimeError) as error:  # h5py raises either, depending on where HDF5 noticed
            self._abandon()
            raise DataFileError(
                f"{self._path}: cannot write ({_first_line(error)}); is the disk full? The {self._count} frames "
                "written before are safe; make room and continue with the same command"
            ) from error

    def _write(self, records: tuple[Record, ...]) -> None:
        sizes = np.array([len(record.charges_mm) for record in records])
        first_row = int(self._file["mm_offsets"][self._count])
        offsets = first_row + np.cumsum(sizes)
        for each in self._fields:
            dataset = self._file[each.name]
            if each.name == "mm_offsets":
                start, values = self._count + 1, offsets
            elif each.axes[0] == "M":
                start, values = first_row, np.concatenate([getattr(record, each.name) for record in records])
            else:
                start, values = self._count, np.stack([np.asarray(getattr(record, each.name)) for record in records])
            # Rows beyond `n_frames`, left by a killed writer, are overwritten.
            dataset.resize(max(len(dataset), start + len(values)), axis=0)
            dataset[start : start + len(values)] = values
            dataset.flush()
        committed = self._file["n_frames"]
        committed[()] = self._count + len(records)
        committed.flush()
        self._count += len(records)

    def _abandon(self) -> None:
        """Close after a failed write, leaving the file on disk as it is.

        HDF5 would try to write the rest again when it closes, fail again, and crash the interpreter at exit. Its
        remaining writes go to the null device instead.
        """
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, self._file.id.get_vfd_handle())
        os.close(null)
        with contextlib.suppress(OSError, RuntimeError):
            self._file.close()

    def close(self) -> None:
        """Close the file; frames are safe without it."""
        if self._file:
            self._file.close()

    def __enter__(self) -> "FrameWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _check(self, record: Record) -> None:
        sizes = {"N": len(self._numbers), "M": len(record.charges_mm)}
        for each in self._fields:
            if each.name == "mm_offsets":
                continue
            value = getattr(record, each.name)
            if value is None:
                raise InputError(
                    f"record.{each.name}: expected a value in {each.unit}, got None; a file with this header stores it"
                )
            expected = tuple(sizes.get(axis, axis) for axis in each.axes if axis != "F")
            if np.shape(value) != expected:
                raise InputError(f"record.{each.name}: expected shape {expected} in {each.unit}, got {np.shape(value)}")
            if not np.isfinite(value).all():
                raise InputError(
                    f"record.{each.name}: expected finite numbers in {each.unit}, got NaN or infinity; drop the frame"
                )


def read_header(path: str | Path) -> Header:
    """The root attributes of a file.

    Raises:
        DataFileError: the file is missing, damaged, or not of the schema.
    """
    with _open(path) as file:
        return _header(file, Path(path))


def read_frames(path: str | Path) -> FrameSet:
    """All committed frames of a file, also while another process writes it.

    Raises:
        DataFileError: the file is missing, damaged, or not of the schema; the message names what is wrong.
    """
    with _open(path) as file:
        header = _header(file, Path(path))
        try:
            return _read(file, header, Path(path))
        except OSError as error:
            raise DataFileError(f"{path}: damaged, its arrays cannot be read ({error}); make it again or use a copy") from error


def read_frame_keys(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """(trajectory, source_index) of the committed frames, without the frames themselves."""
    with _open(path) as file:
        _header(file, Path(path))
        n_frames = _n_frames(file, Path(path))
        return file["trajectory"][:n_frames], file["source_index"][:n_frames]


def _open(path: str | Path) -> h5py.File:
    path = Path(path)
    if not path.is_file():
        raise DataFileError(f"{path}: expected an HDF5 file of ampmm frames, found no file; check the path")
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


def _header(file: h5py.File, path: Path) -> Header:
    attributes = file.attrs
    if attributes.get("format") != FORMAT:
        raise DataFileError(
            f"{path}: expected root attribute format={FORMAT!r}, got {attributes.get('format')!r}; "
            "this HDF5 file was not written by ampmm. Frames are made with `ampmm sample` and `ampmm label`"
        )
    if attributes.get("schema_version") != SCHEMA_VERSION:
        raise DataFileError(
            f"{path}: expected schema_version {SCHEMA_VERSION}, got {attributes.get('schema_version')}; "
            "use the ampmm version that wrote it"
        )
    required = (
        "system",
        "qm_charge",
        "mm_region",
        "boundary",
        "level_of_theory",
        "level_settings",
        "sampling",
        "command",
    )
    missing = [name for name in required if name not in attributes]
    if missing:
        raise DataFileError(f"{path}: root attributes missing: {', '.join(missing)}; the file is damaged or was edited")
    header = Header(
        **{name: str(attributes[name]) for name in ("system", "mm_region", "boundary", "level_of_theory", "command")},
        qm_charge=int(attributes["qm_charge"]),
        level_settings=json.loads(attributes["level_settings"]),
        sampling=json.loads(attributes["sampling"]),
    )
    absent = [each.name for each in fields_of(header) if each.name not in file]
    if absent or "n_frames" not in file:
        raise DataFileError(f"{path}: datasets missing: {', '.join(absent or ['n_frames'])}; the file is damaged or was edited")
    return header


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
    for each in fields_of(header):
        expected = tuple(sizes.get(axis, axis) for axis in each.axes)
        array = file[each.name][: expected[0]]
        if array.shape != expected or array.dtype != np.dtype(each.dtype):
            raise DataFileError(
                f"{path}: dataset {each.name}: expected shape {expected} of {each.dtype}, "
                f"got {array.shape} of {array.dtype}; the file is damaged or was edited"
            )
        arrays[each.name] = array
    return FrameSet(header=header, **arrays)


def _create(path: Path, header: Header, numbers: np.ndarray, fields: tuple[Field, ...]) -> h5py.File:
    file = h5py.File(path, "x", libver="latest")
    file.attrs["format"] = FORMAT
    file.attrs["schema_version"] = SCHEMA_VERSION
    for name in ("system", "qm_charge", "level_of_theory", "mm_region", "boundary", "command"):
        file.attrs[name] = getattr(header, name)
    file.attrs["level_settings"] = json.dumps(header.level_settings, ensure_ascii=False)
    file.attrs["sampling"] = json.dumps(header.sampling, ensure_ascii=False)
    file.attrs["units"] = units_json()
    file.attrs["ampmm_version"] = _version()
    file["numbers"] = numbers
    for each in fields:
        trailing = tuple(len(numbers) if axis == "N" else int(axis) for axis in each.axes[1:])
        rows = _MM_ROWS_PER_CHUNK if each.axes[0] == "M" else _FRAMES_PER_CHUNK
        dataset = file.create_dataset(
            each.name, shape=(0, *trailing), maxshape=(None, *trailing), chunks=(rows, *trailing), dtype=each.dtype
        )
        dataset.attrs["unit"] = each.unit
    file["mm_offsets"].resize(1, axis=0)
    file["mm_offsets"][0] = 0
    file["n_frames"] = np.int64(0)
    file.flush()
    return file


def _rewrite_committed(path: Path, header: Header, numbers: np.ndarray) -> None:
    """Put a file in order for appending, after checking that it is the same system at the same level.

    A killed writer leaves HDF5's own "open for writing" mark, and rows that were never committed: the committed frames
    are copied to a new file, which takes the old one's place in one step.
    """
    with _open(path) as file:
        old = _header(file, path)
        for name in ("system", "qm_charge", "mm_region", "boundary", "level_of_theory", "level_settings"):
            if getattr(old, name) != getattr(header, name):
                raise DataFileError(
                    f"{path}: {name} is {getattr(old, name)!r} in the file and {getattr(header, name)!r} now; "
                    "appending would mix two data sets. Write to another file"
                )
        if not np.array_equal(file["numbers"][:], numbers):
            raise DataFileError(f"{path}: the file's QM atoms differ from these; write to another file")
    try:
        h5py.File(path, "r+", libver="latest").close()
        return
    except OSError:
        pass  # marked by a killed writer
    frames = read_frames(path)
    copy = path.with_name(f".{path.name}.recovered")
    copy.unlink(missing_ok=True)
    with FrameWriter(copy, old, numbers) as writer:
        for index in range(frames.n_frames):
            writer.append(frames.record(index))
    os.replace(copy, path)


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0].split(": time")[0].replace("(", "— ") or type(error).__name__


def _version() -> str:
    try:
        return version("ampmm")
    except PackageNotFoundError:
        return "unknown"

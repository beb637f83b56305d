"""Writing frames to HDF5: whole frames or none, whatever kills the writer.

The writer works in HDF5's single-writer mode, which keeps the file readable at every moment, and bumps the dataset
`n_frames` only after a frame's arrays are flushed. Readers trust `n_frames` and nothing beyond it.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from ampmm.data.combine import difference_of_atoms
from ampmm.data.lock import WriterLock
from ampmm.data.reading import header_of, open_frames, read_failures, read_frames, version_of
from ampmm.data.schema import FORMAT, SCHEMA_VERSION, TEXT, Failure, Field, Header, Record, fields_of, units_json
from ampmm.errors import DataFileError, InputError

_FRAMES_PER_CHUNK = 32
_MM_ROWS_PER_CHUNK = 16384
_FAILURES = {"trajectory": "int32", "source_index": "int64", "reason": "S256"}  # datasets failed_*, as far as n_failed says
_SYSTEM, _LEVEL = ("system", "qm_charge", "mm_region", "boundary"), ("level_of_theory", "level_settings")


class FrameWriter:
    """Appends frames to a file of the schema; use as a context manager.

    Args:
        path: the file; refused when it exists, unless `append`.
        header: what holds for all frames.
        numbers: (N,) atomic numbers of the QM atoms.
        append: continue an existing file; its header and numbers must agree. A labelled file without frames may be of another
            level or other settings: it is begun anew, and its list of failures with it.

    Raises:
        DataFileError: the file exists already, is another system's or another level's, or has another writer.
    """

    def __init__(self, path: str | Path, header: Header, numbers: np.ndarray, *, append: bool = False) -> None:
        self._path, self._header = Path(path), header
        self._numbers = np.asarray(numbers, dtype=np.int64)
        self._fields = tuple(each for each in fields_of(header) if each.name != "numbers")
        exists = self._path.exists()
        if exists and not append:
            raise DataFileError(f"{self._path} exists and is not overwritten; choose another name or remove it first")
        self._lock = WriterLock(self._path)
        try:
            self._file = self._opened(exists)
        except BaseException:
            self._lock.release()
            raise
        self._file.swmr_mode = True
        self._count = int(self._file["n_frames"][()])
        columns = [self._file[name][: self._count].tolist() for name in ("trajectory", "source_index")]
        self._names = set(zip(*columns, strict=True))  # of the frames in the file

    def _opened(self, exists: bool) -> h5py.File:
        if not exists:
            return _create(self._path, self._header, self._numbers, self._fields)
        _put_in_order(self._path, self._header, self._numbers)
        file = h5py.File(self._path, "r+", libver="latest")
        file.attrs["sampling"] = _json(_joined_sampling(file, self._header))
        return file

    @property
    def n_frames(self) -> int:
        """Frames safely in the file."""
        return self._count

    def append(self, *records: Record) -> None:
        """Add frames; after return they are in the file whole, and after an exception none of them is.

        Raises:
            InputError: a frame lacks a field, has a wrong shape, or is there already (its trajectory and source_index).
            DataFileError: the disk is full or the file cannot be written; frames of earlier calls stay readable.
        """
        if not records:
            return
        if not self._file:
            raise DataFileError(f"{self._path}: expected an open file, got a closed one; open a new FrameWriter")
        for record in records:
            self._check(record)
        names = [(int(record.trajectory), int(record.source_index)) for record in records]
        for place, name in enumerate(names):
            if name in self._names or name in names[:place]:
                raise InputError(
                    f"record: expected a frame that is not in {self._path.name} yet, got source_index {name[1]} of trajectory "
                    f"{name[0]} a second time; number trajectories and their frames anew, or leave it out"
                )
        try:
            self._write(records)
        except (OSError, RuntimeError) as error:  # h5py raises either, depending on where HDF5 noticed
            raise self._abandoned(error) from error

    def append_failures(self, *failures: Failure) -> None:
        """Note frames that could not be labelled; `ampmm.data.read_failures` gives them back.

        Raises:
            DataFileError: as in `append`.
        """
        if not failures:
            return
        count = self._file["n_failed"]
        first = int(count[()])
        try:
            for name, dtype in _FAILURES.items():
                dataset = self._file[f"failed_{name}"]
                values = [getattr(failure, name) for failure in failures]
                if dtype.startswith(TEXT):
                    values = [_utf8(value, np.dtype(dtype).itemsize) for value in values]
                dataset.resize(max(len(dataset), first + len(values)), axis=0)
                dataset[first : first + len(values)] = np.asarray(values, dtype=dtype)
                dataset.flush()
            count[()] = first + len(failures)
            count.flush()
        except (OSError, RuntimeError) as error:
            raise self._abandoned(error) from error

    def forget_failures(self) -> None:
        """Take all frames off the list of `append_failures`, to have them tried again."""
        self._file["n_failed"][()] = 0
        self._file["n_failed"].flush()

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
            elif each.dtype.startswith(TEXT):
                start, values = self._count, np.array([getattr(record, each.name).encode() for record in records], each.dtype)
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
        self._names.update((int(record.trajectory), int(record.source_index)) for record in records)

    def _abandoned(self, error: Exception) -> DataFileError:
        self._abandon()
        return DataFileError(
            f"{self._path}: cannot write ({_first_line(error)}); is the disk full? The {self._count} frames "
            "written before are safe; make room and continue with the same command"
        )

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
        self._lock.release()

    def close(self) -> None:
        """Close the file; frames are safe without it."""
        if self._file:
            self._file.close()
        self._lock.release()

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
            if each.dtype.startswith(TEXT):
                _check_text(each, value)
                continue
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


def _create(path: Path, header: Header, numbers: np.ndarray, fields: tuple[Field, ...]) -> h5py.File:
    file = h5py.File(path, "x", libver="latest")
    file.attrs["format"] = FORMAT
    file.attrs["schema_version"] = SCHEMA_VERSION
    for name in ("system", "qm_charge", "level_of_theory", "mm_region", "boundary", "command"):
        file.attrs[name] = getattr(header, name)
    file.attrs["level_settings"] = _json(header.level_settings)
    file.attrs["sampling"] = _json(header.sampling)
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
    for name, dtype in _FAILURES.items():
        file.create_dataset(f"failed_{name}", shape=(0,), maxshape=(None,), chunks=(_FRAMES_PER_CHUNK,), dtype=dtype)
    file["n_frames"] = np.int64(0)
    file["n_failed"] = np.int64(0)
    file.flush()
    return file


def _put_in_order(path: Path, header: Header, numbers: np.ndarray) -> None:
    """Make a file ready for appending, after checking that it is the same system at the same level.

    A killed writer leaves HDF5's own "open for writing" mark, and rows that were never committed; a file of an older
    schema lacks datasets. In both cases the committed frames are copied to a new file, which takes the old one's place
    in one step. So does an empty file of the new level where the old one has no frame that a level could be mixed with.
    """
    with open_frames(path) as file:
        old = header_of(file, path)
        anew = old.labelled and header.labelled and int(file["n_frames"][()]) == 0 and not _same(old, header, _LEVEL)
        _check_same(path, old, header, _SYSTEM if anew else _SYSTEM + _LEVEL)
        if not np.array_equal(file["numbers"][:], numbers):
            what = difference_of_atoms(file["numbers"][:], numbers)
            raise DataFileError(f"{path}: its QM atoms differ from these: {what}; write to another file")
        current = version_of(file) == SCHEMA_VERSION
    if current and not anew:
        with contextlib.suppress(OSError):  # marked by a killed writer
            h5py.File(path, "r+", libver="latest").close()
            return
    frames, failures = read_frames(path), [] if anew else read_failures(path)
    copy = path.with_name(f".{path.name}.recovered")
    copy.unlink(missing_ok=True)
    with FrameWriter(copy, header if anew else old, numbers) as writer:
        _append_all(writer, (frames.record(index) for index in range(frames.n_frames)))
        writer.append_failures(*failures)
    os.replace(copy, path)


def _same(one: Header, other: Header, names: tuple[str, ...]) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _check_same(path: Path, old: Header, header: Header, names: tuple[str, ...]) -> None:
    for name in names:
        if not _same(old, header, (name,)):
            raise DataFileError(
                f"{path}: {name} is {getattr(old, name)!r} in the file and {getattr(header, name)!r} now; "
                "appending would mix two data sets. Write to another file"
            )


def write_whole(path: str | Path, header: Header, numbers: np.ndarray, records: Iterable[Record]) -> int:
    """Write a new file that appears under its name only when all frames are in it; the number of frames.

    Raises:
        DataFileError: the file exists, or cannot be written.
        InputError: a frame does not fit the header.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.new")
    with WriterLock(path):  # before anything is deleted: the draft may be another process's
        if path.exists():
            raise DataFileError(f"{path} exists and is not overwritten; choose another name or remove it first")
        draft.unlink(missing_ok=True)
        try:
            with FrameWriter(draft, header, numbers) as writer:
                _append_all(writer, records)
                count = writer.n_frames
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return count


def _append_all(writer: FrameWriter, records: Iterable[Record]) -> None:
    records = iter(records)
    while block := list(itertools.islice(records, _FRAMES_PER_CHUNK)):
        writer.append(*block)


def _joined_sampling(file: h5py.File, header: Header) -> dict[str, Any]:
    """The file's own account of its sampling, with the trajectories that are new to it."""
    old = json.loads(file.attrs["sampling"])
    if "trajectories" not in old or "trajectories" not in header.sampling:
        return old
    new = [each for each in header.sampling["trajectories"] if each not in old["trajectories"]]
    return {**old, "trajectories": [*old["trajectories"], *new]}


def _check_text(each: Field, value: Any) -> None:
    size = np.dtype(each.dtype).itemsize
    if not isinstance(value, str) or len(value.encode()) > size or "\0" in value:
        raise InputError(f"record.{each.name}: expected text of at most {size} bytes, got {value!r}")


def _utf8(text: str, size: int) -> bytes:
    """The text as UTF-8, cut to `size` bytes between two characters."""
    return text.encode()[:size].decode(errors="ignore").encode()


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0].split(": time")[0].replace("(", "— ") or type(error).__name__


def _version() -> str:
    try:
        return version("ampmm")
    except PackageNotFoundError:
        return "unknown"

"""What a run writes at every report: a DCD frame, a row of state data, a row of ML terms.

Each file can be cut back to an earlier frame, so that a resumed run continues it without a gap or a repeat.
"""

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from openmm import app

from ampmm.errors import DataFileError
from ampmm.files import replacing

STATE_COLUMNS: Final = (
    "step",
    "time_ps",
    "potential_kJ_per_mol",
    "kinetic_kJ_per_mol",
    "total_kJ_per_mol",
    "temperature_K",
    "volume_nm3",
    "density_g_per_mL",
)


def ml_columns(labels: Sequence[str]) -> tuple[str, ...]:
    """The columns of the ML terms for QM atoms of these names."""
    return (
        "step",
        "time_ps",
        "energy_kJ_per_mol",
        *(f"dipole_{axis}_eA" for axis in "xyz"),
        *(f"charge_{label}_e" for label in labels),
    )


class Table:
    """A CSV file of numbers whose first column is the step.

    Args:
        path: the file.
        columns: the header.
        keep_to_step: None writes a new file; else an existing one is continued after its row of this step.
    """

    def __init__(self, path: Path, columns: Sequence[str], keep_to_step: int | None = None) -> None:
        header = ",".join(columns)
        rows: list[str] = []
        if keep_to_step is not None:
            rows = _rows_until(path, header, keep_to_step)
        with replacing(path) as draft:
            draft.write_text("\n".join([header, *rows]) + "\n")
        self._file = path.open("a")

    def write(self, values: Sequence[float]) -> None:
        """Append a row; integers are written as such, other numbers with ten digits."""
        text = ",".join(str(value) if isinstance(value, int) else f"{value:.10g}" for value in values)
        self._file.write(text + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Force what was written onto the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _rows_until(path: Path, header: str, step: int) -> list[str]:
    text = path.read_text() if path.is_file() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()  # without the half row of a killed run, or of a full disk
    if not lines or lines[0] != header:
        raise DataFileError(f"{path}: expected the columns of this run, found others; resume cannot continue it")
    kept: list[str] = []
    for line in lines[1:]:
        first, *others = line.split(",")
        if len(others) != header.count(",") or not first.isdigit() or int(first) > step:
            break
        kept.append(line)
    return kept


class Trajectory:
    """A DCD file.

    Args:
        path: the file.
        topology: of the whole system.
        timestep_ps: ps.
        interval: steps between frames; the first frame is at this step.
        keep_frames: None writes a new file; else an existing one is cut to this many frames and continued.
    """

    def __init__(
        self, path: Path, topology: app.Topology, timestep_ps: float, interval: int, keep_frames: int | None = None
    ) -> None:
        append = keep_frames is not None
        if keep_frames is not None:
            with path.open("r+b") as existing:
                truncate_dcd(existing, keep_frames, str(path))
        self._file = path.open("r+b" if append else "w+b")
        self._dcd = app.DCDFile(self._file, topology, timestep_ps, interval, interval, append=append)

    def write(self, positions: np.ndarray, box: np.ndarray | None) -> None:
        """Append a frame: positions (n_atoms, 3) nm, box (3, 3) nm or None."""
        vectors = None if box is None else [tuple(row) for row in box.tolist()]
        self._dcd.writeModel(positions, periodicBoxVectors=vectors)

    def sync(self) -> None:
        """Force what was written onto the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def truncate_dcd(file: BinaryIO, frames: int, name: str) -> None:
    """Cut an OpenMM DCD file to its first `frames` frames, in place.

    Raises:
        DataFileError: it is no DCD file of OpenMM's, or holds fewer frames.
    """
    header = file.read(276)
    if len(header) < 276 or header[4:8] != b"CORD":
        raise DataFileError(f"{name}: expected a DCD trajectory of this run, found something else; resume cannot continue it")
    first, interval = struct.unpack("<2i", header[12:20])
    has_box = struct.unpack("<i", header[48:52])[0]
    n_atoms = struct.unpack("<i", header[268:272])[0]
    frame_size = 3 * (4 * n_atoms + 8) + (56 if has_box else 0)
    held = (file.seek(0, os.SEEK_END) - 276) // frame_size
    if held < frames:
        raise DataFileError(
            f"{name}: expected at least the {frames} frames up to the checkpoint, found {held}; "
            "put the whole file back, or start again in another folder"
        )
    file.truncate(276 + frames * frame_size)
    file.seek(8)
    file.write(struct.pack("<i", frames))
    file.seek(20)
    file.write(struct.pack("<i", first + (frames - 1) * interval if frames else 0))

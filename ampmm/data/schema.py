"""The HDF5 schema of frames, version 2: every field with its shape, type and unit. See docs/data_schema.md."""

import json
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from ampmm.errors import InputError

FORMAT: Final = "ampmm-frames"
SCHEMA_VERSION: Final = 2
READABLE_VERSIONS: Final = (1, 2)  # files of version 1 have no "round" and no "driver", see `ampmm.data.reading`
TEXT: Final = "S"  # fields of this dtype hold UTF-8
BOUNDARIES: Final = ("droplet", "periodic")


class Field(NamedTuple):
    """One dataset of the file. Axes: F frames, N QM atoms, M all frames' MM charges one after another."""

    name: str
    axes: tuple[str | int, ...]
    dtype: str
    unit: str
    kind: str  # "always", "periodic" (boundary is periodic) or "label" (all of them or none)


FIELDS: Final = (
    Field("numbers", ("N",), "int64", "1", "always"),
    Field("positions_qm", ("F", "N", 3), "float64", "Å", "always"),
    Field("mm_offsets", ("F+1",), "int64", "1", "always"),
    Field("positions_mm", ("M", 3), "float32", "Å", "always"),
    Field("charges_mm", ("M",), "float32", "e", "always"),
    Field("time", ("F",), "float64", "ps", "always"),
    Field("temperature", ("F",), "float64", "K", "always"),
    Field("trajectory", ("F",), "int32", "1", "always"),
    Field("source_index", ("F",), "int64", "1", "always"),
    Field("round", ("F",), "int32", "1", "always"),
    Field("driver", ("F",), "S96", "1", "always"),
    Field("box", ("F", 3, 3), "float64", "Å", "periodic"),
    Field("energy", ("F",), "float64", "kJ/mol", "label"),
    Field("forces_qm", ("F", "N", 3), "float64", "kJ/mol/Å", "label"),
    Field("forces_mm", ("M", 3), "float32", "kJ/mol/Å", "label"),
    Field("charges_qm", ("F", "N"), "float64", "e", "label"),
    Field("dipole", ("F", 3), "float64", "e·Å", "label"),
)
NEW_IN_VERSION_2: Final = ("round", "driver")


@dataclass(frozen=True)
class Header:
    """What holds for every frame of a file: its root attributes.

    Fields:
        system: name of the system, e.g. ``"uracil"``.
        qm_charge: net charge of the QM region, e.
        level_of_theory: of the labels; ``""`` where there are none.
        level_settings: every setting and version that the labels depend on.
        mm_region: which MM atoms are stored, in words.
        boundary: ``"droplet"`` or ``"periodic"``.
        command: what made the file.
        sampling: how the frames were made (driver, time step, masses, …).
    """

    system: str
    qm_charge: int
    mm_region: str
    boundary: str
    level_of_theory: str = ""
    level_settings: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    command: str = ""

    def __post_init__(self) -> None:
        if self.boundary not in BOUNDARIES:
            raise InputError(f"boundary: expected one of {', '.join(BOUNDARIES)}, got {self.boundary!r}")

    @property
    def labelled(self) -> bool:
        """Whether the frames carry labels."""
        return bool(self.level_of_theory)

    def trajectories(self) -> list[dict[str, Any]]:
        """How each of the file's trajectories was made: `sampling` itself, or the list that a file of several holds."""
        if "trajectories" in self.sampling:
            return list(self.sampling["trajectories"])
        return [{**self.sampling, "command": self.command}] if self.sampling else []


class Record(NamedTuple):
    """One frame on its way into a file; fields as in `FIELDS`, labels None where there are none."""

    positions_qm: np.ndarray  # (N, 3) Å
    positions_mm: np.ndarray  # (M, 3) Å
    charges_mm: np.ndarray  # (M,) e
    time: float  # ps
    temperature: float  # K
    trajectory: int
    source_index: int
    round: int = 0  # of learning: 0 before any model, then 1, 2, …
    driver: str = ""  # what moved the QM region
    box: np.ndarray | None = None  # (3, 3) Å
    energy: float | None = None  # kJ/mol
    forces_qm: np.ndarray | None = None  # (N, 3) kJ/mol/Å
    forces_mm: np.ndarray | None = None  # (M, 3) kJ/mol/Å
    charges_qm: np.ndarray | None = None  # (N,) e
    dipole: np.ndarray | None = None  # (3,) e·Å


class FrameSet(NamedTuple):
    """All frames of a file, in memory. Å, kJ/mol, e, ps, K; labels None when the file has none."""

    header: Header
    numbers: np.ndarray  # (N,) int64
    positions_qm: np.ndarray  # (F, N, 3) float64 Å
    mm_offsets: np.ndarray  # (F+1,) int64; frame f owns rows mm_offsets[f]:mm_offsets[f+1] of the MM arrays
    positions_mm: np.ndarray  # (M, 3) float32 Å
    charges_mm: np.ndarray  # (M,) float32 e
    time: np.ndarray  # (F,) float64 ps
    temperature: np.ndarray  # (F,) float64 K
    trajectory: np.ndarray  # (F,) int32
    source_index: np.ndarray  # (F,) int64
    round: np.ndarray | None = None  # (F,) int32; None is round 0
    driver: np.ndarray | None = None  # (F,) text; None is unknown
    box: np.ndarray | None = None  # (F, 3, 3) float64 Å
    energy: np.ndarray | None = None  # (F,) float64 kJ/mol
    forces_qm: np.ndarray | None = None  # (F, N, 3) float64 kJ/mol/Å
    forces_mm: np.ndarray | None = None  # (M, 3) float32 kJ/mol/Å
    charges_qm: np.ndarray | None = None  # (F, N) float64 e
    dipole: np.ndarray | None = None  # (F, 3) float64 e·Å

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.time)

    @property
    def qm_charge(self) -> int:
        """Net charge of the QM region, e."""
        return self.header.qm_charge

    def record(self, index: int) -> Record:
        """One frame, with its own part of the MM arrays."""
        mm = slice(int(self.mm_offsets[index]), int(self.mm_offsets[index + 1]))
        values = {name: _part(name, getattr(self, name), index, mm) for name in Record._fields}
        defaults = {name: Record._field_defaults[name] for name in NEW_IN_VERSION_2 if values[name] is None}
        return Record(**{**values, **defaults})


PER_CHARGE = ("positions_mm", "charges_mm", "forces_mm")  # rows of a FrameSet's MM charges, the others' are of frames


def _part(name: str, array: np.ndarray | None, index: int, mm: slice):
    if array is None:
        return None
    if name in PER_CHARGE:
        return array[mm]
    return array[index]


class Failure(NamedTuple):
    """A frame that could not be labelled, and is therefore not in the file."""

    trajectory: int
    source_index: int
    reason: str


def fields_of(header: Header, version: int = SCHEMA_VERSION) -> tuple[Field, ...]:
    """The fields that a file with this header must hold."""
    return tuple(
        each
        for each in FIELDS
        if (each.kind == "always" and (version >= 2 or each.name not in NEW_IN_VERSION_2))
        or (each.kind == "periodic" and header.boundary == "periodic")
        or (each.kind == "label" and header.labelled)
    )


def units_json() -> str:
    """The units of every field, as stored in the root attribute ``units``."""
    return json.dumps({each.name: each.unit for each in FIELDS}, ensure_ascii=False)

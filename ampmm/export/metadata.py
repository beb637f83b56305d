"""The card of a model: what a `.pt` file says about itself, as JSON inside the archive."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Self

from ampmm.elements import SYMBOLS
from ampmm.errors import ModelFileError

FORMAT_VERSION: Final = 1
UNITS: Final = {"length": "Å", "energy": "kJ/mol", "force": "kJ/mol/Å", "charge": "e", "dipole": "e·Å"}

_CUTOFFS: Final = ({"qm", "polarization"}, {"qm", "polarization", "long_range", "coulomb"})


def unlike(one: Mapping[str, Any], other: Mapping[str, Any], *, apart: Sequence[str] = ("version",)) -> list[str]:
    """Names of settings that two levels of theory, labellers or files do not share; those in `apart` do not count."""
    return [name for name in sorted({*one, *other} - {*apart}) if one.get(name) != other.get(name)]


def learned_from(parent: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Fingerprints of the files that a model's parent and those before it were trained on, each with what is known of it.

    That is the number of "frames", which older files lack, and the split; without one it was all of the file, or is not known.

    Args:
        parent: what a card's `training` or a checkpoint says of it.
    """
    stored = parent.get("learned_from")
    return dict(stored) if stored is not None else joined_fingerprints(parent.get("fingerprint") or "")


def joined_fingerprints(text: str) -> dict[str, dict[str, Any]]:
    """A checkpoint's fingerprint, of data+extra+…-differences, as `learned_from` returns them."""
    return {each: {} for each in text.split("-")[0].split("+") if each}


@dataclass(frozen=True)
class Card:
    """What a user has to know before trusting a model.

    Fields:
        name: of the model, e.g. ``"uracil"``.
        architecture, variant, hyperparameters: what `ampmm.models.build_model` needs, and the variant's usual name.
        elements: atomic numbers the model knows.
        composition: atomic numbers of the QM region it was trained on, in order; empty if it was trained on several.
        qm_charge: net charge of the QM region it was trained on, e; None for a model that takes any.
        cutoffs: {"qm": Å, "polarization": Å}; models of atomic multipoles also have "long_range" for QM–QM pairs, and
            "coulomb" for the QM–MM reaction field they were trained with.
        level_of_theory, level_settings: of the reference labels.
        base: of a Δ-model, what its energies and forces are to be added to: "level_of_theory" and "level_settings" of a
            cheaper method. Empty for all others.
        data: description of the frames and of the split.
        training: settings, steps, minutes, device.
        errors: {part: {quantity: {"mae", "rmse", "max"}}} in kJ/mol and kJ/mol/Å.
        bounds: what the QM region looked like in training; dynamics outside of it stops.
        command: what made the file.
    """

    name: str
    architecture: str
    variant: str
    hyperparameters: dict[str, Any]
    elements: tuple[int, ...]
    qm_charge: int | None
    cutoffs: dict[str, float]
    level_of_theory: str
    composition: tuple[int, ...] = ()
    level_settings: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Any] = field(default_factory=dict)
    bounds: dict[str, Any] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=lambda: dict(UNITS))
    license: str = ""
    citation: str = ""
    command: str = ""
    ampmm_version: str = ""
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """As stored in the archive."""
        values = asdict(self)
        if not self.base:
            del values["base"]  # an ampmm that knows no Δ-models reads all others, and refuses these
        return json.dumps(values, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str, source: str) -> Self:
        """Read and check; `source` names the file in errors."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ModelFileError(f"{source}: its card is no JSON ({error}); the file is damaged") from None
        version = values.get("format_version") if isinstance(values, dict) else None
        if version != FORMAT_VERSION:
            raise ModelFileError(
                f"{source}: its card has format version {version!r}, this ampmm reads {FORMAT_VERSION}; "
                "use the ampmm version that wrote it, or export the model again"
            )
        known = {each.name for each in fields(cls)}
        unknown, missing = sorted(set(values) - known), sorted(cls._required() - set(values))
        if unknown or missing:
            raise ModelFileError(f"{source}: its card has unknown fields {unknown} and lacks {missing}")
        if values.get("units") != UNITS:
            raise ModelFileError(f"{source}: expected the units {UNITS}, got {values.get('units')}")
        for name in ("elements", "composition"):
            if not _is_atomic_numbers(values[name]) or (name == "elements" and not values[name]):
                raise ModelFileError(f"{source}: expected {name} as a list of atomic numbers, got {values[name]!r}")
            values[name] = tuple(values[name])
        unknown_elements = sorted(set(values["composition"]) - set(values["elements"]))
        if unknown_elements:
            raise ModelFileError(f"{source}: its composition has elements {unknown_elements} that the model does not know")
        if not isinstance(values["qm_charge"], int | None):
            raise ModelFileError(f"{source}: expected qm_charge as a whole number or null, got {values['qm_charge']!r}")
        base = values.get("base", {})
        if base and not (isinstance(base, dict) and isinstance(base.get("level_of_theory"), str)):
            raise ModelFileError(f"{source}: expected base with a level_of_theory, or none, got {base!r}")
        cutoffs = values["cutoffs"]
        if not isinstance(cutoffs, dict) or set(cutoffs) not in _CUTOFFS or not all(map(_is_number, cutoffs.values())):
            raise ModelFileError(
                f"{source}: expected cutoffs qm and polarization in Å, for models of multipoles also long_range and coulomb, "
                f"got {cutoffs!r}"
            )
        return cls(**values)

    @staticmethod
    def _required() -> set[str]:
        return {"name", "architecture", "variant", "hyperparameters", "elements", "qm_charge", "cutoffs",
                "level_of_theory", "units", "composition"}  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _is_atomic_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(number, int) and 0 < number < len(SYMBOLS) for number in values)

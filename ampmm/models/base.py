"""What every model is: a function of (QM frame, MM point charges) that returns energy terms."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from ampmm.elements import symbol
from ampmm.errors import InputError, unknown_name
from ampmm.types import Energies, Frame, PointCharges


class Hyperparameters:
    """Base of the frozen dataclasses that hold a model's hyperparameters; unknown names are rejected by name."""

    elements: tuple[int, ...]  # atomic numbers the model knows

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from a mapping as stored in a `.pt` file or a YAML configuration."""
        known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise InputError(f"hyperparameters: {unknown_name(f'name of {cls.__name__}', unknown[0], known)}")
        missing = [name for name, f in known.items() if name not in values and f.default is MISSING]
        if missing:
            raise InputError(f"hyperparameters: {cls.__name__} needs {', '.join(missing)}")
        for name, value in values.items():
            if name != "elements":
                _check_type(name, value, known[name].type)
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON can hold them."""
        return asdict(self)  # type: ignore[call-overload]


def _check_type(name: str, value: Any, expected: Any) -> None:
    accepted = (int, float) if expected is float else expected
    if isinstance(value, accepted) and (expected is bool or not isinstance(value, bool)):
        return
    words = {bool: "true or false", str: "text", float: "a number", int: "a whole number"}
    hint = "; YAML reads 1e-3 as text, write 1.0e-3" if expected is float and isinstance(value, str) else ""
    raise InputError(f"hyperparameters: {name}: expected {words.get(expected, 'a whole number or null')}, got {value!r}{hint}")


class Model(nn.Module, ABC):
    """A model with QM–QM graph `cutoff` and QM–MM `polarization_cutoff` (Å; 0 when it has no such pairs)."""

    architecture: str
    cutoff: float
    polarization_cutoff: float
    long_range_cutoff: float = 0.0  # Å; models that have it take the QM–QM pairs within it as a third input
    element_energies: Tensor  # (n_elements,) kJ/mol, in the order of the hyperparameter `elements`
    __jit_unused_properties__ = ("cutoffs", "hyperparameters")

    @property
    @abstractmethod
    def hyperparameters(self) -> Hyperparameters:
        """The values it was built from."""

    @property
    def cutoffs(self) -> dict[str, float]:
        """All cutoffs by name, Å, as a card stores them."""
        return {"qm": self.cutoff, "polarization": self.polarization_cutoff}

    def set_element_energies(self, energies: Mapping[int, float]) -> None:
        """Set the constant energy of each element (atomic number to kJ/mol)."""
        elements = self.hyperparameters.elements
        if set(energies) != set(elements):
            raise InputError(f"energies: expected the elements {sorted(elements)}, got {sorted(energies)}")
        self.element_energies.copy_(torch.tensor([energies[number] for number in elements]))

    @abstractmethod
    def forward(self, frame: Frame, surroundings: PointCharges) -> Energies:
        """Energies of B frames, kJ/mol."""


class ElementSlots(nn.Module):
    """Maps atomic numbers to consecutive slots, for one-hot features and per-element values."""

    def __init__(self, elements: tuple[int, ...]) -> None:
        super().__init__()
        self.n_slots = len(elements)
        for number in elements:
            symbol(number)  # rejects what is no element
        if len(set(elements)) != len(elements) or not elements:
            raise InputError(f"elements: expected distinct atomic numbers, got {list(elements)}")
        slots = torch.full((max(elements) + 1,), -1)
        slots[list(elements)] = torch.arange(len(elements))
        self.register_buffer("slots", slots, persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        """(N,) atomic numbers to (N,) slots."""
        return self.slots[numbers]

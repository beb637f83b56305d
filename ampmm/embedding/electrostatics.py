"""How QM atoms and MM charges feel each other, and which cutoffs a box has room for."""

from typing import Final

import openmm
import torch
from openmm import unit

from ampmm.errors import InputError
from ampmm.export import LoadedModel, checked_cutoff
from ampmm.geometry.cell import largest_cutoff
from ampmm.physics.coulomb import ELECTROSTATICS

BAROSTAT_ROOM: Final = 0.05  # of a box's edge, by which a barostat may shrink it


def choose_electrostatics(
    system: openmm.System, model: LoadedModel, name: str, cutoff: float | None
) -> tuple[str, float | None]:
    """The electrostatics of a name and its cutoff, Å, which bare Coulomb has not; the arguments of `create_mixed_system`.

    Raises:
        InputError: an unknown name, or one that does not fit the System or the cutoff.
    """
    periodic = system.usesPeriodicBoundaryConditions()
    if name == "auto":
        name = "reaction-field" if periodic else "bare"
    if name not in ELECTROSTATICS:
        raise InputError(f'electrostatics: expected "auto", {", ".join(map(repr, ELECTROSTATICS))}, got {name!r}')
    if name == "bare":
        if periodic:
            raise InputError(
                'electrostatics: "bare" Coulomb jumps when the nearest image of a charge changes, and the System has '
                'periodic boundaries; use "reaction-field"'
            )
        if cutoff is not None:
            raise InputError(
                'coulomb_cutoff: "bare" Coulomb has no cutoff; leave it out or choose electrostatics="reaction-field"'
            )
        return name, None
    if cutoff is None:
        return name, model.default_coulomb_cutoff(longest_cutoff(system, has_barostat(system)) if periodic else float("inf"))
    return name, checked_cutoff(cutoff)


def check_cutoffs(system: openmm.System, cutoffs: dict[str, float | None]) -> None:
    """Raise `InputError` for a named cutoff, Å, of over half the System's box."""
    largest = _half_box(system)
    for name, cutoff in cutoffs.items():
        if cutoff is not None and cutoff > largest:
            raise InputError(
                f"{name}: expected at most half the box, {largest:.2f} Å (half the smallest diagonal element of the "
                f"box vectors), got {cutoff:.2f} Å; use a larger box or a smaller cutoff"
            )


def has_barostat(system: openmm.System) -> bool:
    """Whether one of OpenMM's barostats is among the forces."""
    return any("Barostat" in type(force).__name__ for force in system.getForces())


def longest_cutoff(system: openmm.System, with_barostat: bool) -> float:
    """Of a default cutoff in the System's box, Å: half of it, or less where a barostat may shrink it."""
    return (1.0 - BAROSTAT_ROOM if with_barostat else 1.0) * _half_box(system)


def _half_box(system: openmm.System) -> float:
    vectors = system.getDefaultPeriodicBoxVectors()
    values = [list(vector.value_in_unit(unit.angstrom)) for vector in vectors]
    return largest_cutoff(torch.tensor(values, dtype=torch.float64))

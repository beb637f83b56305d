"""Distance restraints: two molecules of one QM region that stay together, or a distance held where frames are wanted.

Read, checked and applied here alone, so that sampled frames and simulations feel the same.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import openmm
from openmm import app

from ampmm.errors import InputError, unknown_name

RESTRAINTS_NAME: Final = "DistanceRestraints"
LONGEST: Final = 3.0  # nm; a distance beyond it was given in Å


class Restraint(NamedTuple):
    """½ k (r − upper)² where two atoms are farther apart than `upper`, ½ k (lower − r)² where they are nearer than `lower`.

    With `lower` equal to `upper` it is a harmonic umbrella.
    """

    atoms: tuple[int, int]  # indices in the topology, from 0
    lower: float  # nm; 0 is none
    upper: float  # nm; inf is none
    force_constant: float  # kJ/mol/nm²

    def as_entry(self) -> dict[str, Any]:
        """As in a system.yaml, and in the header of a file of frames."""
        ends = {"lower": self.lower} if self.lower > 0 else {}
        ends |= {"upper": self.upper} if self.upper < float("inf") else {}
        return {"distance": list(self.atoms), **ends, "force_constant": self.force_constant}

    def describe(self, topology: app.Topology | None = None) -> str:
        """In words, with the atoms' names where there is a topology."""
        names = [str(index) for index in self.atoms]
        if topology is not None:
            atoms = list(topology.atoms())
            names = [f"{atoms[index].residue.name}:{atoms[index].name}" for index in self.atoms]
        if self.lower == self.upper:
            where = f"at {self.lower:g} nm"
        else:
            ends = [f"above {self.lower:g} nm"] * (self.lower > 0) + [f"below {self.upper:g} nm"] * (self.upper < float("inf"))
            where = " and ".join(ends)
        return f"distance {names[0]}–{names[1]} {where}, {self.force_constant:g} kJ/mol/nm²"


def umbrella(first: int, second: int, distance: float, force_constant: float) -> Restraint:
    """½ k (r − distance)² on the distance of two atoms, nm and kJ/mol/nm².

    Raises:
        InputError: as in `restraint`.
    """
    return restraint((first, second), distance, distance, force_constant, "restrain")


def restraint(atoms: Sequence[Any], lower: Any, upper: Any, force_constant: Any, where: str) -> Restraint:
    """A checked restraint; `where` begins the error messages.

    Raises:
        InputError: not two different atoms, a number that is none or is not positive, or lower above upper.
    """
    whole = all(isinstance(index, int) and not isinstance(index, bool) and index >= 0 for index in atoms)
    if len(atoms) != 2 or not whole or atoms[0] == atoms[1]:
        raise InputError(f"{where}: distance: expected the indices of two atoms, from 0, got {list(atoms)}")
    numbers = {"lower": lower, "upper": upper, "force_constant": force_constant}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise InputError(f"{where}: {name}: expected a positive number, got {value!r}")
    if not 0 < force_constant < float("inf"):
        raise InputError(f"{where}: force_constant: expected a positive number of kJ/mol/nm², got {force_constant!r}")
    if not upper > 0 or not lower <= upper or lower == float("inf"):
        raise InputError(f"{where}: expected 0 ≤ lower ≤ upper, nm, with upper above 0, got lower {lower} and upper {upper}")
    longest = max(lower, upper if upper < float("inf") else 0.0)
    if longest > LONGEST:
        raise InputError(f"{where}: expected a distance in nm, {LONGEST:g} at most, got {longest:g}; is this in Å?")
    return Restraint((atoms[0], atoms[1]), float(lower), float(upper), float(force_constant))


def read_restraints(content: Any, where: str) -> tuple[Restraint, ...]:
    """The entry `restraints` of a system.yaml: a list of mappings with distance, upper or lower or both, force_constant.

    Args:
        content: the entry as YAML gives it; None is an empty list.
        where: begins the error messages.

    Raises:
        InputError: another structure, an unknown name, or see `restraint`.
    """
    if content is None:
        return ()
    if not isinstance(content, list):
        raise InputError(f"{where}: restraints: expected a list, got {type(content).__name__}")
    return tuple(_read(entry, f"{where}: restraints: entry {place}") for place, entry in enumerate(content, start=1))


def _read(entry: Any, where: str) -> Restraint:
    known = {"distance", "lower", "upper", "force_constant"}
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected names among {', '.join(sorted(known))}, got {entry!r}")
    for name in sorted(set(entry) - known, key=str):
        raise InputError(f"{where}: {unknown_name('entry', name, sorted(known))}")
    if "distance" not in entry or "force_constant" not in entry or not {"lower", "upper"} & set(entry):
        raise InputError(f"{where}: expected distance, force_constant, and upper or lower, got {', '.join(entry) or 'nothing'}")
    if not isinstance(entry["distance"], list):
        raise InputError(f"{where}: distance: expected the indices of two atoms, from 0, got {entry['distance']!r}")
    upper = entry.get("upper", float("inf"))
    return restraint(entry["distance"], entry.get("lower", 0.0), upper, entry["force_constant"], where)


def check_atoms(restraints: Sequence[Restraint], n_atoms: int) -> None:
    """Raise `InputError` for a restraint on an atom that a topology of `n_atoms` does not have."""
    for each in restraints:
        if max(each.atoms) >= n_atoms:
            raise InputError(
                f"restraints: expected atoms below {n_atoms}, got {list(each.atoms)}; atoms are counted from 0 in the topology"
            )


def add_restraints(system: openmm.System, restraints: Sequence[Restraint]) -> int | None:
    """Add all restraints to `system` as one force, in place; nearest images where the System is periodic.

    Returns:
        The force's index; None where there are no restraints.

    Raises:
        InputError: an atom that the System does not have.
    """
    if not restraints:
        return None
    check_atoms(restraints, system.getNumParticles())
    force = openmm.CustomBondForce("0.5*restraint_k*(max(0, r-upper)^2 + max(0, lower-r)^2)")
    force.setName(RESTRAINTS_NAME)
    force.setUsesPeriodicBoundaryConditions(system.usesPeriodicBoundaryConditions())
    for name in ("lower", "upper", "restraint_k"):
        force.addPerBondParameter(name)
    for each in restraints:
        force.addBond(*each.atoms, [each.lower, min(each.upper, 1e6), each.force_constant])
    return system.addForce(force)

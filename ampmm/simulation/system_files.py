"""System folders: what `systems/<name>/system.yaml` says and where the folder is."""

import hashlib
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from ampmm.errors import InputError, unknown_name
from ampmm.simulation.restraints import Restraint, read_restraints

SYSTEM_FILE: Final = "system.yaml"


class DropletSettings(NamedTuple):
    """The droplet's restraints."""

    wall_radius: float  # nm
    wall_force_constant: float  # kJ/mol/nm²
    center_force_constant: float  # kJ/mol/nm²


_FILES: Final = ("topology", "coordinates")
_FORM_ENTRIES: Final = {"box": _FILES, "droplet": (*_FILES, *DropletSettings._fields)}
# `smiles` is for readers.
_ENTRIES: Final = ("name", "smiles", "qm_atoms", "qm_charge", "model", "restraints", *_FORM_ENTRIES)


class SystemFiles(NamedTuple):
    """One form (box or droplet) of a system folder."""

    name: str
    topology: Path
    coordinates: Path
    qm_atoms: Any  # residue name, MDTraj selection or list of indices
    qm_charge: int | None  # None: the rounded sum of the classical charges
    model: str  # the model the system is meant for; "" if none
    droplet: DropletSettings | None  # None for a periodic box
    restraints: tuple[Restraint, ...] = ()

    @property
    def digest(self) -> str:
        """The first digits of a SHA-256 of what decides the forces; the coordinates are a beginning only."""
        said = repr((self.qm_atoms, self.qm_charge, self.droplet, self.restraints)).encode()
        return hashlib.sha256(said + self.topology.read_bytes()).hexdigest()[:8]


def known_systems(start: Path | None = None) -> dict[str, Path]:
    """Names and folders of the systems found: in `systems/` here, above here, and beside the package."""
    here = (start or Path.cwd()).resolve()
    found: dict[str, Path] = {}
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        for file in sorted(folder.glob(f"systems/*/{SYSTEM_FILE}")):
            found.setdefault(file.parent.name, file.parent)
    return found


def find_system(system: str) -> Path:
    """The folder of a system given by name or by path.

    Raises:
        InputError: there is none; the known names are listed.
    """
    path = Path(system)
    if path.name == SYSTEM_FILE and path.is_file():
        return path.parent
    if (path / SYSTEM_FILE).is_file():
        return path
    known = known_systems()
    if system not in known:
        raise InputError(
            f"system: expected a folder with a {SYSTEM_FILE} or one of: {', '.join(sorted(known)) or 'none found here'}; "
            f"got {system!r}"
        )
    return known[system]


def read_system(system: str, form: str) -> SystemFiles:
    """What a system folder says about its box or its droplet.

    Raises:
        InputError: no such system, form or file, or an entry is missing or of the wrong kind.
    """
    path = find_system(system) / SYSTEM_FILE
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected names and values, got {type(content).__name__}")
    _check_names(content, _ENTRIES, path)
    entry = content.get(form)
    if isinstance(entry, dict):
        _check_names(entry, _FORM_ENTRIES[form], path, f"{form}: ")
    else:
        raise InputError(f"form: {path} describes no {form!r}; add its topology and coordinates, or choose another form")
    files = [path.parent / str(_entry(entry, name, path, form)) for name in _FILES]
    for file in files:
        if not file.is_file():
            raise InputError(f"{path}: {form}: file not found: {file}")
    droplet = None
    if form == "droplet":
        droplet = DropletSettings(*(_number(entry, name, path, form) for name in DropletSettings._fields))
    return SystemFiles(
        name=str(content.get("name", path.parent.name)),
        topology=files[0],
        coordinates=files[1],
        qm_atoms=_entry(content, "qm_atoms", path),
        qm_charge=_whole(content, "qm_charge", path),
        model=str(content.get("model", "")),
        droplet=droplet,
        restraints=read_restraints(content.get("restraints"), str(path)),
    )


def _check_names(content: dict, known: tuple[str, ...], path: Path, where: str = "") -> None:
    for name in content:
        if name not in known:
            raise InputError(f"{path}: {where}{unknown_name('entry', name, known)}")


def _entry(content: dict, name: str, path: Path, where: str = "") -> Any:
    if name not in content:
        raise InputError(f"{path}: {where + ': ' if where else ''}expected an entry {name!r}, found none")
    return content[name]


def _whole(content: dict, name: str, path: Path) -> int:
    value = _number(content, name, path)
    if not value.is_integer():
        raise InputError(f"{path}: {name}: expected a whole number, got {value!r}")
    return int(value)


def _number(content: dict, name: str, path: Path, where: str = "") -> float:
    value = _entry(content, name, path, where)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{path}: {name}: expected a number, got {value!r}")
    return float(value)

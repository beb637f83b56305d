"""Topologies, coordinates and force fields from Amber, GROMACS, CHARMM and PDB files.

Amber, GROMACS and CHARMM files are read by ParmEd; PDB and PDBx/mmCIF files by OpenMM, with force-field XML files.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import openmm
import parmed
from openmm import app, unit

from ampmm.errors import InputError

_AMBER: Final = (".prmtop", ".parm7", ".top7")
_GROMACS: Final = (".top",)
_CHARMM: Final = (".psf",)
_PDB: Final = (".pdb", ".cif", ".pdbx")
_PERIODIC: Final = (app.PME, app.LJPME, app.Ewald, app.CutoffPeriodic)


class LoadedStructure(NamedTuple):
    """What files say about a system, in OpenMM's own classes."""

    topology: app.Topology
    positions: unit.Quantity  # (n_atoms, 3) nm
    box_vectors: unit.Quantity | None  # (3, 3) nm, reduced; None without a periodic box
    create_system: Callable[..., openmm.System]  # takes the options of OpenMM's createSystem, e.g. nonbondedMethod=PME


def load_structure(
    topology_file: str | Path, coordinates_file: str | Path | None = None, parameters: Sequence[str | Path] = ()
) -> LoadedStructure:
    """Read a system from files; the kind is told by the ending of `topology_file`.

    Args:
        topology_file: Amber ``.prmtop``/``.parm7``, GROMACS ``.top``, CHARMM ``.psf``, or ``.pdb``/``.cif``. A ``.top``
            that holds an Amber topology is read as such.
        coordinates_file: ``.inpcrd``/``.rst7``, ``.gro``, ``.crd``, ``.pdb`` …; may be left out for ``.pdb``/``.cif``.
        parameters: CHARMM ``.prm``/``.rtf``/``.str`` files, or OpenMM force-field XML files (names that OpenMM knows,
            such as ``"amber14-all.xml"``, too); none for Amber and GROMACS.

    Raises:
        InputError: a file is missing or cannot be read, is of an unknown kind, or the atom counts differ; the message
            names the file.
    """
    parameters = [parameters] if isinstance(parameters, (str, Path)) else parameters
    topology_path = _existing("topology_file", topology_file)
    kind = _kind(topology_path)
    if coordinates_file is None and kind != "pdb":
        raise InputError(f"coordinates_file: expected the coordinates for {topology_path}, got none; name their file")
    coordinates = topology_path if coordinates_file is None else _existing("coordinates_file", coordinates_file)
    if kind in ("amber", "gromacs") and parameters:
        raise InputError(
            f"parameters: expected none for {topology_path}, whose topology holds them, got {list(map(str, parameters))}"
        )
    if kind == "pdb":
        return _from_pdb(topology_path, coordinates, parameters)
    if kind == "charmm":
        return _from_charmm(topology_path, coordinates, parameters)
    reader = parmed.amber.LoadParm if kind == "amber" else parmed.gromacs.GromacsTopologyFile
    with _naming("topology_file", topology_path):
        structure = reader(str(topology_path))
    return _from_parmed(structure, topology_path, coordinates, structure.createSystem)


def _from_charmm(topology: Path, coordinates: Path, parameters: Sequence[str | Path]) -> LoadedStructure:
    if not parameters:
        raise InputError(f"parameters: expected CHARMM parameter files for {topology}, got none; name .prm/.rtf/.str")
    paths = [_existing("parameters", path) for path in parameters]
    with _naming("parameters", ", ".join(map(str, paths))):
        parameter_set = parmed.charmm.CharmmParameterSet(*map(str, paths))
    with _naming("topology_file", topology):
        structure = parmed.charmm.CharmmPsfFile(str(topology))
        structure.load_parameters(parameter_set)

    def create_system(**options: object) -> openmm.System:
        return structure.createSystem(parameter_set, **options)

    return _from_parmed(structure, topology, coordinates, create_system)


def _from_parmed(
    structure: parmed.Structure, topology: Path, coordinates: Path, create_system: Callable[..., openmm.System]
) -> LoadedStructure:
    with _naming("coordinates_file", coordinates):
        loaded = parmed.load_file(str(coordinates))
        positions = np.asarray(getattr(loaded, "coordinates", None), dtype=float)
    if positions.ndim not in (2, 3):
        raise InputError(f"coordinates_file: expected a file of coordinates, got {coordinates} without any")
    positions = positions[0] if positions.ndim == 3 else positions  # trajectory-like files come as frames
    _check_counts(topology, len(structure.atoms), coordinates, len(positions))
    box = getattr(loaded, "box", None)
    structure.coordinates = positions
    if box is not None:
        box = np.asarray(box, dtype=float).reshape(-1)[:6]
        structure.box = box if box[:3].min() > 0.0 else None  # GROMACS writes zeros where there is no box
    vectors = structure.box_vectors

    def create(**options: object) -> openmm.System:
        if vectors is None and options.get("nonbondedMethod") in _PERIODIC:
            raise InputError(
                f"coordinates_file: expected one with a periodic box, got {coordinates} without; give a file with a box, or "
                "make a droplet's System with nonbondedMethod=NoCutoff"
            )
        with _naming("topology_file", topology):  # ParmEd says what is missing
            return create_system(**options)

    return LoadedStructure(_with_box(structure.topology, vectors), _in_nm(positions * 0.1), _reduced(vectors), create)


def _from_pdb(topology: Path, coordinates: Path, parameters: Sequence[str | Path]) -> LoadedStructure:
    if not parameters:
        raise InputError(
            f"parameters: expected OpenMM force-field XML files for {topology}, got none; "
            'for example ["amber14-all.xml", "amber14/tip3p.xml"]'
        )
    with _naming("parameters", ", ".join(map(str, parameters))):
        force_field = app.ForceField(*map(str, parameters))
    with _naming("topology_file", topology):
        file = _pdb_reader(topology)(str(topology))
    positions_file = file
    if coordinates != topology:
        with _naming("coordinates_file", coordinates):
            positions_file = _pdb_reader(coordinates)(str(coordinates))
    positions = np.asarray(positions_file.getPositions(asNumpy=True).value_in_unit(unit.nanometer), dtype=float)
    _check_counts(topology, file.topology.getNumAtoms(), coordinates, len(positions))

    def create_system(**options: object) -> openmm.System:
        with _naming("topology_file", topology):  # OpenMM says which residue has no template
            return force_field.createSystem(file.topology, **options)

    vectors = positions_file.topology.getPeriodicBoxVectors()
    topology_with_box = _with_box(file.topology, vectors)
    return LoadedStructure(topology_with_box, _in_nm(positions), _reduced(vectors), create_system)


def _pdb_reader(path: Path) -> type:
    return app.PDBFile if path.suffix.lower() == ".pdb" else app.PDBxFile


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in _AMBER or (suffix == ".top" and path.read_bytes()[:8] == b"%VERSION"):
        return "amber"
    for kind, suffixes in (("gromacs", _GROMACS), ("charmm", _CHARMM), ("pdb", _PDB)):
        if suffix in suffixes:
            return kind
    known = ", ".join(_AMBER + _GROMACS + _CHARMM + _PDB)
    raise InputError(f"topology_file: expected one of {known}, got {path}; convert it, or rename it to its real kind")


def _existing(argument: str, file: str | Path) -> Path:
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{argument}: no such file: {path}; check the path (relative ones start at {Path.cwd()})")
    return path


@contextmanager
def _naming(argument: str, path: object) -> Iterator[None]:
    """Turn whatever a reader raises into an error that names the file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the readers raise dozens of kinds
        raise InputError(f"{argument}: cannot read {path}: {type(error).__name__}: {error}") from error


def _check_counts(topology: Path, n_topology: int, coordinates: Path, n_coordinates: int) -> None:
    if n_topology != n_coordinates:
        raise InputError(
            f"coordinates_file: expected {n_topology} atoms as in {topology}, got {n_coordinates} in {coordinates}; "
            "take both from the same system"
        )


def _with_box(topology: app.Topology, vectors: object) -> app.Topology:
    if vectors is not None:
        topology.setPeriodicBoxVectors(_reduced(vectors))
    return topology


def _reduced(vectors: object) -> unit.Quantity | None:
    if vectors is None:
        return None
    return app.internal.unitcell.reducePeriodicBoxVectors(vectors)


def _in_nm(positions: np.ndarray) -> unit.Quantity:
    return unit.Quantity(positions, unit.nanometer)

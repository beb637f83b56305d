"""Who imports whom: the floors of the architecture, and the one room of each heavy dependency."""

import ast
from pathlib import Path

import ampmm

PACKAGE = Path(ampmm.__file__).parent

FLOORS = {
    "units": 0, "elements": 0, "errors": 0, "types": 0, "memory": 0, "threads": 0, "files": 0, "interrupt": 0,
    "geometry": 1, "nn": 1,
    "physics": 2,
    "models": 3,
    "data": 4, "export": 4,
    "reference": 5, "training": 5, "evaluation": 5, "embedding": 5,
    "simulation": 6, "benchmark": 6,
    "pretrained": 0,  # holds files only
    "cli": 7,
}  # fmt: skip

# Beyond the floors: rooms that keep away from lower ones, too.
FORBIDDEN = {
    "data": {"physics", "models"},  # floors 0 and 1 only
    "embedding": {"models", "training"},  # runs .pt files
}

# Sampling drives dynamics, so it lives in simulation, not beside the labels; PyTorch and NumPy are everywhere.
# OpenMM: embedding makes Systems and simulation runs them; ParmEd and MDTraj: files in, and selections.
ROOMS_OF = {
    "openmm": {"embedding", "simulation"},
    "openmmtorch": {"embedding"},
    "parmed": {"embedding"},
    "mdtraj": {"embedding", "simulation"},
    "h5py": {"data"},
    "pyscf": {"reference"},
    "xtb": {"reference"},
    "dask": {"reference"},
    "distributed": {"reference"},
    "matplotlib": {"evaluation"},
    "click": {"cli"},
}


def room_of(path: Path) -> str:
    """The folder, or the file's own name for a file beside the rooms; "" for the package's __init__."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imports(path: Path) -> list[tuple[int, str]]:
    """Every imported module of a file: (line, dotted name), also inside functions and by `importlib.import_module("...")`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = "." * node.level + (node.module or "")
            found += [(node.lineno, package if node.level or package != "ampmm" else f"ampmm.{a.name}") for a in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            found += [(node.lineno, a.value) for a in node.args[:1] if isinstance(a, ast.Constant)]
    return found


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def complaints(path: Path) -> list[str]:
    room, out = room_of(path), []
    for line, name in imports(path):
        where = f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        top, _, rest = name.partition(".")
        if top == "":
            out.append(f"{where}: relative; write ampmm.{room}...")
        elif top == "ampmm" and room:
            other = rest.split(".")[0]
            if other == room:
                continue
            if other not in FLOORS:
                out.append(f"{where}: not a room")
            elif FLOORS[other] > FLOORS[room] or (FLOORS[other] == FLOORS[room] and FLOORS[room] > 0):
                out.append(f"{where}: floor {FLOORS[room]} may not import floor {FLOORS[other]}")
            elif other in FORBIDDEN.get(room, set()):
                out.append(f"{where}: {room} keeps away from {other}")
        elif room not in ROOMS_OF.get(top, {room}):
            out.append(f"{where}: only {', '.join(sorted(ROOMS_OF[top]))} may")
    return out


def test_every_room_has_a_floor():
    rooms = {room_of(path) for path in files()} - {""}
    assert rooms <= set(FLOORS), f"give {sorted(rooms - set(FLOORS))} a floor"


def test_no_import_goes_upwards_or_sideways():
    found = [complaint for path in files() for complaint in complaints(path)]
    assert not found, "\n" + "\n".join(found)


def test_the_walk_sees_what_is_forbidden(tmp_path, monkeypatch):
    """A test that cannot fail would be no test."""
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    cases = {
        "nn/a.py": "def f():\n    from ampmm.physics.coulomb import BareCoulomb",
        "geometry/b.py": "import ampmm.nn.scatter",
        "embedding/c.py": "from ampmm import models",
        "data/d.py": "from ampmm.physics import charges",
        "physics/e.py": "import openmm.unit",
        "export/f.py": 'import importlib\nimportlib.import_module("matplotlib.pyplot")',
        "models/g.py": "from . import base",
        "cli/h.py": "import h5py",
    }
    for name, source in cases.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
        assert len(complaints(tmp_path / name)) == 1, name
    (tmp_path / "simulation").mkdir()
    (tmp_path / "simulation" / "fine.py").write_text(
        "import openmm\nfrom ampmm import units\nfrom ampmm.embedding import add_force"
    )
    assert complaints(tmp_path / "simulation" / "fine.py") == []

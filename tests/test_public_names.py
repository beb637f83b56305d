"""What `import ampmm` offers, and that it costs nothing until used."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ampmm


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True, timeout=120).stdout


def test_every_public_name_is_there():
    for name in ampmm.__all__:
        assert getattr(ampmm, name) is not None
        assert name in dir(ampmm)
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert ampmm.__version__ == project["version"]


def test_rooms_named_in_the_docs_need_no_import_of_their_own():
    run("import ampmm; ampmm.embedding.create_preset_system, ampmm.data.FrameWriter, ampmm.reference.get_labeller")


def test_import_loads_no_heavy_package():
    loaded = run("import ampmm, ampmm.cli, sys; print(*sys.modules)").split()
    assert not {"torch", "openmm", "numpy", "h5py", "mdtraj", "parmed"} & set(loaded)


def test_shipped_models_are_listed_and_the_room_of_models_is_another_name():
    listed = run("import ampmm; print(type(ampmm.shipped_models()).__name__, ampmm.models.AMP.__name__)")
    assert listed.split() == ["tuple", "AMP"]


def test_unknown_name():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ampmm.no_such_name

"""Every example runs, at a small size, from the root of the clone; README's script is the first example."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.bms_models import WEIGHTS, write_small_bms
from support.stand_in_model import write_stand_in

from ampmm.cli.import_weights import import_file

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory) -> Path:
    return write_stand_in(tmp_path_factory.mktemp("model") / "stand_in.pt")


def run(example: str, *arguments: object, folder: Path = ROOT) -> str:
    command = [sys.executable, str(ROOT / "examples" / example), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENMM_CPU_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows(path: Path) -> list[dict[str, float]]:
    with path.open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_add_force(stand_in):
    lines = run("01_add_force.py", stand_in, 200).splitlines()
    assert lines[0] == '#"Step","Potential Energy (kJ/mole)","Temperature (K)"'
    assert [line.split(",")[0] for line in lines[1:]] == ["100", "200"]
    assert all(np.isfinite([float(value) for value in line.split(",")]).all() for line in lines[1:])


def test_uracil_md(stand_in, tmp_path):
    out = tmp_path / "md"
    text = run("02_uracil_md.py", "--model", stand_in, "--steps", 20, "--interval", 10, "--iterations", 3, "--output", out)
    assert text.splitlines()[-1] == f"trajectory: {out / 'trajectory.dcd'}"
    assert len(rows(out / "state.csv")) == 2 and (out / "trajectory.dcd").stat().st_size > 0
    terms = rows(out / "ml.csv")
    assert [row["time_ps"] for row in terms] == pytest.approx([0.005, 0.01])
    for row in terms:
        # OpenMM's force and a single evaluation are the same function of the same frame.
        assert row["force_energy_kJ_per_mol"] == pytest.approx(row["energy_kJ_per_mol"], abs=0.01)
        assert sum(value for name, value in row.items() if name.startswith("charge_")) == pytest.approx(0.0, abs=1e-3)


def test_label_train_export(tmp_path):
    pytest.importorskip("xtb", reason="its wheels are for Python 3.11")
    out = tmp_path / "chain"
    text = run("03_label_train_export.py", out, "--frames", 24, "--train-steps", 10, "--md-steps", 20)
    assert "24 frames labelled" in text and "done: 20 steps" in text
    for name in ("frames.h5", "labelled.h5", "toy.pt", "evaluation/errors.json", "md/trajectory.dcd"):
        assert (out / name).is_file(), text


@pytest.mark.parametrize("preset", ["tip3p", "tip4p-fb"])
def test_dipeptide(preset, tmp_path):
    """With random weights, two steps without minimisation; with the published ones, if at hand, the temperature stays sane."""
    model, steps, iterations = write_small_bms(tmp_path / "small.pt", quiet=True), 2, 0
    if WEIGHTS.is_file() and preset == "tip3p":
        model, steps, iterations = tmp_path / "amp_bms.pt", 40, 60  # fewer leave some of the random boxes strained
        import_file(WEIGHTS, model, {}, "amp-bms", "a test")
    lines = run("04_dipeptide.py", model, preset, steps, iterations).splitlines()
    assert lines[0].startswith('#"Step","Potential Energy (kJ/mole)","Temperature (K)"')
    values = np.array([line.split(",")[:3] for line in lines[1:]], dtype=float)
    assert values[-1, 0] == steps
    if steps == 40:
        assert np.isfinite(values).all() and (values[:, 2] < 450.0).all()


def test_retinoic_acid(tmp_path):
    (tmp_path / "systems").symlink_to(ROOT / "systems")  # the script writes its table where it runs
    run("06_retinoic_acid.py", "ra", 40, folder=tmp_path)
    torsions = rows(tmp_path / "retinoic_acid.csv")
    assert [row["time_ps"] for row in torsions] == pytest.approx([0.01, 0.02])
    assert all(abs(row["double_bond"]) > 140.0 for row in torsions)  # all-trans


def test_sam_cysteine():
    lines = run("07_sam_cysteine.py", "sam", 40, 3.5, 3.4).splitlines()
    assert [line.split(",")[0] for line in lines] == ["target_A", "3.50", "3.40"]
    for line in lines[1:]:
        target, mean, force = map(float, line.split(","))
        assert force == pytest.approx(2000.0 * (target - mean), abs=1.1)  # the mean is printed to 0.0005 Å
        assert abs(mean - target) < 0.5

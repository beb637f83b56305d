"""The scripts under docs/figures find what was put in."""

import importlib.util
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from support.toy_frames import BONDS, toy_frames

from ampmm.units import GAS_CONSTANT

FIGURES = Path(__file__).resolve().parents[1] / "docs" / "figures"


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, FIGURES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_drift_is_the_slope_per_degree_of_freedom():
    random = np.random.default_rng(0)
    freedom, temperature, slope = 6285, 300.0, 0.01  # kT/ns per degree of freedom
    time = np.arange(0.01, 10.0, 0.01)
    per_ps = slope * 1e-3 * freedom * GAS_CONSTANT * temperature
    kinetic = 0.5 * freedom * GAS_CONSTANT * (temperature + random.normal(scale=5.0, size=len(time)))
    state = {
        "time_ps": time,
        "total_kJ_per_mol": -1e5 + per_ps * time + random.normal(scale=0.8, size=len(time)),
        "kinetic_kJ_per_mol": kinetic,
        "temperature_K": 2.0 * kinetic / (freedom * GAS_CONSTANT),
    }
    value, error, found_freedom = script("nve_drift").drift(state)
    assert found_freedom == freedom
    assert abs(value - slope) < 4.0 * error and error < 0.2 * slope


def test_bond_lengths_of_the_same_frames_agree(tmp_path):
    frames, bonds = toy_frames(30), np.array([pair[:2] for pair in BONDS])
    topology = mdtraj.Topology()
    residue = topology.add_residue("URA", topology.add_chain())
    for name, symbol in (("O1", "O"), ("H1", "H"), ("H2", "H")):
        topology.add_atom(name, mdtraj.element.get_by_symbol(symbol), residue)
    trajectory = mdtraj.Trajectory(0.1 * frames.positions_qm, topology)
    trajectory.save_dcd(tmp_path / "trajectory.dcd")
    trajectory[0].save_pdb(tmp_path / "initial.pdb")
    rows = [f"{step},{0.1 * step},0" for step in range(30)]
    (tmp_path / "state.csv").write_text("\n".join(["step,time_ps,x", *rows]))
    bond_lengths = script("bond_lengths")
    found, names = bond_lengths.trajectory_lengths(tmp_path, "resname URA", bonds, skip_ps=0.95)
    assert names == ["O1", "H1", "H2"]
    assert found == pytest.approx(bond_lengths.reference_lengths(frames, bonds)[10:], abs=1e-5)


def test_a_run_folder_gives_the_qm_atoms_of_its_frames(tmp_path):
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain())
    for name in ("H1", "H2", "H3"):
        topology.add_atom(name, mdtraj.element.hydrogen, residue)
    positions = np.random.default_rng(0).normal(size=(4, 3, 3))
    trajectory = mdtraj.Trajectory(0.1 * positions, topology)
    trajectory.save_dcd(str(tmp_path / "trajectory.dcd"))
    trajectory[0].save_pdb(str(tmp_path / "initial.pdb"))
    found = script("distributions").positions_of([tmp_path], 300.0, [0, 1])
    assert found == pytest.approx(positions[:, :2], abs=1e-5)


def test_observed_coordinates_are_those_atoms():
    found, qm = script("distributions").observed(FIGURES.parents[1] / "systems" / "ra", ["carboxyl", "end to end"])
    assert qm == list(range(50))
    names = ["C17", "C19", "C20", "O1"]
    assert [len(atoms) for atoms in found.values()] == [4, 2]
    # C1 … C20, O1, O2, H1 … are the molecule's first atoms in this order.
    assert next(iter(found.values())) == [int(name[1:]) - 1 if name[0] == "C" else 20 for name in names]
    with pytest.raises(SystemExit, match="--show: expected part of a name"):
        script("distributions").observed(FIGURES.parents[1] / "systems" / "ra", ["no such"])


def test_coordinates_and_overlap_of_known_frames():
    distributions = script("distributions")
    angle = np.radians(70.0)
    frame = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.5], [np.cos(angle), np.sin(angle), 1.5]])
    positions = np.stack([frame, frame])
    assert distributions.values_of(positions, [0, 1]) == pytest.approx([1.0, 1.0])
    assert distributions.values_of(positions, [0, 1, 2]) == pytest.approx([90.0, 90.0], abs=1e-3)
    assert np.abs(distributions.values_of(positions, [0, 1, 2, 3])) == pytest.approx([70.0, 70.0], abs=1e-3)
    random = np.random.default_rng(0)
    one, other = random.normal(size=4000), random.normal(loc=20.0, size=4000)
    assert distributions.overlap(one, one, distributions.edges_for([0, 1], one)) == pytest.approx(1.0)
    assert distributions.overlap(one, other, distributions.edges_for([0, 1], one, other)) < 0.01
    across = np.where(one > 0.0, 170.0, -170.0)  # a torsion around 180°
    mean = float(distributions.summary(across, circular=True).split()[0])
    assert abs(abs(mean) - 180.0) < 1.0

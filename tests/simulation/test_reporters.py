"""Tables and trajectories can be cut back to an earlier step and continued without gap or repeat."""

import mdtraj
import numpy as np
import pytest
from openmm import app

from ampmm.errors import DataFileError
from ampmm.simulation.reporters import Table, Trajectory


@pytest.mark.parametrize("torn", ["", "4", "1", "15", "15,1", "2\n"])  # killed, or the disk full, in the middle of a row
def test_table_is_cut_after_the_step_and_loses_a_half_row(tmp_path, torn):
    path = tmp_path / "a.csv"
    table = Table(path, ["step", "x"])
    for step in (10, 20, 30):
        table.write([step, 0.1 * step])
    table.close()
    with path.open("a") as file:
        file.write(torn)
    table = Table(path, ["step", "x"], keep_to_step=20)
    table.write([30, 3.5])
    table.close()
    assert path.read_text().splitlines() == ["step,x", "10,1", "20,2", "30,3.5"]
    with pytest.raises(DataFileError, match="expected the columns of this run"):
        Table(path, ["step", "y"], keep_to_step=20)


@pytest.mark.parametrize("periodic", [False, True])
def test_trajectory_is_cut_to_frames_and_continued(tmp_path, periodic):
    topology = app.Topology()
    residue = topology.addResidue("XXX", topology.addChain())
    for _ in range(3):
        topology.addAtom("C", app.Element.getBySymbol("C"), residue)
    box = 3.0 * np.eye(3) if periodic else None
    if periodic:
        topology.setPeriodicBoxVectors([tuple(row) for row in box.tolist()])
    path = tmp_path / "a.dcd"
    frames = np.random.default_rng(1).random((5, 3, 3))
    trajectory = Trajectory(path, topology, 0.0005, 10)
    for frame in frames[:4]:
        trajectory.write(frame, box)
    trajectory.close()
    with path.open("ab") as file:
        file.write(b"\0" * 7)  # killed in the middle of a frame
    trajectory = Trajectory(path, topology, 0.0005, 10, keep_frames=2)
    trajectory.write(frames[4], box)
    trajectory.close()
    with mdtraj.formats.DCDTrajectoryFile(str(path)) as file:
        read, lengths, _ = file.read()
    assert read == pytest.approx(10 * frames[[0, 1, 4]], abs=1e-5)
    if periodic:
        assert lengths == pytest.approx(30.0)
    with pytest.raises(DataFileError, match="at least the 9 frames up to the checkpoint, found 3"):
        Trajectory(path, topology, 0.0005, 10, keep_frames=9)
    path.write_text("no trajectory")
    with pytest.raises(DataFileError, match="expected a DCD trajectory"):
        Trajectory(path, topology, 0.0005, 10, keep_frames=0)

"""Labelling in worker processes: the numbers, a real kill in the middle, frames that do not converge."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner

from ampmm.cli.label import command
from ampmm.data import FrameWriter, Header, Record, read_failures, read_frame_keys, read_frames
from ampmm.errors import BackendError, DataFileError, InputError
from ampmm.reference import get_labeller, workers
from ampmm.reference.label import label_frames
from ampmm.types import Evaluation

try:
    get_labeller("gfn2-xtb")
except BackendError as missing:
    pytest.skip(str(missing), allow_module_level=True)

NUMBERS = np.array([8, 1, 1])
WATER = np.array([[0.0, 0.0, 0.1], [0.76, 0.03, 0.69], [-0.76, 0.1, 0.69]])  # Å
HEADER = Header(system="water", qm_charge=0, mm_region="all", boundary="droplet", sampling={"temperature": 300.0})


def frame(index, trajectory=0, n_mm=5):
    rng = np.random.default_rng([trajectory, index])
    directions = rng.normal(size=(n_mm, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Record(
        positions_qm=WATER + rng.normal(scale=0.03, size=(3, 3)),
        positions_mm=(directions * rng.uniform(4, 9, size=(n_mm, 1))).astype(np.float32),
        charges_mm=rng.normal(scale=0.4, size=n_mm).astype(np.float32),
        time=0.01 * index,
        temperature=300.0,
        trajectory=trajectory,
        source_index=index,
    )


def frames_file(path, n_frames, trajectory=0, header=HEADER, n_mm=5):
    with FrameWriter(path, header, NUMBERS) as writer:
        writer.append(*[frame(index, trajectory, n_mm) for index in range(n_frames)])
    return path


def keys(path):
    return list(zip(*(column.tolist() for column in read_frame_keys(path)), strict=True))


def test_labels_are_those_of_the_labeller(tmp_path):
    """Two files, two workers; order kept; a second run computes nothing."""
    inputs = [frames_file(tmp_path / "a.h5", 11, 0), frames_file(tmp_path / "b.h5", 6, 1)]
    output = tmp_path / "labelled.h5"
    seen = []
    report = label_frames(inputs, output, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert report == (17, 0, 0)
    assert seen[0] == (0, 17) and seen[-1] == (17, 17)
    frames = read_frames(output)
    assert keys(output) == [(0, index) for index in range(11)] + [(1, index) for index in range(6)]
    assert frames.header.level_of_theory == "GFN2-xTB"
    assert frames.header.level_settings["hardness"] == 99.0
    assert len(frames.header.sampling["trajectories"]) == 2
    labeller = get_labeller("gfn2-xtb")
    for index in (0, 10, 16):
        record = frames.record(index)
        label = labeller.label(NUMBERS, record.positions_qm, record.positions_mm, record.charges_mm, 0)
        assert record.energy == pytest.approx(label.energy, abs=1e-6)
        np.testing.assert_allclose(record.forces_qm, label.forces_qm, atol=1e-6)
        np.testing.assert_allclose(record.forces_mm, label.forces_mm, atol=1e-5)
        np.testing.assert_allclose(record.dipole, label.dipole, atol=1e-6)
    assert label_frames(inputs, output, workers=1) == (0, 17, 0)
    assert len(keys(output)) == 17


def test_more_frames_may_come_later(tmp_path):
    output = tmp_path / "labelled.h5"
    first = frames_file(tmp_path / "a.h5", 3, 0)
    label_frames([first], output)
    assert label_frames([first, frames_file(tmp_path / "b.h5", 2, 1)], output) == (2, 3, 0)
    assert keys(output) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]


def test_a_killed_run_is_continued_without_double_frames(tmp_path):
    """kill -9 on the parent in the middle of the work; its workers end too; the same command finishes the rest."""
    n_frames = 1500
    source, output = frames_file(tmp_path / "a.h5", n_frames, n_mm=300), tmp_path / "labelled.h5"
    arguments = ["label", str(source), "-o", str(output), "--workers", "1", "--set", "accuracy=1.0"]
    program = [sys.executable, "-c", "from ampmm.cli import main; main()", *arguments]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (output.exists() and _n_frames(output) >= 16):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stored = keys(output)
    assert 16 <= len(stored) < n_frames
    report = label_frames([source], output, options={"accuracy": 1.0})
    assert report == (n_frames - len(stored), len(stored), 0)
    assert keys(output) == [(0, index) for index in range(n_frames)]
    while _session_members(process.pid):
        assert time.monotonic() < deadline, "workers outlive their killed parent"
        time.sleep(0.1)


def _n_frames(path):
    try:
        return len(read_frame_keys(path)[0])
    except DataFileError:  # not all of its header is written yet
        return 0


def _session_members(session):
    """Processes that are alive in a session, from /proc."""
    members = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                state, _, _, of_session = file.read().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of_session) == session and state != "Z":
            members.append(int(name))
    return members


def test_frames_that_do_not_converge_are_listed_and_left_out(tmp_path):
    source, output = frames_file(tmp_path / "a.h5", 3), tmp_path / "labelled.h5"
    options = {"max_iterations": 1}
    assert label_frames([source], output, options=options) == (0, 0, 3)
    assert keys(output) == []
    failures = read_failures(output)
    assert [failure[:2] for failure in failures] == [(0, 0), (0, 1), (0, 2)]
    assert all("did not converge" in failure.reason for failure in failures)
    assert label_frames([source], output, options=options) == (0, 0, 3)
    assert len(read_failures(output)) == 3
    assert label_frames([source], output, options=options, retry_failed=True) == (0, 0, 3)
    assert len(read_failures(output)) == 3
    result = CliRunner().invoke(command, [str(source), "-o", str(output), "--set", "max_iterations=1"])
    assert "3 frames could not be labelled" in result.output and "trajectory 0, frame 2: GFN2-xTB did not" in result.output


def test_a_file_in_which_every_frame_failed_takes_other_settings(tmp_path):
    """It holds no label that theirs could be mixed with; its failures were those of the old settings."""
    source, output = frames_file(tmp_path / "a.h5", 2), tmp_path / "labelled.h5"
    label_frames([source], output, options={"max_iterations": 1})
    ice = frames_file(tmp_path / "c.h5", 2, header=Header(**{**vars(HEADER), "system": "ice"}))
    with pytest.raises(DataFileError, match="system is 'water' in the file and 'ice' now"):
        label_frames([ice], output)
    assert len(read_failures(output)) == 2
    with pytest.raises(InputError, match="cannot have 1 unpaired"):
        label_frames([source], output, options={"unpaired": 1})
    assert label_frames([source], output, options={"accuracy": 1.0}) == (2, 0, 0)
    assert read_failures(output) == [] and keys(output) == [(0, 0), (0, 1)]
    settings = read_frames(output).header.level_settings
    assert (settings["max_iterations"], settings["accuracy"]) == (250, 1.0)
    with pytest.raises(DataFileError, match="level_settings"):
        label_frames([source], output, options={"max_iterations": 1})


def test_a_label_that_is_no_number_is_a_failure():
    """Whatever an engine returns, NaN does not go into a file."""

    class Broken:
        level_of_theory = "broken"

        def label(self, numbers, positions_qm, positions_mm, charges_mm, qm_charge):
            return Evaluation(0.0, np.full((3, 3), np.nan), np.zeros((5, 3)), np.zeros(3), np.zeros(3))

    job = workers.Job("broken", {}, {}, NUMBERS, 0)
    assert workers._label_record(Broken(), job, frame(4, 2)) == (2, 4, "broken returned numbers that are not finite")


def test_an_engine_of_another_version_is_refused():
    job = workers.Job("gfn2-xtb", {}, {**get_labeller("gfn2-xtb").settings, "version": "API 9.9"}, NUMBERS, 0)
    with pytest.raises(BackendError, match=r"version is 'API 1.* there and 'API 9\.9' here"):
        workers.label_task(job, [frame(0)])


def test_round_driver_and_temperature_are_kept(tmp_path):
    source = tmp_path / "a.h5"
    with FrameWriter(source, HEADER, NUMBERS) as writer:
        writer.append(frame(0)._replace(round=3, driver="GFN-FF", temperature=350.0), frame(1))
    label_frames([source], tmp_path / "b.h5")
    frames = read_frames(tmp_path / "b.h5")
    assert frames.round.tolist() == [3, 0] and frames.driver.tolist() == ["GFN-FF", ""]
    assert frames.temperature.tolist() == [350.0, 300.0]


def test_a_trajectory_number_used_twice_is_noticed(tmp_path):
    """Otherwise the second trajectory's frames would count as labelled, and be lost without a word."""
    output = tmp_path / "labelled.h5"
    label_frames([frames_file(tmp_path / "a.h5", 2)], output)
    with FrameWriter(tmp_path / "b.h5", HEADER, NUMBERS) as writer:
        writer.append(frame(7)._replace(source_index=1))
    with pytest.raises(DataFileError, match=r"b\.h5: frame 1 of trajectory 0 is another one than that in"):
        label_frames([tmp_path / "b.h5"], output)
    assert len(keys(output)) == 2


def test_two_runs_do_not_write_one_file(tmp_path):
    source, output = frames_file(tmp_path / "a.h5", 2), tmp_path / "labelled.h5"
    label_frames([source], output)
    header = read_frames(output).header
    with FrameWriter(output, header, NUMBERS, append=True), pytest.raises(DataFileError, match="another process is writing"):
        label_frames([source], output)
    assert label_frames([source], output) == (0, 2, 0)


def test_another_level_does_not_go_into_the_same_file(tmp_path):
    source, output = frames_file(tmp_path / "a.h5", 1), tmp_path / "labelled.h5"
    label_frames([source], output)
    with pytest.raises(DataFileError, match="level_settings"):
        label_frames([source], output, options={"accuracy": 5.0})
    assert len(keys(output)) == 1


def test_inputs_that_do_not_belong_together_are_refused(tmp_path):
    first, twin = frames_file(tmp_path / "a.h5", 2, 0), frames_file(tmp_path / "b.h5", 2, 0)
    other = Header(**{**vars(HEADER), "system": "ice"})
    ice = frames_file(tmp_path / "c.h5", 2, 5, other)
    output = tmp_path / "labelled.h5"
    with pytest.raises(DataFileError, match=r"frame 0 of trajectory 0 is also in .*a\.h5"):
        label_frames([first, twin], output)
    with pytest.raises(DataFileError, match="system is 'ice'"):
        label_frames([first, ice], output)
    with FrameWriter(tmp_path / "order.h5", HEADER, NUMBERS[::-1]) as writer:
        writer.append(frame(0, 8))
    with pytest.raises(DataFileError, match=r"the same elements in another order \(atom 0 is H and O\)"):
        label_frames([first, tmp_path / "order.h5"], output)
    with pytest.raises(InputError, match="also an input"):
        label_frames([first], first)
    with pytest.raises(InputError, match="workers: expected 1 or more"):
        label_frames([first], output, workers=0)
    with pytest.raises(InputError, match="gfn2-xtb, pyscf"):
        label_frames([first], output, engine="magic")
    assert not output.exists()


def test_a_setting_that_no_frame_can_have_leaves_nothing_behind(tmp_path):
    """Its file would refuse the corrected command, as one of other settings."""
    source, output = frames_file(tmp_path / "a.h5", 1), tmp_path / "labelled.h5"
    with pytest.raises(InputError, match="cannot have 1 unpaired"):
        label_frames([source], output, options={"unpaired": 1})
    assert not output.exists()
    assert label_frames([source], output, options={"accuracy": 1}) == (1, 0, 0)


def test_the_command_line(tmp_path):
    source, output = frames_file(tmp_path / "a.h5", 2), tmp_path / "labelled.h5"
    result = CliRunner().invoke(command, [str(source), "-o", str(output), "--set", "accuracy=5e-1"])
    assert result.exit_code == 0, result.output
    assert "2 frames labelled, 0 were there before" in result.output
    assert read_frames(output).header.level_settings["accuracy"] == 0.5
    for setting, message in (("accuracy=abc", "expected accuracy as float, got 'abc'"), ("unpaired=0.5", "unpaired as int")):
        result = CliRunner().invoke(command, [str(source), "-o", str(output), "--set", setting])
        assert isinstance(result.exception, InputError) and message in str(result.exception)
    result = CliRunner().invoke(command, [str(source), "-o", str(output), "--set", "accuracy"])
    assert isinstance(result.exception, InputError) and "NAME=VALUE" in str(result.exception)

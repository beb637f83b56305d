"""Frames on disk: what goes in comes out, a kill or a full disk loses no stored frame, bad files are named."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ampmm.data import (
    Failure,
    FrameWriter,
    Header,
    Record,
    fields_of,
    read_failures,
    read_frame_keys,
    read_frames,
    read_header,
    write_whole,
)
from ampmm.errors import DataFileError, InputError

NUMBERS = np.array([8, 1, 1])
HEADER = Header(
    system="water",
    qm_charge=0,
    mm_region="all",
    boundary="droplet",
    level_of_theory="GFN2-xTB",
    level_settings={"accuracy": 0.1},
    sampling={"temperature": 300.0},
    command="ampmm label",
)


def record(index, n_mm=None, **changes):
    """A frame whose numbers tell which frame it is."""
    n_mm = 4 + index % 3 if n_mm is None else n_mm
    rng = np.random.default_rng(index)
    values = {
        "positions_qm": rng.normal(size=(3, 3)),
        "positions_mm": rng.normal(size=(n_mm, 3)).astype(np.float32),
        "charges_mm": rng.normal(size=n_mm).astype(np.float32),
        "time": 0.01 * index,
        "temperature": 300.0,
        "trajectory": 7,
        "source_index": index,
        "round": index // 2,
        "driver": f"GFN-FF → Å {index}",
        "energy": float(index),
        "forces_qm": rng.normal(size=(3, 3)),
        "forces_mm": rng.normal(size=(n_mm, 3)).astype(np.float32),
        "charges_qm": rng.normal(size=3),
        "dipole": rng.normal(size=3),
    }
    return Record(**{**values, **changes})


def write(path, n_frames, header=HEADER, append=False, first=0):
    with FrameWriter(path, header, NUMBERS, append=append) as writer:
        for index in range(first, first + n_frames):
            writer.append(record(index))
    return path


def same(one, other):
    return all(
        (a is None and b is None) or np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True)
    )


def test_frames_come_back_as_they_went_in(tmp_path):
    frames = read_frames(write(tmp_path / "a.h5", 5))
    assert frames.header == HEADER
    assert frames.n_frames == 5
    np.testing.assert_array_equal(frames.numbers, NUMBERS)
    np.testing.assert_array_equal(np.diff(frames.mm_offsets), [4, 5, 6, 4, 5])
    assert all(same(frames.record(index), record(index)) for index in range(5))
    for each in fields_of(HEADER):
        kind = "U" if each.name == "driver" else np.dtype(each.dtype).kind
        assert getattr(frames, each.name).dtype.kind == kind, each.name
        assert kind == "U" or getattr(frames, each.name).dtype == np.dtype(each.dtype), each.name


def test_frames_without_labels_and_frames_with_a_box(tmp_path):
    blank = dict.fromkeys(("energy", "forces_qm", "forces_mm", "charges_qm", "dipole"))
    header = Header(system="water", qm_charge=0, mm_region="all", boundary="periodic")
    with FrameWriter(tmp_path / "a.h5", header, NUMBERS) as writer:
        writer.append(record(0, box=np.eye(3) * 30.0, **blank), record(1, n_mm=0, box=np.eye(3) * 31.0, **blank))
    frames = read_frames(tmp_path / "a.h5")
    assert frames.energy is None and frames.forces_mm is None and not frames.header.labelled
    np.testing.assert_array_equal(frames.box[:, 0, 0], [30.0, 31.0])
    assert len(frames.record(1).charges_mm) == 0


def test_a_file_without_frames_is_a_file(tmp_path):
    assert read_frames(write(tmp_path / "a.h5", 0)).n_frames == 0


def test_appending_continues(tmp_path):
    path = write(tmp_path / "a.h5", 3)
    write(path, 2, append=True, first=3)
    trajectory, source_index = read_frame_keys(path)
    np.testing.assert_array_equal(source_index, range(5))
    np.testing.assert_array_equal(trajectory, 7)
    assert same(read_frames(path).record(4), record(4))


def test_a_file_is_not_overwritten_and_not_mixed(tmp_path):
    path = write(tmp_path / "a.h5", 2)
    with pytest.raises(DataFileError, match="exists and is not overwritten"):
        FrameWriter(path, HEADER, NUMBERS)
    other = Header(**{**vars(HEADER), "level_of_theory": "b3lyp/def2-svp"})
    with pytest.raises(DataFileError, match="level_of_theory is 'GFN2-xTB' in the file"):
        FrameWriter(path, other, NUMBERS, append=True)
    with pytest.raises(DataFileError, match="QM atoms differ"):
        FrameWriter(path, HEADER, [8, 1, 9], append=True)
    assert read_frames(path).n_frames == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"energy": None}, "record.energy: expected a value"),
        ({"forces_qm": np.zeros((2, 3))}, r"record.forces_qm: expected shape \(3, 3\)"),
        ({"forces_mm": np.zeros((9, 3))}, r"record.forces_mm: expected shape \(4, 3\)"),
        ({"energy": np.nan}, "record.energy: expected finite"),
    ],
)
def test_half_a_frame_is_refused_before_anything_is_written(tmp_path, changes, message):
    with FrameWriter(tmp_path / "a.h5", HEADER, NUMBERS) as writer:
        writer.append(record(0))
        with pytest.raises(InputError, match=message):
            writer.append(record(1), record(3, **changes))
        assert read_frames(tmp_path / "a.h5").n_frames == 1
        writer.append(record(1))
    assert same(read_frames(tmp_path / "a.h5").record(1), record(1))


def test_a_reader_sees_whole_frames_while_they_are_written(tmp_path):
    with FrameWriter(tmp_path / "a.h5", HEADER, NUMBERS) as writer:
        for index in range(3):
            writer.append(record(index))
            assert same(read_frames(tmp_path / "a.h5").record(index), record(index))


def test_an_error_in_the_middle_of_a_frame_leaves_the_frames_before(tmp_path, monkeypatch):
    """Half of the arrays are longer than the others then; readers and the next writer do not mind."""
    path = tmp_path / "a.h5"
    writer = FrameWriter(path, HEADER, NUMBERS)
    writer.append(record(0))
    calls = iter(range(100))
    resize = h5py.Dataset.resize

    def failing(self, *arguments, **keywords):
        if next(calls) == 5:
            raise OSError(28, "No space left on device")
        return resize(self, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(h5py.Dataset, "resize", failing)
        with pytest.raises(DataFileError, match=r"No space left on device.*The 1 frames written before are safe"):
            writer.append(record(1))
    with pytest.raises(DataFileError, match="closed"):
        writer.append(record(1))
    assert read_frames(path).n_frames == 1
    write(path, 2, append=True, first=1)
    frames = read_frames(path)
    assert [same(frames.record(index), record(index)) for index in range(3)] == [True, True, True]


def run(code, path):
    program = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); from test_hdf5 import *; path = sys.argv[1]\n"
    return subprocess.run([sys.executable, "-c", program + code, str(path)], capture_output=True, text=True, timeout=120)


def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    """The limit on a file's size makes the operating system refuse writes for real."""
    path = tmp_path / "a.h5"
    result = run(
        "import resource; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "writer = FrameWriter(path, HEADER, NUMBERS)\n"
        "for index in range(2000):\n"
        "    if index == 3:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path) + 500_000,) * 2)\n"
        "    writer.append(record(index, n_mm=300))\n",
        path,
    )
    assert result.returncode == 1
    assert "is the disk full?" in result.stderr
    n_frames = read_frames(path).n_frames
    assert 3 <= n_frames < 2000
    assert f"The {n_frames} frames written before are safe" in result.stderr
    with FrameWriter(path, HEADER, NUMBERS, append=True) as writer:
        writer.append(record(n_frames, n_mm=300))
    frames = read_frames(path)
    assert all(same(frames.record(index), record(index, n_mm=300)) for index in range(n_frames + 1))


def test_a_killed_writer_leaves_whole_frames_and_can_be_continued(tmp_path):
    path = tmp_path / "a.h5"
    result = run(
        "writer = FrameWriter(path, HEADER, NUMBERS)\n"
        "writer.append(*[record(index) for index in range(20)])\n"
        "writer._file['energy'].resize(25, axis=0); writer._file['energy'].flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
        path,
    )
    assert result.returncode == -signal.SIGKILL
    assert read_frames(path).n_frames == 20
    write(path, 5, append=True, first=20)
    frames = read_frames(path)
    assert all(same(frames.record(index), record(index)) for index in range(25))
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(DataFileError, match="found nothing there"):
        read_frames(tmp_path / "missing.h5")
    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    with pytest.raises(DataFileError, match="cannot open it"):
        read_frames(text)
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["coordinates"] = np.zeros((3, 3))
    with pytest.raises(DataFileError, match="was not written by ampmm"):
        read_frames(foreign)
    with pytest.raises(DataFileError, match="was not written by ampmm"):
        read_header(foreign)


def test_a_truncated_file_is_damaged(tmp_path):
    path = write(tmp_path / "a.h5", 50)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataFileError, match="damaged"):
        read_frames(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda file: file.__delitem__("forces_mm"), "datasets missing: forces_mm"),
        (lambda file: file.__delitem__("n_frames"), "datasets missing: n_frames"),
        (lambda file: file.attrs.__delitem__("mm_region"), "root attributes missing: mm_region"),
        (lambda file: file.attrs.__setitem__("schema_version", 3), "expected schema_version 1 or 2, got 3"),
        (lambda file: file["forces_qm"].attrs.__setitem__("unit", "eV/Å"), "forces_qm: expected the unit kJ/mol/Å, got eV/Å"),
        (
            lambda file: file.attrs.__setitem__("units", '{"energy": "Hartree"}'),
            "energy: expected the unit kJ/mol, got Hartree",
        ),
        (lambda file: file["n_frames"].__setitem__((), 9), "n_frames is 9"),
        (lambda file: file["energy"].resize(1, axis=0), r"dataset energy: expected shape \(4,\)"),
        (lambda file: file["mm_offsets"].__setitem__(1, 999), "mm_offsets: expected 5 ascending"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, edit, message):
    path = write(tmp_path / "a.h5", 4)
    with h5py.File(path, "r+", libver="latest") as file:
        edit(file)
    with pytest.raises(DataFileError, match=message):
        read_frames(path)


def test_a_header_knows_its_boundaries():
    with pytest.raises(InputError, match="droplet, periodic"):
        Header(system="water", qm_charge=0, mm_region="all", boundary="sphere")


def as_version_1(path, sampling):
    """What the schema's first version wrote: no rounds, no drivers, no failures."""
    with h5py.File(path, "r+", libver="latest") as file:
        for name in [name for name in file if name in ("round", "driver", "n_failed") or name.startswith("failed_")]:
            del file[name]
        file.attrs["schema_version"] = 1
        file.attrs["sampling"] = json.dumps(sampling)


@pytest.mark.parametrize(
    "sampling",
    [
        {"driver": "GFN2-xTB", "trajectory_id": 7},
        {"trajectories": [{"driver": "other", "trajectory_id": 3}, {"driver": "GFN2-xTB", "trajectory_id": 7}]},
    ],
)
def test_files_of_version_1_are_read_and_continued(tmp_path, sampling):
    path = write(tmp_path / "a.h5", 3)
    as_version_1(path, sampling)
    frames = read_frames(path)
    assert frames.round.tolist() == [0, 0, 0] and frames.driver.tolist() == ["GFN2-xTB"] * 3
    assert read_failures(path) == []
    write(path, 2, append=True, first=3)
    frames = read_frames(path)
    assert frames.round.tolist() == [0, 0, 0, 1, 2]
    assert frames.driver.tolist()[2:4] == ["GFN2-xTB", "GFN-FF → Å 3"]
    np.testing.assert_array_equal(frames.energy, range(5))


def test_frames_that_failed_are_kept_with_their_reason(tmp_path):
    path = tmp_path / "a.h5"
    long = Failure(1, 5, "Å" * 200)
    with FrameWriter(path, HEADER, NUMBERS) as writer:
        writer.append(record(0))
        writer.append_failures(Failure(0, 3, "SCF"), long)
    with FrameWriter(path, HEADER, NUMBERS, append=True) as writer:
        writer.append_failures(Failure(2, 2**40, "no"))
    assert read_failures(path) == [Failure(0, 3, "SCF"), long._replace(reason="Å" * 128), Failure(2, 2**40, "no")]
    assert read_frames(path).n_frames == 1
    with FrameWriter(path, HEADER, NUMBERS, append=True) as writer:
        writer.forget_failures()
        writer.append_failures(Failure(0, 3, "again"))
    assert read_failures(path) == [Failure(0, 3, "again")]


def test_a_file_without_frames_is_begun_anew_at_another_level(tmp_path):
    path, other = tmp_path / "a.h5", replace(HEADER, level_of_theory="b3lyp/def2-svp")
    with FrameWriter(path, HEADER, NUMBERS) as writer:
        writer.append_failures(Failure(0, 3, "SCF"))
    write(path, 0, append=True)
    assert read_failures(path) == [Failure(0, 3, "SCF")]
    for header, message in ((replace(other, qm_charge=1), "qm_charge"), (replace(HEADER, level_of_theory=""), "level_of_")):
        with pytest.raises(DataFileError, match=message):
            FrameWriter(path, header, NUMBERS, append=True)
    with pytest.raises(DataFileError, match="QM atoms differ"):
        FrameWriter(path, other, [8, 1, 9], append=True)
    assert read_failures(path) == [Failure(0, 3, "SCF")]
    write(path, 2, other, append=True)
    assert read_header(path) == other and read_failures(path) == [] and read_frames(path).n_frames == 2
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataFileError, match="level_of_theory is 'b3lyp/def2-svp' in the file"):
        write(path, 1, append=True)


@pytest.mark.parametrize("driver", ["x" * 97, "Å" * 49, None, b"bytes", "a\0b"])
def test_a_driver_is_text_that_fits(tmp_path, driver):
    with FrameWriter(tmp_path / "a.h5", HEADER, NUMBERS) as writer, pytest.raises(InputError, match="at most 96 bytes"):
        writer.append(record(0, driver=driver))


def test_a_file_written_whole_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.h5"

    def stops():
        yield from (record(index) for index in range(40))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, HEADER, NUMBERS, stops())
    assert list(tmp_path.iterdir()) == []
    assert write_whole(path, HEADER, NUMBERS, (record(index) for index in range(40))) == 40
    assert read_frames(path).n_frames == 40 and list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataFileError, match="exists"):
        write_whole(path, HEADER, NUMBERS, [])


def test_two_that_write_one_file_whole_do_not_delete_each_others(tmp_path):
    path = tmp_path / "a.h5"

    def another_begins():
        yield record(0)
        with pytest.raises(DataFileError, match="another process is writing"):
            write_whole(path, HEADER, NUMBERS, [record(1)])
        yield record(2)

    assert write_whole(path, HEADER, NUMBERS, another_begins()) == 2
    assert read_frames(path).n_frames == 2


def test_trajectories_that_come_later_are_added_to_the_account(tmp_path):
    path = tmp_path / "a.h5"
    for steps in ([{"seed": 1}], [{"seed": 1}, {"seed": 2}]):
        header = replace(HEADER, sampling={"trajectories": steps})
        FrameWriter(path, header, NUMBERS, append=path.exists()).close()
    assert read_header(path).sampling == {"trajectories": [{"seed": 1}, {"seed": 2}]}
    assert read_header(path).trajectories() == [{"seed": 1}, {"seed": 2}]


def test_a_frame_is_stored_once(tmp_path):
    with FrameWriter(tmp_path / "a.h5", HEADER, NUMBERS) as writer:
        writer.append(record(0), record(1))
        with pytest.raises(InputError, match="source_index 2 of trajectory 7 a second time"):
            writer.append(record(2), record(2))
        assert writer.n_frames == 2
    with FrameWriter(tmp_path / "a.h5", HEADER, NUMBERS, append=True) as writer:
        with pytest.raises(InputError, match="source_index 1 of trajectory 7 a second time"):
            writer.append(record(1))
        writer.append(record(1, trajectory=8), record(2))
        assert writer.n_frames == 4

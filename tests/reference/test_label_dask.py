"""Labelling over a Dask cluster: the same numbers as here, in order; a worker that dies; addresses that do not answer."""

import sys

import numpy as np
import pytest

from ampmm.data import FrameWriter, Header, Record, read_frame_keys, read_frames
from ampmm.errors import BackendError
from ampmm.reference import get_labeller
from ampmm.reference.label import label_frames

try:
    get_labeller("gfn2-xtb")
except BackendError as missing:
    pytest.skip(str(missing), allow_module_level=True)

NUMBERS = np.array([8, 1, 1])
WATER = np.array([[0.0, 0.0, 0.1], [0.76, 0.03, 0.69], [-0.76, 0.1, 0.69]])  # Å
HEADER = Header(system="water", qm_charge=0, mm_region="all", boundary="droplet", sampling={"driver": "GFN-FF"})


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(2)
    with FrameWriter(tmp_path / "frames.h5", HEADER, NUMBERS) as writer:
        for index in range(20):
            qm = WATER + rng.normal(scale=0.03, size=(3, 3))
            mm = (rng.normal(size=(4, 3)) + [5.0, 0.0, 0.0]).astype(np.float32)
            charges = rng.normal(scale=0.4, size=4).astype(np.float32)
            writer.append(Record(qm, mm, charges, 0.01 * index, 300.0, 0, index, round=1, driver="GFN-FF"))
    return tmp_path / "frames.h5"


def test_without_dask_the_message_says_how_to_get_it(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(BackendError, match=r"pip install '\.\[dask\]'"):
        label_frames([source], tmp_path / "labelled.h5", scheduler="tcp://127.0.0.1:1")
    assert not (tmp_path / "labelled.h5").exists()


def test_a_cluster_gives_the_labels_of_this_machine_and_survives_a_worker(source, tmp_path):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install '.[dask]'")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        address = cluster.scheduler_address
        assert label_frames([source], tmp_path / "dask.h5", scheduler=address) == (20, 0, 0)
        assert label_frames([source], tmp_path / "dask.h5", scheduler=address) == (0, 20, 0)
        cluster.scale(1)
        assert label_frames([source], tmp_path / "one.h5", scheduler=address) == (20, 0, 0)
    assert label_frames([source], tmp_path / "here.h5") == (20, 0, 0)
    here = read_frames(tmp_path / "here.h5")
    for name in ("dask.h5", "one.h5"):
        there = read_frames(tmp_path / name)
        assert read_frame_keys(tmp_path / name)[1].tolist() == list(range(20))
        np.testing.assert_array_equal(there.energy, here.energy)
        np.testing.assert_array_equal(there.forces_mm, here.forces_mm)
        assert there.driver.tolist() == ["GFN-FF"] * 20 and there.round.tolist() == [1] * 20


def test_an_address_where_nobody_answers_is_named(source, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed: pip install '.[dask]'")
    monkeypatch.setattr("ampmm.reference.workers._PATIENCE", 1)
    for address in ("tcp://127.0.0.1:1", "nonsense://x"):
        with pytest.raises(BackendError, match=f"expected the address of a running Dask scheduler.*got '{address}'"):
            label_frames([source], tmp_path / "labelled.h5", scheduler=address)
    assert not (tmp_path / "labelled.h5").exists()

"""One writer at a time, also in the moment in which the last one leaves."""

import pytest

from ampmm.data import lock
from ampmm.errors import DataFileError

fcntl = pytest.importorskip("fcntl")


def test_a_second_writer_is_refused_until_the_first_has_left(tmp_path):
    first = lock.WriterLock(tmp_path / "frames.h5")
    with pytest.raises(DataFileError, match="another process is writing"):
        lock.WriterLock(tmp_path / "frames.h5")
    first.release()
    lock.WriterLock(tmp_path / "frames.h5").release()
    assert not list(tmp_path.iterdir())


def test_a_lock_on_a_file_that_was_taken_away_is_none(tmp_path, monkeypatch):
    """The last holder removes its file between our opening of it and our lock on it."""
    path, calls = tmp_path / ".frames.h5.lock", []

    def flock(descriptor, operation):
        calls.append(descriptor)
        if len(calls) == 1:
            path.unlink()
        return fcntl_flock(descriptor, operation)

    fcntl_flock = fcntl.flock
    monkeypatch.setattr(lock.fcntl, "flock", flock)
    held = lock.WriterLock(tmp_path / "frames.h5")
    assert len(calls) == 2 and path.exists()
    with pytest.raises(DataFileError, match="another process is writing"):
        lock.WriterLock(tmp_path / "frames.h5")
    held.release()

"""One writer at a time: a lock beside the file, which the system releases when its holder dies."""

import contextlib
import os
from pathlib import Path

from ampmm.errors import DataFileError

try:
    import fcntl
except ImportError:  # Windows: no lock, as before
    fcntl = None


class WriterLock:
    """Holds ``.NAME.lock`` beside a file until `release`.

    Raises:
        DataFileError: another process, or another writer of this one, holds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f".{path.name}.lock")
        self._descriptor: int | None = None
        if fcntl is None:
            return
        while self._descriptor is None:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise DataFileError(
                    f"{path}: another process is writing to it; wait until that has ended, or write to another file"
                ) from None
            except OSError:  # a file system without locks
                os.close(descriptor)
                return
            if self._is_in_place(descriptor):
                self._descriptor = descriptor
            else:
                os.close(descriptor)

    def _is_in_place(self, descriptor: int) -> bool:
        """Whether the lock is on the file beside `path`, not on one that its last holder took away meanwhile."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def __enter__(self) -> "WriterLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let the next writer in; once is enough, more do no harm."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)
        self._descriptor = None

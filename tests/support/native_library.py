"""The native operators for the tests: built once for all test processes where a compiler is there."""

import fcntl
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from ampmm.nn import native

BUILD = Path(__file__).resolve().parents[2] / "plugin" / "build.py"


@cache
def library_missing() -> str:
    """Why the native operators cannot be tested here; "" if they can."""
    folder = native.cache_folder()
    if not any(folder.glob(native.library_name())) and shutil.which("ninja") and shutil.which("c++"):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "build.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            subprocess.run([sys.executable, str(BUILD)], check=True)
    return native.load()

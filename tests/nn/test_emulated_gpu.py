"""The kernels for the GPU, on a machine without one: built to run on the CPU, in a process of their own."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.native_library import BUILD, library_missing

from ampmm.nn import native

ROOT = BUILD.parents[1]
pytestmark = pytest.mark.skipif(bool(library_missing()), reason=library_missing())


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """That in which the emulated library is found; it is built once for these sources."""
    folder = native.cache_folder() / "emulated"
    folder.mkdir(parents=True, exist_ok=True)
    everything = {**os.environ, "AMPMM_NATIVE_DIR": str(folder), "AMPMM_NATIVE": "1"}
    if not (folder / native.library_name("emulated")).exists():
        if not (shutil.which("ninja") or (Path(sys.executable).parent / "ninja").exists()) or not shutil.which("c++"):
            pytest.skip("there is no compiler, or no ninja")
        with (folder / "build.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            subprocess.run([sys.executable, str(BUILD), "--emulate-gpu"], check=True, env=everything)
    return everything


@pytest.mark.slow
@pytest.mark.parametrize(
    "tests",
    [
        ["tests/nn/test_gpu_kernels.py"],
        ["tests/export/test_fixed_shapes.py", "-k", "gives_what and DP"],
        ["tests/nn/test_native_bms.py", "-k", "values_and_forces"],  # AMP-BMS, where most has no kernels
    ],
)
def test_kernels_agree_with_their_twins(environment, tests):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    summary = done.stdout.splitlines()[-1] if done.stdout else ""
    assert done.returncode == 0 and " passed" in summary, done.stdout[-3000:] + done.stderr[-1000:]

"""Builds the native operators for this machine and this torch: `python plugin/build.py` (or `make plugin`).

The library goes where `ampmm.nn.native` looks for it. Needed: a C++17 compiler (g++, or another in $CXX) and ninja,
on the PATH or beside the interpreter, where pip puts it.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from ampmm.nn import native

# Without -ffast-math: NaN and infinity have to reach the checks of the callers.
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-std=c++17", "-Wno-unknown-pragmas")


def main() -> int:
    """Build unless the library is there; the exit status says whether it is afterwards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="build again")
    given = parser.parse_args()
    target = native.cache_folder() / native.library_name(native.SOURCES)
    if target.exists() and not given.force:
        print(f"native operators: {target} is up to date")
        return 0
    # torch calls ninja by name; pip puts it beside the interpreter, which is not on the PATH of an environment not activated.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    missing = missing_tools()
    if missing:
        print(f"native operators: not built, {missing}; ampmm runs without them", file=sys.stderr)
        return 1
    try:
        build(target)
    except (RuntimeError, OSError) as error:
        print(f"native operators: the build failed; ampmm runs without them.\n{error}", file=sys.stderr)
        return 1
    print(f"native operators: built {target}")
    return 0


def missing_tools() -> str:
    """What is not there and how to get it; "" if all is."""
    if not native.SOURCES.is_dir():
        return f"there are no sources in {native.SOURCES}: run this in a checkout of ampmm"
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler {compiler!r} (Debian and Ubuntu: apt-get install g++)"
    if shutil.which("ninja") is None:
        return f"there is no ninja ({sys.executable} -m pip install ninja, or apt-get install ninja-build)"
    return ""


def build(target: Path) -> None:
    """Compile into a folder of its own and move the whole library into place."""
    from torch.utils.cpp_extension import load

    # torch brings an OpenMP library; with a second one its threads and ours would get in each other's way.
    libraries = Path(torch.__file__).parent / "lib"
    link = [f"-L{libraries}", "-lgomp"] if (libraries / "libgomp.so.1").exists() else ["-fopenmp"]
    flags = [*FLAGS, "-mprefer-vector-width=512"] if "avx512f" in native.instructions() else list(FLAGS)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "")
    with tempfile.TemporaryDirectory() as folder:
        sources = sorted(str(path) for path in native.SOURCES.glob("*.cpp"))
        load("ampmm_native", sources, extra_cflags=flags, extra_ldflags=link, is_python_module=False, build_directory=folder)
        partial = target.with_suffix(f".partial{os.getpid()}")
        shutil.copyfile(Path(folder) / "ampmm_native.so", partial)
        partial.replace(target)


if __name__ == "__main__":
    sys.exit(main())

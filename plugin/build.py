"""Builds the native operators for this machine and this torch: `python plugin/build.py` (or `make plugin`).

The library goes where `ampmm.nn.native` looks for it. Needed: a C++17 compiler (g++, or another in $CXX) and ninja,
on the PATH or beside the interpreter, where pip puts it.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from ampmm.nn import native, native_on_gpu

# Without -ffast-math: NaN and infinity have to reach the checks of the callers.
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-std=c++17", "-Wno-unknown-pragmas")


def main() -> int:
    """Build unless the library is there; the exit status says whether it is afterwards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="build again")
    parser.add_argument(
        "--emulate-gpu",
        action="store_true",
        help="for tests: the GPU's kernels run on the CPU, slowly; $AMPMM_NATIVE_DIR has to name a folder of their own",
    )
    given = parser.parse_args()
    if given.emulate_gpu and not os.environ.get("AMPMM_NATIVE_DIR"):
        parser.error("--emulate-gpu: set AMPMM_NATIVE_DIR to a folder for it, or all models would use it")
    without = "" if given.emulate_gpu else nvcc_missing()
    variants = ["emulated"] if given.emulate_gpu else ["cpu"]
    if without:
        print(f"native operators: for the CPU alone, {without}")
    elif not given.emulate_gpu:
        variants = [native_on_gpu.architectures(wanted_gpus()), "cpu"]
    target = library(variants[0])
    if target.exists() and not given.force:
        print(f"native operators: {target} is up to date")
        return 0
    # torch calls ninja by name; pip puts it beside the interpreter, which is not on the PATH of an environment not activated.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    missing = missing_tools()
    if missing:
        print(f"native operators: not built, {missing}; ampmm runs without them", file=sys.stderr)
        return 1
    for each in variants:
        target = library(each)
        try:
            build(target, each)
            print(f"native operators: built {target}")
            return 0
        except (RuntimeError, OSError, ValueError) as error:
            rest = "ampmm runs without them" if each == variants[-1] else "again, without kernels for the GPU"
            print(f"native operators: the build failed; {rest}.\n{error}", file=sys.stderr)
    return 1


def library(variant: str) -> Path:
    """The file that is built."""
    return native.cache_folder() / native.library_name(variant)


def wanted_gpus() -> str:
    """The GPUs to build for, as in TORCH_CUDA_ARCH_LIST: those that it names, else those that torch finds; "" for none."""
    named = os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip()
    return named or ";".join(f"{major}.{minor}" for major, minor in native_on_gpu.gpus())


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


def nvcc_missing() -> str:
    """Why the kernels for the GPU cannot be built; "" if they can."""
    from torch.utils.cpp_extension import CUDA_HOME

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    wanted = wanted_gpus()
    if not wanted:
        return "torch finds no GPU (to build for another machine's, set TORCH_CUDA_ARCH_LIST, as in 9.0)"
    try:
        native_on_gpu.architectures(wanted)
    except ValueError as error:
        return str(error)
    nvcc = Path(CUDA_HOME or "") / "bin" / "nvcc"
    if CUDA_HOME is None or not nvcc.exists():
        return f"there is no nvcc (install the CUDA toolkit {torch.version.cuda}, and set CUDA_HOME if it is in no usual place)"
    printed = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release (\d+)\.", printed)
    if found is None or found[1] != torch.version.cuda.split(".")[0]:
        version = found[1] if found else "an unknown version"
        return f"{nvcc} is of CUDA {version}, torch {torch.__version__} of CUDA {torch.version.cuda}"
    return ""


def build(target: Path, variant: str) -> None:
    """Compile into a folder of its own and move the whole library into place.

    Args:
        target: the library.
        variant: see `ampmm.nn.native.library_name`.
    """
    from torch.utils.cpp_extension import load

    # torch brings an OpenMP library; with a second one its threads and ours would get in each other's way.
    libraries = Path(torch.__file__).parent / "lib"
    link = [f"-L{libraries}", "-lgomp"] if (libraries / "libgomp.so.1").exists() else ["-fopenmp"]
    flags = [*FLAGS, "-mprefer-vector-width=512"] if "avx512f" in native.instructions() else list(FLAGS)
    sources = sorted(str(path) for path in native.SOURCES.rglob("*.cpp"))
    kernels = sorted(native.SOURCES.rglob("*.cu"))
    target.parent.mkdir(parents=True, exist_ok=True)
    kind = variant.split("-")[0]
    name = f"ampmm_native_{kind}"  # torch renames what it builds a second time in a process
    if kind != "cuda":
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "")
    with tempfile.TemporaryDirectory() as folder:
        if kind == "emulated":
            flags = ["-O1", "-fopenmp", "-std=c++17", "-Wno-unknown-pragmas", "-DAMPMM_GPU", "-DAMPMM_EMULATED_GPU"]
            for path in kernels:
                copy = Path(folder) / f"{path.stem}_emulated.cpp"
                copy.write_text(f'#include "{path}"\n', encoding="utf-8")
                sources.append(str(copy))
        elif kind == "cuda":
            flags.append("-DAMPMM_GPU")
            sources += map(str, kernels)
        load(
            name,
            sources,
            extra_cflags=flags,
            extra_cuda_cflags=["-O3", "-DAMPMM_GPU", "-std=c++17"],
            extra_ldflags=link,
            is_python_module=False,
            build_directory=folder,
        )
        partial = target.with_suffix(f".partial{os.getpid()}")
        shutil.copyfile(Path(folder) / f"{name}.so", partial)
        partial.replace(target)


if __name__ == "__main__":
    sys.exit(main())

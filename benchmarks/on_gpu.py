"""All that is to be measured on a GPU, one command after another: what `docs/performance.md` says of the CPU.

    python plugin/build.py --force          # with kernels for the GPU, where there is nvcc of torch's CUDA
    python benchmarks/on_gpu.py -o gpu
    python benchmarks/on_gpu.py -o gpu --only kernels evaluations

Each command's output goes to a file of its name in the folder; one that fails does not keep the others from running, and one
whose file is there is not run again. OpenMM's CUDA platform is needed for the steps (`pip install "openmm[cuda12]"`).
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
AMPMM, PYTEST = "-m ampmm.cli", "-m pytest -q -p no:cacheprovider"
WITHOUT_KERNELS = "AMPMM_NATIVE=0"
ALL_CHARGES = "--polarization-cutoff 1000 --coulomb-cutoff 0"
SYSTEMS = ("uracil", "ra", "sam")
COMMANDS = {  # what comes first matters most, where the time on the GPU is short
    "kernels": f"{PYTEST} tests/nn/test_gpu_kernels.py",
    "evaluations": f"{AMPMM} benchmark --device cuda",
    "evaluations_pytorch": f"{WITHOUT_KERNELS} {AMPMM} benchmark --device cuda",
    "evaluations_all_charges": f"{AMPMM} benchmark --device cuda {ALL_CHARGES}",
    "profile": "benchmarks/gpu_profile.py",
    **{f"steps_{name}": f"benchmarks/step_time.py --platform CUDA --system {name}" for name in SYSTEMS},
    **{f"steps_{name}_graphs": f"benchmarks/step_time.py --platform CUDA --system {name} --cuda-graphs" for name in SYSTEMS},
    "graphs": f"{PYTEST} tests/embedding/test_cuda_graphs.py tests/export/test_fixed_shapes.py",
    "charges": f"{AMPMM} benchmark --device cuda --sweep charges {ALL_CHARGES}",
    "atoms": f"{AMPMM} benchmark --device cuda --sweep atoms",
    "paper_tables": "benchmarks/paper_tables.py --device cuda",
    "training": "benchmarks/training_step.py --device cuda",
}


def main() -> None:
    """Run what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--dry-run", action="store_true", help="only print the commands")
    given = parser.parse_args()
    if given.dry_run:
        print("\n".join(" ".join(printed(COMMANDS[name])) for name in given.only))
        return
    import torch

    if not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} finds no GPU here")
    given.output.mkdir(parents=True, exist_ok=True)
    for name in given.only:
        target = given.output / f"{name}.txt"
        if target.exists():
            continue
        began = time.monotonic()
        variables, words = parsed(COMMANDS[name])
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        file = target if done.returncode == 0 else target.with_suffix(".failed")
        file.write_bytes((" ".join(printed(COMMANDS[name])) + "\n\n").encode() + done.stdout)
        print(f"{name}: {file}, {time.monotonic() - began:.0f} s", flush=True)


def parsed(command: str) -> tuple[dict[str, str], list[str]]:
    """Environment variables, and what follows the interpreter."""
    words = shlex.split(command)
    variables = dict(word.split("=", 1) for word in words[:1] if "=" in word)
    return variables, words[len(variables) :]


def printed(command: str) -> list[str]:
    """The words as one would type them."""
    variables, words = parsed(command)
    return [*(f"{name}={value}" for name, value in variables.items()), "python", *words]


if __name__ == "__main__":
    main()

"""Makes a system's data sets: the trajectories of its recipe.yaml, and their labels.

    python systems/make_data.py ra -o data/ra --workers 2              # every set
    python systems/make_data.py ra -o data/ra --only ra_gfn2_300K      # one of them; may be given several times
    python systems/make_data.py ra -o data/ra --fraction 0.01          # a hundredth of each trajectory, to try it
    python systems/make_data.py ra -o data/ra --dry-run                # only print the commands

For each set under `data`, samples its trajectories, `--workers` at a time with one thread each, then labels them into
SET.h5 in the output folder. The same command goes on where it was stopped, and does nothing when all is there.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
AMPMM = [sys.executable, "-m", "ampmm.cli"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENMM_CPU_THREADS": "1"}


def sample_command(system: Path, number: int, settings: dict[str, Any], fraction: float, output: Path) -> list[str]:
    """`ampmm sample` for one trajectory; its number is its seed, too."""
    words = ["sample", os.path.relpath(system), "--seed", str(number), "--trajectory-id", str(number)]
    for name, value in settings.items():
        if name == "time":
            value = f"{fraction * value:g}"
        values = value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return [*words, *(["--resume"] if output.exists() else []), "-o", str(output)]


def label_command(engine: str, trajectories: list[Path], output: Path, workers: int) -> list[str]:
    """`ampmm label` for the trajectories of a set."""
    return ["label", *map(str, trajectories), "-o", str(output), "--engine", engine, "--workers", str(workers)]


def commands(
    system: Path, output: Path, workers: int, fraction: float, only: Sequence[str] = ()
) -> list[tuple[list[list[str]], list[str]]]:
    """For each set, or those in `only`, its sampling commands and its labelling command, without the program's name."""
    recipe = yaml.safe_load((system / "recipe.yaml").read_text(encoding="utf-8"))
    if "data" not in recipe:
        raise SystemExit(f"{system / 'recipe.yaml'}: expected `data`, with the trajectories of each set, and it is not there")
    sets = recipe["data"]["sets"]
    unknown = sorted(set(only) - set(sets))
    if unknown:
        raise SystemExit(f"--only: expected sets of {system / 'recipe.yaml'} ({', '.join(sets)}), got {', '.join(unknown)}")
    found = []
    for name, trajectories in sets.items():
        if only and name not in only:
            continue
        files = {number: output / f"trajectory_{number}.h5" for number in trajectories}
        sampling = [sample_command(system, number, each, fraction, files[number]) for number, each in trajectories.items()]
        found.append((sampling, label_command(recipe["data"]["engine"], list(files.values()), output / f"{name}.h5", workers)))
    return found


def run(words: list[str], log: Path) -> None:
    """Run one command of ampmm; what it prints goes to `log`."""
    print("ampmm " + shlex.join(words), flush=True)
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run([*AMPMM, *words], stdout=file, stderr=file, env={**os.environ, **ONE_THREAD}, check=False)
    if done.returncode:
        raise SystemExit(f"`ampmm {shlex.join(words)}` failed with exit code {done.returncode}; what it printed is in {log}")


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a folder beside this file, with data in its recipe.yaml")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the files")
    parser.add_argument("--workers", type=int, default=1, help="processes at a time")
    parser.add_argument("--fraction", type=float, default=1.0, help="of every trajectory's length")
    parser.add_argument("--only", action="append", default=[], metavar="SET", help="this set alone; may be repeated")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and do nothing")
    given = parser.parse_args()
    todo = commands(HERE / given.name, given.output, given.workers, given.fraction, given.only)
    if given.dry_run:
        print("\n".join("ampmm " + shlex.join(each) for sampling, label in todo for each in (*sampling, label)))
        return
    given.output.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(given.workers) as pool:  # threads that wait for processes
        everything = [each for sampling, _ in todo for each in sampling]
        logs = [given.output / f"{Path(each[-1]).stem}.log" for each in everything]
        list(pool.map(run, everything, logs))
    for _, label in todo:
        run(label, given.output / "label.log")


if __name__ == "__main__":
    main()

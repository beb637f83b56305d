"""Where the time of a call goes on a GPU: `python benchmarks/gpu_profile.py uracil sam`.

Prints the least time of a kernel in a CUDA graph, that of products with few rows, and for each system's box what a call of its
potential of fixed shapes takes, with and without a graph, and the kernels that it consists of, those that take longest first.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch

SYSTEMS = Path(__file__).resolve().parents[1] / "systems"
PRODUCTS = ((12, 260, 128), (180, 500, 128), (2600, 52, 128), (2600, 128, 128), (18000, 52, 128), (18000, 128, 128))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", default=["uracil", "ra", "sam"], help="folders of systems/")
    parser.add_argument("--kernels", type=int, default=20, help="how many of them are printed")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} finds no GPU here")
    from ampmm.export import capture
    from ampmm.nn import native

    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n{native.status()}\n")
    x = torch.zeros(1000, device="cuda")
    additions, _ = capture(lambda: [x.add_(1.0) for _ in range(1000)], x.device)
    print(f"a small kernel in a graph: {milliseconds(additions, 20):.2f} µs")
    for n, k, m in PRODUCTS:
        a, b = torch.randn(n, k, device="cuda"), torch.randn(k, m, device="cuda")
        products, _ = capture(lambda a=a, b=b: [a @ b for _ in range(50)], a.device)
        print(f"product of ({n}, {k}) and ({k}, {m}): {20.0 * milliseconds(products, 10):.1f} µs")
    for name in given.systems:
        profile(name, given.kernels)


def profile(name: str, n_printed: int) -> None:
    """One system's box."""
    from openmm import app, unit

    import ampmm
    from ampmm.embedding import BACKENDS
    from ampmm.export import capture
    from ampmm.simulation.system_files import read_system

    files = read_system(SYSTEMS / name, "box")
    amber = ampmm.load_structure(files.topology, files.coordinates)
    classical = amber.create_system(nonbondedMethod=app.PME, nonbondedCutoff=1.0 * unit.nanometer, rigidWater=True)
    model = ampmm.load_model(files.model, device="cuda")
    made: list[torch.nn.Module] = []

    class Recording(type(BACKENDS["python"])):
        """Keeps the potential that a force is made of."""

        def make_force(self, potential, *options):
            made.append(torch.jit.script(potential))
            return super().make_force(made[-1], *options)

    BACKENDS["recording"] = Recording()
    ampmm.create_mixed_system(amber.topology, classical, files.qm_atoms, model, backend="recording", cuda_graphs=True)
    potential = made[-1]
    positions = torch.tensor(amber.positions.value_in_unit(unit.nanometer), device="cuda")
    box = torch.tensor([list(each) for each in amber.box_vectors.value_in_unit(unit.nanometer)], device="cuda")
    without = milliseconds(lambda: potential(positions, box), 20)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    ) as profiled:
        potential(positions, box)
        torch.cuda.synchronize()
    kernels = [each for each in profiled.events() if each.device_type == torch.autograd.DeviceType.CUDA]
    graph, _ = capture(lambda: potential(positions, box), positions.device)
    print(
        f"\n{name}: {without:.2f} ms a call, {milliseconds(graph, 200):.2f} ms as a graph; {len(kernels)} kernels that take "
        f"{1e-3 * sum(each.device_time for each in kernels):.2f} ms; "
        f"arrays of {potential.n_edges} edges, {potential.n_pairs} and {potential.n_polarization} QM–MM pairs"
    )
    times: dict[str, list[float]] = defaultdict(list)
    for each in kernels:
        times[each.name].append(each.device_time)
    for kernel, values in sorted(times.items(), key=lambda item: -sum(item[1]))[:n_printed]:
        print(f"{sum(values):9.1f} µs {len(values):5d}  {kernel[:100]}")


def milliseconds(call: Callable[[], object], times: int) -> float:
    """Mean of some calls, after five that warm up."""
    for _ in range(5):
        call()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        call()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - began) / times


if __name__ == "__main__":
    main()

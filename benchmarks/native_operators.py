"""What the native operators save: a training step, an evaluation, and the QM-MM polarization block against its products.

`python benchmarks/native_operators.py` on one thread, processor time, medians of paired rounds. Frames are random: QM atoms
at the density of a molecule, MM charges at that of water; the times depend on the numbers of pairs alone.
"""

import copy
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from ampmm.benchmark.regions import ELEMENTS, Arguments, batched, random_region
from ampmm.export import use_simple_executor
from ampmm.memory import keep_freed_memory
from ampmm.models import AMP, AMPConfig
from ampmm.nn import native
from ampmm.physics.coulomb import BareCoulomb
from ampmm.physics.forces import ForceEvaluator
from ampmm.types import PointCharges

SIZES = {"uracil-like": (12, 1500), "RA-like": (50, 2400)}  # QM atoms, MM charges
BATCH, ROUNDS = 4, 5
CUTOFF = 5.0  # of the QM graph, Å


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    use_simple_executor()
    keep_freed_memory()
    print(native.status())
    for name, (n_qm, n_mm) in SIZES.items():
        batch = batched([random_region(n_qm, n_mm, seed) for seed in range(BATCH)], CUTOFF, 8.0)
        model = build(8.0)
        fast = native.use_native(copy.deepcopy(model))
        twin, own = measured(partial(step, model, batch), partial(step, fast, batch))
        print(f"{name}, training, {len(batch[0].edges.centers)} edges and {len(batch[2].centers)} polarization pairs in "
              f"{BATCH} frames: {1e3 * BATCH / twin:.1f} -> {1e3 * BATCH / own:.1f} samples/s")  # fmt: skip
        for cutoff in (8.0, 12.0, 1000.0):
            evaluation(name, n_qm, n_mm, cutoff)


def evaluation(name: str, n_qm: int, n_mm: int, cutoff: float) -> None:
    """Times of one frame: the scripted model with forces, and its polarization block alone."""
    frame = batched([random_region(n_qm, n_mm)], CUTOFF, cutoff)
    model = build(cutoff).eval().requires_grad_(False)
    fast = native.use_native(copy.deepcopy(model))
    scripted = [torch.jit.script(ForceEvaluator(each, BareCoulomb())) for each in (model, fast)]
    blocks = [polarization(each, frame) for each in (model, fast)]
    products = gemm(len(frame[2].centers))
    times = measured(*(lambda s=s: s(*frame) for s in scripted), *blocks, products)
    print(f"{name}, one evaluation, {cutoff:g} Å, {len(frame[2].centers)} pairs: {times[0]:.1f} -> {times[1]:.1f} ms; "
          f"polarization {times[2]:.1f} -> {times[3]:.1f} ms, its products {times[4]:.1f} ms, "
          f"ratio {times[2] / times[4]:.2f} -> {times[3] / times[4]:.2f}")  # fmt: skip


def build(cutoff: float) -> AMP:
    """AMP(3)-DP as systems/uracil/train.yaml trains it, untrained."""
    torch.manual_seed(0)
    scales = {"multipole_scale": 0.1, "energy_scale": 10.0, "charge_scale": 0.1}
    return AMP(AMPConfig(ELEMENTS, polarization_cutoff=cutoff, **scales))


def step(model: AMP, batch: Arguments) -> None:
    """Energies, forces and the gradients of a loss on both by the parameters."""
    result = ForceEvaluator(model, BareCoulomb())(*batch, create_graph=True)
    loss = result.energies.total.square().mean() + result.forces_qm.square().mean() + result.forces_mm.square().mean()
    model.zero_grad(set_to_none=True)
    loss.backward(inputs=list(model.parameters()))


def polarization(model: AMP, frame: Arguments) -> Callable[[], None]:
    """The QM-MM block alone: its multipoles and the gradient of their sum by atoms and pair vectors."""
    block, n = model.layers[-1].polarization, len(frame[0].numbers)
    order = model.hyperparameters.order or 0
    nodes = torch.randn(n, model.hyperparameters.width + order + 1).requires_grad_()
    multipoles, one_hot = torch.randn(n, (order + 1) ** 2).requires_grad_(), torch.eye(len(ELEMENTS))[torch.arange(n) % 4]
    vectors = frame[2].vectors.clone().requires_grad_()
    surroundings = PointCharges(frame[1], frame[2]._replace(vectors=vectors), torch.zeros(n))

    def run() -> None:
        torch.autograd.grad(block(nodes, multipoles, one_hot, surroundings).sum(), [nodes, multipoles, vectors])

    return run


def gemm(n_pairs: int) -> Callable[[], None]:
    """The block's matrix products, forward and backward: 52 to 128, 128 to 128, 128 to 3, in tiles of 256 pairs."""
    shapes = [(52, 128), (128, 128), (128, 3)]
    rows = [(torch.randn(256, a), torch.randn(256, b), torch.randn(b, a)) for a, b in shapes]

    def run() -> None:
        for _ in range(-(-n_pairs // 256)):
            for x, y, weight in rows:
                torch.mm(x, weight.t(), out=y)
                torch.mm(y, weight, out=x)
                x.zero_()

    return run


def measured(*calls: Callable[[], None]) -> list[float]:
    """Milliseconds of processor time of each; medians over rounds in which all take turns."""
    times: list[list[float]] = [[] for _ in calls]
    for each in range(ROUNDS + 2):
        for found, call in zip(times, calls, strict=True):
            began = time.process_time()
            call()
            if each >= 2:
                found.append(1e3 * (time.process_time() - began))
    return [statistics.median(found) for found in times]


if __name__ == "__main__":
    main()

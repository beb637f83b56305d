"""Milliseconds of an evaluation and of its parts, and the operations that its matrix products need."""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ampmm.benchmark.regions import Arguments, Region, batched, lists_of
from ampmm.errors import InputError
from ampmm.export import capture, use_simple_executor
from ampmm.memory import keep_freed_memory, release_freed_memory
from ampmm.nn import native
from ampmm.physics.coulomb import BareCoulomb, ElectrostaticPotential, ReactionField
from ampmm.physics.evaluators import force_evaluator
from ampmm.physics.forces import PairForces, no_forces
from ampmm.types import Pairs

MODES: Final = ("eager", "scripted", "native", "cuda-graph")
WARM_UP: Final = 3  # rounds that are not counted


class Measurement(NamedTuple):
    """One region in one mode; times are medians over rounds, milliseconds a call."""

    region: str
    mode: str
    n_qm: int  # of one frame
    n_mm: int
    frames: int
    edges: int  # of all frames
    polarization_pairs: int
    coulomb_pairs: int
    total: float  # energy and all forces, lists given
    graph: float  # the same without MM charges
    coulomb: float  # the charges' potential and its forces
    polarization: float  # the rest
    lists: float  # pair lists from positions, once
    gigaflop: float  # of the matrix products of energy and forces
    gigabytes: float  # that those products read and write, were nothing to stay in a cache
    launches: int  # operations on tensors, other than views, in an eager evaluation: a GPU has to be told each of them
    rate: float  # GFLOP/s of a large matrix product in the same process
    bandwidth: float  # GB/s of a copy larger than the caches in the same process
    peak_megabytes: float | None  # of memory during the calls; None where it cannot be measured

    @property
    def floor(self) -> float:
        """Milliseconds that the matrix products alone would take."""
        return 1e3 * self.gigaflop / self.rate

    @property
    def traffic(self) -> float:
        """Milliseconds that the operands and results of the matrix products alone would take from and to memory."""
        return 1e3 * self.gigabytes / self.bandwidth

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "floor": self.floor, "traffic": self.traffic}


def measure_region(
    name: str,
    regions: Sequence[Region],
    model: nn.Module,
    modes: Sequence[str],
    *,
    cutoff: float,
    polarization_cutoff: float,
    coulomb_cutoff: float = float("inf"),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    rounds: int = 7,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Measurement]:
    """Time a model on regions of one size, evaluated in one call, in several modes that take turns.

    Args:
        name: for the results.
        regions: the frames of a batch.
        model: eager, with PyTorch's operators.
        modes: of `MODES`; "native" needs the library of native operators, with kernels for the device; "cuda-graph" a GPU.
        cutoff, polarization_cutoff, coulomb_cutoff: Å; an infinite last one is bare Coulomb with all charges.
        device, dtype: where and in which precision.
        rounds: timed, after a few that warm up.
        clock: seconds; `time.process_time` on a busy machine.

    Raises:
        InputError: a mode that there is not, or that is not available here.
    """
    device = torch.device(device)
    use_simple_executor()
    keep_freed_memory()  # as in dynamics
    arguments = batched(list(regions), cutoff, polarization_cutoff, coulomb_cutoff, device, dtype)
    model = copy.deepcopy(model).to(device, dtype).eval().requires_grad_(False)
    kernel = ReactionField(coulomb_cutoff) if coulomb_cutoff < float("inf") else BareCoulomb()
    empty = _without_charges(arguments)
    calls: dict[str, Callable[[], object]] = {
        "lists": lambda: lists_of(regions[0], cutoff, polarization_cutoff, coulomb_cutoff, device),
        "coulomb": _coulomb_call(kernel, arguments),
    }
    for mode in modes:
        evaluator = _in_mode(mode, model, kernel, device)
        for part, given in (("total", arguments), ("graph", empty)):
            call = partial(evaluator, *given)
            calls[f"{mode} {part}"] = capture(call, device)[0] if mode == "cuda-graph" else call
    times = _paired(calls, rounds, device, clock)
    rate, bandwidth = matrix_rate(device, dtype, clock), copy_bandwidth(device, clock)
    counts = operations(force_evaluator(model, kernel), arguments)
    edges, near, every = (len(each.centers) for each in (arguments.frame.edges, arguments.polarization, arguments.coulomb))
    results = []
    for mode in modes:
        total, graph = times[f"{mode} total"], times[f"{mode} graph"]
        rest = [whole - part - field for whole, part, field in zip(total, graph, times["coulomb"], strict=True)]
        middle = {"total": total, "graph": graph, "coulomb": times["coulomb"], "polarization": rest, "lists": times["lists"]}
        results.append(
            Measurement(
                name, mode, len(regions[0].numbers), len(regions[0].positions_mm), len(regions), edges, near, every,
                **{part: statistics.median(values) for part, values in middle.items()},
                **counts._asdict(), rate=rate, bandwidth=bandwidth,
                peak_megabytes=peak_memory(calls[f"{mode} total"], device),
            )
        )  # fmt: skip
    return results


def _in_mode(mode: str, model: nn.Module, kernel: nn.Module, device: torch.device) -> nn.Module:
    if mode == "native":
        if not native.available():
            raise InputError(f"modes: native needs the library of native operators: {native.load()}")
        if device.type not in ("cpu", native.gpu_device()):
            raise InputError(
                "modes: the native operators were built without kernels for a GPU; build them again where torch finds one "
                "(`make plugin`), leave native out, or use --device cpu"
            )
        return torch.jit.script(force_evaluator(native.use_native(copy.deepcopy(model)), kernel))
    if mode == "cuda-graph" and device.type != "cuda":
        raise InputError(f"modes: cuda-graph needs a GPU, got the device {device}; leave it out, or use --device cuda")
    if mode == "cuda-graph":  # as in dynamics: native where there are kernels
        return torch.jit.script(force_evaluator(native.use_native(copy.deepcopy(model)), kernel))
    if mode == "scripted":
        return torch.jit.script(force_evaluator(model, kernel))
    if mode == "eager":
        return force_evaluator(model, kernel)
    raise InputError(f"modes: expected {', '.join(MODES)}, got {mode!r}")


def _without_charges(arguments: Arguments) -> Arguments:
    none = Pairs(*(each[:0] for each in arguments.polarization))
    return arguments._replace(charges=arguments.charges[:0], polarization=none, coulomb=none)


def _coulomb_call(kernel: nn.Module, arguments: Arguments) -> Callable[[], object]:
    potential, add, n = ElectrostaticPotential(kernel), PairForces(), len(arguments.frame.numbers)
    pairs, charges = arguments.coulomb, arguments.charges

    def run() -> object:
        with torch.no_grad():
            terms = potential(pairs, charges, n)
            by_pair = terms.potential[pairs.centers].unsqueeze(-1) * terms.pair_gradients  # any gradient by the potential
            return add(no_forces(pairs.vectors, n, len(charges)), by_pair, pairs, True)

    return run


def _paired(
    calls: dict[str, Callable[[], object]], rounds: int, device: torch.device, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Milliseconds of each call, one a round; all take turns, so that a slow spell falls on all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for each in range(rounds + WARM_UP):
        for name, call in calls.items():
            began = clock()
            call()
            _wait(device)
            if each >= WARM_UP:
                times[name].append(1e3 * (clock() - began))
    return times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Operations(NamedTuple):
    """Of one evaluation."""

    gigaflop: float  # of its matrix products
    gigabytes: float  # their operands and results
    launches: int  # operations on tensors, other than views


def operations(evaluator: nn.Module, arguments: Arguments) -> Operations:
    """What one evaluation does, counted as PyTorch carries it out."""
    with _Operations() as counted:
        evaluator(*arguments)
    return Operations(1e-9 * counted.operations, 1e-9 * counted.bytes, counted.launches)


class _Operations(TorchDispatchMode):
    """Adds up the operations of what runs within; FlopCounterMode cannot follow gradients taken inside a module."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0  # of products
        self.bytes = 0
        self.launches = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if not function.is_view and not function.name().startswith(("aten::empty", "aten::_unsafe_view")):
            self.launches += 1
        count = flop_registry.get(function._overloadpacket)
        if count is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=out)
            self.bytes += sum(each.nbytes for each in (*args, out) if isinstance(each, torch.Tensor))
        return out


def matrix_rate(device: torch.device, dtype: torch.dtype, clock: Callable[[], float], width: int = 1024) -> float:
    """GFLOP/s of products of square matrices."""
    a, b = (torch.randn(width, width, device=device, dtype=dtype) for _ in range(2))
    rates = []
    for _ in range(WARM_UP + 5):
        began = clock()
        torch.mm(a, b)
        _wait(device)
        rates.append(2e-9 * width**3 / (clock() - began))
    return statistics.median(rates[WARM_UP:])


def copy_bandwidth(device: torch.device, clock: Callable[[], float], megabytes: int = 256) -> float:
    """GB/s, read and written, of copying a block that no cache holds."""
    source = torch.ones(megabytes * 250_000, device=device)
    target = torch.empty_like(source)
    rates = []
    for _ in range(WARM_UP + 5):
        began = clock()
        target.copy_(source)
        _wait(device)
        rates.append(2e-9 * source.nbytes / (clock() - began))
    return statistics.median(rates[WARM_UP:])


def peak_memory(call: Callable[[], object], device: torch.device) -> float | None:
    """MB that a call needs at most beside what was there before; on the CPU through Linux' /proc, else None."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return 1e-6 * (torch.cuda.max_memory_allocated(device) - before)
    release_freed_memory()  # else what earlier calls left behind hides this one's
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        before = _status("VmRSS")
        call()
        return 1e-3 * (_status("VmHWM") - before)
    except OSError:
        return None


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name)))  # kB

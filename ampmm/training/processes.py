"""Several processes that train one model, started by `torchrun`: each takes its share of every batch.

Gradients are added up by hand: `DistributedDataParallel` hooks into a single backward pass, while a training step has
two, the first of which gives the forces.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed, nn

from ampmm.errors import InputError


class Processes(NamedTuple):
    """Which of how many processes this one is; alone by default. All of them have to call a method together."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, indices: np.ndarray) -> np.ndarray:
        """This process's part of the frames of a batch; empty where there are fewer frames than processes."""
        return indices[self.rank :: self.count]

    def add_up(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process."""
        return flag if self.count == 1 else bool(self.add_up(torch.tensor(float(flag), device=device)) > 0.0)

    def add_up_gradients(self, parameters: Sequence[nn.Parameter], values: Tensor) -> Tensor:
        """Replace each gradient by its sum over all processes (a missing one counts as zero); `values` (n,) likewise."""
        if self.count == 1:
            return values
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        total = torch.cat([values.detach(), *(gradient.flatten() for gradient in gradients)])
        distributed.all_reduce(total)
        sizes = [len(values), *(parameter.numel() for parameter in parameters)]
        summed, *parts = total.split(sizes)
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return summed

    def copy_from_first(self, module: nn.Module) -> None:
        """Give every process the first one's weights and buffers."""
        if self.count > 1:
            for value in module.state_dict().values():
                distributed.broadcast(value, 0)


ALONE = Processes()


def choose_device(name: str) -> torch.device:
    """CUDA where torch finds it, else the CPU, for "auto"; under `torchrun`, each process takes its own GPU.

    Raises:
        InputError: an unknown device, a GPU that is not there, or more processes than GPUs.
    """
    if name not in ("auto", "cpu") and not name.startswith("cuda"):
        raise InputError(f"--device: expected cpu, cuda or auto, got {name!r}")
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and n_gpus == 0):
        return torch.device("cpu")
    if n_gpus == 0:
        raise InputError(f"--device: {name} is asked for, but torch finds no CUDA device here; use --device cpu")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if here > 1:
        if here > n_gpus:
            raise InputError(
                f"--device: expected a GPU for each process, got {here} processes and {n_gpus} GPU(s); start "
                f"torchrun with --nproc-per-node {n_gpus}, or use --device cpu"
            )
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    try:
        device = torch.device("cuda" if name == "auto" else name)
    except RuntimeError:
        raise InputError(f"--device: expected cpu, cuda, cuda:N or auto, got {name!r}") from None
    if (device.index or 0) >= n_gpus:
        raise InputError(f"--device: expected cuda:0 to cuda:{n_gpus - 1}, got {name!r}")
    return device


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """The processes that `torchrun` started, or this one alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), count)
    finally:
        distributed.destroy_process_group()

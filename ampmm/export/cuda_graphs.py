"""CUDA graphs: one launch in the place of the hundreds that a call of a model makes."""

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def capture(call: Callable[[], T], device: torch.device | str, warm_up: int = 3) -> tuple[Callable[[], None], T]:
    """What does `call`'s work again, and the tensors that it writes to.

    `call` must read the same tensors every time, all of them on `device`, and never wait for the GPU. It is called `warm_up`
    times before it is captured.
    """
    with torch.cuda.device(device):  # a graph records and replays in streams of the current device
        index = torch.cuda.current_device()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(warm_up):
                call()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads, as of another Context, may go on with what this one must not do.
        with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            result = call()

    def replay() -> None:
        with torch.cuda.device(index):
            graph.replay()

    return replay, result

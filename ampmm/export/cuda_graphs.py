"""CUDA graphs: one launch in the place of the hundreds that a call of a model makes."""

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def capture(call: Callable[[], T], warm_up: int = 3) -> tuple[Callable[[], None], T]:
    """What does `call`'s work again, and the tensors that it writes to.

    `call` must read the same tensors every time and never wait for the GPU. It is called `warm_up` times before it is captured.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(warm_up):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph.replay, result

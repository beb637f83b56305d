"""How TorchScript runs the models: without profiling, specialisation and fusion."""

from functools import cache

import torch


@cache
def use_simple_executor() -> None:
    """Let TorchScript run operations as written, for the whole process.

    Its profiling executor specialises on the shapes of the first calls. The number of QM–MM pairs changes from step to step,
    so its fuser compiled anew again and again (dynamics stood still for 10 s at a time), and for these small graphs its
    bookkeeping costs a third of a call.
    """
    switch = getattr(torch._C, "_jit_set_profiling_mode", None)
    if switch is not None:
        switch(False)

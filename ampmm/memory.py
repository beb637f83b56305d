"""How the C library hands out memory, which decides a third of the time of a CPU evaluation."""

import ctypes
import sys
from functools import cache
from typing import Final

# Parameters of glibc's mallopt, <malloc.h>.
_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3


@cache
def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next allocation instead of returning it to the system.

    By default glibc returns blocks of a megabyte (one layer's activations) and gets them back as new pages, 6'500 page
    faults a step for uracil: a third of the CPU time. The process stays at its peak memory instead. Returns whether it was
    done; elsewhere than on Linux with glibc nothing happens. It is safe to call again.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, (1 << 31) - 1), (_M_TOP_PAD, 64 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)


def release_freed_memory() -> bool:
    """Give freed memory back to the system after all; returns whether any was, where glibc can say so."""
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0)) if sys.platform.startswith("linux") else False
    except (OSError, AttributeError):
        return False

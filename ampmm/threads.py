"""How torch's idle threads wait, which decides what OpenMM's get of the same cores."""

import os
from typing import Final

_SPINS: Final = "10000"


def spin_briefly() -> None:
    """Let torch's threads sleep soon after their work, for programs in which OpenMM works next on the same cores.

    GNU's OpenMP, which torch brings, keeps idle threads busy waiting, far longer by default: in every MD step OpenMM's threads
    wait for a core meanwhile. Has to be called before torch is imported, when OpenMP reads it; what the user has set stays.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def use_threads(count: int) -> None:
    """Let torch and OpenMM's CPU platform use `count` threads each. Has to be called before either is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENMM_CPU_THREADS"):
        os.environ[name] = str(count)

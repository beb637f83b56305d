"""Labellers by name, for the command line and configuration files."""

import importlib
from typing import Any, Final

from ampmm.errors import InputError
from ampmm.reference.base import Labeller
from ampmm.reference.gfnff import refuse_to_label

# name: (module, class); imported when asked for, so that one engine does not need the other's package
LABELLERS: Final = {
    "gfn2-xtb": ("ampmm.reference.xtb", "XTBLabeller"),
    "pyscf": ("ampmm.reference.pyscf", "PySCFLabeller"),
}


def get_labeller(name: str, **options: Any) -> Labeller:
    """A labeller by name.

    Args:
        name: one of `LABELLERS`, in any case.
        options: the engine's settings, as in `XTBSettings` or `PySCFSettings`.

    Raises:
        InputError: unknown name or option, or gfn-ff, which drives dynamics only.
        BackendError: the engine is not installed.
    """
    if name.lower() == "gfn-ff":
        refuse_to_label()
    if name.lower() not in LABELLERS:
        raise InputError(f"labeller: expected one of {', '.join(LABELLERS)}, got {name!r}")
    module, kind = LABELLERS[name.lower()]
    return getattr(importlib.import_module(module), kind)(**options)

"""Effective core potentials: what stands for the electrons that a basis set of PySCF leaves out."""

import re
import warnings
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

from ampmm.elements import atomic_number

# Of -Z²/2 Hartree, the energy of one electron at a bare nucleus. All-electron sets of PySCF 2.14 reach 0.925 (cc-pVTZ-DK3,
# Xe) and more; those for potentials of other names 0.02 to 0.83 (ccECP-cc-pV6Z, C), but for H, which has no core.
_LEAST_1S = 0.875
_NOT_FOUND = (KeyError, OSError, RuntimeError, TypeError, ValueError)  # PySCF's, by version and by kind of basis


def core_potentials(basis: str, symbols: Iterable[str]) -> dict[str, Any]:
    """By element, the potentials that PySCF keeps under the basis' name, as `pyscf.gto.M` takes them for `ecp`.

    Elements whose electrons are all in the basis have none.
    """
    found = {each: _core_potential(basis, each) for each in sorted(set(symbols))}
    return {each: potential for each, potential in found.items() if potential}


@cache
def holds_core(basis: str, symbol: str) -> bool:
    """Whether an element's basis has functions for its core electrons: a 1s electron at the bare nucleus fits into it."""
    from pyscf import gto

    number = atomic_number(symbol)
    atom = gto.M(atom=[(symbol, (0.0, 0.0, 0.0))], basis=basis, spin=number % 2, verbose=0)
    one_electron = atom.intor("int1e_kin") + atom.intor("int1e_nuc")
    lowest = np.linalg.eigvals(np.linalg.solve(atom.intor("int1e_ovlp"), one_electron)).real.min()
    return bool(lowest < -_LEAST_1S * number**2 / 2)


@cache
def _core_potential(basis: str, symbol: str) -> Any:
    from pyscf.gto.basis import load_ecp

    name = re.sub(r"^unc-?|@.*$", "", basis, flags=re.IGNORECASE)  # uncontracted, or cut to fewer functions
    # PySCF keeps those of aug-cc-pVDZ-PP and its like with the sets without diffuse functions.
    for each in (name, re.sub(r"^aug-?", "", name, flags=re.IGNORECASE)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the Basis Set Exchange may have one
                potential = load_ecp(each, symbol)
        except _NOT_FOUND:
            continue
        if potential:
            return potential
    return None

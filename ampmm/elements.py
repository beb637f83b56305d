"""Chemical elements: symbols by atomic number."""

from collections.abc import Iterable, Sequence
from typing import Final

from ampmm.errors import InputError

SYMBOLS: Final = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr "
    "Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe"
).split()

_NUMBERS: Final = {symbol: number for number, symbol in enumerate(SYMBOLS)}


def symbol(number: int) -> str:
    """The symbol of an atomic number, e.g. ``"C"`` for 6."""
    if not 1 <= number < len(SYMBOLS):
        raise InputError(f"atomic number: expected 1 to {len(SYMBOLS) - 1}, got {number}")
    return SYMBOLS[number]


def atomic_number(symbol_: str) -> int:
    """The atomic number of a symbol, e.g. 6 for ``"C"``."""
    if symbol_ not in _NUMBERS or symbol_ == "X":
        raise InputError(f"element symbol: expected one of H … {SYMBOLS[-1]}, got {symbol_!r}")
    return _NUMBERS[symbol_]


def symbols(numbers: Sequence[int]) -> list[str]:
    """The symbols of a sequence of atomic numbers."""
    return [symbol(int(number)) for number in numbers]


def formula(numbers: Iterable[int]) -> str:
    """Atomic numbers as a sum formula in Hill's order, e.g. ``"C4H4N2O2"``."""
    names = symbols(list(numbers))
    order = sorted(set(names), key=lambda name: (name != "C", name != "H", name) if "C" in names else (False, False, name))
    return "".join(name + (str(names.count(name)) if names.count(name) > 1 else "") for name in order)

"""Chemical elements: symbols by atomic number."""

from collections.abc import Sequence
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

"""Finding and loading libxtb, the C interface of xtb, by ctypes."""

import ctypes
import ctypes.util
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ampmm.errors import BackendError, LabellingError

_INSTALL = (
    "Install it with `pip install '.[xtb]'` in a clone of ampmm (Python 3.11), or as the system package libxtb-dev, "
    "or point AMPMM_LIBXTB at libxtb.so"
)

_POINTER = ctypes.c_void_p
_INTS = ctypes.POINTER(ctypes.c_int)
_DOUBLES = ctypes.POINTER(ctypes.c_double)
_BOOLS = ctypes.POINTER(ctypes.c_bool)

# xtb.h of xtb 6.5
_SIGNATURES = {
    "xtb_getAPIVersion": (ctypes.c_int, []),
    "xtb_newEnvironment": (_POINTER, []),
    "xtb_delEnvironment": (None, [ctypes.POINTER(_POINTER)]),
    "xtb_checkEnvironment": (ctypes.c_int, [_POINTER]),
    "xtb_getError": (None, [_POINTER, ctypes.c_char_p, _INTS]),
    "xtb_setVerbosity": (None, [_POINTER, ctypes.c_int]),
    "xtb_setOutput": (None, [_POINTER, ctypes.c_char_p]),
    "xtb_releaseOutput": (None, [_POINTER]),
    "xtb_newMolecule": (_POINTER, [_POINTER, _INTS, _INTS, _DOUBLES, _DOUBLES, _INTS, _DOUBLES, _BOOLS]),
    "xtb_updateMolecule": (None, [_POINTER, _POINTER, _DOUBLES, _DOUBLES]),
    "xtb_delMolecule": (None, [ctypes.POINTER(_POINTER)]),
    "xtb_newCalculator": (_POINTER, []),
    "xtb_delCalculator": (None, [ctypes.POINTER(_POINTER)]),
    "xtb_loadGFN2xTB": (None, [_POINTER, _POINTER, _POINTER, ctypes.c_char_p]),
    "xtb_loadGFNFF": (None, [_POINTER, _POINTER, _POINTER, ctypes.c_char_p]),
    "xtb_setAccuracy": (None, [_POINTER, _POINTER, ctypes.c_double]),
    "xtb_setMaxIter": (None, [_POINTER, _POINTER, ctypes.c_int]),
    "xtb_setElectronicTemp": (None, [_POINTER, _POINTER, ctypes.c_double]),
    "xtb_setExternalCharges": (None, [_POINTER, _POINTER, _INTS, _INTS, _DOUBLES, _DOUBLES]),
    "xtb_releaseExternalCharges": (None, [_POINTER, _POINTER]),
    "xtb_singlepoint": (None, [_POINTER, _POINTER, _POINTER, _POINTER]),
    "xtb_newResults": (_POINTER, []),
    "xtb_delResults": (None, [ctypes.POINTER(_POINTER)]),
    "xtb_getEnergy": (None, [_POINTER, _POINTER, _DOUBLES]),
    "xtb_getGradient": (None, [_POINTER, _POINTER, _DOUBLES]),
    "xtb_getPCGradient": (None, [_POINTER, _POINTER, _DOUBLES]),
    "xtb_getCharges": (None, [_POINTER, _POINTER, _DOUBLES]),
    "xtb_getDipole": (None, [_POINTER, _POINTER, _DOUBLES]),
}


class LibXTB(NamedTuple):
    """The loaded library."""

    library: ctypes.CDLL
    path: str
    version: str


@cache
def load_libxtb() -> LibXTB:
    """Load libxtb: from ``AMPMM_LIBXTB``, the PyPI wheel `xtb`, or the system, in this order.

    Raises:
        BackendError: no library was found, or it does not load.
    """
    path, siblings = _find()
    try:
        # The wheel's library has no RPATH: what it needs must be in the process before it.
        for sibling in siblings:
            handle = ctypes.CDLL(str(sibling), mode=ctypes.RTLD_GLOBAL)
            _one_thread(handle)
        library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        _one_thread(library)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise BackendError(f"libxtb at {path} does not load: {error}. {_INSTALL}") from error
    number = library.xtb_getAPIVersion()
    return LibXTB(library, path, f"API {number // 10000}.{number // 100 % 100}.{number % 100}, {_real_name(path)}")


def _real_name(path: str) -> str:
    """The name of the library's file without links: it ends in the release, which libxtb itself does not tell."""
    if Path(path).is_file():
        return Path(path).resolve().name
    maps = Path("/proc/self/maps")  # a name that only the loader could find
    loaded = {line.split()[-1] for line in maps.read_text().splitlines() if "libxtb" in line} if maps.is_file() else set()
    return next((Path(each).name for each in sorted(loaded)), path)


def new_molecule(
    library: ctypes.CDLL, environment: ctypes.c_void_p, numbers: np.ndarray, bohr: np.ndarray, charge: int, unpaired: int = 0
) -> ctypes.c_void_p:
    """A molecule of libxtb; the caller deletes it.

    Args:
        numbers: (N,) atomic numbers. bohr: (N, 3) positions, Bohr. charge: e. unpaired: electrons.
    """
    handle = library.xtb_newMolecule(
        environment,
        ctypes.byref(ctypes.c_int(len(numbers))),
        ints(numbers.astype(np.int32)),
        doubles(bohr),
        ctypes.byref(ctypes.c_double(charge)),
        ctypes.byref(ctypes.c_int(unpaired)),
        None,
        None,
    )
    return ctypes.c_void_p(handle)


def check(library: ctypes.CDLL, environment: ctypes.c_void_p, method: str, action: str) -> None:
    """Turn an error that libxtb noted into an exception.

    Raises:
        LabellingError: "`method` did not `action`", with libxtb's message.
    """
    if not library.xtb_checkEnvironment(environment):
        return
    buffer, size = ctypes.create_string_buffer(2048), ctypes.c_int(2048)
    library.xtb_getError(environment, buffer, ctypes.byref(size))
    message = " ".join(buffer.value.decode(errors="replace").split())
    raise LabellingError(f"{method} did not {action}: {message or 'no message from libxtb'}")


def doubles(array: np.ndarray):
    """A C pointer to a contiguous float64 array, which must outlive the call."""
    return array.ctypes.data_as(_DOUBLES)


def ints(array: np.ndarray):
    """A C pointer to a contiguous int32 array, which must outlive the call."""
    return array.ctypes.data_as(_INTS)


def _find() -> tuple[str, list[Path]]:
    named = os.environ.get("AMPMM_LIBXTB")
    if named:
        if not Path(named).is_file():
            raise BackendError(f"AMPMM_LIBXTB: expected the path of libxtb.so, got {named!r}, which is no file")
        return named, []
    spec = find_spec("xtb")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        libraries = sorted(Path(folder).with_name("xtb.libs").glob("*.so*"))
        ours = [path for path in libraries if path.name.startswith("libxtb")]
        if ours:
            return str(ours[0]), _in_load_order([path for path in libraries if path not in ours])
    system = ctypes.util.find_library("xtb")
    if system:
        return system, []
    raise BackendError(f"libxtb was not found. {_INSTALL}")


def _in_load_order(libraries: list[Path]) -> list[Path]:
    """Dependencies first: quadmath ← gfortran ← openblas; gomp ← mctc."""
    order = ("libquadmath", "libgomp", "libgfortran", "libopenblas", "libmctc")
    return sorted(
        libraries, key=lambda path: next((i for i, name in enumerate(order) if path.name.startswith(name)), len(order))
    )


def _one_thread(library: ctypes.CDLL) -> None:
    """Molecules of this size run slower on two threads than on one; parallelism is over frames, in processes."""
    for name in ("openblas_set_num_threads", "omp_set_num_threads"):
        try:
            getattr(library, name)(ctypes.c_int(1))
        except AttributeError:
            continue

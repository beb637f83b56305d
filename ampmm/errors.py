"""The exceptions of ampmm, each on the built-in a caller would expect.

Every message names the argument, what was expected, what came, and what to do.
"""

import difflib
from collections.abc import Iterable


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """The message about a name that is none of those `known`, with the one that was probably meant."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {name!r}{hint} Known: {', '.join(names)}"


class InputError(ValueError):
    """An argument has the wrong value, shape or unit."""


class ModelFileError(ValueError):
    """A `.pt` file is missing, damaged, of another format version, or not an ampmm model."""


class DataFileError(ValueError):
    """An HDF5 file does not follow the schema of `ampmm.data.schema`."""


class EmbeddingError(ValueError):
    """The QM region cannot be embedded in the classical System as asked."""


class BackendError(RuntimeError):
    """A backend or an optional package it needs does not load here."""


class LabellingError(RuntimeError):
    """A reference calculation failed or did not converge; no numbers are returned."""


class SimulationStopped(RuntimeError):
    """Dynamics left the range where its numbers mean anything; the last good frame is saved."""

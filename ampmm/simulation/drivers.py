"""What may drive the QM region while frames are sampled, by name."""

from pathlib import Path
from typing import Final

import numpy as np

from ampmm.embedding import bonds_within, strip_qm_terms
from ampmm.errors import InputError
from ampmm.export import Evaluator, load_model, shipped_models
from ampmm.reference import LABELLERS, GFNFFDriver, get_labeller
from ampmm.simulation.assemble import model_digest
from ampmm.simulation.config import CLASSICAL
from ampmm.simulation.sampler import Droplet
from ampmm.units import ANGSTROM_PER_NM

GFN_FF: Final = "gfn-ff"


def make_driver(name: str, droplet: Droplet, accuracy: float = 1.0) -> tuple[Evaluator | None, str]:
    """A driver of the droplet's QM region, and its name in the file's header.

    Args:
        name: a labeller, "gfn-ff", "classical", a shipped model's name or a `.pt` file.
        droplet: the droplet; GFN-FF finds its bonds in the starting structure.
        accuracy: xtb's accuracy factor, for gfn2-xtb.

    Returns:
        The evaluator (None: the droplet's own classical force field) and its name.

    Raises:
        InputError: neither a driver's name nor a model; GFN-FF finds other bonds than the topology's; a model of other atoms,
            or a Δ-model, which is no energy by itself.
        BackendError: the engine is not installed.
        ModelFileError: the file is no model.
    """
    kind = name.lower()
    if kind == CLASSICAL:
        return None, "classical force field"
    if kind == GFN_FF:
        return _gfn_ff(droplet), "GFN-FF, classical charges"
    if kind == "gfn2-xtb":
        return get_labeller(kind, accuracy=accuracy, warm_start=True), f"GFN2-xTB, accuracy {accuracy:g}"
    if kind in LABELLERS:
        return get_labeller(kind), kind
    if name not in shipped_models() and not Path(name).exists():
        known = ", ".join([*LABELLERS, GFN_FF, CLASSICAL, *shipped_models()])
        raise InputError(f"driver: expected one of {known}, or a .pt file, got {name!r}")
    model = load_model(name)
    model.check_base()
    atoms = list(droplet.topology.atoms())
    model.check_numbers([atoms[index].element.atomic_number for index in droplet.qm_indices])
    # Every run of `ampmm train` ends in a model.pt: the name alone would not tell them apart.
    return model, f"model {model.path.name}, {model_digest(model)}"


def _gfn_ff(droplet: Droplet) -> GFNFFDriver:
    qm = droplet.qm_indices
    atoms = list(droplet.topology.atoms())
    numbers = np.array([atoms[index].element.atomic_number for index in qm])
    charges = strip_qm_terms(droplet.system, qm, droplet.topology).charges[qm]
    positions = np.asarray(droplet.positions)[qm] * ANGSTROM_PER_NM
    return GFNFFDriver(numbers, positions, charges, bonds_within(droplet.topology, qm))

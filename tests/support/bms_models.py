"""AMP-BMS models for tests: a small one with random weights, and the published one where its file is at hand."""

import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from support.amp_models import ELEMENTS, Region
from torch import Tensor, nn

from ampmm.export import Card, save_model
from ampmm.geometry.neighbors import edges_within, pairs_between, unordered_pairs_within
from ampmm.models import AMPBMS, AMPBMSConfig, import_weights
from ampmm.models.amp_bms_weights import published_shapes
from ampmm.physics.coulomb import BareCoulomb, ReactionField
from ampmm.physics.evaluators import force_evaluator
from ampmm.physics.multipole_forces import MultipoleEnergiesAndForces
from ampmm.types import Frame

CUTOFF, LONG_RANGE_CUTOFF, POLARIZATION_CUTOFF = 3.0, 6.0, 4.5
COULOMB_CUTOFF = 9.0  # of the published model
SYSTEMS = ("uracil", "ra", "sam")

# The published state dict and reference numbers are not part of the repository; docs/amp_bms.md says where they come from.
REFERENCE = Path(os.environ.get("AMPMM_REFERENCE", Path(__file__).resolve().parents[3] / "shared" / "reference")) / "amp_bms"
WEIGHTS = REFERENCE / "MIN_state_dict"
needs_reference = pytest.mark.skipif(
    not WEIGHTS.is_file(), reason=f"no published AMP-BMS weights at {WEIGHTS}; set AMPMM_REFERENCE to their folder"
)


def small_bms(dtype: torch.dtype = torch.float64, **changes) -> AMPBMS:
    """Random weights that make all terms matter; the same at every call."""
    values = {"n_channels": 3, "width": 12, "edge_width": 5, "head_width": 6, "n_radial": 4,
              "cutoff": CUTOFF, "polarization_cutoff": POLARIZATION_CUTOFF, "coulomb_cutoff": 6.5,
              "long_range_cutoff": LONG_RANGE_CUTOFF}  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AMPBMS(AMPBMSConfig(ELEMENTS, **{**values, "moment_divisor": 2.0, **changes}))
    model.free_c6.copy_(torch.tensor([6.5, 46.6, 24.2, 15.6]))
    model.sqrt_r4r2.copy_(torch.tensor([2.0, 3.0, 2.8, 2.6]))
    return model.to(dtype)


def write_small_bms(path: Path, quiet: bool = False, **changes) -> Path:
    """A `.pt` file of `small_bms` for any net charge, with its card; some of the card's fields may be changed.

    A `quiet` one hardly has more than dispersion and repulsion, so that dynamics do not blow up at once.
    """
    model = small_bms(torch.float32, moment_divisor=1.0e4 if quiet else 2.0)
    if quiet:
        torch.nn.init.zeros_(model.energy.rest.last.weight)
    values = {"name": "small-bms", "architecture": "amp-bms", "variant": "AMP-BMS", "elements": ELEMENTS,
              "qm_charge": None, "hyperparameters": model.hyperparameters.to_dict(), "cutoffs": model.cutoffs,
              "level_of_theory": "none"}  # fmt: skip
    save_model(path, model, Card(**(values | changes)))
    return path


def state_like_the_published(**changes) -> dict[str, torch.Tensor]:
    """Random tensors under the published names, of the published shapes."""
    generator = torch.Generator().manual_seed(0)
    config = AMPBMSConfig(tuple(range(1, 54)), **changes)
    state = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in published_shapes(config).items()}
    state |= {name: 10.0 * state[name].abs() for name in ("D4.C6_0", "D4.sqrt_r4r2")}
    return state | {"mu.MASSES": torch.ones(117), "theta.MASSES": torch.ones(117)}


class ReferenceFrame(NamedTuple):
    """A periodic frame with the published model's float64 numbers."""

    region: Region
    box: Tensor  # (3, 3) Å
    values: dict[str, np.ndarray]


@cache
def published_model() -> AMPBMS:
    """The published model in double precision."""
    return import_weights(WEIGHTS).model.double()


@cache
def reference_frame(name: str) -> ReferenceFrame:
    """One of `SYSTEMS`."""
    with np.load(REFERENCE / f"{name}.npz") as file:
        values = {key: file[key] for key in file.files}
    parts = (torch.as_tensor(values[key]) for key in ("numbers", "positions_qm", "positions_mm", "charges_mm"))
    return ReferenceFrame(Region(*parts, float(values["qm_charge"])), torch.diag(torch.as_tensor(values["box"])), values)


def evaluate(
    model: nn.Module,
    region: Region,
    *,
    box: Tensor | None = None,
    coulomb_cutoff: float | None = None,
    dtype: torch.dtype = torch.float64,
    create_graph: bool = False,
) -> MultipoleEnergiesAndForces:
    """Energies and forces of one region; bare Coulomb without a cutoff."""
    reach = float("inf") if coulomb_cutoff is None else coulomb_cutoff
    edges = edges_within(region.qm, model.cutoff, box)
    near = pairs_between(region.qm, region.mm, model.polarization_cutoff, box)
    pairs = pairs_between(region.qm, region.mm, reach, box)
    far = unordered_pairs_within(region.qm, model.long_range_cutoff, box)
    edges, near, pairs, far = (each._replace(vectors=each.vectors.to(dtype)) for each in (edges, near, pairs, far))
    frame = Frame(region.numbers, torch.zeros_like(region.numbers), torch.tensor([region.charge], dtype=dtype), edges)
    kernel = BareCoulomb() if coulomb_cutoff is None else ReactionField(coulomb_cutoff)
    charges = region.charges.to(dtype)
    return force_evaluator(model, kernel)(frame, charges, near, pairs, create_graph=create_graph, long_range=far)

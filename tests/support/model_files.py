"""Small models as `.pt` files."""

from pathlib import Path

import torch
from support.amp_models import ELEMENTS, VARIANTS, small_model

from ampmm.export import Card, save_model


def small_card(variant: str = "AMP(3)-DP", **changes) -> Card:
    """A card that fits `small_model`."""
    model = small_model(variant)
    values = {
        "name": "small",
        "architecture": "amp",
        "variant": variant,
        "hyperparameters": model.hyperparameters.to_dict(),
        "elements": ELEMENTS,
        "qm_charge": 0,
        "cutoffs": {"qm": model.cutoff, "polarization": model.polarization_cutoff},
        "level_of_theory": "none",
        "units": dict(Card.__dataclass_fields__["units"].default_factory()),
    }
    return Card(**(values | changes))


def write_small_model(path: Path, variant: str = "AMP(3)-DP", **changes) -> Path:
    """Save a small model with its card, some of whose fields may be changed."""
    assert variant in VARIANTS
    save_model(path, small_model(variant, dtype=torch.float32), small_card(variant, **changes))
    return path

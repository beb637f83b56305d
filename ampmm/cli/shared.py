"""What several commands show alike."""

from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ampmm.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from ampmm.data import FrameSet
    from ampmm.evaluation import Predictions
    from ampmm.export import Card


def evaluated(module: "nn.Module", card: "Card", part: str, frames: "FrameSet", indices: np.ndarray) -> "Predictions":
    """Predictions of some frames, with a progress bar."""
    from tqdm import tqdm

    from ampmm.evaluation import predict

    qm, polarization = card.cutoffs["qm"], card.cutoffs["polarization"]
    with tqdm(total=len(indices), desc=part, unit="frame", leave=False, mininterval=1.0) as bar:
        return predict(module, frames, indices, cutoff=qm, polarization_cutoff=polarization, progress=bar.update)


def frame_counts(evaluated_frames: dict[str, int], sizes: dict[str, int]) -> dict[str, str]:
    """How many frames of each part were evaluated, in words: "1000 of 7000" or "2000"."""
    return {
        part: str(count) if sizes.get(part, count) == count else f"{count} of {sizes[part]}"
        for part, count in evaluated_frames.items()
    }


def card_errors(card: "Card") -> str:
    """The error table of a card."""
    from ampmm.evaluation import error_table

    counts: dict[str, Any] = card.data.get("evaluated_frames", {})
    sizes = {part: size for part, size in card.data.get("split", {}).items() if part in counts}
    return error_table(card.errors, frame_counts(counts, sizes))


def refuse_idle(names: tuple[str, ...], used: bool, needed: str) -> None:
    """Refuse options that were given and would do nothing: they are used `needed` alone, as in "with --burst"."""
    context = click.get_current_context()
    given = [name for name in names if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE]
    if given and not used:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise InputError(f"{flags}: expected {needed} alone, else it does nothing; leave it out")

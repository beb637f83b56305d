"""What several commands show alike."""

from typing import TYPE_CHECKING, Any

import numpy as np

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

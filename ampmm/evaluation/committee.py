"""Where several models disagree about frames, and which frames are therefore worth a label.

Query by committee: models trained on the same data from different seeds agree where the data is dense, and scatter where it
is thin. H. S. Seung, M. Opper, H. Sompolinsky, COLT 1992, 287; for potentials, N. Artrith, J. Behler, Phys. Rev. B 2012,
85, 045439.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from ampmm.data import FrameSet
from ampmm.errors import InputError
from ampmm.export import LoadedModel

MEASURES: Final = ("max", "rms")
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


class Selection(NamedTuple):
    """Frames picked, and why no others."""

    indices: np.ndarray  # (n,) int64, the largest disagreement first
    above_ceiling: int  # frames left out because the disagreement is beyond the ceiling, or no number
    too_near: int  # frames left out because a picked one is too near in time or in structure


def check_committee(models: Sequence[LoadedModel], frames: FrameSet) -> None:
    """Whether the models can vote on these frames.

    Raises:
        InputError: fewer than two models, a model twice, models of different levels of theory, or models that do not know
            the frames' elements or net charge, or are Δ-models without their base.
    """
    if len(models) < 2:
        raise InputError(f"models: expected two or more .pt files, got {len(models)}; train more of them from other seeds")
    contents: dict[bytes, LoadedModel] = {}
    for model in models:
        content = model.path.read_bytes()
        if content in contents:
            twin = contents[content].path
            raise InputError(f"models: {twin} and {model.path} are the same model; train another one from another seed")
        contents[content] = model
        if model.card.level_of_theory != models[0].card.level_of_theory:
            raise InputError(
                f"models: {model.path} was trained at {model.card.level_of_theory}, {models[0].path} at "
                f"{models[0].card.level_of_theory}; their difference is no measure of uncertainty. Give models of one level"
            )
        model.check_base()
        model.check_numbers(frames.numbers)
        model.check_charge(frames.qm_charge)


def disagreements(
    models: Sequence[LoadedModel],
    frames: FrameSet,
    measure: str = "max",
    progress: Callable[[int], object] = lambda done: None,
) -> np.ndarray:
    """How far the models' forces on the QM atoms scatter, for every frame.

    An atom's scatter is √⟨|F − ⟨F⟩|²⟩ over the models; a frame's is the largest of its atoms' ("max") or the root of
    their mean square ("rms").

    Args:
        models: two or more, see `check_committee`.
        frames: labels are not needed, nor looked at.
        measure: one of `MEASURES`.
        progress: called with 1 after every frame.

    Returns:
        (F,) kJ/mol/Å; NaN where a model gives no finite number.

    Raises:
        InputError: an unknown measure, or see `check_committee`.
    """
    if measure not in MEASURES:
        raise InputError(f"measure: expected one of {', '.join(MEASURES)}, got {measure!r}")
    check_committee(models, frames)
    scores = np.empty(frames.n_frames)
    for index in range(frames.n_frames):
        scores[index] = _scatter(models, frames, index, measure)
        progress(1)
    return scores


def _scatter(models: Sequence[LoadedModel], frames: FrameSet, index: int, measure: str) -> float:
    record = frames.record(index)
    # Without a box: bare Coulomb over the stored charges, as in training.
    arrays = (frames.numbers, record.positions_qm, record.positions_mm, record.charges_mm, None, frames.qm_charge)
    try:
        forces = np.stack([model.evaluate(*arrays).forces_qm for model in models])  # (K, N, 3)
    except InputError:  # elements and charge are known to fit: the energy is not finite here
        return float("nan")
    squared = ((forces - forces.mean(axis=0)) ** 2).sum(axis=-1).mean(axis=0)  # (N,)
    return float(np.sqrt(squared.max() if measure == "max" else squared.mean()))


def select_frames(
    frames: FrameSet,
    scores: np.ndarray,
    count: int,
    *,
    spacing: float = 0.0,
    diversity: float = 0.0,
    ceiling: float = float("inf"),
) -> Selection:
    """The frames of largest disagreement that are not too near each other.

    Frames are taken in descending order of `scores`; one is passed over if a frame picked before it is of the same
    trajectory and nearer in time than `spacing`, or nearer in structure than `diversity`.

    Args:
        frames: F of them.
        scores: (F,) kJ/mol/Å; NaN is never picked.
        count: frames wanted; fewer are returned where fewer qualify.
        spacing: ps.
        diversity: root mean square difference of all distances between QM atoms, Å.
        ceiling: kJ/mol/Å; frames that disagree more are left out, as structures that no dynamics should visit.

    Raises:
        InputError: a count below 1, a negative limit, or scores that are not (F,).
    """
    check_limits(count, spacing, diversity, ceiling)
    if np.shape(scores) != (frames.n_frames,):
        raise InputError(f"scores: expected shape ({frames.n_frames},), got {np.shape(scores)}")
    usable = np.isfinite(scores) & (scores <= ceiling)
    order = np.flatnonzero(usable)[np.argsort(-scores[usable], kind="stable")]
    first, second = np.triu_indices(len(frames.numbers), k=1)
    picked: list[int] = []
    structures: list[np.ndarray] = []
    too_near = 0
    for index in order.tolist():
        if len(picked) == count:
            break
        positions = frames.positions_qm[index]
        structure = np.linalg.norm(positions[first] - positions[second], axis=-1)  # (n_pairs,) Å
        if _near_in_time(frames, index, picked, spacing) or _near_in_structure(structure, structures, diversity):
            too_near += 1
            continue
        picked.append(index)
        structures.append(structure)
    return Selection(np.array(picked, dtype=np.int64), int((~usable).sum()), too_near)


def check_limits(count: int, spacing: float, diversity: float, ceiling: float) -> None:
    """Raise `InputError` for limits that `select_frames` refuses."""
    if count < 1:
        raise InputError(f"count: expected 1 frame or more, got {count}")
    for name, value in (("spacing", spacing), ("diversity", diversity), ("ceiling", ceiling)):
        if not value >= 0:
            raise InputError(f"{name}: expected 0 or more, got {value}")


def _near_in_time(frames: FrameSet, index: int, picked: list[int], spacing: float) -> bool:
    if not picked or spacing == 0.0:
        return False
    same = frames.trajectory[picked] == frames.trajectory[index]
    # Times are sums of time steps: a difference that should be the spacing may be less in the last digits.
    return bool((same & (np.abs(frames.time[picked] - frames.time[index]) < spacing - 1e-9)).any())


def _near_in_structure(structure: np.ndarray, structures: list[np.ndarray], diversity: float) -> bool:
    if not structures or diversity == 0.0:
        return False
    return bool((np.sqrt(((np.stack(structures) - structure) ** 2).mean(axis=1)) < diversity).any())


def quantile_table(scores: np.ndarray, picked: np.ndarray) -> str:
    """Quantiles of the disagreement of all frames and of the picked ones, kJ/mol/Å, as text."""
    rows = [("all", scores[np.isfinite(scores)]), ("selected", scores[picked])]
    names = [f"{100 * quantile:g} %" for quantile in QUANTILES[:-1]] + ["largest"]
    lines = ["disagreement, kJ/mol/Å".ljust(24) + "".join(name.rjust(9) for name in names)]
    for name, values in rows:
        numbers = np.quantile(values, QUANTILES) if len(values) else []
        lines.append(f"{name} ({len(values)})".ljust(24) + "".join(f"{number:9.2f}" for number in numbers))
    return "\n".join(lines)

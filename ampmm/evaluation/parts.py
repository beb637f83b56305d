"""Which frames of a file a model is compared with: the parts of its own split, or all of another file."""

import numpy as np

from ampmm.data.combine import first_frames
from ampmm.data.schema import FrameSet
from ampmm.data.splits import fingerprint, learned_part, split_frames
from ampmm.elements import symbols
from ampmm.errors import InputError
from ampmm.export.metadata import Card, learned_from, unlike

CHOICES = ("auto", "from-card", "all")


def check_comparable(card: Card, frames: FrameSet, file: str, other_level: bool = False) -> None:
    """Refuse frames that the model cannot be measured on: unlabelled, or another system, charge or level of theory."""
    if frames.energy is None:
        raise InputError(f"data: {file} has no labels to compare with; run `ampmm label` on it first")
    if frames.n_frames == 0:
        raise InputError(f"data: {file} holds no frames yet; go on with `ampmm label`")
    differences = []
    if card.composition and sorted(card.composition) != sorted(frames.numbers.tolist()):
        differences.append(
            f"the QM region is {' '.join(symbols(frames.numbers))} in the file, "
            f"{' '.join(symbols(card.composition))} in the model"
        )
    elif unknown := sorted(set(frames.numbers.tolist()) - set(card.elements)):
        differences.append(f"the model does not know {', '.join(symbols(unknown))}")
    if card.qm_charge is not None and frames.qm_charge != card.qm_charge:
        differences.append(f"qm_charge is {frames.qm_charge} in the file, {card.qm_charge} in the model")
    if frames.header.level_of_theory != card.level_of_theory and not other_level:
        level = frames.header.level_of_theory
        differences.append(f"the level of theory is {level!r} in the file, {card.level_of_theory!r} in the model")
    if differences:
        raise InputError(f"data: {file} cannot be compared with model {card.name!r}: {'; '.join(differences)}")


def differing_settings(card: Card, frames: FrameSet) -> list[str]:
    """Settings of the labels that are not those of the model's training labels, in words."""
    own, other = card.level_settings, frames.header.level_settings
    return [f"{name}: {other.get(name)!r} in the file, {own.get(name)!r} in training" for name in unlike(own, other, apart=())]


def parts_of(card: Card, frames: FrameSet, file: str, choice: str = "auto") -> dict[str, np.ndarray]:
    """Frame indices by part.

    "from-card" makes the split of the card again, for which the file has to begin with the frames of the training (what was
    labelled since is the part "new"); "all" is one part; "auto" is the first where the file is the one of the training, else
    the second, named for what it is if its frames were trained on as well.
    """
    if choice not in CHOICES:
        raise InputError(f"split: expected one of {', '.join(CHOICES)}, got {choice!r}")
    trained_on = first_frames(frames, card.data.get("frames", frames.n_frames))
    same_frames = card.data.get("fingerprint") == fingerprint(trained_on)
    if choice == "all" or (choice == "auto" and not same_frames):
        return _seen(card, frames) if choice == "auto" else {"all": np.arange(frames.n_frames)}
    if not same_frames:
        raise InputError(
            f"split: {file} does not hold the frames that model {card.name!r} was trained on "
            f"({card.data.get('frames')} frames of {card.data.get('file')}), so their split means nothing here; use --split all"
        )
    split = card.data["split"]
    sizes = (split["train"], split["validation"], split["test"])
    parts = split_frames(trained_on, split["scheme"], sizes, split["seed"])._asdict()
    new = np.arange(trained_on.n_frames, frames.n_frames)
    return parts if len(new) == 0 else {**parts, "new": new}


def _seen(card: Card, frames: FrameSet) -> dict[str, np.ndarray]:
    """The frames of another file than the training's own: those that were trained on besides, and what was labelled since."""
    extra = {each["fingerprint"]: each for each in card.data.get("extra", {}).values() if "fingerprint" in each}
    for name, learned in (("train_extra", extra), ("train_parent", learned_from(card.training.get("parent", {})))):
        part = learned_part(frames, learned)
        if part is not None:
            parts = {name: np.arange(part[0]), "new": np.arange(part[0], frames.n_frames)}
            return {each: indices for each, indices in parts.items() if len(indices)}
    return {"all": np.arange(frames.n_frames)}

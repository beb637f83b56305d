"""Which frames a model is measured on, and which files it refuses."""

import dataclasses

import numpy as np
import pytest
from support.toy_frames import toy_frames

from ampmm.data.combine import first_frames
from ampmm.data.splits import fingerprint, split_frames, thinned
from ampmm.errors import InputError
from ampmm.evaluation import check_comparable, differing_settings, parts_of


def test_the_training_file_gives_the_split_of_the_card(toy_model):
    frames = toy_frames(24)
    expected = split_frames(frames, "random", (16, 4, 4), 0)
    for choice in ("auto", "from-card"):
        parts = parts_of(toy_model.card, frames, "frames.h5", choice)
        assert list(parts) == ["train", "validation", "test"]
        assert all(np.array_equal(parts[name], getattr(expected, name)) for name in parts)
    assert list(parts_of(toy_model.card, frames, "frames.h5", "all")) == ["all"]


def test_a_file_without_frames_is_refused(toy_model):
    with pytest.raises(InputError, match=r"empty.h5 holds no frames yet"):
        check_comparable(toy_model.card, toy_frames(4)._replace(time=np.zeros(0)), "empty.h5")


def test_what_was_labelled_since_the_training_is_a_part_of_its_own(toy_model):
    frames = toy_frames(28)
    own = first_frames(frames, 24)
    data = {**toy_model.card.data, "fingerprint": fingerprint(own), "frames": 24}
    card = dataclasses.replace(toy_model.card, data=data)
    parts = parts_of(card, frames, "frames.h5")
    assert parts.pop("new").tolist() == [24, 25, 26, 27]
    expected = parts_of(card, own, "frames.h5")
    assert all(np.array_equal(parts[name], expected[name]) for name in ("train", "validation", "test"))


def test_extra_data_of_the_training_are_not_called_unseen(toy_model):
    frames = toy_frames(28)
    data = {**toy_model.card.data, "extra": {"hot": {"fingerprint": fingerprint(frames)}}}
    card = dataclasses.replace(toy_model.card, data=data)
    assert list(parts_of(card, frames, "hot.h5")) == ["train_extra"]
    assert list(parts_of(card, frames, "hot.h5", "all")) == ["all"]


def test_frames_that_the_parent_learned_are_not_called_unseen(toy_model):
    frames = toy_frames(28)
    for parent in ({"learned_from": {fingerprint(frames): {}}}, {"fingerprint": f"f00d+{fingerprint(frames)}"}):
        card = dataclasses.replace(toy_model.card, training={**toy_model.card.training, "parent": parent})
        assert list(parts_of(card, frames, "first.h5")) == ["train_parent"]


@pytest.mark.parametrize("name", ["train_extra", "train_parent"])
def test_a_file_that_grew_since_it_was_learned_is_new_from_there_on(toy_model, name):
    frames = toy_frames(28)
    learned = {"fingerprint": fingerprint(first_frames(frames, 20)), "frames": 20}
    if name == "train_extra":
        card = dataclasses.replace(toy_model.card, data={**toy_model.card.data, "extra": {"hot": learned}})
    else:
        parent = {"learned_from": {learned["fingerprint"]: {"frames": 20, "scheme": "random"}}}
        card = dataclasses.replace(toy_model.card, training={**toy_model.card.training, "parent": parent})
    parts = parts_of(card, frames, "hot.h5")
    assert {each: indices.tolist() for each, indices in parts.items()} == {name: list(range(20)), "new": list(range(20, 28))}


def test_another_file_is_one_part_and_has_no_split(toy_model):
    frames = toy_frames(28)
    assert {name: len(part) for name, part in parts_of(toy_model.card, frames, "more.h5").items()} == {"all": 28}
    with pytest.raises(InputError, match=r"more.h5 does not hold the frames .* use --split all"):
        parts_of(toy_model.card, frames, "more.h5", "from-card")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numbers": np.array([8, 8, 1])}, "QM region is O O H in the file, O H H in the model"),
        ({"qm_charge": -1}, "qm_charge is -1 in the file, 0 in the model"),
        ({"level_of_theory": "PBE"}, "level of theory is 'PBE' in the file, 'harmonic bonds and point charges' in the model"),
        ({"energy": None}, r"has no labels to compare with; run `ampmm label`"),
    ],
)
def test_frames_of_something_else_are_refused(toy_model, change, message):
    frames = toy_frames(4)
    header = {name: value for name, value in change.items() if name in ("qm_charge", "level_of_theory")}
    arrays = {name: value for name, value in change.items() if name not in header}
    frames = frames._replace(header=dataclasses.replace(frames.header, **header), **arrays)
    with pytest.raises(InputError, match=message):
        check_comparable(toy_model.card, frames, "other.h5")


def test_all_differences_are_named_at_once(toy_model):
    frames = toy_frames(4)
    frames = frames._replace(header=dataclasses.replace(frames.header, qm_charge=1, level_of_theory="PBE"))
    with pytest.raises(InputError, match=r"qm_charge is 1 .*; the level of theory is 'PBE'"):
        check_comparable(toy_model.card, frames, "other.h5")


def test_differing_settings_of_the_level_are_told(toy_model):
    frames = toy_frames(4)
    assert differing_settings(toy_model.card, frames) == []
    frames = frames._replace(header=dataclasses.replace(frames.header, level_settings={"k": 500.0}))
    assert differing_settings(toy_model.card, frames) == ["k: 500.0 in the file, 400.0 in training"]


def test_thinning_is_even_and_keeps_all_of_a_short_part():
    assert thinned(np.arange(100), 5).tolist() == [0, 25, 50, 74, 99]
    assert len(thinned(np.arange(4), 5)) == 4
    assert len(thinned(np.arange(100), 0)) == 100

"""The card of a finished run: what it says is what the data and the run were."""

import pytest
from support.toy_frames import LEVEL, toy_frames

from ampmm.data import FrameWriter, read_frames
from ampmm.data.bounds import training_bounds
from ampmm.data.splits import fingerprint, split_frames
from ampmm.evaluation import describe_frames, make_card
from ampmm.evaluation.card import without_folders
from ampmm.models import build_model


def test_frames_are_described_by_trajectory():
    described = describe_frames(toy_frames(24), "folder/frames.h5")
    assert (described["file"], described["frames"], described["temperatures_K"]) == ("frames.h5", 24, [300.0, 350.0])
    assert [each["frames"] for each in described["trajectories"]] == [12, 12]
    assert described["span_ps"] == pytest.approx(0.22)


def test_a_file_without_frames_is_described(tmp_path):
    path, frames = tmp_path / "empty.h5", toy_frames(1)
    FrameWriter(path, frames.header, frames.numbers).close()
    described = describe_frames(read_frames(path), path)
    assert (described["frames"], described["mm_charges_per_frame"], described["trajectories"]) == (0, 0.0, [])


def test_folders_of_the_machine_do_not_travel_with_the_card(tmp_path):
    command = f"ampmm label {tmp_path}/data/a.h5 systems/uracil -o {tmp_path}/b.h5 --set path={tmp_path}/x/c.dat"
    given = {"command": command, "force": ["kJ/mol/Å", 3.0, "C/H"]}
    assert without_folders(given) == {
        "command": "ampmm label a.h5 systems/uracil -o b.h5 --set path=c.dat",
        "force": ["kJ/mol/Å", 3.0, "C/H"],
    }


def test_card_of_a_run_is_complete(toy_model, toy_folder):
    card, frames = toy_model.card, toy_frames(24)
    assert (card.name, card.variant, card.qm_charge) == ("toy", "AMP(1)-DP", 0)
    assert (card.elements, card.composition) == ((1, 8), (8, 1, 1))
    assert card.level_of_theory == LEVEL
    assert card.level_settings == {"k": 400.0}
    assert card.data["fingerprint"] == fingerprint(frames)
    assert card.data["split"] == {"scheme": "random", "seed": 0, "train": 16, "validation": 4, "test": 4}
    assert set(card.errors) == {"train", "validation", "test"}
    assert card.training["steps"] == card.training["planned_steps"] == 20
    assert str(toy_folder) not in card.to_json()
    assert card.bounds == training_bounds(frames, split_frames(frames, "random", (16, 4, 4), 0).train)


def test_card_names_the_parent_run_without_its_folder(toy_model, tmp_path):
    frames = toy_frames(24)
    card = make_card(
        name="toy",
        model=build_model(toy_model.card.architecture, toy_model.card.hyperparameters),
        frames=frames,
        bounds={},
        data={},
        training={"start_from": str(tmp_path / "runs" / "first")},
        command=f"ampmm export {tmp_path / 'runs' / 'second'}",
    )
    assert (card.training["start_from"], card.command) == ("first", "ampmm export second")


def test_hyperparameters_of_the_card_build_the_same_model(toy_model):
    model = build_model(toy_model.card.architecture, toy_model.card.hyperparameters)
    assert sum(parameter.numel() for parameter in model.parameters()) == toy_model.card.training["parameters"]

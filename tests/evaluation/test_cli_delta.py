"""Δ-learning from files to a `.pt` that names its base; a temporal split; the list of models."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from support.toy_frames import toy_frames, write_frames

from ampmm.cli import evaluate, info, models, train
from ampmm.data import read_frames
from ampmm.errors import InputError
from ampmm.export import load_model


def ampmm(module, *arguments):
    return CliRunner().invoke(module.command, [str(argument) for argument in arguments], catch_exceptions=False)


def labelled_cheaply(frames):
    header = dataclasses.replace(frames.header, level_of_theory="cheap", level_settings={"k": 1.0})
    return frames._replace(
        header=header,
        energy=0.9 * frames.energy + 100.0,
        forces_qm=0.9 * frames.forces_qm,
        forces_mm=(0.9 * frames.forces_mm).astype(np.float32),
    )


@pytest.fixture(scope="module")
def delta(toy_folder, tmp_path_factory):
    """Holds frames.h5, base.h5 with the same frames labelled more cheaply, and run/ with the finished run."""
    folder = tmp_path_factory.mktemp("delta")
    frames = toy_frames(24)
    write_frames(folder / "frames.h5", frames)
    write_frames(folder / "base.h5", labelled_cheaply(frames))
    values = yaml.safe_load((toy_folder / "train.yaml").read_text())
    values |= {"data": str(folder / "frames.h5"), "base_data": [str(folder / "base.h5")]}
    (folder / "train.yaml").write_text(yaml.safe_dump(values))
    result = ampmm(train, folder / "train.yaml", "-o", folder / "run")
    assert result.exit_code == 0, result.output
    return folder


def test_the_card_names_the_base(delta):
    card = load_model(delta / "run" / "model.pt").card
    assert card.base == {"level_of_theory": "cheap", "level_settings": {"k": 1.0}}
    assert card.level_of_theory == toy_frames(1).header.level_of_theory
    assert "correction to" in ampmm(info, delta / "run" / "model.pt").output


def test_the_offset_is_that_of_the_differences(delta):
    offset = torch.load(delta / "run" / "checkpoint.pt", weights_only=True)["model"]["element_energies"]
    frames = read_frames(delta / "frames.h5")
    total = 3 * offset[0].item()
    assert total == pytest.approx(0.1 * frames.energy.mean() - 100.0, abs=0.2 * frames.energy.std())
    # The exported one is settled together with its network, which shifts it by a little, not to whole energies.
    settled = 3 * load_model(delta / "run" / "model.pt").module.element_energies[0].item()
    assert settled != total and abs(settled - total) < frames.energy.std()


def test_evaluate_repeats_the_errors_of_the_card(delta, tmp_path):
    path = delta / "run" / "model.pt"
    ampmm(evaluate, path, delta / "frames.h5", "--base-data", delta / "base.h5", "-o", tmp_path)
    stored = json.loads((tmp_path / "errors.json").read_text())["errors"]
    for part, quantities in load_model(path).card.errors.items():
        for quantity, expected in quantities.items():
            assert stored[part][quantity] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_evaluate_needs_the_bases_labels(delta, toy_folder, tmp_path):
    path = delta / "run" / "model.pt"
    with pytest.raises(InputError, match="is a correction to cheap, got no labels of that level"):
        ampmm(evaluate, path, delta / "frames.h5")
    with pytest.raises(InputError, match="expected labels of cheap, got 'harmonic bonds and point charges'"):
        ampmm(evaluate, path, delta / "frames.h5", "--base-data", delta / "frames.h5")
    coarse = labelled_cheaply(toy_frames(24))
    coarse = coarse._replace(header=dataclasses.replace(coarse.header, level_settings={"k": 2.0}))
    write_frames(tmp_path / "coarse.h5", coarse)
    with pytest.raises(InputError, match=r"other settings of cheap than the model's base: k 2.0, not 1.0"):
        ampmm(evaluate, path, delta / "frames.h5", "--base-data", tmp_path / "coarse.h5")
    with pytest.raises(InputError, match="is no Δ-model"):
        ampmm(evaluate, toy_folder / "run" / "model.pt", delta / "frames.h5", "--base-data", delta / "base.h5")


def test_a_whole_model_has_no_base_in_its_file(toy_model):
    assert toy_model.card.base == {} and "base" not in json.loads(toy_model.card.to_json())


def test_a_temporal_split_from_end_to_end(delta, tmp_path):
    """Trained on the first frames of each trajectory's order, measured on the last ones; the card makes the split again."""
    values = yaml.safe_load((delta / "train.yaml").read_text()) | {"split": "temporal", "base_data": [], "steps": 4}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(values))
    ampmm(train, tmp_path / "train.yaml", "-o", tmp_path / "run")
    card = load_model(tmp_path / "run" / "model.pt").card
    assert card.data["split"] == {"scheme": "temporal", "seed": 0, "train": 16, "validation": 4, "test": 4}
    output = ampmm(evaluate, tmp_path / "run" / "model.pt", delta / "frames.h5", "-o", tmp_path / "report").output
    assert all(part in output for part in ("train", "validation", "test"))
    stored = json.loads((tmp_path / "report" / "errors.json").read_text())["errors"]
    assert stored["test"]["energy"] == pytest.approx(card.errors["test"]["energy"], rel=1e-3, abs=1e-3)


def test_models_are_listed_with_level_errors_and_size():
    rows = json.loads(ampmm(models, "--json").output)
    text = ampmm(models).output
    assert rows
    for row in rows:
        card = load_model(row["name"]).card
        assert row["level_of_theory"] == card.level_of_theory and row["elements"]
        assert row["energy"] == card.errors[row["errors_on"]]["energy"]["mae"]
        assert row["megabytes"] > 0.0 and row["parameters"] == card.training["parameters"]
        assert row["name"] in text and row["formula"] in text and f"{row['forces_qm']:.3g}" in text
    assert ampmm(info, "--json").output == ampmm(models, "--json").output

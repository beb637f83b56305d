"""The commands train, export, info and evaluate, one after another."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from support.toy_frames import toy_frames

from ampmm.cli import evaluate, export, info, train
from ampmm.data import FrameWriter, WriterLock, read_frames
from ampmm.data.hdf5 import write_whole
from ampmm.data.splits import fingerprint
from ampmm.errors import DataFileError, InputError, ModelFileError
from ampmm.export import load_model


def ampmm(module, *arguments):
    return CliRunner().invoke(module.command, [str(argument) for argument in arguments], catch_exceptions=False)


def test_a_run_leaves_its_files(toy_folder):
    assert {path.name for path in (toy_folder / "run").iterdir()} == {"config.yaml", "checkpoint.pt", "log.csv", "model.pt"}
    log = np.genfromtxt(toy_folder / "run" / "log.csv", delimiter=",", names=True)
    assert log["step"].tolist() == [5.0, 10.0, 15.0, 20.0]


def test_an_existing_folder_is_refused_and_left_alone(toy_folder):
    before = (toy_folder / "run" / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match=r"run exists and is not overwritten; .* --resume"):
        ampmm(train, toy_folder / "train.yaml", "-o", toy_folder / "run")
    assert (toy_folder / "run" / "checkpoint.pt").read_bytes() == before


def test_an_empty_folder_is_taken(toy_folder, tmp_path):
    """One that was made before, or was left by a kill before the first checkpoint."""
    (tmp_path / "run").mkdir()
    assert ampmm(train, toy_folder / "train.yaml", "-o", tmp_path / "run").exit_code == 0


def test_amp_bms_is_exported_after_its_training(toy_folder, tmp_path):
    """Its native operators evaluate weights that ask for gradients, too."""
    settings = yaml.safe_load((toy_folder / "train.yaml").read_text())
    values = {"width": 16, "edge_width": 8, "head_width": 8, "n_channels": 2, "moment_divisor": 5.0}
    (tmp_path / "bms.yaml").write_text(yaml.safe_dump({**settings, "architecture": "amp-bms", "hyperparameters": values}))
    assert ampmm(train, tmp_path / "bms.yaml", "-o", tmp_path / "run", "--data", toy_folder / "frames.h5").exit_code == 0
    assert set(load_model(tmp_path / "run" / "model.pt").card.errors) == {"train", "validation", "test"}


def test_resume_needs_a_run(toy_folder, tmp_path):
    with pytest.raises(InputError, match="there is no run in"):
        ampmm(train, toy_folder / "train.yaml", "-o", tmp_path / "nothing", "--resume")


def test_a_complete_run_is_left_as_it_is(toy_folder, tmp_path):
    """An export with a licence and errors of other frames, say, which a script that always resumes would write over."""
    shutil.copytree(toy_folder / "run", tmp_path / "run")
    (tmp_path / "run" / "model.pt").write_bytes(b"exported again")
    result = ampmm(train, toy_folder / "train.yaml", "-o", tmp_path / "run", "--resume")
    assert result.exit_code == 0 and "the training is complete" in result.output
    assert (tmp_path / "run" / "model.pt").read_bytes() == b"exported again"
    (tmp_path / "run" / "model.pt").unlink()
    ampmm(train, toy_folder / "train.yaml", "-o", tmp_path / "run", "--resume")
    assert load_model(tmp_path / "run" / "model.pt").card.errors


def test_files_that_stand_in_the_place_of_more_are_noted(toy_folder, tmp_path):
    settings = yaml.safe_load((toy_folder / "train.yaml").read_text()) | {"extra_data": ["hot.h5", "cold.h5"], "steps": 2}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    result = ampmm(train, tmp_path / "train.yaml", "-o", tmp_path / "run", "--extra-data", toy_folder / "independent.h5")
    assert "--extra-data stands in the place of all of the configuration's extra_data: hot.h5, cold.h5" in result.output


def test_a_run_goes_on_when_frames_were_labelled_into_its_file_since(toy_folder, tmp_path):
    data = tmp_path / "frames.h5"
    data.write_bytes((toy_folder / "frames.h5").read_bytes())
    assert ampmm(train, toy_folder / "train.yaml", "-o", tmp_path / "run", "--data", data).exit_code == 0
    frames, header = toy_frames(5, seed=5), read_frames(data).header
    with FrameWriter(data, header, frames.numbers, append=True) as writer:
        writer.append(*(frames.record(i)._replace(source_index=100 + i) for i in range(5)))
    ampmm(export, tmp_path / "run", "-o", tmp_path / "grown.pt", "--data", data)
    card, before = (load_model(path).card for path in (tmp_path / "grown.pt", tmp_path / "run" / "model.pt"))
    assert card.data["frames"] == 24
    assert card.errors["test"]["energy"] == pytest.approx(before.errors["test"]["energy"])
    again = ampmm(train, toy_folder / "train.yaml", "-o", tmp_path / "run", "--data", data, "--resume")
    assert again.exit_code == 0 and "of 24 in" in again.output


def test_labels_of_another_level_are_compared_up_to_a_constant_if_asked(toy_folder, tmp_path):
    frames = read_frames(toy_folder / "independent.h5")
    other = dataclasses.replace(frames.header, level_of_theory="PBE", level_settings={})
    for shift in (0.0, 1000.0):
        records = (frames.record(i)._replace(energy=frames.energy[i] + shift) for i in range(frames.n_frames))
        write_whole(tmp_path / f"shifted_{shift:g}.h5", other, frames.numbers, records)
    model = toy_folder / "run" / "model.pt"
    with pytest.raises(InputError, match="level of theory is 'PBE'"):
        ampmm(evaluate, model, tmp_path / "shifted_0.h5")
    zero, far = (ampmm(evaluate, model, tmp_path / f"shifted_{shift}.h5", "--other-level") for shift in (0, 1000))
    assert "the labels are PBE, not harmonic bonds" in zero.output + zero.stderr
    rows = [next(line for line in each.output.splitlines() if line.startswith("all")) for each in (zero, far)]
    assert rows[0] == rows[1]


def test_two_processes_do_not_write_one_run(toy_folder):
    with WriterLock(toy_folder / "run" / "checkpoint.pt"), pytest.raises(DataFileError, match="another process is writing"):
        ampmm(train, toy_folder / "train.yaml", "-o", toy_folder / "run", "--resume")


def test_bad_data_leaves_no_folder_behind(toy_folder, tmp_path):
    with pytest.raises(ValueError, match=r"missing.h5"):
        ampmm(train, toy_folder / "train.yaml", "-o", tmp_path / "run", "--data", tmp_path / "missing.h5")
    assert not (tmp_path / "run").exists()


def test_export_adds_independent_errors_to_the_card(toy_folder, tmp_path):
    target = tmp_path / "toy.pt"
    result = ampmm(export, toy_folder / "run", "-o", target, "--independent", toy_folder / "independent.h5")
    card = load_model(target).card
    assert "independent" in result.output
    assert set(card.errors) == {"train", "validation", "test", "independent"}
    assert card.data["evaluated_frames"]["independent"] == 6
    assert card.data["independent"]["independent"]["file"] == "independent.h5"
    (tmp_path / "copy.h5").write_bytes((toy_folder / "frames.h5").read_bytes())
    with pytest.raises(InputError, match="expected frames that are in no file of the training, got frame 0 of"):
        ampmm(export, toy_folder / "run", "-o", tmp_path / "other.pt", "--independent", tmp_path / "copy.h5")
    with pytest.raises(InputError, match=r"toy.pt exists and is not overwritten; .* --force"):
        ampmm(export, toy_folder / "run", "-o", target)


def test_what_the_parent_learned_is_not_independent(toy_folder, tmp_path):
    shutil.copytree(toy_folder / "run", tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    state["parent"] = {"name": "toy", "learned_from": {fingerprint(read_frames(toy_folder / "independent.h5")): {}}}
    torch.save(state, tmp_path / "run" / "checkpoint.pt")
    with pytest.raises(InputError, match="which the weights that its training began with had learned"):
        ampmm(export, tmp_path / "run", "-o", tmp_path / "toy.pt", "--independent", toy_folder / "independent.h5")


def test_extra_files_of_one_name_are_all_in_the_card():
    assert export._names(["a/labels.h5", "b/labels.h5", "hot.h5"]) == ["labels", "labels-2", "hot"]


def test_exported_weights_are_the_averaged_ones(toy_folder, toy_model):
    state = torch.load(toy_folder / "run" / "checkpoint.pt", weights_only=True)
    for name, value in toy_model.module.named_parameters():
        assert torch.equal(value, state["average"][f"module.{name}"])
    assert any(not torch.equal(v, state["model"][n]) for n, v in toy_model.module.named_parameters())


def test_export_of_what_is_no_run(tmp_path):
    with pytest.raises(InputError, match=r"holds no config.yaml; expected a folder of `ampmm train`"):
        ampmm(export, tmp_path, "-o", tmp_path / "toy.pt")


def test_info_prints_the_card(toy_folder, toy_model):
    path = toy_folder / "run" / "model.pt"
    text = ampmm(info, path).output
    for expected in ("AMP(1)-DP", "H2O", "harmonic bonds and point charges", "validation", "H-O", "300, 350"):
        assert expected in text
    assert json.loads(ampmm(info, path, "--json").output) == json.loads(toy_model.card.to_json())


def test_info_without_a_model_lists_the_shipped_ones():
    assert isinstance(json.loads(ampmm(info, "--json").output), list)
    assert ampmm(info).output.strip()


def test_evaluate_repeats_the_errors_of_the_card(toy_folder, toy_model, tmp_path):
    result = ampmm(evaluate, toy_folder / "run" / "model.pt", toy_folder / "frames.h5", "-o", tmp_path / "report",
                   "--log", toy_folder / "run" / "log.csv")  # fmt: skip
    assert all(part in result.output for part in ("train", "validation", "test"))
    stored = json.loads((tmp_path / "report" / "errors.json").read_text())["errors"]
    for part, quantities in toy_model.card.errors.items():
        for quantity, expected in quantities.items():
            assert stored[part][quantity] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    plots = {"parity_train.png", "parity_validation.png", "parity_test.png", "learning_curve.png"}
    assert plots <= {path.name for path in (tmp_path / "report").iterdir()}
    again = [toy_folder / "run" / "model.pt", toy_folder / "frames.h5", "-o", tmp_path / "report"]
    with pytest.raises(InputError, match="report holds files, which are never overwritten"):
        CliRunner().invoke(evaluate.command, list(map(str, again)), catch_exceptions=False)
    with pytest.raises(ModelFileError, match=r"got the folder .*run; give the .*model\.pt in it"):
        load_model(toy_folder / "run")


def test_evaluate_takes_an_independent_file_whole(toy_folder):
    output = ampmm(evaluate, toy_folder / "run" / "model.pt", toy_folder / "independent.h5", "--limit", 4).output
    assert "4 of 6" in output
    assert "train" not in output


def test_learning_curve_needs_a_folder(toy_folder):
    with pytest.raises(InputError, match="give --output too"):
        ampmm(evaluate, toy_folder / "run" / "model.pt", toy_folder / "frames.h5", "--log", toy_folder / "run" / "log.csv")

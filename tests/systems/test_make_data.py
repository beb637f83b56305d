"""systems/make_data.py: the data sets of the recipes as commands that ampmm understands."""

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from ampmm.simulation.sampling import SamplingSettings

SYSTEMS = Path(__file__).resolve().parents[2] / "systems"


@pytest.fixture
def make_data(monkeypatch):
    monkeypatch.syspath_prepend(str(SYSTEMS))
    return importlib.import_module("make_data")


def parsed(words):
    """The options of an ampmm command line, as click understands it."""
    name, *rest = words
    command = importlib.import_module(f"ampmm.cli.{name}").command
    with click.Context(command):
        return command.make_context(name, rest).params


@pytest.mark.parametrize("name", ["uracil", "ra", "sam"])
def test_every_command_is_one_of_ampmm(make_data, name, tmp_path):
    todo = make_data.commands(SYSTEMS / name, tmp_path, 2, 1.0)
    trajectories = []
    for sampling, label in todo:
        files = []
        for words in sampling:
            options = parsed(words)
            fields = SamplingSettings.__dataclass_fields__
            SamplingSettings(**{key: value for key, value in options.items() if key in fields})  # refuses what it cannot run
            assert options["seed"] == options["trajectory_id"]
            trajectories.append(options["trajectory_id"])
            files.append(options["output"])
        labelled = parsed(label)
        assert [Path(each) for each in labelled["frames"]] == files and labelled["workers"] == 2
    assert len(set(trajectories)) == len(trajectories)


@pytest.mark.parametrize("name", ["uracil", "ra", "sam"])
def test_the_sets_have_ten_thousand_frames_and_the_names_that_training_expects(make_data, name, tmp_path):
    frames = {}
    for sampling, label in make_data.commands(SYSTEMS / name, tmp_path, 1, 1.0):
        options = [parsed(words) for words in sampling]
        frames[Path(parsed(label)["output"]).name] = sum(round(1e3 * each["time"] / each["interval"]) for each in options)
    wanted = set()
    for path in SYSTEMS.glob(f"{name}/*.yaml"):
        settings = yaml.safe_load(path.read_text())
        if settings.get("name") == name and "n_train" in settings:
            wanted |= {settings["data"], *settings.get("extra_data", [])}
            assert settings["n_train"] + settings["n_validation"] + settings["n_test"] <= frames[settings["data"]]
    assert wanted and sum(frames[each] for each in wanted) >= 10_000


def test_a_trajectory_that_was_begun_is_resumed(make_data, tmp_path):
    (tmp_path / "trajectory_1.h5").touch()
    (sampling, _), *_ = make_data.commands(SYSTEMS / "uracil", tmp_path, 1, 0.5)
    options = [parsed(words) for words in sampling]
    assert [each["resume"] for each in options] == [True, False, False, False]
    assert [each["time"] for each in options] == [15.0] * 4


def test_a_failure_names_command_and_log(make_data, tmp_path):
    log = tmp_path / "log"
    with pytest.raises(SystemExit, match=r"`ampmm label .* failed with exit code 1; what it printed is in"):
        make_data.run(["label", str(tmp_path / "none.h5"), "-o", str(tmp_path / "out.h5")], log)
    assert "none.h5" in log.read_text()


def test_dry_run_does_nothing(tmp_path):
    words = [sys.executable, str(SYSTEMS / "make_data.py"), "ra", "-o", str(tmp_path / "out"), "--dry-run"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ampmm sample ") and not (tmp_path / "out").exists()


def test_sets_can_be_made_one_by_one(make_data, tmp_path):
    (only,) = make_data.commands(SYSTEMS / "sam", tmp_path, 1, 1.0, ["sam_gfn2_300K"])
    assert Path(parsed(only[1])["output"]).name == "sam_gfn2_300K.h5"
    with pytest.raises(SystemExit, match=r"--only: expected sets of .*sam_gfn2_300K.*, got sam_gfn3"):
        make_data.commands(SYSTEMS / "sam", tmp_path, 1, 1.0, ["sam_gfn3"])

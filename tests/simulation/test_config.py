"""Settings: unknown names, wrong types and contradictions are refused with a message that helps."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from ampmm.errors import InputError
from ampmm.simulation.assemble import assemble, model_device
from ampmm.simulation.config import SimulationConfig, config_from, read_settings, write_config
from ampmm.simulation.system_files import find_system, known_systems, read_system


def test_unknown_name_is_refused_with_the_nearest_and_the_known():
    with pytest.raises(InputError, match=r"unknown setting 'temprature'; did you mean 'temperature'.*Known: system, form"):
        config_from({"temprature": 300})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: expected a positive number, got 0"),
        ({"steps": 2.5}, "steps: expected a whole number, got 2.5"),
        ({"steps": True}, "steps: expected a whole number, got True"),
        ({"cuda_graphs": 1}, "cuda_graphs: expected true or false, got 1"),
        ({"cuda_graphs": True, "model": "classical"}, "cuda_graphs: expected it with a model, got it with classical"),
        ({"temperature": "warm"}, "temperature: expected a number, got 'warm'"),
        ({"temperature": float("nan")}, "temperature: expected a number, got nan"),
        ({"timestep": -0.5}, "timestep: expected a positive number, got -0.5"),
        ({"timestep": 0.0005}, "timestep: expected fs, 0.01 at least, got 0.0005; is this in ps"),
        ({"pressure": 5.0}, "pressure: expected it with the ensemble NPT alone, got 5 with NVT"),
        ({"friction": 5.0, "ensemble": "NVE"}, "friction: expected it with a thermostat, got 5 with NVE"),
        ({"backend": "python", "model": "classical"}, "backend: expected it with a model, got 'python' with classical"),
        ({"padding": 10.0}, "padding: expected it with a PDB or mmCIF file to solvate, got 10 Å with uracil"),
        ({"timestep": 0, "time": 1}, "timestep: expected a positive number"),
        ({"ensemble": "NVP"}, "ensemble: expected one of NVT, NPT, NVE, got 'NVP'"),
        ({"ensemble": "NPT", "form": "droplet"}, "a droplet has no box"),
        ({"electrostatics": "bare"}, "expected auto or reaction-field for a box, got 'bare'"),
        (
            {"report_interval": 30, "checkpoint_interval": 200},
            "checkpoint_interval: expected a multiple of report_interval 30, got 200",
        ),
        ({"steps": 10, "time": 1.0}, "expected steps or time, got both"),
        ({"time": -1.0}, "time: expected a positive number of ps"),
        ({"time": float("inf")}, "time: expected a positive number of ps"),
        ({"seed": 0}, "seed: expected 1 to"),
        ({"coordinates": "a.inpcrd"}, "coordinates: expected them with an Amber or GROMACS topology, got a.inpcrd with uracil"),
        ({"coordinates": "a.inpcrd", "system": "a.pdb", "preset": "tip3p"}, "got a.inpcrd with a.pdb"),
        ({"seed": 2**31}, "seed: expected 1 to"),
    ],
)
def test_bad_values(settings, message):
    with pytest.raises(InputError, match=message):
        config_from(settings)


def test_the_model_is_loaded_where_openmm_computes(monkeypatch):
    """On the GPU if OpenMM's CUDA platform is there and asked for, or may be chosen."""

    class Platform:
        def __init__(self, name: str) -> None:
            self.getName = lambda: name

    def devices(*platforms: str) -> list[str]:
        monkeypatch.setattr("openmm.Platform.getNumPlatforms", lambda: len(platforms))
        monkeypatch.setattr("openmm.Platform.getPlatform", lambda index: Platform(platforms[index]))
        return [model_device(config_from({"platform": platform})) for platform in ("auto", "CUDA", "CPU")]

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert devices("Reference", "CPU", "CUDA") == ["cuda", "cuda", "cpu"]
    assert devices("Reference", "CPU") == ["cpu"] * 3
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert devices("Reference", "CPU", "CUDA") == ["cpu"] * 3


@pytest.mark.parametrize(("report", "checkpoint"), [(20, 200), (30, 210), (500, 500)])
def test_checkpoints_follow_the_reports_where_only_those_are_given(report, checkpoint):
    assert config_from({"report_interval": report}).checkpoint_interval == checkpoint


def test_time_becomes_steps_of_the_given_length():
    assert config_from({"time": 1.0}).steps == 2000
    assert config_from({"time": 1.0, "timestep": 2.0}).steps == 500
    assert config_from({"temperature": 350}).temperature == 350.0


def test_written_config_reads_back_equal_and_is_frozen(tmp_path):
    config = SimulationConfig(steps=7, timestep=0.25, output=str(tmp_path / "µ"))
    write_config(config, tmp_path / "run.yaml")
    assert config_from(read_settings(tmp_path / "run.yaml")) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.steps = 8


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text", "a: [1", ""])
def test_files_that_hold_no_settings(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=r"run\.yaml"):
        read_settings(tmp_path / "run.yaml")


def test_systems_are_found_by_name_and_by_path(small_system):
    assert "uracil" in known_systems()
    assert find_system("uracil").name == "uracil"
    assert find_system(str(small_system)) == find_system(str(small_system / "system.yaml")) == small_system
    with pytest.raises(InputError, match=r"one of: .*uracil.*; got 'urasil'"):
        find_system("urasil")


def test_the_folder_of_a_run_is_named_after_the_system_however_that_was_given(small_system, monkeypatch):
    monkeypatch.chdir(small_system)
    for given in (".", "system.yaml", str(small_system), str(small_system / "system.yaml")):
        assert SimulationConfig(system=given).folder == Path("runs") / f"{small_system.name}-box"
    assert SimulationConfig(system="uracil").folder == Path("runs/uracil-box")


def test_part_of_a_charge_is_refused(small_system, tmp_path):
    (tmp_path / "system.yaml").write_text((small_system / "system.yaml").read_text().replace("qm_charge: 0", "qm_charge: 0.5"))
    for name in ("droplet.prmtop", "droplet.inpcrd"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"qm_charge: expected a whole number, got 0\.5"):
        read_system(str(tmp_path), "droplet")


def test_system_file_says_what_is_missing(small_system, tmp_path):
    text = (small_system / "system.yaml").read_text()
    (tmp_path / "system.yaml").write_text(text)
    with pytest.raises(InputError, match="box: file not found"):
        read_system(str(tmp_path), "box")
    (tmp_path / "system.yaml").write_text("".join(line for line in text.splitlines(True) if "wall_radius" not in line))
    for name in ("droplet.prmtop", "droplet.inpcrd"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="expected an entry 'wall_radius'"):
        read_system(str(tmp_path), "droplet")
    with pytest.raises(InputError, match="describes no 'slab'"):
        read_system(str(tmp_path), "slab")


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("wall_radius", "wall_radios", "droplet: unknown entry 'wall_radios'; did you mean 'wall_radius'"),
        ("qm_charge", "charge", "unknown entry 'charge'"),
        ("model:", "restraint: []\nmodel:", "unknown entry 'restraint'; did you mean 'restraints'"),
    ],
)
def test_misspelt_entries_of_a_system_file_are_not_passed_over(small_system, tmp_path, right, wrong, message):
    (tmp_path / "system.yaml").write_text((small_system / "system.yaml").read_text().replace(right, wrong))
    with pytest.raises(InputError, match=message):
        read_system(str(tmp_path), "droplet")


def test_a_system_that_no_model_ships_for_says_what_to_give(small_system, tmp_path):
    shutil.copytree(small_system, tmp_path / "new")
    file = tmp_path / "new" / "system.yaml"
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("model:")))
    message = r"a \.pt file, a shipped model's name \(.*uracil.*\) or 'classical', got nothing.*for small; give --model"
    with pytest.raises(InputError, match=message):
        assemble(config_from({"system": str(tmp_path / "new")}))

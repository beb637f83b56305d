"""Training configurations: unknown, missing and senseless values are named, and those of systems/ can be run."""

from pathlib import Path

import pytest
import yaml

from ampmm.errors import InputError
from ampmm.models import AMPConfig
from ampmm.training import TrainingConfig

REQUIRED = {"data": "frames.h5", "name": "toy"}
ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [path for path in sorted(ROOT.glob("systems/*/*.yaml")) if "hyperparameters" in yaml.safe_load(path.read_text())]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**REQUIRED, "learning_rat": 1e-3}, "unknown name 'learning_rat'; did you mean 'learning_rate'"),
        ({"name": "toy"}, "data must be given"),
        ({**REQUIRED, "learning_rate": "1e-3"}, "learning_rate: expected a number, got '1e-3'; YAML reads 1e-3 as text"),
        ({**REQUIRED, "steps": 10.5}, "steps: expected a whole number, got 10.5"),
        ({**REQUIRED, "steps": True}, "steps: expected a whole number, got True"),
        ({**REQUIRED, "steps": 0}, "steps: expected a positive number"),
        ({**REQUIRED, "split": "shuffled"}, "split: expected one of random, temporal"),
        ({**REQUIRED, "force_weight": 1.5}, "force_weight: expected 0 to 1"),
        ({**REQUIRED, "ema_decay": 1.0}, "ema_decay: expected 0 to below 1"),
        ({**REQUIRED, "seed": -1}, "seed: expected 0 or more, got -1"),
        ({**REQUIRED, "steps": 4, "warmup_steps": 4}, "warmup_steps: expected fewer than steps, 4, got 4"),
        ({**REQUIRED, "extra_data": "hot.h5"}, "extra_data: expected a list of text, .*, got 'hot.h5'"),
        ({**REQUIRED, "extra_data": [1]}, r"extra_data: expected a list of text, .*, got \[1\]"),
        ({**REQUIRED, "extra_data": None}, "extra_data: expected a list of text, .*or no line at all, got None"),
        ({**REQUIRED, "base_data": None}, "base_data: expected a list of text, .*or no line at all, got None"),
        ({**REQUIRED, "hyperparameters": None}, "hyperparameters: expected a mapping .*or no line at all, got None"),
        ({**REQUIRED, "hyperparameters": {3: 1}}, "hyperparameters: expected a mapping of names to values, .*, got {3: 1}"),
    ],
)
def test_bad_values_are_refused_by_name(values, message):
    with pytest.raises(InputError, match=message):
        TrainingConfig.from_dict(values)


def test_yaml_round_trip(tmp_path):
    import yaml

    config = TrainingConfig.from_dict({**REQUIRED, "learning_rate": 2.0e-3, "hyperparameters": {"order": 2}})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.to_dict()))
    assert TrainingConfig.from_yaml(path) == config


@pytest.mark.parametrize("text", ["- a\n- b\n", "data: [unclosed\n"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"training configuration .*config.yaml"):
        TrainingConfig.from_yaml(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.yaml"):
        TrainingConfig.from_yaml(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_configurations_of_the_systems_can_be_run(path):
    config = TrainingConfig.from_yaml(path)
    AMPConfig.from_dict({"elements": (1, 6), **config.hyperparameters})
    if config.start_from.endswith(".pt"):
        assert (ROOT / config.start_from).is_file()

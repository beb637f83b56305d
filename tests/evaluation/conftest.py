"""A small model trained on the toy for a moment, as the commands leave it."""

import pytest
import yaml
from click.testing import CliRunner
from support.toy_frames import toy_frames, write_frames

CONFIG = {
    "name": "toy",
    "hyperparameters": {
        "order": 1, "width": 8, "n_layers": 2, "multipole_scale": 0.1, "energy_scale": 10.0, "charge_scale": 0.1,
    },
    "n_train": 16, "n_validation": 4, "n_test": 4, "steps": 20, "batch_size": 4, "learning_rate": 3.0e-3,
    "final_learning_rate": 1.0e-3, "gradient_clip": 100.0, "ema_decay": 0.5, "validation_interval": 5,
    "checkpoint_interval": 10,
}  # fmt: skip


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory):
    """Holds frames.h5 (24 frames), independent.h5 (6 others), train.yaml and run/ with the finished run."""
    from ampmm.cli.train import command

    folder = tmp_path_factory.mktemp("toy")
    write_frames(folder / "frames.h5", toy_frames(24))
    write_frames(folder / "independent.h5", toy_frames(6, seed=9))
    (folder / "train.yaml").write_text(yaml.safe_dump({"data": str(folder / "frames.h5"), **CONFIG}))
    result = CliRunner().invoke(command, [str(folder / "train.yaml"), "-o", str(folder / "run")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="session")
def toy_model(toy_folder):
    """The run's model.pt, loaded."""
    from ampmm.export import load_model

    return load_model(toy_folder / "run" / "model.pt")

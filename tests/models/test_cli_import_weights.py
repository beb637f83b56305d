"""`ampmm import-weights`, on a state dict of random numbers."""

import pytest
import torch
from click.testing import CliRunner
from support.bms_models import state_like_the_published

from ampmm.cli import import_weights, info
from ampmm.errors import InputError, ModelFileError
from ampmm.export import load_model
from ampmm.models.amp_bms_weights import TRAINED_ELEMENTS


def ampmm(module, *arguments):
    return CliRunner().invoke(module.command, [str(argument) for argument in arguments], catch_exceptions=False)


def test_a_file_becomes_a_model_with_its_card(tmp_path):
    torch.save(state_like_the_published(n_channels=4), tmp_path / "weights")
    (tmp_path / "params.yaml").write_text("n_channels: 4\ncutoff: 4.5\n")
    result = ampmm(import_weights, tmp_path / "weights", "-o", tmp_path / "out.pt", "--params", tmp_path / "params.yaml")
    assert "not needed: mu.MASSES" in result.output and "148, 28133" in result.output
    card = load_model(tmp_path / "out.pt").card
    assert card.qm_charge is None and card.composition == () and card.elements == TRAINED_ELEMENTS
    assert card.hyperparameters["n_channels"] == 4 and card.license == "MIT" and "28133" in card.citation
    assert card.cutoffs == {"qm": 4.5, "polarization": 8.0, "long_range": 14.0, "coulomb": 9.0}
    assert card.data["file"] == "weights" and len(card.data["sha256"]) == 64
    shown = ampmm(info, tmp_path / "out.pt").output
    assert " ".join(shown.split()).count("net charge any") == 1 and "AMP-BMS" in shown


def test_what_cannot_be_done_is_said(tmp_path):
    torch.save(state_like_the_published(), tmp_path / "weights")
    (tmp_path / "there.pt").touch()
    for arguments, message in (
        ((tmp_path / "weights", "-o", tmp_path / "there.pt"), "exists and is not overwritten"),
        ((tmp_path / "weights", "-o", tmp_path / "out.bin"), "expected a name that ends in .pt"),
        ((tmp_path / "weights", "-o", tmp_path / "none" / "out.pt"), "does not exist"),
        ((tmp_path / "weights", "-o", tmp_path / "out.pt", "--params", tmp_path / "none.yaml"), "cannot be read"),
        ((tmp_path / "absent", "-o", tmp_path / "out.pt"), "no such file"),
    ):
        with pytest.raises((InputError, ModelFileError), match=message):
            ampmm(import_weights, *arguments)
    assert not (tmp_path / "out.pt").exists()

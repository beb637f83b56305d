"""Loaded models with native operators: the file stays as it is, the numbers too."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.bms_models import write_small_bms
from support.native_library import library_missing

import ampmm
from ampmm.errors import InputError, ModelFileError
from ampmm.export import load_scripted, save_model, uses_native_operators
from ampmm.export.native_modules import with_native_operators

pytestmark = pytest.mark.skipif(bool(library_missing()), reason=library_missing())


@pytest.fixture(scope="module")
def uracil():
    return ampmm.load_model("uracil")


def plain(model):
    """The module as it lies in the file."""
    return torch.jit.load(str(model.path)).eval()


def frame(model):
    """Atoms of the model's elements on a bent chain, five charges around it."""
    numbers = np.array(model.card.composition)
    index = np.arange(len(numbers))
    qm = np.stack([1.2 * index, 0.7 * (index % 2), 0.3 * (index % 3)], axis=1)
    mm = np.array([[0.0, 4.0, 0.0], [3.0, -3.5, 1.0], [6.0, 4.0, -2.0], [9.0, -3.0, 2.0], [12.0, 3.5, 1.0]])
    return numbers, qm, mm, np.array([0.4, -0.8, 0.4, 0.4, -0.4])


def test_a_loaded_model_uses_them_and_gives_what_the_file_gives(uracil):
    assert uses_native_operators(uracil.module) and not uses_native_operators(plain(uracil))
    twin = type(uracil)(plain(uracil), uracil.card, uracil.path)
    got, wanted = uracil.evaluate(*frame(uracil)), twin.evaluate(*frame(uracil))
    assert got.energy == pytest.approx(wanted.energy, abs=1e-5 * abs(wanted.forces_qm).max())
    for one, other in ((got.forces_qm, wanted.forces_qm), (got.forces_mm, wanted.forces_mm)):
        assert abs(one - other).max() <= 1e-5 * abs(other).max()


def test_files_of_amp_bms_use_them_too(tmp_path):
    """With the frequencies of the file, which are weights there."""
    path = write_small_bms(tmp_path / "bms.pt")
    loaded, archive = ampmm.load_model(path), torch.jit.load(str(path))
    assert uses_native_operators(loaded.module) and not uses_native_operators(archive)
    moved = torch.jit.load(str(path))
    with torch.no_grad():
        moved.geometry.radial.frequencies.mul_(1.01)
    exchanged = with_native_operators(moved, loaded.card)
    assert uses_native_operators(exchanged)
    torch.testing.assert_close(exchanged.geometry.twin.radial.frequencies, moved.geometry.radial.frequencies)
    here = torch.tensor([[0.9, -1.2, 2.0]])
    for own, other in zip(exchanged.geometry(here), moved.geometry(here), strict=True):
        torch.testing.assert_close(own, other)


def test_other_weights_are_not_taken_for_the_file(uracil):
    """The comparison at loading sees a model that is another one."""
    other = plain(uracil)
    card = replace(uracil.card, hyperparameters={**uracil.card.hyperparameters, "energy_scale": 9.0})
    assert with_native_operators(other, card) is other


def test_the_scripts_default_precision_does_not_matter(uracil):
    torch.set_default_dtype(torch.float64)
    try:
        loaded = ampmm.load_model("uracil")
        assert uses_native_operators(loaded.module) and torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert loaded.evaluate(*frame(uracil)).energy == uracil.evaluate(*frame(uracil)).energy


def test_native_operators_stay_out_of_files(uracil, tmp_path):
    with pytest.raises(InputError, match="native operators"):
        save_model(tmp_path / "model.pt", uracil.module, uracil.card)


def test_an_archive_with_them_says_what_is_missing(uracil, tmp_path, monkeypatch):
    torch.jit.save(uracil.module, str(tmp_path / "native.pt"))
    archive = (tmp_path / "native.pt").read_bytes()
    assert uses_native_operators(load_scripted(archive))

    def unknown(_, map_location=None):
        raise RuntimeError("Unknown builtin op: ampmm::pair_sum.")

    monkeypatch.setattr(torch.jit, "load", unknown)
    monkeypatch.setattr("ampmm.nn.native.load", lambda: "not built")
    with pytest.raises(ModelFileError, match="AMPMM_NATIVE=0"):
        load_scripted(archive)

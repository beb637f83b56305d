"""Loaded models with native operators: the file stays as it is, the numbers too."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.bms_models import write_small_bms
from support.native_library import library_missing

import ampmm
from ampmm.errors import InputError, ModelFileError
from ampmm.export import load_scripted, native_modules, save_model, uses_native_operators
from ampmm.export.native_modules import with_native_operators
from ampmm.nn import native

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

    monkeypatch.setattr("ampmm.nn.native.load", lambda: "")
    with pytest.raises(ModelFileError, match=r"of another version of ampmm \(Unknown builtin op: ampmm::pair_sum"):
        load_scripted(archive)


def test_an_archive_with_operators_for_a_gpu_loads_without_kernels_for_one(uracil, tmp_path, monkeypatch):
    """On the CPU it gives the same; what is called on a GPU all the same says what to do."""
    with monkeypatch.context() as pretended:
        pretended.setattr(native, "gpu_device", lambda: "cuda")
        torch.jit.save(with_native_operators(plain(uracil), uracil.card), str(tmp_path / "gpu.pt"))
    module = load_scripted((tmp_path / "gpu.pt").read_bytes())
    written = str(module.inlined_graph)
    assert all(f"ampmm::{name}" in written for name in ("atom_linear", "atom_network", "with_norms"))
    again = type(uracil)(module, uracil.card, uracil.path)
    assert abs(again.evaluate(*frame(uracil)).forces_qm - uracil.evaluate(*frame(uracil)).forces_qm).max() < 1e-2
    if native.gpu_device() == "":
        x = torch.zeros(2, 3)
        with pytest.raises(RuntimeError, match=r"built without kernels for the GPU; build them again"):
            torch.ops.ampmm.atom_linear(x, x, None)
        with pytest.raises(RuntimeError, match=r"built without kernels for the GPU"):
            torch.ops.ampmm.padded_pairs(x, x, None, x, 1.0, 1, 0, 1.0, False)


def test_the_frames_compared_on_a_gpu_are_large_enough_and_sane(uracil):
    wanted, got = (native_modules._evaluate(each, uracil.card, 9000) for each in (plain(uracil), uracil.module))
    n = len(uracil.card.elements) + 1
    assert n * len(got.forces_mm) >= 9000
    alone = native_modules._evaluate(plain(uracil), uracil.card)
    assert wanted.forces_qm.abs().max() < 10 * alone.forces_qm.abs().max()
    assert native_modules._same(plain(uracil), uracil.module, uracil.card, 9000)
    torch.testing.assert_close(got.forces_qm, wanted.forces_qm, rtol=1e-4, atol=1e-3 * float(wanted.forces_qm.abs().max()))


def test_a_comparison_that_fails_leaves_the_archive_as_it_is(uracil, monkeypatch):
    usual = native_modules._evaluate

    def evaluate(module, *others):
        if uses_native_operators(module):
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
        return usual(module, *others)

    archive = plain(uracil)
    monkeypatch.setattr(native_modules, "_evaluate", evaluate)
    assert with_native_operators(archive, uracil.card) is archive


def test_a_model_on_the_cpu_is_compared_on_the_gpu_too(uracil, monkeypatch):
    """Here one that is not there, so that the comparison fails."""
    monkeypatch.setattr(native, "gpu_device", lambda: "cuda")
    compared = []
    monkeypatch.setattr(native_modules, "_same", lambda module, other, card, n_pairs=0: not compared.append(n_pairs))
    archive = plain(uracil)
    exchanged = with_native_operators(archive, uracil.card)
    assert exchanged is not archive and compared == ([0, 2000, 9000] if torch.cuda.is_available() else [0])
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert with_native_operators(archive, uracil.card) is archive

"""Importing published weights: every key is mapped or named, what does not fit is refused, no code is run."""

import pickle

import pytest
import torch
from support.amp_models import random_region
from support.bms_models import WEIGHTS, evaluate, needs_reference, state_like_the_published

from ampmm.errors import InputError, ModelFileError
from ampmm.models import import_weights
from ampmm.models.amp_bms_weights import TRAINED_ELEMENTS, read_weights


def written(tmp_path, state):
    path = tmp_path / "weights"
    torch.save(state, path)
    return path


def test_every_key_reaches_the_model_or_is_named(tmp_path):
    state = state_like_the_published()
    imported = import_weights(written(tmp_path, state))
    assert set(imported.unused) == {"mu.MASSES", "theta.MASSES"}
    region = random_region(4, 6)
    region = region._replace(qm=0.8 * region.qm)

    def energy_and_forces(path) -> torch.Tensor:
        result = evaluate(import_weights(path).model.double(), region)
        return torch.cat([result.energies.total, result.energies.charges, result.forces_qm.flatten()]).detach()

    before = energy_and_forces(written(tmp_path, state))
    for name, tensor in state.items():
        moved = energy_and_forces(written(tmp_path, state | {name: 1.5 * tensor}))
        assert (name in imported.unused) == bool(torch.equal(moved, before)), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("V.potential.4.weight"), "lacks V.potential.4.weight"),
        (lambda state: state.update({"V.extra": torch.zeros(1)}), "unknown V.extra"),
        (lambda state: state.update({"QM_monos.0.weight": torch.zeros(64, 127)}), "expected QM_monos.0.weight of shape"),
        (lambda state: state["D4.C6_0"].fill_(float("nan")), "D4.C6_0 has values that are NaN"),
        (lambda state: state.update({"V.potential.0.bias": "text"}), "expected a PyTorch state dict"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    state = state_like_the_published()
    change(state)
    with pytest.raises(ModelFileError, match=message):
        import_weights(written(tmp_path, state))


def test_other_hyperparameters_can_be_given(tmp_path):
    path = written(tmp_path, state_like_the_published(n_channels=4, n_layers=3))
    model = import_weights(path, {"n_channels": 4, "n_layers": 3, "cutoff": 5.0}).model
    assert len(model.hidden_layers) == 2 and model.cutoff == 5.0
    with pytest.raises(ModelFileError, match=r"unknown eq_message_layers\.2\.0\.bias"):
        import_weights(path)
    with pytest.raises(InputError, match="unknown name"):
        import_weights(path, {"n_chanels": 4})
    with pytest.raises(InputError, match="elements"):
        import_weights(path, {"n_channels": 4, "n_layers": 3, "elements": [54]})


def test_truncated_missing_and_foreign_files_are_refused(tmp_path):
    path = written(tmp_path, state_like_the_published())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelFileError, match="no PyTorch state dict"):
        import_weights(path)
    with pytest.raises(ModelFileError, match="no such file"):
        import_weights(tmp_path / "absent")
    path.write_text("text")
    with pytest.raises(ModelFileError, match="no PyTorch state dict"):
        import_weights(path)


class RunsCode:
    def __reduce__(self):
        return (open, ("ran", "w"))


def test_code_in_a_file_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"V": RunsCode()}, tmp_path / "zip")
    (tmp_path / "pickle").write_bytes(pickle.dumps({"V": RunsCode()}, protocol=2))
    for name in ("zip", "pickle"):
        with pytest.raises(ModelFileError):
            import_weights(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@needs_reference
def test_the_published_file_is_whole():
    imported = import_weights(WEIGHTS, {"elements": range(1, 54)})
    assert sum(parameter.numel() for parameter in imported.model.parameters()) == pytest.approx(0.42e6, rel=0.02)
    assert (imported.model.free_c6 > 0.0).all() and (imported.model.sqrt_r4r2 > 0.0).all()


@needs_reference
def test_elements_that_were_not_trained_are_not_offered():
    """Their rows of the embedding are still standard normal numbers; those of trained elements have become small."""
    sizes = read_weights(WEIGHTS)["node_embedding.embedding.weight"].square().mean(dim=1)
    assert import_weights(WEIGHTS).model.hyperparameters.elements == TRAINED_ELEMENTS
    trained = torch.tensor(TRAINED_ELEMENTS)
    assert sizes[trained].max() < 0.3
    others = [number for number in range(len(sizes)) if number not in TRAINED_ELEMENTS]
    assert sizes[others].min() > 0.5

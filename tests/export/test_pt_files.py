"""`.pt` files: what is saved comes back; what is no such file is refused with a reason, and no pickle is executed."""

import io
import json
import pickle
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.amp_models import evaluate, random_region, small_model
from support.model_files import small_card, write_small_model

import ampmm.export.torchscript as torchscript
from ampmm.errors import InputError, ModelFileError
from ampmm.export import Card, load_model, save_model, shipped_models


class Evil:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w').write('executed')",))


def rewritten(source: Path, target: Path, change) -> Path:
    """A copy of an archive with `change(name, content) -> content or None` applied to its members."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def with_card(source: Path, target: Path, **changes) -> Path:
    """A copy of a model file with fields of its card changed, or left out when None."""

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("ampmm_card.json"):
            return content
        values = json.loads(content) | changes
        return json.dumps({key: value for key, value in values.items() if value is not None}).encode()

    return rewritten(source, target, change)


def test_a_saved_model_comes_back_with_its_card(tmp_path):
    card = small_card(
        level_settings={"accuracy": 0.1}, errors={"test": {"energy": {"mae": 0.3}}}, composition=(8, 1, 1), citation="Å"
    )
    model, path = small_model("AMP(3)-DP", dtype=torch.float32), tmp_path / "water.pt"
    save_model(path, model, card)
    loaded = load_model(path)
    assert loaded.card == replace(card, hyperparameters=loaded.card.hyperparameters)
    assert type(model.hyperparameters).from_dict(loaded.card.hyperparameters) == model.hyperparameters
    region = random_region()
    region = region._replace(qm=region.qm.float(), mm=region.mm.float(), charges=region.charges.float())
    expected, got = evaluate(model, region), evaluate(loaded.module, region)
    torch.testing.assert_close(got.energies.total, expected.energies.total, rtol=0, atol=1e-4)
    torch.testing.assert_close(got.forces_qm, expected.forces_qm, rtol=1e-4, atol=1e-4)
    assert list(tmp_path.iterdir()) == [path]


def test_element_energies_survive_in_double_precision(tmp_path):
    model = small_model("GNN", dtype=torch.float32)
    model.element_energies = model.element_energies.double() - 1.0e6 - 1.0e-3
    save_model(tmp_path / "m.pt", model, small_card("GNN"))
    assert load_model(tmp_path / "m.pt").module.element_energies[0].item() == pytest.approx(-1.00001e6 - 1e-3, abs=1e-6)


def test_missing_file_and_unknown_name_list_the_known_models(monkeypatch, tmp_path):
    monkeypatch.setattr(torchscript, "shipped_models", lambda: ("uracil", "water"))
    with pytest.raises(ModelFileError, match=r"unknown name 'uracyl'; the shipped models are: uracil, water"):
        load_model("uracyl")
    with pytest.raises(
        ModelFileError, match=r"there is no file .*absent\.pt; give a \.pt file or a shipped model \(uracil, water\)"
    ):
        load_model(tmp_path / "absent.pt")
    with pytest.raises(ModelFileError, match="there is no file"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("device", "message"), [("gpu", "expected cpu, cuda or cuda:N, got 'gpu'"), ("cuda:99", "torch finds")]
)
def test_a_device_that_is_not_there(device, message):
    with pytest.raises(InputError, match=message):
        load_model("uracil", device=device)


def test_shipped_models_load_by_name():
    for name in shipped_models():
        assert load_model(name).card.name == name


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_file(model_file, tmp_path, kept):
    content = model_file.read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ModelFileError, match=r"cut\.pt: no TorchScript archive \(or a truncated one\)"):
        load_model(tmp_path / "cut.pt")


def test_random_bytes_and_text(tmp_path):
    (tmp_path / "noise.pt").write_bytes(random.Random(0).randbytes(10_000))
    (tmp_path / "text.pt").write_text("a model, honestly")
    for name in ("noise.pt", "text.pt"):
        with pytest.raises(ModelFileError, match="no TorchScript archive"):
            load_model(tmp_path / name)


@pytest.mark.parametrize("seed", range(12))
def test_overwritten_bytes_are_refused_or_harmless(model_file, tmp_path, seed):
    """64 bytes of noise somewhere: either the damage is found, or it hit a part that is not read (alignment)."""
    chance, content = random.Random(seed), bytearray(model_file.read_bytes())
    start = chance.randrange(len(content) - 64)
    content[start : start + 64] = chance.randbytes(64)
    (tmp_path / "hit.pt").write_bytes(content)
    try:
        damaged = load_model(tmp_path / "hit.pt")
    except ModelFileError:
        return
    for got, expected in zip(damaged.module.parameters(), load_model(model_file).module.parameters(), strict=True):
        assert torch.equal(got, expected)


def test_a_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelFileError, match="archive cannot be read"):
        load_model(tmp_path / "other.pt")


def test_torchscript_without_a_card(tmp_path):
    torch.jit.save(torch.jit.script(small_model("GNN")), str(tmp_path / "bare.pt"))
    with pytest.raises(ModelFileError, match="without an ampmm card"):
        load_model(tmp_path / "bare.pt")


@pytest.mark.parametrize("kind", ["torch.save", "legacy torch.save", "pickle", "inside TorchScript"])
def test_no_pickle_is_executed(model_file, tmp_path, kind):
    path, witness = tmp_path / "evil.pt", tmp_path / "executed"
    evil = Evil(witness)
    if kind == "inside TorchScript":
        bomb = io.BytesIO()
        pickle.dump(evil, bomb, protocol=2)
        rewritten(model_file, path, lambda name, content: bomb.getvalue() if name.endswith("data.pkl") else content)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save({"model": evil}, path, _use_new_zipfile_serialization=kind == "torch.save")
    with pytest.raises(ModelFileError):
        load_model(path)
    assert not witness.exists()
    pickle.loads(pickle.dumps(evil))  # the same object would have written it
    assert witness.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "format version 99, this ampmm reads 1"),
        ({"format_version": None}, "format version None"),
        ({"units": {"length": "nm"}}, "expected the units"),
        ({"elements": None}, r"lacks \['elements'\]"),
        ({"elements": []}, "expected elements as a list of atomic numbers"),
        ({"elements": ["C", "H"]}, "expected elements as a list of atomic numbers"),
        ({"elements": [1, 500]}, "expected elements as a list of atomic numbers"),
        ({"composition": "H2O"}, "expected composition as a list of atomic numbers"),
        ({"composition": [1, 17]}, r"composition has elements \[17\] that the model does not know"),
        ({"qm_charge": "neutral"}, "expected qm_charge as a whole number"),
        ({"cutoffs": {"qm": 3.0}}, "expected cutoffs qm and polarization"),
        ({"cutoffs": {"qm": 4.0, "polarization": 4.5}}, "card gives a qm cutoff of 4.0 Å, its model has 3.0"),
        ({"favourite_colour": "green"}, r"unknown fields \['favourite_colour'\]"),
    ],
)
def test_a_wrong_card_is_refused_with_the_field(model_file, tmp_path, changes, message):
    with pytest.raises(ModelFileError, match=message):
        load_model(with_card(model_file, tmp_path / "wrong.pt", **changes))


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b"\xff\xfe", b'"card"'])
def test_a_card_that_is_no_json_object(model_file, tmp_path, content):
    path = rewritten(model_file, tmp_path / "m.pt", lambda name, old: content if name.endswith("card.json") else old)
    with pytest.raises(ModelFileError, match=r"m\.pt: its card"):
        load_model(path)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_small_model(tmp_path / "m.pt", "GNN")
    before = path.read_bytes()

    def full(*args, **kwargs):
        Path(args[1]).write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")

    monkeypatch.setattr(torch.jit, "save", full)
    with pytest.raises(ModelFileError, match="cannot be written"):
        write_small_model(path, "GNN")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_save_refuses_a_missing_folder_double_precision_and_no_elements(tmp_path):
    model = small_model("GNN", dtype=torch.float32)
    with pytest.raises(ModelFileError, match="cannot be written"):
        save_model(tmp_path / "absent" / "m.pt", model, small_card("GNN"))
    with pytest.raises(InputError, match="expected float32"):
        save_model(tmp_path / "m.pt", small_model("GNN"), small_card("GNN"))
    with pytest.raises(InputError, match=r"card\.elements"):
        save_model(tmp_path / "m.pt", model, small_card("GNN", elements=(0, 1)))


def test_a_card_survives_json():
    card = small_card(data={"frames": 10}, bounds={"max_force_qm": 1.5})
    again = Card.from_json(card.to_json(), "memory")
    assert again == replace(card, hyperparameters=again.hyperparameters)

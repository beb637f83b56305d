"""Fine-tuning: a run that begins with a `.pt` file learns a higher level from few frames, and says where it came from."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from support.toy_frames import toy_frames

from ampmm.data.bounds import training_bounds, wider
from ampmm.data.combine import concatenated
from ampmm.data.splits import fingerprint
from ampmm.errors import InputError, ModelFileError
from ampmm.evaluation import describe_frames, make_card
from ampmm.export import save_model
from ampmm.training import Trainer, TrainingConfig, split_settings

CONFIG = TrainingConfig(
    data="toy.h5",
    name="toy",
    hyperparameters={"order": 1, "width": 16, "n_layers": 2, "multipole_scale": 0.1, "energy_scale": 10.0, "charge_scale": 0.1},
    n_train=32,
    n_validation=4,
    n_test=4,
    steps=150,
    batch_size=4,
    learning_rate=3.0e-3,
    final_learning_rate=3.0e-4,
    gradient_clip=100.0,
    ema_decay=0.9,
    validation_interval=50,
)
SHIFT = -5.0e5  # kJ/mol, between the levels' zeros of energy


def higher_level(n_frames: int, seed: int):
    """The toy at another level: stiffer, with another zero of energy."""
    frames = toy_frames(n_frames, seed=seed, level="a higher level")
    softer = toy_frames(n_frames, seed=seed)
    mean = softer.energy.mean()
    return frames._replace(energy=SHIFT + mean + 1.1 * (softer.energy - mean), forces_qm=1.1 * softer.forces_qm,
                           forces_mm=(1.1 * softer.forces_mm).astype(np.float32))  # fmt: skip


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A folder with the parent's checkpoint and its model.pt."""
    folder = tmp_path_factory.mktemp("parent")
    frames = toy_frames(40)
    run = Trainer(CONFIG, frames, folder)
    trained = run.run(progress=False)
    data = {**describe_frames(frames, "toy.h5"), "split": split_settings(CONFIG.to_dict())}
    card = make_card(name="cheap", model=trained.model, frames=frames, bounds=trained.bounds, data=data,
                     training={"steps": trained.steps}, command="test")  # fmt: skip
    save_model(folder / "model.pt", trained.model, card)
    return folder


def fine_tuning(tmp_path, **changes):
    config = dataclasses.replace(CONFIG, n_train=12, n_validation=12, n_test=4, **changes)
    tmp_path.mkdir(exist_ok=True)
    return Trainer(config, higher_level(40, seed=3), tmp_path)


def validation_errors(run):
    return np.array(run._validation_errors())


def test_a_model_file_and_its_run_give_the_same_start(parent, tmp_path):
    runs = [fine_tuning(tmp_path / str(i)) for i in range(3)]
    for run, source in zip(runs, (parent, parent / "checkpoint.pt", parent / "model.pt"), strict=True):
        run.start_from(source)
    first, *others = (run.model.state_dict() for run in runs)
    assert all(torch.equal(value, other[name]) for other in others for name, value in first.items())
    assert runs[0].parent["level_of_theory"] == runs[2].parent["level_of_theory"] == "harmonic bonds and point charges"
    assert runs[2].parent == {**runs[2].parent, "name": "cheap", "fingerprint": fingerprint(toy_frames(40)), "steps": 150}


def test_what_the_parent_saw_is_within_the_bounds(parent, tmp_path):
    for source in (parent, parent / "model.pt"):
        run = fine_tuning(tmp_path / source.name)
        own, seen = run.bounds, training_bounds(toy_frames(40), Trainer(CONFIG, toy_frames(40), parent).split.train)
        run.start_from(source)
        assert run.bounds == wider(own, seen) != own
        run.save()
        again = fine_tuning(tmp_path / source.name)
        again.resume()
        assert again.bounds == run.trained().bounds == run.bounds


def test_bounds_of_other_atoms_are_not_taken_over(parent, tmp_path):
    state = torch.load(parent / "checkpoint.pt", weights_only=True)
    state["system"]["atoms"] = "O H H H"
    (tmp_path / "other").mkdir()
    torch.save(state, tmp_path / "other" / "checkpoint.pt")
    run = fine_tuning(tmp_path / "own")
    own = run.bounds
    run.start_from(tmp_path / "other")
    assert run.bounds == own


def test_fine_tuning_beats_training_from_nothing(parent, tmp_path):
    fresh, tuned = fine_tuning(tmp_path / "fresh", steps=40), fine_tuning(tmp_path / "tuned", steps=40)
    tuned.start_from(parent / "model.pt")
    before = validation_errors(tuned)
    assert before[0] < 0.05 * abs(SHIFT) * 1e-3  # the offset has moved to the new level's zero
    for run in (fresh, tuned):
        run.run(progress=False)
    assert (validation_errors(tuned)[1:] < 0.5 * validation_errors(fresh)[1:]).all()
    assert validation_errors(tuned)[1] < before[1]


def test_the_parent_is_remembered_across_a_resume(parent, tmp_path):
    run = fine_tuning(tmp_path, start_from=str(parent))
    run.start_from(parent)
    run.save()
    again = fine_tuning(tmp_path, start_from=str(parent))
    again.resume()
    assert again.trained().parent == run.parent != {}


def test_what_was_learned_before_is_remembered_over_generations(parent, tmp_path):
    first = fingerprint(toy_frames(40))
    child = fine_tuning(tmp_path / "child")
    child.start_from(parent)
    split = {"scheme": "random", "seed": 0, "train": 32, "validation": 4, "test": 4}
    assert child.parent["learned_from"] == {first: {"frames": 40, **split}}
    child.save()
    grandchild = Trainer(dataclasses.replace(CONFIG, n_train=6, n_validation=2, n_test=2), higher_level(10, seed=8), tmp_path)
    grandchild.start_from(tmp_path / "child")
    second = fingerprint(higher_level(40, seed=3))
    own = {"frames": 40, **split_settings(child.config.to_dict())}
    assert grandchild.parent["learned_from"] == {**child.parent["learned_from"], second: own}


def test_another_split_of_what_the_parent_learned_warns(parent, tmp_path):
    """Its new test frames may be among those that were trained on."""
    with warnings.catch_warnings(action="error"):
        Trainer(CONFIG, toy_frames(40), tmp_path).start_from(parent)
    for changes in ({"seed": 1}, {"n_train": 30}, {"split": "temporal"}):
        with pytest.warns(UserWarning, match="another split, or from all of it: validation and test frames"):
            Trainer(dataclasses.replace(CONFIG, **changes), toy_frames(40), tmp_path).start_from(parent)
    grown = concatenated(toy_frames(40), [toy_frames(8, seed=5)])
    for source in (parent, parent / "model.pt"):
        with pytest.warns(UserWarning, match=r"40 of its 48 frames\) with another split"):
            Trainer(CONFIG, grown, tmp_path).start_from(source)


def test_a_folder_without_a_run_does_not_hide_a_shipped_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "uracil").mkdir()
    with pytest.raises(InputError, match="uracil has other hyperparameters than this run"):
        fine_tuning(tmp_path).start_from("uracil")


def test_what_does_not_fit_is_refused(parent, tmp_path):
    with pytest.raises(InputError, match=r"has other hyperparameters than this run: width: 16 there, 8 here"):
        fine_tuning(tmp_path, hyperparameters={**CONFIG.hyperparameters, "width": 8}).start_from(parent / "model.pt")
    with pytest.raises(InputError, match=r"uracil has other hyperparameters than this run: .*width: 128 there, 16 here"):
        fine_tuning(tmp_path).start_from("uracil")
    with pytest.raises(InputError, match=r"is of architecture 'amp', this run trains 'amp-bms'"):
        values = {"width": 16, "edge_width": 8, "head_width": 8, "n_channels": 2}
        fine_tuning(tmp_path, architecture="amp-bms", hyperparameters=values).start_from(parent / "model.pt")
    with pytest.raises(ModelFileError, match="unknown name 'no-such-model'"):
        fine_tuning(tmp_path).start_from("no-such-model")


@pytest.mark.parametrize("source", [".", "model.pt"])
def test_what_belongs_to_an_element_goes_by_element(parent, tmp_path, source):
    frames = higher_level(40, seed=3)
    run = Trainer(CONFIG, frames._replace(numbers=np.array([8, 1, 7])), tmp_path)  # 1, 7, 8; the parent knows 1 and 8
    own = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.start_from(parent / source)
    like_parent = fine_tuning(tmp_path / "like")
    like_parent.start_from(parent / "model.pt")
    theirs, longer = like_parent.model.state_dict(), set()
    for name, value in run.model.state_dict().items():
        if name == "element_energies":
            continue  # moved to the new frames' zero
        if value.shape == theirs[name].shape:
            assert torch.equal(value, theirs[name]), name
        else:
            longer.add(name)
            assert torch.equal(value[..., [0, 2]], theirs[name]) and torch.equal(value[..., 1], own[name][..., 1]), name
    assert "embedding.weight" in longer and len(longer) > 2
    run.run(progress=False)
    assert np.isfinite(validation_errors(run)).all()


def test_amp_bms_keeps_its_elements_in_the_rows_of_its_embedding(tmp_path):
    values = {"width": 16, "edge_width": 8, "head_width": 8, "n_channels": 2}
    config = dataclasses.replace(CONFIG, architecture="amp-bms", hyperparameters=values)
    folders = [tmp_path / name for name in ("water", "other")]
    for folder in folders:
        folder.mkdir()
    parent = Trainer(config, toy_frames(40), folders[0])  # elements 1, 8
    parent.save()
    run = Trainer(config, higher_level(40, seed=3)._replace(numbers=np.array([9, 8, 9])), folders[1])  # 8, 9
    own = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.start_from(folders[0])
    theirs, found = parent.model.state_dict(), run.model.state_dict()
    assert torch.equal(found["embedding.weight"][0], theirs["embedding.weight"][1])
    assert torch.equal(found["embedding.weight"][1], own["embedding.weight"][1])


def test_other_elements_altogether_are_refused(parent, tmp_path):
    run = Trainer(CONFIG, higher_level(40, seed=3)._replace(numbers=np.array([16, 9, 9])), tmp_path)
    with pytest.raises(InputError, match=r"knows the elements \[1, 8\], the data of this run have \[9, 16\]: none in common"):
        run.start_from(parent)


def test_whole_energies_are_no_start_for_differences(parent, tmp_path):
    config = dataclasses.replace(CONFIG, n_train=12, n_validation=12, n_test=4, base_data=["base.h5"])
    run = Trainer(config, higher_level(40, seed=3), tmp_path, base=[toy_frames(40, seed=3)])
    for source in (parent, parent / "model.pt"):
        with pytest.raises(InputError, match="has learned whole energies, this run learns differences to harmonic bonds and"):
            run.start_from(source)

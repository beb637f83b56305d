"""What an AMP model consists of: the paper's parameter count, the names of its variants, its configuration."""

import pytest
import torch

from ampmm.errors import InputError
from ampmm.models import AMP, AMPConfig, architectures, build_model

QM9_PARAMETERS = 1_153_793  # 4 layers, K = 3, printed in the paper


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_qm9_model_has_the_published_number_of_parameters():
    config = AMPConfig((1, 6, 7, 8, 9, 15, 16, 17), order=3, polarization=False, long_range=False, n_layers=4)
    assert count(AMP(config)) == pytest.approx(QM9_PARAMETERS, rel=1e-3)


def test_every_order_adds_parameters():
    counts = [count(AMP(AMPConfig((1, 6), order, False, False))) for order in (None, 0, 1, 2, 3)]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize(
    ("order", "polarization", "long_range", "name"),
    [(None, False, False, "GNN"), (None, False, True, "GNN-P"), (0, False, False, "AMP(0)"), (0, False, True, "AMP(0)-P"),
     (2, True, False, "AMP(2)-D"), (3, True, True, "AMP(3)-DP")],
)  # fmt: skip
def test_names(order, polarization, long_range, name):
    assert AMPConfig((1,), order, polarization, long_range).name == name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": 4}, "order: expected 0 to 3"),
        ({"order": -1}, "order: expected 0 to 3"),
        ({"order": 0}, "polarization: a -D model needs multipoles"),
        ({"order": None}, "polarization: a -D model needs multipoles"),
        ({"width": 0}, "width: expected a positive, finite number"),
        ({"multipole_scale": "1e-4"}, "multipole_scale: expected a number, got '1e-4'; YAML reads 1e-3 as text, write 1.0e-3"),
        ({"width": 128.0}, "width: expected a whole number, got 128.0"),
        ({"order": "3"}, "order: expected a whole number or null, got '3'"),
        ({"polarization": "false"}, "polarization: expected true or false, got 'false'"),
        ({"order": True}, "order: expected a whole number or null, got True"),
        ({"cutoff": float("nan")}, "cutoff: expected a positive, finite number"),
        ({"polarization_cutoff": float("inf")}, "polarization_cutoff: expected a positive, finite number"),
        ({"elements": (1, 1)}, "elements: expected distinct atomic numbers"),
        ({"elements": ()}, "elements: expected distinct atomic numbers"),
        ({"elements": (1, 0)}, "atomic number: expected 1"),
        ({"depth": 3}, "unknown name of AMPConfig 'depth'.* Known: elements, order"),
    ],
)
def test_bad_hyperparameters_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        build_model("amp", {"elements": (1, 6)} | changes)


def test_elements_are_needed_and_architectures_known():
    with pytest.raises(InputError, match="AMPConfig needs elements"):
        build_model("amp", {})
    with pytest.raises(InputError, match="expected one of amp, amp-bms, got 'schnet0'"):
        build_model("schnet0", {})
    assert "amp" in architectures()


def test_hyperparameters_survive_json_lists():
    config = AMPConfig((1, 8), 2, width=16)
    values = config.to_dict() | {"elements": [1, 8]}
    assert AMPConfig.from_dict(values) == config


def test_element_energies_are_added_in_double_precision():
    """A float32 model resolves 1e-3 kJ/mol next to atomic energies of 1e6."""
    model = AMP(AMPConfig((1, 8), 1, width=16))
    with pytest.raises(InputError, match="energies: expected the elements"):
        model.set_element_energies({1: 0.0})
    model.set_element_energies({1: -1.5, 8: -2.0e6})
    assert model.element_energies.tolist() == [-1.5, -2.0e6]
    assert model.element_energies.dtype == torch.float64

"""Conservation of charge, and the dipole."""

import pytest
import torch

from ampmm.physics.charges import conserve_charge, dipole_moment


def test_each_frame_is_shifted_by_one_constant_to_its_net_charge():
    raw, batch = torch.randn(9, dtype=torch.float64), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    net = torch.tensor([0.0, -1.0, 2.0], dtype=torch.float64)
    charges = conserve_charge(raw, batch, net)
    for frame in range(3):
        own = batch == frame
        assert charges[own].sum().item() == pytest.approx(net[frame].item(), abs=1e-13)
        shift = (charges - raw)[own]
        torch.testing.assert_close(shift, shift[:1].expand_as(shift))


def test_dipole_of_two_charges_points_to_the_positive_one():
    charges, positions = torch.tensor([-0.5, 0.5]), torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    assert dipole_moment(charges, positions).tolist() == [0.0, 0.0, 1.0]


def test_dipole_does_not_depend_on_the_origin_even_with_a_net_charge():
    charges, positions = torch.tensor([0.2, 0.5, 0.3]).double(), torch.randn(3, 3, dtype=torch.float64)
    torch.testing.assert_close(dipole_moment(charges, positions + 100.0), dipole_moment(charges, positions))

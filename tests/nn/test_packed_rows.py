"""The component-wise layout holds the same numbers as `ampmm.nn.multipoles`."""

import pytest
import torch

from ampmm.nn.multipoles import PackedTensors, quadrupole_tensors
from ampmm.nn.packed_rows import CartesianRows, PackedRows


@pytest.mark.parametrize("through", [torch.float64, torch.float32])
def test_rows_are_the_packed_tensors_whatever_precision_the_module_went_through(through):
    unit = torch.nn.functional.normalize(torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    rows = PackedRows().to(through).double()(unit.t().contiguous())
    torch.testing.assert_close(rows.t(), PackedTensors(2).double()(unit)[:, 4:], rtol=0, atol=1e-14)


def test_cartesian_rows_are_dipoles_and_tensors():
    moments = torch.randn(6, 8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    rows = CartesianRows()(moments).reshape(6, 4, 3, 4)  # (N, row, column, C)
    torch.testing.assert_close(rows[:, 0], moments[:, :3])
    tensors = quadrupole_tensors(moments[:, 3:].transpose(1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(rows[:, 1:], tensors, rtol=0, atol=1e-14)

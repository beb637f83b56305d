"""Listed pairs near at the moment: the native operator against the lists of the geometry room."""

import pytest
import torch
from support.native_library import library_missing

from ampmm.export.near_pairs import NearPairs
from ampmm.geometry.neighbors import pairs_between

BOXES = {
    "none": None,
    "cuboid": torch.diag(torch.tensor([14.0, 15.0, 16.0], dtype=torch.float64)),
    "triclinic": torch.tensor([[16.0, 0.0, 0.0], [2.0, 15.0, 0.0], [-3.0, 1.0, 17.0]], dtype=torch.float64),
}


@pytest.fixture(params=["twin", "native"])
def near_pairs(request, monkeypatch):
    """Either implementation, scripted, and what precision it is in."""
    if request.param == "native" and library_missing():
        pytest.skip(library_missing())
    if request.param == "twin":
        monkeypatch.setattr("ampmm.nn.native.available", lambda: False)

    def make(dtype: torch.dtype):
        module = NearPairs(dtype)
        assert module.native == (request.param == "native")
        return torch.jit.script(module)

    return make


@pytest.mark.parametrize("cutoff", [6.0, float("inf")])
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("n_others", [0, 1, 500])
def test_pairs_and_nearest_images(near_pairs, box, n_others, cutoff):
    generator = torch.Generator().manual_seed(n_others)
    positions = 20.0 * torch.rand(12, 3, dtype=torch.float64, generator=generator)
    others = 60.0 * torch.rand(n_others, 3, dtype=torch.float64, generator=generator) - 20.0
    centers = torch.arange(12).repeat_interleave(n_others)
    neighbors = torch.arange(n_others).repeat(12)
    wanted = pairs_between(positions, others, cutoff, box)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            got = near_pairs(torch.float64)(positions, others, centers, neighbors, box, cutoff)
            order = torch.argsort(wanted.centers * max(n_others, 1) + wanted.neighbors)
            assert torch.equal(got.centers, wanted.centers[order]) and torch.equal(got.neighbors, wanted.neighbors[order])
            torch.testing.assert_close(got.vectors, wanted.vectors[order], rtol=0, atol=1e-12)
            single = near_pairs(torch.float32)(positions, others, centers, neighbors, box, cutoff)
            assert single.vectors.dtype == torch.float32 and torch.equal(single.vectors, got.vectors.float())
    finally:
        torch.set_num_threads(before)

"""Nearest images and neighbour lists against brute force over all images."""

import itertools

import pytest
import torch

from ampmm.geometry.cell import has_nearer_image, in_one_piece, largest_cutoff, minimum_image
from ampmm.geometry.neighbors import edges_within, pairs_between

ORTHORHOMBIC = torch.diag(torch.tensor([11.0, 13.0, 17.0], dtype=torch.float64))
TRICLINIC = torch.tensor([[12.0, 0.0, 0.0], [5.5, 11.0, 0.0], [-4.5, 5.0, 13.0]], dtype=torch.float64)
DODECAHEDRON = 14.0 * torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.5**0.5]], dtype=torch.float64)
BOXES = pytest.mark.parametrize(
    "box", [ORTHORHOMBIC, TRICLINIC, DODECAHEDRON], ids=["orthorhombic", "triclinic", "dodecahedron"]
)
IMAGES = torch.tensor(list(itertools.product(range(-2, 3), repeat=3)), dtype=torch.float64)


def scattered(n: int, width: float, seed: int) -> torch.Tensor:
    return width * torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shortest(vectors: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """Length of the shortest image by trying 125 of them."""
    return (vectors.unsqueeze(1) + IMAGES @ box).norm(dim=-1).min(dim=1).values


@BOXES
def test_nearest_image_is_the_shortest_up_to_the_largest_cutoff(box):
    vectors = scattered(2000, 20.0, 0) - 10.0
    nearest, brute = minimum_image(vectors, box).norm(dim=1), shortest(vectors, box)
    inside = brute < largest_cutoff(box)
    assert inside.sum() > 200
    torch.testing.assert_close(nearest[inside], brute[inside])
    assert (nearest[~inside] >= largest_cutoff(box) - 1e-9).all()


@BOXES
def test_a_nearer_image_is_found(box):
    """Beyond half the box `minimum_image` may miss the nearest one; not in orthorhombic boxes."""
    vectors = minimum_image(scattered(2000, 20.0, 0) - 10.0, box)
    nearest = shortest(vectors, box)
    missed = nearest < vectors.norm(dim=1) - 1e-6
    assert bool(missed.any()) == (box is not ORTHORHOMBIC)
    for cutoff in (largest_cutoff(box), 8.0, 12.0):
        assert has_nearer_image(vectors, box, cutoff) == bool((missed & (nearest < cutoff)).any())
    assert not has_nearer_image(vectors[:0], box, 12.0)


@BOXES
def test_nearest_image_differs_by_whole_box_vectors(box):
    vectors = 4.0 * scattered(100, 20.0, 1)
    steps = torch.linalg.solve(box.T, (minimum_image(vectors, box) - vectors).T)
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)


def test_without_a_box_vectors_stay():
    vectors = scattered(3, 100.0, 2)
    assert minimum_image(vectors, None) is vectors


def test_largest_cutoff_is_half_the_smallest_diagonal_element():
    assert largest_cutoff(TRICLINIC) == 5.5


def as_set(pairs) -> set[tuple[int, int]]:
    found = list(zip(pairs.centers.tolist(), pairs.neighbors.tolist(), strict=True))
    assert len(set(found)) == len(found)
    return set(found)


@BOXES
def test_edges_are_all_ordered_pairs_within_the_cutoff(box):
    positions, cutoff = scattered(25, 15.0, 3), 4.9
    distances = shortest((positions[None] - positions[:, None]).reshape(-1, 3), box).reshape(25, 25)
    expected = {(i, j) for i in range(25) for j in range(25) if i != j and distances[i, j] < cutoff}
    edges = edges_within(positions, cutoff, box)
    assert as_set(edges) == expected and len(expected) > 50
    torch.testing.assert_close(edges.vectors.norm(dim=1), distances[edges.centers, edges.neighbors])


@pytest.mark.parametrize("block", [1, 4, 100])
@pytest.mark.parametrize("box", [None, TRICLINIC], ids=["open", "triclinic"])
def test_pairs_are_found_in_blocks_of_any_size(box, block):
    positions, others, cutoff = scattered(6, 12.0, 4), scattered(40, 12.0, 5), 5.0
    vectors = (others[None] - positions[:, None]).reshape(-1, 3)
    distances = (vectors.norm(dim=1) if box is None else shortest(vectors, box)).reshape(6, 40)
    pairs = pairs_between(positions, others, cutoff, box, block=block)
    assert as_set(pairs) == {(i, j) for i in range(6) for j in range(40) if distances[i, j] < cutoff}


@pytest.mark.parametrize("box", [None, 3.5 * TRICLINIC], ids=["open", "triclinic"])
def test_blocks_of_a_chain_miss_no_pair(box):
    """Blocks of eight look at what is near them; one block of all reaches beyond half the box and looks at everyone."""
    generator = torch.Generator().manual_seed(8)
    chain = (1.5 * torch.randn(60, 3, dtype=torch.float64, generator=generator)).cumsum(0)
    others, cutoff = scattered(2000, 45.0, 9) - 10.0, 8.0
    small, whole = (pairs_between(chain, others, cutoff, box, block=block) for block in (8, 60))
    assert as_set(small) == as_set(whole) and len(small.centers) > 1000
    vectors = (others[None] - chain[:, None]).reshape(-1, 3)
    distances = vectors.norm(dim=1) if box is None else shortest(vectors, box)
    assert len(small.centers) == int((distances < cutoff).sum())


def test_vectors_point_from_center_to_neighbor():
    qm, mm = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 4.0, 6.0]])
    assert pairs_between(qm, mm, 10.0, None).vectors.tolist() == [[1.0, 2.0, 3.0]]
    edges = edges_within(torch.cat([qm, mm]), 10.0, None)
    for center, neighbor, vector in zip(*edges, strict=True):
        torch.testing.assert_close(vector, torch.cat([qm, mm])[neighbor] - torch.cat([qm, mm])[center])


def test_infinite_cutoff_takes_all_pairs_and_no_sites_give_none():
    qm, mm = scattered(3, 5.0, 6), scattered(4, 1e4, 7)
    assert len(pairs_between(qm, mm, float("inf"), None).centers) == 12
    assert len(pairs_between(qm, mm[:0], 5.0, None).centers) == 0
    assert edges_within(qm[:1], 5.0, None).vectors.shape == (0, 3)


@BOXES
@pytest.mark.parametrize("length", [2, 6])  # up to 6.5 Å, half the boxes is 5 to 6 Å
def test_a_chain_in_pieces_becomes_whole_however_long(box, length):
    random = torch.Generator().manual_seed(length)
    steps = torch.tensor([0.2, 0.1, 1.3]) + 0.2 * torch.randn(length, 3, dtype=torch.float64, generator=random)
    chain = steps.cumsum(0)
    images = torch.randint(-2, 3, (length, 3), generator=random).double() @ box
    order = torch.randperm(length, generator=random)
    whole = in_one_piece((chain + images)[order], box)
    torch.testing.assert_close(whole - whole[:1], chain[order] - chain[order[:1]])


def test_without_a_box_atoms_stay_where_they_are():
    positions = scattered(3, 50.0, 0)
    assert in_one_piece(positions, None) is positions

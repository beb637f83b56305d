"""A small system folder: uracil with its 40 nearest waters, as a droplet and in a wide periodic box."""

from pathlib import Path

import numpy as np
import parmed
import pytest
import yaml

from ampmm.types import Evaluation

URACIL = Path(__file__).resolve().parents[2] / "systems" / "uracil"
N_WATERS = 40


@pytest.fixture(scope="session")
def small_system(tmp_path_factory) -> Path:
    """The folder, with a system.yaml."""
    folder = tmp_path_factory.mktemp("small")
    structure = parmed.load_file(str(URACIL / "uracil_droplet.prmtop"), str(URACIL / "uracil_droplet.inpcrd"))
    distances = [np.linalg.norm(structure.coordinates[r.atoms[0].idx]) for r in structure.residues[1:]]
    mask = np.zeros(len(structure.atoms), dtype=int)
    for place in np.argsort(distances)[N_WATERS:]:
        for atom in structure.residues[1 + int(place)].atoms:
            mask[atom.idx] = 1
    structure.strip(mask.tolist())
    structure.save(str(folder / "droplet.prmtop"))
    structure.save(str(folder / "droplet.inpcrd"), format="rst7")
    structure.coordinates = structure.coordinates + 14.0
    structure.box = [28.0, 28.0, 28.0, 90.0, 90.0, 90.0]
    structure.save(str(folder / "box.prmtop"))
    structure.save(str(folder / "box.inpcrd"), format="rst7")
    content = yaml.safe_load((URACIL / "system.yaml").read_text())
    content["name"], content["droplet"]["wall_radius"] = "small", 0.8
    for form in ("box", "droplet"):
        content[form] |= {"topology": f"{form}.prmtop", "coordinates": f"{form}.inpcrd"}
    (folder / "system.yaml").write_text(yaml.safe_dump(content))
    return folder


class Springs:
    """A stand-in for a model: a harmonic spring between every two QM atoms closer than 2.6 Å at the start, no MM forces."""

    def __init__(self, stiffness: float = 2000.0) -> None:
        self.stiffness, self.rest, self.scale = stiffness, None, 1.0

    def evaluate(self, numbers, positions_qm, positions_mm, charges_mm, box=None, qm_charge=None) -> Evaluation:
        difference = positions_qm[:, None] - positions_qm[None]
        distance = np.linalg.norm(difference, axis=-1) + np.eye(len(numbers))
        if self.rest is None:
            self.rest, self.near = distance.copy(), (distance < 2.6) & ~np.eye(len(numbers), dtype=bool)
        stretch = np.where(self.near, distance - self.rest, 0.0)
        energy = 0.25 * self.stiffness * float((stretch**2).sum())
        forces = -self.stiffness * (stretch / distance)[..., None] * difference
        charges = np.linspace(-0.1, 0.1, len(numbers))
        return Evaluation(
            energy * self.scale, forces.sum(axis=1) * self.scale, np.zeros_like(positions_mm), charges, charges @ positions_qm
        )


@pytest.fixture
def springs() -> Springs:
    return Springs()

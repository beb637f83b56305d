"""A stand-in for the model of a system, for tests of what surrounds a model: springs and fixed charges, no network."""

from pathlib import Path

import parmed
import torch
from torch import Tensor, nn

from ampmm.export import Card, save_model
from ampmm.types import Energies, Frame, PointCharges

SYSTEMS = Path(__file__).resolve().parents[2] / "systems"
N_ATOMS = {"uracil": 12, "ra": 50, "sam": 63}  # of the QM region, which comes first
REACH = 2.6  # Å; pairs closer than this at the start are tied: bonds and angles


class Springs(nn.Module):
    """Springs between near atoms at their starting distances, and the force field's charges in the MM potential."""

    def __init__(self, rest: Tensor, charges: Tensor, stiffness: float = 1500.0) -> None:
        super().__init__()
        self.stiffness, self.reach = stiffness, REACH  # kJ/mol/Å², Å
        self.cutoff, self.polarization_cutoff = 5.0, 6.0  # Å
        self.register_buffer("rest", rest)  # (N, N) Å
        self.register_buffer("charges", charges)  # (N,) e

    def forward(self, frame: Frame, surroundings: PointCharges) -> Energies:
        """One frame; every pair comes as two edges."""
        edges = frame.edges
        rest = self.rest[edges.centers, edges.neighbors]
        stretch = torch.linalg.vector_norm(edges.vectors, dim=-1) - rest
        springs = 0.25 * self.stiffness * torch.where(rest < self.reach, stretch * stretch, torch.zeros_like(stretch)).sum()
        coulomb = (self.charges * surroundings.potential).sum()
        return Energies((springs + coulomb).reshape(1), springs.reshape(1), coulomb.reshape(1), self.charges)


def write_stand_in(path: Path, system: str = "uracil") -> Path:
    """A `.pt` file with a card, for the QM region of a folder under systems/."""
    box = SYSTEMS / system / f"{system}_box"
    structure = parmed.load_file(f"{box}.prmtop", f"{box}.inpcrd")
    atoms = structure.atoms[: N_ATOMS[system]]
    positions = torch.tensor(structure.coordinates[: N_ATOMS[system]], dtype=torch.float32)
    numbers = tuple(atom.atomic_number for atom in atoms)
    model = Springs(torch.cdist(positions, positions), torch.tensor([atom.charge for atom in atoms]))
    card = Card(
        name="stand-in",
        architecture="springs",
        variant="springs",
        hyperparameters={},
        elements=tuple(sorted(set(numbers))),
        composition=numbers,
        qm_charge=0,
        cutoffs={"qm": model.cutoff, "polarization": model.polarization_cutoff},
        level_of_theory="none: a stand-in for tests",
    )
    save_model(path, model, card)
    return path

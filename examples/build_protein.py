"""A protein from its sequence as a compact bundle of helices: something to run where no structure is at hand.

It has the right atoms, bonds and chirality but not the protein's fold.
"""

from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

NAMES: Final = {
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU", "G": "GLY", "H": "HIS", "I": "ILE",
    "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE", "S": "SER", "T": "THR", "W": "TRP", "Y": "TYR", "V": "VAL",
}  # fmt: skip
# Side chains beyond CB: atom, the three atoms before it, bond (Å), angle and dihedral (degrees).
_GAMMA, _DELTA = "N CA CB", "CA CB CG"
_RING: Final = (
    ("CG", _GAMMA, 1.50, 114, -65), ("CD1", _DELTA, 1.39, 120.5, 90), ("CD2", _DELTA, 1.39, 120.5, -90),
    ("CE1", "CB CG CD1", 1.39, 120.5, 180), ("CE2", "CB CG CD2", 1.39, 120.5, 180), ("CZ", "CG CD1 CE1", 1.39, 120, 0),
)  # fmt: skip
_CG: Final = ("CG", _GAMMA, 1.52, 114, -65)
_CD: Final = ("CD", _DELTA, 1.52, 113, 180)
SIDE_CHAINS: Final = {
    "GLY": (), "ALA": (),
    "SER": (("OG", _GAMMA, 1.42, 111, -65),),
    "CYS": (("SG", _GAMMA, 1.81, 114, -65),),
    "VAL": (("CG1", _GAMMA, 1.52, 110.5, 175), ("CG2", _GAMMA, 1.52, 110.5, -65)),
    "THR": (("OG1", _GAMMA, 1.43, 109, -65), ("CG2", _GAMMA, 1.52, 111, 175)),
    "ILE": (("CG1", _GAMMA, 1.53, 111, -65), ("CG2", _GAMMA, 1.53, 110.5, 175), ("CD1", "CA CB CG1", 1.52, 114, 170)),
    "LEU": (_CG, ("CD1", _DELTA, 1.52, 110, 175), ("CD2", _DELTA, 1.52, 110, 60)),
    "MET": (_CG, ("SD", _DELTA, 1.81, 113, 180), ("CE", "CB CG SD", 1.79, 100.5, 180)),
    "ASP": (_CG, ("OD1", _DELTA, 1.25, 118.5, -15), ("OD2", _DELTA, 1.25, 118.5, 165)),
    "ASN": (_CG, ("OD1", _DELTA, 1.23, 121, -20), ("ND2", _DELTA, 1.33, 116.5, 160)),
    "GLU": (_CG, _CD, ("OE1", "CB CG CD", 1.25, 118.5, 0), ("OE2", "CB CG CD", 1.25, 118.5, 180)),
    "GLN": (_CG, _CD, ("OE1", "CB CG CD", 1.23, 121, 0), ("NE2", "CB CG CD", 1.33, 116.5, 180)),
    "LYS": (_CG, _CD, ("CE", "CB CG CD", 1.52, 111, 180), ("NZ", "CG CD CE", 1.49, 111.5, 180)),
    "ARG": (_CG, _CD, ("NE", "CB CG CD", 1.46, 112, 180), ("CZ", "CG CD NE", 1.33, 124.5, 180),
            ("NH1", "CD NE CZ", 1.33, 120, 0), ("NH2", "CD NE CZ", 1.33, 120, 180)),
    "PHE": _RING,
    "TYR": (*_RING, ("OH", "CD1 CE1 CZ", 1.37, 120, 180)),
    "HIS": (("CG", _GAMMA, 1.50, 114, -65), ("ND1", _DELTA, 1.38, 122.5, 90), ("CD2", _DELTA, 1.36, 131, -90),
            ("CE1", "CB CG ND1", 1.32, 109, 180), ("NE2", "CB CG CD2", 1.37, 107, 180)),
    "TRP": (("CG", _GAMMA, 1.50, 114, -65), ("CD1", _DELTA, 1.37, 127, 90), ("CD2", _DELTA, 1.43, 126.5, -90),
            ("NE1", "CB CG CD1", 1.37, 110, 180), ("CE2", "CB CG CD2", 1.41, 107, 180), ("CE3", "CB CG CD2", 1.40, 134, 0),
            ("CZ2", "CG CD2 CE2", 1.39, 122, 180), ("CZ3", "CG CD2 CE3", 1.38, 119, 180),
            ("CH2", "CD2 CE2 CZ2", 1.37, 117.5, 0)),
}  # fmt: skip
HELIX: Final = (-60.0, -45.0)  # φ, ψ
HELIX_LENGTH, LOOP_LENGTH, TRIALS = 11, 4, 150


def place(a: np.ndarray, b: np.ndarray, c: np.ndarray, bond: float, angle: float, dihedral: float) -> np.ndarray:
    """The point at `bond` from c, with the angle at c to b and the dihedral a–b–c–point, in degrees."""
    angle, dihedral = np.radians(angle), np.radians(dihedral)
    along = (c - b) / np.linalg.norm(c - b)
    across = np.cross(b - a, along)
    across /= np.linalg.norm(across)
    third = np.cross(across, along)
    return c + bond * (
        -np.cos(angle) * along + np.sin(angle) * (np.cos(dihedral) * third + np.sin(dihedral) * across)
    )  # fmt: skip


def backbone(angles: list[tuple[float, float]]) -> np.ndarray:
    """N, CA, C of every residue for its φ and ψ, with ω = 180°: (n, 3, 3) Å."""
    atoms = [np.zeros(3), np.array([1.46, 0.0, 0.0])]
    atoms.append(np.array([1.46 - 1.525 * np.cos(np.radians(111.0)), 1.525 * np.sin(np.radians(111.0)), 0.0]))
    for (_, psi), (phi, _) in pairwise(angles):
        atoms.append(place(*atoms[-3:], 1.33, 116.6, psi))
        atoms.append(place(*atoms[-3:], 1.46, 121.7, 180.0))
        atoms.append(place(*atoms[-3:], 1.525, 111.0, phi))
    return np.array(atoms).reshape(-1, 3, 3)


def compact_angles(n: int, seed: int = 1) -> list[tuple[float, float]]:
    """Helices joined by loops that bring them together without running into one another, loop by loop."""
    random = np.random.default_rng(seed)
    angles = [HELIX] * min(n, HELIX_LENGTH)
    while len(angles) < n:
        rest = n - len(angles)
        trials = []
        for _ in range(TRIALS):
            loop = [(random.uniform(-150.0, -50.0), random.uniform(-60.0, 180.0)) for _ in range(min(LOOP_LENGTH, rest))]
            longer = angles + loop + [HELIX] * min(HELIX_LENGTH, rest - len(loop))
            trials.append((_looseness(longer), len(trials), longer))
        angles = min(trials)[2]
    return angles


def _looseness(angles: list[tuple[float, float]]) -> float:
    """The span of CA and of the side chains' places, with a penalty for contacts: Å."""
    chain = backbone(angles)
    side = chain[:, 1] + 1.6 * (2.0 * chain[:, 1] - chain[:, 0] - chain[:, 2])  # away from N and C
    points = np.concatenate([chain[:, 1], side])
    place_of = np.tile(np.arange(len(chain)), 2)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    apart = np.abs(place_of[:, None] - place_of[None]) > 4
    overlap = np.clip(7.0 - distances[apart], 0.0, None)
    return float(distances.max() + (overlap**2).sum())


def write_protein(sequence: str, path: Path) -> None:
    """Write the heavy atoms of a sequence in one-letter codes as a PDB file.

    Raises:
        ValueError: a letter without a side chain here (proline has none).
    """
    unknown = sorted(set(sequence) - set(NAMES))
    if unknown or not sequence:
        raise ValueError(f"sequence: expected letters of {''.join(sorted(NAMES))}, got {sequence!r}")
    angles = compact_angles(len(sequence))
    chain = backbone(angles)
    lines = []
    for i, letter in enumerate(sequence):
        name = NAMES[letter]
        atoms = dict(zip(("N", "CA", "C"), chain[i], strict=True))
        atoms["O"] = place(atoms["N"], atoms["CA"], atoms["C"], 1.23, 120.5, angles[i][1] + 180.0)
        if name != "GLY":
            atoms["CB"] = place(atoms["N"], atoms["C"], atoms["CA"], 1.53, 110.0, 122.5)
        for atom, parents, bond, angle, dihedral in SIDE_CHAINS[name]:
            atoms[atom] = place(*(atoms[parent] for parent in parents.split()), bond, angle, dihedral)
        if i == len(sequence) - 1:
            atoms["OXT"] = place(atoms["N"], atoms["CA"], atoms["C"], 1.25, 118.0, angles[i][1])
        for atom, (x, y, z) in atoms.items():
            lines.append(
                f"ATOM  {len(lines) + 1:5d}  {atom:<3s} {name} A{i + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00"
                f"          {atom[0]:>2s}\n"
            )
    path.write_text("".join(lines) + "END\n")

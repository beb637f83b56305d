"""A droplet of 27 TIP3P waters, the one in the middle for QM, and a cheap evaluator of it."""

import itertools

import numpy as np
from openmm import app

from ampmm.errors import LabellingError
from ampmm.simulation.sampling import Droplet
from ampmm.types import Evaluation
from ampmm.units import COULOMB_CONSTANT

QM = [39, 40, 41]  # the water in the middle


def water_droplet() -> Droplet:
    """27 waters on a grid of 3.1 Å, turned at random."""
    rng = np.random.default_rng(5)
    topology, positions = app.Topology(), []
    chain = topology.addChain()
    water = np.array([[0.0, 0.0, 0.0], [0.09572, 0.0, 0.0], [-0.02399, 0.09266, 0.0]])  # nm
    for place in itertools.product((-0.31, 0.0, 0.31), repeat=3):
        residue = topology.addResidue("HOH", chain)
        atoms = [
            topology.addAtom(name, app.Element.getBySymbol(symbol), residue)
            for name, symbol in (("O", "O"), ("H1", "H"), ("H2", "H"))
        ]
        topology.addBond(atoms[0], atoms[1])
        topology.addBond(atoms[0], atoms[2])
        positions.append(water @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + place)
    system = app.ForceField("tip3p.xml").createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=True, removeCMMotion=False
    )
    return Droplet("water", topology, system, np.concatenate(positions), np.array(QM), 0, 0.55, 2000.0, 1000.0)


class Springs:
    """A cheap evaluator: bonds as springs, and the Coulomb energy of fixed charges with the MM charges."""

    CHARGES = np.array([-0.8, 0.4, 0.4])  # e

    def __init__(self, fail_at=None):
        self.calls, self.fail_at = 0, fail_at

    def evaluate(self, numbers, positions_qm, positions_mm, charges_mm, box=None, qm_charge=None):
        self.calls += 1
        if self.calls == self.fail_at:
            raise LabellingError("the engine gave up")
        forces = np.zeros((3, 3))
        energy = 0.0
        for i, j, length in ((0, 1, 0.957), (0, 2, 0.957), (1, 2, 1.514)):
            vector = positions_qm[j] - positions_qm[i]
            distance = np.linalg.norm(vector)
            energy += 0.5 * 2000.0 * (distance - length) ** 2
            pull = 2000.0 * (distance - length) * vector / distance
            forces[i] += pull
            forces[j] -= pull
        away = positions_qm[:, None] - positions_mm[None]  # (N, M, 3)
        inverse = 1.0 / np.linalg.norm(away, axis=-1)
        pairs = COULOMB_CONSTANT * self.CHARGES[:, None] * charges_mm[None] * inverse
        push = (pairs * inverse**2)[..., None] * away
        return Evaluation(energy + pairs.sum(), forces + push.sum(1), -push.sum(0), self.CHARGES, np.zeros(3))

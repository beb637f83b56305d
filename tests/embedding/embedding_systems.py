"""A charged QM molecule in salt water, and a small untrained model for it."""

import io
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openmm
import torch
from openmm import app, unit

from ampmm.embedding import create_mixed_system
from ampmm.export import Card, save_model
from ampmm.models import build_model

ML_GROUP = 7  # the model's force group

# Formate: four atoms, net charge -1, flexible. Geometry planar, in nm.
FORMATE = np.array([[0.0, 0.0, 0.0], [0.1125, 0.057, 0.0], [-0.1125, 0.057, 0.0], [0.0, -0.111, 0.0]])
FORMATE_XML = """
<ForceField>
 <AtomTypes>
  <Type name="fC" class="fC" element="C" mass="12.011"/>
  <Type name="fO" class="fO" element="O" mass="15.999"/>
  <Type name="fH" class="fH" element="H" mass="1.008"/>
 </AtomTypes>
 <Residues>
  <Residue name="FOR">
   <Atom name="C" type="fC" charge="0.7"/><Atom name="O1" type="fO" charge="-0.8"/>
   <Atom name="O2" type="fO" charge="-0.8"/><Atom name="H" type="fH" charge="-0.1"/>
   <Bond atomName1="C" atomName2="O1"/><Bond atomName1="C" atomName2="O2"/><Bond atomName1="C" atomName2="H"/>
  </Residue>
 </Residues>
 <HarmonicBondForce>
  <Bond class1="fC" class2="fO" length="0.125" k="500000"/><Bond class1="fC" class2="fH" length="0.111" k="280000"/>
 </HarmonicBondForce>
 <HarmonicAngleForce>
  <Angle class1="fO" class2="fC" class3="fO" angle="2.2" k="600"/>
  <Angle class1="fO" class2="fC" class3="fH" angle="2.0" k="400"/>
 </HarmonicAngleForce>
 <PeriodicTorsionForce ordering="amber">
  <Improper class1="fC" class2="fO" class3="fO" class4="fH" periodicity1="2" phase1="3.14159" k1="40"/>
 </PeriodicTorsionForce>
 <NonbondedForce coulomb14scale="0.8333333333333334" lj14scale="0.5">
  <UseAttributeFromResidue name="charge"/>
  <Atom type="fC" sigma="0.34" epsilon="0.36"/><Atom type="fO" sigma="0.296" epsilon="0.88"/>
  <Atom type="fH" sigma="0.25" epsilon="0.06"/>
 </NonbondedForce>
</ForceField>
"""


class Solvated(NamedTuple):
    """A classical system with formate (atoms 0–3) first."""

    topology: app.Topology
    positions: np.ndarray  # (n, 3) nm
    system: openmm.System


def solvated(
    water: str = "tip3p", box: tuple[openmm.Vec3, ...] | None = None, periodic: bool = True, **options: object
) -> Solvated:
    """Formate, ions and water in a box of 2.1 nm or of the given vectors; as a droplet if not periodic."""
    force_field = app.ForceField(io.StringIO(FORMATE_XML), f"amber14/{water}.xml")
    topology = app.Topology()
    residue = topology.addResidue("FOR", topology.addChain())
    atoms = [topology.addAtom(n, app.Element.getBySymbol(n[0]), residue) for n in ("C", "O1", "O2", "H")]
    for atom in atoms[1:]:
        topology.addBond(atoms[0], atom)
    modeller = app.Modeller(topology, FORMATE * unit.nanometer)
    vectors = box or tuple(2.1 * np.eye(3))
    random.seed(1)  # decides which water becomes an ion; some places make ten steps blow up
    modeller.addSolvent(
        force_field,
        model={"tip3p": "tip3p", "tip4pew": "tip4pew"}[water],
        boxVectors=[openmm.Vec3(*v) for v in vectors] * unit.nanometer,
        ionicStrength=0.2 * unit.molar,
    )
    method = {"nonbondedMethod": app.PME, "nonbondedCutoff": 0.9 * unit.nanometer} if periodic else {}
    if not periodic:
        modeller.topology.setPeriodicBoxVectors(None)
    system = force_field.createSystem(modeller.topology, **{**method, **options})
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    return Solvated(modeller.topology, positions, system)


def write_model(path: Path, seed: int, charge: int = -1, **hyperparameters: object) -> Path:
    """An untrained AMP(2)-DP with multipoles large enough for the polarization to matter."""
    torch.manual_seed(seed)
    values = {
        "elements": (1, 6, 8), "order": 2, "n_layers": 2, "width": 16, "n_radial": 8, "n_radial_weights": 4,
        "n_radial_weights_mm": 4, "polarization_cutoff": 7.0, "multipole_scale": 0.3, "energy_scale": 100.0,
        **hyperparameters,
    }  # fmt: skip
    network = build_model("amp", values)
    card = Card(
        name=path.stem, architecture="amp", variant="AMP(2)-DP", hyperparameters=values, elements=(1, 6, 8),
        qm_charge=charge, cutoffs={"qm": network.cutoff, "polarization": network.polarization_cutoff},
        level_of_theory="none",
    )  # fmt: skip
    save_model(path, network, card)
    return path


def mixed(case: Solvated, model: object, **options: object) -> openmm.System:
    """The case with formate as its QM region, the model's force in a group of its own."""
    system, qm = create_mixed_system(case.topology, case.system, "FOR", model, force_group=ML_GROUP, **options)
    assert qm.tolist() == [0, 1, 2, 3]
    return system


def context(system: openmm.System, positions: np.ndarray, platform: str = "Reference") -> openmm.Context:
    """A Context at the given positions, nm."""
    new = openmm.Context(system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName(platform))
    new.setPositions(positions)
    new.computeVirtualSites()
    return new


def energy(context_: openmm.Context, groups: int = -1) -> float:
    """Potential energy, kJ/mol."""
    state = context_.getState(energy=True, groups=groups)
    return state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def forces(context_: openmm.Context, groups: int = -1) -> np.ndarray:
    """Forces, kJ/mol/nm."""
    state = context_.getState(forces=True, groups=groups)
    return state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)

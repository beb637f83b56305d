"""What leaves the classical System: stripped energies against ones computed without the QM terms."""

from itertools import combinations

import numpy as np
import openmm
import pytest
from embedding_systems import context, energy, forces
from openmm import unit

from ampmm.embedding import strip_qm_terms
from ampmm.embedding.mm_forces import refuse_qm_terms
from ampmm.errors import EmbeddingError, InputError

QM = [2, 3, 4, 5, 6, 7, 8, 9]  # of 20 particles: MM on both sides of the region
N = 20
COULOMB = 138.935457644382  # kJ·nm/(mol·e²)
RANDOM = np.random.default_rng(7)
POSITIONS = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3)[:N] * 0.3 + RANDOM.normal(scale=0.03, size=(N, 3))
CHARGES = RANDOM.uniform(-0.8, 0.8, N)
SIGMAS = RANDOM.uniform(0.25, 0.35, N)
EPSILONS = RANDOM.uniform(0.1, 0.8, N)


def bare_system(nonbonded: openmm.NonbondedForce | None = None) -> openmm.System:
    system = openmm.System()
    for _ in range(N):
        system.addParticle(12.0)
    system.addForce(nonbonded or charged())
    return system


def charged() -> openmm.NonbondedForce:
    force = openmm.NonbondedForce()
    for parameters in zip(CHARGES, SIGMAS, EPSILONS, strict=True):
        force.addParticle(*parameters)
    return force


def custom(force, term_parameter: str):
    getattr(force, f"addPer{term_parameter}Parameter")("k")
    force.addGlobalParameter("scale", 1.7)
    return force


def cmap() -> openmm.CMAPTorsionForce:
    force = openmm.CMAPTorsionForce()
    force.addMap(4, list(np.random.default_rng(1).normal(size=16) * 5))
    return force


# Class: (an empty force, how a term over given atoms is added, atoms of a term).
BONDED_CASES = {
    "HarmonicBond": (openmm.HarmonicBondForce, lambda f, a: f.addBond(*a, 0.2, 1000.0), 2),
    "HarmonicAngle": (openmm.HarmonicAngleForce, lambda f, a: f.addAngle(*a, 1.9, 300.0), 3),
    "PeriodicTorsion": (openmm.PeriodicTorsionForce, lambda f, a: f.addTorsion(*a, 2, 0.3, 12.0), 4),
    "RBTorsion": (openmm.RBTorsionForce, lambda f, a: f.addTorsion(*a, 1.0, 2.0, -3.0, 4.0, 0.5, -0.6), 4),
    "CMAPTorsion": (cmap, lambda f, a: f.addTorsion(0, *a), 8),
    "UreyBradley": (
        lambda: custom(openmm.CustomBondForce("0.5*scale*k*(r-0.3)^2"), "Bond"),
        lambda f, a: f.addBond(*a, [500.0]),
        2,
    ),
    "CustomAngle": (
        lambda: custom(openmm.CustomAngleForce("scale*k*(theta-2)^2"), "Angle"),
        lambda f, a: f.addAngle(*a, [90.0]),
        3,
    ),
    "CustomTorsion": (
        lambda: custom(openmm.CustomTorsionForce("scale*k*(1+cos(theta))"), "Torsion"),
        lambda f, a: f.addTorsion(*a, [8.0]),
        4,
    ),
    "CustomCompoundBond": (
        lambda: custom(openmm.CustomCompoundBondForce(3, "scale*k*distance(p1,p2)*distance(p2,p3)"), "Bond"),
        lambda f, a: f.addBond(a, [70.0]),
        3,
    ),
}


@pytest.mark.parametrize("name", BONDED_CASES)
def test_bonded_terms_inside_leave_and_others_stay(name):
    make, add, size = BONDED_CASES[name]
    inside, outside = QM[:size], range(12, 12 + size)
    force, expected = make(), make()
    for atoms in (outside, inside, inside[::-1]):
        add(force, list(atoms))
    add(expected, list(outside))
    system, reference = bare_system(), openmm.System()
    system.addForce(force)
    for _ in range(N):
        reference.addParticle(12.0)
    force_only = strip_qm_terms(system, QM).system
    force_only.removeForce(0)
    reference.addForce(expected)
    assert energy(context(system, POSITIONS)) != pytest.approx(energy(context(reference, POSITIONS)))
    assert energy(context(force_only, POSITIONS)) == pytest.approx(energy(context(reference, POSITIONS)), abs=1e-9)
    assert np.allclose(forces(context(force_only, POSITIONS)), forces(context(reference, POSITIONS)), atol=1e-8)
    assert strip_qm_terms(system, QM).removed[force.getName()] == 2


@pytest.mark.parametrize("name", BONDED_CASES)
def test_bonded_term_across_the_boundary_is_refused(name):
    make, add, size = BONDED_CASES[name]
    force = make()
    add(force, [*QM[: size - 1], 15])
    system = bare_system()
    system.addForce(force)
    with pytest.raises(EmbeddingError, match=r"joins QM atom 2.* and MM atom 15"):
        strip_qm_terms(system, QM)


def nonbonded_energy(charges: np.ndarray, exceptions: dict[tuple[int, int], tuple[float, float, float]]) -> float:
    """Coulomb and Lennard-Jones over all pairs but the QM–QM ones, kJ/mol."""
    total = 0.0
    for i, j in combinations(range(N), 2):
        if i in QM and j in QM:
            continue
        product, sigma, epsilon = exceptions.get(
            (i, j), (charges[i] * charges[j], (SIGMAS[i] + SIGMAS[j]) / 2, np.sqrt(EPSILONS[i] * EPSILONS[j]))
        )
        r = np.linalg.norm(POSITIONS[i] - POSITIONS[j])
        total += COULOMB * product / r + 4 * epsilon * ((sigma / r) ** 12 - (sigma / r) ** 6)
    return total


def test_nonbonded_energy_is_the_sum_over_what_is_left():
    force = charged()
    force.addException(2, 3, 0.1, 0.3, 0.5)  # a QM 1-4 pair
    force.addException(4, 5, 0.0, 0.3, 0.0)  # a QM 1-2 pair
    force.addException(3, 11, 0.2, 0.31, 0.4)  # QM–MM
    force.addException(12, 13, 0.05, 0.3, 0.2)  # MM–MM
    stripped = strip_qm_terms(bare_system(force), QM)
    charges = CHARGES.copy()
    charges[QM] = 0.0
    expected = nonbonded_energy(charges, {(3, 11): (0.0, 0.31, 0.4), (12, 13): (0.05, 0.3, 0.2)})
    assert energy(context(stripped.system, POSITIONS)) == pytest.approx(expected, rel=1e-6)
    assert np.allclose(stripped.charges, CHARGES)


def test_parameter_offsets_bring_no_qm_charge_back():
    force = charged()
    force.addGlobalParameter("lambda", 1.0)
    force.addParticleParameterOffset("lambda", 2, 0.7, 0.0, 0.0)
    pair = force.addException(2, 3, 0.1, 0.3, 0.5)
    force.addExceptionParameterOffset("lambda", pair, 0.4, 0.0, 0.9)
    system = strip_qm_terms(bare_system(force), QM).system
    at_one, at_zero = context(system, POSITIONS), context(system, POSITIONS)
    at_zero.setParameter("lambda", 0.0)
    assert energy(at_one) == pytest.approx(energy(at_zero), abs=1e-9)
    refuse_qm_terms(system, set(QM))


@pytest.mark.parametrize(("atoms", "scales"), [((2, 3), (0.4, 0.0)), ((2, 3), (0.0, 0.9)), ((3, 11), (0.4, 0.0))])
def test_an_exception_offset_that_brings_qm_terms_back_is_refused(atoms, scales):
    force = charged()
    force.addGlobalParameter("lambda", 1.0)
    pair = force.addException(*atoms, 0.0, 0.3, 0.0, replace=True)
    system = strip_qm_terms(bare_system(force), QM).system
    force = next(each for each in system.getForces() if isinstance(each, openmm.NonbondedForce))
    pair = next(k for k in range(force.getNumExceptions()) if set(force.getExceptionParameters(k)[:2]) == set(atoms))
    force.addExceptionParameterOffset("lambda", pair, scales[0], 0.0, scales[1])
    with pytest.raises(EmbeddingError, match="an offset of the exception of atoms"):
        refuse_qm_terms(system, set(QM))


def test_offset_of_an_mm_charge_is_refused():
    force = charged()
    force.addGlobalParameter("lambda", 1.0)
    force.addParticleParameterOffset("lambda", 15, 0.7, 0.0, 0.0)
    with pytest.raises(EmbeddingError, match="offset of particle 15"):
        strip_qm_terms(bare_system(force), QM)


def test_custom_nonbonded_loses_qm_pairs_and_qm_charges():
    system = bare_system()
    force = openmm.CustomNonbondedForce("q1*q2/r + eps1*eps2*exp(-r)")
    force.addPerParticleParameter("eps")
    force.addPerParticleParameter("q")
    for epsilon, charge in zip(EPSILONS, CHARGES, strict=True):
        force.addParticle([epsilon, charge])
    force.addExclusion(2, 3)
    system.getForce(0).addException(2, 3, 0.0, 1.0, 0.0)
    system.addForce(force)
    stripped = strip_qm_terms(system, QM).system
    nonbonded, other = stripped.getForces()[:2]
    excepted = {tuple(nonbonded.getExceptionParameters(k)[:2]) for k in range(nonbonded.getNumExceptions())}
    assert excepted == {tuple(other.getExclusionParticles(k)) for k in range(other.getNumExclusions())}  # CUDA's rule

    expected = 0.0
    for i, j in combinations(range(N), 2):
        r = np.linalg.norm(POSITIONS[i] - POSITIONS[j])
        both, none = i in QM and j in QM, i not in QM and j not in QM
        expected += 0.0 if both else EPSILONS[i] * EPSILONS[j] * np.exp(-r) + none * CHARGES[i] * CHARGES[j] / r
    stripped.removeForce(0)
    assert energy(context(stripped, POSITIONS)) == pytest.approx(expected, rel=1e-9)


def test_dispersion_correction_is_unchanged(box):
    def correction(system: openmm.System) -> float:
        energies = []
        for use in (True, False):
            (force,) = [each for each in system.getForces() if isinstance(each, openmm.NonbondedForce)]
            force.setUseDispersionCorrection(use)
            energies.append(energy(context(system, box.positions)))
        force.setUseDispersionCorrection(True)
        return energies[0] - energies[1]

    before, after = correction(box.system), correction(strip_qm_terms(box.system, range(4), box.topology).system)
    assert before < -1.0
    assert after == pytest.approx(before, abs=1e-6)


def test_constraints_inside_leave_others_stay_and_molecules_stay_whole():
    system = bare_system()
    bonds = openmm.HarmonicBondForce()
    for i, j in ((2, 3), (3, 4), (5, 6), (12, 13)):
        bonds.addBond(i, j, 0.1, 100.0)
    system.addForce(bonds)
    system.addConstraint(4, 5, 0.2)
    system.addConstraint(13, 14, 0.2)
    stripped = strip_qm_terms(system, QM)
    assert stripped.removed["constraints"] == 1
    assert [stripped.system.getConstraintParameters(k)[:2] for k in range(stripped.system.getNumConstraints())] == [[13, 14]]
    # A barostat scales molecules, which OpenMM finds by bonds and constraints.
    assert context(stripped.system, POSITIONS).getMolecules() == context(system, POSITIONS).getMolecules()


def test_constraint_across_the_boundary_is_refused():
    system = bare_system()
    system.addConstraint(2, 11, 0.2)
    with pytest.raises(EmbeddingError, match=r"a constraint that joins QM atom 2 and MM atom 11"):
        strip_qm_terms(system, QM)


def test_topology_bond_across_the_boundary_names_the_atoms(box):
    with pytest.raises(EmbeddingError, match=r"bond of the Topology .* QM FOR1-C \(atom 0\) and MM FOR1-O2 \(atom 2\)"):
        strip_qm_terms(box.system, [0, 1], box.topology)


def restraints() -> list[openmm.Force]:
    external = openmm.CustomExternalForce("3*(x^2+y^2+z^2)")
    external.addParticle(2, [])
    centroid = openmm.CustomCentroidBondForce(2, "20*distance(g1,g2)^2")
    centroid.addGroup(QM)
    centroid.addGroup([12, 13])
    centroid.addBond([0, 1], [])
    within = openmm.CustomCentroidBondForce(2, "20*distance(g1,g2)^2")
    within.addGroup([2])
    within.addGroup([3])
    within.addBond([0, 1], [])
    rmsd = openmm.CustomCVForce("9*d")
    rmsd.addCollectiveVariable("d", openmm.RMSDForce(POSITIONS * 1.1, QM))
    return [external, centroid, within, rmsd]


def test_restraints_on_qm_atoms_stay():
    for force in restraints():
        system = bare_system()
        system.addForce(force)
        kept, without = strip_qm_terms(system, QM).system, strip_qm_terms(bare_system(), QM).system
        alone = openmm.System()
        for _ in range(N):
            alone.addParticle(12.0)
        alone.addForce(openmm.XmlSerializer.clone(force))
        change = energy(context(kept, POSITIONS)) - energy(context(without, POSITIONS))
        assert change == pytest.approx(energy(context(alone, POSITIONS)), rel=1e-6)
        assert abs(change) > 0.01


def test_a_restraint_written_as_a_bond_stays_by_name():
    restraint = openmm.CustomBondForce("50*(r-0.4)^2")
    restraint.setName("umbrella")
    restraint.addBond(2, 3)
    restraint.addBond(3, 15)
    system = bare_system()
    system.addForce(restraint)
    with pytest.raises(EmbeddingError, match=r"umbrella.*keep"):
        strip_qm_terms(system, QM)
    stripped = strip_qm_terms(system, QM, keep=["umbrella"]).system
    assert [force.getNumBonds() for force in stripped.getForces() if force.getName() == "umbrella"] == [2]
    with pytest.raises(InputError, match=r"keep: .*umbrella.*got \['umbrela'\]"):
        strip_qm_terms(system, QM, keep="umbrela")
    with pytest.raises(InputError, match="counted twice"):
        strip_qm_terms(system, QM, keep="NonbondedForce")


def unsplittable() -> list[openmm.Force]:
    gb = openmm.GBSAOBCForce()
    custom_gb = openmm.CustomGBForce()
    many = openmm.CustomManyParticleForce(3, "distance(p1,p2)+distance(p1,p3)")
    gay_berne = openmm.GayBerneForce()
    for i in range(N):
        gb.addParticle(CHARGES[i], 0.15, 0.8)
        custom_gb.addParticle([])
        many.addParticle([])
        gay_berne.addParticle(0.3, 1.0, -1, -1, 0.3, 0.3, 0.3, 1.0, 1.0, 1.0)
    hbond = openmm.CustomHbondForce("distance(a1,d1)")
    hbond.addDonor(2, 3, -1)
    hbond.addAcceptor(15, 16, -1)
    hidden = openmm.CustomCVForce("0.5*v")
    hidden.addCollectiveVariable("v", charged())
    return [gb, custom_gb, many, gay_berne, hbond, hidden, openmm.AmoebaMultipoleForce(), openmm.DrudeForce()]


@pytest.mark.parametrize("force", unsplittable(), ids=lambda force: type(force).__name__)
def test_forces_that_cannot_be_split_are_refused(force):
    system = bare_system()
    system.addForce(force)
    with pytest.raises(EmbeddingError, match=type(force).__name__):
        strip_qm_terms(system, QM)


def test_hydrogen_bond_term_among_mm_atoms_stays():
    force = openmm.CustomHbondForce("distance(a1,d1)")
    force.addDonor(12, 13, -1)
    force.addAcceptor(15, 16, -1)
    system = bare_system()
    system.addForce(force)
    strip_qm_terms(system, QM)


def test_systems_without_mm_charges_are_refused():
    empty, neutral = openmm.System(), charged()
    for i in range(N):
        empty.addParticle(12.0)
        if i not in QM:
            neutral.setParticleParameters(i, 0.0, 0.3, 0.2)
    with pytest.raises(EmbeddingError, match=r"one NonbondedForce .* got 0"):
        strip_qm_terms(empty, QM)
    with pytest.raises(EmbeddingError, match="charges on MM atoms"):
        strip_qm_terms(bare_system(neutral), QM)


def test_a_residue_name_needs_the_topology(box):
    by_name, by_index = (strip_qm_terms(box.system, qm, box.topology).system for qm in ("FOR", range(4)))
    assert openmm.XmlSerializer.serialize(by_name) == openmm.XmlSerializer.serialize(by_index)
    with pytest.raises(InputError, match="qm_atoms: expected particle indices where no topology is given, got 'FOR'"):
        strip_qm_terms(box.system, "FOR")
    with pytest.raises(InputError, match="system: expected an OpenMM System, got Topology"):
        strip_qm_terms(box.topology, box.system, "FOR")


@pytest.mark.parametrize("indices", [[], [0, 0], [-1], [N], range(N)])
def test_bad_indices(indices):
    with pytest.raises(InputError, match="qm_atoms"):
        strip_qm_terms(bare_system(), list(indices))


@pytest.mark.parametrize("qm", [[5], [2, 3]])
def test_virtual_sites_of_qm_atoms_are_refused(qm):
    system = bare_system()
    system.setVirtualSite(5, openmm.TwoParticleAverageSite(2, 3, 0.5, 0.5))
    with pytest.raises(EmbeddingError, match=r"virtual sites, got atom 5 .* atom 2, atom 3"):
        strip_qm_terms(system, qm)


def test_the_given_system_is_untouched(box):
    before = openmm.XmlSerializer.serialize(box.system)
    stripped = strip_qm_terms(box.system, range(4), box.topology)
    assert openmm.XmlSerializer.serialize(box.system) == before
    assert stripped.system.getDefaultPeriodicBoxVectors() == box.system.getDefaultPeriodicBoxVectors()
    assert sum(stripped.charges[:4]) == pytest.approx(-1.0)
    assert {"HarmonicBondForce": 3, "HarmonicAngleForce": 3, "PeriodicTorsionForce": 1}.items() <= stripped.removed.items()


def test_what_is_left_in_is_found_again(box):
    qm = set(range(4))
    with pytest.raises(EmbeddingError, match="3 terms inside"):
        refuse_qm_terms(box.system, qm)
    refuse_qm_terms(strip_qm_terms(box.system, range(4)).system, qm)

    for spoil, message in (
        (lambda force: force.setParticleParameters(1, 0.1, 0.3, 0.2), "charges on 1 QM atoms"),
        (lambda force: force.addException(1, 2, 0.0, 0.3, 0.2, True), "1 interacting QM–QM pairs"),
        (lambda force: force.addException(1, 9, 0.2, 0.3, 0.0, True), "charge product"),
    ):
        system = strip_qm_terms(box.system, range(4)).system
        spoil(next(each for each in system.getForces() if isinstance(each, openmm.NonbondedForce)))
        with pytest.raises(EmbeddingError, match=message):
            refuse_qm_terms(system, qm)


def test_lennard_jones_between_qm_and_mm_stays(droplet):
    system = strip_qm_terms(droplet.system, range(4), droplet.topology).system
    near, far = droplet.positions.copy(), droplet.positions.copy()
    far[:4] += 100.0
    # No QM charges and no QM energy are left: what the distance changes is Lennard-Jones.
    force = next(each for each in droplet.system.getForces() if isinstance(each, openmm.NonbondedForce))
    parameters = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
    sigma = np.array([p[1].value_in_unit(unit.nanometer) for p in parameters])
    epsilon = np.array([p[2].value_in_unit(unit.kilojoule_per_mole) for p in parameters])
    expected = 0.0
    for i in range(4):
        r = np.linalg.norm(near[4:] - near[i], axis=1)
        ratio = (0.5 * (sigma[4:] + sigma[i]) / r) ** 6
        expected += (4 * np.sqrt(epsilon[4:] * epsilon[i]) * (ratio**2 - ratio)).sum()
    assert energy(context(system, near)) - energy(context(system, far)) == pytest.approx(expected, rel=1e-5)

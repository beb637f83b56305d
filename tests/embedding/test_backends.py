"""Both backends around a small potential: agreement, periodicity, serialisation, and what is said when one is missing."""

import copy
import pickle

import numpy as np
import openmm
import pytest
import torch
from embedding_systems import context, energy, forces
from torch import Tensor

from ampmm.embedding import BACKENDS, deserialize_system, get_backend, serialize_system
from ampmm.embedding.computations import PotentialComputation
from ampmm.embedding.serialization import copy_force
from ampmm.errors import BackendError, InputError

POSITIONS = np.random.default_rng(3).uniform(0.0, 1.0, (5, 3))
AVAILABLE = [name for name, backend in BACKENDS.items() if not backend.missing()]


class Spring(torch.nn.Module):
    """½ k |r|², plus the box volume if there is a box."""

    def __init__(self, stiffness: float) -> None:
        super().__init__()
        self.stiffness = stiffness

    def forward(self, positions: Tensor, boxvectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        result = 0.5 * self.stiffness * (positions * positions).sum()
        if boxvectors is not None:
            result = result + torch.diagonal(boxvectors).prod()
        return result, -self.stiffness * positions


def spring_system(name: str, stiffness: float = 3.0, periodic: bool = False) -> openmm.System:
    system = openmm.System()
    for _ in POSITIONS:
        system.addParticle(10.0)
    system.setDefaultPeriodicBoxVectors(*(2.0 * np.eye(3)))
    system.addForce(BACKENDS[name].make_force(Spring(stiffness), periodic))
    return system


SPRING_ENERGY = 1.5 * (POSITIONS**2).sum()


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("name", AVAILABLE)
def test_energy_and_forces(name, periodic, platform):
    here = context(spring_system(name, periodic=periodic), POSITIONS, platform)
    assert here.getSystem().usesPeriodicBoundaryConditions() == periodic
    for _ in range(4):  # TorchScript optimises itself over the first calls
        assert energy(here) == pytest.approx(SPRING_ENERGY + 8.0 * periodic, rel=1e-6)
        assert np.allclose(forces(here), -3.0 * POSITIONS, atol=1e-5)


@pytest.mark.parametrize("name", AVAILABLE)
def test_a_system_with_the_force_goes_through_xml(name):
    xml = serialize_system(spring_system(name, periodic=True))
    again = deserialize_system(xml)
    assert again.usesPeriodicBoundaryConditions()
    assert energy(context(again, POSITIONS)) == pytest.approx(SPRING_ENERGY + 8.0, rel=1e-6)


@pytest.mark.parametrize("name", AVAILABLE)
def test_a_force_can_be_copied(name):
    owner = spring_system(name)  # keeps the force alive
    force = owner.getForce(0)
    force.setForceGroup(4)
    force.setName("mine")
    copied = copy_force(force)
    assert (copied.getForceGroup(), copied.getName()) == (4, "mine")
    system = openmm.System()
    for _ in POSITIONS:
        system.addParticle(10.0)
    system.addForce(copied)
    assert energy(context(system, POSITIONS)) == pytest.approx(SPRING_ENERGY, rel=1e-6)


def test_openmm_itself_copies_and_reads_a_python_force():
    system = copy.deepcopy(spring_system("python"))
    system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    assert energy(context(system, POSITIONS)) == pytest.approx(SPRING_ENERGY, rel=1e-6)


def test_python_force_in_a_collective_variable():
    outer = openmm.CustomCVForce("scale*v")
    outer.addGlobalParameter("scale", 0.5)
    outer.addCollectiveVariable("v", BACKENDS["python"].make_force(Spring(3.0), periodic=False))
    system = openmm.System()
    for _ in POSITIONS:
        system.addParticle(10.0)
    system.addForce(outer)
    here = context(system, POSITIONS)
    assert energy(here) == pytest.approx(0.5 * SPRING_ENERGY, rel=1e-6)
    here.setParameter("scale", 0.0)
    assert energy(here) == 0.0
    assert np.all(forces(here) == 0.0)


@pytest.mark.skipif("torchforce" not in AVAILABLE, reason="openmmtorch does not load here")
def test_torch_force_in_a_collective_variable_is_refused_where_it_would_crash():
    outer = openmm.CustomCVForce("v")
    outer.addCollectiveVariable("v", BACKENDS["torchforce"].make_force(Spring(3.0), periodic=False))
    with pytest.raises(BackendError, match='backend="python"'):
        copy_force(outer)


def test_two_forces_keep_their_own_modules():
    system = spring_system(AVAILABLE[0])
    system.addForce(BACKENDS["python"].make_force(Spring(1.0), periodic=False))
    system.addForce(BACKENDS[AVAILABLE[0]].make_force(Spring(2.0), periodic=False))
    assert energy(context(system, POSITIONS)) == pytest.approx(2.0 * SPRING_ENERGY, rel=1e-6)


def test_computation_is_pickled_with_its_module():
    computation = PotentialComputation(torch.jit.script(Spring(3.0)), periodic=False)
    again = pickle.loads(pickle.dumps(computation))
    result, _ = again.module(torch.from_numpy(POSITIONS))
    assert float(result) == pytest.approx(SPRING_ENERGY)


def test_auto_takes_the_first_that_loads(monkeypatch):
    assert get_backend("auto").name == AVAILABLE[0]
    monkeypatch.setattr(type(BACKENDS["torchforce"]), "missing", lambda self: "not here")
    assert get_backend("auto").name == "python"


def test_what_to_install_is_said(monkeypatch):
    monkeypatch.setattr("ampmm.embedding.backends.import_openmmtorch", lambda: __import__("no_such_module"))
    with pytest.raises(BackendError, match=r'ModuleNotFoundError.*extra "torchforce".*or use backend="python"'):
        get_backend("torchforce")
    empty = openmm.XmlSerializer.serialize(openmm.System())
    xml = empty.replace("<Forces/>", '<Forces><Force type="TorchForce"/></Forces>')
    with pytest.raises(BackendError, match="holds a TorchForce"):
        deserialize_system(xml)
    with pytest.raises(InputError, match=r"'torchforce', 'python', got 'cuda'"):
        get_backend("cuda")
    monkeypatch.setattr(type(BACKENDS["python"]), "missing", lambda self: "too old")
    with pytest.raises(BackendError, match="none loads here"):
        get_backend("auto")


@pytest.mark.parametrize("text", ["", "no xml", "<Force/>"])
def test_text_that_is_no_system(text):
    with pytest.raises(InputError, match="xml: expected a System"):
        deserialize_system(text)

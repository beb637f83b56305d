"""CUDA graphs in a System. Where no GPU is, a stand-in for the graph calls the module anew at every replay."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import openmm
import pytest
import torch
from embedding_systems import ML_GROUP, context, energy, forces, mixed

from ampmm.embedding import BACKENDS, deserialize_system, get_backend, serialize_system
from ampmm.embedding.backends import FORCE_NAME, import_openmmtorch
from ampmm.errors import InputError
from ampmm.export import capture, load_model

AVAILABLE = [name for name, backend in BACKENDS.items() if not backend.missing()]
GPU = torch.cuda.is_available()


@pytest.fixture
def pretended(monkeypatch):
    """A GPU that is not there, for the CPU: where graphs were captured."""
    captures: list[torch.device] = []

    def capture(call, device):
        captures.append(device)
        result = call()

        def replay() -> None:
            for mine, new in zip(result, call(), strict=True):
                mine.copy_(new)

        return replay, result

    monkeypatch.setattr("ampmm.embedding.mixed_system._check_graphs", lambda model, options: None)
    monkeypatch.setattr("ampmm.embedding.computations.capture", capture)
    return captures


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize("name", ["box", "droplet"])
def test_steps_are_those_without_graphs(name, backend, pretended, model, request):
    case = request.getfixturevalue(name)
    plain = context(mixed(case, model, backend=backend, dtype=torch.float64), case.positions)
    graph = context(mixed(case, model, backend=backend, dtype=torch.float64, cuda_graphs=True), case.positions)
    for _ in range(5):
        for each in (plain, graph):
            each.getIntegrator().step(2)
        assert energy(graph, {ML_GROUP}) == pytest.approx(energy(plain, {ML_GROUP}), abs=1e-6)
        assert np.allclose(forces(graph), forces(plain), atol=1e-4)
    assert pretended == ([torch.device("cpu")] if backend == "python" else [])


def test_arrays_that_have_become_too_short_are_made_anew(pretended, droplet, model):
    """All water moved to the formate, so that more charges are in range than there was room for."""
    system = mixed(droplet, model, backend="python", dtype=torch.float64, cuda_graphs=True, electrostatics="reaction-field")
    plain = mixed(droplet, model, backend="python", dtype=torch.float64, electrostatics="reaction-field")
    far = droplet.positions.copy()
    far[4:] += 5.0
    here = context(system, far)
    assert energy(here, {ML_GROUP}) == pytest.approx(energy(context(plain, far), {ML_GROUP}), abs=1e-6)
    assert len(pretended) == 1
    for _ in range(3):
        here.setPositions(droplet.positions)
        assert energy(here, {ML_GROUP}) == pytest.approx(energy(context(plain, droplet.positions), {ML_GROUP}), abs=1e-6)
    assert len(pretended) == 2


def test_the_python_force_keeps_it_through_xml(pretended, box, model):
    """A copy captures a graph of its own."""
    system = mixed(box, model, backend="python", cuda_graphs=True)
    copied = openmm.XmlSerializer.clone(system)
    for each in (system, copied):
        assert energy(context(each, box.positions), {ML_GROUP}) == pytest.approx(
            energy(context(mixed(box, model), box.positions), {ML_GROUP}), abs=1e-3
        )
    assert len(pretended) == 2


def test_what_cannot_be_computed_is_named_and_the_next_call_works(pretended, box, model):
    here = context(mixed(box, model, backend="python", cuda_graphs=True), box.positions)
    before = energy(here, {ML_GROUP})
    positions, together = box.positions.copy(), box.positions.copy()
    positions[2, 1] = np.nan
    together[1] = together[0]
    vectors = np.array([each._value for each in box.system.getDefaultPeriodicBoxVectors()])
    for where, edges, message in (
        (positions, vectors, "at NaN or infinity; the simulation has blown up"),
        (box.positions, 0.9 * vectors, "over half the box"),
        (together, vectors, "are two atoms, or an atom and an MM charge, at one place"),
    ):
        here.setPeriodicBoxVectors(*edges)
        here.setPositions(where)
        with pytest.raises(openmm.OpenMMException, match=message):
            energy(here, {ML_GROUP})
    here.setPeriodicBoxVectors(*vectors)
    here.setPositions(box.positions)
    assert energy(here, {ML_GROUP}) == pytest.approx(before, abs=1e-3)


@pytest.mark.skipif("torchforce" not in AVAILABLE, reason="openmmtorch does not load here")
def test_torch_force_is_told_and_keeps_it_through_xml(pretended, box, model):
    plain = import_openmmtorch().TorchForce(torch.jit.script(torch.nn.Identity()))
    assert plain.getProperties()["useCUDAGraphs"] == "false"
    told = '<Property name="useCUDAGraphs" value="true"/>'
    xml = serialize_system(mixed(box, model, backend="torchforce", cuda_graphs=True))
    again = deserialize_system(xml)
    assert told in xml and told in serialize_system(again)
    assert again.getForces()[-1].getName() == FORCE_NAME


@pytest.mark.skipif(GPU, reason="torch finds a GPU")
def test_a_machine_without_a_gpu_is_refused(box, model):
    with pytest.raises(InputError, match=r"cuda_graphs: expected a GPU that torch .* can use, and it finds none"):
        mixed(box, model, cuda_graphs=True)


def test_what_no_graph_can_do_is_refused(monkeypatch, box, droplet, model):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InputError, match=r'got one on the CPU; load it by ampmm.load_model\(\'formate\', device="cuda"\)'):
        mixed(box, model, backend="python", cuda_graphs=True)

    class Nothing:
        def evaluate(self) -> None: ...

    with pytest.raises(InputError, match="cuda_graphs: an evaluator is Python code"):
        mixed(droplet, Nothing(), cuda_graphs=True)


def test_a_graph_is_recorded_and_replayed_on_its_device(monkeypatch):
    """With a stand-in for torch.cuda, which says where the current device was another one."""
    current, seen = [0], []

    @contextmanager
    def device(index):
        before, current[0] = current[0], torch.device(index).index if isinstance(index, str) else index
        yield
        current[0] = before

    @contextmanager
    def recorded(graph, stream, capture_error_mode):
        seen.append(f"{capture_error_mode} on {stream.device}")
        yield

    stream = lambda: SimpleNamespace(device=current[0], wait_stream=lambda other: None)  # noqa: E731
    graph = lambda: SimpleNamespace(replay=lambda: seen.append(f"replayed on {current[0]}"))  # noqa: E731
    stand_in = {"device": device, "current_device": lambda: current[0], "Stream": stream, "current_stream": stream}
    stand_in |= {"stream": lambda aside: nullcontext(), "CUDAGraph": graph, "graph": recorded}
    for name, what in stand_in.items():
        monkeypatch.setattr(torch.cuda, name, what)
    replay, result = capture(lambda: seen.append(f"called on {current[0]}") or len(seen), "cuda:1")
    replay()
    assert seen == [*3 * ["called on 1"], "thread_local on 1", "called on 1", "replayed on 1"]
    assert result == 5 and current == [0]


@pytest.mark.skipif(not GPU, reason="torch finds no GPU")
@pytest.mark.parametrize("name", ["box", "droplet"])
def test_a_graph_on_a_gpu_gives_what_no_graph_gives(name, model_file, request):
    case = request.getfixturevalue(name)
    model = load_model(model_file, "cuda")
    assert get_backend("python").name == "python"
    plain = context(mixed(case, model, backend="python"), case.positions)
    graph = context(mixed(case, model, backend="python", cuda_graphs=True), case.positions)
    for _ in range(20):
        graph.getIntegrator().step(1)
        plain.setPositions(graph.getState(positions=True).getPositions())
        assert energy(graph, {ML_GROUP}) == pytest.approx(energy(plain, {ML_GROUP}), rel=1e-5)
        assert np.allclose(forces(graph, {ML_GROUP}), forces(plain, {ML_GROUP}), atol=1e-3 * np.abs(forces(plain)).max())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch finds no second GPU")
def test_a_graph_on_another_gpu_than_the_current_one_follows_the_positions(box, model_file):
    model = load_model(model_file, "cuda:1")
    plain = context(mixed(box, model, backend="python"), box.positions)
    graph = context(mixed(box, model, backend="python", cuda_graphs=True), box.positions)
    for _ in range(3):
        graph.getIntegrator().step(5)
        plain.setPositions(graph.getState(positions=True).getPositions())
        assert energy(graph, {ML_GROUP}) == pytest.approx(energy(plain, {ML_GROUP}), rel=1e-5)
    assert torch.cuda.current_device() == 0

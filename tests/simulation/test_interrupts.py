"""Signals: a run leaves what goes on, and one that arrives while OpenMM calls Python is no failure of the dynamics."""

import os
import signal

import openmm
import pytest
from small_runs import config, run, table

from ampmm.interrupt import keeping_interrupts
from ampmm.simulation import runner
from ampmm.simulation.runner import resume, start


def context_of(call):
    """One particle whose energy `call` is asked for."""
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(openmm.PythonForce(call))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions([[0, 0, 0]])
    return context


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_a_python_force_comes_out_as_one(number):
    def interrupted(state):
        os.kill(os.getpid(), number)
        return 0.0, [[0.0, 0.0, 0.0]]

    context = context_of(interrupted)
    handlers = [signal.signal(each, signal.default_int_handler) for each in (signal.SIGINT, signal.SIGTERM)]
    try:
        with pytest.raises(openmm.OpenMMException):
            context.getState(energy=True)
        with pytest.raises(KeyboardInterrupt), keeping_interrupts():
            context.getState(energy=True)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        for each, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
            signal.signal(each, handler)


def test_other_errors_stay_what_they_are():
    def refused(state):
        raise ValueError("no such place")

    with pytest.raises(openmm.OpenMMException, match="no such place"), keeping_interrupts():
        context_of(refused).getState(energy=True)


def test_interrupt_leaves_a_checkpoint_that_continues(small_system, tmp_path, monkeypatch):
    advance = runner._advance

    def interrupted(simulation, *others):
        advance(simulation, *others)
        if simulation.context.getStepCount() >= 30:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(runner, "_advance", interrupted)
    result = run(small_system, tmp_path / "a", steps=10**8, platform="CPU")
    monkeypatch.undo()
    assert result.interrupted and 0 < result.step < 10**8
    assert len(table(tmp_path / "a" / "state.csv")["step"]) == result.step // 10
    assert resume(tmp_path / "a", result.step + 10, progress=False).step == result.step + 10


@pytest.mark.parametrize(("steps", "signals"), [(0, 1), (12, 2)], ids=["before the first step", "a second one in a step"])
def test_an_interrupt_that_arrives_within_the_model_is_one(small_system, tmp_path, springs, monkeypatch, steps, signals):
    """OpenMM, which calls the model, hands on an error without a name; it is no failure of the dynamics."""
    evaluate, made = springs.evaluate, []
    make = runner.make_simulation
    monkeypatch.setattr(runner, "make_simulation", lambda *arguments: made.append(make(*arguments)) or made[0])

    def interrupted(*arguments, **options):
        if made and made[0].context.getStepCount() >= steps:
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGINT)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(springs, "evaluate", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        start(config(small_system, tmp_path / "a"), model=springs, progress=False)
    assert signal.getsignal(signal.SIGINT) is before
    assert not (tmp_path / "a" / "last_good.pdb").exists()

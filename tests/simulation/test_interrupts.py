"""Signals that arrive while OpenMM is at work."""

import os
import signal

import openmm
import pytest

from ampmm.interrupt import keeping_interrupts


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

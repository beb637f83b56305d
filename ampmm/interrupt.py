"""Ctrl-C and SIGTERM alike, or both held back until the end of a step, so that what is saved is a whole step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM (of a batch system, say) raises KeyboardInterrupt, as Ctrl-C does; outside the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def keeping_interrupts() -> Iterator[None]:
    """An interrupt that arrives in Python code which OpenMM calls comes out as one.

    OpenMM makes an exception of its own of everything that such code raises, with the text alone, which an interrupt lacks.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupted = False

    def noted(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        try:
            handlers[number](number, frame)
        except KeyboardInterrupt:
            interrupted = True
            raise

    changed = [number for number, handler in handlers.items() if callable(handler)]
    for number in changed:
        signal.signal(number, noted)
    try:
        yield
    except Exception:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number in changed:
            signal.signal(number, handlers[number])


class DeferredInterrupt:
    """While it is active, a first signal only sets `requested`; a second one interrupts at once.

    Outside the main thread, where Python handles no signals, it does nothing.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._request) for number in self._SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

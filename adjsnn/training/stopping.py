"""Ctrl-C and SIGTERM as a wish to stop after the step under way, so that a run can save and end."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PARENT = "ADJSNN_SWEEP"  # set by a sweep: the process without which its runs are to end


class Stop:
    """Whether, and by which signal, a stop was asked for.

    Attributes:
        signal: number of the signal; 0: none.
    """

    def __init__(self) -> None:
        self.signal = 0

    def __bool__(self) -> bool:
        return self.signal != 0

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """Ask for a stop; a second Ctrl-C stops at once."""
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def asked(*numbers: int) -> Iterator[Stop]:
    """Within it these signals only set the Stop; outside the main thread they do what they did before."""
    stop, before = Stop(), {}
    try:
        for number in numbers:
            before[number] = signal.signal(number, stop.ask)
    except ValueError:  # not the main thread
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Within it, SIGINT and SIGTERM only set the Stop; outside the main thread they do what they did before.

    So does SIGUSR2 in a run of a sweep: SLURM sends it to every process of a job that is to leave its place.
    """
    with asked(signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR2] if PARENT in os.environ else [])) as stop:
        _end_with_the_sweep()
        yield stop


def _end_with_the_sweep() -> None:
    """Stop this run as SIGTERM does, saved, once the sweep that started it is gone; one killed can no longer tell its runs."""
    parent = int(os.environ.pop(PARENT, "0"))  # its own processes have this one as their parent
    if not parent:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()

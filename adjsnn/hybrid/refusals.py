"""What is said of steps and events that are refused, by every body that takes them."""

from collections.abc import Callable
from typing import TypeVar

from adjsnn.errors import AdjsnnError, EventError, IntegrationError

E = TypeVar("E", bound=AdjsnnError)
T = TypeVar("T")


def first_to_fail(run: Callable[[int], T], batch: int) -> T:
    """What `run` gives of a batch; where samples fail, the error of the first of them in the batch, not in time.

    Args:
        run: does the first so many samples, all at once, and raises what is wrong with one of them.
        batch: all samples.
    """
    fine, count, found, half = 0, batch, None, False  # samples before `fine` do not fail, `found` is of sample `count`
    while fine < count:
        tried = (fine + count + 1) // 2 if half else count
        try:
            result = run(tried)
        except AdjsnnError as error:
            if error.sample is None or error.sample >= tried:  # of another solve, inside a field
                raise
            # Where many fail, each later than the one after it, there are log2(batch) runs, not a run for each.
            half = found is not None and not half
            count, found = error.sample, error
        else:
            if found is None:
                return result
            fine, half = tried, False
    assert found is not None
    raise found


def _of(sample: int, kind: type[E], seen: str, expected: str, remedy: str) -> E:
    error = kind(seen, expected, remedy)
    error.sample = sample
    return error


def stuck(sample: int, h: float, t: float, accepted: int, rejected: int, tolerances: str) -> IntegrationError:
    """A step that cannot be made shorter."""
    return _of(
        sample,
        IntegrationError,
        f"the step of sample {sample} shrank to {h:.3g} ms at t = {t:g} ms, too short to advance the time, after {accepted} "
        f"accepted and {rejected} rejected steps",
        "a solution that exists up to the last time and can be followed to this tolerance",
        f"a looser tolerance than {tolerances}, or float64; the solution may also blow up in finite time, or the system be "
        "stiff or discontinuous",
    )


def too_many(sample: int, t: float, t_end: float, max_steps: int, accepted: int, h: float, tolerances: str) -> IntegrationError:
    """More attempts than were allowed."""
    return _of(
        sample,
        IntegrationError,
        f"sample {sample} reached t = {t:g} of {t_end:g} ms in max_steps={max_steps} attempts, {accepted} of them accepted; "
        f"the next step would be {h:.3g} ms",
        "to arrive within max_steps",
        f"a larger max_steps or a looser tolerance than {tolerances}; a system that needs such short steps throughout is stiff",
    )


def touches(guard: int, sample: int, t: float, level: float, speed: float) -> EventError:
    """An event that was not found."""
    return _of(
        sample,
        EventError,
        f"guard {guard}, sample {sample}, touches zero near t = {t:.12g} ms without a clear crossing: Newton's method ended at "
        f"{level:.3g}, with dφ/dt = {speed:.3g}",
        "guards that rise through zero, and not many times in an instant",
        "another input or initial state, or stopping before: a grazing event has no gradient",
    )


def no_number(guard: int, sample: int, t: float, level: float, when: str) -> EventError:
    """A guard that is no number, or infinitely far above zero."""
    return _of(
        sample,
        EventError,
        f"guard {guard} of sample {sample} is {level:g} {when} t = {t:g} ms",
        "guards that are numbers",
        "a guard that is defined for every state that is met",
    )


def not_left(guard: int, sample: int, t: float, level: float) -> EventError:
    """A jump that leaves its own guard reached."""
    return _of(
        sample,
        EventError,
        f"the jump of guard {guard}, sample {sample}, t = {t:g} ms, left that guard at {level:g}",
        "a jump that ends below its own threshold",
        "a reset further away from the threshold",
    )


def raised(fired: int, sample: int, t: float, other: int, before: float, after: float) -> EventError:
    """A jump that raises another guard."""
    return _of(
        sample,
        EventError,
        f"the jump of guard {fired}, sample {sample}, t = {t:g} ms, raised guard {other} from {before:g} to {after:g}",
        "jumps that do not make another guard fire in the same instant",
        "a coupling with a time constant or a delay",
    )


def raised_by_packet(sample: int, t: float, guard: int, before: float, after: float) -> EventError:
    """What a synapse brings raises a guard."""
    return _of(
        sample,
        EventError,
        f"a packet that reached sample {sample} at t = {t:g} ms raised guard {guard} from {before:g} to {after:g}",
        "synapses that do not make a guard fire in the same instant",
        "synapses on a state that decays and drives the voltage",
    )


def piled(count: int, sample: int, t: float, guard: int) -> EventError:
    """Events without time passing."""
    return _of(
        sample,
        EventError,
        f"{count} events of sample {sample} at t = {t:.12g} ms, the last of guard {guard}, without time passing",
        "events that do not pile up in an instant",
        "a refractory time, or stopping before that time",
    )


def not_rising(guard: int, sample: int, t: float, speed: float) -> EventError:
    """An event whose guard does not rise."""
    return _of(
        sample,
        EventError,
        f"guard {guard}, sample {sample}, fired at t = {t:g} ms with dφ/dt = {speed:g}",
        "a guard that rises through zero",
        "another input or initial state: at a grazing event the gradient does not exist",
    )

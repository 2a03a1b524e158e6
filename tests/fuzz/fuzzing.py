"""What the fuzzed families share: how many examples, a time limit for each, and how much rounding may change a result.

`make test` runs about 25 examples, always the same; `make fuzz` sets ADJSNN_FUZZ, the number of random ones over all families.

How much rounding may do is measured, not guessed. A program is run again with each of its numbers changed by at most NUDGE,
relative; another order of the same operations changes it by some 2⁻⁵³ only, so two bodies may differ by a small part, ALLOWED,
of what the nudges did, and by no more. Where the nudged runs part (a grazing spike, chaos) there is nothing to hold after that.
"""

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, settings
from torch import Tensor

NUDGE = 1e-11  # relative; 10⁵ roundings
ALLOWED = 0.1  # part of the nudges' effect that two bodies may differ by: some 10⁴ roundings
FLOOR = 2.0**-42  # relative to the largest entry: rounding of what the nudges happen not to move
UNDERFLOW = 2.0**-1000  # absolute: what is smaller may have come through subnormal numbers, which have lost digits
PARTED = 1e-6  # relative change by nudges after which a run is taken as another one
LIMIT = 60.0  # s of computation for one example, most of which take milliseconds

SHARES = {"lif": 0.45, "gated": 0.3, "hybrid": 0.05, "equations": 0.1, "spoilt": 0.1}
EXAMPLES = int(os.environ.get("ADJSNN_FUZZ", "0"))
SHRINK = os.environ.get("ADJSNN_FUZZ_SHRINK", "1") != "0"  # what fails is small already; a smaller one may take minutes


class Hang(TimeoutError):
    """An example took longer than LIMIT."""


def fuzz(family: str, part: float = 1.0) -> Callable:
    """Settings of a test that gets `part` of its family's share of the examples."""
    share = SHARES[family] * part
    return settings(
        max_examples=max(1, round(share * (EXAMPLES or 25))),
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,  # which would not interrupt a hang; `time_limit` does
        report_multiple_bugs=False,
        print_blob=True,
        phases=[Phase.generate, *([Phase.shrink] if SHRINK else [])],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


@contextmanager
def time_limit(case: object, seconds: float = LIMIT) -> Iterator[None]:
    """Raise Hang in Python code; what no signal handler interrupts, a compiled loop or a deadlock, ends the process.

    `seconds` are of computation, so that a machine busy with other work makes no hang; the end comes after four times as many
    on the clock.
    """

    def stop(*_: object) -> None:
        raise Hang(f"{case!r} computed for more than {seconds:g} s")

    def end() -> None:
        print(f"{case!r} ran for more than {4 * seconds:g} s in compiled code", file=sys.__stderr__, flush=True)
        faulthandler.dump_traceback(sys.__stderr__ or 2)
        os._exit(70)

    before = signal.signal(signal.SIGPROF, stop)
    watchdog = threading.Timer(4 * seconds, end)
    watchdog.daemon = True
    watchdog.start()
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
        watchdog.cancel()


def nudged(x: Tensor, seed: int) -> Tensor:
    """x with each entry changed by at most NUDGE relative, equal entries by the same: what was tied or zero stays so."""
    bits = x.detach().double().reshape(-1).numpy().view(np.uint64)
    mixed = (bits ^ np.uint64(0x9E3779B97F4A7C15 * (seed + 1) % 2**64)) * np.uint64(0xD6E8FEB86659FD93)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    share = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
    return x.detach() * torch.from_numpy(1.0 + NUDGE * share).view(x.shape).to(x)


def largest(x: Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0


def allowed(nudges: list[Tensor], x: Tensor) -> float:
    """The largest difference that rounding explains, of x from the same by another body, given x of nudged runs."""
    return ALLOWED * max((largest(y - x) for y in nudges), default=0.0) + FLOOR * largest(x) + UNDERFLOW


def gradients_agree(
    leaves: dict[str, Tensor],
    judge: dict[str, Tensor],
    other: dict[str, Tensor],
    nudges: list[dict[str, Tensor]],
    rounding: float = 0.0,
    known: dict[str, float] | None = None,
) -> None:
    """Assert that two bodies' gradients agree.

    What the nudges do not move may differ by the rounding of the loss: as much as a relative change by FLOOR of the leaf that
    matters most would make.

    Args:
        rounding: relative to each gradient; known beside what the nudges show.
        known: the same of single gradients, absolute.
    """
    most = max((largest(judge[name] * x.detach()) for name, x in leaves.items()), default=0.0)
    for name, g in judge.items():
        size = largest(leaves[name].detach())
        limit = allowed([n[name] for n in nudges], g) + rounding * largest(g) + (FLOOR * most / size if size > 0.0 else 0.0)
        limit += (known or {}).get(name, 0.0)
        off = largest(other[name] - g)
        assert off <= limit, (name, off, limit, other[name], g)

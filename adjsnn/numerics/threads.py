"""Samples shared out over threads; the compiled loops release the interpreter."""

import ctypes
import heapq
import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path

import torch

MANY_NEURONS = 256  # above, one group for each thread: every group has a gradient of the weights of its own
SHARE = 1 << 14  # neuron-steps a group of samples must have to be worth a call
GROUPS_PER_THREAD = 4  # so that a thread whose core is busy otherwise does not hold the others up
_OF_LOOPS: ContextVar[int | None] = ContextVar("threads of the loops", default=None)


def loop_threads() -> int:
    """Threads of the compiled loops: as many as torch's, if nothing else was asked for with `loops_alone`."""
    return _OF_LOOPS.get() or torch.get_num_threads()


@contextmanager
def loops_alone(threads: int) -> Iterator[Callable[[], None]]:
    """The compiled loops inside take `threads` threads, torch's own operations one.

    A training is loops and, between them, small operations that gain nothing from a second thread. Shared out all the same,
    they leave workers behind that spin on the cores which the loops want, and wait for workers whose core is busy with
    something else: two threads could be slower than one.

    Yields:
        a function that gives torch the threads too, for networks that no compiled loop covers.
    """
    before = torch.get_num_threads()
    token = _OF_LOOPS.set(threads)
    torch.set_num_threads(1)
    try:
        yield lambda: torch.set_num_threads(threads)
    finally:
        torch.set_num_threads(before)
        _OF_LOOPS.reset(token)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Torch operations inside are not shared out.

    After an operation that was, torch's workers wait for the next one by spinning for some milliseconds, on the cores that the
    loops of the next solve want. Small operations between solves are better off in here.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def groups_of(batch: int, work_per_sample: int, n_hidden: int) -> list[tuple[int, int]]:
    """Samples (first, last) of each call. The gradient's sums are taken group by group, so their order is always the same."""
    threads = loop_threads()
    most = threads * GROUPS_PER_THREAD if n_hidden <= MANY_NEURONS else threads  # each group has a dW_rec of its own
    count = max(1, min(most, batch, batch * work_per_sample // SHARE))
    edges = [batch * k // count for k in range(count + 1)]
    return list(itertools.pairwise(edges))


def run_groups(work: Callable[[int, int, int], None], groups: list[tuple[int, int]]) -> None:
    """work(k, first, last) for each group, in `loop_threads` threads; the loops release the interpreter."""

    if len(groups) == 1:
        work(0, *groups[0])
        return

    def whole(k: int, first: int, last: int, part: int) -> bool:
        work(k, first, last)
        return True

    run_parts(whole, groups, 1)


def run_parts(work: Callable[[int, int, int, int], bool], groups: list[tuple[int, int]], parts: int) -> None:
    """work(k, first, last, part) for each group, its parts in order; else as `run_groups`.

    A thread takes the earliest part of the groups that no other is at. So all groups are at about the same part, whose memory
    is near, but none waits for a thread whose core is busy with something else, as all would at the end of every part.

    Args:
        work: says whether the group goes on.
        groups: of samples, from `groups_of`.
        parts: of each group.
    """
    failures: list[BaseException] = []
    waiting = [(0, k) for k in range(len(groups))]
    lock = threading.Lock()

    def share() -> Iterator[None]:
        try:
            yield  # on the way in from torch's workers an exception would be lost, were it of an interrupt
            while True:
                with lock:  # where none is left, those that are under way stay with their threads
                    if not waiting or failures:
                        return
                    part, k = heapq.heappop(waiting)
                if work(k, *groups[k], part) and part + 1 < parts:
                    with lock:
                        heapq.heappush(waiting, (part + 1, k))
        except BaseException as error:
            failures.append(error)

    shares = [share() for _ in range(min(loop_threads(), len(groups)))]
    try:
        for each in shares:
            next(each)
        _in_threads(shares)
        for each in shares:
            next(each, None)  # whatever an interrupt has left
    except BaseException as error:  # of an interrupt: the other threads go no further, either
        failures.append(error)
        raise
    if failures:
        raise failures[0]


def _in_threads(shares: list[Iterator[None]]) -> None:
    """Each of the shares to its end, in a thread of its own, one of them this one; they must not raise.

    They are torch's workers, where torch has as many: after an operation these spin for some milliseconds, on the cores that
    threads of our own would want. Elsewhere they are plain Python threads, which leave nothing behind that spins.
    """
    count = len(shares)
    parallel = _workers_of_torch() if 1 < count <= torch.get_num_threads() and os.getpid() == _PROCESS else None
    if parallel is not None:
        task = _TASK(partial(next, map(next, shares)))  # no Python but that of the shares; the argument, None, is the default
        parallel(task, None, count, 0)
        return
    others = [threading.Thread(target=next, args=(share, None)) for share in shares[1:]]
    for thread in others:
        thread.start()
    next(shares[0], None)
    for thread in others:
        thread.join()


# A process that was forked has none of torch's workers, and would wait for them without end; of one that was forked before
# this module was loaded, multiprocessing knows.
_PROCESS = os.getpid() if multiprocessing.parent_process() is None else None
_TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@cache
def _workers_of_torch() -> Callable[..., None] | None:
    """OpenMP's own way to run a function in all threads of torch's pool; None where torch was built with something else."""
    try:
        library = ctypes.CDLL(
            str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")
        )  # is loaded: finds what it is linked to
        parallel = library.GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.restype, parallel.argtypes = None, [_TASK, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    return parallel

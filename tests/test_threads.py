"""Threads of the compiled loops beside those of torch."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager

import pytest
import torch

import adjsnn
from adjsnn.numerics import threads
from adjsnn.numerics.threads import groups_of, loop_threads, loops_alone, run_groups, run_parts


@contextmanager
def torch_threads(count):
    """Torch has `count` threads, and so have the loops: they run on torch's workers."""
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(1)


OF_OURS_OR_OF_TORCH = [loops_alone, torch_threads]


def test_loops_alone_leave_torch_one_thread_and_give_it_back():
    before = torch.get_num_threads()
    assert loop_threads() == before
    with loops_alone(3) as share:
        assert (loop_threads(), torch.get_num_threads()) == (3, 1)
        with pytest.raises(ZeroDivisionError), loops_alone(2):
            raise ZeroDivisionError
        assert (loop_threads(), torch.get_num_threads()) == (3, 1)
        share()
        assert (loop_threads(), torch.get_num_threads()) == (3, 3)
    assert (loop_threads(), torch.get_num_threads()) == (before, before)


@pytest.mark.parametrize("kind", ["gated", "lif"])
def test_the_loops_share_samples_out_as_with_torchs_threads(kind):
    def gradient():
        generator = torch.Generator().manual_seed(0)
        if kind == "gated":
            net = adjsnn.GatedSynapseNetwork(1, 30, 1, generator=generator, dtype=torch.float64)
            u = torch.rand(100, 40, 1, generator=generator, dtype=torch.float64)
            adjsnn.solve(net, u, dt=0.1).readout.square().sum().backward()
            return net.w_in.grad
        net = adjsnn.LIFNetwork(1, 30, bias=2.0, learn=("bias",), generator=generator, dtype=torch.float64)
        drive = torch.zeros(100, 40, 1, dtype=torch.float64)
        adjsnn.solve(net, drive, dt=1.0).spike_times().sum().backward()
        return net.bias[0].grad

    assert len(groups_of(40, 100 * 30, 30)) == 4
    with loops_alone(3):
        assert len(groups_of(40, 100 * 30, 30)) == 7
        found = gradient()
    with torch_threads(3):
        assert torch.equal(found, gradient())


@pytest.mark.parametrize("given", OF_OURS_OR_OF_TORCH)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_parts_of_a_group_run_in_order_until_it_stops(count, given):
    groups, met = [(k, k + 1) for k in range(4)], []

    def work(k, first, last, part):
        assert (first, last) == groups[k]
        time.sleep(0.001 * ((k + part) % 3))
        met.append((k, part))
        return (k, part) != (2, 1)

    with given(count):
        run_parts(work, groups, 3)
    for k in range(4):
        assert [part for group, part in met if group == k] == ([0, 1] if k == 2 else [0, 1, 2])
    if count == 1:  # all groups do a part before any does the next
        assert [part for _, part in met] == sorted(part for _, part in met)


@pytest.mark.parametrize("given", OF_OURS_OR_OF_TORCH)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("failure", [ZeroDivisionError, KeyboardInterrupt])
def test_a_failure_in_any_thread_is_raised(count, given, failure):
    def failing(k):
        if k == 1:
            raise failure

    def work(k, *_):
        failing(k)
        return True

    with given(count):
        for run in (lambda: run_parts(work, [(0, 1)] * 4, 3), lambda: run_groups(lambda k, *_: failing(k), [(0, 1)] * 4)):
            with pytest.raises(failure):
                run()


def threads_that_worked(groups=4):
    """Identities of the threads that work on groups, which wait for each other as long as others may come."""
    met = set()

    def work(*_):
        met.add(threading.get_ident())
        time.sleep(0.02)

    run_groups(work, [(0, 1)] * groups)
    return met


@pytest.mark.skipif(
    threads._workers_of_torch() is None, reason="torch was not built with GNU's OpenMP, or one that speaks like it"
)
def test_the_loops_run_on_torchs_workers_and_on_threads_of_their_own_where_torch_has_one():
    before = threading.active_count()
    with torch_threads(3):
        first, second = threads_that_worked(), threads_that_worked()
        assert first == second
        assert len(first) == 3
        assert threading.get_ident() in first
    assert threading.active_count() == before
    with loops_alone(3):
        assert len(threads_that_worked()) == 3
        assert threads_that_worked() & first == {threading.get_ident()}


def test_where_torch_has_other_workers_the_loops_take_threads_of_their_own(monkeypatch):
    monkeypatch.setattr(threads, "_workers_of_torch", lambda: None)
    with torch_threads(3):
        assert len(threads_that_worked()) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_process_does_not_wait_for_workers_that_stayed_behind():
    with torch_threads(2):
        threads_that_worked()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, because workers stay behind
            child = multiprocessing.get_context("fork").Process(target=lambda: os._exit(len(threads_that_worked())))
            child.start()
        child.join(30.0)
        ended = child.exitcode
        child.kill()
    assert ended == 2


FORKED = """
import multiprocessing, os, sys, torch

torch.set_num_threads(2)
torch.ones(1000, 1000).add(1.0)  # torch's workers are there

def child():
    from adjsnn.numerics.threads import run_groups

    run_groups(lambda *_: None, [(0, 1)] * 4)
    os._exit(5)

process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(20.0)
process.kill()
assert process.exitcode == 5, "its library was loaded there"
import adjsnn

if not os.fork():
    child()
assert os.waitstatus_to_exitcode(os.wait()[1]) == 5, "its library was loaded here, its loops are there"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_nor_does_one_that_loads_the_library_or_its_loops_later():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=True, timeout=60.0)


@pytest.mark.skipif(sys.platform == "win32", reason="no signals of one thread to another")
def test_no_interrupt_is_lost_on_the_way_into_torchs_workers():
    """Where the interpreter was waited for there, one in eight was."""
    asked, over, main = threading.Event(), threading.Event(), threading.main_thread().ident
    assert main is not None

    def interrupts():
        while not over.is_set():
            if asked.wait(0.1):
                asked.clear()
                time.sleep(random.random() * 5e-4)
                signal.pthread_kill(main, signal.SIGUSR1)

    def handler(*_):
        handled.append(1)
        raise KeyboardInterrupt

    handled: list[int] = []
    before = signal.signal(signal.SIGUSR1, handler)
    other = threading.Thread(target=interrupts)
    other.start()
    try:
        with torch_threads(2):
            for trial in range(150):
                with pytest.raises(KeyboardInterrupt):  # noqa: PT012  at any place inside
                    asked.set()
                    while len(handled) == trial:
                        run_groups(lambda *_: None, [(0, 1)] * 8)
    finally:
        over.set()
        other.join()
        signal.signal(signal.SIGUSR1, before)

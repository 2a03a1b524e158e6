"""Threads of the compiled loops beside those of torch."""

import time

import pytest
import torch

import adjsnn
from adjsnn.numerics.threads import groups_of, loop_threads, loops_alone, run_groups, run_parts


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
    torch.set_num_threads(3)
    try:
        assert torch.equal(found, gradient())
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_parts_of_a_group_run_in_order_until_it_stops(threads):
    groups, met = [(k, k + 1) for k in range(4)], []

    def work(k, first, last, part):
        assert (first, last) == groups[k]
        time.sleep(0.001 * ((k + part) % 3))
        met.append((k, part))
        return (k, part) != (2, 1)

    with loops_alone(threads):
        run_parts(work, groups, 3)
    for k in range(4):
        assert [part for group, part in met if group == k] == ([0, 1] if k == 2 else [0, 1, 2])
    if threads == 1:  # all groups do a part before any does the next
        assert [part for _, part in met] == sorted(part for _, part in met)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_failure_in_any_thread_is_raised(threads):
    def work(k, *_):
        if k == 1:
            raise ZeroDivisionError
        return True

    with loops_alone(threads):
        for run in (lambda: run_parts(work, [(0, 1)] * 4, 3), lambda: run_groups(work, [(0, 1)] * 4)):
            with pytest.raises(ZeroDivisionError):
                run()

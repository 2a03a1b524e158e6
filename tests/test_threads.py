"""Threads of the compiled loops beside those of torch."""

import pytest
import torch

import adjsnn
from adjsnn.numerics.threads import groups_of, loop_threads, loops_alone


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

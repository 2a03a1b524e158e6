"""Figures that were first read without a tape, by a monitor, have their gradient when a loss asks for them."""

import pytest
import torch
from networks import DT, GATES, MEMBRANES, random_network, random_trial

import adjsnn
from adjsnn.rules import DirectFeedbackAlignment, EProp, FeedbackAlignment, LocalErrors, SurrogateBPTT

F64 = torch.float64
RULES = {
    "exact": None,
    "surrogate": SurrogateBPTT(),
    "alignment": FeedbackAlignment(),
    "direct": DirectFeedbackAlignment(),
    "e-prop": EProp(),
    "local": LocalErrors(),
}


def lif(rule):
    net = adjsnn.LIFNetwork(3, 6, bias=1.5, n_out=2, dtype=F64, generator=torch.Generator().manual_seed(0))
    rates = torch.full((2, 3), 100.0, dtype=F64)
    x = adjsnn.SpikeTrains.poisson(rates, 20.0, generator=torch.Generator().manual_seed(0))
    options = {"ts": [0.0, 10.0, 20.0]} if rule is None else {"dt": 0.5, "adjoint": rule}
    return net, lambda: adjsnn.solve(net, x, **options)


def gated(method):
    net = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=0)
    for tau in (net.tau_fast, net.tau_slow):  # so that Euler steps keep no synapses
        tau.requires_grad_(False)
    u, y0 = random_trial(net, seed=0)
    return net, lambda: adjsnn.solve(net, u, dt=DT, y0=y0, method=method)


def agree(solve, leaves, read, context):
    gradients = []
    for first_without in (False, True):
        sol = solve()
        if first_without:
            with context():
                read(sol)
        gradients.append(torch.autograd.grad(read(sol), leaves))
    for value, expected in zip(*reversed(gradients), strict=True):
        assert bool(expected.any())
        assert torch.equal(value, expected)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", RULES)
def test_readouts_of_lif_networks(name, context):
    net, solve = lif(RULES[name])
    agree(solve, [net.w_in[0], net.w_out], lambda sol: sol.readout.square().sum(), context)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_spikes_of_lif_networks(context):
    net, solve = lif(None)

    def read(sol):
        return torch.where(sol.layer_spikes[0].idx >= 0, sol.layer_spikes[0].time, 0.0).square().sum()

    agree(solve, [net.w_in[0]], read, context)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", ["euler", "rk4"])
@pytest.mark.parametrize("name", ["a_fast", "a_slow", "charge", "spike_charge"])
def test_states_of_gated_networks(name, method, context):
    net, solve = gated(method)
    agree(solve, [net.w_in, net.bias], lambda sol: getattr(sol, name).square().sum(), context)


def test_what_was_read_once_is_kept():
    _, solve = gated("euler")
    sol = solve()
    with torch.no_grad():
        assert sol.a_slow is sol.a_slow
    assert sol.a_slow is sol.a_slow
    with torch.no_grad():
        assert sol.a_slow.requires_grad

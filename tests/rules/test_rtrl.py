"""RTRL: the gradient of backpropagation with the same surrogate, carried forward."""

from types import SimpleNamespace

import pytest
import torch
from test_clocked import F64, network, spikes

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork
from adjsnn.rules import RTRL, DirectFeedbackAlignment, FeedbackAlignment, SurrogateBPTT, Triangle

SHAPE = Triangle(2.0)


def small(recurrent: bool = True, **options) -> LIFNetwork:
    learn = ("weights", "bias", "tau_mem", "tau_syn", "v_th", "v_reset")
    options = {"n_out": 2, "learn": learn, "bias": 0.4} | options
    return LIFNetwork(3, (5, 4), recurrent, dtype=F64, generator=torch.Generator().manual_seed(0), **options)


def inputs(batch: int = 2):
    rates = torch.full((batch, 3), 100.0, dtype=F64)
    return adjsnn.SpikeTrains.poisson(rates, 30.0, generator=torch.Generator().manual_seed(0))


def gradients(net, x, rule, **options):
    leaves = {name: p for name, p in net.named_parameters() if p.requires_grad}
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=rule, **options)
    weight = torch.linspace(0.5, 1.5, sol.spikes_on_grid().numel(), dtype=F64).view(sol.spikes_on_grid().shape)
    value = sol.readout.square().sum() + (weight * sol.spikes_on_grid()).sum() + sol.v[0].square().sum() + sol.i[1].sin().sum()
    value = value + sol.voltage_max(0).sum()
    if sol.a[0] is not None:
        value = value + sol.a[0].square().sum() + sol.threshold(1).sin().sum()
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


ADAPTS = {
    "tau_adapt": [20.0, 60.0],
    "jump_adapt": [-0.1, -0.05],
    "scale_adapt": [0.9, 1.1],
    "tau_th": [30.0],
    "jump_th": [0.1],
    "scale_th": [0.8],
}
OPTIONS = (
    {},
    {"refractory": 1.0},
    {"delays": 1.2, "rec_delays": 2.0},
    {**ADAPTS, "learn": ("weights", "bias", "tau_mem", "v_th", "v_reset", *ADAPTS)},
    {**ADAPTS, "refractory": 1.0, "learn": ("weights", *ADAPTS)},
)


@pytest.mark.every(7)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("reset", ["to", "by"])
def test_it_is_backpropagation_with_the_surrogate(reset, through, options):
    net, x = small(**options), inputs()
    expected = gradients(net, x, SurrogateBPTT(SHAPE, reset=reset, through_reset=through))
    found = gradients(net, x, RTRL(SHAPE, reset=reset, through_reset=through))
    assert sum(bool(g.any()) for g in expected.values()) >= 12
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-11, msg=name)


def test_its_truncation_cuts_recurrent_weights():
    net, x = small(learn=("weights", "bias")), inputs()
    found = gradients(net, x, RTRL(SHAPE, own_neuron=True))
    matrices = [net.w_in[1], net.w_out]  # the weights themselves: only what is recurrent is cut
    expected = gradients(net, x, FeedbackAlignment(SHAPE, recurrent="cut", matrices=matrices))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-11, msg=name)


@pytest.mark.slow
def test_chunks_change_nothing():
    net, x = small(learn=("weights",)), inputs()
    whole, parts = (gradients(net, x, RTRL(SHAPE, chunk=chunk)) for chunk in (None, 20))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-12, atol=1e-13)


def test_many_parameters_are_carried_in_parts_as_many_as_states():
    """Memory is then that of a derivative of each state by each parameter, not of a direction of each."""
    layers = [SimpleNamespace(v_th=torch.zeros(n)) for n in (5, 4)]
    problem = SimpleNamespace(trial=SimpleNamespace(first=torch.zeros(3)), layers=layers)
    assert RTRL().together(problem, 1024) == 1024
    assert RTRL().together(problem, 1025) == 2 * (5 + 4)
    assert RTRL(chunk=7).together(problem, 10**6) == 7


def test_a_network_that_learns_little_carries_little():
    net, x = network(learn=("bias",), n_out=None), spikes()
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=RTRL(SHAPE))
    found = torch.autograd.grad(sol.spike_count().sum(), [net.bias[0]])
    expected = torch.autograd.grad(
        adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT(SHAPE)).spike_count().sum(), [net.bias[0]]
    )
    torch.testing.assert_close(found[0], expected[0], rtol=1e-10, atol=1e-11)


def test_what_it_does_not_carry_is_refused():
    net, x = small(), inputs()
    y0 = net.initial_state(2)
    y0[0] = y0[0]._replace(v=torch.zeros(2, 5, dtype=F64, requires_grad=True))
    with pytest.raises(ConfigurationError, match="initial states"):
        adjsnn.solve(net, x, dt=0.5, y0=y0, adjoint=RTRL())
    with pytest.raises(ConfigurationError, match="currents"):
        adjsnn.solve(net, torch.zeros(4, 2, 3, dtype=F64), dt=0.5, adjoint=RTRL())
    for bad in ({"reset": "up"}, {"chunk": 0}, {"own_neuron": 2}, {"surrogate": "x"}):
        with pytest.raises(ConfigurationError):
            RTRL(**bad)


def test_second_derivatives_are_refused():
    net, x = small(), inputs()
    for rule in (RTRL(), SurrogateBPTT(), DirectFeedbackAlignment()):
        value = adjsnn.solve(net, x, dt=0.5, adjoint=rule).spike_count(0).sum()
        with pytest.raises(ConfigurationError, match="gradient of a gradient"):
            torch.autograd.grad(value, net.w_in[0], create_graph=True)

"""e-prop: backpropagation with the same surrogate where recurrent weights carry no error; its traces are of one size."""

import pytest
import torch
from test_clocked import F64, network, spikes

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork
from adjsnn.rules import EProp, FeedbackAlignment, SurrogateBPTT, Triangle

SHAPE = Triangle(2.0)
OPTIONS = {
    "usual": {},
    "refractory": {"refractory": 1.5},
    "delays": {"delays": 1.2, "rec_delays": 2.0},
    "per synapse": {
        "delays": torch.linspace(0.0, 3.0, 60).view(12, 5),
        "rec_delays": torch.linspace(0.5, 4.0, 144).view(12, 12),
    },
}


def layer(recurrent: bool = True, **options) -> LIFNetwork:
    options = {"n_out": 2, "bias": 0.4, "learn": ("weights", "bias")} | options
    if not recurrent:
        options.pop("rec_delays", None)
    return LIFNetwork(5, 12, recurrent, dtype=F64, generator=torch.Generator().manual_seed(0), **options)


def gradients(net, x, rule):
    leaves = {name: p for name, p in net.named_parameters() if p.requires_grad}
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=rule)
    weight = torch.linspace(0.5, 1.5, sol.readout.numel(), dtype=F64).view(sol.readout.shape)
    found = torch.autograd.grad((weight * sol.readout).square().sum(), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("reset", ["to", "by"])
def test_without_recurrence_it_is_backpropagation(reset, through, name):
    net, x = layer(False, **OPTIONS[name]), spikes()
    expected = gradients(net, x, SurrogateBPTT(SHAPE, reset=reset, through_reset=through))
    found = gradients(net, x, EProp(SHAPE, reset=reset, through_reset=through))
    for key, value in expected.items():
        assert bool(value.any())
        torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-11, msg=key)


@pytest.mark.parametrize("name", OPTIONS)
def test_with_recurrence_it_is_backpropagation_that_is_cut_there(name):
    net, x = layer(**OPTIONS[name]), spikes()
    found = gradients(net, x, EProp(SHAPE))
    expected = gradients(net, x, FeedbackAlignment(SHAPE, recurrent="cut", matrices=[net.w_out]))
    for key, value in expected.items():
        assert bool(value.any())
        torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-11, msg=key)
    whole = gradients(net, x, SurrogateBPTT(SHAPE))
    assert not torch.allclose(whole["w_rec.0"], found["w_rec.0"], rtol=1e-2)


@pytest.mark.parametrize("through", [False, True])
def test_currents_and_their_weights(through):
    """Beside spikes' weights, those of analog currents, and the currents themselves."""
    u = torch.randn(120, 4, 5, dtype=F64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = {}
    for recurrent in (True, False):
        net = layer(recurrent, refractory=1.0)
        rules = (
            EProp(SHAPE, through_reset=through),
            FeedbackAlignment(SHAPE, recurrent="cut", matrices=[net.w_out], through_reset=through),
        )
        for rule in rules:
            sol = adjsnn.solve(net, u, dt=0.5, adjoint=rule)
            found[rule] = torch.autograd.grad(
                sol.readout.square().sum(), [u, *(p for p in net.parameters() if p.requires_grad)]
            )
        assert bool(found[rules[0]][0].any())
        for own, expected in zip(*(found[rule] for rule in rules), strict=True):
            torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-11)


def test_a_price_on_spikes_is_told_to_their_neurons():
    net, x, found = layer(), spikes(), []
    for rule in (EProp(SHAPE), FeedbackAlignment(SHAPE, recurrent="cut", matrices=[net.w_out])):
        sol = adjsnn.solve(net, x, dt=0.5, adjoint=rule)
        for value in (sol.squared_rate().mean(), sol.squared_rate().mean() + sol.readout.square().sum()):
            leaves = [net.w_in[0], net.w_rec[0], net.bias[0]]
            found.append(torch.autograd.grad(value, leaves, retain_graph=True))
    for k in (0, 1):
        for own, expected in zip(found[k], found[k + 2], strict=True):
            torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-11)


def test_random_feedback_goes_through_one_matrix():
    net, x = layer(), spikes()
    rule = EProp(SHAPE, feedback="random", seed=3, scale=0.5)
    found = gradients(net, x, rule)
    expected = gradients(net, x, FeedbackAlignment(SHAPE, recurrent="cut", matrices=[rule.back(net.w_out.detach())]))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-11, msg=key)
    assert torch.equal(gradients(net, x, rule)["w_in.0"], found["w_in.0"])
    assert not torch.allclose(gradients(net, x, EProp(SHAPE, feedback="random"))["w_in.0"], found["w_in.0"])


def test_what_it_does_not_cover_is_refused():
    x = spikes()
    for net, message in (
        (network(), "2 layers with a readout"),
        (layer(n_out=None), "1 layers without a readout"),
        (layer(learn=("weights", "tau_mem")), "gradients of tau_mem"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            adjsnn.solve(net, x, dt=0.5, adjoint=EProp())
    sol = adjsnn.solve(layer(), x, dt=0.5, adjoint=EProp())
    for value in (sol.v[0].sum() + sol.readout.sum(), sol.i[0].sum(), sol.voltage_max().sum()):
        with pytest.raises(ConfigurationError, match="a loss of voltages or currents"):
            value.backward(retain_graph=True)
    for bad in ({"feedback": "none"}, {"reset": "up"}, {"seed": -1}, {"scale": 0.0}, {"surrogate": "x"}):
        with pytest.raises(ConfigurationError):
            EProp(**bad)

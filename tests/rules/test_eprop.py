"""e-prop: backpropagation with the same surrogate where recurrent weights carry no error; its traces are of one size."""

import pytest
import torch
from test_clocked import F64, network, spikes

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork
from adjsnn.rules import EProp, FeedbackAlignment, SurrogateBPTT, Triangle

SHAPE = Triangle(2.0)
ADAPTS = {
    "tau_adapt": [40.0, 90.0],
    "jump_adapt": [-0.05, -0.02],
    "scale_adapt": [0.9, 1.1],
    "tau_th": [25.0, 60.0],
    "jump_th": [0.05, 0.1],
    "scale_th": [1.0, 0.8],
}
OPTIONS = {
    "usual": {},
    "refractory": {"refractory": 1.5},
    "delays": {"delays": 1.2, "rec_delays": 2.0},
    "per synapse": {
        "delays": torch.linspace(0.0, 3.0, 60).view(12, 5),
        "rec_delays": torch.linspace(0.5, 4.0, 144).view(12, 12),
    },
    "adapts": ADAPTS,
    "adapts, refractory": {**ADAPTS, "refractory": 1.5},
    "threshold alone": {"tau_th": [60.0], "jump_th": [0.2]},
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


@pytest.mark.parametrize("options", [{}, ADAPTS])
@pytest.mark.parametrize("through", [False, True])
def test_currents_and_their_weights(through, options):
    """Beside spikes' weights, those of analog currents, and the currents themselves."""
    u = torch.randn(120, 4, 5, dtype=F64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = {}
    for recurrent in (True, False):
        net = layer(recurrent, refractory=1.0, **options)
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


def by_hand(net, x, rule, signal):
    """(5.8a) written out for every synapse by itself: traces of the adaptation go along with those of the voltage.

    Args:
        signal: L, (T+1, B, N).
    """
    p, dt, n = net.tensors()[0], 0.5, 12
    alpha, beta = torch.exp(-dt / p.tau_syn), torch.exp(-dt / p.tau_mem)
    decay_a, decay_h = torch.exp(-dt / p.tau_adapt), torch.exp(-dt / p.tau_th)
    kappa, kappa_a = (tau / (p.tau_mem - tau) * (beta - torch.exp(-dt / tau)) for tau in (p.tau_syn, p.tau_adapt))
    found = {
        "w_in.0": torch.zeros(n, 5, dtype=F64),
        "w_rec.0": torch.zeros(n, n, dtype=F64),
        "bias.0": torch.zeros(n, dtype=F64),
    }
    for b in range(x.batch):
        arriving = torch.zeros(len(signal), 5, dtype=F64)
        for time, k in zip(x.time[b].tolist(), x.idx[b].tolist(), strict=True):
            if k >= 0:
                arriving[round(time / dt), k] += 1.0
        v, i, a, h = (torch.zeros(*rows, n, dtype=F64) for rows in ((), (), (2,), (2,)))
        e_i = torch.zeros(n, 5 + n + 1, dtype=F64)  # of inputs, of the layer's own neurons, and none of the bias
        e_v, e_a, e_h = e_i.clone(), torch.zeros(2, *e_i.shape, dtype=F64), torch.zeros(2, *e_i.shape, dtype=F64)
        before = torch.zeros(n, dtype=F64)
        for t in range(len(signal)):
            i = i + p.w_in @ arriving[t] + p.w_rec @ before
            e_i = e_i + torch.cat([arriving[t], before, torch.zeros(1, dtype=F64)])
            over = v - p.v_th - h.sum(0)
            s, slope = (over >= 0).double(), rule.surrogate.derivative(over.clone())
            e_s = slope[:, None] * (e_v - e_h.sum(0))  # the eligibility: how the synapse moves S
            parts = (signal[t, b][:, None] * e_s).split([5, n, 1], 1)
            for name, part in zip(found, parts, strict=True):
                found[name] += part.view(found[name].shape)
            e_v = (1 - s)[:, None] * e_v
            e_a = (1 + s * (p.scale_adapt - 1))[:, :, None] * e_a + ((p.scale_adapt - 1) * a + p.jump_adapt)[:, :, None] * e_s
            e_h = (1 + s * (p.scale_th - 1))[:, :, None] * e_h + ((p.scale_th - 1) * h + p.jump_th)[:, :, None] * e_s
            v = torch.where(s > 0, p.v_reset, v)
            a, h = a + s * ((p.scale_adapt - 1) * a + p.jump_adapt), h + s * ((p.scale_th - 1) * h + p.jump_th)
            v = p.bias + beta * (v - p.bias) + kappa * i + (kappa_a * a).sum(0)
            e_v = beta[:, None] * e_v + kappa[:, None] * e_i + (kappa_a[:, :, None] * e_a).sum(0)
            e_v[:, -1] += 1 - beta
            i, a, h, before = alpha * i, decay_a * a, decay_h * h, s
            e_i, e_a, e_h = alpha[:, None] * e_i, decay_a[:, :, None] * e_a, decay_h[:, :, None] * e_h
    return found


@pytest.mark.parametrize("feedback", ["symmetric", "random"])
def test_adaptation_has_traces_of_its_own(feedback):
    """A recurrent layer that adapts, against the recursion of Bellec et al. in these steps."""
    net, x = layer(**ADAPTS), spikes(batch=2)
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT(SHAPE))
    error = torch.autograd.grad(sol.readout.square().sum(), sol._sent)[0]  # e, the cotangent of W_out S
    rule = EProp(SHAPE, feedback=feedback)
    with torch.no_grad():
        expected = by_hand(net, x, rule, error @ rule.back(net.w_out))
    leaves = {name: p for name, p in net.named_parameters() if name in expected}
    found = torch.autograd.grad(adjsnn.solve(net, x, dt=0.5, adjoint=rule).readout.square().sum(), list(leaves.values()))
    bare = layer(**{**ADAPTS, "jump_adapt": [0.0, 0.0], "jump_th": [0.0, 0.0], "scale_adapt": None, "scale_th": None})
    assert sol.stats.spikes[0] < adjsnn.solve(bare, x, dt=0.5, adjoint=rule).stats.spikes[0]
    for (name, value), own in zip(expected.items(), (found[list(leaves).index(name)] for name in expected), strict=True):
        assert float((own - value).norm() / value.norm()) <= 1e-10, name


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
        (layer(**ADAPTS, learn=("weights", "jump_th")), "gradients of jump_th"),
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

"""A frozen network with a ridge readout: the normal equations, a gradient of zero, and the readout in the network."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

import adjsnn
from adjsnn import ConfigurationError, GatedSynapseNetwork, LIFNetwork, MissingPackageError, SpikeTrains
from adjsnn.rules import Reservoir, SurrogateBPTT

F64 = torch.float64
T_END = 60.0
TS = torch.linspace(1.0, T_END, 60, dtype=F64)


def lif(recurrent: bool = True, dtype: torch.dtype = F64, **options) -> LIFNetwork:
    options = {"n_out": 2, "bias": 1.2, "tau_out": 10.0} | options
    return LIFNetwork(5, 12, recurrent, dtype=dtype, generator=torch.Generator().manual_seed(0), **options)


def gated() -> GatedSynapseNetwork:
    net = GatedSynapseNetwork(3, 10, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.bias.fill_(0.2)
    return net


def spikes(dtype: torch.dtype = F64, batch: int = 4) -> SpikeTrains:
    rates = torch.full((batch, 5), 60.0, dtype=dtype)
    return SpikeTrains.poisson(rates, T_END, generator=torch.Generator().manual_seed(1))


def currents() -> Tensor:
    return 0.3 * torch.randn(100, 4, 3, dtype=F64, generator=torch.Generator().manual_seed(2))


def target(steps: int, batch: int = 4, channels: int = 2) -> Tensor:
    t = torch.linspace(0.0, 6.0, steps, dtype=F64)[:, None, None]
    phase = torch.arange(batch * channels, dtype=F64).view(batch, channels)
    return 0.05 * torch.sin(t + phase)


CASES = {
    "recurrent": (lif, spikes, {"ts": TS}),
    "feed-forward": (lambda: lif(False), spikes, {"ts": TS}),
    "on a clock": (lif, spikes, {"dt": 1.0, "adjoint": SurrogateBPTT()}),
    "gated": (gated, currents, {"dt": 0.5}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_solves_the_normal_equations_and_the_network_then_says_what_it_predicts(name):
    build, inputs, options = CASES[name]
    net, x, alpha = build(), inputs(), 1e-4
    steps = len(adjsnn.solve(net, x, **options).readout)
    wanted = target(steps)
    reservoir = Reservoir(net, alpha, **options).fit(x, wanted)

    # Features from the definition, by one unit vector of w_out a neuron.
    n = net.w_out.shape[1]
    with torch.no_grad():
        kept, rows = net.w_out.clone(), []
        for k in range(n):
            net.w_out.zero_()[0, k] = 1.0
            rows.append(adjsnn.solve(net, x, **options).readout[:, :, 0].flatten())
        net.w_out.copy_(kept)
    a, y = torch.stack(rows, 1), wanted.flatten(0, 1)
    found = torch.linalg.solve(a.T @ a + alpha * torch.eye(n, dtype=F64), a.T @ y).T
    torch.testing.assert_close(reservoir.coef, found, rtol=1e-10, atol=1e-10 * float(found.abs().max()))

    predicted = reservoir.predict(x)
    assert reservoir.write_() is net
    torch.testing.assert_close(adjsnn.solve(net, x, **options).readout, predicted, rtol=1e-10, atol=1e-12)
    missed, spread = (predicted - wanted).square().sum((0, 1)), (wanted - wanted.mean((0, 1))).square().sum((0, 1))
    assert reservoir.score(x, wanted) == pytest.approx(float((1.0 - missed / spread).mean()), rel=1e-10)


@pytest.mark.parametrize("recurrent", [True, False])
def test_the_exact_gradient_of_the_ridge_objective_is_zero(recurrent):
    net, x, wanted = lif(recurrent), spikes(), target(len(TS))
    Reservoir(net, 0.01, ts=TS).fit(x, wanted).write_()

    def gradient() -> Tensor:
        error = (adjsnn.solve(net, x, ts=TS).readout - wanted).square().sum()
        (found,) = torch.autograd.grad(error + 0.01 * net.w_out.square().sum(), net.w_out)
        return found

    at_solution = gradient().norm()
    with torch.no_grad():
        net.w_out.zero_()
    assert float(at_solution) < 1e-8 * float(gradient().norm())


def test_filtered_spikes_are_those_of_the_equation():
    net, x = lif(n_out=None), spikes()
    reservoir = Reservoir(net, tau=7.0, ts=TS)
    trains = adjsnn.solve(net, x, t_end=T_END).layer_spikes[-1]
    found = reservoir._solved(x)
    expected = torch.zeros_like(found)
    for b, row in enumerate(trains.to_list()):
        for t, k in row:
            expected[:, b, k] += torch.where(t <= TS, torch.exp(-(TS - t) / 7.0) / 7.0, 0.0)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


def test_first_spikes_and_counts_are_those_of_the_solution():
    net, x = lif(bias=torch.linspace(1.2, -50.0, 12)), spikes()
    sol = adjsnn.solve(net, x, t_end=T_END)
    first = Reservoir(net, features="first", tau=15.0, t_end=T_END)._solved(x)
    torch.testing.assert_close(first, torch.exp(-sol.first_spike_times() / 15.0), rtol=1e-12, atol=0.0)
    assert bool((first == 0.0).any())
    assert torch.equal(Reservoir(net, features="counts", t_end=T_END)._solved(x), sol.spike_count())
    net, u = gated(), currents()
    assert Reservoir(net, features="first", dt=0.5)._solved(u).shape == (4, 10)
    assert torch.equal(Reservoir(net, features="counts", dt=0.5)._solved(u).long(), adjsnn.solve(net, u, dt=0.5).layer_counts())


@pytest.mark.parametrize("features", ["filtered", "counts", "first"])
@pytest.mark.parametrize("alpha", [1e-3, [1e-4, 1e-2, 1.0]])
def test_it_tells_inputs_apart(features, alpha):
    """Two kinds of inputs, each heard by other neurons; nearly all of fifty samples and of ten new ones are told apart."""
    labels = torch.arange(60) % 2
    rates = torch.where(labels[:, None] == torch.tensor([0, 0, 0, 1, 1]), 120.0, 10.0)
    x = SpikeTrains.poisson(rates.double(), T_END, generator=torch.Generator().manual_seed(3))
    reservoir = Reservoir(lif(bias=False), alpha, features, intercept=True, ts=TS[::20]).fit(x[:50], labels[:50])
    assert reservoir.score(x[:50], labels[:50]) > 0.95
    assert float((reservoir.predict(x[50:]) == labels[50:]).double().mean()) >= 0.9
    assert reservoir.chosen in np.atleast_1d(alpha)


def test_it_is_the_same_every_time_and_the_network_may_go_on():
    net, x, wanted = lif(), spikes(), target(len(TS))
    before = {name: p.clone() for name, p in net.named_parameters()}
    one, other = (Reservoir(net, ts=TS).fit(x, wanted) for _ in range(2))
    assert torch.equal(one.coef, other.coef)
    assert all(torch.equal(p, before[name]) and p.requires_grad for name, p in net.named_parameters() if name[:2] == "w_")
    predicted = one.predict(x)
    with torch.no_grad():
        net.w_in[0].mul_(2.0)
    assert torch.equal(one.predict(x), predicted)
    with pytest.raises(ConfigurationError, match="w_in.0 changed"):
        one.write_()
    net.float()
    with pytest.raises(ConfigurationError, match=r"a network of torch.float32 frozen in another dtype"):
        one.write_()


def test_samples_do_not_hear_each_other_and_float32_is_close():
    x, wanted = spikes(), target(len(TS))
    reservoir = Reservoir(lif(), ts=TS).fit(x, wanted)
    alone = torch.cat([reservoir.predict(x[k]) for k in range(4)], 1)
    torch.testing.assert_close(alone, reservoir.predict(x), rtol=1e-12, atol=1e-14)
    net = lif().float()
    coarse = Reservoir(net, ts=TS).fit(x.to(dtype=torch.float32), wanted)
    # Weights of sizes around 0.1 times features that float32 times move by 1e-5 of themselves.
    torch.testing.assert_close(coarse.predict(x.to(dtype=torch.float32)), reservoir.predict(x).float(), rtol=1e-3, atol=1e-4)
    coarse.write_()
    found = adjsnn.solve(net, x.to(dtype=torch.float32), ts=TS).readout
    torch.testing.assert_close(found, coarse.predict(x.to(dtype=torch.float32)), rtol=1e-4, atol=1e-6)


def test_values_of_counts_and_an_intercept():
    net, x = lif(), spikes(batch=40)
    counts = adjsnn.solve(net, x, t_end=T_END).spike_count()
    wanted = counts[:, :3] * 2.0 + 5.0
    reservoir = Reservoir(net, 1e-8, "counts", intercept=True, t_end=T_END).fit(x, wanted)
    torch.testing.assert_close(reservoir.predict(x), wanted, rtol=1e-6, atol=1e-6)
    assert reservoir.constant.shape == (3,)


def test_what_cannot_be_is_refused(monkeypatch):
    net, x, wanted = lif(), spikes(), target(len(TS))
    for bad, message in (
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"alpha": []}, "alpha"),
        ({"alpha": [1.0, -1.0]}, "alpha=-1.0"),
        ({"features": "voltage"}, "features='voltage'"),
        ({"tau": 0.0}, "tau=0.0"),
        ({"intercept": 1}, "intercept=1"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            Reservoir(net, **bad)
    with pytest.raises(ConfigurationError, match="a network of type Linear"):
        Reservoir(torch.nn.Linear(2, 2))
    with pytest.raises(ConfigurationError, match="tau for a gated network"):
        Reservoir(gated(), tau=5.0)
    with pytest.raises(ConfigurationError, match="0 times ts"):
        Reservoir(net).fit(x, wanted)
    reservoir = Reservoir(net, ts=TS)
    for ask in (lambda: reservoir.predict(x), lambda: reservoir.score(x, wanted), reservoir.write_):
        with pytest.raises(ConfigurationError, match="not fitted"):
            ask()
    for wrong, message in (
        (wanted[1:], r"shape \(59, 4, 2\)"),
        (wanted[:, :, 0], r"shape \(60, 4\)"),
        (torch.arange(3), r"labels of shape \(3,\)"),
        (torch.zeros(4, dtype=torch.long), "labels of one class"),
        (wanted * float("nan"), "not finite"),
        (wanted > 0, "torch.bool"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            reservoir.fit(x, wrong)
    reservoir.fit(x, wanted)
    with pytest.raises(ConfigurationError, match="labels for a reservoir"):
        reservoir.score(x, torch.arange(4))
    for other, message in (
        (Reservoir(lif(n_out=None), ts=TS).fit(x, wanted), "w_out of shape None"),
        (Reservoir(net, ts=TS).fit(x, target(len(TS), 4, 3)), "readout \\(3, 12\\)"),
        (Reservoir(net, ts=TS, tau=3.0).fit(x, wanted), "filter of 3 ms"),
        (Reservoir(net, ts=TS, intercept=True).fit(x, wanted), "intercept"),
        (Reservoir(net, ts=TS).fit(x, torch.arange(4) % 2), "labels"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            other.write_()
    torch.nn.utils.parametrizations.weight_norm(net, "w_out")
    with pytest.raises(ConfigurationError, match="parametrized or pruned"):
        Reservoir(net)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingPackageError, match=r"adjsnn\[rules\]"):
        Reservoir(lif())

"""Escape noise: every pattern of spikes that two neurons can make, its probability, and gradients of means over all of them."""

import math
from itertools import product

import pytest
import torch
from test_clocked import EVERYTHING, F64, network, spikes

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork, SpikeTrains
from adjsnn.rules import EscapeNoise, SurrogateBPTT, score_function
from adjsnn.rules.escape_noise import _log_of_a_spike

DT, STEPS, RATE, WIDTH = 1.0, 5, 0.6, 0.4  # six decisions of a neuron, neither of them rare
INPUTS = SpikeTrains.from_list([[(0.0, 0), (1.0, 1), (3.0, 0)]], n_neurons=2, t_max=DT * STEPS, dtype=F64)
PATTERNS = torch.tensor(list(product((0.0, 1.0), repeat=12)), dtype=F64).view(4096, 6, 2).transpose(0, 1)


def two_neurons(kind: str, **options) -> LIFNetwork:
    """Two recurrent neurons, or a hidden one and one behind it."""
    layers, recurrent = ((2,), True) if kind == "recurrent" else ((1, 1), False)
    options = {"tau_mem": 5.0, "tau_syn": 3.0, "bias": 0.3, "learn": EVERYTHING, "n_out": 1} | options
    net = LIFNetwork(2, layers, recurrent, **options, dtype=F64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for w in net.w_in:
            w.copy_(torch.linspace(0.8, 1.6, w.numel(), dtype=F64).view(w.shape))
        if kind == "recurrent":
            net.w_rec[0].copy_(torch.tensor([[-0.5, 0.9], [1.2, -0.7]]))
    return net


def rule(**options) -> EscapeNoise:
    return EscapeNoise(**{"rate": RATE, "width": WIDTH, "seed": 0} | options)


def repeated(batch: int) -> SpikeTrains:
    return INPUTS[torch.zeros(batch, dtype=torch.long)]


def by_hand(net: LIFNetwork, kind: str, patterns, reset: str = "to"):
    """log P of each neuron's spikes in each pattern, (B, 2), one decision of one neuron after the other."""
    batch = patterns.shape[1]
    arriving = torch.zeros(STEPS + 1, net.n_in, dtype=F64)
    for t, n in zip(INPUTS.time[0].tolist(), INPUTS.idx[0].tolist(), strict=True):
        arriving[round(t / DT), n] += 1.0
    logs = []
    for neuron in range(2):
        k, m = (0, neuron) if kind == "recurrent" else (neuron, 0)
        tau_m, tau_s, v_th, v_reset, b = (getattr(net, x)[k][m] for x in ("tau_mem", "tau_syn", "v_th", "v_reset", "bias"))
        alpha, beta = torch.exp(-DT / tau_s), torch.exp(-DT / tau_m)
        kappa = tau_s / (tau_m - tau_s) * (beta - alpha)
        hold, free_at = round(float(net.refractory[k].detach()[m]) / DT), torch.zeros(batch)
        v = i = torch.zeros(batch, dtype=F64)
        total = torch.zeros(batch, dtype=F64)
        for n in range(STEPS + 1):
            s = patterns[n, :, neuron]
            if k == 0:
                i = i + arriving[n] @ net.w_in[0][m]
            elif n >= 1:
                i = i + patterns[n - 1, :, 0] * net.w_in[1][0, 0]
            if kind == "recurrent" and n >= 1:
                i = i + patterns[n - 1] @ net.w_rec[0][m]
            x = DT * RATE * torch.exp((v - v_th) / WIDTH)
            of_spike = torch.where(n >= free_at, torch.log(-torch.expm1(-x)), -math.inf)
            total = total + torch.where(s > 0, of_spike, torch.where(n >= free_at, -x, 0.0))
            v = torch.where(s > 0, v_reset if reset == "to" else v - (v_th - v_reset), v)
            free_at = torch.where(s > 0, n + hold + 1, free_at)
            v = torch.where(n + 1 < free_at, v, b + beta * (v - b) + kappa * i)
            i = alpha * i
        logs.append(total)
    return torch.stack(logs, 1)


def trains(patterns) -> SpikeTrains:
    step, sample, neuron = patterns.nonzero().unbind(1)
    sign = torch.ones_like(step)
    return SpikeTrains.from_events(
        sample, neuron, step.to(F64) * DT, sign, batch=patterns.shape[1], n_neurons=patterns.shape[2], t_max=DT * STEPS
    )


def gradients(net, value, **options):
    leaves = {name: p for name, p in net.named_parameters() if p.requires_grad}
    options = {"allow_unused": True, "materialize_grads": True} | options
    return dict(zip(leaves, torch.autograd.grad(value, list(leaves.values()), **options), strict=True))


OPTIONS = {"usual": {}, "refractory": {"refractory": 2.0}, "noisy": {"v_th": 0.3}}


@pytest.mark.parametrize("reset", ["to", "by"])
@pytest.mark.parametrize("name", OPTIONS)
def test_probabilities_of_all_patterns_add_to_one(name, reset):
    net = two_neurons("recurrent", **OPTIONS[name])
    expected = by_hand(net, "recurrent", PATTERNS, reset).sum(1)
    possible = expected.isfinite()
    assert bool(possible.all()) == (name != "refractory")
    goal = trains(PATTERNS[:, possible])
    sol = adjsnn.solve(net, repeated(goal.batch), dt=DT, adjoint=rule(target=goal, reset=reset))
    assert torch.equal(sol.spikes_on_grid(), PATTERNS[:, possible])
    torch.testing.assert_close(sol.log_likelihood, expected[possible], rtol=1e-12, atol=1e-12)
    assert abs(float(sol.log_likelihood.detach().exp().sum()) - 1.0) <= 1e-12
    net.w_out.requires_grad_(False)
    weight = torch.cos(torch.arange(goal.batch, dtype=F64))
    found, of_tape = (gradients(net, (weight * x).sum()) for x in (sol.log_likelihood, expected[possible]))
    for key, value in of_tape.items():
        assert bool(value.any()) or key == "v_reset.0"
        torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-10, msg=key)


@pytest.mark.parametrize("reset", ["to", "by"])
def test_likelihood_by_central_differences(reset):
    x = spikes(batch=2)
    one = LIFNetwork(5, 4, True, learn=EVERYTHING, dtype=F64, bias=0.3, delays=1.0, refractory=1.0)
    drawn = adjsnn.solve(one, x, dt=0.5, adjoint=EscapeNoise(seed=1, reset=reset))
    goal = drawn.layer_spikes[0]
    assert len(goal) > 10
    adjoint = EscapeNoise(target=goal, reset=reset)

    def likelihood():
        return adjsnn.solve(one, x, dt=0.5, adjoint=adjoint).log_likelihood.sum()

    torch.testing.assert_close(likelihood(), drawn.log_probability().sum(), rtol=1e-13, atol=0.0)
    generator = torch.Generator().manual_seed(0)
    for key, exact in gradients(one, likelihood()).items():
        assert bool(exact.any()), key
        p = dict(one.named_parameters())[key]
        way = torch.randn(p.shape, generator=generator, dtype=F64)
        with torch.no_grad():
            p.add_(way, alpha=1e-5)
            above = likelihood()
            p.sub_(way, alpha=2e-5)
            below = likelihood()
            p.add_(way, alpha=1e-5)
        # of order 1e-10 relative from the step, and 1e-16 · 1e2/1e-5 from rounding
        torch.testing.assert_close((above - below) / 2e-5, (exact * way).sum(), rtol=1e-6, atol=1e-7, msg=key)


COSTS = {  # of each sample; of spikes alone, or of states and of w_out too, so that c has a gradient at the spikes drawn
    "spikes": lambda s, net: (s.sum(2) * torch.linspace(1.0, -0.5, STEPS + 1, dtype=F64)[:, None]).sum(0).square(),
    "readout": lambda s, net: (filtered(s if s.shape[2] == net.layers[-1] else s[:, :, 1:], net) - 0.02).square().sum((0, 2)),
}


def filtered(s, net):
    rows, decay = [], math.exp(-DT / net.tau_out)
    for sent in s @ net.w_out.T / net.tau_out:
        rows.append(sent + decay * rows[-1] if rows else sent)
    return torch.stack(rows)


def cost_of(sol, net, name):
    s = torch.cat([sol.spikes_on_grid(k) for k in range(len(net.layers))], 2)
    return COSTS["spikes"](s, net) if name == "spikes" else (sol.readout - 0.02).square().sum((0, 2))


@pytest.mark.every(7)
@pytest.mark.parametrize("baseline", ["leave_one_out", "mean", None])
@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("kind", ["recurrent", "hidden"])
def test_the_mean_of_the_score_is_the_gradient_of_the_enumerated_cost(kind, name, baseline):
    """10⁵ draws, in 100 batches of 1000; each entry of the gradient lies within three of its standard errors, which alone
    fails for one entry in 370, of about 20 that are not independent here."""
    net = two_neurons(kind)
    p = by_hand(net, kind, PATTERNS).sum(1).exp()
    cost = (p * COSTS[name](PATTERNS, net)).sum()
    exact = torch.cat([x.flatten() for x in gradients(net, cost).values()])
    generator, x, found, means = torch.Generator().manual_seed(0), repeated(1000), [], []
    for _ in range(100):
        sol = adjsnn.solve(net, x, dt=DT, adjoint=rule(seed=None, generator=generator))
        value = score_function(cost_of(sol, net, name), sol, baseline)
        means.append(value.detach())
        found.append(torch.cat([x.flatten() for x in gradients(net, value).values()]))
    means, found = torch.stack(means), torch.stack(found)
    assert abs(float(means.mean() - cost.detach())) <= 3.0 * float(means.std()) / 10.0
    error = found.std(0) / 10.0
    assert bool((error > 0.0).any())
    off = (found.mean(0) - exact).abs() / error
    assert bool((off[error > 0.0] <= 3.0).all()), off
    assert bool((exact[error == 0.0] == 0.0).all())


def test_a_baseline_makes_it_less_noisy():
    net, x, spread = two_neurons("recurrent"), repeated(100), {}
    for baseline in ("leave_one_out", None):
        found = []
        for seed in range(30):
            sol = adjsnn.solve(net, x, dt=DT, adjoint=rule(seed=seed))
            found.append(gradients(net, score_function(5.0 + cost_of(sol, net, "spikes"), sol, baseline))["w_in.0"])
        spread[baseline] = float(torch.stack(found).std(0).norm())
    assert spread["leave_one_out"] < 0.5 * spread[None], spread


def test_hidden_neurons_before_visible_ones():
    """The mean over hidden spikes of the log-likelihood of a train behind them, and its gradient."""
    net = two_neurons("hidden")
    wanted = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0], dtype=F64)
    hidden = torch.tensor(list(product((0.0, 1.0), repeat=6)), dtype=F64)
    patterns = torch.stack([hidden.T, wanted[:, None].expand(6, 64)], 2)
    logs = by_hand(net, "hidden", patterns)
    exact = gradients(net, -(logs[:, 0].exp() * logs[:, 1]).sum())
    goal, generator, found = trains(wanted[:, None, None].expand(6, 1000, 1)), torch.Generator().manual_seed(0), []
    for _ in range(100):
        sol = adjsnn.solve(net, repeated(1000), dt=DT, adjoint=rule(seed=None, generator=generator, target=goal))
        value = score_function(-sol.log_likelihood, sol)
        found.append(torch.cat([x.flatten() for x in gradients(net, value).values()]))
    found, exact = torch.stack(found), torch.cat([x.flatten() for x in exact.values()])
    error = found.std(0) / 10.0
    off = (found.mean(0) - exact).abs() / error
    assert bool((off[error > 0.0] <= 3.0).all()), off


def test_repeats_are_baselines_of_their_own():
    net, cost = two_neurons("recurrent"), torch.tensor([1.0, 3.0, 10.0, 14.0, 0.0, 0.0], dtype=F64)
    sol = adjsnn.solve(net, repeated(6), dt=DT, adjoint=rule())
    score = torch.stack([gradients(net, x, retain_graph=True)["w_in.0"] for x in sol.log_probability()])
    for baseline, repeats, weights in (
        ("leave_one_out", 2, [-2.0, 2.0, -4.0, 4.0, 0.0, 0.0]),
        ("leave_one_out", None, [-4.4, -2.0, 6.4, 11.2, -5.6, -5.6]),
        ("mean", 3, [-11 / 3, -5 / 3, 16 / 3, 28 / 3, -14 / 3, -14 / 3]),
        (None, None, cost.tolist()),
    ):
        value = score_function(cost, sol, baseline, repeats=repeats)
        torch.testing.assert_close(value, cost.mean())
        found = gradients(net, value, retain_graph=True)["w_in.0"]
        torch.testing.assert_close(found, (torch.tensor(weights, dtype=F64)[:, None, None] * score).mean(0))


def test_draws():
    net, x = network(True, bias=0.5), spikes(batch=6)

    def drawn(given=x, on=net, **options):
        sol = adjsnn.solve(on, given, dt=0.5, adjoint=EscapeNoise(**options))
        assert sol.stats.spikes[0] > 20
        return [sol.spikes_on_grid(k) for k in range(2)]

    def same(a, b):
        return all(torch.equal(p.double(), q.double()) for p, q in zip(a, b, strict=True))

    first = drawn(seed=1)
    assert same(first, drawn(seed=1))
    assert not same(first, drawn(seed=2))
    assert same(drawn(x[:2], seed=1), [s[:, :2] for s in first])
    single = network(True, bias=0.5, dtype=torch.float32)
    with torch.no_grad():
        for p, q in zip(single.parameters(), net.parameters(), strict=True):
            p.copy_(q)
    assert same(first, drawn(x.to(dtype=torch.float32), single, seed=1))
    generator = torch.Generator().manual_seed(1)
    assert same(first, drawn(generator=generator))
    assert not same(first, drawn(generator=generator))
    torch.manual_seed(1)
    assert same(first, drawn())
    assert not same(first, drawn())
    assert not same([first[0][:, 0]], [first[0][:, 1]])


def test_a_neuron_at_rest_spikes_as_often_as_it_should():
    """Of 10⁵ decisions; a binomial's share lies within four of its standard deviations."""
    net = LIFNetwork(1, 10, v_reset=-1e-12, dtype=F64)
    nothing = SpikeTrains.from_list([[]] * 100, n_neurons=1, t_max=99.0, dtype=F64)
    for rate, width in ((0.1, 1.0), (2.0, 0.5)):
        sol = adjsnn.solve(net, nothing, dt=1.0, adjoint=EscapeNoise(rate, width, seed=0))
        p = 1.0 - math.exp(-rate * math.exp(-1.0 / width))
        assert abs(float(sol.spikes_on_grid().detach().mean()) - p) <= 4.0 * (p * (1.0 - p) / 1e5) ** 0.5
        assert float(sol.voltage_max().detach().abs().max()) <= 1e-11
        assert sol.stats.kernel == "plain"


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_probabilities_at_extremes(dtype):
    a = torch.tensor([-1e30, -1e4, -800.0, -38.0, -36.0, -1.0, 0.0, 1.0, 3.0, 9.0, 11.0, 80.0, 1e4, 1e30], dtype=dtype)
    a.requires_grad_()
    value = _log_of_a_spike(a)
    (slope,) = torch.autograd.grad(value.sum(), a)
    expected, of_expected = [], []
    for y in a.tolist():
        x = math.exp(min(y, 5.0)) if y > -700 else 0.0
        expected.append(y if y < -40 else math.log(-math.expm1(-x)))
        of_expected.append(1.0 if y < -40 else x / math.expm1(x))
    of_expected[-5:], expected[-5:] = [0.0] * 5, [0.0] * 5
    rounding = 1e-14 if dtype == F64 else 3e-7
    torch.testing.assert_close(value, torch.tensor(expected, dtype=dtype), rtol=rounding, atol=rounding)
    torch.testing.assert_close(slope, torch.tensor(of_expected, dtype=dtype), rtol=10 * rounding, atol=rounding)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_an_improbable_target_has_a_finite_gradient_or_is_refused(dtype):
    """Spikes far below the threshold, and silence above it."""
    x = SpikeTrains.from_list([[(1.0, 0)]], n_neurons=1, t_max=10.0, dtype=dtype)
    for w, events in ((-1e4, [(5.0, 0)]), (20.0, []), (1e3, [])):
        net = LIFNetwork(1, 1, learn=EVERYTHING, dtype=dtype)
        with torch.no_grad():
            net.w_in[0].fill_(w)
        goal = SpikeTrains.from_list([events], n_neurons=1, t_max=10.0, dtype=dtype)
        if w == 1e3:
            with pytest.raises(ConfigurationError, match="a target silent at"):
                adjsnn.solve(net, x, dt=0.5, adjoint=EscapeNoise(target=goal))
            continue
        sol = adjsnn.solve(net, x, dt=0.5, adjoint=EscapeNoise(target=goal))
        assert float(sol.log_likelihood.detach()) < -1e3
        assert all(bool(g.isfinite().all()) for g in gradients(net, sol.log_likelihood.sum()).values())


def test_a_loss_of_drawn_spikes_alone_is_refused():
    net, x = network(True, bias=1.0), spikes(t_max=15.0)
    goal = SpikeTrains(x.idx.clamp(max=2), x.time, 3, x.t_max)
    losses = {
        "readout": lambda sol: sol.readout.square().sum(),
        "spikes": lambda sol: sol.spike_count(0).sum(),
        "voltages": lambda sol: sol.v[1].sum(),
        "states": lambda sol: sol.final_state[0].v.sum(),
        "distance": lambda sol: adjsnn.losses.van_rossum(sol, goal).mean(),
        "first": lambda sol: adjsnn.losses.first_spike_cross_entropy(sol, torch.tensor([0, 1, 2, 0])),
    }
    for name, loss in losses.items():
        sol = adjsnn.solve(net, x, dt=0.5, adjoint=EscapeNoise(seed=0))
        with pytest.raises(ConfigurationError, match="score_function"):
            loss(sol).backward()
        sol = adjsnn.solve(net, x, dt=0.5, adjoint=EscapeNoise(seed=0))
        value = score_function(loss(sol).expand(4), sol)
        assert value.requires_grad, name
        value.backward()
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=EscapeNoise(seed=0))
    with torch.no_grad():
        score_function(sol.readout.square().sum((0, 2)), sol)  # to be looked at
    with pytest.raises(ConfigurationError, match="score_function"):
        losses["readout"](sol).backward()
    with pytest.raises(ConfigurationError, match="score_function"):
        adjsnn.gradcheck.angle(net, x, losses["distance"], [EscapeNoise(seed=0)], dt=0.5)
    of_last = adjsnn.solve(net, x, dt=0.5, adjoint=EscapeNoise(seed=3)).layer_spikes[1]
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=EscapeNoise(seed=0, target=of_last))
    with pytest.raises(ConfigurationError, match="score_function"):
        sol.log_likelihood.sum().backward()
    for p in (*net.parameters(),):  # where what draws the spikes does not learn, they are given
        p.requires_grad_(p is net.w_in[1])
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=EscapeNoise(seed=0, target=of_last))
    assert bool(gradients(net, sol.log_likelihood.sum())["w_in.1"].any())
    assert bool(gradients(net, adjsnn.solve(net, x, dt=0.5, adjoint=EscapeNoise(target=of_last)).v[1].sum())["w_in.1"].any())


def test_batches_singles_and_what_is_learnt_meanwhile():
    net, x = network(True, bias=0.5), spikes()
    goal = adjsnn.solve(net, x, dt=0.5, adjoint=EscapeNoise(seed=3)).layer_spikes[1]
    one = LIFNetwork(5, 3, True, learn=EVERYTHING, dtype=F64, bias=0.5)
    whole = adjsnn.solve(one, x, dt=0.5, adjoint=EscapeNoise(target=goal))
    for k in range(x.batch):
        part = adjsnn.solve(one, x[k : k + 1], dt=0.5, adjoint=EscapeNoise(target=goal[k : k + 1]))
        torch.testing.assert_close(part.log_likelihood[0], whole.log_likelihood[k], rtol=1e-12, atol=1e-12)
    expected = gradients(one, whole.log_likelihood.sum())
    again = adjsnn.solve(one, x, dt=0.5, adjoint=EscapeNoise(target=goal))
    with torch.no_grad():
        for p in one.parameters():
            p.add_(0.1)
    for name, value in gradients(one, again.log_likelihood.sum()).items():
        assert torch.equal(value, expected[name])


def test_it_learns():
    """Visible neurons a train; hidden ones, by the score function, to fall silent."""
    goal = SpikeTrains.from_list([[(15.0, 0), (40.0, 0)]], n_neurons=1, t_max=60.0, dtype=F64)
    net, x, found = LIFNetwork(5, 1, dtype=F64), spikes(2, batch=1), []
    optimiser = torch.optim.Adam(net.parameters(), 0.1)
    for _ in range(20):
        optimiser.zero_grad()
        loss = -adjsnn.solve(net, x, dt=1.0, adjoint=EscapeNoise(target=goal)).log_likelihood.mean()
        loss.backward()
        optimiser.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.8 * found[0], found
    net, x, costs = LIFNetwork(5, (6, 2), dtype=F64, bias=0.8), spikes(batch=1), []
    x, optimiser = x[torch.zeros(32, dtype=torch.long)], torch.optim.Adam(net.parameters(), 0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        optimiser.zero_grad()
        sol = adjsnn.solve(net, x, dt=1.0, adjoint=EscapeNoise(generator=generator))
        cost = sol.layer_counts().sum(1).double()
        score_function(cost, sol).backward()
        assert bool(net.w_in[0].grad.any())
        optimiser.step()
        costs.append(float(cost.mean()))
    assert costs[-1] < 0.7 * costs[0], costs


def solved(net, x, **options):
    kernels = options.pop("kernels", "auto")
    return adjsnn.solve(net, x, dt=0.5, adjoint=EscapeNoise(**{"seed": 0} | options), kernels=kernels)


def train(*events, batch=4, n=3, t_max=60.0):
    return SpikeTrains.from_list([list(events)] * batch, n_neurons=n, t_max=t_max, dtype=F64)


def cost(sol, batch=4):
    return torch.ones(batch, dtype=F64)


BAD = {
    "rate": (lambda net, x: EscapeNoise(rate=0.0), "rate=0.0"),
    "width": (lambda net, x: EscapeNoise(width=-1.0), "width=-1.0"),
    "seed": (lambda net, x: EscapeNoise(seed=-1), "seed=-1"),
    "both": (lambda net, x: EscapeNoise(seed=1, generator=torch.Generator()), "a seed and a generator"),
    "generator": (lambda net, x: EscapeNoise(generator=3), "generator of type int"),
    "target": (lambda net, x: EscapeNoise(target=torch.zeros(3)), "target of type Tensor"),
    "reset": (lambda net, x: EscapeNoise(reset="up"), "reset='up'"),
    "fused": (lambda net, x: solved(net, x, kernels="fused"), "draw no spikes"),
    "cuda": (lambda net, x: solved(net, x, kernels="cuda"), "cuda"),
    "samples": (lambda net, x: solved(net, x, target=train(batch=3)), "a target of 3 samples"),
    "neurons": (lambda net, x: solved(net, x, target=train(n=12)), "a target of 4 samples of 12"),
    "late": (lambda net, x: solved(net, x, target=train((70.0, 0), t_max=80.0)), "spikes at 70 ms"),
    "two": (lambda net, x: solved(net, x, target=train((10.1, 0), (10.0, 0))), "two spikes of neuron 0"),
    "refractory": (lambda net, x: solved(net, x, target=train((10.0, 0), (11.0, 0))), "within its refractory time"),
    "no target": (lambda net, x: solved(net, x).log_likelihood, "without a target"),
    "clamped": (lambda net, x: solved(net, x, target=train()).log_probability(-1), "the target's"),
    "layer": (lambda net, x: solved(net, x).log_probability(2), "layer=2"),
    "local": (lambda net, x: solved(net, x).local_readout(), "LocalErrors"),
    "cost": (lambda net, x: score_function(cost(0).mean(), solved(net, x)), "a cost of shape"),
    "no cost": (lambda net, x: score_function("x", solved(net, x)), "cost"),
    "nan": (lambda net, x: score_function(cost(0) * math.nan, solved(net, x)), "cost has entries"),
    "inf": (lambda net, x: score_function(cost(0) * math.inf, solved(net, x)), "cost has entries"),
    "baseline": (lambda net, x: score_function(cost(0), solved(net, x), "median"), "baseline='median'"),
    "repeats": (lambda net, x: score_function(cost(0), solved(net, x), repeats=3), "repeats=3"),
    "one": (lambda net, x: score_function(cost(0, 1), solved(net, x[:1])), "a batch of 1"),
    "no sol": (lambda net, x: score_function(cost(0), 3), "sol of type int"),
    "another": (
        lambda net, x: score_function(cost(0), adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT())),
        "sol of type ClockedSolution",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    call, message = BAD[case]
    with pytest.raises(ConfigurationError, match=message):
        call(network(False, refractory=2.0), spikes())


def test_the_plain_kernel_can_be_asked_for():
    sol = solved(network(), spikes(), kernels="plain")
    assert (sol.stats.kernel, sol.stats.kernel_reason) == ("plain", 'kernels="plain"')

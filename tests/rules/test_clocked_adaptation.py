"""Layers that adapt on a clock (5.1a): by hand on torch's tape, in compiled loops, and the event-exact ones as h → 0."""

import math

import numpy as np
import pytest
import torch
from test_clocked import F64, spikes

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork
from adjsnn.lif.structure import AdaptiveState
from adjsnn.rules import (
    DirectFeedbackAlignment,
    EscapeNoise,
    Exponential,
    FastSigmoid,
    FeedbackAlignment,
    LocalErrors,
    SuperSpike,
    SurrogateBPTT,
    Triangle,
)

SHAPE = Triangle(2.0)
OWN = {
    "tau_adapt": [40.0, 90.0],
    "jump_adapt": [-0.05, -0.02],
    "scale_adapt": [0.9, 1.1],
    "tau_th": [25.0, 60.0],
    "jump_th": [0.05, 0.1],
    "scale_th": [1.0, 0.8],
}
EVERYTHING = ("weights", "bias", "tau_mem", "tau_syn", "v_th", "v_reset", *OWN)
KINDS = {
    "both": {},
    "refractory": {"refractory": 2.0},
    "delays": {"delays": 1.6, "rec_delays": 0.8},
    "a alone": {"tau_th": None, "jump_th": None, "scale_th": None, "scale_adapt": None},
    "h alone": {"tau_adapt": None, "jump_adapt": None, "scale_adapt": None, "scale_th": None},
}


def adaptive(recurrent: bool = True, seed: int = 0, dtype: torch.dtype = F64, **options) -> LIFNetwork:
    given = {"n_out": 2, "bias": 0.5, "learn": EVERYTHING} | OWN | options
    given["learn"] = [x for x in given["learn"] if x not in OWN or given[x] is not None]
    if not recurrent:
        given.pop("rec_delays", None)
    return LIFNetwork(5, (8, 3), recurrent, dtype=dtype, generator=torch.Generator().manual_seed(seed), **given)


def states(net: LIFNetwork, batch: int, seed: int = 0) -> list:
    generator = torch.Generator().manual_seed(seed)
    like = net.w_in[0]
    return [
        type(rest)(*((0.1 * torch.rand(x.shape, generator=generator, dtype=F64)).to(like).requires_grad_() for x in rest))
        for rest in net.initial_state(batch)
    ]


def by_hand(net: LIFNetwork, x, dt: float, rule: SurrogateBPTT, y0: list) -> list[dict[str, torch.Tensor]]:
    """(5.1a) written out, neuron by neuron for what spikes trigger; of each layer S, v⁺, a⁺ and h⁺."""
    arriving = torch.zeros(round(x.t_max / dt) + 1, x.batch, net.n_in, dtype=F64)
    for b in range(x.batch):
        for t, n in zip(x.time[b].tolist(), x.idx[b].tolist(), strict=True):
            if n >= 0:
                arriving[round(t / dt), b, n] += 1.0
    source, found = list(arriving), []
    for k, size in enumerate(net.layers):
        p = net.tensors()[k]
        a_tau, a_jump, a_scale, h_tau, h_jump, h_scale = (
            [] if part is None else list(part.unbind()) for part in p[10:16]
        )  # fmt: skip
        a_scale = a_scale or [torch.ones(size, dtype=F64) for _ in a_tau]
        h_scale = h_scale or [torch.ones(size, dtype=F64) for _ in h_tau]
        beta = torch.exp(-dt / p.tau_mem)

        def gain(tau, p=p, beta=beta):
            return tau / (p.tau_mem - tau) * (beta - torch.exp(-dt / tau))

        lag, rec_lag = (
            0 if d is None else round(float(d.detach().max()) / dt) for d in (p.delays, p.rec_delays)
        )  # fmt: skip
        lag, rec_lag = max(lag, 1 if k else 0), max(1, rec_lag)
        hold = round(float(p.refractory.detach().max()) / dt)
        v, i = y0[k].v, y0[k].i
        a, h = ([*part.unbind(1)] for part in y0[k][2:])
        free_at, rows = torch.zeros(x.batch, size), []
        for n in range(len(arriving)):
            i = i + (source[n - lag] @ p.w_in.T if n >= lag else 0.0)
            if p.w_rec is not None and n >= rec_lag:
                i = i + rows[n - rec_lag]["s"] @ p.w_rec.T
            theta = p.v_th + sum(h) if h else p.v_th
            s = rule.surrogate.fire(v - theta) * (n >= free_at)
            gate = s if rule.through_reset else s.detach()
            v = (1 - gate) * v + gate * p.v_reset if rule.reset == "to" else v - gate * (p.v_th - p.v_reset)
            a = [(1 - s) * y + s * (f * y + jump) for y, f, jump in zip(a, a_scale, a_jump, strict=True)]
            h = [(1 - s) * y + s * (f * y + jump) for y, f, jump in zip(h, h_scale, h_jump, strict=True)]
            empty = v.new_zeros(x.batch, 0, size)
            rows.append({"s": s, "v": v, "a": torch.stack(a, 1) if a else empty, "h": torch.stack(h, 1) if h else empty})
            free_at = torch.where(s > 0, n + hold + 1, free_at)
            moved = p.bias + beta * (v - p.bias) + gain(p.tau_syn) * i
            moved = moved + sum(gain(tau) * y for tau, y in zip(a_tau, a, strict=True))
            v, i = torch.where(n + 1 < free_at, v, moved), torch.exp(-dt / p.tau_syn) * i
            a = [torch.exp(-dt / tau) * y for tau, y in zip(a_tau, a, strict=True)]
            h = [torch.exp(-dt / tau) * y for tau, y in zip(h_tau, h, strict=True)]
        source = [row["s"] for row in rows]
        found.append({name: torch.stack([row[name] for row in rows]) for name in "svah"})
    return found


def loss(layers: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    total = torch.zeros((), dtype=layers[0]["s"].dtype)
    for parts in layers:
        for n, x in enumerate(parts.values()):
            weight = torch.cos(torch.arange(x.numel(), dtype=x.dtype) + n).view(x.shape)
            total = total + (weight * (x + 0.1 * x.square())).sum()
    return total


def figures(sol) -> list[dict[str, torch.Tensor]]:
    return [{"s": sol.spikes_on_grid(k), "v": sol.v[k], "a": sol.a[k], "h": sol.h[k]} for k in range(2)]


def apart(found, expected) -> float:
    """The largest distance of two gradients in units of the second."""
    assert all(bool(x.any()) for x in expected)
    return max(float((x - y).norm() / y.norm()) for x, y in zip(found, expected, strict=True))


@pytest.mark.every(7)
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("reset", ["to", "by"])
@pytest.mark.parametrize("kernels", ["plain", "fused"])
def test_against_the_program_written_out_by_hand(kernels, reset, through, name):
    net, x = adaptive(seed=1, **KINDS[name]), spikes(1)
    rule, y0 = SurrogateBPTT(SHAPE, reset=reset, through_reset=through), states(net, 4)
    sol = adjsnn.solve(net, x, dt=0.5, y0=y0, adjoint=rule, kernels=kernels)
    assert sol.stats.kernel == kernels
    assert sol.stats.spikes[1] > 20
    expected = by_hand(net, x, 0.5, rule, y0)
    leaves = [p for p in net.parameters() if p.requires_grad and p is not net.w_out]
    leaves += [part for state in y0 for part in state if part.numel()]
    for own, others in zip(figures(sol), expected, strict=True):
        assert torch.equal(own["s"], others["s"])
        for part in "vah":
            torch.testing.assert_close(own[part], others[part], rtol=1e-11, atol=1e-13)
    assert apart(*(torch.autograd.grad(loss(parts), leaves) for parts in (figures(sol), expected))) <= 1e-10


@pytest.mark.every(7)
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("shape", [FastSigmoid(5.0, normalised=True), Exponential(4.0)])
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("reset", ["to", "by"])
@pytest.mark.parametrize("dtype", [F64, pytest.param(torch.float32, marks=pytest.mark.slow)])  # whose loops are compiled too
def test_loops_and_torch_operations_agree(dtype, reset, recurrent, shape, name):
    """Of a shape that loops know and of one that they do not, with currents; in float32 to what its rounding leaves of sums."""
    net, x = adaptive(recurrent, seed=3, dtype=dtype, **KINDS[name]), spikes(3, batch=5)
    u = (0.3 * torch.rand(120, 5, 5, generator=torch.Generator().manual_seed(0), dtype=F64)).to(dtype).requires_grad_()
    y0, found, rule = states(net, 5), [], SurrogateBPTT(shape, reset=reset, through_reset=True)
    leaves = [p for p in net.parameters() if p.requires_grad]
    leaves += [u, *(part for state in y0 for part in state if part.numel())]
    for kernels in ("fused", "plain"):
        sol = adjsnn.solve(net, x, currents=u, dt=0.5, y0=y0, adjoint=rule, kernels=kernels)
        value = loss(figures(sol)) + sol.readout.square().sum() + sum(sol.threshold(k).sin().sum() for k in range(2))
        value = value + sum(part.square().sum() for state in sol.final_state for part in state)
        value = value + sum(sol.currents(k).square().sum() + sol.voltage_max(k).sum() for k in range(2))
        found.append((sol, torch.autograd.grad(value, leaves)))
    (fused, gradients), (plain, expected) = found
    assert (fused.stats.kernel, plain.stats.kernel) == ("fused", "plain")
    assert all(torch.equal(fused.spikes_on_grid(k), plain.spikes_on_grid(k)) for k in range(2))
    assert apart(gradients, expected) <= (1e-10 if dtype == F64 else 2e-4)


@pytest.mark.every(3)
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("reset", ["to", "by"])
def test_spike_times_converge_to_the_event_exact_ones_at_order_one(reset, name):
    """All spikes, later ones moved by what earlier ones triggered, of neurons that spike as often on every clock."""
    steps, errors = (0.4, 0.2, 0.1, 0.05, 0.025, 0.0125), []
    net, x = adaptive(**KINDS[name], reset=reset), spikes(rate=40.0, batch=8)
    exact = adjsnn.solve(net, x)
    assert exact.stats.spikes[0] > 200
    sols = [adjsnn.solve(net, x, dt=dt, adjoint=SurrogateBPTT(reset=reset)) for dt in steps]
    same = [torch.stack([y.layer_counts(k) == exact.layer_counts(k) for y in sols]).all(0) for k in range(2)]
    for sol in sols:
        off = []
        for k, (own, others) in enumerate(zip(sol.layer_spikes, exact.layer_spikes, strict=True)):
            for b, n in same[k].nonzero().tolist():
                off.append((own.time[b][own.idx[b] == n] - others.time[b][others.idx[b] == n]).detach().abs())
        errors.append(float(torch.cat(off).median()))
    assert len(torch.cat(off)) > 200
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert 0.9 <= slope <= 1.1, errors
    other = [sols[-1].layer_counts(k) != exact.layer_counts(k) for k in range(2)]
    assert sum(int(y.sum()) for y in other) <= 3  # of 88: those that barely cross between two steps, or at the end


def test_what_adds_nothing_changes_nothing():
    """Jumps of 0 leave the ordinary network, whose loops are others."""
    ordinary = dict.fromkeys(OWN) | {"learn": ("weights",)}
    without, x = adaptive(**ordinary), spikes()
    with_none = adaptive(jump_adapt=[0.0, 0.0], jump_th=[0.0, 0.0], learn=("weights",))
    found = [adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT(SHAPE, through_reset=True)) for net in (without, with_none)]
    assert found[0].a == [None, None]
    assert torch.equal(found[0].spikes_on_grid(), found[1].spikes_on_grid())
    values = [sol.readout.square().sum() + sol.v[0].sum() for sol in found]
    gradients = [torch.autograd.grad(y, [*net.w_in, *net.w_rec]) for y, net in zip(values, (without, with_none), strict=True)]
    assert apart(*gradients) <= 1e-12


def test_a_batch_is_its_samples_and_a_trial_is_its_halves():
    net, x = adaptive(learn=("weights",), delays=None), spikes(6)
    whole = adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT())
    for b in range(4):
        one = adjsnn.solve(net, x[b : b + 1], dt=0.5, adjoint=SurrogateBPTT())
        assert torch.equal(one.spikes_on_grid(0)[:, 0], whole.spikes_on_grid(0)[:, b])
        torch.testing.assert_close(one.h[1][:, 0], whole.h[1][:, b], rtol=1e-12, atol=1e-13)
    state = whole.final_state[0]
    assert isinstance(state, AdaptiveState)
    for part, rows in zip(state, (whole.v[0], whole.i[0], whole.a[0], whole.h[0]), strict=True):
        assert torch.equal(part, rows[-1])
    asked = adjsnn.solve(net, x, dt=0.5, ts=[10.0, 20.5], adjoint=SurrogateBPTT())
    assert torch.equal(asked.h[0], whole.h[0][[20, 41]])
    torch.testing.assert_close(asked.threshold(0), net.v_th[0] + whole.h[0][[20, 41]].sum(2))
    torch.testing.assert_close(asked.currents(0), whole.i[0][[20, 41]] + whole.a[0][[20, 41]].sum(2))


def test_speeds_are_those_towards_the_threshold():
    """A threshold that falls is met sooner: v̇ - θ̇ as of events (6.4), to the order of the clock."""
    net = LIFNetwork(1, 1, bias=1.4, tau_th=[30.0], jump_th=[0.4], dtype=F64)
    x = adjsnn.SpikeTrains.from_list([[]], n_neurons=1, t_max=120.0, dtype=F64)
    exact, sol = adjsnn.solve(net, x), adjsnn.solve(net, x, dt=0.005, adjoint=SurrogateBPTT())
    assert sol.stats.spikes == exact.stats.spikes
    torch.testing.assert_close(sol.layer_speeds(), exact.layer_speeds(), rtol=5e-3, atol=0.0)


@pytest.mark.parametrize("kernels", ["plain", "fused"])
def test_what_changes_after_the_solve_changes_no_gradient(kernels):
    nets, gradients = [adaptive(seed=6) for _ in range(2)], []
    for net, learns in zip(nets, (False, True), strict=True):
        sol = adjsnn.solve(net, spikes(6), dt=0.5, adjoint=SurrogateBPTT(), kernels=kernels)
        if learns:
            with torch.no_grad():
                for p in net.parameters():
                    p.add_(0.1)
        gradients.append(torch.autograd.grad(loss(figures(sol)) + sol.threshold().sum(), [*net.w_in, *net.jump_th]))
    for value, other in zip(*gradients, strict=True):
        assert torch.equal(value, other)
    with torch.no_grad():
        sol.h[0].fill_(7.0)
    with pytest.raises(ConfigurationError, match=r"sol\.h\[0\]"):
        sol.threshold(0)


def one_layer(**options) -> LIFNetwork:
    given = {"n_out": 2, "bias": 0.5, "learn": ("weights", "bias")} | OWN | options
    return LIFNetwork(5, 8, True, dtype=F64, generator=torch.Generator().manual_seed(0), **given)


def test_superspike_is_backpropagation_where_nothing_spikes():
    """σ′ is that of v - θ, moved by h(0); what a spike would do to its own neuron, jumps too, the rule leaves out."""
    still = {"jump_adapt": [0.0, 0.0], "jump_th": [0.0, 0.0], "scale_adapt": None, "scale_th": None}
    net = adaptive(False, **still, learn=("weights", "bias"), n_out=None)
    with torch.no_grad():
        for w in net.w_in:
            w.mul_(0.01)
    x, y0, found = spikes(), states(net, 4), []
    y0 = [state._make(part.detach() for part in state) for state in y0]
    wide = Triangle(0.3)
    for rule in (SurrogateBPTT(wide), SuperSpike(wide)):
        sol = adjsnn.solve(net, x, dt=0.5, y0=y0, adjoint=rule)
        assert sol.stats.spikes == (0, 0)
        cost = (torch.linspace(0.5, 1.5, 121, dtype=F64)[:, None, None] * sol.spikes_on_grid(0)).sum()
        found.append(torch.autograd.grad(cost, [net.w_in[0], net.bias[0]]))
    bare = adjsnn.solve(net, x, dt=0.5, adjoint=SuperSpike(wide))  # θ enters: without h(0) it is another gradient
    cost = (torch.linspace(0.5, 1.5, 121, dtype=F64)[:, None, None] * bare.spikes_on_grid(0)).sum()
    other = torch.autograd.grad(cost, [net.w_in[0], net.bias[0]])
    assert apart(*found) <= 1e-10
    assert apart(found[0], other) > 1e-6


def test_escape_noise_knows_the_moving_threshold():
    """The log-likelihood of a train: the hazard at v - θ written out, and its gradient by all parameters."""
    net, x = one_layer(n_out=None, learn=EVERYTHING, refractory=1.0), spikes()
    target = adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT()).layer_spikes[0]
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=EscapeNoise(target=target, width=0.3, rate=0.05))
    leaves = [p for p in net.parameters() if p.requires_grad]
    found = torch.autograd.grad(sol.log_likelihood.sum(), leaves)

    class Given:  # the program by hand, its spikes those of the target
        def __init__(self):
            self.rows, self.excess = iter(sol.spikes_on_grid(0).detach()), []

        def fire(self, y):
            self.excess.append(y)
            return next(self.rows) + 0.0 * y

    spike = Given()
    rule = SurrogateBPTT(SHAPE)
    object.__setattr__(rule, "surrogate", spike)
    by_hand(net, x, 0.5, rule, net.initial_state(4))
    hazard = 0.5 * 0.05 * torch.exp(torch.stack(spike.excess) / 0.3)
    s = sol.spikes_on_grid(0).detach()
    free = torch.ones_like(s)
    for n in range(1, len(s)):
        free[n] = 1.0 - s[max(0, n - 2) : n].amax(0)  # held for two steps after a spike
    log_p = (s * torch.log(-torch.expm1(-hazard)) - (1.0 - s) * free * hazard).sum((0, 2))
    torch.testing.assert_close(sol.log_likelihood, log_p, rtol=1e-11, atol=1e-11)
    assert apart(found, torch.autograd.grad(log_p.sum(), leaves)) <= 1e-10


def test_rules_with_other_ways_back_run_the_same_program():
    """With the weights themselves in their places they are backpropagation; local errors are that of the last layer."""
    net, x = adaptive(learn=EVERYTHING), spikes()
    names = ["w_in", "bias", "tau_adapt", "jump_th", "scale_th"]
    leaves = [getattr(net, name)[1] for name in names]

    def gradients(rule):
        sol = adjsnn.solve(net, x, dt=0.5, adjoint=rule)
        return torch.autograd.grad(sol.readout.square().sum(), leaves)

    expected = gradients(SurrogateBPTT(SHAPE))
    same = [net.w_in[1].detach(), net.w_out.detach()]
    assert apart(gradients(FeedbackAlignment(SHAPE, recurrent="exact", matrices=same)), expected) <= 1e-12
    assert apart(gradients(LocalErrors(SHAPE, recurrent="exact")), expected) <= 1e-12
    through = net.w_out.detach() @ torch.zeros(3, 8, dtype=F64)
    direct = DirectFeedbackAlignment(SHAPE, recurrent="exact", matrices=[through, net.w_out.detach()])
    assert apart(gradients(direct), expected) <= 1e-12


def test_the_angle_to_the_exact_gradient():
    net, x = one_layer(), spikes(rate=40.0)
    target = adjsnn.solve(one_layer(bias=0.6), x).layer_spikes[0]
    target = adjsnn.SpikeTrains(target.idx, target.time.detach(), 8, 60.0)
    report = adjsnn.gradcheck.angle(
        net, x, lambda sol: adjsnn.losses.van_rossum(sol, target).mean(), [SurrogateBPTT(FastSigmoid(20.0))], dt=0.05
    )
    row = report.row("SurrogateBPTT", "w_in.0")
    assert math.isfinite(row.cosine)
    assert row.entries > 30
    assert report.miscounted["SurrogateBPTT"] < 0.2
    assert report.losses["SurrogateBPTT"] == pytest.approx(report.loss, rel=0.3)


class OfOnesOwn:
    """A rule on a clock that does not say that it knows layers that adapt."""

    clocked = True

    def run_lif(self, problem):
        raise AssertionError(problem)


BAD = {
    "receptors": ({"receptors": 2}, SurrogateBPTT(), "receptors"),
    "no leak": ({"leak": False}, SurrogateBPTT(), "no leak"),
    "a threshold that follows": ({"tau_follow": 30.0, "gain_follow": 0.2}, SurrogateBPTT(), "with a threshold that follows"),
    "a reset between": ({"reset": 0.5}, SurrogateBPTT(), "reset=0.5"),
    "another reset than the rule's": ({"reset": "by"}, SurrogateBPTT(), "reset=1"),
    "a rule of one's own": ({}, OfOnesOwn(), "spike-triggered currents"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_clock_does_not_have_is_refused(case):
    options, rule, message = BAD[case]
    with pytest.raises(ConfigurationError, match=message):
        adjsnn.solve(one_layer(**options), spikes(), dt=0.5, adjoint=rule)
    if case.startswith("another"):
        adjsnn.solve(one_layer(**options), spikes(), dt=0.5, adjoint=SurrogateBPTT(reset="by"))

"""A part of the threshold that follows the voltage, (6.9)-(6.11): crossings in many digits, kernels, closed forms, networks.

Spikes and gradients of random layers with it are among the cases of `test_glif_spikes.py`, `test_glif_gradients.py` and
`test_glif_cpu.py`.
"""

import itertools
from collections.abc import Callable
from functools import cache
from math import inf

import mpmath
import numba
import numpy as np
import pytest
import torch
from exact_crossing import Curve, first_upward
from layers import following, random_layer, wiring_of
from lif_networks import random_spikes
from scipy.optimize import brentq
from test_glif_cpu import compare

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork
from adjsnn.lif.cpu import glif_cell, glif_kernels, glif_loops
from adjsnn.lif.glif.arrays import GLIF, GLIFState, Neurons
from adjsnn.lif.glif.crossing import first_crossing, of_three
from adjsnn.lif.glif.flow import convolved
from adjsnn.lif.glif.plain import forward
from adjsnn.lif.layer import Events, Trial

F64 = torch.float64
MANY = 110  # digits, in which rates that are equal may stand APART
APART = mpmath.mpf(10) ** -30
EPS = 2.0**-52


def exact(t: float, *rates: float) -> float:
    """e_a∗e_b∗… by partial fractions of rates that are all moved apart."""
    with mpmath.workdps(MANY):
        moved = [mpmath.mpf(r) + k * APART for k, r in enumerate(rates)]
        terms = [mpmath.exp(-a * t) / mpmath.fprod(b - a for b in moved if b is not a) for a in moved]
        return float(mpmath.fsum(terms))


@pytest.mark.parametrize("t", [0.0, 1e-3, 1.0, 30.0, 1e3])
def test_kernels_of_three_and_four_rates(t):
    """To rounding whatever the rates, also equal and nearly equal ones."""
    rates = [0.0, 0.05, 0.05, 0.05 * (1.0 + 1e-9), 0.051, 0.2, 3.0]
    for some in itertools.chain(itertools.combinations(rates, 3), itertools.combinations(rates, 4)):
        expected, one = exact(t, *some), np.array(t)
        assert float(convolved(one, *some)) == pytest.approx(expected, rel=2e-13, abs=1e-60), some
        found = (glif_kernels.three if len(some) == 3 else glif_kernels.four)(*some, t)
        assert found == pytest.approx(expected, rel=2e-13, abs=1e-60), some
        if len(some) == 3:
            assert of_three(*reversed(some), t) == pytest.approx(expected, rel=2e-13, abs=1e-60), some


def random_neuron(rng: np.random.Generator, kind: str) -> tuple[Neurons, GLIFState, float, float]:
    """One neuron, as arrays of no neurons' dimension, its state, drive and horizon."""
    n, m = int(rng.integers(1, 4)), int(rng.integers(0, 3))
    if kind == "equal":
        rates = rng.choice([0.1, 0.2], n + m + 2)
    elif kind == "near":
        rates = 0.1 * (1.0 + 10.0 ** rng.uniform(-15.0, -3.0, n + m + 2) * rng.choice([-1.0, 0.0, 1.0], n + m + 2))
    elif kind == "decades":
        rates = 10.0 ** rng.uniform(-3.0, 2.0, n + m + 2)
    else:
        rates = rng.uniform(0.03, 1.0, n + m + 2)
    mu = 0.0 if kind == "no leak" else float(rates[0])
    gain = mu if mu else 1.0
    c = rng.normal(size=n) * (4.0 if mu else rates[2 : n + 2])
    h, w = 0.5 * rng.normal(size=m), 0.3 * float(rng.normal())
    v = min(float(rng.uniform(-1.0, 0.5)), 1.0 + float(h.sum()) + w - 0.05)
    kappa = float(rates[1] * rng.uniform(-0.8, 1.5))
    bias = float(rng.normal()) if mu else 0.05 * float(rng.normal())
    one, none = np.array, np.zeros(0)
    p = Neurons(
        one(mu), one(gain), one(bias), one(1.0), one(0.0), one(0.0), one(0.0), rates[2 : n + 2], none, none,
        np.append(rates[n + 2 :], rates[1]), none, none, one([kappa]),
    )  # fmt: skip
    return p, GLIFState(one(v), c, np.append(h, w)), bias, 60.0


def curve(p: Neurons, state: GLIFState, bias: float) -> Curve:
    """f of such a neuron by partial fractions, its rates all moved apart."""
    rates = [p.leak_rate, p.th_rate[-1], 0.0, *p.rate, *p.th_rate[:-1]]
    mu, q, *others = (mpmath.mpf(float(r)) + k * APART for k, r in enumerate(rates))
    number = lambda x: mpmath.mpf(float(x))  # noqa: E731
    v, w, kappa, gain, plain = number(state.v), number(state.h[-1]), number(p.follow[0]), number(p.gain), []
    plain += [(v, mu), (-w, q), (-number(p.v_th), mpmath.mpf(0)), (-kappa * v / (q - mu), mu), (kappa * v / (q - mu), q)]
    for c, r in zip([bias, *state.c], others, strict=False):
        c = gain * number(c)
        plain += [(c / (r - mu), mu), (-c / (r - mu), r)]
        plain += [(-kappa * c / ((y - x) * (z - x)), x) for x, y, z in ((mu, q, r), (q, mu, r), (r, mu, q))]
    plain += [(-number(h), s) for h, s in zip(state.h[:-1], others[1 + len(state.c) :], strict=True)]
    return Curve(plain, [])


Search = Callable[[Neurons, GLIFState, float, float], float]
NO_SYNAPSES, NO_INPUTS = wiring_of(0, [], np.zeros(0)), Events(np.zeros(2, np.int64), np.zeros(0), np.zeros(0, np.int64))


def plain(p: Neurons, state: GLIFState, bias: float, horizon: float) -> float:
    return first_crossing(state, bias, p, horizon)


def in_a_layer(p: Neurons, state: GLIFState, bias: float, horizon: float) -> float:
    """The first spike of a layer in compiled loops; its one neuron is held to the end after it."""
    column, rows = Neurons(*(np.asarray(x)[..., None] for x in p)), np.ones((len(p.th_rate), 1))
    column = column._replace(bias=np.array([bias]), refractory=np.array([2.0 * horizon]), th_jump=0.0 * rows, th_scale=rows)
    start = GLIFState(*(np.asarray(x)[None, ..., None] for x in state))
    trial = Trial(0, horizon, np.zeros(0), 1, np.zeros((0, 1, 1)), np.zeros(0))
    spikes = glif_loops.forward(GLIF(column, NO_SYNAPSES, NO_SYNAPSES), NO_INPUTS, start, trial).spikes
    return float(spikes.time[0]) if len(spikes.time) else inf


def alone(p: Neurons, state: GLIFState, bias: float, horizon: float) -> float:
    """The compiled search by itself, which is asked only where the loop's bound leaves a spike possible."""
    column = Neurons(*(np.asarray(x)[..., None] for x in p))
    kinds = glif_cell.kinds_of(column)
    row = np.concatenate([[0.0, 0.0, 0.0, float(state.v), bias, float(p.v_th)], state.c, state.h])
    size = kinds.slot.shape[1]
    return _loop()(kinds, row, np.empty((size + 1, 3, size + 2)), horizon)


@cache
def _loop() -> Callable[..., float]:
    """What only loops can call, which takes seconds to compile."""
    first = glif_cell.first_crossing
    return numba.njit(lambda kinds, row, work, horizon: first(kinds, 0, row, work, horizon, 0.0))


def judge(kind: str, seed: int, count: int, *searches: Search) -> list[bool]:
    rng, crossed = np.random.default_rng(seed), []
    for _ in range(count):
        p, state, bias, horizon = random_neuron(rng, kind)
        with mpmath.workdps(MANY):
            f = curve(p, state, bias)
            expected = first_upward(f, horizon, max(float(np.max(x, initial=0.1)) for x in (p.leak_rate, p.rate, p.th_rate)))
            slope = float(f.slope(expected)) if expected < inf else 1.0
            curve_size = abs(float(state.v)) + 1.0 + sum(np.abs(state.h)) + abs(bias) * (1.0 if p.leak_rate else horizon)
            size = curve_size + float(p.gain * np.abs(state.c / p.rate).sum())
        size *= 1.0 + float(abs(p.follow[0]) / p.th_rate[-1])
        for search in searches:
            found = search(p, state, bias, horizon)
            if expected == inf:
                assert found == inf, (search, kind, p, state, bias)
            else:
                assert abs(found - float(expected)) <= 40 * EPS * size / slope + 4 * EPS * found, (search, kind, p, state, bias)
        crossed.append(expected < inf)
    return crossed


@pytest.mark.parametrize("kind", ["usual", "equal", "near", "decades", "no leak"])
def test_first_crossing_is_that_of_many_digits(kind):
    crossed = judge(kind, 0, 4, plain, in_a_layer)
    assert any(crossed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["usual", "equal", "near", "decades", "no leak"])
def test_first_crossing_is_that_of_many_digits_often(kind):
    assert len(set(judge(kind, 1, 150, plain, in_a_layer, alone))) == 2


@pytest.mark.parametrize("apart", [0.0, 1e-9, 1e-4])
def test_rates_that_are_nearly_equal(apart):
    """q and a synapse's rate at τ_m's, or next to it; plain and compiled agree, and nothing jumps."""
    layer, inputs, start, trial = random_layer(np.random.default_rng(2), follows=True, refractory=2.0, t_end=30.0)
    mu = layer.neurons.leak_rate
    layer.neurons.th_rate[-1] = mu * (1.0 + apart)
    layer.neurons.rate[0] = mu * (1.0 - apart)
    assert compare((layer, inputs, start, trial), 3) > 5


def test_a_gain_of_zero_changes_nothing():
    """Beside what w was at the start, which decays, but for the time a neuron is held."""
    layer, inputs, start, trial = random_layer(np.random.default_rng(5), n=4, refractory=2.0, t_end=30.0)
    ones = np.ones((1, 4))
    more = layer._replace(neurons=following(layer.neurons, 0.1 * ones, 0.0 * ones))
    begin = start._replace(h=np.concatenate([start.h, np.zeros((2, 1, 4))], 1))
    run, other = forward(layer, inputs, start, trial), forward(more, inputs, begin, trial)
    np.testing.assert_allclose(other.spikes.time, run.spikes.time, rtol=1e-13)
    np.testing.assert_array_equal(other.states.h[:, :, -1], 0.0)


def test_one_neuron_under_a_constant_drive_in_closed_form():
    """v = b (1 - e^{-t/τ_m}) from each release, w from what it was at the spike before."""
    lif = LIFNetwork(1, 1, tau_mem=20.0, tau_follow=30.0, gain_follow=0.4, bias=2.0, refractory=1.5, dtype=F64)
    times, w, now = [], 0.0, 0.0

    def after(t: float, w: float) -> tuple[float, float]:
        a, b = np.exp(-t / 20.0), np.exp(-t / 30.0)
        driven = 0.4 * 2.0 * (1.0 - b - (a - b) / (1.0 - 30.0 / 20.0))
        return 2.0 * (1.0 - a), w * b + driven

    for _ in range(5):

        def gap(t: float, w: float = w) -> float:
            v, theta = after(t, w)
            return v - 1.0 - theta

        wait = brentq(gap, 0.0, 60.0, xtol=1e-14, rtol=1e-15)
        times.append(now + wait)
        w, now = after(wait, w)[1], now + wait + 1.5
    none = adjsnn.SpikeTrains.from_list([[]], n_neurons=1, t_max=times[-1] + 0.1)
    for kernels in ("plain", "fused"):
        sol = adjsnn.solve(lif, none, ts=[times[0] + 0.5, times[0] + 1.5], kernels=kernels)
        np.testing.assert_allclose(sol.spike_times().detach().numpy(), times, rtol=0.0, atol=1e-9)
        held, released = sol.threshold()[:, 0, 0].tolist()
        assert held == pytest.approx(1.0 + after(times[0], 0.0)[1], rel=1e-12)  # held with v
        assert released == pytest.approx(held, rel=1e-12)


LEARN = (
    "weights",
    "bias",
    "tau_mem",
    "tau_syn",
    "v_th",
    "v_reset",
    "refractory",
    "delays",
    "tau_adapt",
    "jump_adapt",
    "tau_th",
)
LEARN += ("jump_th", "tau_follow", "gain_follow")


def network(layers: tuple[int, ...] = (4, 2), dtype: torch.dtype = F64, **options) -> LIFNetwork:
    given = {
        "receptors": 2, "tau_syn": [3.0, 12.0], "tau_adapt": [60.0], "jump_adapt": [-0.2], "tau_th": [15.0], "jump_th": [0.1],
        "tau_follow": (20.0, 50.0), "gain_follow": (0.3, -0.1), "refractory": 1.0, "bias": 0.1, "delays": 1.5,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    lif = LIFNetwork(5, layers, generator=generator, dtype=dtype, **(given | options))
    with torch.no_grad():
        for w in lif.w_in:
            w.mul_(2.5)
    return lif


def everything(sol: adjsnn.LIFSolution) -> torch.Tensor:
    parts = [sol.spike_times(0), sol.spike_times(1), sol.h[0], sol.h[1], sol.v[1], sol.threshold(1)]
    return torch.cat([x.reshape(-1) for x in parts]).sin().sum()


@pytest.mark.parametrize("reset", ["to", pytest.param("by", marks=pytest.mark.slow), pytest.param(0.4, marks=pytest.mark.slow)])
def test_every_gradient_against_central_differences(reset):
    lif, x = network(recurrent=(True, False), reset=reset, learn=LEARN), random_spikes(3, batch=1, count=8, t_end=25.0)
    report = adjsnn.gradcheck(lif, x, everything, against=("finite_difference",), ts=[11.3, 29.9], t_end=40.0, entries=1)
    names = {row.name for row in report.rows}
    assert {"tau_follow.0", "gain_follow.1", "y0[0].h", "tau_mem.0", "refractory.0"} <= names


def test_batch_against_singles_and_float32():
    lif, x = network(), random_spikes(3, batch=3, count=8, t_end=25.0)
    state = [s._replace(h=s.h + 0.1) for s in lif.initial_state(3)]
    sol = adjsnn.solve(lif, x, t_end=40.0, y0=state)
    for b in range(3):
        alone = adjsnn.SpikeTrains(x.idx[b : b + 1], x.time[b : b + 1], x.n_neurons, x.t_max)
        single = adjsnn.solve(lif, alone, t_end=40.0, y0=[s._make(y[b : b + 1] for y in s) for s in state])
        times = sol.layer_spikes[1].time[b]
        assert torch.equal(times[times.isfinite()], single.spike_times(1))
    small = network(dtype=torch.float32)
    with torch.no_grad():
        for p, y in zip(small.parameters(), lif.parameters(), strict=True):
            p.copy_(y)
    found, wide = (adjsnn.solve(net, x.to(dtype=d), t_end=40.0, ts=[20.0]) for net, d in ((small, torch.float32), (lif, F64)))
    assert found.stats.kernel == "fused"
    torch.testing.assert_close(
        found.spike_times(0).double(), wide.spike_times(0), rtol=1e-5, atol=1e-4
    )  # of parameters in float32
    torch.testing.assert_close(found.threshold(0).double(), wide.threshold(0), rtol=1e-4, atol=1e-4)


def test_figures_and_refusals():
    x = random_spikes(3, batch=1, count=8, t_end=25.0)
    lif = network(layers=(4, 2), refractory=0.0)
    assert [tuple(s.h.shape) for s in lif.initial_state(2)] == [(2, 2, 4), (2, 2, 2)]
    sol = adjsnn.solve(lif, x, t_end=40.0, ts=[10.0])
    torch.testing.assert_close(sol.threshold(0), 1.0 + sol.h[0].sum(2))
    bare = dict.fromkeys(("tau_th", "jump_th", "tau_adapt", "jump_adapt"))
    for options, kept in (({"reset": "by"}, True), ({"reset": "to"}, False)):  # an integral knows v at spikes, or not
        sol = adjsnn.solve(
            network(refractory=0.0, **bare, **options), x, t_end=40.0, ts=torch.linspace(0.0, 40.0, 40_001, dtype=F64)
        )
        assert min(sol.stats.spikes) > 0
        if kept:
            grid = torch.trapezoid(sol.v[0], sol.ts, dim=0)
            torch.testing.assert_close(sol.voltage_integral(0), grid, rtol=0.0, atol=1e-2)
        else:
            with pytest.raises(ConfigurationError, match="moving threshold"):
                sol.voltage_integral(0)
    plain = LIFNetwork(5, (4,), tau_follow=20.0, gain_follow=0.1, dtype=F64)
    with pytest.raises(ConfigurationError, match="a threshold that follows the voltage"):
        adjsnn.solve(plain, x, dt=1.0, adjoint=adjsnn.rules.SurrogateBPTT())
    with torch.no_grad():
        plain.tau_follow[0].fill_(-1.0)
    plain.requires_grad_(True)
    with pytest.raises(ConfigurationError, match=r"tau_follow\[0\] from -1"):
        adjsnn.solve(plain, x)
    plain.gain_follow[0] = None
    with pytest.raises(ConfigurationError, match=r"tau_follow\[0\] without its like"):
        adjsnn.solve(plain, x)


def test_nest_has_no_such_neuron_among_its_simple_ones():
    with pytest.raises(ConfigurationError, match="a threshold that follows the voltage"):
        LIFNetwork(5, 3, tau_follow=20.0, gain_follow=0.1, refractory=1.0).to_nest()

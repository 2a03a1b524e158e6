"""No spike is lost: the bound that spares searches holds in floating point, and long trials agree with extended precision."""

import math
import warnings
from typing import NamedTuple

import mpmath
import numpy as np
import pytest
import torch
from lif_record import LONG, Neurons, State, extremum, spikes, voltage
from numba import njit

import adjsnn
from adjsnn.lif import flow as lif_flow
from adjsnn.lif.cpu.cells import bound_without_end, crossing
from adjsnn.lif.cpu.elementary import decay_soon, decays, rates_of
from adjsnn.lif.cpu.flow import BLUR, decay, first_crossing, may_cross, quick_bound
from adjsnn.lif.cpu.lanes import LATE, Column, column_memory, search

BODIES = ("fused", "plain")


def one_neuron(*, recurrent: bool = False) -> tuple[adjsnn.LIFNetwork, adjsnn.SpikeTrains]:
    net = adjsnn.LIFNetwork(1, (1,), recurrent=recurrent, tau_mem=5.0, tau_syn=2.0, bias=0.5, dtype=torch.float64)
    with torch.no_grad():
        net.w_in[0].fill_(10.0)
        if recurrent:
            net.w_rec[0].fill_(-1e-3)
    return net, adjsnn.SpikeTrains.from_list([[(1.0, 0)]], n_neurons=1, t_max=200.0, dtype=torch.float64)


def exact_spikes(t_end: float) -> list[float]:
    """Spikes of `one_neuron` by mpmath, each after the last: v = ½ + (v_0 - ½) e^{-t/5} + i_0 (e^{-t/5} - e^{-t/2})/1.5."""
    mpmath.mp.dps = 40
    found, start, v, i = [], mpmath.mpf(1), mpmath.mpf(1) / 2 * (1 - mpmath.exp(mpmath.mpf(-1) / 5)), mpmath.mpf(10)
    while True:

        def at(t, v=v, i=i):
            e, s = mpmath.exp(-t / 5), mpmath.exp(-t / 2)
            return mpmath.mpf(1) / 2 + (v - mpmath.mpf(1) / 2) * e + i * (e - s) / mpmath.mpf("1.5") - 1

        grid = [k * mpmath.mpf("0.01") for k in range(2000)]
        step = next((k for k in range(1, 2000) if at(grid[k]) >= 0), None)
        if step is None or start + grid[step] > t_end:
            return [float(t) for t in found]
        wait = mpmath.findroot(at, (grid[step - 1], grid[step]), solver="anderson")
        start, v, i = start + wait, mpmath.mpf(0), i * mpmath.exp(-wait / 2)
        found.append(start)


@pytest.mark.every(5)
@pytest.mark.parametrize("kernels", BODIES)
@pytest.mark.parametrize("how", ["feed-forward", "recurrent", "currents"])
@pytest.mark.parametrize("t_end", [100.0, 200.0, 4000.0, 1e6])
def test_a_long_silence_after_the_last_spike_loses_none(t_end, how, kernels):
    net, x = one_neuron(recurrent=how == "recurrent")
    options: dict = {"t_end": t_end}
    if how == "recurrent":
        with torch.no_grad():
            net.w_rec[0].zero_()
    if how == "currents":
        options = {"currents": torch.zeros(2, 1, 1, dtype=torch.float64), "dt": t_end / 2}
    found = adjsnn.solve(net, x, kernels=kernels, **options).layer_spikes[0].time[0]
    torch.testing.assert_close(found.detach(), torch.tensor(exact_spikes(t_end), dtype=torch.float64), rtol=0, atol=1e-12)
    assert len(found) == 3


@pytest.mark.parametrize("kernels", BODIES)
def test_the_times_at_which_voltages_are_asked_for_change_no_spike(kernels):
    net, x = one_neuron()
    times = [
        adjsnn.solve(net, x, kernels=kernels, ts=ts).layer_spikes[0].time.detach()
        for ts in (None, [50.0, 100.0], [200.0], torch.linspace(0.0, 200.0, 401))
    ]
    for t in times[1:]:
        torch.testing.assert_close(t, times[0], rtol=0, atol=1e-12)


@njit
def _decisions(v, i, bias, tau_mem, tau_syn, v_th, t, may, wait):
    """What the loops decide about each interval: whether they search, and what the search finds."""
    for n in range(len(v)):
        e_mem, e_syn, conv = decay(t[n], tau_mem[n], tau_syn[n])
        v_after = bias[n] + (v[n] - bias[n]) * e_mem + i[n] * conv / tau_mem[n]
        may[n] = may_cross(v[n], i[n], v_after, i[n] * e_syn, bias[n], tau_mem[n], tau_syn[n], v_th[n], t[n])
        wait[n] = first_crossing(v[n], i[n], bias[n], tau_mem[n], tau_syn[n], v_th[n], t[n], v_after)


@njit
def _decisions_in_lanes(v, i, bias, tau_mem, tau_syn, v_th, t, may, wait):
    """What the loops for many neurons at a time decide; each interval is alone in a column, since its time constants are."""
    column = column_memory(1)
    for n in range(len(v)):
        e_mem, e_syn, gain = decays(t[n], rates_of(tau_mem[n], tau_syn[n]))
        column.lane[0], column.v[0], column.i[0], column.bias[0], column.v_th[0] = n, v[n], i[n], bias[n], v_th[n]
        column.begin[0], column.until[0], column.span[0] = 0.0, t[n], t[n]
        column.v_end[0], column.i_end[0] = bias[n] + (v[n] - bias[n]) * e_mem + i[n] * gain, i[n] * e_syn
        share = t[n] / tau_mem[n]
        may[n] = quick_bound(v[n], i[n], column.v_end[0], bias[n], v_th[n], share, BLUR * (1.0 + share)) > 0
        wait[n] = column.wait[0] if search(column, 1, tau_mem[n], tau_syn[n]) else np.inf


@njit
def _decisions_in_cells(v, i, bias, tau_mem, tau_syn, v_th, t, may, wait):
    """What the loop of a recurrent layer decides."""
    for n in range(len(v)):
        rates, share = rates_of(tau_mem[n], tau_syn[n]), t[n] / tau_mem[n]
        e_mem, _, gain = decay_soon(t[n], rates)
        end = bias[n] + (v[n] - bias[n]) * e_mem + i[n] * gain
        may[n] = quick_bound(v[n], i[n], end, bias[n], v_th[n], share, BLUR * (1.0 + share)) > 0
        wait[n] = crossing(v[n], i[n], bias[n], tau_mem[n], tau_syn[n], rates, v_th[n], t[n], end)


@njit
def _decisions_of_each(v, i, bias, tau_mem, tau_syn, v_th, t, may, wait):
    """The same of neurons with time constants of their own, by a bound without exponentials."""
    _decisions_in_cells(v, i, bias, tau_mem, tau_syn, v_th, t, may, wait)
    for n in range(len(v)):
        may[n] = bound_without_end(v[n], i[n], bias[n], v_th[n], t[n] * (1.0 / tau_mem[n])) > 0


@njit
def _search(column, count, tau_mem, tau_syn):
    """What is called by loops alone has no way in from Python."""
    return search(column, count, tau_mem, tau_syn)


class Intervals:
    """Random intervals of one neuron's flow, and whether v crosses v_th there in extended precision.

    Time constants over six decades, also equal and nearly equal; intervals from 1e-6 to 1e6 of the longer or the shorter one;
    v, i and b of all signs over 24 decades; v_th above or below the highest v of the interval by 1e-13 … 1 of
    S = |v| + |b| + |i| + |v_th|.
    """

    def __init__(self, seed: int, count: int) -> None:
        rng = np.random.default_rng(seed)

        def spread(low: float, high: float) -> np.ndarray:
            return 10.0 ** rng.uniform(low, high, count)

        def any_sign() -> np.ndarray:
            size = np.where(rng.random(count) < 0.7, rng.uniform(0.0, 2.0, count), spread(-12, 12))
            return rng.choice([-1.0, 1.0, 1.0, 0.0], count, p=[0.3, 0.3, 0.3, 0.1]) * size

        tau_mem, ratio = spread(-3, 3), spread(-6, 6)
        ratio = np.choose(rng.integers(0, 4, count), [ratio, np.ones(count), 1.0 + spread(-15, -1), spread(-1, 1)])
        tau_syn = tau_mem * ratio
        t = spread(-6, 6) * np.where(rng.random(count) < 0.5, tau_mem, tau_syn)
        v, i, b = any_sign(), any_sign(), any_sign()
        b = np.where(rng.random(count) < 0.2, v + i * spread(-12, 0), b)  # hardly a slope at the start
        y = State(v.astype(LONG), i.astype(LONG))
        args = b.astype(LONG), tau_mem.astype(LONG), tau_syn.astype(LONG)
        peak = extremum(y, *args)
        inside = (y.i > 0) & (y.i + args[0] - y.v > 0) & (peak < t)
        top = np.maximum(voltage(y, t.astype(LONG), *args), y.v)
        top = np.where(inside, voltage(y, np.where(inside, peak, LONG(0)), *args), top)
        size = np.abs(v) + np.abs(b) + np.abs(i) + np.abs(top).astype(float)
        v_th = (top + rng.choice([-1.0, 1.0], count) * spread(-13, 0) * size).astype(float)
        self.arguments = v, i, b, tau_mem, tau_syn, v_th, t
        self.crosses = (top > v_th) & (v < v_th)
        self.above = v >= v_th
        # Far enough from the threshold for double precision to tell, at the start as well.
        size += np.abs(v_th)
        self.clear = (np.abs((top - v_th).astype(float)) > 5e-14 * size) & (np.abs(v - v_th) > 5e-14 * size)


@pytest.mark.every(5)
@pytest.mark.parametrize("decisions", [_decisions, _decisions_in_lanes, _decisions_in_cells, _decisions_of_each])
@pytest.mark.parametrize("seed", range(4))
def test_the_bound_that_spares_searches_passes_over_no_crossing(seed, decisions):
    case = Intervals(seed, 100_000)
    may, wait = np.zeros(100_000, bool), np.zeros(100_000)
    decisions(*case.arguments, may, wait)
    asked = case.clear & ~case.above
    assert (asked & case.crosses).sum() > 10_000
    assert (asked & ~case.crosses).sum() > 10_000
    assert may[asked & case.crosses].all()
    assert (wait[asked & case.crosses] < np.inf).all()
    assert (wait[asked & ~case.crosses] == np.inf).all()


def test_the_plain_search_decides_alike():
    case = Intervals(9, 5_000)
    asked = np.flatnonzero(case.clear & ~case.above)
    found = np.array([lif_flow.first_crossing(*(float(x[k]) for x in case.arguments)) for k in asked])
    np.testing.assert_array_equal(found < np.inf, case.crosses[asked])


def test_the_bound_spares_most_searches_of_ordinary_intervals():
    rng = np.random.default_rng(0)
    n = 100_000
    v, i, b, t = (
        rng.uniform(-0.5, 0.9, n),
        rng.uniform(-1.0, 2.0, n),
        rng.uniform(-0.5, 0.9, n),
        10.0 ** rng.uniform(-2, 1.5, n),
    )
    may, wait = np.zeros(n, bool), np.zeros(n)
    _decisions(v, 4.0 * i, b, np.full(n, 20.0), np.full(n, 5.0), np.ones(n), t, may, wait)
    silent = wait == np.inf
    assert silent.sum() > 80_000
    assert may[silent].mean() < 0.04


def test_neurons_at_a_time_cross_when_one_does():
    """Within the times that rounding of v leaves open."""
    rng, n, (tau_mem, tau_syn) = np.random.default_rng(3), 20_000, (20.0, 5.0)
    v, i, b = rng.uniform(-0.5, 0.99, n), rng.uniform(0.0, 12.0, n), rng.uniform(-0.5, 0.5, n)
    t = 10.0 ** rng.uniform(-2, 1.5, n)
    same = np.full(n, tau_mem), np.full(n, tau_syn), np.ones(n)
    may, wait, alone = np.zeros(n, bool), np.zeros(n), np.zeros(n)
    _decisions(v, i, b, *same, t, may, alone)
    e_mem, e_syn = np.exp(-t / tau_mem), np.exp(-t / tau_syn)
    end = b + (v - b) * e_mem + i * (e_mem - e_syn) / (tau_mem / tau_syn - 1.0)
    column = Column(*(np.empty(n, np.int64 if name in ("lane", "known", "place") else float) for name in Column._fields))
    values = {"lane": np.arange(n), "v": v, "i": i, "bias": b, "v_th": 1.0, "begin": 0.0, "until": t, "span": t, "v_end": end}
    for name, x in (values | {"i_end": i * e_syn}).items():
        getattr(column, name)[:] = x
    found = _search(column, n, tau_mem, tau_syn)
    wait = np.full(n, np.inf)
    wait[column.lane[:found]] = column.wait[:found]
    crosses = alone < np.inf
    np.testing.assert_array_equal(wait < np.inf, crosses)
    assert crosses.sum() > 4_000
    assert (column.known[:found] == LATE).sum() <= 1e-3 * found  # the rest need no search of their own
    in_cells = np.zeros(n)
    _decisions_in_cells(v, i, b, *same, t, may, in_cells)
    np.testing.assert_array_equal(in_cells < np.inf, crosses)
    w, e, s = wait[crosses], np.exp(-wait[crosses] / tau_mem), np.exp(-wait[crosses] / tau_syn)
    at = b[crosses] + (v - b)[crosses] * e + i[crosses] * (e - s) / (tau_mem / tau_syn - 1.0)
    speed = (i[crosses] * s + b[crosses] - at) / tau_mem
    for found_so in (alone, in_cells):
        np.testing.assert_array_less(np.abs(w - found_so[crosses]), 3e-15 / speed + 4e-16 * w)


def random_neurons(rng: np.random.Generator, n: int, recurrent: bool, alike: bool = False) -> Neurons:
    def some(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, n)

    tau_mem, tau_syn = some(1.0, 30.0), some(1.0, 30.0)
    tau_syn = np.where(rng.random(n) < 0.05, tau_mem, tau_syn)
    if alike:
        tau_mem[:], tau_syn[:] = tau_mem[0], tau_syn[0]
    w_rec = some(-4.0, 0.4) * np.minimum(1.0, tau_mem / tau_syn)  # excited by itself it must not run away
    return Neurons(tau_mem, tau_syn, some(-1.0, 0.95), np.ones(n), some(-0.5, 0.2), some(-3.0, 12.0), w_rec * recurrent)


def network(p: Neurons, delay: float) -> adjsnn.LIFNetwork:
    n, recurrent = len(p.bias), bool(p.w_rec.any())
    tau_mem, tau_syn, bias, v_th, v_reset = (torch.from_numpy(x) for x in p[:5])
    net = adjsnn.LIFNetwork(
        1, (n,), recurrent=recurrent, tau_mem=tau_mem, tau_syn=tau_syn, bias=bias, v_th=v_th, v_reset=v_reset,
        rec_delays=delay if recurrent else None, dtype=torch.float64,
    )  # fmt: skip
    with torch.no_grad():
        net.w_in[0][:, 0] = torch.from_numpy(p.w)
        if recurrent:
            net.w_rec[0].copy_(torch.diag(torch.from_numpy(p.w_rec)))
    return net


KINDS = ("spikes", "ts", "currents", "recurrent", "alike spikes", "alike ts", "alike currents")


class Trial(NamedTuple):
    """Neurons, what they hear, and the spikes that the library found, in the order of neurons, then time."""

    neurons: Neurons
    arrivals: np.ndarray  # (n, 3), ms, the last ones inf where there are fewer
    t_end: np.ndarray  # (n,), ms
    edges: np.ndarray  # (n, 3), ms
    drive: np.ndarray  # (4, n)
    delay: np.ndarray  # (n,), ms
    counts: np.ndarray
    time: np.ndarray


def trial(rng: np.random.Generator, kind: str, n: int, kernels: str = "auto") -> Trial:
    """Solve n random neurons over 5 … 5,000 ms."""
    t_end = float(np.exp(rng.uniform(np.log(5.0), np.log(5000.0))))
    p = random_neurons(rng, n, kind == "recurrent", "alike" in kind)
    arrivals = np.sort(rng.uniform(0.0, 0.6 * min(t_end, 1000.0), rng.integers(1, 4)))
    delay = float(rng.uniform(0.5, 20.0))
    options: dict = {"t_end": t_end, "kernels": kernels}
    edges, drive = np.full(3, np.inf), np.zeros((4, n))
    if "ts" in kind.split():
        options["ts"] = np.sort(rng.uniform(0.0, t_end, 3)).tolist()
    net = network(p, delay)
    x = adjsnn.SpikeTrains.from_list([[(t, 0) for t in arrivals.tolist()]], n_neurons=1, t_max=t_end, dtype=torch.float64)
    if "currents" in kind:
        u = rng.uniform(-0.05, 0.04, 4)
        del options["t_end"]
        options |= {"currents": torch.from_numpy(u)[:, None, None], "dt": t_end / 4}
        edges, drive = np.arange(1, 4) * (t_end / 4), u[:, None] * p.w
    sol = adjsnn.solve(net, x, **options)
    found = sol.layer_spikes[0]
    idx, time = found.idx[0].numpy(), found.time[0].detach().numpy()
    arrivals = np.pad(arrivals, (0, 3 - len(arrivals)), constant_values=np.inf)
    rows = (np.broadcast_to(x, (n, 3)) for x in (arrivals, edges))
    return Trial(
        p, next(rows), np.full(n, sol.t_end), next(rows), drive, np.full(n, delay),
        found.counts()[0].numpy(), time[np.lexsort((time, idx))],
    )  # fmt: skip


def differing(trials: list[Trial]) -> int:
    """How many neurons have another number of spikes than in the record, which takes those of all trials together."""
    p = Neurons(*(np.concatenate(x) for x in zip(*(t.neurons for t in trials), strict=True)))
    arrivals, t_end, edges, drive, delay, counts, time = zip(*(t[1:] for t in trials), strict=True)
    arrivals, t_end, edges, delay = map(np.concatenate, (arrivals, t_end, edges, delay))
    neuron, exact = spikes(p, arrivals, t_end, edges, np.concatenate(drive, 1), delay)
    counts = np.concatenate(counts)
    right = np.bincount(neuron, minlength=len(counts))
    same = counts == right
    # A time after many spikes of a neuron that is hardly driven has lost some digits.
    found = np.concatenate(time)[np.repeat(same, counts)]
    np.testing.assert_allclose(found, exact[np.repeat(same, right)], rtol=0, atol=1e-7)
    return int((~same).sum())


def sizes(kind: str, n: int) -> list[int]:
    """Of some networks, n neurons in all; recurrent ones are alone, or 50 whose intervals are cut by each other's spikes."""
    return (
        n // 25 * [1] + n // 25 * 24 // 50 * [50]
        if kind == "recurrent"
        else n // 50 * [50]
        if "alike" in kind
        else n // 5000 * [5000]
    )


@pytest.mark.every(3)
@pytest.mark.parametrize("kind", KINDS)
def test_random_neurons_spike_as_often_as_in_extended_precision(kind):
    rng = np.random.default_rng(KINDS.index(kind))
    each = (40 * [40] if "alike" in kind else 4 * [400]) if kind != "recurrent" else 60 * [1] + 6 * [10]
    assert differing([trial(rng, kind, n) for n in each]) == 0


@pytest.mark.slow
def test_the_plain_body_spikes_as_often_as_in_extended_precision():
    rng = np.random.default_rng(7)
    for kind in KINDS:
        assert differing([trial(rng, kind, 50 if kind != "recurrent" else 4, "plain") for _ in range(2)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_none_of_a_million_neurons_loses_a_spike(kind, part):
    rng = np.random.default_rng([100 + KINDS.index(kind), part])
    each = sizes(kind, 50_000)
    assert sum(each) == 50_000
    assert differing([trial(rng, kind, n) for n in each]) == 0


@pytest.mark.parametrize("tau_syn", [1.0, 1.25, 0.8])
@pytest.mark.parametrize("weight", [10.0, -10.0])
def test_a_current_that_has_all_but_decayed_changes_nothing(tau_syn, weight, lif_kernels):
    """Between 708 and 745 τ_s after its only spike the current is subnormal, and (i + b - v)/i overflows."""
    net = adjsnn.LIFNetwork(1, layers=(1,), tau_mem=1.0, tau_syn=tau_syn, bias=1.5, dtype=torch.float64)
    with torch.no_grad():
        net.w_in[0].fill_(weight)
    x = adjsnn.SpikeTrains.from_list([[(1.0, 0)]], n_neurons=1, t_max=1.0, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sol = adjsnn.solve(net, x, t_end=760.0 * tau_syn, kernels=lif_kernels)
        assert float(sol.voltage_max().detach()) == 1.0
    late = sol.spike_times().detach()
    late = late[late > 100.0 * tau_syn]
    torch.testing.assert_close(late.diff(), torch.full_like(late[1:], math.log(3.0)), rtol=1e-9, atol=0.0)
    assert 760.0 * tau_syn - float(late[-1]) < math.log(3.0)


@pytest.mark.parametrize(("bias", "tau_mem"), [(3.0, 1e-308), (1e10, 2e-308)])
def test_the_search_for_a_crossing_in_subnormal_time_ends(bias, tau_mem):
    """Of such a time the relative rounding is 0, by which it was moved to the side of the threshold for ever."""
    for found in (
        lif_flow.first_crossing(0.0, 0.0, bias, tau_mem, 1.0, 1.0, 0.5),
        first_crossing(0.0, 0.0, bias, tau_mem, 1.0, 1.0, 0.5, bias),
    ):
        assert 0.0 <= found <= 2.0**-52  # 0 beside every other time, in ms

"""Random LIF networks, their inputs, and what a solve of one by either body found."""

import copy
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from fuzzing import FLOOR, PARTED, allowed, largest, nudged
from hypothesis import strategies as st
from torch import Tensor

import adjsnn
from adjsnn.lif.structure import LIFState

F64 = torch.float64
MOST_SPIKES = 30  # of one neuron; more is an EventError of both bodies
MILDEST = 1e-9  # ms; two times nearer than this may be the same instant


@dataclass(frozen=True)
class LIFCase:
    """What a network and its trial are made from; `seed` fills in the numbers. Words choose among ways to draw them."""

    seed: int
    n_in: int
    layers: tuple[int, ...]
    recurrent: bool
    batch: int
    t_end: float
    taus: str
    bias: str
    weights: str
    rec_weights: str
    delays: str
    refractory: str
    times: str
    y0: str
    currents: str
    probes: str
    alike: bool


TAUS = ("usual", "equal", "nearly", "wide", "per_neuron")
BIAS = ("none", "below", "near", "above", "mixed")
WEIGHTS = ("usual", "zero", "some_zero", "inhibitory", "large", "tiny")
REC_WEIGHTS = ("usual", "zero", "inhibitory", "large")
DELAYS = ("none", "zero", "equal", "axon", "synapse", "grid", "long")
REFRACTORY = ("none", "short", "long", "mixed")
TIMES = ("uniform", "ties", "ends", "early", "none", "beyond")
STARTS = ("rest", "random", "near", "current")
CURRENTS = ("none", "none", "random", "zero", "pulses")
PROBES = ("none", "random", "ends", "spikes")


@st.composite
def lif_cases(draw: st.DrawFn, *, recurrent: bool) -> LIFCase:
    return LIFCase(
        seed=draw(st.integers(0, 2**32 - 1)),
        n_in=draw(st.integers(1, 3)),
        layers=tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))),
        recurrent=recurrent,
        batch=draw(st.integers(1, 3)),
        t_end=draw(st.sampled_from((20.0, 60.0, 1.0, 300.0, 1000.0, 5000.0))),
        taus=draw(st.sampled_from(TAUS)),
        bias=draw(st.sampled_from(BIAS)),
        weights=draw(st.sampled_from(WEIGHTS)),
        rec_weights=draw(st.sampled_from(REC_WEIGHTS)) if recurrent else "zero",
        delays=draw(st.sampled_from(DELAYS)),
        refractory=draw(st.sampled_from(REFRACTORY)),
        times=draw(st.sampled_from(TIMES)),
        y0=draw(st.sampled_from(STARTS)),
        currents=draw(st.sampled_from(CURRENTS)),
        probes=draw(st.sampled_from(PROBES)),
        alike=draw(st.booleans()),
    )


@dataclass
class Problem:
    """A network with its inputs and options of `solve`; every tensor that can be learnt requires a gradient."""

    net: adjsnn.LIFNetwork
    idx: Tensor
    time: Tensor
    t_max: float
    t_end: float
    y0: list[LIFState]
    currents: Tensor | None
    dt: float | None
    ts: list[float]
    generic: bool  # no input spike is meant to arrive at the instant of something else

    def leaves(self) -> dict[str, Tensor]:
        found = {**dict(self.net.named_parameters()), "time": self.time}
        for k, state in enumerate(self.y0):
            found |= {f"v0.{k}": state.v, f"i0.{k}": state.i}
        return found if self.currents is None else {**found, "currents": self.currents}


def build(case: LIFCase) -> Problem:
    random = np.random.default_rng(case.seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(np.asarray(random.uniform(low, high, shape)))

    def per_neuron(make) -> tuple[Tensor, ...]:
        rows = [make(n) for n in case.layers]
        return tuple(row[:1].expand(len(row)).clone() for row in rows) if case.alike else tuple(rows)

    tau_mem = per_neuron(lambda n: uniform(1.0, 30.0, n))
    if case.taus != "per_neuron":
        tau_mem = tuple(x[:1].expand(len(x)).clone() for x in tau_mem)
    ratio = {
        "usual": 10.0 ** random.uniform(-1.0, 0.5),
        "equal": 1.0,
        "nearly": 1.0 + random.choice((-1.0, 1.0)) * 10.0 ** random.uniform(-15.0, -3.0),
        "wide": 10.0 ** random.uniform(-3.0, 3.0),
        "per_neuron": 1.0,
    }[case.taus]
    tau_syn = tuple(ratio * x for x in tau_mem)
    if case.taus == "per_neuron":
        tau_syn = per_neuron(lambda n: uniform(1.0, 30.0, n))
    v_th = per_neuron(lambda n: uniform(0.5, 1.5, n))
    v_reset = per_neuron(lambda n: uniform(-1.0, 0.3, n))
    bias = per_neuron(lambda n: torch.stack([_bias(case.bias, random) for _ in range(n)]))
    bias = tuple(b * v for b, v in zip(bias, v_th, strict=True))
    refractory = per_neuron(
        lambda n: {
            "none": torch.zeros(n, dtype=F64),
            "short": uniform(0.1, 2.0, n),
            "long": uniform(5.0, 100.0, n),
            "mixed": uniform(0.0, 5.0, n) * (uniform(0.0, 1.0, n) < 0.5),
        }[case.refractory]
    )
    t_end = case.t_end
    if case.bias in ("above", "mixed", "near"):  # no more spikes of their own than MOST_SPIKES
        t_end = min(t_end, 20.0 * float(torch.cat(tau_mem).min()))
    if case.times in ("ties", "ends") or case.delays == "grid":
        t_end = max(1.0, round(t_end * 4) / 4)
    delays, rec_delays = _delays(case, random, t_end)
    net = adjsnn.LIFNetwork(
        case.n_in, case.layers, case.recurrent, tau_mem, tau_syn, v_th, v_reset, bias, delays, rec_delays, refractory,
        learn=tuple(name for name in adjsnn.lif.network.LEARNABLE if name != "delays" or delays is not None),
        generator=torch.Generator().manual_seed(case.seed), dtype=F64,
    )  # fmt: skip
    with torch.no_grad():
        for w in net.w_in:
            _scale(w, case.weights, random)
        for w in net.w_rec:
            if w is not None:
                _scale(w, case.rec_weights, random)
        if case.alike:
            for w in [*net.w_in, *(w for w in net.w_rec if w is not None)]:
                w.copy_(w[:1].expand_as(w).clone())
    idx, time, t_max = _spikes(case, random, t_end)
    y0 = [_start(case.y0, random, case.batch, b, v, case.alike) for b, v in zip(bias, v_th, strict=True)]
    currents, dt = None, None
    if case.currents != "none":
        steps = int(random.integers(1, 7))
        dt = t_end / steps
        currents = uniform(-1.0, 1.0, steps, case.batch, case.n_in)
        if case.currents == "zero":
            currents = torch.zeros_like(currents)
        elif case.currents == "pulses":
            currents = currents.sign() * (uniform(0.0, 1.0, *currents.shape) < 0.4)
        t_end = steps * dt
        currents = (0.3 * currents / max(largest(net.w_in[0].detach()), 0.1)).requires_grad_()
        t_max = max(t_max, t_end)
    ts = {
        "none": [],
        "random": sorted(random.uniform(0.0, t_end, 5).tolist()),
        "ends": [0.0, t_end],
        "spikes": sorted(x for x in time.flatten().tolist() if x <= t_end)[:6],
    }[case.probes]
    generic = case.times not in ("ties", "ends") and case.delays != "grid" and case.probes != "spikes"
    return Problem(net, idx, time.requires_grad_(), t_max, t_end, y0, currents, dt, ts, generic)


def _bias(kind: str, random: np.random.Generator) -> Tensor:
    """In units of the threshold."""
    if kind == "mixed":
        kind = str(random.choice(("none", "below", "near", "above")))
    return torch.tensor(
        {
            "none": 0.0,
            "below": random.uniform(-1.0, 0.95),
            "near": 1.0 + float(random.choice((-1.0, 0.0, 1.0))) * 10.0 ** random.uniform(-16.0, -2.0),
            "above": random.uniform(1.05, 3.0),
        }[kind],
        dtype=F64,
    )


def _scale(w: Tensor, kind: str, random: np.random.Generator) -> None:
    if kind == "zero":
        w.zero_()
    elif kind == "some_zero":
        w.mul_(torch.from_numpy(random.integers(0, 2, w.shape)))
    elif kind == "inhibitory":
        w.copy_(-w.abs())
    elif kind == "large":
        w.mul_(float(10.0 ** random.uniform(0.5, 1.5)))
    elif kind == "tiny":
        w.mul_(float(10.0 ** random.uniform(-12.0, -1.0)))


def _delays(case: LIFCase, random: np.random.Generator, t_end: float):
    if case.delays == "none":
        return None, None
    fan_in = (case.n_in, *case.layers[:-1])

    def one(n: int, m: int) -> Tensor:
        kind = "grid" if case.delays == "grid" else case.delays
        synapse = kind == "synapse" or (kind in ("grid", "long") and case.seed % 2 == 0)
        shape = (n, m) if synapse else (m,)
        x = {
            "zero": np.zeros(shape),
            "equal": np.full(shape, 1.5),
            "axon": random.uniform(0.0, 5.0, shape),
            "synapse": random.uniform(0.0, 5.0, shape),
            "grid": random.integers(0, 4, shape) * 0.25,
            "long": random.uniform(0.0, 1.5 * t_end, shape),
        }[kind]
        x = torch.from_numpy(np.asarray(x, dtype=np.float64))
        return x[:1].expand_as(x).clone() if case.alike and synapse else x

    delays = tuple(one(n, m) for n, m in zip(case.layers, fan_in, strict=True))
    return delays, tuple(one(n, n) for n in case.layers) if case.recurrent else None


def _spikes(case: LIFCase, random: np.random.Generator, t_end: float) -> tuple[Tensor, Tensor, float]:
    rows, t_max = [], t_end
    if case.times == "beyond":
        t_max = 1.5 * t_end
    for _ in range(case.batch):
        count = 0 if case.times == "none" else int(random.integers(0, 13))
        grid = np.round(random.uniform(0.0, t_end, 4) * 4) / 4
        times = {
            "uniform": random.uniform(0.0, t_end, count),
            "ties": np.minimum(random.choice(np.append(grid, (0.0, t_end)), count), t_end),
            "ends": random.choice((0.0, t_end, 0.5 * t_end), count),
            "early": random.uniform(0.0, min(t_end, 10.0), count),
            "none": np.zeros(0),
            "beyond": random.uniform(0.0, t_max, count),
        }[case.times]
        rows.append([(float(t), int(random.integers(case.n_in))) for t in np.sort(times)])
    x = adjsnn.SpikeTrains.from_list(rows, n_neurons=case.n_in, t_max=t_max, dtype=F64)
    return x.idx, x.time, t_max


def _start(kind: str, random: np.random.Generator, batch: int, bias: Tensor, v_th: Tensor, alike: bool) -> LIFState:
    shape = (batch, len(v_th))
    v = np.zeros(shape) if kind in ("rest", "current") else random.uniform(-1.0, 0.9, shape)
    i = np.zeros(shape) if kind == "rest" else random.uniform(-3.0, 3.0, shape)
    if kind == "near":
        v = np.where(random.uniform(size=shape) < 0.5, 1.0 - 10.0 ** random.uniform(-15.0, -2.0, shape), v)
    v, i = torch.from_numpy(v) * v_th, torch.from_numpy(i)
    if alike:
        v, i = (x[:, :1].expand_as(x).clone() for x in (v, i))
    return LIFState(v.requires_grad_(), i.requires_grad_())


def nudged_problem(p: Problem, seed: int) -> Problem:
    """Delays and refractory times stay, and with them the ties of arrivals; where there may be any, input spikes too."""
    net = copy.deepcopy(p.net)
    with torch.no_grad():
        for name, x in net.named_parameters():
            if "delays" not in name and "refractory" not in name:
                x.copy_(nudged(x, seed))
    tops = [torch.nextafter(x.detach(), torch.full_like(x, -torch.inf)) for x in net.v_th]
    y0 = [
        LIFState(nudged(s.v, seed).minimum(top).requires_grad_(), nudged(s.i, seed).requires_grad_())
        for s, top in zip(p.y0, tops, strict=True)
    ]
    currents = None if p.currents is None else nudged(p.currents, seed).requires_grad_()
    time = nudged(p.time, seed) if p.generic else p.time.detach().clone()
    time = torch.where(p.idx >= 0, time.clamp(max=p.t_max), torch.inf).requires_grad_()
    return Problem(net, p.idx, time, p.t_max, p.t_end, y0, currents, p.dt, p.ts, p.generic)


@dataclass
class Found:
    """Of a solve: the error, or spikes [layer][sample][neuron] and recorded states, and gradients."""

    error: str | None
    sol: adjsnn.LIFSolution | None = None
    spikes: list[list[list[list[float]]]] = field(default_factory=list)
    states: Tensor = field(default_factory=lambda: torch.zeros(0))
    gradients: dict[str, Tensor] = field(default_factory=dict)
    loss: float = 0.0


def solve(p: Problem, kernels: str, rows: slice = slice(None), *, max_spikes: int = MOST_SPIKES) -> adjsnn.LIFSolution:
    x = adjsnn.SpikeTrains(p.idx[rows], p.time[rows], p.net.n_in, p.t_max)
    options = {"t_end": p.t_end} if p.currents is None else {"currents": p.currents[:, rows], "dt": p.dt}
    y0 = [LIFState(s.v[rows], s.i[rows]) for s in p.y0]
    return adjsnn.solve(p.net, x, ts=p.ts, y0=y0, kernels=kernels, max_spikes=max_spikes, **options)


def find(p: Problem, kernels: str, rows: slice = slice(None), *, gradients: bool = True) -> Found:
    try:
        sol = solve(p, kernels, rows)
    except adjsnn.EventError as error:
        return Found(type(error).__name__)
    spikes = []
    for trains in sol.layer_spikes:
        by_neuron = [[[] for _ in range(trains.n_neurons)] for _ in range(trains.batch)]
        for b, row in enumerate(trains.to_list()):
            for t, n in row:
                by_neuron[b][n].append(t)
        spikes.append(by_neuron)
    rows_of = ((x, y) for k, s in enumerate(sol.final_state) for x, y in ((sol.v[k], s.v), (sol.i[k], s.i)))
    states = [torch.cat([x, y.unsqueeze(0)]) for x, y in rows_of]
    found = Found(None, sol, spikes, torch.cat([x.detach() for x in states], 2))
    if gradients:
        leaves = p.leaves()
        total = loss(sol, states, rows)
        found.loss = float(total.detach())
        try:
            values = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
        except adjsnn.EventError as error:
            return Found(type(error).__name__ + " backward")
        found.gradients = dict(zip(leaves, values, strict=True))
    return found


def time_rounding(p: Problem) -> float:
    """What rounding of the times does to the phase of the fastest exponential; ties keep it out of the nudges."""
    shortest = min(float(x.detach().min()) for x in [*p.net.tau_mem, *p.net.tau_syn])
    return 2.0**-48 * p.t_end / shortest


def loss(sol: adjsnn.LIFSolution, states: list[Tensor], rows: slice) -> Tensor:
    """Of all spikes and states, with weights by neuron, so that their order does not matter and samples only add up."""
    total = states[0].new_zeros(())
    for k, trains in enumerate(sol.layer_spikes):
        real = trains.idx >= 0
        t = trains.time[real]
        total = total + ((1.0 + 0.3 * trains.idx[real]) * (t + 0.5 * t * t / sol.t_end)).sum() / (1 + k)
    for k, x in enumerate(states):
        w = torch.cos(torch.arange(x.shape[0] * x.shape[2], dtype=x.dtype) + k).view(x.shape[0], 1, x.shape[2])
        total = total + (w * x).sum()
    return total


def parting(a: Found, b: Found, sample: int) -> float:
    """When the spikes of a sample in two runs first differ by more than PARTED, inf if they do not."""
    earliest = float("inf")
    for x, y in zip(a.spikes, b.spikes, strict=True):
        for s, t in zip(x[sample], y[sample], strict=True):
            for k in range(max(len(s), len(t))):
                if k >= len(s) or k >= len(t) or abs(s[k] - t[k]) > PARTED * max(1.0, a.sol.t_end):
                    earliest = min([earliest, *s[k : k + 1], *t[k : k + 1]])
                    break
    return earliest


def grazing(p: Problem, judge: Found, sample: int) -> float:
    """The first spike of a sample so slow that rounding of v moves it by more than FLOOR t_end; inf if there is none.

    Nudges keep what is tied. With v_th = b they do not see that v_th - v is rounded: its exponential crosses 0 at any speed.
    """
    sol, earliest = judge.sol, float("inf")
    for k, trains in enumerate(sol.layer_spikes):
        rows, size = trains.to_list(), float((p.net.v_th[k].detach().abs() + p.net.bias[k].detach().abs()).max())
        first = sum(len(row) for row in rows[:sample])
        speeds = sol.spike_speeds(k)[first : first + len(rows[sample])]
        slow = [t for (t, _), speed in zip(rows[sample], speeds, strict=True) if speed * FLOOR * sol.t_end < 2.0**-50 * size]
        earliest = min([earliest, *slow])
    return earliest


def same_spikes(p: Problem, judge: Found, other: Found, nudges: list[Found]) -> int:
    """Assert that spikes and recorded states agree until the nudged runs part; returns in how many samples they do."""
    parted, dt = 0, MILDEST
    for b in range(len(judge.spikes[0])):
        until = min(grazing(p, judge, b), *(parting(judge, n, b) for n in nudges))
        parted += until < float("inf")
        for k, layer in enumerate(judge.spikes):
            for n, times in enumerate(layer[b]):
                s = [t for t in times if t < until - dt]
                found = other.spikes[k][b][n]
                assert len([t for t in found if t < until - dt - 1e-6]) <= len(s), (k, b, n, times, found, until)
                assert len(s) <= len(found), (k, b, n, times, found, until)
                x = torch.tensor(s, dtype=F64)
                near = [torch.tensor(y.spikes[k][b][n][: len(s)], dtype=F64) for y in nudges]
                off = largest(torch.tensor(found[: len(s)], dtype=F64) - x)
                assert off <= allowed(near, x) + FLOOR * p.t_end, (k, b, n, times, found, off, allowed(near, x))
        for row, t in enumerate([*p.ts, p.t_end]):
            if t < until - 1e-6 * p.t_end:
                x, y = judge.states[row, b], other.states[row, b]
                near = [n.states[row, b] for n in nudges]
                assert largest(y - x) <= allowed(near, x) + FLOOR, (row, b, x, y, near)
    return parted


def sound(p: Problem, found: Found) -> None:
    """Assert what holds of every solution: finite, in order, below the threshold, refractory times kept."""
    sol = found.sol
    scale = 1.0 + max(largest(x.detach()) for n, x in p.leaves().items() if n.startswith(("w_", "bias", "i0", "v0")))
    assert bool(found.states.isfinite().all())
    for name, g in found.gradients.items():
        assert bool(g.isfinite().all()), name
    for k, trains in enumerate(sol.layer_spikes):
        real = trains.idx >= 0
        assert bool((trains.time[real] >= 0.0).all() & (trains.time[real] <= p.t_end).all())
        first = sol.first_spike_times(k)
        assert not bool(first.isnan().any())
        assert torch.equal(first.isfinite(), sol.spike_counts(k) > 0)
        if len(sol.spike_speeds(k)):
            assert float(sol.spike_speeds(k).min()) >= -1e-12 * scale
        held = p.net.refractory[k].detach().tolist()
        for b, sample in enumerate(found.spikes[k]):
            for n, times in enumerate(sample):
                assert all(t - s >= held[n] - FLOOR * p.t_end for s, t in pairwise(times)), (k, b, n, times)
        v = torch.cat([sol.v[k], sol.final_state[k].v.unsqueeze(0)]).detach()
        over = v - p.net.v_th[k].detach()
        assert float(over.max()) <= 1e-12 * scale * 100, (k, over)

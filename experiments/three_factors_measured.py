"""What `three_factors.py` measures: gradients of pairs of spikes, chosen or of networks, and windows of STDP beside them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from spike_pairs import attributed
from torch import Tensor

import adjsnn
from adjsnn.losses import firing_rate, normalised_cost
from adjsnn.signals import lowpass, random_sinusoids
from adjsnn.training.ranges import Count, Positive, Seed, Threads

REACH = 50.0  # ms, of t_post - t_pre
WIDTH = 0.1  # of the gate
SHIFT = 2.0  # ms, by which a target has the postsynaptic spikes earlier or later
T_POST = 150.0  # ms, of the pulse that makes the postsynaptic spike in the middle
WORDS = {-1: "should come earlier", 1: "should come later"}  # of a postsynaptic spike, by the sign of S
TITLES = {"lif": "LIF neurons, τ_m 20 ms", "qif": "QIF neurons, τ_v 25 ms"}
PERIOD = 25.0  # ms, between postsynaptic spikes where there are several
PROTOCOLS = {
    "one": "one spike",
    "regular": f"a spike each {PERIOD:g} ms, all told the same",
    "in_turn": f"a spike each {PERIOD:g} ms, told the opposite in turn",
}
STATES = {"start": "random start", "trained": "trained"}


@dataclass(frozen=True)
class Config:
    """The gradient of pairs of spikes beside STDP."""

    seeds: Count = 5
    first_seed: Seed = 0
    neurons: Count = 30
    trials: Count = 8
    duration: Positive = 200.0
    """length of a trial, ms"""
    steps: Count = 100
    """of training"""
    dt: Positive = 0.1
    bin: Positive = 2.0
    """of t_post - t_pre in networks, ms"""
    lag: Positive = 1.0
    """between pairs at times of our choice, ms"""
    threads: Threads = 1
    quick: bool = False
    """one seed, short trials, few steps"""
    runs: Path = Path("runs")
    """where the folder is made"""
    page: Path | None = None
    """the page, its picture beside it"""

    def settled(self) -> "Config":
        return replace(self, seeds=1, trials=4, duration=100.0, steps=20, lag=4.0) if self.quick else self


class Window(NamedTuple):
    """A curve Δw(t_post - t_pre) beside STDP windows A₊ e^{-Δt/τ₊} after, -A₋ e^{Δt/τ₋} before, A ≥ 0.

    Attributes:
        correlation: of the curve with the best of them; about zero.
        antisymmetric: with the best of those with A₊ = A₋ and τ₊ = τ₋.
        a_plus: A₊ over the largest |Δw|.
        tau_plus: τ₊, ms, at most that of `taus`; NaN where A₊ = 0.
        a_minus: A₋, likewise.
        tau_minus: τ₋, likewise.
        lobes: area at Δt < 0 over that at Δt > 0: -1 for an antisymmetric window, 0 where post before pre does nothing, 1 where
            it does the same as pre before post.
    """

    correlation: float
    antisymmetric: float
    a_plus: float
    tau_plus: float
    a_minus: float
    tau_minus: float
    lobes: float


class Curve(NamedTuple):
    """Δw = -dC/dw against the lag t_post - t_pre, (L,) each; s.e.m. is zero where there is one curve."""

    lag: np.ndarray
    mean: np.ndarray
    sem: np.ndarray


Curves = dict[int, Curve]  # by the sign of the error, of WORDS


def membrane(name: str) -> adjsnn.Membrane:
    return adjsnn.LIF(tau_mem=20.0, v_reset=0.0) if name == "lif" else adjsnn.QIF(tau_v=25.0)


def taus() -> np.ndarray:
    """Time constants of windows that are tried, ms."""
    return np.geomspace(0.5, 500.0, 500)


def one_sided(lag: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """A ≥ 0 and τ of the A e^{-lag/τ} nearest to y in square."""
    e = np.exp(-lag / taus()[:, None])
    a = np.maximum(e @ y / (e * e).sum(1), 0.0)
    best = int((a**2 * (e * e).sum(1) - 2.0 * a * (e @ y)).argmin())
    return float(a[best]), float(taus()[best]) if a[best] > 0.0 else float("nan")


def stdp(lag: np.ndarray, a_plus: float, tau_plus: float, a_minus: float, tau_minus: float) -> np.ndarray:
    sides = ((lag > 0.0, a_plus, tau_plus), (lag < 0.0, -a_minus, tau_minus))
    return sum((np.where(side, a * np.exp(-np.abs(lag) / tau), 0.0) for side, a, tau in sides if a != 0.0), np.zeros_like(lag))


def window(curve: Curve, sign: int, reach: float = REACH) -> Window:
    """A curve as far as `reach`, upside down where the error's sign is +1, beside STDP."""
    known = np.isfinite(curve.mean) & (curve.lag != 0.0) & (np.abs(curve.lag) < reach + 1e-9)
    lag, y = curve.lag[known], -sign * curve.mean[known]
    y = y / max(float(np.abs(y).max()), 1e-300)
    after, before = lag > 0.0, lag < 0.0
    a_plus, tau_plus = one_sided(lag[after], y[after])
    a_minus, tau_minus = one_sided(-lag[before], -y[before])
    both = one_sided(np.abs(lag), np.sign(lag) * y)
    area = y[after].sum()
    return Window(
        correlated(y, stdp(lag, a_plus, tau_plus, a_minus, tau_minus)), correlated(y, stdp(lag, *both, *both)),
        a_plus, tau_plus, a_minus, tau_minus, float(y[before].sum() / area) if area else float("nan"),
    )  # fmt: skip


def correlated(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation about zero, which here means nothing happens; about the means a step would be like a window of two lobes."""
    known = np.isfinite(x) & np.isfinite(y)
    size = float(np.linalg.norm(x[known]) * np.linalg.norm(y[known]))
    return float(x[known] @ y[known]) / size if size else float("nan")


def told(curves: Curves, reach: float = REACH) -> dict[str, Any]:
    """The numbers of the curves for either sign of the error."""
    windows = {f"{WORDS[sign].rsplit(' ', 1)[1]}": window(curve, sign, reach)._asdict() for sign, curve in curves.items()}
    return {**windows, "flip": correlated(curves[-1].mean, curves[1].mean)}


class Pairs(NamedTuple):
    """One postsynaptic neuron, driven to spike, and a presynaptic one for each lag, whose weights onto it are zero."""

    net: adjsnn.GatedSynapseNetwork
    u: Tensor
    y0: adjsnn.GatedState
    lags: np.ndarray
    protocol: str

    @classmethod
    def made(cls, name: str, protocol: str, config: Config) -> "Pairs":
        lags = np.arange(-REACH, REACH + 0.5 * config.lag, config.lag)
        n = len(lags) + 1
        height, length, bias, rest = (4.0, 6.0, 0.0, 0.0) if name == "lif" else (0.6, 1.0, -0.005, 0.45)
        net = adjsnn.GatedSynapseNetwork(
            n,
            n,
            1,
            neuron=membrane(name),
            gate=adjsnn.RaisedCosineGate(WIDTH),
            tau_fast=5.0,
            tau_slow=10.0,
            dtype=torch.float64,
        )
        u = torch.zeros(round(2.0 * T_POST / config.dt), 1, n, dtype=torch.float64)
        spikes = [0.0] if protocol == "one" else [PERIOD * k for k in range(-3, 4)]
        for k, t in [*enumerate(T_POST - lags), *((n - 1, T_POST + t) for t in spikes)]:
            u[round(t / config.dt) : round((t + length) / config.dt), 0, k] = height
        with torch.no_grad():
            net.w_in.copy_(torch.eye(n))
            net.w_rec.zero_()
            net.w_out.copy_(torch.eye(n)[-1:])
            net.bias.fill_(bias)
        at_rest = net.initial_state(1)
        return cls(net, u, at_rest._replace(v=at_rest.v + rest), lags, protocol)

    def gradients(self, dt: float) -> tuple[Curves, adjsnn.GatedSolution, dict[int, Tensor]]:
        """Δw of each lag by the exact adjoint, for errors of either sign; the solution; cotangents of its readout."""
        sol = adjsnn.solve(self.net, self.u, dt=dt, y0=self.y0)
        post = len(self.lags)
        train = sol.spikes
        times = [train.time[0, train.idx[0] == k].numpy() for k in range(post + 1)]
        if any(len(t) != 1 for t in times[:-1]):
            raise adjsnn.ConfigurationError("a pulse that made no spike, or two", "one spike of each", "a shorter dt")
        middle = times[-1][np.abs(times[-1] - T_POST).argmin()]
        lag = middle - np.concatenate(times[:-1])
        order = np.argsort(lag)
        curves, cotangents = {}, {}
        for sign in WORDS:
            late = round(SHIFT / dt) * sign
            target, opposite = (torch.roll(sol.readout.detach(), shift, 0) for shift in (late, -late))
            if self.protocol == "in_turn":  # from a little before each spike to a little before the next
                turn = torch.floor((sol.ts - float(middle) + 0.2 * PERIOD) / PERIOD) % 2
                target = torch.where(turn[:, None, None] == 0.0, target, opposite)
            cost = 0.5 * (sol.readout - target).square().sum() * dt
            cotangents[sign], of_w = torch.autograd.grad(cost, [sol.readout, self.net.w_rec], retain_graph=True)
            mean = -of_w[post, :post].numpy()[order]
            curves[sign] = Curve(lag[order], mean, np.zeros_like(mean))
        return curves, sol, cotangents


def network(name: str, seed: int, config: Config) -> tuple[adjsnn.GatedSynapseNetwork, torch.Generator]:
    """A random start for predictive coding, float64: the readout is to follow the input, low-passed."""
    generator = torch.Generator().manual_seed(seed)
    net = adjsnn.GatedSynapseNetwork(
        2, config.neurons, 2, neuron=membrane(name), gate=adjsnn.RaisedCosineGate(WIDTH), tau_fast=5.0, tau_slow=10.0,
        generator=generator, dtype=torch.float64,
    )  # fmt: skip
    of_in, of_rec, of_out, bias = (1.0, 0.3, 3.0, 1.1) if name == "lif" else (0.1, 0.05, 1.0, 0.0)
    with torch.no_grad():
        for weight, scale in ((net.w_in, of_in), (net.w_rec, of_rec), (net.w_out, of_out)):
            weight.mul_(scale)
        net.bias.fill_(bias)
    return net, generator


def trial(config: Config, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    u = random_sinusoids(
        round(config.duration / config.dt), config.trials, 2, config.dt, generator=generator, dtype=torch.float64
    )
    return u, lowpass(u, config.dt, 10.0)


def train(net: adjsnn.GatedSynapseNetwork, config: Config, generator: torch.Generator) -> None:
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(config.steps):
        u, target = trial(config, generator)
        sol = adjsnn.solve(net, u, dt=config.dt)
        cost = normalised_cost(sol, target) + 0.02 * (firing_rate(sol).mean(0) / 60.0).square().mean()
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()


class Found(NamedTuple):
    """What one network's trial says. Sums over lags are by postsynaptic neuron and bin, (N, L).

    Attributes:
        by_factor: mean Δw of pairs by the sign of S_k, the error that the postsynaptic spike is told.
        by_error: mean Δw of all that a presynaptic spike does to the weight, against the lag to the nearest spike of the other,
            by the sign of the readout's error, W_outᵀ ∂ℓ/∂o, at that spike.
        numbers: of the network.
    """

    by_factor: dict[int, np.ndarray]
    by_error: dict[int, np.ndarray]
    numbers: dict[str, float]


def bins(config: Config) -> np.ndarray:
    half = round(REACH / config.bin)
    return config.bin * np.arange(-half, half + 1)


def means(lag: np.ndarray, value: np.ndarray, neuron: np.ndarray, config: Config) -> np.ndarray:
    """Mean value by neuron and bin of the lag, (N, L); NaN where there is none."""
    edges = bins(config)
    place = np.searchsorted(edges, lag, side="right") - 1
    inside = (place >= 0) & (place < len(edges) - 1)
    flat, size = neuron[inside] * (len(edges) - 1) + place[inside], config.neurons * (len(edges) - 1)
    total, number = np.bincount(flat, value[inside], size), np.bincount(flat, minlength=size)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan).reshape(config.neurons, -1)


def examined(net: adjsnn.GatedSynapseNetwork, seed: int, config: Config) -> Found:
    """All pairs of spikes of two different neurons in the trials of a network."""
    u, target = trial(config, torch.Generator().manual_seed(1_000_000 + seed))
    sol = adjsnn.solve(net, u, dt=config.dt)
    cost = normalised_cost(sol, target)
    c_readout, exact = torch.autograd.grad(cost, [sol.readout, net.w_rec])
    split = attributed(net, u, sol, c_readout, config.dt)
    off = split.gradient(config.neurons) - exact
    error = (c_readout @ net.w_out).detach()
    pairs: list[tuple[Tensor, ...]] = []
    nearest: list[tuple[Tensor, ...]] = []
    spikes: list[tuple[Tensor, Tensor]] = []
    following: list[tuple[Tensor, Tensor]] = []
    of_pairs = torch.zeros_like(exact)
    for sample, (rows, k) in enumerate(split.pairs()):
        real = split.time[rows].isfinite()
        neuron, time, source = (x[rows][real] for x in (split.neuron, split.time, split.source))
        lag, other = time[:, None] - time, neuron[:, None] != neuron
        of_pairs.index_put_((neuron[:, None], neuron[None, :]), k[real][:, real], accumulate=True)
        pairs.append(tuple(x.expand_as(lag)[other] for x in (lag, -k[real][:, real], neuron[:, None], source.sign()[:, None])))
        raw = error[(time / config.dt).long(), sample, neuron]
        spikes.append((source, raw))
        whole = torch.zeros(config.neurons, len(time)).to(k).index_add_(0, split.neuron[rows], k[:, real])
        for m in range(config.neurons):
            mine = (neuron == m).nonzero()[:, 0]
            following.append((source[mine][:-1], source[mine][1:]))
            if len(mine):
                near = lag[mine].abs().argmin(0)
                at = lag[mine].gather(0, near[None])[0]
                chosen = neuron != m
                nearest.append(tuple(x[chosen] for x in (at, -whole[m], torch.full_like(neuron, m), raw[mine][near].sign())))
    source, raw = (torch.cat(x).numpy() for x in zip(*spikes, strict=True))
    numbers = {
        "cost": float(cost.detach()),
        "spikes_per_s": float(firing_rate(sol).detach().mean()),
        "sum_off": float(off.norm() / exact.norm()),
        "of_pairs_cosine": float((of_pairs * exact).sum() / (of_pairs.norm() * exact.norm())),
        "same_sign": float(np.mean(np.sign(source) == np.sign(raw))),
        "next_source": float(np.corrcoef([torch.cat(x).numpy() for x in zip(*following, strict=True)])[0, 1]),
    }
    return Found(_by_sign(pairs, config), _by_sign(nearest, config), numbers)


def _by_sign(parts: list[tuple[Tensor, ...]], config: Config) -> dict[int, np.ndarray]:
    lag, value, neuron, sign = (torch.cat(x).numpy() for x in zip(*parts, strict=True))
    return {s: means(lag[sign == s], value[sign == s], neuron[sign == s], config) for s in WORDS}


def averaged(found: list[dict[int, np.ndarray]], config: Config) -> Curves:
    """Mean and s.e.m. over the postsynaptic neurons of all networks."""
    edges, curves = bins(config), {}
    for sign in WORDS:
        every = np.concatenate([x[sign] for x in found])
        number = np.isfinite(every).sum(0)
        mean = np.where(number > 0, np.nansum(every, 0) / np.maximum(number, 1), np.nan)
        square = np.nansum((every - mean) ** 2, 0) / np.maximum(number - 1, 1)
        curves[sign] = Curve(0.5 * (edges[1:] + edges[:-1]), mean, np.sqrt(square / np.maximum(number, 1)))
    return curves


def computed(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """All numbers, and all curves by the same names."""
    numbers: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    for name in TITLES:
        for protocol in PROTOCOLS:
            key = f"pairs, {name}, {protocol}"
            curves[key] = Pairs.made(name, protocol, config).gradients(config.dt)[0]
            numbers[key] = told(curves[key], REACH if protocol == "one" else PERIOD)
        found: dict[str, list[Found]] = {state: [] for state in STATES}
        for seed in range(config.first_seed, config.first_seed + config.seeds):
            net, generator = network(name, seed, config)
            for state in STATES:
                if state == "trained":
                    train(net, config, generator)
                found[state].append(examined(net, seed, config))
        for state, each in found.items():
            key = f"network, {name}, {state}"
            for kind in ("by_factor", "by_error"):
                curves[f"{key}, {kind}"] = averaged([getattr(x, kind) for x in each], config)
                numbers[f"{key}, {kind}"] = told(curves[f"{key}, {kind}"])
            numbers[key] = {x: [one.numbers[x] for one in each] for x in each[0].numbers}
    return numbers, curves

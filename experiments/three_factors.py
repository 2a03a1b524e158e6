"""Does the exact gradient of a pair of spikes look like spike-timing dependent plasticity, with the error as its reward?

    python experiments/three_factors.py                               a page of numbers and a picture into runs/three_factors/
    python experiments/three_factors.py --quick                       the same on less of everything, in seconds
    python experiments/three_factors.py --page docs/three_factors.md  into docs/

Huh and Sejnowski 2018 say that their gradient resembles reward-modulated STDP. Here it is drawn against t_post - t_pre, for
pairs of spikes at times of our choice, and for all pairs of networks at their random start and after some training, where each
gradient is split exactly among pairs of spikes (docs/equations.md, 5.10a).
"""

import json
import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
import torch
from spike_pairs import attributed, costate
from torch import Tensor

import adjsnn
from adjsnn import plotting
from adjsnn.losses import firing_rate, normalised_cost
from adjsnn.plotting import COLOURS, INK, Axes, Figure
from adjsnn.signals import lowpass, random_sinusoids
from adjsnn.training.compare import table
from adjsnn.training.ranges import Count, Positive, Seed, Threads, check_ranges
from adjsnn.training.runs import versions

# isort: split
import tyro  # after adjsnn.training, which says what to install

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


def draw(curves: dict[str, Any], config: Config) -> Figure:
    figure = plotting.new_figure(10.0, 6.2)
    panels = figure.subplots(2, 3)
    _draw_example(panels[0, 0], config)
    for axes, name in zip(panels[0, 1:], TITLES, strict=True):
        one = curves[f"pairs, {name}, one"]
        scale = max(np.abs(curve.mean).max() for curve in one.values())
        for colour, (sign, curve) in zip(COLOURS, one.items(), strict=False):
            fit = window(curve, sign)
            axes.plot(curve.lag, curve.mean / scale, "o", ms=2.5, color=colour, label=f"the one spike {WORDS[sign]}")
            shape = stdp(curve.lag, *fit[2:6]) * -sign * np.abs(curve.mean).max() / scale
            axes.plot(curve.lag, shape, color=colour, lw=0.8, ls="--", label="best STDP window" if sign > 0 else None)
        labels = {"regular": "all of several should", "in_turn": "this one should, the next not"}
        for colour, (protocol, label) in zip(COLOURS[2:], labels.items(), strict=False):
            every = curves[f"pairs, {name}, {protocol}"][-1]
            axes.plot(every.lag, every.mean / np.abs(every.mean).max(), color=colour, lw=0.8, label=label)
        _dress(axes, f"{name.upper()} neurons: chosen pairs")
    for axes, name in zip(panels[1, :2], TITLES, strict=True):
        for state, style in (("trained", "-"), ("start", ":")):
            both = curves[f"network, {name}, {state}, by_factor"]
            scale = max(np.nanmax(np.abs(curve.mean)) for curve in both.values())
            for colour, (sign, curve) in zip(COLOURS, both.items(), strict=False):
                label = f"{WORDS[sign]}, {STATES[state]}"
                _shaded(axes, curve, scale, colour, style, label)
        _dress(axes, f"{name.upper()} networks: all pairs, by $S_k$")
    axes = panels[1, 2]
    for style, name in (("-", "lif"), (":", "qif")):
        both = curves[f"network, {name}, trained, by_error"]
        scale = max(np.nanmax(np.abs(curve.mean)) for curve in both.values())
        for colour, (sign, curve) in zip(COLOURS, both.items(), strict=False):
            _shaded(axes, curve, scale, colour, style, f"{name.upper()}, readout's error {'>' if sign > 0 else '<'} 0")
    _dress(axes, "trained: nearest spike, by its error")
    return figure


def _draw_example(axes: Axes, config: Config) -> None:
    """The three factors of one pair of LIF neurons, 10 ms apart."""
    pairs = Pairs.made("lif", "one", config)
    _, sol, cotangents = pairs.gradients(config.dt)
    k, post, times = int(np.abs(pairs.lags - 10.0).argmin()), len(pairs.lags), sol.ts[:-1].numpy() - T_POST
    activity = sol.a_fast.detach()[:-1, 0, k].numpy()
    shown = (times > -20.0) & (times < 10.0)
    axes.plot(times[shown], (activity / activity.max())[shown], color=INK, lw=1.0, label="$a_f$ of the presynaptic neuron")
    found = {sign: costate(pairs.net, pairs.u, sol, c, config.dt) for sign, c in cotangents.items()}
    of_current = {sign: -(x.response * x.error)[:, 0, post].numpy() for sign, x in found.items()}
    scale = max(np.abs(x).max() for x in of_current.values())
    for colour, (sign, w) in zip(COLOURS, of_current.items(), strict=False):
        label = rf"$-\partial_I f\,p_v$ of the other, which {WORDS[sign]}"
        axes.plot(times[shown], (w / scale)[shown], color=colour, lw=1.0, label=label)
        axes.fill_between(times[shown], (w / scale * activity / activity.max())[shown], color=colour, alpha=0.3, lw=0.0)
    train = sol.spikes
    for neuron, colour in ((k, INK), (post, COLOURS[2])):
        axes.axvline(float(train.time[0, train.idx[0] == neuron][0]) - T_POST, color=colour, lw=0.6, ls=":")
    axes.set(xlabel="time (ms)", ylabel="factors, of their largest", ylim=(-1.1, 2.1))
    axes.set_title("a pair: dotted the spikes, shaded the products", loc="left")
    axes.legend(fontsize=6, loc="upper left")


def _shaded(axes: Axes, curve: Curve, scale: float, colour: str, style: str, label: str) -> None:
    low, high = ((curve.mean + side * curve.sem) / scale for side in (-1.0, 1.0))
    axes.fill_between(curve.lag, low, high, color=colour, alpha=0.2, lw=0.0)
    axes.plot(curve.lag, curve.mean / scale, style, color=colour, lw=1.0, label=label)


def _dress(axes: Axes, title: str) -> None:
    axes.axhline(0.0, color=INK, lw=0.4)
    axes.axvline(0.0, color=INK, lw=0.4)
    axes.set(
        xlabel=r"$t_{post} - t_{pre}$ (ms)", ylabel=r"$\Delta w = -\partial C/\partial w$, of the largest", xlim=(-REACH, REACH)
    )
    axes.set_ylim(-1.25, 2.1)
    axes.set_title(title, loc="left")
    axes.legend(fontsize=6, loc="upper left")


def _lobe(a: float, tau: float) -> str:
    """A and τ; that it does not decay within the lags is seen as the longest τ that is tried."""
    if a == 0.0:
        return "0"
    return f"{a:.2f}, {tau:.1f} ms" if tau < taus()[-1] else f"{a:.2f}, no decay"


def _cells(entry: dict[str, Any]) -> list[str]:
    """Of curves told to be earlier, and whether those told to be later are the same upside down."""
    w = Window(**entry["earlier"])
    return [
        *(f"{x:.2f}" for x in (w.correlation, w.antisymmetric)),
        *(_lobe(*lobe) for lobe in ((w.a_plus, w.tau_plus), (w.a_minus, w.tau_minus))),
        f"{w.lobes:+.2f}", f"{entry['flip']:+.2f}",
    ]  # fmt: skip


def _range(values: list[float], form: str = "+.2f") -> str:
    return f"{min(values):{form}} to {max(values):{form}}"


def answer(numbers: dict[str, Any]) -> str:
    """Yes or no, in the words that the numbers allow."""
    one, regular, in_turn = ([numbers[f"pairs, {name}, {protocol}"] for name in TITLES] for protocol in PROTOCOLS)
    states = [numbers[f"network, {name}, {state}"] for name in TITLES for state in STATES]
    by_factor, by_error = (
        [numbers[f"network, {name}, {state}, {kind}"] for name in TITLES for state in STATES]
        for kind in ("by_factor", "by_error")
    )
    flips = [entry["flip"] for entry in (*one, *regular, *in_turn, *by_factor)]
    lobes, alike, opposite = (
        [entry["earlier"]["lobes"] for entry in entries] for entries in ((*one, *by_factor), regular, in_turn)
    )
    same, following = ([x for state in states for x in state[name]] for name in ("same_sign", "next_source"))
    pair, all_pairs = ([entry["earlier"]["correlation"] for entry in entries] for entries in (one, by_factor))
    antisymmetric, turned = (
        [entry["earlier"]["antisymmetric"] for entry in entries] for entries in ((*one, *by_factor), in_turn)
    )
    sign = "yes" if max(flips) < -0.9 else "mostly" if max(flips) < -0.5 else "no"
    depression = "no, there is no lobe of the other sign" if min(lobes) > -0.1 else "in part, there is a lobe of the other sign"
    decay = "yes" if min(pair) > 0.95 else "in part"
    reward = "mostly" if min(same) > 0.9 else "no"
    text = f"""\
- **The sign of the error turns the curve round: {sign}.** Correlations of the curves of either sign are {_range(flips)}. The
gradient is linear in what a spike is told, which multiplies a window of the pair, as the reward does in reward-modulated STDP.

- **Post before pre does the opposite: {depression}.** The area before over that after is {_range(lobes)}; an antisymmetric
window has -1. A charge that comes after a spike cannot move it. It moves the next one. Where all spikes are told the same, the
ratio is {_range(alike)}; where each is told the opposite of the one before, it is {_range(opposite)}, and then the best
antisymmetric window is correlated with the curve by {_range(turned)}. In the networks what successive spikes of a neuron are
told is correlated by {_range(following)}.

- **Pre before post decays as an exponential: {decay}.** The window is the neuron's own response to a current, filtered by the
synapse: zero at first, of LIF neurons rising with τ_f and falling with τ_m, of QIF neurons falling with their phase; an earlier
spike of the neuron does not end it. The best STDP window, which need not have the other lobe, is correlated with it by
{_range(pair)} for pairs at times of our choice and by {_range(all_pairs)} for all pairs of networks; the best antisymmetric one
by {_range(antisymmetric)}.

- **The third factor is the error at the spike: {reward}.** It is S_k of (5.10a), the change of the error to come, which has the
sign of the readout's error at the spike for {_range([100.0 * x for x in same], ".0f")} % of the spikes. By the sign of that
error, all that a presynaptic spike does, laid to the nearest postsynaptic one as an experimenter would, has curves that are
correlated by {_range([entry["flip"] for entry in by_error])} with each other."""
    return "\n".join(fill(x, 126, subsequent_indent="  ") for x in text.split("\n\n"))


def page(numbers: dict[str, Any], picture: str, config: Config) -> str:
    about = versions()
    heads = ["best STDP", "best antisymmetric", "A₊, τ₊", "A₋, τ₋", "before / after", "flip"]
    pairs = {
        f"{TITLES[name]}, {PROTOCOLS[protocol]}": _cells(numbers[f"pairs, {name}, {protocol}"])
        for name in TITLES
        for protocol in PROTOCOLS
    }
    networks = {
        f"{name.upper()}, {title}, {label}": _cells(numbers[f"network, {name}, {state}, {kind}"])
        for kind, label in (("by_factor", "by S"), ("by_error", "by the error, nearest spike"))
        for name in TITLES
        for state, title in STATES.items()
    }
    states = {
        f"{name.upper()}, {title}": [
            f"{np.mean(of['cost']):.3f}", f"{np.mean(of['spikes_per_s']):.0f}", f"{np.max(of['sum_off']):.0e}",
            f"{np.mean(of['of_pairs_cosine']):.3f}", f"{np.mean(of['same_sign']):.2f}", f"{np.mean(of['next_source']):+.2f}",
        ]
        for name in TITLES
        for state, title in STATES.items()
        if (of := numbers[f"network, {name}, {state}"])
    }  # fmt: skip
    about_states = ["cost", "spikes/s", "sum off", "pairs alone, cosine", "S has the error's sign", "S of the next spike"]
    flag = " --quick" if config.quick else ""
    text = f"""# Three factors and STDP

Does the exact gradient of a pair of spikes look like reward-modulated spike-timing dependent plasticity, as Huh and Sejnowski
2018 say? Written by `experiments/three_factors.py{flag}`: {config.seeds} seed(s), float64, gates of width {WIDTH:g}.
{about["machine"]}; torch {about["torch"]}, python {about["python"]}; {date.today()}.

{answer(numbers)}

![Δw against t_post - t_pre]({picture})

## Pairs at times of our choice

A presynaptic spike at each lag and a postsynaptic one at a fixed time, made by pulses of input, the weight between them 0; one
postsynaptic spike alone, or one each {PERIOD:g} ms. The cost is ½∫(o - o_d)² dt, o the postsynaptic neuron's slow synapse and
o_d the same {SHIFT:g} ms earlier or later: its spikes should come earlier, or later; or, in turn, the one at the lag should and
the next should do the opposite. Δw = -dC/dw by `DiscreteAdjoint`. Numbers of several spikes are of lags up to {PERIOD:g} ms.

{table(pairs, "neurons", heads)}

Numbers are of the curve for "earlier". *best STDP*: correlation, about zero, with the window that is nearest in square, of
A₊ e^(-Δt/τ₊) for pre before post and -A₋ e^(Δt/τ₋) for post before pre with A₊, A₋ ≥ 0; A is given over the largest Δw.
*best antisymmetric*: of those with A₊ = A₋ and τ₊ = τ₋. *before / after*: area of post before pre over that of pre before
post, -1 for an antisymmetric window, 0 where post before pre does nothing. *flip*: correlation of the curves of either error,
-1 where its sign is that of Δw.

## All pairs of a network

Predictive coding by {config.neurons} neurons, {config.trials} trials of {config.duration:g} ms, steps of {config.dt:g} ms; at a
random start and after {config.steps} steps of training. By (5.10a) of [equations.md](equations.md) each entry of dC/dW_rec is a
sum over pairs of a presynaptic and a postsynaptic spike, K_jk, and what belongs to no spike. *By S*: mean -K_jk of pairs of
different neurons against t_k - t_j, by the sign of what the postsynaptic spike is told; the numbers are of S < 0, earlier.
*By the error*: all that a presynaptic spike does, Σ_k K_jk, against the lag to the nearest spike of the postsynaptic neuron, by
the sign of W_outᵀ ∂ℓ/∂o there; the numbers are of errors below zero. Means over the postsynaptic neurons of all seeds, the band
their s.e.m.

{table(networks, "networks", heads)}

{table(states, "networks", about_states)}

*cost*: over that of silence. *sum off*: largest relative difference of the sum over pairs and the rest from `DiscreteAdjoint`.
*pairs alone*: cosine of the sum over pairs of spikes with the exact gradient; the rest are charges that turn back in the zone.
Then the share of spikes whose S_k has the sign of the readout's error, and the correlation of S_k with that of the neuron's
next spike.
"""
    filled = (fill(x, 128) if x[0] not in "#|!-" else x for x in text.strip().split("\n\n"))
    return "\n\n".join(filled) + "\n"


def main(argv: list[str] | None = None) -> int:
    config = tyro.cli(Config, args=argv).settled()
    try:
        check_ranges(config)
        torch.set_num_threads(config.threads)
        numbers, curves = computed(config)
        root = config.runs / "three_factors" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S-%f")
        path = root / "three_factors.md" if config.page is None else config.page
        for folder in {root, path.parent}:
            folder.mkdir(parents=True, exist_ok=True)
        about = {"config": {name: str(x) if isinstance(x, Path) else x for name, x in asdict(config).items()}, **versions()}
        (root / "numbers.json").write_text(json.dumps({"about": about, "numbers": numbers}, indent=1) + "\n")
        draw(curves, config).savefig(path.with_suffix(".png"))
        path.write_text(page(numbers, path.with_suffix(".png").name, config))
    except (adjsnn.AdjsnnError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{answer(numbers)}\n\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

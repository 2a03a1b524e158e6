"""The picture of `three_factors.py`."""

from typing import Any

import numpy as np
from spike_pairs import costate
from three_factors_measured import REACH, STATES, T_POST, TITLES, WORDS, Config, Curve, Pairs, stdp, window

from adjsnn import plotting
from adjsnn.plotting import COLOURS, INK, Axes, Figure


@plotting.style()
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

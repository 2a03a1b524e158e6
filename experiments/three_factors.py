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
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import torch
from three_factors_figures import draw
from three_factors_measured import PERIOD, PROTOCOLS, SHIFT, STATES, TITLES, WIDTH, Config, Window, computed, taus

import adjsnn
from adjsnn.training.compare import table
from adjsnn.training.main import parsed
from adjsnn.training.ranges import check_ranges
from adjsnn.training.runs import versions


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
    config = parsed(Config, argv)
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
        draw(curves, config).savefig(path.with_suffix(".png"), dpi=160)
        path.write_text(page(numbers, path.with_suffix(".png").name, config))
    except (adjsnn.AdjsnnError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{answer(numbers)}\n\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

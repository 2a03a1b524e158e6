"""Generalised LIF layers beside two-exponential ones: nanoseconds per spike of the compiled loops, forward and gradient.

    python benchmarks/generalised_lif.py [--rounds 20] [--write]

The hidden layer of `lif_gradient.py`, batch 150 of 5-120, alone, and the same wiring with two receptors (8 ms where weights are
negative), one spike-triggered current of 30 ms and -0.05, so that its spikes are not the same. Both sides run in turn in one
process on one thread; CPU time, of which a row has the medians, and the median of the ratios within a round. Each spike of a
recurrent layer arrives at 120 neurons.
"""

import argparse
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lif_gradient import BATCH, T_END, problem

import adjsnn
from adjsnn.lif.cpu import glif_loops, loops
from adjsnn.lif.glif.arrays import GLIF, GLIFCotangents, GLIFState, Neurons, Wiring
from adjsnn.lif.layer import Events, Layer, LayerCotangents, State, Trial, _filled
from adjsnn.lif.shapes import lif_layers
from adjsnn.training.runs import processor

RESULTS = Path(__file__).parent / "results"
NEGATIVE, OWN, JUMP = 8.0, 30.0, -0.05  # τ of the second receptor and of the own current, ms, and what a spike adds to that


class Case(NamedTuple):
    """A row: whether the layer hears itself, time constants differ by a tenth from neuron to neuron, and are learnt."""

    recurrent: bool
    each: bool
    learnt: bool


class Way(NamedTuple):
    """Nanoseconds per spike of every round, and how many spikes there are."""

    forward: list[float]
    backward: list[float]
    spikes: list[int]


def layers(case: Case) -> tuple[Layer, GLIF, Events]:
    """The two-exponential layer, the generalised one, and their input spikes."""
    lif, x, _ = problem(case.recurrent)
    layer = _filled(lif_layers(lif)[0])
    n, rng = len(layer.bias), np.random.default_rng(5)

    def around(tau: Any) -> Any:
        return tau * (rng.uniform(0.9, 1.1, n) if case.each else np.ones(n))

    layer = layer._replace(tau_mem=around(layer.tau_mem), tau_syn=around(layer.tau_syn))
    rates, none = np.stack([1.0 / layer.tau_syn, 1.0 / around(NEGATIVE), 1.0 / around(OWN)]), np.zeros((0, n))
    mu = 1.0 / layer.tau_mem
    cell = layer.bias, layer.v_th, layer.v_reset, np.zeros(n), layer.refractory
    neurons = Neurons(mu, mu, *cell, rates, np.full((1, n), JUMP), np.ones((1, n)), none, none, none, none)
    own = wiring(layer.w_rec if case.recurrent else np.zeros((n, 0)))
    order = x.time.numpy().argsort(1, kind="stable")
    time, idx = (np.take_along_axis(a.numpy(), order, 1) for a in (x.time, x.idx))
    first = np.arange(0, time.size + 1, time.shape[1])
    return (
        layer,
        GLIF(neurons, wiring(layer.w_in), own),
        Events(first, time.ravel().astype(float), idx.ravel().astype(np.int64)),
    )


def wiring(w: np.ndarray) -> Wiring:
    """Weights (N, M) without delay, of which the negative ones add to the second current."""
    n, m = w.shape
    weight = w.T.ravel().astype(float)
    post, receptor = np.tile(np.arange(n), m), (weight < 0.0).astype(np.int64)
    return Wiring(np.arange(m + 1), np.zeros(m), n * np.arange(m + 1), post, receptor, weight)


def measure(case: Case, rounds: int) -> tuple[Way, Way]:
    """Both sides in turn; the first round, which may compile, does not count."""
    layer, generalised, inputs = layers(case)
    n, nothing = len(layer.bias), np.zeros(0)
    trial = Trial(0, T_END, nothing, 100_000, np.zeros((0, BATCH, n)), nothing)
    start = State(np.zeros((BATCH, n)), np.zeros((BATCH, n)))
    at_rest = GLIFState(np.zeros((BATCH, n)), np.zeros((BATCH, 3, n)), np.zeros((BATCH, 0, n)))
    wanted = frozenset({"tau_mem", "tau_syn"} if case.learnt else ())
    found = Way([], [], []), Way([], [], [])

    def once(general: bool) -> tuple[float, float, int]:
        begin = time.process_time()
        if general:
            run: Any = glif_loops.forward(generalised, inputs, at_rest, trial)
        else:
            run = loops.forward(layer, inputs, start, trial)
        middle, spikes = time.process_time(), len(run.spikes.time)
        cotangents = np.random.default_rng(1).standard_normal(spikes)
        ready = time.process_time()
        if general:
            glif_loops.backward(
                generalised, inputs, at_rest, trial, run, GLIFCotangents(cotangents, None, None, None), case.learnt
            )
        else:
            loops.backward(layer, inputs, start, trial, run, LayerCotangents(cotangents, None, None), wanted)
        return 1e9 * (middle - begin) / spikes, 1e9 * (time.process_time() - ready) / spikes, spikes

    for k in range(rounds + 1):
        for general, way in enumerate(found):
            forward, backward, spikes = once(bool(general))
            if k:
                way.forward.append(forward)
                way.backward.append(backward)
                way.spikes.append(spikes)
    return found


def report(rounds: int) -> str:
    lines = [
        "# Generalised LIF layers beside two-exponential ones",
        "",
        f"Batch {BATCH} of 5-120, {T_END:.0f} ms, float64; two receptors and one spike-triggered current. ns of CPU time per "
        f"spike, medians of {rounds} rounds in turn, and the median of the ratios of forward and gradient together within "
        'a round. "Each neuron": its time constants are its own, on both sides. "Learnt": gradients by them, on both sides. '
        f"{processor()}, 1 thread, torch {torch.__version__}, numpy {np.__version__}, adjsnn {adjsnn.__version__}, "
        f"{date.today()}. Written by `benchmarks/generalised_lif.py`.",
        "",
        "| layer | time constants | two-exponential: spikes | forward | gradient "
        "| generalised: spikes | forward | gradient | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in [Case(r, each, learnt) for r in (False, True) for each in (False, True) for learnt in (False, True)]:
        ways = measure(case, rounds)
        sides = [f"{w.spikes[0]} | {statistics.median(w.forward):.0f} | {statistics.median(w.backward):.0f}" for w in ways]
        a, b = ([x + y for x, y in zip(w.forward, w.backward, strict=True)] for w in ways)
        ratio = statistics.median(y / x for x, y in zip(a, b, strict=True))
        constants = ("each neuron" if case.each else "shared") + (", learnt" if case.learnt else "")
        name = "recurrent" if case.recurrent else "feed-forward"
        lines.append(f"| {name} | {constants} | {' | '.join(sides)} | {ratio:.2f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="Generalised LIF layers beside two-exponential ones.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/results, which git keeps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = report(options.rounds)
    print(table)
    if options.write:
        (RESULTS / "generalised_lif.md").write_text(table)


if __name__ == "__main__":
    main()

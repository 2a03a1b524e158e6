"""Gradients of generalised LIF layers against central differences, with equal spikes on both sides.

Plain gradients against differences of the compiled loop, which takes a tenth of the time: its spikes and states are those of
the plain code in `test_glif_cpu.py`.
"""

import numpy as np
import pytest
from layers import Solvable, random_layer, split

from adjsnn.lif.cpu import glif_loops
from adjsnn.lif.glif.arrays import GLIF, GLIFCotangents, GLIFGradients, GLIFRun
from adjsnn.lif.glif.plain import forward
from adjsnn.lif.glif.plain_adjoint import backward

TOLERANCE = 1e-6  # relative, of a directional derivative; the extrapolated differences are good to 1e-8 or so
STEP = 2e-6
NOISE = 1e-7  # of differences of a cost of the order of 10 over such steps
CASES = [
    {"receptors": 2, "adaptation": 2, "thresholds": 1, "driven": True},
    {"receptors": 1, "adaptation": 1, "thresholds": 2, "leak": False, "reset": "by", "refractory": 4.0},
    {"receptors": 3, "adaptation": 0, "thresholds": 2, "reset": "mixed", "refractory": 5.0, "delays": "axon", "driven": True},
    {"receptors": 2, "adaptation": 2, "thresholds": 0, "leak": False, "reset": "mixed", "delays": "none"},
    {"receptors": 1, "adaptation": 0, "thresholds": 0, "recurrent": False, "reset": "by", "leak": False},
    pytest.param(
        {"receptors": 2, "adaptation": 1, "thresholds": 1, "refractory": 4.0, "driven": True, "follows": True},
        marks=pytest.mark.slow,
    ),
    pytest.param({"receptors": 1, "adaptation": 1, "thresholds": 0, "reset": "mixed", "follows": True}, marks=pytest.mark.slow),
    {"receptors": 2, "adaptation": 0, "thresholds": 1, "reset": "by", "leak": False, "refractory": 3.0, "follows": True},
]
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]
NOT_NEGATIVE = {"leak_rate", "refractory", "in_delay", "rec_delay"}
SMALL = {
    "leak_rate",
    "gain",
    "rate",
    "th_rate",
    "follow",
}  # of the order of 0.1, so that steps along the gradient are small beside them
RATES = {"leak_rate", "gain", "rate", "th_rate", "scale", "th_scale", "follow"}


def random_cotangents(rng: np.random.Generator, run: GLIFRun) -> GLIFCotangents:
    return GLIFCotangents(*(rng.normal(size=x.shape) for x in (run.spikes.time, *run.states)))


def cost(run: GLIFRun, cotangents: GLIFCotangents) -> float:
    return sum(float((w * x).sum()) for w, x in zip(cotangents, (run.spikes.time, *run.states), strict=True))


def named(gradients: GLIFGradients) -> dict[str, np.ndarray]:
    return gradients.neurons._asdict() | {name: x for name, x in gradients._asdict().items() if name != "neurons"}


def values_of(problem: Solvable, name: str) -> np.ndarray:
    layer, inputs, start, trial = problem
    if name in layer.neurons._fields:
        return getattr(layer.neurons, name)
    if "_" in name:
        which, part = name.split("_")
        return getattr(layer.incoming if which == "in" else layer.recurrent, {"weight": "weight", "delay": "delay"}[part])
    return {"time": inputs.time, "drive": trial.drive}.get(name, getattr(start, name, np.zeros(0)))


def moved(problem: Solvable, name: str, by: np.ndarray) -> Solvable:
    """The problem with one of its arrays moved."""
    layer, inputs, start, trial = problem
    if name in layer.neurons._fields:
        neurons = layer.neurons._replace(**{name: getattr(layer.neurons, name) + by})
        return layer._replace(neurons=neurons), inputs, start, trial
    if name in ("in_weight", "in_delay", "rec_weight", "rec_delay"):
        which, part = {"in": "incoming", "rec": "recurrent"}[name.split("_", maxsplit=1)[0]], name.split("_")[1]
        wiring = getattr(layer, which)
        return layer._replace(**{which: wiring._replace(**{part: getattr(wiring, part) + by})}), inputs, start, trial
    if name == "time":
        return layer, inputs._replace(time=inputs.time + by), start, trial
    if name == "drive":
        return layer, inputs, start, trial._replace(drive=trial.drive + by)
    return layer, inputs, start._replace(**{name: getattr(start, name) + by}), trial


def step_of(run: GLIFRun) -> float:
    """Shorter where a spike nearly grazes, whose time bends like one over its speed."""
    return STEP * min(1.0, 20.0 * float(run.speed.min()))


def derivative(
    problem: Solvable, run: GLIFRun, cotangents: GLIFCotangents, name: str, direction: np.ndarray, ahead: bool
) -> float:
    """Of the cost along a direction: differences over two steps, extrapolated; those ahead where there is nothing behind."""

    # Equal delays move apart in any order, and the loop takes those of a source in their order.
    solve = forward if name in ("in_delay", "rec_delay") else glif_loops.forward

    def at(step: float) -> float:
        there = solve(*moved(problem, name, step * direction))
        np.testing.assert_array_equal(there.spikes.neuron, run.spikes.neuron)
        return cost(there, cotangents)

    step = step_of(run)
    if ahead:
        return float(np.dot([at(k * step) for k in range(5)], [-25.0, 48.0, -36.0, 16.0, -3.0])) / (12.0 * step)
    return (8.0 * (at(step) - at(-step)) - at(2.0 * step) + at(-2.0 * step)) / (12.0 * step)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("options", CASES)
def test_gradients_are_those_of_differences(options, seed):
    rng = np.random.default_rng(seed)
    problem = random_layer(rng, t_end=25.0, batch=2 if seed else 1, **options)
    layer, inputs, start, trial = problem
    run = forward(*problem)
    assert len(run.spikes.time) >= 3
    cotangents = random_cotangents(rng, run)
    found = backward(*problem, run, cotangents, True)
    alone = (GLIF(layer.neurons, split(layer.incoming), split(layer.recurrent)), inputs, start, trial)
    for name, g in named(found).items():
        if g.size == 0 or (name == "refractory" and options.get("delays") == "none"):
            continue  # without either a neuron hears itself after its release, but with a refractory time before it: a kink
        # Along the gradient, so that no large parts cancel, and a bit beside it, so that no part may be missing.
        direction = g / max(np.abs(g).max(), 1e-300) * rng.uniform(0.5, 1.5, g.shape) + 0.2 * rng.normal(size=g.shape)
        ahead = (values_of(alone, name) == 0.0).any() and name in NOT_NEGATIVE
        direction = np.abs(direction) if ahead else direction
        if name in SMALL:
            direction *= 0.02
        expected = derivative(alone, run, cotangents, name, direction, ahead)
        assert float((g * direction).sum()) == pytest.approx(expected, rel=TOLERANCE, abs=NOISE * STEP / step_of(run)), name


def test_no_gradients_by_rates_unless_asked_for():
    """All others are the same."""
    rng = np.random.default_rng(0)
    problem = random_layer(rng, t_end=25.0, refractory=3.0, driven=True)
    run = forward(*problem)
    cotangents = random_cotangents(rng, run)
    asked, other = (named(backward(*problem, run, cotangents, rates)) for rates in (True, False))
    for name, g in asked.items():
        if name not in RATES:
            np.testing.assert_array_equal(g, other[name])


def test_a_loss_without_states_is_one_with_zeros():
    rng = np.random.default_rng(0)
    problem = random_layer(rng, t_end=25.0)
    run = forward(*problem)
    zeros = random_cotangents(rng, run)._replace(**{name: np.zeros_like(x) for name, x in run.states._asdict().items()})
    nothing = GLIFCotangents(zeros.time, None, None, None)
    for one, other in zip(*(named(backward(*problem, run, x, True)).values() for x in (zeros, nothing)), strict=True):
        np.testing.assert_array_equal(one, other)

"""Published models against the same equations written in numpy and solved by SciPy, and against what the papers show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pint_units import REGISTRY
from torch import Tensor

import adjsnn
from adjsnn import models
from tests.equations.reference import REFERENCES, solve

F64 = torch.float64
# Name, the reference, the model, currents of steps of so many ms. Long enough for a spike or several, in steps of two currents.
CASES: dict[str, tuple[str, Callable[..., adjsnn.Equations], list[float], float]] = {
    "izhikevich": ("izhikevich", models.izhikevich, [10.0, 6.0], 20.0),
    "izhikevich resonator": ("izhikevich", lambda **o: models.izhikevich("resonator", **o), [0.5, 4.0], 10.0),
    "adex": ("adex", models.adex, [1000.0, 800.0], 16.0),
    "adex initial burst": ("adex", lambda **o: models.adex("initial burst", **o), [400.0, 300.0], 8.0),
    "exponential": ("exponential_if", models.exponential_if, [2.0, 1.0], 16.0),
    "quadratic": ("quadratic_if", models.quadratic_if, [15.0, 20.0], 10.0),
    "fitzhugh-nagumo": ("fitzhugh_nagumo", models.fitzhugh_nagumo, [0.5, 0.8], 25.0),
    "morris-lecar hopf": ("morris_lecar", models.morris_lecar, [120.0, 100.0], 60.0),
    "morris-lecar saddle-node": ("morris_lecar", lambda **o: models.morris_lecar("saddle-node", **o), [60.0, 50.0], 50.0),
    "squid": ("squid", models.hodgkin_huxley, [12.0, 10.0], 9.0),
    "traub-miles": ("cortical", lambda **o: models.hodgkin_huxley("traub-miles", **o), [2.0, 1.0], 6.0),
    "regular spiking": ("cortical", lambda **o: models.hodgkin_huxley("regular spiking", **o), [2.0, 1.0], 15.0),
    "fast spiking": ("cortical", lambda **o: models.hodgkin_huxley("fast spiking", **o), [2.0, 1.0], 16.0),
    "wang-buzsaki": ("wang_buzsaki", models.wang_buzsaki, [2.0, 1.0], 10.0),
    "depressing": ("depressing", models.tsodyks_markram, [0.1, 0.05], 40.0),
    "facilitating": ("facilitating", lambda **o: models.tsodyks_markram("facilitating", **o), [0.1, 0.05], 40.0),
    "resonate-and-fire": ("resonate_and_fire", models.resonate_and_fire, [12.0, 11.0], 0.5),
}


def currents(steps: list[float]) -> Tensor:
    return torch.tensor(steps, dtype=F64).view(-1, 1, 1)


def spikes(sol: Any) -> np.ndarray:
    return sol.event_times[0][sol.event_index[0] == 0].detach().numpy()


@pytest.mark.every(2)
@pytest.mark.parametrize("name", CASES)
def test_states_and_spikes_are_those_of_scipy(name: str):
    """To 1e-6 ms and mV: measured at most 2e-8 ms. A constant with a wrong last digit moves spikes by more than 1e-4 ms."""
    reference, make, steps, dt = CASES[name]
    system = make(dtype=F64)
    sol = adjsnn.solve(system, currents(steps), dt=dt, method="tsit5", rtol=1e-10, atol=1e-10)
    expected, events = solve(REFERENCES[reference], sol.y[0, 0].numpy(), steps, dt, system.numbers)
    assert events, "a spike"
    assert sol.event_index[0].tolist() == [which for _, which, _ in events]
    assert np.abs(sol.event_times[0].numpy() - [time for time, _, _ in events]).max() < 1e-6
    assert np.abs(sol.y[:, 0].numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("adex", "adex initial burst")])
def test_they_start_at_rest(name: str):
    """AdEx starts at its leak's reversal potential, where the exponential leaves some µV/ms."""
    system = CASES[name][1](dtype=F64)
    nothing = torch.zeros(1, 1, dtype=F64)
    assert float(system.vector_field(nothing, system.start(), nothing).abs().max()) < 1e-12


def test_a_constant_of_another_sign_or_name():
    neuron = models.adex(b=torch.tensor([60.0, 80.0], dtype=F64), tau_w=100.0)
    assert neuron.numbers["tau_w"] == 100.0
    assert neuron.b.shape == (2,)
    with pytest.raises(adjsnn.ConfigurationError, match=r"the constant 'g_leak'; expected one of c_m, g_l"):
        models.adex(g_leak=10.0)
    with pytest.raises(adjsnn.ConfigurationError, match=r"the constant 'tau_m'.*Try: 'tau_w'"):
        models.adex(tau_m=10.0)
    for measured in ("100*ms", REGISTRY.Quantity(100.0, "ms")):
        with pytest.raises(adjsnn.ConfigurationError, match="tau_w=.*expected a plain number, in the unit of the docstring"):
            models.adex(tau_w=measured)
    with pytest.raises(adjsnn.ConfigurationError, match=r"kind='squd'; expected one of 'squid', 'traub-miles'"):
        models.hodgkin_huxley("squd")


@pytest.mark.parametrize("size", [1, 2])
def test_a_start_above_a_threshold_is_told_by_its_name(size: int):
    u = torch.zeros(1, 1, size, dtype=F64)
    unit = ", unit 0," if size > 1 else ""
    with pytest.raises(adjsnn.ConfigurationError, match=f"the threshold 'release'{unit} of sample 0 is 0 at the start"):
        adjsnn.solve(models.exponential_if(refractory=0.0, size=size, dtype=F64), u, dt=1.0, method="dopri5")


def test_several_neurons_are_each_by_itself():
    steps = torch.tensor([[8.0, 10.0, 14.0]], dtype=F64).view(1, 1, 3)
    together = adjsnn.solve(models.izhikevich(size=3, dtype=F64), steps, dt=20.0, method="dopri5", rtol=1e-9, atol=1e-9)
    for k in range(3):
        alone = adjsnn.solve(
            models.izhikevich(dtype=F64), steps[..., k : k + 1], dt=20.0, method="dopri5", rtol=1e-9, atol=1e-9
        )
        own = together.event_times[0][together.event_index[0] == k]
        torch.testing.assert_close(own, alone.event_times[0], rtol=0.0, atol=1e-6)  # other steps, each to 1e-9


def sensitivities(steps: list[float], dt: float, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Spike times of the squid's axon, and their slopes by constants (spikes, names): ∂y/∂p by SciPy, along with y.

    d/dt ∂y/∂p is the imaginary part of f(y + iε ∂y/∂p, p + iε)/ε, to rounding, for f is analytic. A spike moves by -(∂v/∂p)/v̇.
    """
    neuron, tiny = models.hodgkin_huxley(dtype=F64), 1e-30
    one = REFERENCES["squid"]

    moving = {name: 1j * tiny * np.eye(len(names))[k] for k, name in enumerate(names)}

    def field(x: np.ndarray, current: float, c: Any) -> np.ndarray:
        y, slopes = x[:4], x[4:].reshape(4, -1)
        moved = one.field(
            y[:, None] + 1j * tiny * slopes, current, {name: value + moving.get(name, 0.0) for name, value in c.items()}
        )
        return np.concatenate([one.field(y, current, c), (moved.imag / tiny).ravel()])

    y0 = np.append(neuron.start().numpy()[0], np.zeros(4 * len(names)))
    _, events = solve(one._replace(field=field), y0, steps, dt, neuron.numbers)
    slopes = [-x[4 : 4 + len(names)] / one.field(x[:4], steps[int(time // dt)], neuron.numbers)[0] for time, _, x in events]
    return np.array([time for time, _, _ in events]), np.array(slopes)


def test_spike_times_of_hodgkin_and_huxley_have_the_gradient_of_a_forward_solve():
    """By every constant, of each of two spikes, to 1e-6 of the largest."""
    steps, dt = [12.0, 10.0], 9.0
    names = ("g_na", "g_k", "g_l", "e_na", "e_k", "e_l", "c_m")
    neuron = models.hodgkin_huxley(learn=names, dtype=F64)
    sol = adjsnn.solve(neuron, currents(steps), dt=dt, method="tsit5", rtol=1e-10, atol=1e-11)
    times, expected = sensitivities(steps, dt, names)
    assert np.abs(spikes(sol) - times).max() < 1e-6
    for k in range(len(times)):
        own = torch.autograd.grad(sol.event_times[0, k], [getattr(neuron, name) for name in names], retain_graph=True)
        assert np.abs(np.array([float(x) for x in own]) - expected[k]).max() < 1e-6 * np.abs(expected[k]).max()


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_glif_is_that_of_lif_networks(level: int):
    """Spikes in closed form, and their gradient; steps leave 1e-8 ms and 1e-6 of the gradient."""
    names = {"tau_mem": "tau_mem.0", "v_th": "v_th.0"}
    u = currents([420.0, 500.0])
    lif = adjsnn.LIFNetwork.glif(level, GLIF, dtype=F64, learn=("tau_mem", "v_th"))
    expected = adjsnn.solve(lif, u, dt=20.0, kernels="plain").spike_times().flatten()
    weights = torch.arange(1.0, len(expected) + 1.0, dtype=F64)
    (expected * weights).sum().backward()
    text = models.glif(level, GLIF, dtype=F64, learn=tuple(names))
    sol = adjsnn.solve(text, u, dt=20.0, method="tsit5", rtol=1e-10, atol=1e-10)
    own = sol.event_times[0][sol.event_index[0] == 0]
    assert len(expected) >= 3
    torch.testing.assert_close(own, expected, rtol=0.0, atol=1e-6)
    (own * weights).sum().backward()
    theirs = dict(lif.named_parameters())
    for name, other in names.items():
        assert float(getattr(text, name).grad) == pytest.approx(float(theirs[other].grad.sum()), rel=1e-6)


GLIF = {  # the neuron of NEST's glif_psc by default, with a cut of 3.75 ms
    "R_input": 1e9 / 9.43, "C": 58.72e-12, "th_inf": 27.17e-3, "dt": 1e-6, "spike_cut_length": 3750,
    "asc_amp_array": [-9.18e-12, -198.94e-12], "asc_tau_array": [1.0 / 3.0, 0.01],
    "AScurrent_reset_method": {"params": {"r": [1.0, 1.0]}},
    "voltage_reset_method": {"params": {"a": 0.2, "b": 18.51e-3}},
    "threshold_dynamics_method": {"params": {"a_spike": 0.37e-3, "b_spike": 9.0, "a_voltage": 5.0, "b_voltage": 90.0}},
}  # fmt: skip


def pattern(system: adjsnn.Equations, steps: list[float], dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Spike times and the intervals between them."""
    times = spikes(adjsnn.solve(system, currents(steps), dt=dt, method="tsit5", rtol=1e-6, atol=1e-8))
    return times, np.diff(times)


def steady(gaps: np.ndarray) -> bool:
    return bool(np.ptp(gaps) < 0.02 * gaps.mean())


PATTERNS: dict[str, tuple[list[float], float, Callable[[np.ndarray, np.ndarray], Any]]] = {
    # currents of steps, their length in ms, and what the papers show
    "regular spiking": ([10.0], 250.0, lambda t, gaps: gaps[0] < 0.5 * gaps[1] and steady(gaps[2:])),
    "intrinsically bursting": ([10.0], 200.0, lambda t, gaps: gaps[:2].max() < 5.0 and gaps[2:].min() > 25.0),
    "chattering": ([10.0], 250.0, lambda t, gaps: (gaps > 40.0).sum() >= 3 and np.median(gaps) < 5.0),
    "fast spiking": ([10.0], 100.0, lambda t, gaps: len(t) >= 13 and steady(gaps[4:])),
    "low-threshold spiking": (
        [10.0],
        200.0,
        lambda t, gaps: gaps[0] < 3.0 and (np.diff(gaps[:6]) > 0).all() and steady(gaps[8:]),
    ),
    "thalamo-cortical": ([0.0, -10.0, 0.0], 50.0, lambda t, gaps: len(t) >= 2 and t[0] > 100.0),  # a rebound
    "resonator": ([0.2], 200.0, lambda t, gaps: len(t) == 0),
    "tonic spiking": ([0.0] + [14.0] * 9, 10.0, lambda t, gaps: t[0] > 10.0 and steady(gaps[-2:])),
    "phasic spiking": ([0.0] + [0.5] * 9, 20.0, lambda t, gaps: len(t) == 1),
    "tonic bursting": ([0.0] + [15.0] * 9, 22.0, lambda t, gaps: (gaps > 20.0).sum() >= 3 and (gaps < 6.0).sum() >= 15),
    "phasic bursting": ([0.0] + [0.6] * 9, 20.0, lambda t, gaps: len(t) >= 5 and t[-1] < 100.0),
    "mixed mode": ([0.0] + [10.0] * 9, 16.0, lambda t, gaps: gaps[:2].max() < 5.0 and gaps[2:].min() > 25.0),
    "spike frequency adaptation": (
        [0.0] + [30.0] * 9,
        8.0,
        lambda t, gaps: (np.diff(gaps) > 0).all() and gaps[-1] > 10 * gaps[0],
    ),
    "class 2": ([0.0, 0.2, 0.4, 0.6, 0.8], 50.0, lambda t, gaps: gaps.max() < 1.5 * gaps.min()),  # no slow spikes at the onset
    "rebound spike": ([0.0] * 4 + [-15.0] + [0.0] * 35, 5.0, lambda t, gaps: len(t) == 1 and t[0] > 25.0),
    "rebound burst": ([0.0] * 4 + [-15.0] + [0.0] * 35, 5.0, lambda t, gaps: len(t) > 5 and t[0] > 25.0),
}


@pytest.mark.parametrize("kind", PATTERNS)
def test_izhikevich_fires_as_published(kind: str):
    steps, dt, shown = PATTERNS[kind]
    assert shown(*pattern(models.izhikevich(kind, dtype=F64), steps, dt))


ADEX_PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "tonic spiking": lambda t, gaps: len(t) > 40 and steady(gaps[8:]),
    "adaptation": lambda t, gaps: (np.diff(gaps[:7]) > 1.0).all() and gaps[6] > 5 * gaps[0] and steady(gaps[-2:]),
    "initial burst": lambda t, gaps: gaps[1] < 10.0 and gaps[2:].min() > 50.0 and steady(gaps[3:]),
    "regular bursting": lambda t, gaps: steady(gaps[gaps > 100.0]) and steady(gaps[3::2]) and (gaps > 100.0).sum() == 3,
    "delayed accelerating": lambda t, gaps: t[0] > 30.0 and (np.diff(gaps) < 0.0).all() and gaps[-1] < 0.6 * gaps[0],
    "delayed regular bursting": lambda t, gaps: t[0] > 50.0 and (gaps > 50.0).sum() >= 5 and steady(gaps[gaps > 50.0]),
    "transient spiking": lambda t, gaps: 1 <= len(t) <= 3 and t[-1] < 50.0,
    "irregular spiking": lambda t, gaps: gaps[4:].std() > 0.4 * gaps[4:].mean() and np.ptp(gaps[4::3]) > 10.0,
}


@pytest.mark.parametrize("kind", ADEX_PATTERNS)
def test_adex_fires_as_published(kind: str):
    assert ADEX_PATTERNS[kind](*pattern(models.adex(kind, dtype=F64), [models.ADEX_CURRENTS[kind]], 500.0))


@pytest.mark.parametrize(("kind", "below", "above"), [("hopf", 85.0, 95.0), ("saddle-node", 39.0, 41.0)])
def test_onset_of_morris_and_lecar(kind: str, below: float, above: float):
    """Class 2 begins with a frequency, class 1 as slowly as one likes."""
    assert len(pattern(models.morris_lecar(kind, dtype=F64), [below], 400.0)[0]) <= 1
    gaps = pattern(models.morris_lecar(kind, dtype=F64), [above], 400.0)[1]
    assert (gaps < 100.0).all() if kind == "hopf" else (gaps > 150.0).all()


@pytest.mark.slow
def test_cortical_neurons_adapt_by_their_slow_potassium_current():
    neuron = models.hodgkin_huxley("regular spiking", dtype=F64)
    gaps = pattern(neuron, [2.0], 300.0)[1]
    assert (np.diff(gaps) > 0).all()
    assert gaps[-1] > 1.7 * gaps[0]
    assert steady(pattern(models.hodgkin_huxley("regular spiking", g_m=0.0, dtype=F64), [2.0], 300.0)[1][3:])


def test_the_example_of_the_readme(capsys: pytest.CaptureFixture[str]):
    text = (Path(adjsnn.__file__).parents[1] / "README.md").read_text()
    (example,) = (part.split("```")[0] for part in text.split("```python\n")[1:] if "adjsnn.models" in part.split("```")[0])
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert models.adex().text in printed
    assert "137.3207" in printed


@pytest.mark.slow
def test_central_differences_of_scipy():
    """Of the last of two spikes by each conductance, of steps h and h/2 together: what remains is of the order of h⁴, 1e-9."""
    steps, dt = [12.0, 10.0], 9.0
    names = ("g_na", "g_k", "g_l")
    neuron = models.hodgkin_huxley(learn=names, dtype=F64)
    sol = adjsnn.solve(neuron, currents(steps), dt=dt, method="tsit5", rtol=1e-10, atol=1e-11)
    own = torch.autograd.grad(sol.event_times[0, -1], [getattr(neuron, name) for name in names])
    known = models.hodgkin_huxley(dtype=F64)
    y0 = known.start().numpy()[0]

    def last(name: str, value: float) -> float:
        return solve(REFERENCES["squid"], y0, steps, dt, {**known.numbers, name: value}, rtol=1e-12)[1][-1][0]

    for name, gradient in zip(names, own, strict=True):
        g = known.numbers[name]
        whole, half = ((last(name, g * (1 + h)) - last(name, g * (1 - h))) / (2 * g * h) for h in (2e-3, 1e-3))
        assert float(gradient) == pytest.approx((4 * half - whole) / 3, rel=1e-6)

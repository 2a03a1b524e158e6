"""Published models against the same equations written in numpy and solved by SciPy, and against what the papers show."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
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


@pytest.mark.parametrize("name", CASES)
def test_states_and_spikes_are_those_of_scipy(name: str):
    """Both to 1e-10, or nearly: what is left is 10⁴ times less than a spike of the next digit of a constant would move."""
    reference, make, steps, dt = CASES[name]
    system = make(dtype=F64)
    sol = adjsnn.solve(system, currents(steps), dt=dt, method="tsit5", rtol=1e-9, atol=1e-10)
    expected, events = solve(REFERENCES[reference], sol.y[0, 0].numpy(), steps, dt, system.numbers)
    assert events, "a spike"
    assert sol.event_index[0].tolist() == [which for _, which, _ in events]
    assert np.abs(sol.event_times[0].numpy() - [time for time, _, _ in events]).max() < 1e-6
    assert np.abs(sol.y[:, 0].numpy() - expected).max() < 1e-6 * max(1.0, np.abs(expected).max())


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
    with pytest.raises(adjsnn.ConfigurationError, match=r"kind='squd'; expected one of 'squid', 'traub-miles'"):
        models.hodgkin_huxley("squd")


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

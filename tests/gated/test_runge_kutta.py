"""Heun and RK4 on the charge form: order through resets, charge, located spikes, and the hand-written adjoint."""

import math

import numpy as np
import pytest
import torch
from networks import DT, GATES, MEMBRANES, gradients, random_loss, random_network, random_trial, relative
from scipy.integrate import solve_ivp

import adjsnn
from adjsnn import BPTT, DiscreteAdjoint, GatedState
from gated.test_forward import _qif_by_dop853

METHODS = {"heun": 2, "rk4": 4}
BODIES = [("auto", "heun"), ("auto", "rk4"), ("plain", "heun"), pytest.param("plain", "rk4", marks=pytest.mark.slow)]
SAME_PROGRAM = 1e-10  # only the order of float64 sums differs; typically 1e-14


@pytest.mark.every(23)
@pytest.mark.parametrize("tau_per_neuron", [False, True])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("neuron", MEMBRANES)
@pytest.mark.parametrize("method", METHODS)
def test_agrees_with_bptt(method, neuron, gate, tau_per_neuron, kernels):
    """On bit-identical states: the fused loops are given those of plain operations."""
    net = random_network(MEMBRANES[neuron], GATES[gate], seed=0, tau_per_neuron=tau_per_neuron)
    u, y0 = random_trial(net, seed=0)
    assert adjsnn.solve(net, u, dt=DT, y0=y0, method=method, kernels=kernels).stats.spikes > 30
    expected = gradients(net, u, y0, BPTT(), method=method)
    found = gradients(net, u, y0, DiscreteAdjoint(), method=method, kernels="plain" if kernels == "plain" else "backward")
    for name, value in expected.items():
        assert value.norm() > 0, name
        assert relative(found[name], value) <= SAME_PROGRAM, name


@pytest.mark.every(5)
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("neuron", MEMBRANES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kernels", ["auto", pytest.param("plain", marks=pytest.mark.slow)])
def test_central_differences_with_equal_spikes(method, neuron, kernels):
    net = random_network(MEMBRANES[neuron], GATES["raised_cosine"], seed=5)
    u, y0 = random_trial(net, seed=5, steps=100)
    entries = 3 if kernels == "auto" else 1  # hundreds of solves by plain operations take their time
    report = adjsnn.gradcheck(net, u, random_loss, dt=DT, y0=y0, entries=entries, verbose=False, method=method, kernels=kernels)
    assert report.spikes > 15
    assert all(row.finite_difference is not None and row.finite_difference <= 1e-6 for row in report.rows), report


def _errors(method, step_counts, solve, exact):
    errors = []
    for n_steps in step_counts:
        found = solve(method, n_steps)
        errors.append([float((x - y).norm()) for x, y in zip(found, exact, strict=True)])
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:])), np.array(errors)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kernels", ["auto", pytest.param("plain", marks=pytest.mark.slow)])
def test_qif_converges_to_dop853(method, kernels):
    generator = torch.Generator().manual_seed(0)
    net = adjsnn.GatedSynapseNetwork(1, 8, 2, gate=adjsnn.RaisedCosineGate(0.3), dtype=torch.float64, generator=generator)
    with torch.no_grad():
        net.bias.uniform_(0.04, 0.06, generator=generator)
        net.w_in.zero_()
        net.w_rec.mul_(0.02)
    exact = [torch.as_tensor(x) for x in _qif_by_dop853(net, 0.0, 40.0)]

    def solve(method, n_steps):
        u = torch.zeros(n_steps, 1, 1, dtype=torch.float64)
        with torch.no_grad():
            sol = adjsnn.solve(net, u, dt=40.0 / n_steps, method=method, kernels=kernels)
        return sol.v[-1, 0] + sol.crossings.sum(0)[0], sol.a_fast[-1, 0], sol.readout[-1, 0]

    slopes, errors = _errors(method, (100, 200, 400, 800, 1600), solve, exact)
    # The phase is smooth; synaptic activity of RK4 also sees the kinks in G's third derivative at the edges of the zone, whose
    # place in their step varies, so single slopes scatter and their mean over four halvings is taken.
    assert np.all(np.abs(slopes[:, 0] - METHODS[method]) < 0.15), slopes
    assert np.all(slopes.mean(0) > METHODS[method] - 0.4), slopes
    assert np.all(errors[-1] < {"heun": 1e-5, "rk4": 1e-10}[method]), errors


def _lif_by_dop853(net: adjsnn.GatedSynapseNetwork, t_end: float) -> tuple[list[torch.Tensor], list[tuple[float, int]]]:
    """v, a_f, readout at t_end and the spikes of a LIF network, by SciPy from reset to reset."""
    w_rec, bias, w_out = (x.detach().numpy() for x in (net.w_rec, net.bias, net.w_out))
    n, width = net.n_hidden, net.gate.width
    names = ("tau_fast", "tau_slow", "tau_mem", "v_reset")
    tau_fast, tau_slow, tau_mem, v_reset = (float(getattr(net, name).detach()) for name in names)

    def charge(v):
        x = np.clip((v - 1 + width) / width, 0, 1)
        return x - np.sin(2 * np.pi * x) / (2 * np.pi)

    def right_hand_side(t, y):
        v, fast, slow = y[:n], y[n : 2 * n], y[2 * n :]
        a_fast, a_slow = fast + charge(v) / tau_fast, slow + charge(v) / tau_slow
        return np.concatenate([(w_rec @ a_fast + bias - v) / tau_mem, -a_fast / tau_fast, -a_slow / tau_slow])

    def meets(k):
        def event(t, y):
            return y[k] - 1.0

        event.terminal, event.direction = True, 1.0
        return event

    events, t, y, spikes = [meets(k) for k in range(n)], 0.0, np.zeros(3 * n), []
    while t < t_end:
        found = solve_ivp(right_hand_side, (t, t_end), y, method="DOP853", rtol=1e-12, atol=1e-13, events=events, max_step=0.5)
        t, y = found.t[-1], found.y[:, -1].copy()
        for k in range(n):
            if len(found.t_events[k]):
                spikes.append((t, k))
                y[k] = v_reset
                y[n + k] += (1.0 - charge(np.array(v_reset))) / tau_fast
                y[2 * n + k] += (1.0 - charge(np.array(v_reset))) / tau_slow
    a_fast, a_slow = (y[n : 2 * n] + charge(y[:n]) / tau_fast, y[2 * n :] + charge(y[:n]) / tau_slow)
    return [torch.as_tensor(x) for x in (y[:n], a_fast, w_out @ a_slow)], spikes


@pytest.mark.parametrize(
    ("kernels", "method"),
    [
        ("auto", "euler"),
        ("auto", "heun"),
        ("auto", "rk4"),
        pytest.param("plain", "euler", marks=pytest.mark.slow),
        ("plain", "heun"),
        pytest.param("plain", "rk4", marks=pytest.mark.slow),
    ],
)
def test_lif_converges_through_resets(method, kernels):
    generator = torch.Generator().manual_seed(1)
    membrane = adjsnn.LIF(tau_mem=20.0, v_reset=-0.2)
    net = adjsnn.GatedSynapseNetwork(
        0, 6, 2, neuron=membrane, gate=adjsnn.RaisedCosineGate(0.3), dtype=torch.float64, generator=generator
    )
    with torch.no_grad():
        net.bias.uniform_(1.3, 2.0, generator=generator)
    t_end = 60.0
    exact, spikes = _lif_by_dop853(net, t_end)
    assert len(spikes) >= 12
    located = []

    def solve(method, n_steps):
        with torch.no_grad():
            sol = adjsnn.solve(
                net, torch.zeros(n_steps, 1, 0, dtype=torch.float64), dt=t_end / n_steps, method=method, kernels=kernels
            )
        events = sol.spikes.to_list()[0]
        assert [k for _, k in events] == [k for _, k in spikes]
        located.append(max(abs(t - s) for (t, _), (s, _) in zip(events, spikes, strict=True)))
        return sol.v[-1, 0], sol.a_fast[-1, 0], sol.readout[-1, 0]

    counts = (1600, 3200, 6400) if method == "euler" else (120, 240, 480, 960)
    slopes, errors = _errors(method, counts, solve, exact)
    order = METHODS.get(method, 1)
    # Where in its step a spike falls changes the constant of each error by some; the halvings together average it.
    assert np.all(slopes.mean(0) > order - 0.3), slopes
    assert np.all(errors[-1] < {"euler": 1e-2, "heun": 1e-4, "rk4": 1e-7}[method]), errors
    assert math.log2(located[0] / located[-1]) / (len(counts) - 1) > order - 0.3, located


@pytest.mark.parametrize("steps_in_zone", [0.2, 1, 3, 20])
@pytest.mark.parametrize("method", METHODS)
def test_a_full_crossing_delivers_unit_charge(method, steps_in_zone, kernels):
    width, per_step = 0.1, 0.1 / steps_in_zone
    net = adjsnn.GatedSynapseNetwork(
        0, 1, 1, neuron=adjsnn.NIF(), gate=adjsnn.RaisedCosineGate(width), tau_fast=1e6, tau_slow=1e6, dtype=torch.float64
    )
    with torch.no_grad():
        net.w_rec.zero_()
        net.bias.fill_(per_step / 0.1)
    n_steps = math.ceil(3.3 / per_step)
    sol = adjsnn.solve(net, torch.zeros(n_steps, 1, 0, dtype=torch.float64), dt=0.1, method=method, kernels=kernels)
    turns = sol.crossings[:, 0, 0].cumsum(0)
    outside = sol.v[1:, 0, 0] < 1 - width
    released = sol.a_slow[1:, 0, 0] * 1e6  # a synapse that forgets nothing: 1e-6 per ms
    assert int(turns[-1]) >= 3
    torch.testing.assert_close(released[outside].detach(), turns[outside].double(), rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize(("kernels", "method"), BODIES)
def test_spikes_are_located_inside_their_steps(method, kernels):
    """A LIF neuron under constant current reaches θ after τ ln(I/(I - 1)), from v_r after τ ln((I - v_r)/(I - 1))."""
    net = adjsnn.GatedSynapseNetwork(0, 1, 1, neuron=adjsnn.LIF(tau_mem=20.0, v_reset=-0.3), dtype=torch.float64)
    with torch.no_grad():
        net.w_rec.zero_()
        net.bias.fill_(1.4)
    first, period = 20.0 * math.log(1.4 / 0.4), 20.0 * math.log(1.7 / 0.4)
    errors = []
    for dt in (1.6, 0.8, 0.4, 0.2, 0.1):
        sol = adjsnn.solve(net, torch.zeros(int(160 / dt), 1, 0, dtype=torch.float64), dt=dt, method=method, kernels=kernels)
        times = np.array([t for t, _ in sol.spikes.to_list()[0]])
        errors.append(np.abs(times - first - period * np.arange(len(times))).max())
    # Single slopes scatter with the place of the spikes in their steps.
    assert math.log2(errors[0] / errors[-1]) / 4 > METHODS[method] - 0.3, errors
    assert sol.stats.min_speed_at_spike == pytest.approx(0.4 / 20.0, rel=1e-4)


@pytest.mark.parametrize(("kernels", "method"), BODIES)
def test_batch_equals_its_samples_run_singly(method, kernels):
    net = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=1)
    u, y0 = random_trial(net, seed=1)
    together = adjsnn.solve(net, u, dt=DT, y0=y0, method=method, kernels=kernels)
    for k in range(u.shape[1]):
        single = adjsnn.solve(
            net, u[:, k : k + 1], dt=DT, y0=GatedState(*(x[k : k + 1] for x in y0)), method=method, kernels=kernels
        )
        torch.testing.assert_close(single.v[:, 0], together.v[:, k], rtol=0, atol=1e-12)


@pytest.mark.every(3)
@pytest.mark.parametrize("method", METHODS)
def test_only_what_is_wanted_is_computed(method, kernels):
    net = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=1)
    u, _ = random_trial(net, seed=1)
    adjsnn.solve(net, u.detach(), dt=DT, method=method, kernels=kernels).readout.square().sum().backward()
    expected = net.w_in.grad.clone()
    net.zero_grad(set_to_none=True)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name == "w_in")
    adjsnn.solve(net, u.detach(), dt=DT, method=method, kernels=kernels).readout.square().sum().backward()
    assert torch.equal(net.w_in.grad, expected)
    assert all(p.grad is None for name, p in net.named_parameters() if name != "w_in")

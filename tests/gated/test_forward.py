"""Forward solutions against an independent integrator, conservation of charge, located spikes, the balanced network."""

import math

import numpy as np
import pytest
import torch
from networks import GATES, MEMBRANES
from scipy.integrate import solve_ivp

import adjsnn
from adjsnn.gated.balanced import tightly_balanced
from adjsnn.signals import lowpass, random_sinusoids


def _qif_by_dop853(net: adjsnn.GatedSynapseNetwork, frequency: float, t_end: float) -> tuple[np.ndarray, np.ndarray, float]:
    """v, a_f and the readout at t_end by SciPy on the charge form (1.5): r = a - G/τ, with G counted through all turns."""
    w_in, w_rec, bias, w_out = (x.detach().numpy() for x in (net.w_in, net.w_rec, net.bias, net.w_out))
    n, width = net.n_hidden, net.gate.width
    tau_fast, tau_slow, tau_v = (float(x.detach()) for x in (net.tau_fast, net.tau_slow, net.tau_v))

    def charge(phase: np.ndarray) -> np.ndarray:
        turns = np.floor(phase)
        x = np.clip((phase - turns - 1 + width) / width, 0, 1)
        return turns + x - np.sin(2 * np.pi * x) / (2 * np.pi)

    def right_hand_side(t: float, y: np.ndarray) -> np.ndarray:
        phase, fast, slow = y[:n], y[n : 2 * n], y[2 * n :]
        level = charge(phase)
        current = w_rec @ (fast + level / tau_fast) + w_in[:, 0] * np.sin(2 * np.pi * frequency * t) + bias
        cosine = np.cos(2 * np.pi * phase)
        flow = (1 + cosine) / tau_v + (1 - cosine) * current
        return np.concatenate([flow, -(fast + level / tau_fast) / tau_fast, -(slow + level / tau_slow) / tau_slow])

    found = solve_ivp(right_hand_side, (0, t_end), np.zeros(3 * n), method="DOP853", rtol=1e-11, atol=1e-12, max_step=0.05)
    end = found.y[:, -1]
    level = charge(end[:n])
    return end[:n], end[n : 2 * n] + level / tau_fast, w_out @ (end[2 * n :] + level / tau_slow)


def test_euler_converges_to_dop853_with_slope_one(kernels):
    generator = torch.Generator().manual_seed(0)
    net = adjsnn.GatedSynapseNetwork(1, 8, 2, gate=adjsnn.RaisedCosineGate(0.3), dtype=torch.float64, generator=generator)
    with torch.no_grad():
        net.bias.uniform_(0.04, 0.06, generator=generator)
        net.w_in.mul_(0.01)
        net.w_rec.mul_(0.02)
    t_end, frequency = 40.0, 1 / 25.0
    phase, a_fast, readout = _qif_by_dop853(net, frequency, t_end)
    assert phase.min() > 1.0  # every neuron has spiked
    errors, steps = [], (400, 800, 1600, 3200)
    for n_steps in steps:
        dt = t_end / n_steps
        middle = (torch.arange(n_steps, dtype=torch.float64) + 0.5) * dt
        u = torch.sin(2 * torch.pi * frequency * middle)[:, None, None]
        sol = adjsnn.solve(net, u, dt=dt, kernels=kernels)
        found = sol.v[-1, 0] + sol.crossings.sum(0)[0]
        parts = ((found, phase), (sol.a_fast[-1, 0], a_fast), (sol.readout[-1, 0], readout))
        errors.append([float((x.detach() - torch.as_tensor(y)).norm()) for x, y in parts])
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(np.abs(slopes[-1] - 1.0) < 0.1), slopes  # 0.1: the next order, at the two finest steps
    assert np.all(np.array(errors[-1]) < 0.02), errors


@pytest.mark.parametrize("steps_in_zone", [0.2, 0.5, 1, 3, 20])
@pytest.mark.parametrize("gate", ["rectangular", "raised_cosine"])
@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_a_full_crossing_delivers_unit_charge_nif(gate, steps_in_zone, direction, kernels):
    width = 0.1
    shape = type(GATES[gate])(width)
    net = adjsnn.GatedSynapseNetwork(0, 1, 1, neuron=adjsnn.NIF(), gate=shape, dtype=torch.float64)
    per_step = width / steps_in_zone
    with torch.no_grad():
        net.w_rec.zero_()
        net.bias.fill_(direction * per_step / 0.1)
    turns = 3
    n_steps = math.ceil((turns + 0.3) / per_step)
    sol = adjsnn.solve(net, torch.zeros(n_steps, 1, 0, dtype=torch.float64), dt=0.1, kernels=kernels)
    at_spikes = sol.charge.cumsum(0)[:, 0, 0][sol.crossings[:, 0, 0] != 0].detach()
    expected = direction * torch.arange(1.0, len(at_spikes) + 1, dtype=torch.float64)
    assert len(at_spikes) >= turns
    torch.testing.assert_close(at_spikes, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("neuron", "steps_in_zone"),
    # A QIF phase cannot be carried through a cycle in steps as long as 0.2 of the zone would need.
    [("lif", 0.2), ("lif", 1), ("lif", 5), ("lif", 20), ("qif", 0.5), ("qif", 1), ("qif", 5), ("qif", 20)],
)
def test_a_full_crossing_delivers_unit_charge(neuron, steps_in_zone, kernels):
    gate = adjsnn.RaisedCosineGate(0.1)
    net = adjsnn.GatedSynapseNetwork(
        0, 1, 1, neuron=MEMBRANES[neuron], gate=gate, tau_fast=10.0, tau_slow=20.0, dtype=torch.float64
    )
    speed = {"lif": (3.0 - 1.0) / 20.0, "qif": 2.0 / 25.0}[neuron]  # at the threshold, 1/ms
    dt = 0.1 / speed / steps_in_zone
    with torch.no_grad():
        net.w_rec.zero_()
        net.bias.fill_({"lif": 3.0, "qif": 0.05}[neuron])
    n_steps = int(100.0 / dt)
    sol = adjsnn.solve(net, torch.zeros(n_steps, 1, 0, dtype=torch.float64), dt=dt, kernels=kernels)
    spiked = sol.crossings[:, 0, 0] != 0
    assert int(spiked.sum()) >= 2
    outside = sol.v[1:, 0, 0] < 0.9
    count = sol.crossings[:, 0, 0].cumsum(0)[spiked & outside].double()
    torch.testing.assert_close(sol.charge.cumsum(0)[:, 0, 0][spiked & outside].detach(), count, rtol=0, atol=1e-12)


def test_falling_back_through_the_zone_takes_charge_back(kernels):
    net = adjsnn.GatedSynapseNetwork(1, 1, 1, neuron=adjsnn.NIF(), gate=adjsnn.RaisedCosineGate(0.2), dtype=torch.float64)
    with torch.no_grad():
        net.w_rec.zero_()
        net.w_in.fill_(1.0)
    up = torch.full((95, 1, 1), 0.1, dtype=torch.float64)
    sol = adjsnn.solve(net, torch.cat([up, -up]), dt=0.1, kernels=kernels)
    assert len(sol.spikes) == 0
    x = (0.95 - 0.8) / 0.2  # where the zone is left half-crossed
    released = x - math.sin(2 * math.pi * x) / (2 * math.pi)
    assert float(sol.charge[:95].sum().detach()) == pytest.approx(released, abs=1e-12)
    assert float(sol.charge.sum().detach()) == pytest.approx(0.0, abs=1e-12)


def test_spike_times_are_located_inside_the_step(kernels):
    """A NIF neuron with constant current b crosses at k/b exactly, whatever the step."""
    rates = torch.tensor([0.0731, -0.113], dtype=torch.float64)
    net = adjsnn.GatedSynapseNetwork(0, 2, 1, neuron=adjsnn.NIF(), dtype=torch.float64)
    with torch.no_grad():
        net.w_rec.zero_()
        net.bias.copy_(rates)
    sol = adjsnn.solve(net, torch.zeros(200, 1, 0, dtype=torch.float64), dt=0.37, kernels=kernels)
    events = sol.spikes.to_list()[0]
    expected = sorted((k / abs(float(r)), n) for n, r in enumerate(rates) for k in range(1, 20) if k / abs(float(r)) <= 74.0)
    assert [n for _, n in events] == [n for _, n in expected]
    np.testing.assert_allclose([t for t, _ in events], [t for t, _ in expected], rtol=1e-12)
    assert sol.spikes.sign[0].tolist() == [1 if n == 0 else -1 for _, n in events]
    assert sol.stats.min_speed_at_spike == pytest.approx(0.0731)


def test_several_turns_in_one_step_are_each_located_and_warned_of(kernels):
    net = adjsnn.GatedSynapseNetwork(0, 2, 1, neuron=adjsnn.NIF(), dtype=torch.float64)
    with torch.no_grad():
        net.w_rec.zero_()
        net.bias.copy_(torch.tensor([6.25, -6.25]))
    with pytest.warns(adjsnn.StepTooLongWarning, match="sample 0, neuron 0, t = 0.4 ms"):
        sol = adjsnn.solve(net, torch.zeros(4, 1, 0, dtype=torch.float64), dt=0.4, kernels=kernels)
    times = [t for t, n in sol.spikes.to_list()[0] if n == 0]
    np.testing.assert_allclose(times, 0.16 * np.arange(1, 11), rtol=1e-12)
    assert [t for t, n in sol.spikes.to_list()[0] if n == 1] == times
    assert float(sol.charge[:, 0, 0].sum().detach()) == pytest.approx(10.0, abs=1e-12)
    assert sol.stats.overlong_steps == 8


def test_lif_spikes_at_its_closed_form_rate(kernels):
    """Constant current I > 1: period τ ln((I - v_r)/(I - 1)); the reset's ρ keeps the Euler error first order."""
    net = adjsnn.GatedSynapseNetwork(0, 1, 1, neuron=adjsnn.LIF(tau_mem=20.0, v_reset=-0.3), dtype=torch.float64)
    with torch.no_grad():
        net.w_rec.zero_()
        net.bias.fill_(1.4)
    period = 20.0 * math.log((1.4 + 0.3) / (1.4 - 1.0))
    errors = []
    for dt in (0.2, 0.1, 0.05):
        sol = adjsnn.solve(net, torch.zeros(int(200 / dt), 1, 0, dtype=torch.float64), dt=dt, kernels=kernels)
        times = [t for t, _ in sol.spikes.to_list()[0]]
        errors.append(abs((times[-1] - times[0]) / (len(times) - 1) - period) / period)
    assert errors[0] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2.0, abs=0.1)
    assert errors[1] / errors[2] == pytest.approx(2.0, abs=0.1)


def test_counts_and_lists_agree_with_the_grid(kernels):
    net = adjsnn.GatedSynapseNetwork(0, 3, 1, neuron=adjsnn.NIF(), dtype=torch.float64)
    with torch.no_grad():
        net.w_rec.zero_()
        net.bias.copy_(torch.tensor([0.0, 0.21, -0.4]))
    sol = adjsnn.solve(net, torch.zeros(300, 2, 0, dtype=torch.float64), dt=0.1, kernels=kernels)
    assert torch.equal(sol.spikes.counts(), sol.crossings.abs().sum(0).long())
    assert len(sol.spikes) == sol.stats.spikes == int(sol.crossings.abs().sum())
    np.testing.assert_allclose(sol.spikes.to_dense(1.0).sum(0), sol.crossings.sum(0))


def test_a_silent_network_has_empty_trains(kernels):
    net = adjsnn.GatedSynapseNetwork(2, 3, 1, neuron=adjsnn.NIF())
    sol = adjsnn.solve(net, torch.zeros(10, 2, 2), dt=0.1, kernels=kernels)
    assert len(sol.spikes) == 0
    assert sol.spikes.to_list() == [[], []]
    assert sol.stats.min_speed_at_spike == math.inf
    assert sol.stats.grazing_samples == []


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "cost", "spikes"), [(0.05, 0.0021, 3148), (0.1, 0.0018, 1513), (0.3, 0.0014, 485)])
def test_the_tightly_balanced_network_needs_no_training(scale, cost, spikes, kernels):
    """The known solution of predictive coding: relative cost and spikes of 30 NIF neurons in 300 ms, mean over 64 signals.

    The signals' amplitude and bandwidth are those of `random_sinusoids`' defaults, with the amplitude set over the window.
    """
    dt, batch = 0.02, 64
    generator = torch.Generator().manual_seed(0)
    u = random_sinusoids(15_000, batch, 2, dt, generator=generator, dtype=torch.float64)
    u = u * (adjsnn.signals.MEAN_NORM / u.norm(dim=2).mean(0))[:, None]
    net = adjsnn.GatedSynapseNetwork(
        2,
        30,
        2,
        neuron=adjsnn.NIF(),
        gate=adjsnn.RaisedCosineGate(0.1),
        tau_fast=1.0,
        tau_slow=10.0,
        dtype=torch.float64,
    )
    target = lowpass(u, dt, 10.0)
    with torch.no_grad():
        sol = adjsnn.solve(tightly_balanced(net, scale), u, dt=dt, kernels=kernels)
    relative = (sol.readout - target).square().sum((0, 2)) / target.square().sum((0, 2))
    assert float(relative.mean()) == pytest.approx(cost, rel=0.1)
    assert len(sol.spikes) / batch == pytest.approx(spikes, rel=0.02)


def test_without_recurrence_the_balanced_network_overshoots_fifteenfold(kernels):
    """W_out W_in = N/2: the readout is 15 times the target, so the relative cost is 14² = 196."""
    dt = 0.05
    u = random_sinusoids(6000, 8, 2, dt, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    net = adjsnn.GatedSynapseNetwork(2, 30, 2, neuron=adjsnn.NIF(), tau_fast=1.0, tau_slow=10.0, dtype=torch.float64)
    with torch.no_grad():
        tightly_balanced(net, 0.1).w_rec.zero_()
        cost = adjsnn.losses.normalised_cost(adjsnn.solve(net, u, dt=dt, kernels=kernels), lowpass(u, dt, 10.0))
    assert float(cost) == pytest.approx(196.0, rel=0.01)

"""Gated networks as hybrid systems: adaptive accuracy, and the general adjoints beside the hand-written one."""

import numpy as np
import pytest
import torch
from networks import MEMBRANES, relative
from scipy.integrate import solve_ivp

import adjsnn
from gated.test_forward import _qif_by_dop853


def _net(n_hidden=8):
    generator = torch.Generator().manual_seed(0)
    net = adjsnn.GatedSynapseNetwork(
        1, n_hidden, 2, gate=adjsnn.RaisedCosineGate(0.3), dtype=torch.float64, generator=generator
    )
    with torch.no_grad():
        net.bias.uniform_(0.04, 0.06, generator=generator)
        net.w_in.mul_(0.01)
        net.w_rec.mul_(0.02)
    return net


def _u(steps, batch=2):
    return torch.randn(steps, batch, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dopri5", "tsit5"])
def test_adaptive_steps_reach_dop853_through_every_turn(method):
    net = _net()
    phase, a_fast, readout = _qif_by_dop853(net, 0.0, 40.0)
    assert phase.min() > 1.0
    form = adjsnn.ChargeForm(net)
    ts = torch.tensor([0.0, 40.0], dtype=torch.float64)
    with torch.no_grad():
        sol = adjsnn.solve(form, torch.zeros(1, 1, 1, dtype=torch.float64), ts=ts, method=method, rtol=1e-11, atol=1e-11)
        state = form.state(sol.y[-1, 0])
    for found, expected in ((state.v, phase), (state.a_fast, a_fast), (sol.readout[-1, 0], readout)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", ["euler", "heun", "rk4"])
def test_it_is_the_network(method):
    net, u = _net(), _u(120)
    with torch.no_grad():
        sol = adjsnn.solve(net, u, dt=0.5, method=method)
        smooth = adjsnn.solve(adjsnn.ChargeForm(net), u, dt=0.5, method=method)
    assert sol.stats.spikes > 10
    torch.testing.assert_close(smooth.readout, sol.readout, rtol=0, atol=1e-12)


def _gradients(system, u, loss, **options):
    net = system.net if isinstance(system, adjsnn.ChargeForm) else system
    leaves = [p for p in net.parameters() if p.requires_grad]
    return torch.autograd.grad(loss(adjsnn.solve(system, u, dt=0.5, **options)), [*leaves, u])


@pytest.mark.every(2)
@pytest.mark.parametrize("method", ["euler", "heun", "rk4"])
def test_the_general_adjoint_agrees_with_the_hand_written_one(method):
    net, u = _net(), _u(80).requires_grad_()

    def loss(sol):
        return sol.readout.square().sum()

    expected = _gradients(net, u, loss, method=method)
    found = _gradients(adjsnn.ChargeForm(net), u, loss, method=method)
    for x, y in zip(found, expected, strict=True):
        assert relative(x, y) <= 1e-10


@pytest.mark.slow
def test_forward_sensitivities_agree():
    net, u = _net(4), _u(40).requires_grad_()

    def loss(sol):
        return sol.readout.square().sum()

    expected = _gradients(net, u, loss, method="rk4")
    found = _gradients(adjsnn.ChargeForm(net), u, loss, method="rk4", adjoint=adjsnn.ForwardSensitivity())
    for x, y in zip(found, expected, strict=True):
        assert relative(x, y) <= 1e-9


@pytest.mark.slow
def test_the_continuous_adjoint_converges_to_the_discrete_one():
    """Steps of 2, 1 and 0.5 ms under one input held over 2 ms: the difference falls at the method's order, 2 for Heun."""
    net = _net(4)
    held = _u(20)
    differences = []
    for k in (1, 2, 4):
        u = held.repeat_interleave(k, dim=0)
        leaves = [p for p in net.parameters() if p.requires_grad]
        form = adjsnn.ChargeForm(net)
        pair = []
        for adjoint in (adjsnn.DiscreteAdjoint(), adjsnn.ContinuousAdjoint(method="heun")):
            sol = adjsnn.solve(form, u, dt=2.0 / k, method="heun", adjoint=adjoint)
            pair.append(torch.autograd.grad(sol.readout[-1].square().sum(), leaves))
        differences.append(max(relative(x, y) for x, y in zip(*pair, strict=True)))
    slopes = np.log2(np.array(differences[:-1]) / np.array(differences[1:]))
    assert np.all(slopes > 1.5), differences


class SmoothGate(adjsnn.Gate):
    """Density 630 x⁴(1 - x)⁴, with three derivatives that vanish at the edges of the zone; the raised cosine's has one."""

    vanishes_at_edges = True

    def cumulative(self, x):
        return x**5 * (126.0 - x * (420.0 - x * (540.0 - x * (315.0 - x * 70.0))))

    def density(self, x):
        return 630.0 * (x * (1.0 - x)) ** 4


def _through_resets(neuron, n_hidden=6, seed=1, gate=adjsnn.RaisedCosineGate):
    """A network whose neurons spike at different times, coupled, with everything learnable."""
    generator = torch.Generator().manual_seed(seed)
    net = adjsnn.GatedSynapseNetwork(
        1,
        n_hidden,
        2,
        neuron=MEMBRANES[neuron],
        gate=gate(0.3),
        learn=("weights", "bias", "tau_fast", "tau_slow", *MEMBRANES[neuron].constants),
        dtype=torch.float64,
        generator=generator,
    )
    with torch.no_grad():
        if neuron == "lif":
            net.bias.uniform_(1.3, 2.0, generator=generator)
        else:
            net.bias.copy_(torch.linspace(-0.12, 0.15, n_hidden))
            net.w_rec.mul_(0.1)
        net.w_in.mul_(0.1)
    return net


def _by_dop853(net, t_end, drive):
    """State and spikes, (time, neuron, sign), at t_end by SciPy from reset to reset, from rest, under a constant input."""
    w_in, w_rec, bias = (x.detach().numpy() for x in (net.w_in, net.w_rec, net.bias))
    n, width, two_sided = net.n_hidden, net.gate.width, net.neuron.two_sided
    tau_fast, tau_slow = float(net.tau_fast.detach()), float(net.tau_slow.detach())
    constants = {k: float(x.detach()) for k, x in net.tensors().constants.items()}

    def charge(v):
        x = np.clip(((np.abs(v) if two_sided else v) - 1 + width) / width, 0, 1)
        return (np.sign(v) if two_sided else 1.0) * (x - np.sin(2 * np.pi * x) / (2 * np.pi))

    def right_hand_side(t, y):
        v, fast, slow = y[:n], y[n : 2 * n], y[2 * n :]
        a_fast, a_slow = fast + charge(v) / tau_fast, slow + charge(v) / tau_slow
        current = w_rec @ a_fast + w_in[:, 0] * drive + bias
        flow = current if two_sided else (current - v) / constants["tau_mem"]
        return np.concatenate([flow, -a_fast / tau_fast, -a_slow / tau_slow])

    def meets(k, sign):
        def event(t, y):
            return sign * y[k] - 1.0

        event.terminal, event.direction = True, 1.0
        return event

    sides = [(k, sign) for sign in ([1, -1] if two_sided else [1]) for k in range(n)]
    events, t, y, spikes = [meets(*side) for side in sides], 0.0, np.zeros(3 * n), []
    while t < t_end:
        found = solve_ivp(right_hand_side, (t, t_end), y, method="DOP853", rtol=1e-12, atol=1e-13, events=events, max_step=0.5)
        t, y = found.t[-1], found.y[:, -1].copy()
        for (k, sign), times in zip(sides, found.t_events, strict=True):
            if len(times):
                spikes.append((t, k, sign))
                y[k] = constants.get("v_reset", 0.0)
                y[n + k] += (sign - charge(y[k])) / tau_fast
                y[2 * n + k] += (sign - charge(y[k])) / tau_slow
    return y[:n], y[n : 2 * n] + charge(y[:n]) / tau_fast, y[2 * n :] + charge(y[:n]) / tau_slow, spikes


@pytest.mark.every(5)
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("method", ["dopri5", "tsit5"])
@pytest.mark.parametrize("neuron", ["lif", "nif"])
def test_adaptive_steps_reach_dop853_through_resets(neuron, method):
    net, t_end = _through_resets(neuron), 60.0
    *state, spikes = _by_dop853(net, t_end, 0.7)
    assert len(spikes) >= 12
    assert neuron == "lif" or {sign for *_, sign in spikes} == {1, -1}
    form, ts = adjsnn.ChargeForm(net), torch.tensor([0.0, t_end], dtype=torch.float64)
    with torch.no_grad():
        u = torch.full((1, 1, 1), 0.7, dtype=torch.float64)
        sol = adjsnn.solve(form, u, ts=ts, method=method, rtol=1e-10, atol=1e-10)
        found = form.state(sol.y[-1, 0])
    n = net.n_hidden
    assert [(int(k) % n, 1 if k < n else -1) for k in sol.event_index[0]] == [(k, sign) for _, k, sign in spikes]
    np.testing.assert_allclose(sol.event_times[0], [t for t, *_ in spikes], rtol=0, atol=1e-8)
    for x, y in zip(found, state, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-8)


def _trial(net, batch=2):
    u = _u(4, batch).requires_grad_()
    leaves = {name: x for name, x in net.named_parameters() if x.requires_grad} | {"u": u}
    return u, leaves, torch.tensor([0.0, 11.0, 20.0, 30.0, 36.0], dtype=torch.float64)


def _through(net, adjoint, tolerance=1e-10):
    u, leaves, ts = _trial(net)
    form = adjsnn.ChargeForm(net)
    sol = adjsnn.solve(form, u, ts=ts, method="dopri5", rtol=tolerance, atol=tolerance, adjoint=adjoint)
    loss = sol.readout.square().sum() + form.state(sol.y).v.square().sum()
    return sol, dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("neuron", ["lif", pytest.param("nif", marks=pytest.mark.slow)])
def test_discrete_equals_backpropagation_through_resets(neuron):
    net = _through_resets(neuron)
    sol, found = _through(net, None, 1e-6)
    assert (sol.event_index >= 0).sum() >= 10
    _, judge = _through(net, adjsnn.BPTT(), 1e-6)
    for name in judge:
        assert relative(found[name], judge[name]) <= 1e-10, name


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("neuron", ["lif", "nif"])
def test_both_adjoints_reach_the_network_stepped_finely(neuron):
    """Against the hand-written adjoint of 7200 RK4 steps with resets inside them: another program and another derivation."""
    net = _through_resets(neuron)
    u, leaves, ts = _trial(net)
    dt = 0.005
    counts = (ts.diff() / dt).round().long()
    sol = adjsnn.solve(net, u.repeat_interleave(counts, dim=0), dt=dt, method="rk4")
    at = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    loss = sol.readout[at].square().sum() + sol.v[at].square().sum()
    judge = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    for adjoint in (None, adjsnn.ContinuousAdjoint(method="dopri5")):
        _, found = _through(net, adjoint)
        for name, value in judge.items():
            # RK4's own error at this step; it falls by 16 at half of it.
            assert relative(found[name], value) <= 1e-6, name


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
@pytest.mark.parametrize("neuron", ["lif", "nif"])
def test_the_costate_equations_converge_at_the_order_of_their_steps(neuron, method, order):
    """(1.7)-(1.12) on steps of 0.4, 0.2 and 0.1 ms beside the discrete gradient at a tolerance of 1e-12, through every reset.

    With the raised cosine RK4's slopes are nearer to 3: the second derivative of g, which the costate's equation sees, jumps at
    the edges of the zone.
    """
    net = _through_resets(neuron, gate=SmoothGate)
    _, judge = _through(net, None, 1e-12)
    errors = []
    for dt in (0.4, 0.2, 0.1):
        _, found = _through(net, adjsnn.ContinuousAdjoint(method=method, dt=dt), 1e-12)
        errors.append(max(relative(found[name], judge[name]) for name in judge))
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    print(f"{neuron} {method}: slopes {slopes.round(2)}, errors {errors}")
    # Where the zone's edges fall in their steps changes the constant: single slopes scatter, the halvings together less.
    assert slopes.mean() > order - 0.3, (slopes, errors)


@pytest.mark.parametrize("system", [None, 3])
def test_only_gated_networks_have_a_charge_form(system):
    with pytest.raises(adjsnn.ConfigurationError, match="expected a GatedSynapseNetwork"):
        adjsnn.ChargeForm(system)


def test_adaptive_methods_for_the_network_itself_point_here():
    with pytest.raises(adjsnn.ConfigurationError, match="ChargeForm"):
        adjsnn.solve(_net(), _u(5), dt=0.5, method="dopri5")
    with pytest.raises(adjsnn.ConfigurationError, match="ChargeForm"):
        adjsnn.solve(_net(), _u(5), dt=0.5, adjoint=adjsnn.ContinuousAdjoint())

"""QIF networks as smooth systems: adaptive accuracy, and the adjoints for smooth systems beside the hand-written one."""

import numpy as np
import pytest
import torch
from networks import GATES, MEMBRANES, random_network, relative
from test_forward import _qif_by_dop853

import adjsnn


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


@pytest.mark.parametrize("method", ["euler", "heun", "rk4"])
def test_the_general_adjoint_agrees_with_the_hand_written_one(method):
    net, u = _net(), _u(80).requires_grad_()

    def loss(sol):
        return sol.readout.square().sum()

    expected = _gradients(net, u, loss, method=method)
    found = _gradients(adjsnn.ChargeForm(net), u, loss, method=method)
    for x, y in zip(found, expected, strict=True):
        assert relative(x, y) <= 1e-10


def test_forward_sensitivities_agree():
    net, u = _net(4), _u(40).requires_grad_()

    def loss(sol):
        return sol.readout.square().sum()

    expected = _gradients(net, u, loss, method="rk4")
    found = _gradients(adjsnn.ChargeForm(net), u, loss, method="rk4", adjoint=adjsnn.ForwardSensitivity())
    for x, y in zip(found, expected, strict=True):
        assert relative(x, y) <= 1e-9


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


@pytest.mark.parametrize("neuron", ["nif", "lif"])
def test_membranes_that_jump_are_refused(neuron):
    with pytest.raises(adjsnn.ConfigurationError, match="QIF neurons: other membranes jump"):
        adjsnn.ChargeForm(random_network(MEMBRANES[neuron], GATES["raised_cosine"], seed=0))


def test_adaptive_methods_for_the_network_itself_point_here():
    with pytest.raises(adjsnn.ConfigurationError, match="ChargeForm"):
        adjsnn.solve(_net(), _u(5), dt=0.5, method="dopri5")
    with pytest.raises(adjsnn.ConfigurationError, match="ChargeForm"):
        adjsnn.solve(_net(), _u(5), dt=0.5, adjoint=adjsnn.ContinuousAdjoint())

"""Synapses with delays: against event-exact LIF networks, jumps without delay, and central differences."""

from typing import Any

import pytest
import torch
from torch import Tensor

import adjsnn

F64 = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def lif_pair(delays: Tensor) -> tuple[adjsnn.LIFNetwork, adjsnn.Equations]:
    """Three neurons that fire by themselves, and two that listen, as layers and as one system of equations."""
    learn = ("weights", "bias", "delays")
    both = torch.ones(3, 3, dtype=F64), delays
    net = adjsnn.LIFNetwork(3, (3, 2), tau_mem=10.0, tau_syn=4.0, bias=0.0, delays=both, learn=learn, dtype=F64)
    bias = torch.tensor([1.5, 1.7, 2.0], dtype=F64), torch.tensor([0.5, 0.7], dtype=F64)
    weights = 2.0 + 2.0 * random(2, 3)
    with torch.no_grad():
        for layer in range(2):
            net.bias[layer].copy_(bias[layer])
        net.w_in[1].copy_(weights)
        assert net.delays is not None
        net.delays[1].copy_(delays)
    whole = torch.zeros(5, 5, dtype=F64)
    whole[3:, :3] = weights
    all_delays = torch.ones(5, 5, dtype=F64)
    all_delays[3:, :3] = delays
    equations = adjsnn.Equations(
        "dv/dt = (b - v + c)/10\ndc/dt = -c/4",
        threshold="v > 1",
        reset="v = 0",
        size=5,
        parameters={"b": torch.cat(bias), "W": whole, "d": all_delays},
        learn=("b", "W", "d"),
        synapses={"c": {"weight": "W", "delay": "d"}},
    )
    return net, equations


def test_against_event_exact_layers():
    """Times of spikes and their gradients by weights, delays and biases, of an exact solver that knows no steps."""
    net, equations = lif_pair(0.5 + 3.0 * random(2, 3, seed=1))
    silent = adjsnn.SpikeTrains.from_list([[]], n_neurons=3, t_max=60.0, dtype=F64)
    exact = adjsnn.solve(net, silent, t_end=60.0)
    steps = adjsnn.solve(
        equations, None, ts=[0.0, 60.0], method="dopri5", rtol=1e-10, atol=1e-12, y0=torch.zeros(1, 10, dtype=F64)
    )
    assert steps.stats.kernel == "fused"
    ours, weights = [], []
    for neuron in (3, 4):
        times = steps.event_times[0][steps.event_index[0] == neuron]
        trains = exact.layer_spikes[1]
        theirs = trains.time[0][trains.idx[0] == neuron - 3]
        assert len(theirs) > 4
        torch.testing.assert_close(times, theirs, rtol=0.0, atol=1e-7)  # tolerances of 1e-10 over some hundred steps
        ours.append(times)
        weights.append(theirs)
    scale = torch.arange(1.0, 1.0 + len(torch.cat(ours)), dtype=F64)
    (torch.cat(ours) * scale).sum().backward()
    (torch.cat(weights) * scale).sum().backward()
    assert net.delays is not None
    pairs = [
        (equations.W.grad[3:, :3], net.w_in[1].grad),
        (equations.d.grad[3:, :3], net.delays[1].grad),
        (equations.b.grad, torch.cat([net.bias[0].grad, net.bias[1].grad])),
    ]
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def recurrent(delay: Any, n: int = 3, **given: Any) -> adjsnn.Equations:
    return adjsnn.Equations(
        "dv/dt = (b - v + g)/tau\ndg/dt = -g/5\ndw/dt = -w/20",
        threshold="v > 1 + w",
        reset="v = 0; w += 0.1",
        size=n,
        parameters={"b": 1.2 + random(n), "W": 0.5 * random(n, n, seed=1) - 0.2, "d": delay, "tau": 10.0},
        learn=("b", "W", "d", "tau"),
        synapses={"g": {"weight": "W", "delay": "d"}},
        dtype=F64,
        **given,
    )


OPTIONS: dict[str, Any] = {"ts": torch.linspace(0.0, 40.0, 5), "method": "dopri5", "rtol": 1e-9, "atol": 1e-11}


def loss_of(sol: Any) -> Tensor:
    times = torch.where(sol.event_times.isfinite(), sol.event_times, 0.0)
    return (times * torch.arange(1.0, 1.0 + times.shape[1], dtype=F64)).sum() / 100.0 + sol.y.square().sum()


@pytest.mark.every(5)
@pytest.mark.parametrize("delay", [0.5 + 2.0 * random(3, 3), 1.5, 1.0 + random(3)], ids=["each", "one", "sources"])
@pytest.mark.parametrize("checkpoints", [None, "sqrt"])
def test_central_differences(delay: Any, checkpoints: Any):
    system = recurrent(delay)
    y0 = (0.5 * random(2, 9, seed=5)).requires_grad_()
    options = {**OPTIONS, "adjoint": adjsnn.DiscreteAdjoint(checkpoints=checkpoints)}
    sol = adjsnn.solve(system, None, **options, y0=y0)
    assert int((sol.event_index >= 0).sum()) > 15
    loss_of(sol).backward()
    for x in (y0, *system.parameters()):
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=F64)
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                x += sign * 1e-6 * direction
                other = adjsnn.solve(system, None, **options, y0=y0)
                x -= sign * 1e-6 * direction
            assert torch.equal(other.event_index, sol.event_index)
            values.append(float(loss_of(other)))
        assert x.grad is not None
        assert float((x.grad * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-6, rel=2e-6, abs=1e-5)


def test_no_delay_is_a_jump():
    """A delay of zero is W @ fired in the reset."""
    delayed = recurrent(0.0)
    at_once = adjsnn.Equations(
        "dv/dt = (b - v + g)/tau\ndg/dt = -g/5\ndw/dt = -w/20",
        threshold="v > 1 + w",
        reset="v = 0; w += 0.1; g += W @ fired",
        size=3,
        parameters={"b": delayed.b.detach(), "W": delayed.W.detach(), "tau": 10.0},
        learn=("b", "W", "tau"),
        dtype=F64,
    )
    y0 = 0.5 * random(2, 9, seed=5)
    gradients = []
    for system in (delayed, at_once):
        sol = adjsnn.solve(system, None, **OPTIONS, y0=y0)
        loss_of(sol).backward()
        gradients.append((sol, [getattr(system, x).grad for x in ("b", "W", "tau")]))
    (one, first), (other, second) = gradients
    torch.testing.assert_close(one.event_times, other.event_times, rtol=0.0, atol=1e-9)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


def test_what_cannot_be():
    with pytest.raises(adjsnn.ConfigurationError, match="names of states: v, g, w"):
        adjsnn.Equations("dv/dt = -v\ndg/dt = -g\ndw/dt = -w", synapses={"x": {"weight": "W", "delay": "d"}})
    system = recurrent(-1.0)
    with pytest.raises(adjsnn.ConfigurationError, match="delays ≥ 0"):
        adjsnn.solve(system, None, **OPTIONS, y0=torch.zeros(1, 9, dtype=F64))
    system = recurrent(1.0)
    for choice in ({"kernels": "plain"}, {"adjoint": adjsnn.BPTT()}, {"adjoint": adjsnn.ContinuousAdjoint()}):
        with pytest.raises(adjsnn.ConfigurationError, match="compiled loops alone"):
            adjsnn.solve(system, None, **OPTIONS, y0=torch.zeros(1, 9, dtype=F64), **choice)


def test_what_arrives_must_not_raise_a_guard():
    system = adjsnn.Equations(
        "dv/dt = b - v",
        threshold="v > 1",
        reset="v = 0",
        size=2,
        parameters={"b": torch.tensor([1.5, 0.5], dtype=F64), "W": torch.full((2, 2), 2.0, dtype=F64), "d": 0.5},
        synapses={"v": {"weight": "W", "delay": "d"}},
        dtype=F64,
    )
    with pytest.raises(adjsnn.EventError, match="a packet that reached sample 0"):
        adjsnn.solve(system, None, ts=[0.0, 10.0], method="dopri5", y0=torch.zeros(1, 2, dtype=F64))

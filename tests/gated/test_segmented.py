"""Checkpoints of gated networks: the bits of the stored gradient, streamed inputs, a memory budget."""

import numpy as np
import pytest
import torch
from networks import DT, GATES, MEMBRANES, random_network, random_trial, relative

import adjsnn
from adjsnn import ConfigurationError, DiscreteAdjoint
from adjsnn.gated.cpu import loops as fused
from adjsnn.numerics.checkpoints import binomial_runs
from adjsnn.signals import Stream

STEPS, BATCH, HIDDEN, UNIT = 203, 3, 10, 10


@pytest.fixture(autouse=True)
def short_units(monkeypatch):
    """Units of ten steps, so that a trial of 203 has 21 of them."""
    monkeypatch.setattr(fused, "NEURON_STEPS", UNIT * BATCH * HIDDEN)


def _loss(sol):
    final = sum(x.square().sum() for x in sol.final_state)
    return sol.readout.square().sum() + final + adjsnn.losses.firing_rate(sol).square().mean() * 1e-3


def _gradients(net, u, y0, adjoint, method, inputs=None, loss=_loss):
    leaves = dict(net.named_parameters()) | y0._asdict() | ({"u": u} if inputs is None else {})
    sol = adjsnn.solve(net, u if inputs is None else inputs, dt=DT, y0=y0, adjoint=adjoint, method=method)
    found = torch.autograd.grad(loss(sol), list(leaves.values()), allow_unused=True, materialize_grads=True)
    return sol, dict(zip(leaves, found, strict=True))


@pytest.mark.every(5)
@pytest.mark.parametrize("checkpoints", ["sqrt", 1, 2, 4, 21, 100])
@pytest.mark.parametrize("neuron", MEMBRANES)
@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_checkpointed_gradients_are_the_same_bits(checkpoints, neuron, method):
    net = random_network(MEMBRANES[neuron], GATES["raised_cosine"], seed=0, n_hidden=HIDDEN)
    u, y0 = random_trial(net, seed=0, steps=STEPS, batch=BATCH)

    def loss(sol):
        return sol.readout.square().sum()

    stored, expected = _gradients(net, u, y0, None, method, loss=loss)
    sol, found = _gradients(net, u, y0, DiscreteAdjoint(checkpoints=checkpoints), method, loss=loss)
    assert torch.equal(sol.readout, stored.readout)
    assert all(torch.equal(x, y) for x, y in zip(sol.final_state, stored.final_state, strict=True))
    assert torch.equal(sol.spike_counts, stored.spikes.counts())
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    if isinstance(checkpoints, int):
        units = -(-STEPS // UNIT)
        assert sol.stats.recomputed_steps <= UNIT * binomial_runs(units, min(checkpoints, units))
    assert sol.stats.spikes == stored.stats.spikes


@pytest.mark.parametrize("neuron", MEMBRANES)
@pytest.mark.parametrize("method", ["euler", "heun"])
def test_every_output_carries_its_gradient(neuron, method):
    net = random_network(MEMBRANES[neuron], GATES["raised_cosine"], seed=1, n_hidden=HIDDEN)
    u, y0 = random_trial(net, seed=1, steps=60, batch=BATCH)
    _, expected = _gradients(net, u, y0, None, method)
    _, found = _gradients(net, u, y0, DiscreteAdjoint(checkpoints=3), method)
    for name, value in expected.items():  # the same program; the spike count's cotangent enters by another way
        assert relative(found[name], value) <= 1e-10, name


def test_streams_from_functions_and_files(tmp_path):
    net = random_network(MEMBRANES["qif"], GATES["raised_cosine"], seed=0, n_hidden=HIDDEN)
    u, y0 = random_trial(net, seed=0, steps=STEPS, batch=BATCH)
    values = u.detach().numpy()
    np.save(tmp_path / "u.npy", values)
    pieces = []

    def source(start, stop):
        pieces.append((start, stop))
        return values[start:stop]

    _, expected = _gradients(net, u, y0, DiscreteAdjoint(checkpoints="sqrt"), "euler")
    for stream in (Stream(source, steps=STEPS), Stream(np.load(tmp_path / "u.npy", mmap_mode="r"))):
        _, found = _gradients(net, u, y0, None, "euler", inputs=stream)
        assert all(torch.equal(found[name], expected[name]) for name in found)
    assert max(stop - start for start, stop in pieces) == UNIT


def test_a_memory_budget_chooses():
    net = random_network(MEMBRANES["qif"], GATES["raised_cosine"], seed=0, n_hidden=HIDDEN)
    u, _ = random_trial(net, seed=0, steps=STEPS, batch=BATCH)
    u = u.detach()
    plenty = adjsnn.solve(net, u, dt=DT, adjoint=DiscreteAdjoint(memory_mb=1.0))
    assert isinstance(plenty, adjsnn.GatedSolution)
    tight = adjsnn.solve(net, u, dt=DT, adjoint=DiscreteAdjoint(memory_mb=0.015))
    assert isinstance(tight, adjsnn.CheckpointedSolution)
    assert tight.stats.stored_bytes <= 0.015e6
    assert torch.equal(tight.readout, plenty.readout)
    with pytest.raises(ConfigurationError, match=r"memory_mb=0.001; expected at least 0.0"):
        adjsnn.solve(net, u, dt=DT, adjoint=DiscreteAdjoint(memory_mb=0.001))


def test_trajectories_are_not_kept_and_say_so():
    net = random_network(MEMBRANES["nif"], GATES["raised_cosine"], seed=0, n_hidden=HIDDEN)
    u, _ = random_trial(net, seed=0, steps=20, batch=BATCH)
    sol = adjsnn.solve(net, u, dt=DT, adjoint=DiscreteAdjoint(checkpoints="sqrt"))
    with pytest.raises(ConfigurationError, match=r"sol.v of a solve with checkpoints.*spike_counts"):
        _ = sol.v
    with pytest.raises(AttributeError):
        _ = sol.voltage


def test_divergence_in_a_late_unit_names_its_time():
    net = random_network(MEMBRANES["nif"], GATES["raised_cosine"], seed=0, n_hidden=HIDDEN)
    u, _ = random_trial(net, seed=0, steps=60, batch=BATCH)
    u = u.detach()
    u[45, 2] = 1e9
    with pytest.raises(adjsnn.IntegrationError, match=r"sample 2, neuron 0, t = 23 ms \(step 46"):
        adjsnn.solve(net, u, dt=DT, adjoint=DiscreteAdjoint(checkpoints="sqrt"))


def test_units_run_again_with_the_parameters_of_the_solve():
    net = random_network(MEMBRANES["nif"], GATES["raised_cosine"], seed=0, n_hidden=HIDDEN)
    u, _ = random_trial(net, seed=0, steps=60, batch=BATCH)
    losses = [adjsnn.solve(net, u, dt=DT, adjoint=DiscreteAdjoint(checkpoints="sqrt")).readout.sum() for _ in range(2)]
    (expected,) = torch.autograd.grad(losses[0], net.w_rec)
    with torch.no_grad():
        net.w_rec.add_(1.0)
    losses[1].backward()
    assert torch.equal(net.w_rec.grad, expected)


BAD = {
    "checkpoints of a wrong kind": (lambda net, u: DiscreteAdjoint(checkpoints="cube"), "checkpoints='cube'"),
    "no states": (lambda net, u: DiscreteAdjoint(checkpoints=0), "checkpoints=0"),
    "both": (lambda net, u: DiscreteAdjoint(checkpoints=3, memory_mb=1.0), "one of the two"),
    "no memory": (lambda net, u: DiscreteAdjoint(memory_mb=-1.0), "memory_mb=-1.0"),
    "stream with BPTT": (
        lambda net, u: adjsnn.solve(net, Stream(u.numpy()), dt=DT, adjoint=adjsnn.BPTT()),
        "an adjoint that keeps checkpoints",
    ),
    "stream of other channels": (lambda net, u: adjsnn.solve(net, Stream(np.zeros((5, 1, 3))), dt=DT), "3 channels"),
    "stream with a gap": (lambda net, u: adjsnn.solve(net, Stream(np.full((5, 1, 2), np.nan)), dt=DT), "step 0"),
    "stream of two dimensions": (lambda net, u: Stream(np.zeros((5, 2))), r"\(5, 2\)"),
    "function without steps": (lambda net, u: Stream(lambda a, b: u[a:b]), "steps=None"),
    "function of changing shape": (
        lambda net, u: adjsnn.solve(net, Stream(lambda a, b: u[: b - a, : 1 + (a == 0)], steps=25), dt=DT),
        "a piece of shape",
    ),
    "neither": (lambda net, u: Stream(3.0), "type float"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, message = BAD[case]
    net = random_network(MEMBRANES["nif"], GATES["raised_cosine"], seed=0, n_hidden=HIDDEN)
    u, _ = random_trial(net, seed=0, steps=25, batch=BATCH)
    with pytest.raises(ConfigurationError, match=message):
        call(net, u.detach())

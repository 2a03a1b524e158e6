"""Checkpoints of gated networks that run by torch operations: the bits of the stored gradient, and the steps of the plan."""

import warnings
import weakref

import pytest
import torch
from networks import DT, GATES, MEMBRANES, random_network, random_trial

import adjsnn
from adjsnn import DiscreteAdjoint
from adjsnn.gated import program as gated_program
from adjsnn.gated import segmented
from adjsnn.gated.cpu import loops as fused
from adjsnn.numerics.checkpoints import binomial_runs, kept_on_the_way
from adjsnn.signals import Stream

BATCH, HIDDEN, UNIT, UNITS = 3, 7, 5, 9
STEPS = UNIT * UNITS
STAGES = {"euler": 1, "heun": 2, "rk4": 4}
METHODS = list(STAGES)


class Cubic(adjsnn.Membrane):
    """f = I - a v³, a membrane that the library has not."""

    def __init__(self, decay: float = 0.05) -> None:
        super().__init__(decay=decay)

    def flow(self, v, current, c):
        return 0.05 * current - c["decay"] * v * v * v


class Square(adjsnn.Gate):
    """3x² on its zone; its density comes from autograd."""

    def cumulative(self, x):
        return x**3


PLAIN = {
    "own membrane and gate": {"neuron": Cubic(), "gate": Square(0.3)},
    "tau per neuron, nif": {"neuron": MEMBRANES["nif"], "tau_per_neuron": True},
    "tau per neuron, lif": {"neuron": MEMBRANES["lif"], "tau_per_neuron": True},
    "tau per neuron, qif": {"neuron": MEMBRANES["qif"], "tau_per_neuron": True},
    "kernels plain": {"neuron": MEMBRANES["lif"], "kernels": "plain"},
    "kernels backward": {"neuron": MEMBRANES["lif"], "kernels": "backward"},
}


def _network(case, seed=0, n_hidden=HIDDEN):
    options = dict(PLAIN[case])
    kernels = options.pop("kernels", "auto")
    net = random_network(
        options.pop("neuron"), options.pop("gate", GATES["raised_cosine"]), seed=seed, n_hidden=n_hidden, **options
    )
    if case.startswith("own"):
        with torch.no_grad():
            net.bias.fill_(3.0)  # spikes every few steps
    return net, kernels


def _short_units(monkeypatch, method, kernels):
    """Units of UNIT steps; under kernels="backward" the plain blocks inside them are shorter and do not divide them."""
    monkeypatch.setattr(fused, "NEURON_STEPS", UNIT * BATCH * HIDDEN)
    length = UNIT - 2 if kernels == "backward" else UNIT
    monkeypatch.setattr(gated_program, "BLOCK_ELEMENTS", length * BATCH * HIDDEN * STAGES[method])


def _readout_and_last_state(sol):
    return sol.readout.square().sum() + sum(x.square().sum() for x in sol.final_state)


def _gradients(net, u, y0, adjoint, inputs=None, loss=_readout_and_last_state, **options):
    leaves = dict(net.named_parameters()) | y0._asdict() | ({"u": u} if inputs is None else {})
    sol = adjsnn.solve(net, u if inputs is None else inputs, dt=DT, y0=y0, adjoint=adjoint, **options)
    found = torch.autograd.grad(loss(sol), list(leaves.values()), allow_unused=True, materialize_grads=True)
    return sol, dict(zip(leaves, found, strict=True))


@pytest.mark.every(5)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", PLAIN)
def test_checkpointed_gradients_are_the_same_bits(case, method, monkeypatch, unchecked_shapes):
    net, kernels = _network(case)
    _short_units(monkeypatch, method, kernels)
    u, y0 = random_trial(net, seed=0, steps=STEPS, batch=BATCH)
    stored, expected = _gradients(net, u, y0, None, method=method, kernels=kernels)
    assert stored.stats.spikes > 0
    # The root of 45 steps is 7.
    for checkpoints, slots in (("sqrt", 7), (1, 1), (3, 3)):
        sol, found = _gradients(net, u, y0, DiscreteAdjoint(checkpoints=checkpoints), method=method, kernels=kernels)
        assert isinstance(sol, adjsnn.CheckpointedSolution)
        assert torch.equal(sol.readout, stored.readout)
        assert all(torch.equal(x, y) for x, y in zip(sol.final_state, stored.final_state, strict=True))
        assert torch.equal(sol.spike_counts, stored.spikes.counts())
        assert sol.stats.overlong_steps == stored.stats.overlong_steps
        for name, value in expected.items():
            assert torch.equal(found[name], value), (name, checkpoints)
        # The first sweep runs on to the end, where the formula stops it at its last kept state.
        again = binomial_runs(UNITS, slots) - kept_on_the_way(UNITS, slots)[-1]
        assert sol.stats.recomputed_steps == UNIT * again


@pytest.mark.every(5)
@pytest.mark.parametrize(("batch", "n_hidden", "unit"), [(1, 33, 7), (3, 101, 13), (2, 257, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_odd_sizes_are_the_same_bits(method, dtype, batch, n_hidden, unit, monkeypatch, unchecked_shapes):
    """A matrix product rounds differently at another distance from a cache line's start; units are placed as in the whole."""
    monkeypatch.setattr(gated_program, "BLOCK_ELEMENTS", unit * batch * n_hidden * STAGES[method])
    net = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=0, n_hidden=n_hidden, tau_per_neuron=True).to(dtype)
    u, y0 = random_trial(net, seed=0, steps=3 * unit + 1, batch=batch)
    u, y0 = u.detach().to(dtype), adjsnn.GatedState(*(x.detach().to(dtype).requires_grad_() for x in y0))
    u.requires_grad_()
    _, expected = _gradients(net, u, y0, None, method=method)
    _, found = _gradients(net, u, y0, DiscreteAdjoint(checkpoints=2), method=method)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    values = u.detach().numpy()
    stream = Stream(lambda start, stop: values[start:stop], steps=len(values))
    _, found = _gradients(net, u, y0, DiscreteAdjoint(checkpoints=2), inputs=stream, method=method)
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.every(5)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", [name for name in PLAIN if name.startswith(("own", "tau"))])
def test_every_output_carries_its_gradient(case, method, monkeypatch, unchecked_shapes):
    def loss(sol):
        return _readout_and_last_state(sol) + (sol.spike_charge * torch.linspace(1.0, 2.0, HIDDEN)).square().sum()

    net, _ = _network(case, seed=1)
    _short_units(monkeypatch, method, "auto")
    u, y0 = random_trial(net, seed=1, steps=STEPS, batch=BATCH)
    _, expected = _gradients(net, u, y0, None, method=method, loss=loss)
    _, found = _gradients(net, u, y0, DiscreteAdjoint(checkpoints=3), method=method, loss=loss)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_second_backward_pass_makes_the_states_again(monkeypatch):
    net, _ = _network("tau per neuron, qif")
    _short_units(monkeypatch, "euler", "auto")
    u, y0 = random_trial(net, seed=0, steps=STEPS, batch=BATCH)
    sol = adjsnn.solve(net, u, dt=DT, y0=y0, adjoint=DiscreteAdjoint(checkpoints=4))
    loss = _readout_and_last_state(sol)
    first = torch.autograd.grad(loss, net.w_rec, retain_graph=True)[0]
    once = sol.stats.recomputed_steps
    assert torch.equal(torch.autograd.grad(loss, net.w_rec)[0], first)
    assert sol.stats.recomputed_steps == once + UNIT * kept_on_the_way(UNITS, 4)[-1]


def test_no_more_states_than_slots_are_alive(monkeypatch):
    """Counts the states that exist while the backward pass runs, those of the autograd node included."""
    net, _ = _network("tau per neuron, qif")
    _short_units(monkeypatch, "euler", "auto")
    u, y0 = random_trial(net, seed=0, steps=STEPS, batch=BATCH)
    seen, most = [], []
    run = segmented.Units.run

    def watched(self, unit, start):
        seen.append(weakref.ref(start.a_fast))
        most.append(len({id(x()) for x in seen} - {id(None)}))
        return run(self, unit, start)

    monkeypatch.setattr(segmented.Units, "run", watched)
    sol = adjsnn.solve(net, u, dt=DT, y0=y0, adjoint=DiscreteAdjoint(checkpoints=3))
    sol.readout.sum().backward()
    assert len(most) == UNITS + sol.stats.recomputed_steps // UNIT
    assert max(most) <= 3 + 1  # and the one that the run has come to


@pytest.mark.parametrize("method", METHODS)
def test_a_memory_budget_is_kept(method, monkeypatch):
    net, _ = _network("tau per neuron, lif")
    _short_units(monkeypatch, method, "auto")
    u, _ = random_trial(net, seed=0, steps=STEPS, batch=BATCH)
    stored = adjsnn.solve(net, u, dt=DT, method=method)
    assert isinstance(adjsnn.solve(net, u, dt=DT, method=method, adjoint=DiscreteAdjoint(memory_mb=1.0)), adjsnn.GatedSolution)
    for memory_mb in (0.008, 0.010, 0.012):
        sol = adjsnn.solve(net, u, dt=DT, method=method, adjoint=DiscreteAdjoint(memory_mb=memory_mb))
        assert isinstance(sol, adjsnn.CheckpointedSolution)
        assert sol.stats.stored_bytes <= memory_mb * 1e6 < stored.stats.stored_bytes
        assert torch.equal(sol.readout, stored.readout)
    with pytest.raises(adjsnn.ConfigurationError, match=r"memory_mb=0.001; expected at least 0.0"):
        adjsnn.solve(net, u, dt=DT, method=method, adjoint=DiscreteAdjoint(memory_mb=0.001))


@pytest.mark.slow
def test_streams_are_read_unit_by_unit(monkeypatch):
    net, _ = _network("own membrane and gate")
    _short_units(monkeypatch, "rk4", "auto")
    u, y0 = random_trial(net, seed=0, steps=STEPS, batch=BATCH)
    _, expected = _gradients(net, u, y0, DiscreteAdjoint(checkpoints="sqrt"), method="rk4")
    values, pieces = u.detach(), []

    def source(start, stop):
        pieces.append((start, stop))
        return values[start:stop] if start % 2 else values[start:stop].numpy()  # tensors and arrays alike

    _, found = _gradients(net, u, y0, None, inputs=Stream(source, steps=STEPS), method="rk4")
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert max(stop - start for start, stop in pieces) == UNIT


@pytest.mark.parametrize("method", ["euler", "rk4"])
@pytest.mark.parametrize(
    ("neuron", "tau_per_neuron", "kernels"), [("nif", True, "auto"), ("qif", False, "backward"), ("nif", False, "fused")]
)
def test_warnings_are_those_of_the_stored_run(neuron, tau_per_neuron, kernels, method, monkeypatch):
    net = random_network(MEMBRANES[neuron], GATES["raised_cosine"], seed=0, n_hidden=HIDDEN, tau_per_neuron=tau_per_neuron)
    _short_units(monkeypatch, method, kernels)
    u, _ = random_trial(net, seed=0, steps=STEPS, batch=BATCH)
    u = u.detach()
    u[17, 1], u[38, 2] = 80.0, -90.0  # through several thresholds in two units
    messages = []
    for adjoint in (None, DiscreteAdjoint(checkpoints=3)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sol = adjsnn.solve(net, u, dt=DT, adjoint=adjoint, method=method, kernels=kernels)
            sol.readout.sum().backward()
        assert [w.category for w in caught] == [adjsnn.StepTooLongWarning]
        messages.append(str(caught[0].message))
    assert "sample 1" in messages[0]
    assert messages[0] == messages[1]
    assert messages[0].startswith(f"{sol.stats.overlong_steps} steps")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", ["tau per neuron, lif", "own membrane and gate", "kernels backward"])
def test_divergence_is_refused_as_in_the_stored_run(case, method, monkeypatch):
    net, kernels = _network(case)
    _short_units(monkeypatch, method, kernels)
    u, _ = random_trial(net, seed=0, steps=STEPS, batch=BATCH)
    u = u.detach()
    u[33, 2] = 1e300
    messages = []
    for adjoint in (None, DiscreteAdjoint(checkpoints=2)):
        with pytest.raises(adjsnn.IntegrationError, match=r"sample 2, neuron \d, t = 17 ms \(step 34") as caught:
            adjsnn.solve(net, u, dt=DT, adjoint=adjoint, method=method, kernels=kernels)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("case", ["tau per neuron, lif", "kernels plain", "kernels backward"])
def test_gradcheck_judges_checkpointed_gradients(case, monkeypatch):
    net, kernels = _network(case)
    _short_units(monkeypatch, "euler", "backward")
    u, y0 = random_trial(net, seed=0, steps=STEPS, batch=BATCH)
    kernels = "auto" if kernels == "backward" else kernels  # it compares the fused loops on plain states by itself
    adjoint = DiscreteAdjoint(checkpoints=3)
    report = adjsnn.gradcheck(
        net, u, _readout_and_last_state, against=("bptt",), dt=DT, y0=y0, adjoint=adjoint, kernels=kernels, verbose=False
    )
    assert "w_rec" in str(report)

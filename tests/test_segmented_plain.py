"""Checkpoints of gated networks that run by torch operations: the bits of the stored gradient, and the steps of the plan."""

import warnings

import numpy as np
import pytest
import torch
from networks import DT, GATES, MEMBRANES, random_network, random_trial, relative

import adjsnn
from adjsnn import DiscreteAdjoint
from adjsnn.adjoints.checkpoints import binomial_runs, kept_on_the_way
from adjsnn.integrate import gated_program
from adjsnn.kernels import fused
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
    net = random_network(options.pop("neuron"), options.pop("gate", GATES["raised_cosine"]), seed=seed, n_hidden=n_hidden, **options)
    if case.startswith("own"):
        with torch.no_grad():
            net.bias.fill_(3.0)  # spikes every few steps
    return net, kernels


def _short_units(monkeypatch, method, kernels):
    """Units of UNIT steps; under kernels="backward" the plain blocks inside them are shorter and do not divide them."""
    monkeypatch.setattr(fused, "BLOCK_ELEMENTS", UNIT * BATCH * HIDDEN)
    length = UNIT - 2 if kernels == "backward" else UNIT
    monkeypatch.setattr(gated_program, "BLOCK_ELEMENTS", length * BATCH * HIDDEN * STAGES[method])


def _readout_and_last_state(sol):
    return sol.readout.square().sum() + sum(x.square().sum() for x in sol.final_state)


def _gradients(net, u, y0, adjoint, inputs=None, loss=_readout_and_last_state, **options):
    leaves = dict(net.named_parameters()) | y0._asdict() | ({"u": u} if inputs is None else {})
    sol = adjsnn.solve(net, u if inputs is None else inputs, dt=DT, y0=y0, adjoint=adjoint, **options)
    found = torch.autograd.grad(loss(sol), list(leaves.values()), allow_unused=True, materialize_grads=True)
    return sol, dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize("checkpoints", ["sqrt", 1, 3, UNITS])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", PLAIN)
def test_checkpointed_gradients_are_the_same_bits(case, method, checkpoints, monkeypatch):
    net, kernels = _network(case)
    _short_units(monkeypatch, method, kernels)
    u, y0 = random_trial(net, seed=0, steps=STEPS, batch=BATCH)
    stored, expected = _gradients(net, u, y0, None, method=method, kernels=kernels)
    sol, found = _gradients(net, u, y0, DiscreteAdjoint(checkpoints=checkpoints), method=method, kernels=kernels)
    assert isinstance(sol, adjsnn.CheckpointedSolution)
    assert stored.stats.spikes > 0
    assert torch.equal(sol.readout, stored.readout)
    assert all(torch.equal(x, y) for x, y in zip(sol.final_state, stored.final_state, strict=True))
    assert torch.equal(sol.spike_counts, stored.spikes.counts())
    assert sol.stats.overlong_steps == stored.stats.overlong_steps
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    slots = UNITS if checkpoints == "sqrt" else checkpoints  # the root of 45 steps is 7, so UNITS or fewer
    slots = min(slots, 7) if checkpoints == "sqrt" else slots
    again = binomial_runs(UNITS, slots) - kept_on_the_way(UNITS, slots)[-1]
    assert sol.stats.recomputed_steps == UNIT * again

"""The fused loops beside the plain operations: same numbers to rounding, threads, the compiled code kept on disk."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from networks import DT, GATES, MEMBRANES, gradients, random_network, random_trial, relative

import adjsnn
from adjsnn import GatedState
from adjsnn.lif.flow import first_crossing, flow
from adjsnn.numerics.threads import run_groups

METHODS = ("euler", "heun", "rk4")


def _case(neuron, gate):
    """A network and trial that do not amplify rounding; 37 neurons are no multiple of a vector's width."""
    net = random_network(MEMBRANES[neuron], GATES[gate], seed=7, n_hidden=37)
    with torch.no_grad():
        net.bias.mul_(2.0)
        net.w_rec.mul_(0.2)  # QIF: a gain near 1 in units of 1/τ_v, and phases that always advance
        net.w_in.mul_(0.2)
    return net, *random_trial(net, seed=7, steps=40, batch=9)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("neuron", MEMBRANES)
@pytest.mark.parametrize("method", METHODS)
def test_fused_loops_compute_what_plain_operations_do(neuron, gate, method):
    net, u, y0 = _case(neuron, gate)
    expected, found = (gradients(net, u, y0, None, kernels=kernels, method=method) for kernels in ("plain", "fused"))
    for name, value in expected.items():
        assert relative(found[name], value) <= 1e-11, name  # 40 steps of float64 rounding; terms of the loss partly cancel
    assert not torch.equal(expected["w_rec"], found["w_rec"])  # they are two computations


@pytest.mark.parametrize("n_hidden", [1, 6, 37, 200])  # with rows left over from four at a time, and without
@pytest.mark.parametrize("gate", ["rectangular", "raised_cosine"])
@pytest.mark.parametrize("neuron", MEMBRANES)
def test_samples_multiplied_together_are_what_plain_operations_compute(neuron, gate, n_hidden):
    """In a zone as wide as the threshold most neurons are inside, so that Euler steps multiply W_rec as it is.

    Nine samples are two times four and one left over; some of them are far below the zone, and make mixed tiles.
    """
    wide = {"rectangular": adjsnn.RectangularGate, "raised_cosine": adjsnn.RaisedCosineGate}[gate](1.0)
    net = random_network(MEMBRANES[neuron], wide, seed=7, n_hidden=n_hidden)
    with torch.no_grad():
        net.bias.mul_(2.0)
        net.w_rec.mul_(0.2)
        net.w_in.mul_(0.2)
    u, y0 = random_trial(net, seed=7, steps=40, batch=9)
    if neuron == "lif":
        y0 = GatedState((y0.v.detach() - 5.0 * (torch.arange(9) > 6)[:, None]).requires_grad_(), *y0[1:])
    expected, found = (gradients(net, u, y0, None, kernels=kernels) for kernels in ("plain", "fused"))
    for name, value in expected.items():
        assert relative(found[name], value) <= 1e-11, name
    x = adjsnn.solve(net, u, dt=DT, y0=y0).v.detach()
    x = x.abs() if net.neuron.two_sided else x
    inside = ((x > 0.0) & (x < 1.0))[:, :4].double().mean((1, 2))  # of the first four samples
    assert float((inside > 0.5).double().mean()) > 0.8


@pytest.mark.every(5)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("neuron", MEMBRANES)
@pytest.mark.parametrize("method", ["euler", *(pytest.param(method, marks=pytest.mark.slow) for method in METHODS[1:])])
def test_fused_loops_are_as_accurate_in_float32(neuron, gate, method):
    net, u, y0 = _case(neuron, gate)
    exact = gradients(net, u, y0, None, kernels="plain", method=method)
    net, u = net.float(), u.detach().float().requires_grad_()
    y0 = GatedState(*(x.detach().float().requires_grad_() for x in y0))
    plain, fused = (gradients(net, u, y0, None, kernels=kernels, method=method) for kernels in ("plain", "fused"))
    for name, value in exact.items():
        error, usual = relative(fused[name].double(), value), relative(plain[name].double(), value)
        assert error <= 5 * usual + 1e-4, name  # one draw of rounding beside another; 1e-4 where plain is lucky


def test_fused_loops_refuse_what_they_do_not_cover():
    class Other(adjsnn.LIF):
        pass

    net = adjsnn.GatedSynapseNetwork(2, 3, 1, neuron=Other())
    with pytest.raises(adjsnn.ConfigurationError, match="membrane Other is not one of"):
        adjsnn.solve(net, torch.zeros(3, 1, 2), dt=0.1, kernels="fused")
    assert adjsnn.solve(net, torch.zeros(3, 1, 2), dt=0.1).stats.steps == 3


def test_the_number_of_threads_changes_rounding_only():
    net = random_network(MEMBRANES["qif"], GATES["raised_cosine"], seed=3, n_hidden=40)
    u, y0 = random_trial(net, seed=3, steps=300, batch=10)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            found.append(gradients(net, u, y0, None, lambda sol: sol.readout.square().sum(), kernels="fused"))
            again = gradients(net, u, y0, None, lambda sol: sol.readout.square().sum(), kernels="fused")
        finally:
            torch.set_num_threads(1)
        assert all(torch.equal(value, again[name]) for name, value in found[-1].items())
    assert torch.equal(found[0]["u"], found[1]["u"])  # no sum over samples
    assert relative(found[0]["w_rec"], found[1]["w_rec"]) <= 1e-12


def test_silent_channels_and_no_channels():
    for n_in in (0, 2):
        net = adjsnn.GatedSynapseNetwork(n_in, 5, 1, neuron=adjsnn.NIF(), dtype=torch.float64)
        with torch.no_grad():
            net.bias.fill_(0.3)
        u = torch.zeros(60, 2, n_in, dtype=torch.float64, requires_grad=True)
        expected, found = (
            torch.autograd.grad(adjsnn.solve(net, u, dt=0.1, kernels=k).readout.sum(), [net.w_in, net.bias, u])
            for k in ("plain", "fused")
        )
        for x, y in zip(found, expected, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-14)


def test_an_error_in_a_thread_is_raised():
    def work(k, first, last):
        if k == 5:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_groups(work, [(k, k + 1) for k in range(8)])


@pytest.mark.slow
def test_loops_stay_within_their_arrays():
    """Without the compiler the loops are Python, and an index out of bounds raises instead of reading what lies there."""
    code = """
import torch, adjsnn
torch.manual_seed(0)
cases = [(method, 0.1, 2) for method in ("euler", "heun", "rk4")] + [("euler", 0.1, 5), ("euler", 1.0, 5)]
for neuron in (adjsnn.NIF(), adjsnn.LIF(tau_mem=20.0, v_reset=-0.3), adjsnn.QIF()):
    for method, width, batch in cases:
        net = adjsnn.GatedSynapseNetwork(2, 3, 2, neuron=neuron, dtype=torch.float64, tau_fast=5.0,
                                         gate=adjsnn.RaisedCosineGate(width),
                                         learn=("weights", "bias", "tau_fast", "tau_slow", *neuron.constants))
        with torch.no_grad():
            net.bias.fill_({"NIF": 0.3, "LIF": 6.0, "QIF": 0.3}[type(neuron).__name__])
            net.w_in.mul_(0.1)
            net.w_rec.mul_(0.1)
        u = torch.randn(12, batch, 2, dtype=torch.float64, requires_grad=True)
        sol = adjsnn.solve(net, u, dt=0.5, method=method, kernels="fused")
        assert sol.stats.spikes > 0
        (sol.readout.sum() + sol.a_fast.sum() + sol.charge.abs().sum() + sol.v.sum()).backward()
"""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("taus", [(20.0, 5.0), (5.0, 20.0), (10.0, 10.0)])
def test_crossings_are_those_of_a_dense_record(taus):
    """At the first time at which v climbs at or above the threshold, and nowhere else; many searches are spared.

    By the plain search, and by the compiled one with the bound from both ends before it.
    """
    from adjsnn.lif.cpu import flow as lif_math  # noqa: PLC0415  loads the compiler

    random, found, ruled_out = np.random.default_rng(0), 0, 0
    for _ in range(3000):
        v, i, bias, span = random.uniform((-1.0, -4.0, -0.5, 0.1), (2.0, 8.0, 1.5, 40.0))
        t = np.linspace(0.0, span, 2000)
        record, current = flow(np.full(2000, v), np.full(2000, i), t, np.full(2000, bias), *map(np.array, taus))
        climbs = np.flatnonzero((np.diff(record) > 0.0) & (record[1:] >= 1.0))
        expected = t[climbs[0]] if len(climbs) else np.inf
        if (
            abs(i + bias - v) < 0.05
            or abs(record.max() - 1.0) < 1e-3
            or abs(record.min() - 1.0) < 1e-3
            or (len(climbs) and climbs[0] == len(t) - 2)
        ):
            continue  # what the record cannot tell
        may = lif_math.may_cross(v, i, record[-1], current[-1], bias, *taus, 1.0, span)
        plain = first_crossing(v, i, bias, *taus, 1.0, span)
        fused = lif_math.first_crossing(v, i, bias, *taus, 1.0, span, record[-1]) if may else np.inf
        for crossing in (plain, fused):
            assert crossing == expected or abs(crossing - expected) <= 1.001 * t[1], (v, i, bias, span)
        found += np.isfinite(expected)
        ruled_out += not may
    assert found > 200
    assert ruled_out > 200

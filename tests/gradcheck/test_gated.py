"""The gradient check: it passes what is right, on every built-in network, and fails what is wrong."""

import subprocess
import sys

import pytest
import torch
from networks import DT, GATES, MEMBRANES, random_loss, random_network, random_trial

import adjsnn
from adjsnn.gated import euler_adjoint as gated_euler
from adjsnn.gated.cpu import loops as fused
from adjsnn.gradcheck import probe
from adjsnn.gradcheck.__main__ import main

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


@pytest.mark.every(7)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("neuron", MEMBRANES)
@pytest.mark.parametrize("kernels", ["auto", pytest.param("plain", marks=pytest.mark.slow)])
def test_central_differences_with_equal_spikes(neuron, gate, kernels):
    net = random_network(MEMBRANES[neuron], GATES[gate], seed=5)
    u, y0 = random_trial(net, seed=5)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    report = adjsnn.gradcheck(net, u, random_loss, dt=DT, y0=y0, entries=4, verbose=False, kernels=kernels)
    assert report.spikes > 30
    for row in report.rows:
        assert row.bptt is not None
        assert row.bptt <= 1e-10, row
        assert row.finite_difference is not None, row
        assert row.finite_difference <= 1e-6, row
        assert row.probed > row.skipped, row
    assert all(torch.equal(before[name], p) for name, p in net.named_parameters())


def test_a_spike_count_loss_has_a_gradient():
    net = random_network(MEMBRANES["qif"], GATES["raised_cosine"], seed=0)
    u, y0 = random_trial(net, seed=0)

    def loss(sol):
        return (adjsnn.losses.firing_rate(sol) / 50.0 - 1.0).square().mean()

    report = adjsnn.gradcheck(net, u, loss, dt=DT, y0=y0, entries=4, verbose=False)
    rows = {row.name: row for row in report.rows}
    assert rows["bias"].norm > 1e-3
    sol = adjsnn.solve(net, u, dt=DT, y0=y0)
    # Released charge counts spikes, up to the part of the last crossing that is under way.
    assert (adjsnn.losses.spike_count(sol) - sol.spikes.counts()).abs().max() < 1.5


def test_a_wrong_adjoint_is_caught(monkeypatch):
    net = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=0)
    u, y0 = random_trial(net, seed=0)
    right = gated_euler.EulerSweep._reset_factors

    def without_the_dependence_of_rho_on_the_current(self, trajectory, start, stop):
        factors = right(self, trajectory, start, stop)
        return factors._replace(d_current=torch.zeros_like(factors.d_current))

    monkeypatch.setattr(gated_euler.EulerSweep, "_reset_factors", without_the_dependence_of_rho_on_the_current)
    with pytest.raises(adjsnn.GradientCheckError, match="from BPTT, allowed 1e-10"):
        adjsnn.gradcheck(net, u, random_loss, against=("bptt",), dt=DT, y0=y0, verbose=False, kernels="plain")
    with pytest.raises(adjsnn.GradientCheckError, match="from central differences, allowed 1e-06"):
        adjsnn.gradcheck(
            net, u, random_loss, against=("finite_difference",), dt=DT, y0=y0, entries=1, verbose=False, kernels="plain"
        )


def test_float32_networks_are_checked_in_float64(capsys):
    net = random_network(MEMBRANES["nif"], GATES["raised_cosine"], seed=0).float()
    u, _ = random_trial(net.double(), seed=0)
    report = adjsnn.gradcheck(net.float(), u.float(), lambda sol: sol.readout.square().sum(), dt=DT, entries=2)
    assert net.w_in.dtype == torch.float32
    printed = capsys.readouterr().out
    assert str(report) in printed
    assert "w_rec" in printed
    assert "vs BPTT" in printed


@pytest.mark.every(3)
@pytest.mark.parametrize("neuron", ["nif", "lif", "qif"])
def test_the_command(neuron, capsys):
    assert main(["--neuron", neuron, "--steps", "100", "--hidden", "6"]) == 0
    assert "the adjoint agrees with every judge" in capsys.readouterr().out
    assert main(["--neuron", neuron, "--dt", "-1"]) == 1
    assert "dt=-1.0" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_as_a_module():
    command = [sys.executable, "-W", "error", "-m", "adjsnn.gradcheck", "--steps", "50", "--hidden", "4"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "agrees" in found.stdout


@pytest.mark.every(2)
@pytest.mark.parametrize("name", ["bias", "tau_fast", "w_rec"])
def test_a_gradient_that_is_wrongly_zero_is_caught(monkeypatch, name):
    """Central differences alone: a zero gradient must not make the judge so strict with itself that it skips every entry."""
    net = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=5)
    u, y0 = random_trial(net, seed=5, steps=100)
    right = fused.FusedSweep.finish

    def without_one(self, a_fast, a_slow):
        found, d_y0 = right(self, a_fast, a_slow)
        return {key: value * (key != name) for key, value in found.items()}, d_y0

    monkeypatch.setattr(fused.FusedSweep, "finish", without_one)
    with pytest.raises(adjsnn.GradientCheckError, match=f"{name}: 1.0e\\+00 from central differences"):
        adjsnn.gradcheck(net, u, random_loss, against=("finite_difference",), dt=DT, y0=y0, entries=4, verbose=False)


def test_what_no_difference_could_judge_is_no_success(monkeypatch):
    net = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=5)
    u, y0 = random_trial(net, seed=5, steps=60)
    monkeypatch.setattr(probe, "CONSISTENT", 0.0)  # no two quotients are ever the same number
    with pytest.raises(adjsnn.GradientCheckError, match=r"bias: none of \d entries could be judged"):
        adjsnn.gradcheck(net, u, random_loss, dt=DT, y0=y0, entries=3, verbose=False)

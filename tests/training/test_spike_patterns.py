"""Spike patterns: the targets are what they should be, every rule learns, and runs end with their numbers."""

import json
import sys
from pathlib import Path

import pytest
import torch

import adjsnn
from adjsnn.training import main

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import spike_patterns as sp

SMALL = {"inputs": 20, "outputs": 30}


def of(config):
    return sp.pattern_of(config, torch.Generator().manual_seed(0))


def test_trains_have_a_spike_in_each_part():
    pattern = of(sp.Many(**SMALL))
    assert (pattern.x.n_neurons, pattern.target.n_neurons, pattern.target.batch) == (20, 30, 1)
    assert pattern.target.counts().tolist() == [[5] * 30]
    for k in range(5):
        assert pattern.target.between(100.0 * k, 100.0 * (k + 1)).counts().tolist() == [[1] * 30]


def test_inputs_of_one_spike_come_in_a_row():
    pattern = of(sp.OneSpike(inputs=4, at=50.0))
    assert pattern.x.to_list() == [[(25.0, 0), (75.0, 1), (125.0, 2), (175.0, 3)]]
    assert pattern.target.to_list() == [[(50.0, 0)]]


def test_a_picture_has_its_rates():
    config = sp.Picture()
    image, target = sp.picture(config.outputs, round(config.t_end)), of(config).target
    expected = (config.dark + (config.bright - config.dark) * image.double()).sum(1) / 1000.0
    assert float((target.counts()[0] - expected).abs().max()) <= 1.0
    assert 20.0 < len(target) / (200 * 1.89) < 35.0  # about 27 spikes/s
    neuron, time, share = target.idx[0], target.time[0], float(image.mean())
    bright = image[neuron, time.long().clamp(max=1889)]
    assert float(bright.mean()) == pytest.approx(float(70 * share / (70 * share + 5 * (1 - share))), abs=0.02)
    lowest = time[neuron == 3]  # of the ground, bright throughout
    torch.testing.assert_close(lowest.diff(), torch.full_like(lowest[1:], 1000.0 / 70.0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("adjoint", ["superspike", "surrogate", "event"])
def test_one_step_of_each_rule_is_of_its_network(adjoint):
    experiment = sp.LearnOneTrain(sp.OneTrain(adjoint=adjoint, t_end=200.0, dtype="float64"))
    net = experiment.network().double()
    cost = experiment.cost(net, experiment.pattern)
    cost.value.backward()
    assert bool(net.w_in[0].grad.any())
    assert isinstance(cost.sol, adjsnn.LIFSolution) == (adjoint == "event")
    with torch.no_grad():
        found = experiment.evaluate(net, "validation")
    assert found["cost"] == pytest.approx(float(cost.value.detach()))
    assert (found["cost"] == found["exact_cost"]) == (adjoint == "event")


def test_weights_move_where_numbers_of_spikes_are_wrong():
    experiment = sp.LearnMany(sp.Many(**SMALL, hidden=10, wake=0.5))
    net = experiment.network()
    with torch.no_grad():
        net.w_in[0][0] = 0.0  # a silent neuron
    cost, before = experiment.cost(net, experiment.pattern), [w.clone() for w in net.w_in]
    experiment.after_step(net, experiment.pattern, cost, 0.1)
    sent = experiment.pattern.x.counts()[0] > 0
    moved = net.w_in[0] - before[0]
    torch.testing.assert_close(moved[0], 0.05 * sent.float())
    counts = [s.counts()[0] for s in cost.sol.layer_spikes]
    assert not bool(moved[counts[0] > 0].any())
    expected = 0.05 * (5 - counts[1]).sign()[:, None] * (counts[0] > 0)
    torch.testing.assert_close(net.w_in[1] - before[1], expected)


def test_hidden_neurons_may_stay_as_they_start():
    """With a rate of 0: neither the optimiser moves their weights, nor is a silent one woken."""
    experiment = sp.LearnMany(sp.Many(**SMALL, hidden=10, hidden_rate=0.0, wake=0.5))
    net = experiment.network()
    with torch.no_grad():
        net.w_in[0][0] = 0.0
    before = [w.clone() for w in net.w_in]
    optimiser, cost = experiment.optimiser(net), experiment.cost(net, experiment.pattern)
    cost.value.backward()
    optimiser.step()
    experiment.after_step(net, experiment.pattern, cost, 0.1)
    assert torch.equal(net.w_in[0], before[0])
    assert not torch.equal(net.w_in[1], before[1])


@pytest.mark.every(2)
@pytest.mark.parametrize("task", ["many", "one_spike", "picture", "one_train"])
def test_a_short_run(task, tmp_path):
    short = ["--task", task, "--iterations", "2", "--inputs", "30", "--runs", str(tmp_path)]
    small = {"many": ["--outputs", "8", "--hidden", "6"], "picture": ["--outputs", "10", "--hidden", "6", "--t-end", "200"]}
    assert main(*sp.KINDS, argv=[*short, *small.get(task, [])]) == 0
    (run,) = (tmp_path / "spike_patterns").iterdir()
    assert {path.stem for path in (run / "figures").iterdir()} == {"raster", "history"} | (
        {"events"} if task in small else set()
    )
    found = json.loads((run / "summary.json").read_text())
    assert found["held_out"]["cost"] > 0.0
    assert found["training"]["at_start"] > 0.0


@pytest.mark.slow
def test_superspike_learns_a_train(tmp_path):
    """In fewer steps than the default the distance falls to a third of that of silence."""
    argv = ["--iterations", "150", "--t-end", "200", "--spikes", "2", "--runs", str(tmp_path)]
    assert main(*sp.KINDS, argv=argv) == 0
    (summary,) = tmp_path.glob("spike_patterns/*/summary.json")
    assert json.loads(summary.read_text())["held_out"]["cost"] < 0.33


def test_a_spike_after_the_end_is_refused(tmp_path, capsys):
    assert main(*sp.KINDS, argv=["--task", "one_spike", "--at", "500", "--runs", str(tmp_path)]) == 1
    assert "t_end" in capsys.readouterr().err

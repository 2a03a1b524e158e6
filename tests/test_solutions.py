"""What losses and figures see of a solution is a face that every kind of network's has, a third kind's too."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from lif_networks import random_lif
from networks import DT, GATES, MEMBRANES, random_network, random_trial
from torch import Tensor

import adjsnn
from adjsnn import losses, plotting
from adjsnn.solutions import FirstSpikeSolution, ReadoutSolution, SpikingSolution, summed_errors

F64 = torch.float64


@dataclass(frozen=True)
class Figures:
    layer_spikes: tuple[int, ...]


@dataclass(frozen=True)
class Clockwork:
    """Of a third kind of network: neuron n of the one layer spikes once, at (n + 1) · 10 ms, as fast as n + 1 says."""

    ts: Tensor
    readout: Tensor
    time: Tensor
    t_end: float = 60.0

    @property
    def layer_spikes(self):
        idx = torch.arange(self.time.shape[1]).expand(self.time.shape)
        return [adjsnn.SpikeTrains(idx, self.time, self.time.shape[1], self.t_end)]

    @property
    def stats(self):
        return Figures((self.time.numel(),))

    def layer_counts(self, layer=-1):
        return self.layer_spikes[layer].counts()

    def layer_speeds(self, layer=-1):
        return torch.arange(1.0, 1.0 + self.time.shape[1]).repeat(len(self.time))

    def spike_count(self, layer=-1):
        return self.layer_counts(layer).double()

    def squared_errors(self, target):
        return summed_errors(self.readout, target)

    def first_spike_times(self, layer=-1):
        return self.time

    def voltage_max(self, layer=-1):
        return torch.ones_like(self.time)


def clockwork() -> Clockwork:
    time = (10.0 * torch.arange(1.0, 4.0, dtype=F64)).repeat(2, 1).requires_grad_()
    return Clockwork(torch.linspace(0.0, 60.0, 7, dtype=F64), torch.full((7, 2, 1), 3.0, dtype=F64), time)


def typed(sol: Clockwork) -> tuple[ReadoutSolution, SpikingSolution, FirstSpikeSolution]:
    return sol, sol, sol


def test_losses_take_a_third_kind():
    sol, target = clockwork(), torch.full((7, 2, 1), 2.0)
    assert float(losses.readout_mse(sol, target)) == 1.0
    assert float(losses.normalised_cost(sol, target)) == 0.25
    assert torch.equal(torch.ones(2, 3), losses.spike_count(sol).float())
    assert torch.equal(torch.full((2, 3), 1000.0 / 60.0, dtype=F64), losses.firing_rate(sol))
    assert torch.equal(torch.ones(2, 3, dtype=F64), losses.voltage_max(sol))
    assert torch.equal(torch.zeros(2, dtype=F64), losses.van_rossum(sol, sol.layer_spikes[0]).detach())
    late = sol.time.detach() + 3.0
    assert float(losses.first_spike_mse(sol, late).detach()) == pytest.approx(9.0)
    losses.first_spike_cross_entropy(sol, torch.tensor([0, 1])).backward()
    assert sol.time.grad is not None


def test_figures_take_a_third_kind():
    sol = clockwork()
    plotting.readout(sol, torch.zeros(7, 2, 1))
    axes = plotting.raster(sol)
    times = np.concatenate([points.get_offsets()[:, 0] for points in axes.collections])
    assert sorted(times.tolist()) == [10.0, 20.0, 30.0]
    events = plotting.event_diagnostics(sol)
    assert "0 of 3 silent" in events.axes[2].get_title(loc="left")


def solutions() -> dict[str, Any]:
    net = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=0)
    u, y0 = random_trial(net, seed=0)
    lif = random_lif(0)
    x = adjsnn.SpikeTrains.poisson(torch.full((3, 5), 60.0, dtype=F64), 60.0, generator=torch.Generator().manual_seed(3))
    return {
        "gated": adjsnn.solve(net, u, dt=DT, y0=y0),
        "checkpoints": adjsnn.solve(net, u, dt=DT, y0=y0, adjoint=adjsnn.DiscreteAdjoint(checkpoints="sqrt")),
        "lif": adjsnn.solve(lif, x),
    }


def test_the_families_have_the_same_face():
    found = solutions()
    for sol in found.values():
        counts = [int(sol.layer_counts(k).sum()) for k in range(len(sol.stats.layer_spikes))]
        assert tuple(counts) == sol.stats.layer_spikes
        assert min(counts) > 0
        assert torch.equal(sol.layer_counts(), sol.layer_counts(len(counts) - 1))
        assert losses.spike_count(sol).shape == sol.layer_counts().shape
        with pytest.raises(adjsnn.ConfigurationError, match="layer=7"):
            sol.layer_counts(7)
    for sol in (found["gated"], found["lif"]):
        for k, trains in enumerate(sol.layer_spikes):
            assert torch.equal(sol.layer_counts(k), trains.counts())
            assert len(sol.layer_speeds(k)) == len(trains)
            assert bool((sol.layer_speeds(k) > 0.0).all())
    for name in ("layer_spikes", "layer_speeds"):
        with pytest.raises(adjsnn.NotKeptError, match=f"sol.{name}"):
            getattr(found["checkpoints"], name)
    assert torch.equal(found["gated"].layer_counts(), found["checkpoints"].layer_counts())


def test_they_print_shapes_in_one_line():
    for sol in solutions().values():
        told = repr(sol)
        assert told.startswith(f"{type(sol).__name__}(")
        assert "tensor" not in told
        assert "\n" not in told
        assert len(told) < 500
    lif = random_lif(0)
    sol = adjsnn.solve(lif, adjsnn.SpikeTrains.from_list([[(1.0, 0)]], n_neurons=lif.n_in, t_max=5.0, dtype=F64))
    assert f"final_state=[LIFState(v=(1, {lif.layers[0]})" in repr(sol)


def test_a_lif_network_prints_in_one_line_what_it_is():
    assert repr(adjsnn.LIFNetwork(3, (4, 2), learn=("weights", "bias"))) == (
        "LIFNetwork(n_in=3, layers=(4, 2), recurrent=(False, False), n_out=None, learn=('weights', 'bias'))"
    )

    class Encoded(adjsnn.LIFNetwork):
        def __init__(self):
            super().__init__(3, 2)
            self.encoder = torch.nn.Linear(5, 3)

    assert "(encoder): Linear(in_features=5" in repr(Encoded())


class Decay(adjsnn.HybridSystem):
    def vector_field(self, t, y, u):
        return -y


def test_a_system_is_read_but_does_not_spike():
    sol = adjsnn.solve(Decay(), None, y0=torch.ones(1, 2, dtype=F64), ts=[0.0, 1.0], method="rk4")
    assert sol.t_end == 1.0
    assert float(losses.readout_mse(sol, sol.y)) == 0.0
    assert float(losses.normalised_cost(sol, 2.0 * sol.y.detach())) == pytest.approx(0.25)
    for loss in (losses.spike_count, losses.firing_rate, losses.voltage_max):
        with pytest.raises(adjsnn.ConfigurationError, match="sol of type HybridSolution; expected a solution with"):
            loss(sol)


@pytest.mark.parametrize("loss", [losses.spike_count, losses.voltage_max])
def test_what_is_no_solution_is_refused(loss):
    with pytest.raises(adjsnn.ConfigurationError, match="sol of type int; expected a solution with"):
        loss(3)

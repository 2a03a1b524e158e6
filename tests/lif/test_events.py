"""What happens where it could be unclear: coinciding events, the ends of a trial, grazing, silence, runaway firing."""

import itertools
import math

import pytest
import torch
from lif_networks import random_lif, random_spikes

import adjsnn
from adjsnn import EventError, LIFState, SpikeTrains


def one_layer(w_in: list, *, w_rec: list | None = None, **options) -> adjsnn.LIFNetwork:
    lif = adjsnn.LIFNetwork(len(w_in[0]), (len(w_in),), recurrent=w_rec is not None, dtype=torch.float64, **options)
    with torch.no_grad():
        lif.w_in[0].copy_(torch.tensor(w_in, dtype=torch.float64))
        if w_rec is not None:
            lif.w_rec[0].copy_(torch.tensor(w_rec, dtype=torch.float64))
    return lif


def spikes(*events: tuple[float, int], n_neurons: int = 1, t_max: float = 60.0) -> SpikeTrains:
    return SpikeTrains.from_list([list(events)], n_neurons=n_neurons, t_max=t_max, dtype=torch.float64)


def crossing(lif: adjsnn.LIFNetwork, kernels: str, at: float = 0.0) -> float:
    """When the first neuron of the only layer first spikes after one input at `at`."""
    return adjsnn.solve(lif, spikes((at, 0)), kernels=kernels).first_spike_times()[0, 0].item()


def test_equal_neurons_spike_at_the_same_instant_before_they_hear_of_it(lif_kernels):
    """Without delay each hears the others at that very instant, after its own reset, itself included."""
    lif = one_layer([[9.0]] * 3, w_rec=[[0.0, -2.0, 0.5], [-2.0, 0.0, 0.5], [1.0, -3.0, 0.5]])
    alone = crossing(one_layer([[9.0]], w_rec=[[0.0]]), lif_kernels)  # to the bit, as another loop may not find it
    sol = adjsnn.solve(lif, spikes((0.0, 0)), t_end=alone + 1e-6, ts=[alone], kernels=lif_kernels)
    assert sol.layer_spikes[0].to_list() == [[(alone, 0), (alone, 1), (alone, 2)]]
    current = 9.0 * math.exp(-alone / 5.0)
    assert sol.i[0][0, 0].tolist() == pytest.approx([current - 1.5, current - 1.5, current - 1.5], rel=1e-14)
    assert sol.v[0][0, 0].tolist() == [0.0, 0.0, 0.0]


def test_a_cascade_without_delays(lif_kernels):
    """The first neuron pushes the second over its threshold, that one the third, each within a fraction of a ms."""
    lif = one_layer([[9.0], [0.0], [0.0]], w_rec=[[0.0, 0.0, 0.0], [400.0, 0.0, 0.0], [0.0, 400.0, 0.0]], refractory=50.0)
    sol = adjsnn.solve(lif, spikes((0.0, 0)), t_end=20.0, kernels=lif_kernels)
    (row,) = sol.layer_spikes[0].to_list()
    assert [n for _, n in row] == [0, 1, 2]
    step = crossing(one_layer([[400.0]]), lif_kernels)
    assert [b - a for (a, _), (b, _) in itertools.pairwise(row)] == pytest.approx([step, step], rel=1e-12)


def test_a_spike_at_the_instant_of_an_input_does_not_hear_it(lif_kernels):
    """v̇ before the spike is without the input, the flow after the reset is with it."""
    lif = one_layer([[9.0, 5.0]])
    alone = crossing(one_layer([[9.0]]), lif_kernels)
    x = spikes((0.0, 0), (alone, 1), n_neurons=2)
    sol = adjsnn.solve(lif, x, t_end=alone, ts=[alone], kernels=lif_kernels)
    assert sol.layer_spikes[0].to_list() == [[(alone, 0)]]
    before = 9.0 * math.exp(-alone / 5.0)
    assert sol.i[0][0, 0, 0].item() == pytest.approx(before + 5.0, rel=1e-14)
    assert sol.stats.min_speed_at_spike == pytest.approx((before - 1.0) / 20.0, rel=1e-13)
    (g,) = torch.autograd.grad(sol.first_spike_times()[0, 0], lif.w_in[0])
    assert g[0, 0].item() < 0.0
    assert g[0, 1].item() == 0.0


def test_a_spike_at_an_output_time_and_at_the_end_counts(lif_kernels):
    lif = one_layer([[9.0]])
    at = crossing(lif, lif_kernels)
    sol = adjsnn.solve(lif, spikes((0.0, 0)), t_end=at, ts=[0.0, at], kernels=lif_kernels)
    assert sol.stats.spikes == (1,)
    assert sol.v[0][:, 0, 0].tolist() == [0.0, 0.0]  # after the reset
    assert sol.i[0][0, 0, 0].item() == 9.0  # after the input at 0
    earlier = adjsnn.solve(lif, spikes((0.0, 0)), t_end=math.nextafter(at, 0.0) - 1e-14, kernels=lif_kernels)
    assert earlier.stats.spikes == (0,)


@pytest.mark.parametrize("ratio", [4.0, 2.0, 1.0, 0.5])
def test_the_threshold_bracketed_by_the_critical_weight(ratio, lif_kernels):
    """Peak of the response to a weight of one: exp(-q log(r)/(r-1)) with r = τ_m/τ_s; below it silence, above a spike."""
    peak = math.exp(-ratio * math.log(ratio) / (ratio - 1.0)) if ratio != 1.0 else math.exp(-1.0)
    for factor, count in ((1.0 - 1e-12, 0), (1.0 + 1e-12, 1), (1.001, 1)):
        lif = one_layer([[factor / peak]], tau_mem=5.0 * ratio)
        sol = adjsnn.solve(lif, spikes((2.0, 0)), t_end=60.0, kernels=lif_kernels)
        assert sol.stats.spikes == (count,)


def test_grazing_is_reported_and_never_smoothed(lif_kernels):
    """Just above the critical weight dt/dw = -v/(w v̇) grows without bound, and is what it is."""
    peak = math.exp(-4.0 * math.log(4.0) / 3.0)
    lif = one_layer([[(1.0 + 1e-12) / peak], [9.0]])
    sol = adjsnn.solve(lif, spikes((2.0, 0)), t_end=30.0, kernels=lif_kernels)
    assert sol.stats.grazing == [(0, 0, 0)]
    assert 0.0 < sol.stats.min_speed_at_spike < 1e-6
    (g,) = torch.autograd.grad(sol.first_spike_times()[0, 0], lif.w_in[0])
    assert g[0, 0].item() == pytest.approx(-1.0 / (lif.w_in[0][0, 0].item() * sol.stats.min_speed_at_spike), rel=1e-4)


def test_silent_neurons_are_counted_and_get_no_gradient(lif_kernels):
    lif = one_layer([[9.0], [0.5]])
    sol = adjsnn.solve(lif, spikes((0.0, 0)), t_end=30.0, kernels=lif_kernels)
    assert (sol.stats.silent_neurons, sol.stats.silent) == ((1,), (1,))
    first = sol.first_spike_times()
    assert first[0, 1].item() == math.inf
    (g,) = torch.autograd.grad(first[first.isfinite()].sum(), lif.w_in[0])
    assert g[1, 0].item() == 0.0
    empty = adjsnn.solve(lif, spikes(), t_end=30.0, kernels=lif_kernels)
    assert empty.stats.spikes == (0,)
    assert empty.stats.min_speed_at_spike == math.inf
    (g,) = torch.autograd.grad(empty.spike_times().sum(), lif.w_in[0])
    assert g.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("recurrent", [False, True])
def test_runaway_firing_is_an_error_that_names_the_neuron(recurrent, lif_kernels):
    weights = [[9.0], [0.0]] if recurrent else [[9.0], [9e5]]
    lif = one_layer(weights, w_rec=[[0.0, 40.0], [40.0, 20.0]] if recurrent else None)
    with pytest.raises(EventError, match=r"more than 100 spikes of neuron 1 of layer 0 in sample 0 by .* ms"):
        adjsnn.solve(lif, spikes((0.0, 0)), t_end=60.0, max_spikes=100, kernels=lif_kernels)


def test_runaway_firing_ends_without_a_limit_of_ones_own():
    lif = one_layer([[9.0], [0.0]], w_rec=[[0.0, 400.0], [400.0, 200.0]])
    with pytest.raises(EventError, match="more than 1600 spikes"):
        adjsnn.solve(lif, spikes((0.0, 0)), t_end=60.0)


def test_a_neuron_that_fires_by_its_bias_alone_keeps_its_period(lif_kernels):
    """b > v_th: period τ_m log((b - v_r)/(b - v_th)) + refractory time."""
    lif = one_layer([[0.0]], bias=1.5, v_reset=-0.5, refractory=2.0)
    sol = adjsnn.solve(lif, spikes(), t_end=200.0, kernels=lif_kernels)
    times = sol.spike_times()
    start, period = 20.0 * math.log(1.5 / 0.5), 20.0 * math.log(2.0 / 0.5) + 2.0
    assert times.tolist() == pytest.approx([start + k * period for k in range(len(times))], rel=1e-13)
    assert len(times) == 1 + int((200.0 - start) // period)


def test_falling_inhibition_lets_a_biased_neuron_cross_once_it_has_turned(lif_kernels):
    """i < 0 and b > v_th: v first falls, then climbs; the crossing is after the minimum."""
    lif = one_layer([[-6.0]], bias=1.2)
    sol = adjsnn.solve(lif, spikes((10.0, 0)), t_end=100.0, ts=torch.linspace(0.0, 100.0, 20001), kernels=lif_kernels)
    first = sol.first_spike_times()[0, 0].item()
    v = sol.v[0][:, 0, 0].detach()
    assert v.min().item() < -0.2
    assert int((v.diff() < -0.9).nonzero()[0]) * 0.005 == pytest.approx(first, abs=0.005)


def test_the_voltage_is_held_for_the_refractory_time(lif_kernels):
    lif = one_layer([[30.0]], refractory=3.0, v_reset=-0.25)
    first = crossing(lif, lif_kernels)
    ts = [first, first + 1.5, first + 2.999, first + 3.5]
    sol = adjsnn.solve(lif, spikes((0.0, 0)), t_end=20.0, ts=ts, kernels=lif_kernels)
    assert sol.v[0][:3, 0, 0].tolist() == [-0.25, -0.25, -0.25]
    assert sol.v[0][3, 0, 0].item() > -0.25
    assert sol.i[0][:, 0, 0].tolist() == pytest.approx([30.0 * math.exp(-t / 5.0) for t in ts], rel=1e-13)


def test_time_constants_that_are_nearly_equal_cost_no_digits(lif_kernels):
    """Spike times as a function of τ_m have no kink or noise at τ_m = τ_s: second differences stay at rounding."""
    times = [crossing(one_layer([[4.0]], tau_mem=5.0 * (1.0 + k * 1e-9)), lif_kernels) for k in range(-3, 4)]
    steps = [b - a for a, b in itertools.pairwise(times)]
    assert min(steps) > 0.0
    assert max(abs(b - a) for a, b in itertools.pairwise(steps)) < 1e-14


def test_the_state_at_the_end_goes_on_where_it_stopped(lif_kernels):
    lif, x = random_lif(2, refractory=0.0, delayed=False), random_spikes(2)
    whole = adjsnn.solve(lif, x, t_end=60.0, kernels=lif_kernels)
    first = adjsnn.solve(lif, x.between(0.0, 25.0), t_end=25.0, kernels=lif_kernels)
    state = [LIFState(s.v.detach(), s.i.detach()) for s in first.final_state]
    second = adjsnn.solve(lif, x.between(25.0, 60.0), t_end=35.0, y0=state, kernels=lif_kernels)
    for a, b, c in zip(whole.layer_spikes, first.layer_spikes, second.layer_spikes, strict=True):
        for row, early, late in zip(a.to_list(), b.to_list(), c.to_list(), strict=True):
            joined = early + [(t + 25.0, n) for t, n in late]
            assert [n for _, n in row] == [n for _, n in joined]
            assert max(abs(t - u) for (t, _), (u, _) in zip(row, joined, strict=True)) < 1e-9


def test_a_spike_used_twice_counts_twice(lif_kernels):
    lif, x = random_lif(3), random_spikes(3)
    sol = adjsnn.solve(lif, x, t_end=40.0, kernels=lif_kernels)
    once = torch.autograd.grad(sol.spike_times().sum(), list(lif.w_in), retain_graph=True)
    trains = sol.layer_spikes[-1]
    twice = torch.autograd.grad(sol.spike_times().sum() + trains.time[trains.idx >= 0].sum(), list(lif.w_in))
    for a, b in zip(once, twice, strict=True):
        assert torch.allclose(2.0 * a, b, rtol=1e-12)

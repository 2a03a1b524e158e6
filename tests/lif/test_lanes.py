"""Equal neurons, solved many at a time, against the loop that takes them one by one; their elementary functions."""

import mpmath as mp
import numpy as np
import pytest
import torch
from lif_networks import random_lif, random_spikes

import adjsnn
from adjsnn import EventError, SpikeTrains
from adjsnn.lif.cpu import loops


def _solved(lif, x, **options):
    """A solution, and the gradient of something that reads all of it."""
    leaves = {name: p for name, p in lif.named_parameters() if p.requires_grad}
    time = x.time.clone().requires_grad_()
    sol = adjsnn.solve(lif, SpikeTrains(x.idx, time, x.n_neurons, x.t_max), ts=[0.0, 7.0, 20.0, 53.0], **options)
    weigh = torch.Generator().manual_seed(1)
    loss = sum(
        (y * torch.rand(y.shape, generator=weigh, dtype=torch.float64)).sum()
        for k in range(len(lif.layers))
        for y in (sol.spike_times(k), 10.0 * sol.v[k], sol.i[k])
    )
    found = torch.autograd.grad(loss, [*leaves.values(), time], allow_unused=True)
    return sol, dict(zip([*leaves, "time"], found, strict=True))


def _close(a, b, rel):
    return (a is None and b is None) or bool((a - b).abs().max() <= rel * b.abs().max())


@pytest.mark.every(5)
@pytest.mark.parametrize("refractory", [0.0, 0.3, 9.0])
@pytest.mark.parametrize("ratio", [4.0, 1.0, 0.5])
@pytest.mark.parametrize("learn_taus", [False, True])
def test_many_at_a_time_equal_one_by_one(ratio, refractory, learn_taus, monkeypatch):
    """Samples with many and few arrivals, two at once, stops before and after the last; neurons held over stops."""
    lif = random_lif(3, ratio=ratio, recurrent=False, per_synapse=False, refractory=refractory, layers=(23, 3))
    if not learn_taus:
        for layer in (*lif.tau_mem, *lif.tau_syn):
            layer.requires_grad_(False)
    with torch.no_grad():
        lif.w_in[0].mul_(2.0)
    x = random_spikes(5, batch=41, count=9)
    time = x.time.clone()
    time[::3, 1] = time[::3, 0]
    time[1::3, -4:] = 75.0
    x = SpikeTrains(x.idx, time.sort(1).values, x.n_neurons, 100.0)
    drive = {
        "currents": 0.2 * torch.randn(4, 41, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64),
        "dt": 20.0,
    }
    for options in ({}, drive):
        many, g = _solved(lif, x, **options)
        with monkeypatch.context() as patch:
            patch.setattr(loops, "_alike", lambda layer: False)
            one, h = _solved(lif, x, **options)
        assert many.stats.spikes == one.stats.spikes
        assert min(many.stats.spikes) > 100
        for k in range(2):
            assert torch.equal(many.layer_spikes[k].idx, one.layer_spikes[k].idx)
            assert _close(many.spike_times(k), one.spike_times(k), 1e-12)
            assert _close(many.v[k], one.v[k], 1e-9)
            assert _close(many.i[k], one.i[k], 1e-9)
        assert all(_close(g[name], h[name], 1e-9) for name in h), {n: float((g[n] - h[n]).abs().max()) for n in h}


def test_many_spikes_in_one_moment_are_sorted_too():
    """Sixty neurons that spike at about one time: too many for the quick way to sort them, some at the very same time."""
    lif = adjsnn.LIFNetwork(1, (60,), tau_mem=10.0, tau_syn=5.0, dtype=torch.float64)
    with torch.no_grad():
        lif.w_in[0][:, 0] = torch.linspace(30.0, 30.001, 20, dtype=torch.float64).repeat(3)
    x = SpikeTrains.from_list([[(5.0, 0)], [(5.0, 0)]], n_neurons=1, t_max=1000.0, dtype=torch.float64)
    found = adjsnn.solve(lif, x).layer_spikes[0]
    assert torch.equal(found.time[0], found.time[1])
    rows = list(zip(found.time[0].tolist(), found.idx[0].tolist(), strict=True))
    assert len(rows) > 120
    assert rows == sorted(rows)
    assert [n for _, n in rows[:3]] == [19, 39, 59]


def test_a_neuron_that_runs_away_is_named():
    lif = adjsnn.LIFNetwork(1, (4,), tau_mem=10.0, tau_syn=5.0, dtype=torch.float64)
    with torch.no_grad():
        lif.w_in[0][:, 0] = torch.tensor([0.5, 0.5, 80.0, 0.5])
    x = SpikeTrains.from_list([[(5.0, 0)]], n_neurons=1, t_max=50.0, dtype=torch.float64)
    with pytest.raises(EventError, match="neuron 2"):
        adjsnn.solve(lif, x, max_spikes=3)


@pytest.mark.parametrize("name", ["exponential", "gone", "logarithm"])
def test_elementary_functions_are_as_exact_as_they_say(name):
    from adjsnn.lif.cpu import elementary  # noqa: PLC0415  loads the compiler

    random, mp.mp.dps = np.random.default_rng(0), 40
    exact, units, values = {
        "exponential": (mp.exp, 1.5, np.concatenate([-(10.0 ** random.uniform(-12, 2.85, 2000)), random.uniform(-1, 1, 1000)])),
        "gone": (lambda x: -mp.expm1(-x), 1.5, 10.0 ** random.uniform(-300, np.log10(0.5), 2000)),
        "logarithm": (mp.log, 3.0, np.concatenate([10.0 ** random.uniform(-300, 3, 2000), random.uniform(0.5, 2.0, 2000)])),
    }[name]
    worst = max(abs(float(mp.mpf(float(getattr(elementary, name)(x))) / exact(mp.mpf(float(x))) - 1)) for x in values)
    assert worst <= units * 2.0**-53


def test_what_fades_and_what_is_gone_are_both_as_exact_as_they_say():
    from adjsnn.lif.cpu.elementary import fades  # noqa: PLC0415  loads the compiler

    random, mp.mp.dps = np.random.default_rng(0), 40
    values = np.concatenate([10.0 ** random.uniform(-300, 2.85, 3000), random.uniform(0.3, 0.4, 1000), [0.0]])
    for x in values:
        left, gone = fades(x)
        assert abs(float(mp.mpf(left) / mp.exp(-mp.mpf(x)) - 1)) <= 2.0**-52
        assert abs(float(mp.mpf(gone) + mp.expm1(-mp.mpf(x)))) <= 2.0**-51 * gone


def test_tiles_of_long_samples_are_small_and_change_nothing(monkeypatch):
    """As few samples are solved together as their stops leave room for, and states at stops are kept where there is room."""
    generator = torch.Generator().manual_seed(0)
    time = (2000.0 * torch.rand(60, 3000, generator=generator, dtype=torch.float64)).sort(1).values
    x = SpikeTrains(torch.zeros(60, 3000, dtype=torch.long), time, 1, 2000.0)
    lif = adjsnn.LIFNetwork(1, (1,), tau_mem=20.0, tau_syn=5.0, learn=("weights", "tau_mem", "tau_syn"), dtype=torch.float64)
    with torch.no_grad():
        lif.w_in[0].fill_(0.2)
    alone = adjsnn.solve(lif, SpikeTrains(x.idx[41:42], x.time[41:42], 1, 2000.0)).layer_spikes[0]
    sol = adjsnn.solve(lif, x)
    counts = sol.layer_spikes[0].counts()[:, 0]
    assert int(counts.min()) > 5
    assert torch.equal(sol.layer_spikes[0].time[41, : counts[41]], alone.time[0])
    leaves = [p for p in lif.parameters() if p.requires_grad]
    assert len(leaves) == 3
    found = torch.autograd.grad(sol.spike_times().sum(), leaves, retain_graph=True)
    monkeypatch.setattr(loops, "STATES", 0)
    judge = torch.autograd.grad(sol.spike_times().sum(), leaves)
    for a, b in zip(found, judge, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("refractory", [0.0, 1.0])
def test_a_current_that_has_decayed_beside_the_drive_keeps_its_digits(refractory):
    """Its value at the end is w e^{-t/τ_s}, whatever the neuron spikes on the way; taken as i + u - u it was rounding alone."""
    lif = adjsnn.LIFNetwork(
        1, (1,), tau_mem=20.0, tau_syn=5.0, bias=1.4, refractory=refractory, learn=("weights", "tau_syn"), dtype=torch.float64
    )
    with torch.no_grad():
        lif.w_in[0].fill_(0.3)
    x = SpikeTrains.from_list([[(1.0, 0)]], n_neurons=1, t_max=400.0, dtype=torch.float64)
    sol = adjsnn.solve(lif, x, currents=torch.full((1, 1, 1), 0.2, dtype=torch.float64), dt=400.0)
    assert sol.stats.spikes[0] > 10
    (found,) = torch.autograd.grad(sol.final_state[0].i.sum(), lif.tau_syn[0])
    expected = 0.3 * np.exp(-399.0 / 5.0) * 399.0 / 5.0**2
    assert float(found) == pytest.approx(expected, rel=1e-12)

"""What losses read from a solution of a LIF network: each against its definition, and each gradient against differences."""

import math
from collections.abc import Callable

import pytest
import torch
from lif_networks import RATIOS, STEP, T_END, derivative, direction_along, random_lif, random_spikes, uniform
from torch import Tensor

import adjsnn
from adjsnn import ConfigurationError, LIFState, SpikeTrains, losses

GRID = torch.linspace(0.0, T_END, 60001, dtype=torch.float64)


def quiet(ratio: float, **options) -> adjsnn.LIFNetwork:
    """A network whose last layer has silent neurons, some of them with a cusp at an inhibitory arrival."""
    lif = random_lif(4, ratio=ratio, layers=(6, 8), **options)
    with torch.no_grad():
        lif.w_in[1][3:] *= 0.4
        lif.w_in[1][3:, ::2] *= -1.0
        lif.bias[1].mul_(0.3)
        for w in (w for w in lif.w_rec if w is not None):
            w.mul_(0.5)
    return lif


def check_gradients(
    lif: adjsnn.LIFNetwork,
    value: Callable[[], Tensor],
    count: Callable[[], list],
    *,
    skip: str = "-",
    step: float = STEP,
    rounding: float = 1e-8,
) -> None:
    """Every gradient of a weighted sum of `value` against differences, along directions in which no terms cancel."""
    generator = torch.Generator().manual_seed(2)
    leaves = {name: p for name, p in lif.named_parameters() if not name.startswith(skip)}
    weights = torch.randn(value().numel(), generator=generator, dtype=torch.float64)
    found = torch.autograd.grad(weights @ value().reshape(-1), list(leaves.values()), allow_unused=True, materialize_grads=True)
    before = count()

    def checked() -> Tensor:
        assert count() == before
        return value().reshape(-1)

    for (name, leaf), g in zip(leaves.items(), found, strict=True):
        direction = direction_along(g, generator)
        expected = derivative(checked, weights, leaf, direction, step)
        assert float((g * direction).sum()) == pytest.approx(expected, rel=1e-6, abs=rounding), name


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("recurrent", [False, True])
def test_voltage_maximum_is_that_of_a_dense_record(ratio, recurrent):
    lif, x = quiet(ratio, recurrent=recurrent), random_spikes(4, batch=2)
    sol = adjsnn.solve(lif, x, t_end=T_END, ts=GRID)
    silent = (sol.spike_counts(-1) == 0).detach()
    assert 2 <= int(silent.sum()) < silent.numel()
    found, dense = sol.voltage_max(-1).detach(), sol.v[-1].detach().max(0).values
    # The record misses a maximum by at most a quarter of its step times the slope at a cusp, below 1 per ms here.
    assert bool(((found - dense)[silent] >= -1e-12).all())
    assert float((found - dense)[silent].max()) < 0.25e-3
    assert torch.equal(found[~silent], lif.v_th[-1].expand_as(found)[~silent])


@pytest.mark.every(5)
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("recurrent", [False, True])
def test_voltage_maximum_has_the_gradient_of_differences(ratio, recurrent):
    lif, x = quiet(ratio, recurrent=recurrent), random_spikes(4, batch=2)
    run = lambda: adjsnn.solve(lif, x, t_end=T_END)  # noqa: E731
    check_gradients(lif, lambda: losses.voltage_max(run()), lambda: [s.counts().tolist() for s in run().layer_spikes])


def test_voltage_maximum_of_equal_time_constants_has_its_gradient_by_them():
    """Where the response is a series, whose slope by a time constant is not that of its first term."""
    lif, x = quiet(1.0), random_spikes(4, batch=2)
    run = lambda: adjsnn.solve(lif, x, t_end=T_END)  # noqa: E731
    check_gradients(lif, lambda: losses.voltage_max(run()), lambda: [s.counts().tolist() for s in run().layer_spikes])


def test_voltage_maximum_at_a_cusp_moves_with_the_arrival():
    """v climbs until an inhibitory spike at 3 ms turns it down: dV/dt_a is the slope just before it."""
    lif = adjsnn.LIFNetwork(2, (1,), dtype=torch.float64)
    with torch.no_grad():
        lif.w_in[0].copy_(torch.tensor([[3.0, -9.0]]))
    x = SpikeTrains(torch.tensor([[0, 1]]), torch.tensor([[0.0, 3.0]], dtype=torch.float64), 2, 20.0)
    x.time.requires_grad_()
    largest = adjsnn.solve(lif, x, t_end=20.0).voltage_max()
    e_mem, e_syn = math.exp(-3.0 / 20.0), math.exp(-3.0 / 5.0)
    v, i = 3.0 * 5.0 / 15.0 * (e_mem - e_syn), 3.0 * e_syn
    assert largest.item() == pytest.approx(v, rel=1e-14)
    largest.backward()
    slope = (i - v) / 20.0
    assert x.time.grad.tolist()[0] == pytest.approx([-slope, slope], rel=1e-12)


@pytest.mark.every(3)
@pytest.mark.parametrize("ratio", RATIOS)
def test_voltage_integral(ratio):
    lif, x = random_lif(6, ratio=ratio, refractory=0.0), random_spikes(6, batch=2)
    with torch.no_grad():
        for w in lif.w_rec:  # else neurons without refractory time spike each other to several per ms
            w.mul_(0.3)
    y0 = [
        LIFState(torch.full((2, n), 0.2, dtype=torch.float64), torch.full((2, n), 0.5, dtype=torch.float64)) for n in lif.layers
    ]
    run = lambda: adjsnn.solve(lif, x, t_end=T_END, y0=y0)  # noqa: E731
    sol = adjsnn.solve(lif, x, t_end=T_END, y0=y0, ts=GRID)
    for layer in (0, 1):
        expected = torch.trapezoid(sol.v[layer], GRID, dim=0)
        # Each spike's jump of about one falls somewhere into a step: at most half of 1 × 0.001 each.
        close = 0.6e-3 * sol.spike_counts(layer) + 1e-6
        assert bool(((run().voltage_integral(layer) - expected).abs() < close).all())
    # The balance is a difference of terms near 400: 400 × 2e-16 over a step of 7e-7, summed over six, is 5e-7 at one sigma.
    count = lambda: [s.idx.tolist() for s in run().layer_spikes]  # noqa: E731
    check_gradients(lif, lambda: run().voltage_integral(1), count, skip="refractory", step=2e-6, rounding=5e-6)


def test_voltage_integral_refuses_refractory_times():
    sol = adjsnn.solve(random_lif(6), random_spikes(6), t_end=T_END)
    with pytest.raises(ConfigurationError, match="refractory"):
        sol.voltage_integral(0)


def test_readout_is_the_filtered_sum_and_has_its_gradient():
    lif = adjsnn.LIFNetwork(5, (6, 4), n_out=2, tau_out=12.0, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x, ts = random_spikes(1), [0.0, 10.0, 33.0, 33.0, T_END]
    with torch.no_grad():
        lif.w_in[1].mul_(2.0)
    sol = adjsnn.solve(lif, x, t_end=T_END, ts=ts)
    assert sol.stats.spikes[-1] > 10
    for b, row in enumerate(sol.layer_spikes[-1].to_list()):
        for n, t in enumerate(ts):
            a = torch.zeros(4, dtype=torch.float64)
            for time, neuron in row:
                if time <= t:
                    a[neuron] += math.exp(-(t - time) / 12.0) / 12.0
            assert torch.allclose(sol.readout[n, b], lif.w_out @ a, rtol=1e-13, atol=1e-15)
    run = lambda: adjsnn.solve(lif, x, t_end=T_END, ts=ts)  # noqa: E731
    assert [name for name, p in lif.named_parameters() if p.requires_grad] == ["w_out", "w_in.0", "w_in.1"]
    lif.requires_grad_()
    # Nothing is refractory, and a time less than 0 cannot be tried.
    check_gradients(lif, lambda: run().readout, lambda: [s.idx.tolist() for s in run().layer_spikes], skip="refractory")


def test_a_readout_needs_weights_and_times():
    x = random_spikes(1)
    with pytest.raises(ConfigurationError, match="n_out"):
        adjsnn.solve(adjsnn.LIFNetwork(5, (3,)), x, ts=[1.0]).readout  # noqa: B018
    with pytest.raises(ConfigurationError, match="ts"):
        adjsnn.solve(adjsnn.LIFNetwork(5, (3,), n_out=1), x).readout  # noqa: B018


def trains(*rows: list, n_neurons: int = 2) -> SpikeTrains:
    return SpikeTrains.from_list(rows, n_neurons=n_neurons, t_max=40.0, dtype=torch.float64)


def test_van_rossum_is_the_sum_over_pairs():
    generator = torch.Generator().manual_seed(3)
    sets = [
        SpikeTrains.poisson(torch.full((4, 3), rate, dtype=torch.float64), 40.0, generator=generator) for rate in (80.0, 120.0)
    ]
    found = losses.van_rossum(sets[0], sets[1], tau=7.0)
    for b, (first, second) in enumerate(zip(sets[0].to_list(), sets[1].to_list(), strict=True)):
        events = [(t, n, 1.0) for t, n in first] + [(t, n, -1.0) for t, n in second]
        pairs = [p * q * math.exp(-abs(t - u) / 7.0) for t, n, p in events for u, m, q in events if n == m]
        assert float(found[b]) == pytest.approx(0.5 * sum(pairs), rel=1e-12)


def test_van_rossum_of_special_trains():
    none, one, two = trains([]), trains([(5.0, 1)]), trains([(5.0, 1), (9.0, 1)])
    assert float(losses.van_rossum(one, one)) == 0.0
    assert float(losses.van_rossum(none, none)) == 0.0
    assert float(losses.van_rossum(one, none)) == 0.5
    assert float(losses.van_rossum(one, two)) == 0.5
    assert float(losses.van_rossum(one, trains([(5.0, 0)]))) == 1.0
    assert float(losses.van_rossum(one, trains([(9.0, 1)]), tau=2.0)) == pytest.approx(1.0 - math.exp(-2.0), rel=1e-15)


def test_spike_losses_have_the_gradients_of_differences():
    lif, x = random_lif(8), random_spikes(8, batch=3)
    generator = torch.Generator().manual_seed(0)
    target = SpikeTrains.poisson(torch.full((3, 3), 60.0, dtype=torch.float64), T_END, generator=generator)
    early = uniform(generator, 0.0, 20.0, 3, 3)
    labels = torch.tensor([0, 2, 1])
    run = lambda: adjsnn.solve(lif, x, t_end=T_END)  # noqa: E731
    count = lambda: [s.idx.tolist() for s in run().layer_spikes]  # noqa: E731
    check_gradients(lif, lambda: losses.van_rossum(run(), target), count)
    check_gradients(lif, lambda: losses.van_rossum(run(), target, tau_rise=5.0), count)
    check_gradients(lif, lambda: losses.first_spike_mse(run(), early), count)
    check_gradients(lif, lambda: losses.first_spike_cross_entropy(run(), labels), count)


def test_cross_entropy_of_first_spikes_with_a_silent_neuron():
    lif = adjsnn.LIFNetwork(1, (3,), dtype=torch.float64)
    with torch.no_grad():
        lif.w_in[0].copy_(torch.tensor([[9.0], [8.0], [0.5]]))
    sol = adjsnn.solve(lif, SpikeTrains.from_list([[(1.0, 0)]], n_neurons=1, t_max=1.0, dtype=torch.float64), t_end=20.0)
    first = sol.first_spike_times()
    assert first.isinf().tolist() == [[False, False, True]]
    time = [*first[0, :2].tolist(), 20.0]
    for label in range(3):
        expected = time[label] / 0.5 + math.log(sum(math.exp(-t / 0.5) for t in time)) + 0.003 * math.expm1(time[label] / 6.4)
        assert losses.first_spike_cross_entropy(sol, torch.tensor([label])).item() == pytest.approx(expected, rel=1e-12)
    (g,) = torch.autograd.grad(losses.first_spike_cross_entropy(sol, torch.tensor([2])), lif.w_in[0])
    assert g[2].item() == 0.0
    assert bool((g[:2] != 0.0).all())


def read_out(lif: adjsnn.LIFNetwork) -> None:
    """Give a network of three last neurons a readout of two channels."""
    w_out = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    lif.w_out, lif.n_out, lif.tau_out = torch.nn.Parameter(w_out), 2, 8.0


@pytest.mark.every(2)
@pytest.mark.parametrize(("start", "stop"), [(0.0, T_END), (17.3, 41.9)])
def test_error_of_the_readout_is_its_integral(start, stop):
    lif = random_lif(3)
    read_out(lif)
    ts = start + (stop - start) * torch.linspace(0.0, 1.0, 9, dtype=torch.float64) ** 2
    target = torch.randn(9, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def run() -> adjsnn.LIFSolution:
        return adjsnn.solve(lif, random_spikes(3), t_end=T_END, ts=ts)

    fine = torch.linspace(start, stop, 50001, dtype=torch.float64)
    part = torch.searchsorted(ts, fine).clamp(1, 8)
    share = ((fine - ts[part - 1]) / (ts[part] - ts[part - 1]))[:, None, None]
    wanted = target[part - 1] + share * (target[part] - target[part - 1])
    with torch.no_grad():
        error = (adjsnn.solve(lif, random_spikes(3), t_end=T_END, ts=fine).readout - wanted).square().sum(2)
    expected = torch.trapezoid(error, fine, dim=0)
    # The trapezoid misses half a step of each jump: 60 ms/50000 of jumps of order 0.1 at some 20 spikes.
    assert torch.allclose(run().readout_error(target), expected, rtol=4e-4)
    normalised = losses.normalised_cost(run(), target)
    of_silence = torch.trapezoid(wanted.square().sum(2), fine, dim=0).sum()
    assert normalised.item() == pytest.approx((expected.sum() / of_silence).item(), rel=4e-4)
    check_gradients(
        lif, lambda: run().readout_error(target), lambda: [s.idx.tolist() for s in run().layer_spikes], skip="refractory"
    )
    with pytest.raises(ConfigurationError, match="target of shape"):
        run().readout_error(target[1:])


@pytest.mark.slow
def test_integral_of_the_readout_over_a_window_of_each_sample():
    lif = random_lif(5)
    read_out(lif)
    start, stop = torch.tensor([0.0, 20.0, 33.3], dtype=torch.float64), torch.tensor([T_END, 50.0, 33.9], dtype=torch.float64)

    def run(ts=()) -> adjsnn.LIFSolution:
        return adjsnn.solve(lif, random_spikes(5), t_end=T_END, ts=ts)

    for b in range(3):
        fine = torch.linspace(float(start[b]), float(stop[b]), 100001, dtype=torch.float64)
        with torch.no_grad():
            expected = torch.trapezoid(run(fine).readout[:, b], fine, dim=0)
        assert torch.allclose(run().readout_integral(start, stop)[b], expected, rtol=1e-3, atol=1e-5)
    check_gradients(
        lif,
        lambda: run().readout_integral(start, stop),
        lambda: [s.idx.tolist() for s in run().layer_spikes],
        skip="refractory",
    )


def test_squared_rate_is_that_of_filtered_spikes():
    lif, tau = random_lif(8), 6.0
    run = lambda: adjsnn.solve(lif, random_spikes(8), t_end=T_END)  # noqa: E731
    fine = torch.linspace(0.0, T_END + 20.0 * tau, 200001, dtype=torch.float64)
    for layer in (0, 1):
        found = run().squared_rate(tau, layer)
        for b, row in enumerate(run().layer_spikes[layer].to_list()):
            for n in range(lif.layers[layer]):
                a = sum(
                    (torch.where(fine >= t, torch.exp((t - fine) / tau), 0.0) / tau for t, m in row if m == n), torch.zeros(())
                )
                expected = 1e6 * torch.trapezoid((a + torch.zeros_like(fine)).square(), fine).item() / T_END
                assert found[b, n].item() == pytest.approx(expected, rel=1e-3)  # half a step at each jump
        check_gradients(lif, lambda k=layer: run().squared_rate(tau, k), lambda: [s.idx.tolist() for s in run().layer_spikes])


def test_counts_and_rates():
    sol = adjsnn.solve(random_lif(8), random_spikes(8), t_end=T_END)
    assert torch.equal(losses.spike_count(sol, 0), sol.layer_spikes[0].counts().double())
    assert torch.equal(losses.firing_rate(sol), sol.layer_spikes[-1].counts().double() * (1000.0 / T_END))


@pytest.mark.parametrize(
    "loss",
    [
        lambda sol: losses.first_spike_cross_entropy(sol, torch.tensor([0, 1])),
        lambda sol: losses.first_spike_cross_entropy(sol, torch.tensor([0, 1, 3])),
        lambda sol: losses.first_spike_cross_entropy(sol, torch.tensor([0.0, 1.0, 2.0])),
        lambda sol: losses.first_spike_mse(sol, torch.zeros(3)),
        lambda sol: losses.van_rossum(sol, trains([], n_neurons=3)),
        lambda sol: losses.van_rossum(sol, trains([], [], [], n_neurons=3), tau=0.0),
    ],
)
def test_losses_refuse_what_does_not_fit(loss):
    with pytest.raises(ConfigurationError):
        loss(adjsnn.solve(random_lif(8), random_spikes(8), t_end=T_END))

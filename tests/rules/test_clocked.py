"""The LIF network on a clock (5.1): against the event-exact one, against a program written out by hand, and by differences."""

import math

import numpy as np
import pytest
import torch

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork, SpikeTrains
from adjsnn.lif import flow
from adjsnn.lif.clocked import _relative_gain, arrivals, clocked_layer, unroll
from adjsnn.lif.structure import LIFState
from adjsnn.rules import (
    RTRL,
    Arctangent,
    Boxcar,
    Exponential,
    FastSigmoid,
    RectifiedLinear,
    SuperSpike,
    SurrogateBPTT,
    Triangle,
)

F64 = torch.float64
SHAPES = (FastSigmoid, Triangle, RectifiedLinear, Exponential, Boxcar, Arctangent)
EVERYTHING = ("weights", "bias", "tau_mem", "tau_syn", "v_th", "v_reset")


def network(recurrent: bool = True, seed: int = 0, dtype: torch.dtype = F64, **options) -> LIFNetwork:
    generator = torch.Generator().manual_seed(seed)
    net = LIFNetwork(
        5, (12, 3), recurrent, **{"learn": EVERYTHING, "n_out": 2} | options, generator=generator, dtype=dtype
    )  # fmt: skip
    with torch.no_grad():
        for w in net.w_in:
            w.mul_(0.75)
    return net


def spikes(seed: int = 0, batch: int = 4, rate: float = 60.0, t_max: float = 60.0) -> SpikeTrains:
    rates = torch.full((batch, 5), rate, dtype=F64)
    return SpikeTrains.poisson(rates, t_max, generator=torch.Generator().manual_seed(seed))


@pytest.mark.every(2)
@pytest.mark.parametrize("options", [{}, {"refractory": 2.0}, {"delays": 1.6, "rec_delays": 0.8}, {"tau_syn": 20.0}])
@pytest.mark.parametrize("recurrent", [False, True])
def test_spike_times_converge_to_the_event_exact_ones_at_order_one(recurrent, options):
    steps, errors = (0.4, 0.2, 0.1, 0.05, 0.025, 0.0125), []
    net, x = network(recurrent, **options), spikes(rate=40.0)
    exact = adjsnn.solve(net, x)
    assert exact.stats.spikes[0] > 60
    for dt in steps:
        sol = adjsnn.solve(net, x, dt=dt, adjoint=SurrogateBPTT())
        off = []
        for k in range(2):
            first, same = exact.first_spike_times(k), sol.layer_counts(k) == exact.layer_counts(k)
            off.append((sol.first_spike_times(k) - first)[same & first.isfinite()].detach().abs())
        errors.append(float(torch.cat(off).median()))
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert 0.9 <= slope <= 1.1, errors
    assert errors[-1] <= 0.0125
    other = [sol.layer_counts(k) != exact.layer_counts(k) for k in range(2)]
    assert sum(int(x.sum()) for x in other) <= 2  # of 60: those that barely cross between two steps, or cross at the end


def by_hand(net: LIFNetwork, x: SpikeTrains, dt: float, surrogate, reset: str, through: bool):
    """(5.1) written out: every neuron, spike and arrival by itself; spikes of the last layer and its voltages."""
    steps = round(x.t_max / dt)
    arriving = torch.zeros(steps + 1, x.batch, net.n_in, dtype=F64)
    for b in range(x.batch):
        for t, n in zip(x.time[b].tolist(), x.idx[b].tolist(), strict=True):
            if n >= 0:
                arriving[round(t / dt), b, n] += 1.0
    source, kept = list(arriving), None
    for k in range(len(net.layers)):
        tau_m, tau_s = net.tau_mem[k], net.tau_syn[k]
        alpha, beta = torch.exp(-dt / tau_s), torch.exp(-dt / tau_m)
        kappa = tau_s / (tau_m - tau_s) * (beta - alpha)
        delay = 0.0 if net.delays[k] is None else float(net.delays[k].detach().max())
        lag = round(delay / dt) if k == 0 else max(1, round(delay / dt))
        rec_delay = 0.0 if net.rec_delays[k] is None else float(net.rec_delays[k].detach().max())
        rec_lag, hold = max(1, round(rec_delay / dt)), round(float(net.refractory[k].detach().max()) / dt)
        v = i = torch.zeros(x.batch, net.layers[k], dtype=F64)
        free_at = torch.zeros(x.batch, net.layers[k])
        sent, voltages = [], []
        for n in range(steps + 1):
            if n >= lag:
                i = i + source[n - lag] @ net.w_in[k].T
            if net.w_rec[k] is not None and n >= rec_lag:
                i = i + sent[n - rec_lag] @ net.w_rec[k].T
            s = surrogate.fire(v - net.v_th[k]) * (n >= free_at)
            gate = s if through else s.detach()
            v = (1 - gate) * v + gate * net.v_reset[k] if reset == "to" else v - gate * (net.v_th[k] - net.v_reset[k])
            free_at = torch.where(s > 0, n + hold + 1, free_at)
            sent.append(s)
            voltages.append(v)
            free = net.bias[k] + beta * (v - net.bias[k]) + kappa * i
            v = torch.where(n + 1 < free_at, v, free)
            i = alpha * i
        source, kept = sent, torch.stack(voltages)
    return torch.stack(source), kept


@pytest.mark.every(2)
@pytest.mark.parametrize("options", [{}, {"refractory": 2.0}, {"delays": 1.6, "rec_delays": 0.8}])
@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("reset", ["to", "by"])
def test_against_the_program_written_out_by_hand(reset, through, options):
    net, x = network(seed=1, bias=0.3, **options), spikes(1)
    rule = SurrogateBPTT(Triangle(2.0), reset=reset, through_reset=through)
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=rule)
    assert sol.stats.spikes[1] > 20
    sent, v = by_hand(net, x, 0.5, Triangle(2.0), reset, through)
    assert torch.equal(sol.spikes_on_grid(), sent)
    torch.testing.assert_close(sol.v[1], v, rtol=1e-11, atol=1e-13)
    weight = torch.linspace(0.5, 1.5, sent.numel(), dtype=F64).view(sent.shape)
    learnt = [p for p in net.parameters() if p.requires_grad and p is not net.w_out]
    found, expected = (
        torch.autograd.grad((weight * s).sum() + (weight * u).square().sum(), learnt)
        for s, u in ((sol.spikes_on_grid(), sol.v[1]), (sent, v))
    )
    for value, other in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("reset", ["to", "by"])
def test_the_gradient_of_the_program_by_central_differences(reset):
    """With a smooth spike the program has a true gradient."""
    net = network(seed=2, bias=0.3)
    layer = net.tensors()[0]
    arriving = 0.3 * torch.rand(25, 2, 12, generator=torch.Generator().manual_seed(0), dtype=F64)
    start = LIFState(*(0.1 * torch.ones(2, 12, dtype=F64) for _ in range(2)))

    class Smooth(FastSigmoid):
        def fire(self, x):
            return torch.sigmoid(8.0 * x)

    def cost(*changed):
        names = ("w_rec", "bias", "tau_mem", "tau_syn", "v_th", "v_reset")
        clocked = clocked_layer(layer._replace(**dict(zip(names, changed, strict=True))), 0.5, first=True)
        run = unroll(clocked, arriving, start, None, Smooth(), reset, through_reset=True)
        return run.spikes.square().sum() + run.v.sin().sum() + run.i.square().sum()

    leaves = (layer.w_rec, layer.bias, layer.tau_mem, layer.tau_syn, layer.v_th, layer.v_reset)
    leaves = tuple(x.detach().clone().requires_grad_() for x in leaves)
    assert torch.autograd.gradcheck(cost, leaves, eps=1e-6, atol=1e-6, rtol=1e-6, fast_mode=False)


@pytest.mark.parametrize("ratio", [0.2, 0.9, 0.9999, 1.0, 1.0000001, 1.001, 1.1, 5.0])
def test_gain_of_a_step_is_the_one_of_the_flow(ratio):
    net = LIFNetwork(1, 2, tau_mem=10.0, tau_syn=10.0 * ratio, dtype=F64, learn=("tau_mem", "tau_syn"))
    clocked = clocked_layer(net.tensors()[0], 0.5, first=True)
    tau = np.array([10.0]), np.array([10.0 * ratio])
    e_mem, e_syn, k = flow.decay(np.array([0.5]), *tau)
    np.testing.assert_allclose([clocked.beta[0].item(), clocked.alpha[0].item()], [e_mem[0], e_syn[0]], rtol=1e-15)
    np.testing.assert_allclose(clocked.kappa[0].item(), k[0] / 10.0, rtol=1e-14)


def test_relative_gain_and_its_derivative_have_all_digits():
    x = torch.logspace(-12, 0.5, 60, dtype=F64)
    x = torch.cat([x, -x, torch.zeros(1, dtype=F64)]).requires_grad_()
    y = _relative_gain(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    for point, value, derivative in zip(x.tolist(), y.tolist(), slope.tolist(), strict=True):
        terms = [(-point) ** k / math.factorial(k + 1) for k in range(40)]
        slopes = [-k * (-point) ** (k - 1) / math.factorial(k + 1) for k in range(1, 40)]
        assert value == pytest.approx(math.fsum(terms), rel=1e-14)
        assert derivative == pytest.approx(math.fsum(slopes), rel=1e-12)


@pytest.mark.parametrize("per", ["one", "axon", "synapse"])
def test_arrivals_come_a_lag_later(per):
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(3, 4, generator=generator, dtype=F64)
    sent = (torch.rand(9, 2, 4, generator=generator) < 0.3).double()
    size = {"one": (1,), "axon": (4,), "synapse": (3, 4)}[per]
    lags = torch.randint(0, 12, size, generator=generator)  # one of them past the end
    lags = lags.expand(4) if per == "one" else lags
    expected = torch.zeros(9, 2, 3, dtype=F64)
    for n in range(9):
        for m in range(3):
            for k in range(4):
                lag = int(lags[m, k] if per == "synapse" else lags[k])
                if n >= lag:
                    expected[n, :, m] += w[m, k] * sent[n - lag, :, k]
    torch.testing.assert_close(arrivals(w, lags, sent), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_have_height_one_and_the_area_they_say(shape):
    near = torch.linspace(0.0, 2.0, 20_001, dtype=F64)
    far = 2.0 * torch.logspace(0.0, math.log10(200.0), 20_001, dtype=F64)  # where all are smooth
    half = torch.cat([near, far[1:]])
    x = torch.cat([-half.flip(0)[:-1], half])
    raw, normalised = shape(3.0).derivative(x), shape(3.0, normalised=True).derivative(x)
    assert float(raw.max()) == pytest.approx(1.0)
    assert float(raw.min()) >= 0.0
    tail = 2e-3 if shape in (FastSigmoid, Arctangent) else 4e-4  # what lies beyond, and three of the edges' widths
    assert float(torch.trapezoid(normalised, x)) == pytest.approx(1.0, abs=tail)
    torch.testing.assert_close(normalised, raw * (3.0 / shape.area))
    y = torch.tensor([-0.2, 0.0, 0.1], dtype=F64, requires_grad=True)
    fired = shape(3.0).fire(y)
    assert fired.tolist() == [0.0, 1.0, 1.0]
    (found,) = torch.autograd.grad(fired.sum(), y)
    assert torch.equal(found, shape(3.0).derivative(y.detach()))


def test_first_spike_time_and_its_derivative():
    net, x = network(seed=3), spikes(3)
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT())
    s, first = sol.spikes_on_grid(0), sol.first_spike_times(0)
    (found,) = torch.autograd.grad(torch.where(first.isfinite(), first, 0.0).sum(), s)
    fired = s.detach() > 0
    for b in range(fired.shape[1]):
        for n in range(fired.shape[2]):
            at = fired[:, b, n].nonzero()[:, 0].tolist()
            if not at:
                assert first[b, n] == math.inf
                continue
            assert float(first[b, n].detach()) == pytest.approx(0.5 * at[0])
            following = at[1] if len(at) > 1 else len(s) - 1
            expected = [-0.5 * (at[0] - m) for m in range(at[0])] + [-0.5 * (following - at[0])]
            torch.testing.assert_close(found[: at[0] + 1, b, n], torch.tensor(expected, dtype=F64))
            assert not bool(found[at[0] + 1 :, b, n].any())


def test_figures_are_those_of_the_grid():
    net, x = network(seed=4), spikes(4)
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT())
    s = sol.spikes_on_grid()
    assert sol.ts.shape == (121,)
    assert sol.v[1].shape == (121, 4, 3)
    assert torch.equal(sol.layer_counts(), s.detach().long().sum(0))
    assert torch.equal(sol.spike_count(), s.sum(0))
    assert sol.stats.spikes == tuple(int(sol.layer_counts(k).sum()) for k in range(2))
    assert torch.equal(sol.layer_spikes[1].to_dense(0.5)[:119], s.detach()[:119])  # the last bin has the end too
    assert len(sol.layer_speeds()) == int(s.detach()[1:].sum())
    assert bool((sol.layer_speeds() > 0).all())
    spiked = sol.layer_counts() > 0
    assert torch.equal(sol.voltage_max()[spiked], net.v_th[1].expand_as(spiked)[spiked])
    o = torch.zeros(4, 2, dtype=F64)
    for n in range(121):
        o = math.exp(-0.5 / 20.0) * o + s[n] @ net.w_out.T / 20.0
        torch.testing.assert_close(sol.readout[n], o)
    asked = adjsnn.solve(net, x, dt=0.5, ts=[10.0, 20.5], adjoint=SurrogateBPTT())
    assert torch.equal(asked.readout, sol.readout[[20, 41]])
    assert torch.equal(asked.v[0], sol.v[0][[20, 41]])
    assert torch.equal(asked.final_state[0].v, sol.v[0][-1])
    for times in (torch.linspace(0.0, 60.0, 601), 0.1 * torch.arange(601)):  # rounded to float32
        every = adjsnn.solve(net, x, dt=0.1, ts=times, adjoint=SurrogateBPTT())
        assert every.v[0].shape == (601, 4, 12)


def test_currents_and_initial_states():
    net = network(seed=5)
    u = torch.rand(40, 2, 5, generator=torch.Generator().manual_seed(0), dtype=F64).mul_(0.4).requires_grad_()
    start = [LIFState(torch.full((2, n), 0.3, dtype=F64), torch.full((2, n), 0.2, dtype=F64)) for n in (12, 3)]
    coarse, fine = (
        adjsnn.solve(net, u.repeat_interleave(k, 0), dt=1.0 / k, y0=start, adjoint=SurrogateBPTT()) for k in (1, 64)
    )
    exact = adjsnn.solve(net, u, dt=1.0, y0=start)
    assert exact.stats.spikes[0] > 20
    assert fine.stats.spikes == exact.stats.spikes
    first = exact.first_spike_times(0)
    assert float((fine.first_spike_times(0) - first)[first.isfinite()].detach().abs().max()) <= 1.0 / 16
    (found,) = torch.autograd.grad(coarse.spikes_on_grid(0).sum(), u)
    assert bool(found.any())


def test_a_batch_is_its_samples_and_single_precision_is_near():
    net, x = network(seed=6), spikes(6)
    whole = adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT())
    for b in range(4):
        one = adjsnn.solve(net, x[b : b + 1], dt=0.5, adjoint=SurrogateBPTT())
        assert torch.equal(one.spikes_on_grid(0)[:, 0], whole.spikes_on_grid(0)[:, b])
        torch.testing.assert_close(one.v[1][:, 0], whole.v[1][:, b], rtol=1e-12, atol=1e-13)
    single = adjsnn.solve(network(seed=6, dtype=torch.float32).float(), x, dt=0.5, adjoint=SurrogateBPTT())
    assert single.v[0].dtype == torch.float32


def test_losses_take_its_solutions():
    net, x = network(seed=7), spikes(7)
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT())
    loss = adjsnn.losses.first_spike_cross_entropy(sol, torch.tensor([0, 1, 2, 0]))
    loss = loss + adjsnn.losses.readout_mse(sol, torch.zeros_like(sol.readout)) + adjsnn.losses.voltage_max(sol).sum()
    found = torch.autograd.grad(loss, [net.w_in[0], net.w_rec[0], net.w_out])
    assert all(bool(g.any()) for g in found)


def test_van_rossum_distance_is_that_of_the_spike_times_and_has_the_gradient_of_its_integral():
    net, x = network(seed=8), spikes(8)
    target = adjsnn.solve(network(seed=9), x).layer_spikes[1]
    target = SpikeTrains(target.idx, target.time.detach(), 3, 60.0)
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT())
    distance = adjsnn.losses.van_rossum(sol, target, tau=10.0)
    torch.testing.assert_close(distance, adjsnn.losses.van_rossum(sol.layer_spikes[1], target, tau=10.0))
    s = sol.spikes_on_grid()
    (found,) = torch.autograd.grad(distance.sum(), s)
    fine = torch.arange(0.005, 160.0, 0.01, dtype=F64)  # (1/τ) ∫ (Σ_k e^{-(t-t_k)/τ} - Σ_l e^{-(t-t_l)/τ})² dt
    for b, n in ((0, 0), (1, 2), (3, 1)):
        own, others = (0.5 * s[:, b, n].detach().nonzero()[:, 0]).tolist(), target.time[b][target.idx[b] == n].tolist()
        trace = sum((torch.exp(-(fine - t) / 10.0) * (fine >= t) for t in own), torch.zeros_like(fine))
        trace -= sum((torch.exp(-(fine - t) / 10.0) * (fine >= t) for t in others), torch.zeros_like(fine))
        for k in (3, 40, 100):
            kernel = torch.exp(-(fine - 0.5 * k) / 10.0) * (fine >= 0.5 * k)
            assert float(found[k, b, n]) == pytest.approx(float(2.0 * (trace * kernel).sum() * 0.01 / 10.0), abs=4e-3)


def test_a_van_rossum_distance_with_a_rise_is_linear_in_the_weight_of_a_spike_and_in_its_pairs():
    net, x = network(seed=8), spikes(8)
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT())
    target = SpikeTrains.from_list([[(20.0, 0), (31.0, 0)]] * 4, n_neurons=3, t_max=60.0, dtype=F64)
    distance = adjsnn.losses.van_rossum(sol, target, tau=10.0, tau_rise=5.0)
    torch.testing.assert_close(distance, adjsnn.losses.van_rossum(sol.layer_spikes[1], target, tau=10.0, tau_rise=5.0))
    s = sol.spikes_on_grid()
    (found,) = torch.autograd.grad(distance.sum(), s)
    grid = 0.5 * torch.arange(121, dtype=F64)

    def pairs(times):  # ρ, summed, at all times of the grid
        age = (grid[:, None] - torch.as_tensor(times, dtype=F64)).abs()
        return (2.0 * (-age / 10.0).exp() - (-age / 5.0).exp()).sum(1)

    own = grid[s[:, 2, 0].detach() > 0]
    torch.testing.assert_close(found[:, 2, 0], pairs(own) - pairs([20.0, 31.0]), rtol=1e-11, atol=1e-12)


def learning(**options):
    net = network(**options, learn=("weights", "delays", "refractory"))
    return lambda _, x: adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT())


BAD = {
    "delays that learn": (learning(delays=1.0), "delays that learn"),
    "recurrent delays that learn": (learning(rec_delays=1.0), "rec_delays that learn"),
    "no dt": (lambda net, x: adjsnn.solve(net, x, adjoint=SurrogateBPTT()), "no dt"),
    "dt negative": (lambda net, x: adjsnn.solve(net, x, dt=-0.1, adjoint=SurrogateBPTT()), "dt"),
    "no whole number of steps": (lambda net, x: adjsnn.solve(net, x, dt=0.7, adjoint=SurrogateBPTT()), "whole number of steps"),
    "ts off the grid": (lambda net, x: adjsnn.solve(net, x, dt=0.5, ts=[0.3], adjoint=SurrogateBPTT()), "on a clock"),
    "max_spikes": (lambda net, x: adjsnn.solve(net, x, dt=0.5, max_spikes=3, adjoint=SurrogateBPTT()), "max_spikes"),
    "dt for events": (lambda net, x: adjsnn.solve(net, x, dt=0.5), "no grid"),
    "reset": (lambda net, x: SurrogateBPTT(reset="up"), "reset='up'"),
    "surrogate": (lambda net, x: SurrogateBPTT("triangle"), "surrogate"),
    "slope": (lambda net, x: Triangle(0.0), "slope"),
    "the class": (lambda net, x: adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT), "adjoint"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    call, message = BAD[case]
    with pytest.raises(ConfigurationError, match=message):
        call(network(), spikes())


def test_input_times_that_require_a_gradient_are_refused():
    x = spikes()
    moved = SpikeTrains(x.idx, x.time.clone().requires_grad_(), 5, 60.0)
    with pytest.raises(ConfigurationError, match="on a clock"):
        adjsnn.solve(network(), moved, dt=0.5, adjoint=SurrogateBPTT())


@pytest.mark.parametrize("rule", [SurrogateBPTT(), SuperSpike(), RTRL()])
@pytest.mark.parametrize("kernels", ["plain", "auto"])
def test_states_that_were_changed_give_no_other_figures(rule, kernels):
    """Where v is kept it is sealed; where it is found when asked for, a change of it changes nothing else."""
    net, x = network(False, learn=("weights",)), spikes()
    untouched = adjsnn.solve(net, x, dt=0.5, adjoint=rule, kernels=kernels)
    expected, speeds = untouched.final_state[0].v.detach().clone(), untouched.layer_speeds(0)
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=rule, kernels=kernels)
    with torch.no_grad():
        sol.v[0].fill_(7.0)
    for figure, wanted in ((lambda: sol.final_state[0].v, expected), (lambda: sol.layer_speeds(0), speeds)):
        try:
            found = figure()
        except ConfigurationError as error:
            assert "sol.v[0]" in str(error)  # noqa: PT017  one of the two
        else:
            torch.testing.assert_close(found.detach(), wanted)

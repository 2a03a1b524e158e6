"""Analog input currents of LIF networks: spikes inside the steps against the scan, gradients against central differences."""

import math
from functools import lru_cache
from typing import Any

import pytest
import torch
from lif_networks import RATIOS, T_END, derivative, direction_along, random_lif, random_spikes, scanned_spikes
from torch import Tensor

import adjsnn
from adjsnn import ConfigurationError, SpikeTrains
from adjsnn.lif.drive import injected
from adjsnn.lif.shapes import lif_layers

STEPS, DT = 24, 2.5
T_SCAN = 20.0
KINDS = ["feedforward", "feedforward_per_synapse", "per_axon", "per_synapse", "no_delay"]
TOLERANCE = 1e-6  # relative, of a directional derivative; the extrapolated differences are good to 1e-8 or so


def network(kind: str, ratio: float = 4.0) -> adjsnn.LIFNetwork:
    return random_lif(
        3, ratio=ratio, recurrent="feedforward" not in kind, per_synapse="per_synapse" in kind, delayed=kind != "no_delay"
    )


def random_currents(seed: int = 7, batch: int = 2, steps: int = STEPS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn(steps, batch, 5, generator=generator, dtype=torch.float64)


def outputs(sol: adjsnn.LIFSolution) -> Tensor:
    """Every spike time and recorded state."""
    return torch.cat([x.reshape(-1) for k in range(2) for x in (sol.spike_times(k), sol.v[k], sol.i[k])])


@lru_cache
def scanned(kind: str, ratio: float) -> list:
    return scanned_spikes(
        network(kind, ratio), random_spikes(3, batch=2), T_SCAN, 0.01, random_currents()[: int(T_SCAN / DT)], DT
    )


@pytest.mark.every(21)
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("kind", KINDS)
def test_spikes_are_those_of_a_dense_scan(kind, ratio, lif_kernels):
    lif, x, u = network(kind, ratio), random_spikes(3, batch=2), random_currents()
    sol = adjsnn.solve(lif, x, currents=u[: int(T_SCAN / DT)], dt=DT, kernels=lif_kernels)
    without = adjsnn.solve(lif, x, t_end=T_SCAN)
    for k, (found, rows) in enumerate(zip(sol.layer_spikes, scanned(kind, ratio), strict=True)):
        for row, other in zip(found.to_list(), rows, strict=True):
            assert [n for _, n in row] == [n for _, n in other]
            # The scan's exponentials of long times round, and a slow crossing divides by its speed.
            assert max(abs(s - t) for (t, _), (s, _) in zip(row, other, strict=True)) < 1e-9
        assert not torch.equal(found.time, without.layer_spikes[k].time)
    assert min(sol.stats.spikes) > 5


@pytest.mark.every(13)
@pytest.mark.parametrize("analog_only", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_central_differences(kind, analog_only, lif_kernels, unchecked_shapes):
    # Not seed 7: there, per synapse, an arrival comes 5e-5 ms after a spike, a kink within the steps of the differences.
    lif, x, u = network(kind), random_spikes(3, batch=2), random_currents(8).requires_grad_()
    time = x.time.clone().requires_grad_()
    leaves = dict(lif.named_parameters()) | {"currents": u}
    if analog_only:  # the bias brings the first layer near its threshold
        lif.bias[0].data += 1.2
        leaves.pop("delays.0", None)
    else:
        leaves["time"] = time

    def solve() -> adjsnn.LIFSolution:
        inputs = u if analog_only else SpikeTrains(x.idx, time, x.n_neurons, x.t_max)
        options = {} if analog_only else {"currents": u}
        return adjsnn.solve(lif, inputs, dt=DT, ts=[0.0, 20.0, 41.0, T_END], kernels=lif_kernels, **options)

    sol = solve()
    neurons = [s.idx for s in sol.layer_spikes]
    assert min(sol.stats.spikes) > 10
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(outputs(sol).shape, generator=generator, dtype=torch.float64)
    found = torch.autograd.grad(weights @ outputs(sol), list(leaves.values()))

    def checked() -> Tensor:
        again = solve()
        assert all(torch.equal(a, s.idx) for a, s in zip(neurons, again.layer_spikes, strict=True))
        return outputs(again)

    for (name, leaf), g in zip(leaves.items(), found, strict=True):
        direction = direction_along(g, generator)
        assert float((g * direction).sum()) == pytest.approx(derivative(checked, weights, leaf, direction), rel=TOLERANCE), name


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_constant_current_is_a_bias(recurrent, lif_kernels):
    """Spikes, states and gradients; dC/db is the sum of dC/du over the steps and samples where W_in is the identity."""
    lif, other = (random_lif(3, recurrent=recurrent, n_in=6) for _ in range(2))
    x = random_spikes(3, batch=2)
    x = SpikeTrains(x.idx, x.time, 6, x.t_max)
    with torch.no_grad():
        for net in (lif, other):
            net.w_in[0].copy_(3.0 * torch.eye(6, dtype=torch.float64))
        other.bias[0].zero_()
    u = (lif.bias[0].detach() / 3.0).expand(STEPS, 2, 6).clone().requires_grad_()
    a = adjsnn.solve(lif, x, t_end=T_END, ts=[13.0, 40.0], kernels=lif_kernels)
    b = adjsnn.solve(other, x, currents=u, dt=DT, ts=[13.0, 40.0], kernels=lif_kernels)
    assert a.stats.spikes == b.stats.spikes
    assert a.stats.min_speed_at_spike == pytest.approx(b.stats.min_speed_at_spike, rel=1e-10)
    # 24 roundings of v in the place of one, over the speed of the slowest spike
    assert torch.allclose(outputs(a), outputs(b), rtol=0.0, atol=1e-11)
    (d_bias, d_mem) = torch.autograd.grad(outputs(a).square().sum(), [lif.bias[0], lif.tau_mem[0]])
    d_u, e_mem = torch.autograd.grad(outputs(b).square().sum(), [u, other.tau_mem[0]])
    assert torch.allclose(d_u.sum((0, 1)) / 3.0, d_bias, rtol=1e-9)
    assert torch.allclose(e_mem, d_mem, rtol=1e-9)


@pytest.mark.every(3)
@pytest.mark.parametrize("kind", KINDS)
def test_half_the_step_is_the_same_input(kind, lif_kernels):
    lif, x, u = network(kind), random_spikes(3, batch=2), random_currents().requires_grad_()
    fine = u.detach().repeat_interleave(2, 0).requires_grad_()
    a = adjsnn.solve(lif, x, currents=u, dt=DT, ts=[13.0, 40.0], kernels=lif_kernels)
    b = adjsnn.solve(lif, x, currents=fine, dt=DT / 2, ts=[13.0, 40.0], kernels=lif_kernels)
    assert all(torch.equal(p.idx, q.idx) for p, q in zip(a.layer_spikes, b.layer_spikes, strict=True))
    assert torch.allclose(outputs(a), outputs(b), rtol=0.0, atol=1e-11)
    d_u, d_w = torch.autograd.grad(outputs(a).square().sum(), [u, lif.w_in[0]])
    d_fine, e_w = torch.autograd.grad(outputs(b).square().sum(), [fine, lif.w_in[0]])
    assert (d_fine.view(STEPS, 2, 2, 5).sum(1) - d_u).abs().max() < 1e-9 * d_u.abs().max()
    assert (d_w - e_w).abs().max() < 1e-9 * d_w.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_fused_loops_and_plain_code_agree(kind):
    lif, x, u = network(kind), random_spikes(3, batch=2), random_currents().requires_grad_()
    found = []
    for kernels in ("fused", "plain"):
        sol = adjsnn.solve(lif, x, currents=u, dt=DT, ts=[13.0, 40.0], kernels=kernels)
        leaves = [u, *lif.parameters()]
        found.append((outputs(sol).detach(), *torch.autograd.grad(outputs(sol).square().sum(), leaves)))
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() <= 1e-9 * b.abs().max()


@pytest.mark.parametrize("kind", ["feedforward", "per_axon"])
def test_a_sample_does_not_depend_on_its_batch_mates(kind):
    lif, u = network(kind), random_currents(batch=40)
    lif.bias[0].data += 0.5
    whole, leaf = adjsnn.solve(lif, u, dt=DT), u.clone().requires_grad_()
    assert min(whole.stats.spikes) > 40
    (g,) = torch.autograd.grad(adjsnn.solve(lif, leaf, dt=DT).spike_times().square().sum(), leaf)
    for b in (0, 17, 39):
        one = u[:, b : b + 1].clone().requires_grad_()
        sol = adjsnn.solve(lif, one, dt=DT)
        row, other = whole.layer_spikes[-1].to_list()[b], sol.layer_spikes[-1].to_list()[0]
        assert [n for _, n in row] == [n for _, n in other]
        # W_in u is a matrix product, which rounds by the shape of the batch; all that follows is the same bits.
        assert max(abs(s - t) for (s, _), (t, _) in zip(row, other, strict=True)) < 1e-12
        (h,) = torch.autograd.grad(sol.spike_times().square().sum(), one)
        assert torch.allclose(h[:, 0], g[:, b], rtol=1e-10)


def test_a_spike_at_the_instant_of_a_change_does_not_see_it(lif_kernels):
    """b + W u = 1.5 alone: v reaches 1 at τ_m log 3; there the step ends. The next, without current, lets v decay."""
    at = 20.0 * math.log(3.0)
    lif = adjsnn.LIFNetwork(1, (1,), dtype=torch.float64)
    with torch.no_grad():
        lif.w_in[0].fill_(1.0)
    first, constant = 2 * at, torch.full((1, 1, 1), 1.5, dtype=torch.float64)
    for _ in range(5):  # a crossing may round differently where the step ends elsewhere
        first = adjsnn.solve(lif, constant, dt=first, kernels=lif_kernels).first_spike_times()[0, 0].item()
    assert first == pytest.approx(at, rel=1e-14)
    u = torch.tensor([1.5, 0.0], dtype=torch.float64).view(2, 1, 1).requires_grad_()
    sol = adjsnn.solve(lif, u, dt=first, kernels=lif_kernels)
    assert sol.layer_spikes[0].to_list() == [[(first, 0)]]
    assert sol.stats.min_speed_at_spike == pytest.approx(0.5 / 20.0, rel=1e-13)
    (g,) = torch.autograd.grad(sol.spike_times().sum(), u)
    # t = τ_m log(u/(u - 1))
    assert g.flatten().tolist() == pytest.approx([20.0 * (1.0 / 1.5 - 1.0 / 0.5), 0.0], rel=1e-12)


def test_float32_is_float64_rounded():
    lif, u = network("per_axon"), random_currents().float()
    single = network("per_axon").float()
    for p, q in zip(lif.parameters(), single.parameters(), strict=True):
        p.data.copy_(q.data)
    a, b = adjsnn.solve(single, u, dt=DT, ts=[20.0]), adjsnn.solve(lif, u.double(), dt=DT, ts=[20.0])
    assert a.v[0].dtype == torch.float32
    for k in range(2):
        assert torch.equal(a.spike_times(k), b.spike_times(k).float())
        assert torch.equal(a.v[k], b.v[k].float())


@pytest.mark.parametrize("kind", [{}, {"receptors": 2}], ids=["ordinary", "generalised"])
def test_figures_of_voltages_in_float32(kind):
    """Equal spikes, so each figure is that in float64 to the rounding of float32, and so is its gradient."""
    sizes: dict[str, Any] = {"learn": ("weights", "bias"), "bias": 0.1, **kind}
    nets = [
        adjsnn.LIFNetwork(5, (4, 3), generator=torch.Generator().manual_seed(2), dtype=dtype, **sizes)
        for dtype in (torch.float32, torch.float64)
    ]
    nets[1].load_state_dict(nets[0].state_dict())
    u, found = 0.5 * random_currents().float(), []
    for lif in nets:
        sol = adjsnn.solve(lif, u.to(lif.w_in[0]), dt=DT)
        assert bool((sol.spike_counts(0) == 0).any())
        figures = [figure(0) for figure in (sol.voltage_max, sol.voltage_gap, sol.voltage_integral)]
        assert all(x.dtype == lif.w_in[0].dtype for x in figures)
        found.append([*figures, *torch.autograd.grad(sum(x.sum() for x in figures), [lif.w_in[0], lif.bias[0]])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_voltage_integral_is_that_of_a_dense_record(recurrent):
    lif, x, u = random_lif(3, recurrent=recurrent, refractory=0.0), random_spikes(3, batch=2), random_currents()
    grid = torch.linspace(0.0, T_END, 24001, dtype=torch.float64)
    sol = adjsnn.solve(lif, x, currents=u, dt=DT, ts=grid)
    for k in range(2):
        dense = torch.trapezoid(sol.v[k], grid, dim=0)
        # A reset inside a step of the grid is off by half the jump times the step at most.
        error = 0.5 * 1.6 * float(grid[1]) * sol.spike_counts(k).max()
        assert (sol.voltage_integral(k) - dense).abs().max() < error


@pytest.mark.every(3)
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("recurrent", [False, True])
def test_the_largest_voltage_under_currents(recurrent, ratio):
    """That of a dense record; its gradient that of differences. Maxima lie inside steps, at their edges and at arrivals."""
    lif, x, u = random_lif(3, recurrent=recurrent, ratio=ratio), random_spikes(3, batch=4), 2.0 * random_currents(batch=4)
    with torch.no_grad():
        lif.w_in[0].mul_(0.15)
        lif.bias[0].mul_(0.2)
    grid = torch.linspace(0.0, T_END, 24001, dtype=torch.float64)
    sol = adjsnn.solve(lif, x, currents=u, dt=DT, ts=grid)
    silent = sol.spike_counts(0) == 0
    assert int(silent.sum()) > 3
    dense, at = (found[silent].detach() for found in sol.v[0].max(0))
    assert ((at * float(grid[1])).remainder(DT) < 1e-9).any()
    torch.testing.assert_close(sol.voltage_max(0)[silent].detach(), dense, rtol=0, atol=2e-4)
    assert bool((sol.voltage_max(0)[silent] > dense - 1e-12).all())
    assert torch.equal(sol.voltage_max(0)[~silent], lif.v_th[0].expand(4, -1)[~silent])

    leaves = {"u": u.requires_grad_(), "w_in": lif.w_in[0], "tau_mem": lif.tau_mem[0], "tau_syn": lif.tau_syn[0]}
    leaves |= {"bias": lif.bias[0], "delays": lif.delays[0]}
    run = lambda: adjsnn.solve(lif, x, currents=u, dt=DT).voltage_max(0).reshape(-1)  # noqa: E731
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(len(run()), generator=generator, dtype=torch.float64)
    for (name, leaf), g in zip(leaves.items(), torch.autograd.grad(weights @ run(), list(leaves.values())), strict=True):
        direction = direction_along(g, generator)
        expected = derivative(run, weights, leaf, direction)
        assert float((g * direction).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-8), name


@pytest.mark.slow
def test_gradcheck_takes_currents(unchecked_shapes):
    lif, x, u = random_lif(3, layers=(4,)), random_spikes(3, batch=2), random_currents()

    def loss(sol):
        return sol.spike_times(0).square().sum()

    for inputs, options in ((x, {"currents": u}), (u + 0.3, {})):
        report = adjsnn.gradcheck(lif, inputs, loss, dt=DT, entries=3, verbose=False, **options)
        assert report.spikes > 10
        row = {row.name: row for row in report.rows}["currents" if options else "u"]
        assert row.norm > 0.0
        assert row.finite_difference <= 1e-6


U = torch.zeros(4, 2, 2)
X = SpikeTrains.from_list([[(1.0, 0)], []], n_neurons=2, t_max=10.0)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (U, {}, "dt=None"),
        (U, {"dt": 0.0}, "dt=0.0"),
        (U, {"dt": -1.0}, "dt=-1.0"),
        (U, {"dt": float("nan")}, "dt=nan"),
        (U, {"dt": True}, "dt=True"),
        (U, {"dt": 1.0, "t_end": 5.0}, "t_end=5.0 for 4 steps of 1 ms.*T dt = 4 ms"),
        (U, {"dt": 1.0, "t_end": -4.0}, "t_end=-4.0"),
        (U, {"dt": 1.0, "ts": [4.5]}, "4.5"),
        (U, {"dt": 1.0, "currents": U}, "two tensors of currents"),
        (U[0], {"dt": 1.0}, r"shape \(2, 2\)"),
        (U[:0], {"dt": 1.0}, r"shape \(0, 2, 2\)"),
        (U[:, :0], {"dt": 1.0}, "an empty batch"),
        (torch.zeros(4, 2, 3), {"dt": 1.0}, r"shape \(4, 2, 3\)"),
        (U.double(), {"dt": 1.0}, "torch.float64"),
        (torch.full((4, 2, 2), float("nan")), {"dt": 1.0}, r"not finite, the first currents\[0, 0, 0\] = nan"),
        (X, {"dt": 1.0, "currents": torch.zeros(4, 3, 2)}, r"shape \(4, 3, 2\)"),
        (X, {"dt": 1.0, "currents": [0.0]}, "currents of type list"),
        (None, {"dt": 1.0, "currents": U}, "type NoneType"),
        (X, {"dt": 1.0}, "dt for a LIF network without analog currents"),
    ],
)
def test_currents_that_cannot_be(inputs, options, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        adjsnn.solve(adjsnn.LIFNetwork(2, (3,)), inputs, **options)
    assert "Try: " in str(caught.value)


def test_the_drive_of_a_sample_is_the_same_bits_in_a_batch_and_alone():
    """One product of all samples rounds some of them otherwise, by the number of its rows; a spike was off by rounding."""
    random = torch.Generator().manual_seed(0)
    for n in range(60):
        steps, batch, n_in, n_hidden = 1 + n, 2 + n % 7, 2 + n % 30, 1 + 2 * n
        net = adjsnn.LIFNetwork(n_in, (n_hidden,), generator=random)
        layer, own = lif_layers(net)[0].kept(), net.structure[0]
        u = torch.randn(steps, batch, n_in, generator=random, dtype=torch.float64)
        together, alone = injected(u, layer, own), injected(u[:, 1:2], layer, own)
        torch.testing.assert_close(together, u @ layer.w_in.double().T)
        assert torch.equal(together[:, 1:2], alone)

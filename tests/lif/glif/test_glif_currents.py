"""Analog currents into layers of several receptors: the sum over receptors is the drive, (6.1)."""

import numpy as np
import pytest
import torch
from dense_scan import scan
from lif_networks import random_spikes
from test_glif_network import everything, rich
from torch import Tensor

import adjsnn
from adjsnn import LIFNetwork
from adjsnn.lif.glif.assemble import assembled
from adjsnn.lif.layer import Trial

F64 = torch.float64
STEPS, DT = 8, 5.0  # 40 ms
BOTH = ["fused", pytest.param("plain", marks=pytest.mark.slow)]
TIMES = [11.3, 29.9]
LEARNT = ("weights", "bias", "tau_syn", "jump_adapt", "jump_th")


def currents(batch: int = 2) -> Tensor:
    return 0.5 + torch.randn(STEPS, batch, 5, generator=torch.Generator().manual_seed(4), dtype=F64)


def driven(**options) -> LIFNetwork:
    """Six recurrent neurons with receptors, adaptation and thresholds on three more, driven to some spikes each."""
    learnt = {"learn": (*LEARNT, "tau_mem")}
    return rich(**({"recurrent": (True, False), "bias": 0.1, "refractory": 1.0} | learnt | options))


def test_spikes_and_states_are_those_of_a_dense_scan():
    lif, u, x = driven(layers=(4,), recurrent=True), currents(), random_spikes(3, batch=2, count=8, t_end=25.0)
    sol = adjsnn.solve(lif, x, currents=u, dt=DT, ts=TIMES)
    assert sol.stats.spikes[0] > 20
    drive = np.einsum("tbm,knm->tbn", u.numpy(), lif.w_in[0].detach().numpy())
    layer = assembled(lif.tensors()[0], lif.structure[0]).arrays()
    trial = Trial(0, STEPS * DT, np.array([*TIMES]), 200, drive, DT * np.arange(1, STEPS))
    for b, found in enumerate(sol.layer_spikes[0].to_list()):
        times, sources = (np.array(column) for column in zip(*x.to_list()[b], strict=True))
        expected = scan(layer, times, sources, np.zeros(4), np.zeros((3, 4)), np.zeros((2, 4)), trial, b)
        assert [n for _, n in found] == expected.neuron.tolist()
        # The scan bisects to 1e-13, and multiplies exponentials of short steps.
        np.testing.assert_allclose([t for t, _ in found], expected.time, rtol=0.0, atol=1e-9)
        np.testing.assert_allclose(sol.v[0][:, b].detach(), expected.v, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("kernels", BOTH)
def test_equal_receptors_that_share_the_weights_are_one(kernels):
    """Of the weights each receptor's gradient is that of the one; of τ_s they add up to its."""
    shares, u = torch.tensor([0.2, 0.5, 0.3], dtype=F64), currents()
    one, three = (driven(receptors=k, tau_syn=4.0) for k in (1, 3))
    with torch.no_grad():
        for name in ("w_in", "w_rec"):
            for w, whole in zip(getattr(three, name), getattr(one, name), strict=True):
                if w is not None:
                    w.copy_(shares[:, None, None] * whole)
    found = []
    for net in (one, three):
        leaf = u.clone().requires_grad_()
        sol = adjsnn.solve(net, leaf, dt=DT, ts=TIMES, kernels=kernels)
        assert min(sol.stats.spikes) > 10
        seen = torch.cat([*(sol.spike_times(k) for k in (0, 1)), *(sol.v[k].flatten() for k in (0, 1))])
        leaves = {"u": leaf, **{name: p for name, p in net.named_parameters() if p.requires_grad}}
        found.append(
            (seen.detach(), dict(zip(leaves, torch.autograd.grad(seen.square().sum(), [*leaves.values()]), strict=True)))
        )
    (seen, g), (again, g_three) = found
    torch.testing.assert_close(again, seen, rtol=0.0, atol=1e-12)
    for name, expected in g.items():
        split = g_three[name].sum(0, keepdim=True) if name.startswith("tau_syn") else g_three[name]
        # The sum of three currents rounds differently, over the speed of slow spikes.
        assert float((split - expected).abs().max()) <= 1e-11 * float(expected.abs().max()), name


@pytest.mark.parametrize("kernels", BOTH)
def test_gradients_are_those_of_central_differences(kernels):
    report = adjsnn.gradcheck(
        driven(layers=(3,), recurrent=True), currents(1), lambda sol: everything(sol).sin().sum(), dt=DT, ts=TIMES,
        kernels=kernels, entries=2, against=("finite_difference",),
    )  # fmt: skip
    assert report.spikes > 10
    assert {"u", "w_in.0", "tau_syn.0"} <= {row.name for row in report.rows}


@pytest.mark.parametrize(
    "options", [{}, {"leak": False, "gain": 1.0, "bias": 0.0}, {"receptors": 3, "tau_syn": [1.0, 4.0, 12.0]}]
)
def test_compiled_loops_and_plain_code_agree(options):
    lif, u, found = driven(learn=LEARNT, **options), currents().requires_grad_(), []
    for kernels in ("fused", "plain"):
        sol = adjsnn.solve(lif, u, dt=DT, ts=TIMES, kernels=kernels)
        assert min(sol.stats.spikes) > 4
        leaves = [u, *(p for p in lif.parameters() if p.requires_grad)]
        found.append((everything(sol).detach(), *torch.autograd.grad(everything(sol).square().sum(), leaves)))
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() <= 1e-11 * b.abs().max()  # as test_glif_cpu, with a layer above


def test_one_receptor_takes_them_as_an_ordinary_layer_to_the_bit():
    plain = {"tau_syn": 4.0, "recurrent": True, "generator": None, "dtype": F64}
    found = []
    for receptors in (None, 1):
        lif = LIFNetwork(5, (6,), receptors=receptors, **(plain | {"generator": torch.Generator().manual_seed(0)}))
        leaf = (3.0 * currents()).requires_grad_()
        sol = adjsnn.solve(lif, leaf, dt=DT)
        assert sol.stats.spikes[0] > 10
        found.append((sol.spike_times(0).detach(), *torch.autograd.grad(sol.spike_times(0).sum(), [leaf, lif.w_in[0]])))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b.reshape(a.shape))


def test_batch_against_singles_and_float32():
    lif, u = driven(), currents(3)
    whole = adjsnn.solve(lif, u, dt=DT)
    for b in range(3):
        rows = (sol.layer_spikes[1].to_list()[k] for sol, k in ((whole, b), (adjsnn.solve(lif, u[:, b : b + 1], dt=DT), 0)))
        for (t, n), (s, m) in zip(*rows, strict=True):
            assert n == m
            assert abs(t - s) < 1e-12  # W_in u is a product, which rounds by the shape of the batch
    single = driven(dtype=torch.float32)
    for p, q in zip(single.parameters(), lif.parameters(), strict=True):
        p.data.copy_(q.data)
    rounded = driven()
    for p, q in zip(rounded.parameters(), single.parameters(), strict=True):
        p.data.copy_(q.data)
    a, b = adjsnn.solve(single, u.float(), dt=DT), adjsnn.solve(rounded, u.float().double(), dt=DT)
    assert a.spike_times(1).dtype == torch.float32
    assert torch.equal(a.spike_times(1), b.spike_times(1).float())


def test_the_integral_and_the_largest_voltage():
    """As of a fine grid: a reset within a step is off by half its jump at most."""
    lif, u = rich((6,), tau_th=None, jump_th=None, scale_adapt=None, gain=0.2), currents()
    grid = torch.linspace(0.0, STEPS * DT, 16001, dtype=F64)
    sol = adjsnn.solve(lif, u, dt=DT, ts=grid)
    silent = sol.spike_counts(0) == 0
    assert sol.stats.spikes[0] > 5
    assert int(silent.sum()) > 2
    dense = torch.trapezoid(sol.v[0], grid, dim=0)
    assert float((sol.voltage_integral(0) - dense).detach().abs().max()) < 0.5 * float(grid[1]) * float(
        sol.spike_counts(0).max()
    )
    assert torch.allclose(sol.voltage_max(0)[silent], sol.v[0].max(0).values[silent], rtol=0.0, atol=1e-4)

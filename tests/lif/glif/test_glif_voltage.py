"""Largest voltages and integrals of generalised layers: against a fine grid of recorded states, and their gradients."""

import pytest
import torch
from lif_networks import random_spikes

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork, Synapses

F64 = torch.float64
KINDS = {
    "receptors": {"receptors": 2, "tau_syn": [3.0, 12.0], "tau_adapt": [30.0], "jump_adapt": [-0.3]},
    "no leak": {"receptors": 2, "tau_syn": [3.0, 12.0], "leak": False, "tau_th": [20.0], "jump_th": [0.3]},
    "equal rates": {"receptors": 2, "tau_syn": [20.0, 5.0], "tau_adapt": [20.0, 20.0], "jump_adapt": [-0.3, 0.1]},
    "adaptive": {"tau_adapt": [30.0], "jump_adapt": [-0.3], "tau_th": [20.0], "jump_th": [0.3], "reset": "by"},
}

# Some neurons of the first layer are silent, those of the second hear others.
QUIET = {"receptors": 0.12, "no leak": 0.04, "equal rates": 0.12, "adaptive": 0.35}


def network(kind: str, scale: float, **options) -> LIFNetwork:
    generator = torch.Generator().manual_seed(3)
    lif = LIFNetwork(
        5, (6, 4), recurrent=(True, False), delays=1.0, rec_delays=0.7, bias=0.01, generator=generator, dtype=F64,
        **{**KINDS[kind], **options},
    )  # fmt: skip
    with torch.no_grad():
        for w in (*lif.w_in, lif.w_rec[0]):
            w.mul_(scale)
    return lif


def start(lif: LIFNetwork, batch: int) -> list:
    generator = torch.Generator().manual_seed(5)
    return [
        s._make((0.3 * torch.rand(x.shape, generator=generator, dtype=F64)).requires_grad_() for x in s)
        for s in lif.initial_state(batch)
    ]


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_voltage_is_that_of_a_fine_grid(kind):
    lif, x = network(kind, QUIET[kind]), random_spikes(3, batch=2, count=8, t_end=25.0)
    ts = torch.linspace(0.0, 30.0, 30_001, dtype=F64)
    sol = adjsnn.solve(lif, x, t_end=30.0, ts=ts, y0=start(lif, 2))
    for k in (0, 1):
        spiking = sol.spike_counts(k) > 0
        grid = torch.where(spiking, 1.0, sol.v[k].amax(0))
        assert not bool(spiking.all())
        found = sol.voltage_max(k)
        assert bool((found >= grid - 1e-12).all())
        torch.testing.assert_close(found, grid, rtol=0.0, atol=1e-4)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.every(4)
@pytest.mark.parametrize("kind", KINDS)
def test_its_gradient(kind):
    learn = ("weights", "bias", "tau_syn", "v_th", "delays") + (() if kind == "no leak" else ("tau_mem",))
    learn += tuple(name for name in ("tau_adapt", "jump_adapt") if name in KINDS[kind])
    lif = network(kind, QUIET[kind], learn=learn)
    x = random_spikes(3, batch=2, count=8, t_end=25.0)[:1]
    y0 = [s._make(part.detach()[:1].clone().requires_grad_() for part in s) for s in start(lif, 2)]
    weights = torch.randn(1, 6, generator=torch.Generator().manual_seed(1), dtype=F64)
    options = {"t_end": 30.0, "y0": y0, "entries": 1, "against": ("finite_difference",)}
    adjsnn.gradcheck(lif, x, lambda sol: (weights * sol.voltage_max(0)).sum() + sol.voltage_max(1).square().sum(), **options)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.every(3)
@pytest.mark.parametrize("kind", ["equal rates", "receptors", "adaptive"])
def test_the_integral(kind):
    learn = ("weights", "bias", "tau_mem", "tau_syn", "v_th", "v_reset", "tau_adapt", "jump_adapt")
    lif, x = network(kind, 1.5, learn=learn), random_spikes(3, batch=2, count=8, t_end=25.0)
    ts = torch.linspace(0.0, 30.0, 60_001, dtype=F64)
    y0 = start(lif, 2)
    sol = adjsnn.solve(lif, x, t_end=30.0, ts=ts, y0=y0)
    assert min(sol.stats.spikes) > 4
    for k in (0, 1):
        torch.testing.assert_close(sol.voltage_integral(k), torch.trapezoid(sol.v[k], ts, dim=0), rtol=0.0, atol=2e-3)
    options = {"t_end": 30.0, "y0": y0, "entries": 2, "against": ("finite_difference",)}
    adjsnn.gradcheck(lif, x, lambda sol: sol.voltage_integral(0).sin().sum() + sol.voltage_integral(1).sum(), **options)


@pytest.mark.usefixtures("unchecked_shapes")
def test_of_currents_and_lists_of_synapses():
    synapses = Synapses(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 2]))
    lif = LIFNetwork(3, 3, synapses=synapses, tau_adapt=[30.0], jump_adapt=[-0.3], dtype=F64)
    with torch.no_grad():
        lif.w_in[0].copy_(torch.tensor([0.4, 0.5, 9.0, -0.2]))
    u = torch.rand(12, 2, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    ts = torch.linspace(0.0, 24.0, 24_001, dtype=F64)
    sol = adjsnn.solve(lif, u, dt=2.0, ts=ts)
    silent = sol.spike_counts() == 0
    assert silent.any(0).tolist() == [True, False, True]
    expected = torch.where(silent, sol.v[0].amax(0), 1.0)
    torch.testing.assert_close(sol.voltage_max(), expected, rtol=0.0, atol=1e-9)  # largest where a step ends, on the grid
    torch.testing.assert_close(sol.voltage_integral(), torch.trapezoid(sol.v[0], ts, dim=0), rtol=0.0, atol=2e-3)
    adjsnn.gradcheck(
        lif, u, lambda s: s.voltage_max().sum() + s.voltage_integral().sum(), dt=2.0, against=("finite_difference",)
    )


def test_integrals_without_a_balance():
    x = random_spikes(3, batch=1, count=8, t_end=25.0)
    for kind, options in (("no leak", {}), ("receptors", {"scale_adapt": [0.9]}), ("adaptive", {"reset": "to"})):
        sol = adjsnn.solve(network(kind, 1.0, **options), x)
        with pytest.raises(ConfigurationError, match="the integral of v of a layer"):
            sol.voltage_integral(0)

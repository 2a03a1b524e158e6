"""Layers whose neurons have time constants of their own: against plain code, the loops for groups and for single neurons."""

import mpmath as mp
import numpy as np
import pytest
import torch
from lif_networks import T_END, random_lif, random_spikes, uniform
from torch import Tensor

import adjsnn
from adjsnn import SpikeTrains
from adjsnn.lif.cpu import loops
from adjsnn.lif.layer import Layer


def network(kind: str, layers: tuple[int, ...] = (19, 3), **options) -> adjsnn.LIFNetwork:
    """τ of one neuron twice another's, or a fifth; of two neurons τ_m and τ_s are equal, and equal but for rounding."""
    lif = random_lif(7, recurrent=kind != "feedforward", per_synapse=False, delayed=kind != "at_once", layers=layers, **options)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tau_mem, tau_syn in zip(lif.tau_mem, lif.tau_syn, strict=True):
            tau_mem.copy_(uniform(generator, 8.0, 25.0, len(tau_mem)))
            tau_syn.copy_(uniform(generator, 2.0, 15.0, len(tau_syn)))
            tau_syn[0] = tau_mem[0]
            tau_syn[1] = tau_mem[1] * (1.0 + 1e-13)
    return lif


def gradients(lif: adjsnn.LIFNetwork, x: SpikeTrains, **options) -> tuple[adjsnn.LIFSolution, dict[str, Tensor]]:
    """Solution and gradients of Σ t² of all spikes, plus recorded voltages and currents, with respect to everything."""
    time = x.time.clone().requires_grad_()
    sol = adjsnn.solve(lif, SpikeTrains(x.idx, time, x.n_neurons, x.t_max), t_end=T_END, ts=[20.0, 50.0], **options)
    parts = [sol.spike_times(k).square().sum() * 1e-3 + sol.v[k].sum() + sol.i[k].sum() for k in range(2)]
    leaves = dict(lif.named_parameters()) | {"time": time}
    found = torch.autograd.grad(parts, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return sol, dict(zip(leaves, found, strict=True))


def close(a: Tensor, b: Tensor, rel: float = 1e-9) -> bool:
    """Equal to a small part of the largest entry; rounding is amplified by slow crossings."""
    return bool((a - b).abs().max() <= rel * b.abs().max())


@pytest.mark.parametrize("kind", ["feedforward", "per_axon", "at_once"])
@pytest.mark.parametrize("currents", [False, True])
def test_fused_loops_and_plain_code_agree(kind, currents):
    """Intervals short and long beside τ, of steps of a drive too; neurons that are held over them."""
    lif, x, options = network(kind), random_spikes(5, batch=3), {}
    if currents:
        u = 0.3 * torch.randn(8, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        options = {"currents": u, "dt": 7.5}
    (fused, a), (plain, b) = (gradients(lif, x, kernels=kernels, **options) for kernels in ("fused", "plain"))
    assert min(fused.stats.spikes) > 20
    for k in range(2):
        assert torch.equal(fused.layer_spikes[k].idx, plain.layer_spikes[k].idx)
        assert close(fused.spike_times(k).detach(), plain.spike_times(k).detach(), 1e-12)
        assert close(fused.v[k].detach(), plain.v[k].detach(), 1e-11)
    for name, g in b.items():
        assert close(a[name], g), name


@pytest.mark.parametrize("kind", ["feedforward", "at_once"])
def test_other_loops_agree(kind, monkeypatch):
    """Those over single neurons or groups of one; more samples than a tile has, and of a recurrent layer more stops."""
    lif, x = network(kind, layers=(37, 3), refractory=0.0), random_spikes(5, batch=31, count=12)
    found, g = gradients(lif, x)
    with monkeypatch.context() as patch:
        patch.setattr(loops, "_typed", lambda layer: layer)
        patch.setattr(loops, "_alike", lambda layer: False)
        judge, h = gradients(lif, x)
    for k in range(2):
        assert torch.equal(found.layer_spikes[k].idx, judge.layer_spikes[k].idx)
        assert close(found.spike_times(k).detach(), judge.spike_times(k).detach(), 1e-12)
    for name in h:
        assert close(g[name], h[name]), name


def test_a_sample_of_a_tile_is_the_same_to_the_bit_alone():
    lif, x = network("feedforward"), random_spikes(5, batch=40)
    whole, _ = gradients(lif, x)
    for b in (0, 17, 39):
        alone, _ = gradients(lif, SpikeTrains(x.idx[b : b + 1], x.time[b : b + 1], x.n_neurons, x.t_max))
        for k in range(2):
            n = alone.layer_spikes[k].time.shape[1]
            assert torch.equal(whole.layer_spikes[k].time[b, :n], alone.layer_spikes[k].time[0])
            assert torch.equal(whole.v[k][:, b], alone.v[k][:, 0])


def test_only_layers_that_profit_are_taken_so():
    def kind(neurons=32, recurrent=True, delays=1, **taus):
        values = {name: np.ones(neurons) for name in Layer._fields} | taus
        values["w_rec"] = np.zeros((neurons, neurons if recurrent else 0))
        values["delays"] = values["rec_delays"] = np.zeros((delays, neurons))
        return type(loops._typed(Layer(**values))).__name__

    own, halves = np.linspace(1.0, 2.0, 32), np.repeat([5.0, 10.0], 16)
    assert kind() == kind(recurrent=False) == "Layer"
    assert kind(tau_mem=own) == kind(tau_syn=own, recurrent=False) == "Unequal"
    assert kind(tau_syn=halves) == "Layer"  # two sets of exponentials
    assert kind(tau_syn=halves, recurrent=False) == "Unequal"  # not one for all lanes
    assert kind(tau_mem=own, delays=32) == "Layer"


def _kernels():
    """Compiled functions of one interval: what loops alone call has no way in from Python."""
    from numba import njit  # noqa: PLC0415

    from adjsnn.lif.cpu import each  # noqa: PLC0415  loads the compiler
    from adjsnn.numerics.compiled import EXACT_BARE, compiled  # noqa: PLC0415

    of_layer, over, weights_over = each.each_of, each.flow_over, each.weights_over

    @compiled(**EXACT_BARE)  # functions that count no references to arrays are called by such alone
    def fill(lanes, t, found):
        e_mem, e_syn, gain = over(lanes, t)
        leak, fed, fading, feeding = weights_over(lanes, t)
        for n in range(found.shape[1]):
            found[0, n], found[1, n], found[2, n] = e_mem[n], e_syn[n], gain[n]
            found[3, n], found[4, n], found[5, n], found[6, n] = leak[n], fed[n], fading[n], feeding[n]

    @njit(error_model="numpy")
    def kernels(layer, t, found):
        fill(of_layer(layer, 2), t, found)

    def computed(layer, t):
        found = np.empty((7, 2 * len(layer.tau_mem)))
        kernels(each.Unequal._make(layer), t, found)
        return found

    return computed


def test_exponentials_and_double_kernels_are_exact_to_some_roundings():
    """The flow of (2.3) and the weights of (2.8), with (2.10) as a series, over intervals short beside both τ and others."""
    random, compute, n, mp.mp.dps = np.random.default_rng(0), _kernels(), 12, 60
    tau_mem = random.uniform(1.0, 30.0, n)
    near = random.random(n) < 0.5
    tau_syn = tau_mem * np.where(near, 1.0 + 10.0 ** random.uniform(-15.0, -1.0, n), 10.0 ** random.uniform(-1.0, 1.0, n))
    tau_syn[0] = tau_mem[0]
    rest = {name: np.zeros((1, n)) for name in Layer._fields} | {"tau_mem": tau_mem, "tau_syn": tau_syn}
    for t in (1e-4, 0.02, 0.3 * min(tau_mem.min(), tau_syn.min()), 1.0, 5.0, 25.0):
        every = compute(Layer(**rest), t)
        for k in range(2 * n):
            m, s, span = mp.mpf(tau_mem[k % n]), mp.mpf(tau_syn[k % n]), mp.mpf(t)
            e_mem, e_syn, kappa = mp.exp(-span / m), mp.exp(-span / s), 1 / s - 1 / m
            conv = (e_mem - e_syn) / kappa if kappa else span * e_mem
            j_mem = (span * e_mem - conv) / kappa if kappa else span**2 * e_mem / 2
            j_syn = (conv - span * e_syn) / kappa if kappa else span**2 * e_mem / 2
            expected = e_mem, e_syn, conv / m
            expected += -span * e_mem / m**2, -(conv - j_mem / m) / m**2, span * e_syn / s**2, j_syn / (m * s**2)
            phase = float(span / min(m, s))  # the phases themselves round
            for j, (found, exact) in enumerate(zip(every, expected, strict=True)):
                scale = conv / m**2 if j == 4 else abs(exact)  # that is the difference of K and J_m/τ_m
                assert abs(float((found[k] - exact) / scale)) <= 2.0**-52 * (16.0 + 8.0 * phase), (j, t, m, s)

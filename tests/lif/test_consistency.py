"""What must not change a result: the code that runs, batch mates, the order of samples and neurons, precision, a long trial."""

import os
import subprocess
import sys

import pytest
import torch
from lif_networks import RATIOS, T_END, derivative, random_lif, random_spikes
from torch import Tensor

import adjsnn
from adjsnn import SpikeTrains
from adjsnn.numerics import threads

KINDS = ["feedforward", "per_axon", "per_synapse"]


def network(kind: str, ratio: float = 4.0, **options) -> adjsnn.LIFNetwork:
    return random_lif(5, ratio=ratio, recurrent=kind != "feedforward", per_synapse=kind == "per_synapse", **options)


def gradients(lif: adjsnn.LIFNetwork, x: SpikeTrains, **options) -> tuple[adjsnn.LIFSolution, dict[str, Tensor]]:
    """Solution and gradients of Σ t² of all spikes, plus recorded voltages, with respect to everything."""
    time = x.time.clone().requires_grad_()
    sol = adjsnn.solve(lif, SpikeTrains(x.idx, time, x.n_neurons, x.t_max), t_end=T_END, ts=[20.0, 50.0], **options)
    total = sum(sol.spike_times(k).square().sum() * 1e-3 + sol.v[k].sum() for k in range(len(lif.layers)))
    leaves = dict(lif.named_parameters()) | {"time": time}
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return sol, dict(zip(leaves, found, strict=True))


def close(a: Tensor, b: Tensor, rel: float = 1e-9) -> bool:
    """Equal to a small part of the largest entry; rounding is amplified by slow crossings."""
    return bool((a - b).abs().max() <= rel * b.abs().max())


@pytest.mark.every(5)
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("kind", KINDS)
def test_fused_loops_and_plain_code_agree(kind, ratio):
    lif, x = network(kind, ratio), random_spikes(5, batch=2)
    (fused, a), (plain, b) = (gradients(lif, x, kernels=kernels) for kernels in ("fused", "plain"))
    for k in range(2):
        assert torch.equal(fused.layer_spikes[k].idx, plain.layer_spikes[k].idx)
        assert close(fused.spike_times(k).detach(), plain.spike_times(k).detach(), 1e-11)
        assert close(fused.v[k].detach(), plain.v[k].detach())
    for name, g in b.items():
        assert close(a[name], g), name


@pytest.mark.parametrize("kind", ["per_axon", "per_synapse"])
def test_neighbours_with_equal_time_constants_share_only_these(kind):
    lif, x = network(kind), random_spikes(5, batch=2)
    with torch.no_grad():  # groups of two and one, some held when their turn comes
        lif.tau_syn[0].copy_(torch.tensor([5.0, 5.0, 12.0, 12.0, 12.0, 5.0]))
        lif.tau_mem[0].copy_(torch.tensor([20.0, 20.0, 20.0, 9.0, 9.0, 20.0]))
    (fused, a), (plain, b) = (gradients(lif, x, kernels=kernels) for kernels in ("fused", "plain"))
    assert close(fused.spike_times(0).detach(), plain.spike_times(0).detach(), 1e-11)
    assert close(fused.v[0].detach(), plain.v[0].detach())
    for name, g in b.items():
        assert close(a[name], g), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_does_not_depend_on_its_batch_mates(kind):
    lif, x = network(kind), random_spikes(5, batch=40)
    whole, g = gradients(lif, x)
    parts = [gradients(lif, SpikeTrains(x.idx[b : b + 1], x.time[b : b + 1], x.n_neurons, x.t_max)) for b in range(40)]
    for k in range(2):
        assert torch.equal(whole.spike_times(k), torch.cat([sol.spike_times(k) for sol, _ in parts]))
        assert torch.equal(whole.v[k], torch.cat([sol.v[k] for sol, _ in parts], 1))
    assert torch.equal(g["time"], torch.cat([part["time"] for _, part in parts]))
    for name in dict(lif.named_parameters()):
        assert close(g[name], torch.stack([part[name] for _, part in parts]).sum(0), 1e-12), name


@pytest.mark.parametrize("kind", KINDS)
def test_samples_in_another_order(kind):
    lif, x = network(kind), random_spikes(5, batch=8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    (a, g), (b, h) = gradients(lif, x), gradients(lif, SpikeTrains(x.idx[order], x.time[order], x.n_neurons, x.t_max))
    assert torch.equal(a.first_spike_times()[order], b.first_spike_times())
    assert torch.equal(g["time"][order], h["time"])
    for name in dict(lif.named_parameters()):
        assert close(g[name], h[name], 1e-12), name


@pytest.mark.parametrize("kind", KINDS)
def test_neurons_in_another_order(kind):
    lif, x = network(kind), random_spikes(5)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    other = network(kind)
    with torch.no_grad():
        for name in ("bias", "tau_mem", "tau_syn", "v_th", "v_reset", "refractory", "w_in"):
            getattr(other, name)[0].copy_(getattr(lif, name)[0][order])
        other.w_in[1].copy_(lif.w_in[1][:, order])
        if kind == "per_synapse":
            other.delays[0].copy_(lif.delays[0][order])
        other.delays[1].copy_(lif.delays[1][..., order])
        if kind != "feedforward":
            other.w_rec[0].copy_(lif.w_rec[0][order][:, order])
            d = lif.rec_delays[0]
            other.rec_delays[0].copy_(d[order][:, order] if kind == "per_synapse" else d[order])
    (a, g), (b, h) = gradients(lif, x), gradients(other, x)
    first = a.first_spike_times(0).detach()[:, order]
    assert torch.equal(first.isinf(), b.first_spike_times(0).isinf())
    assert close(b.first_spike_times(0).detach().nan_to_num(posinf=0.0), first.nan_to_num(posinf=0.0), 1e-12)
    assert close(h["w_in.0"], g["w_in.0"][order])
    assert close(h["w_in.1"], g["w_in.1"][:, order])
    assert close(h["tau_mem.0"], g["tau_mem.0"][order])


@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_float64_rounded(kind):
    """Everything inside is float64, so the only loss is that of the parameters' and results' own rounding."""
    lif, x = network(kind), random_spikes(5)
    single = network(kind).float()
    for p, q in zip(lif.parameters(), single.parameters(), strict=True):
        p.data.copy_(q.data)
    x32 = SpikeTrains(x.idx, x.time.float(), x.n_neurons, x.t_max)
    x64 = SpikeTrains(x.idx, x32.time.double(), x.n_neurons, x.t_max)
    (a, g), (b, h) = gradients(single, x32), gradients(lif, x64)
    for k in range(2):
        assert a.spike_times(k).dtype == torch.float32
        assert torch.equal(a.spike_times(k), b.spike_times(k).float())
    for name in h:
        assert g[name].dtype == torch.float32
        assert close(g[name].double(), h[name], 1e-5), name


@pytest.mark.parametrize("ratio", RATIOS)
def test_longer_trials_do_not_worsen_the_gradient(ratio):
    """Nothing is integrated backward that grows: from 5 to 200 τ_m, the first spike's gradient keeps its error."""
    lif = adjsnn.LIFNetwork(
        2, (3,), tau_mem=5.0 * ratio, bias=0.3, dtype=torch.float64, learn=("weights", "tau_mem", "tau_syn")
    )
    with torch.no_grad():
        lif.w_in[0].copy_(torch.tensor([[7.0, 5.0], [9.0, 4.0], [8.0, 6.0]]))
    tau = 5.0 * ratio
    for length in (5.0, 20.0, 80.0, 200.0):
        t_end = length * tau
        # An early pair of spikes, a silence of the whole trial, a late pair: the costate comes back through the silence.
        events = [(0.0, 0), (1.0, 1), (t_end - 3.0 * tau, 0), (t_end - 2.9 * tau, 1)]
        x = SpikeTrains.from_list([events], n_neurons=2, t_max=t_end, dtype=torch.float64)
        run = lambda x=x, t_end=t_end: adjsnn.solve(lif, x, t_end=t_end)  # noqa: E731
        times = run().spike_times()
        weights = torch.ones_like(times)
        for leaf in (lif.w_in[0], lif.tau_mem[0], lif.tau_syn[0]):
            (g,) = torch.autograd.grad(run().spike_times().sum(), leaf)
            direction = torch.where(g < 0.0, -1.0, 1.0)
            expected = derivative(lambda run=run: run().spike_times(), weights, leaf, direction, 1e-5)
            # The differences' own rounding grows with the times, 1e-16 × 4000 over the step.
            assert float((g * direction).sum()) == pytest.approx(expected, rel=1e-6), length


@pytest.fixture
def two_threads():
    """The other tests run on one."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_threads_do_not_change_a_bit(two_threads, monkeypatch):
    """From run to run on as many threads; another number of them adds the samples' gradients in other groups."""
    monkeypatch.setattr(threads, "SHARE", 1)  # so few samples would be one group, for one thread
    assert len(threads.groups_of(40, 294, 6)) == 8
    lif, x = network("per_axon"), random_spikes(5, batch=40)
    (a, g), (b, h) = gradients(lif, x), gradients(lif, x)
    torch.set_num_threads(1)
    c, k = gradients(lif, x)
    for other in (b, c):
        assert torch.equal(a.spike_times(), other.spike_times())
    assert all(torch.equal(g[name], h[name]) for name in g)
    assert all(close(g[name], k[name]) for name in g)


def test_a_solution_keeps_its_numbers_when_another_is_made():
    lif, x = network("per_axon"), random_spikes(5)
    first, _ = gradients(lif, x)
    kept = [first.spike_times(k).clone() for k in range(2)]
    with torch.no_grad():
        lif.w_in[0].mul_(1.5)
    gradients(lif, x)
    assert all(torch.equal(a, first.spike_times(k)) for k, a in enumerate(kept))


def test_parameters_changed_before_the_backward_pass_leave_the_gradient_of_the_solve():
    lif, x = network("feedforward"), random_spikes(5)
    (expected,) = torch.autograd.grad(adjsnn.solve(lif, x, t_end=T_END).spike_times().sum(), lif.w_in[0])
    sol = adjsnn.solve(lif, x, t_end=T_END)
    with torch.no_grad():
        lif.w_in[0].mul_(1.5)
    sol.spike_times().sum().backward()
    assert torch.equal(lif.w_in[0].grad, expected)


@pytest.mark.slow
def test_loops_stay_within_their_arrays():
    """Without the compiler the loops are Python, and an index out of bounds raises instead of reading what lies there."""
    code = """
import sys, torch, adjsnn
sys.path.insert(0, "tests")
from lif_networks import random_lif, random_spikes
cases = [(kind, own) for kind in ("feedforward", "per_axon", "per_synapse", "no_delay") for own in (False, True)]
for kind, own in cases:
    lif = random_lif(5, recurrent=kind != "feedforward", per_synapse=kind == "per_synapse", delayed=kind != "no_delay")
    if own:
        with torch.no_grad():
            for tau in (*lif.tau_mem, *lif.tau_syn):
                tau.mul_(torch.linspace(0.7, 1.3, len(tau)))
    sol = adjsnn.solve(lif, random_spikes(5), t_end=30.0, ts=[0.0, 20.0, 30.0])
    assert min(sol.stats.spikes) > 10
    (sol.spike_times(0).sum() + sol.spike_times(1).sum() + sol.v[0].sum()).backward()
    u = torch.randn(8, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    sol = adjsnn.solve(lif, random_spikes(5), currents=u, dt=5.0, ts=[0.0, 20.0, 40.0])
    (sol.spike_times(0).sum() + sol.spike_times(1).sum() + sol.v[0].sum()).backward()
"""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("only", ["w_in.1", "bias.0", "tau_syn.1", "time"])
def test_a_gradient_does_not_depend_on_what_else_is_asked_for(kind, only):
    lif, x = network(kind), random_spikes(5)
    _, expected = gradients(lif, x)
    for name, p in lif.named_parameters():
        p.requires_grad_(name == only)
    time = x.time.clone().requires_grad_(only == "time")
    sol = adjsnn.solve(lif, SpikeTrains(x.idx, time, x.n_neurons, x.t_max), t_end=T_END, ts=[20.0, 50.0])
    total = sum(sol.spike_times(k).square().sum() * 1e-3 + sol.v[k].sum() for k in range(2))
    (found,) = torch.autograd.grad(total, time if only == "time" else dict(lif.named_parameters())[only])
    assert torch.equal(found, expected[only])


def test_nothing_is_recorded_without_gradients():
    lif, x = network("per_axon"), random_spikes(5)
    with torch.no_grad():
        sol = adjsnn.solve(lif, x, t_end=T_END)
    assert not sol.spike_times().requires_grad
    assert torch.equal(sol.spike_times(), adjsnn.solve(lif, x, t_end=T_END).spike_times().detach())


@pytest.mark.parametrize("kind", ["feedforward", "per_axon"])
def test_a_spike_without_speed_has_no_derivative(kind):
    """No network is known that rounds to one, so its stored current is made that of a spike with dv/dt = 0."""
    lif, x = network(kind), random_spikes(5)
    sol = adjsnn.solve(lif, x, t_end=T_END)
    run = sol._results[0].run
    neuron = int(run.spikes.neuron[4])
    run.current[4] = float(lif.v_th[0][neuron].detach() - lif.bias[0][neuron].detach())
    assert sol.stats.grazing == [(0, 0, neuron)]
    with pytest.raises(adjsnn.EventError, match=f"the spike of neuron {neuron} of layer 0 in sample 0"):
        sol.spike_times(0).sum().backward()

"""Losses by spike counts and by the largest readout: what their gradients are, and of what."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import adjsnn
from adjsnn import ConfigurationError, SpikeTrains, losses, rules

LABELS = torch.tensor([0, 2, 1, 1])


def network(dtype=torch.float64, **options):
    generator = torch.Generator().manual_seed(3)
    lif = adjsnn.LIFNetwork(6, (12, 3), generator=generator, dtype=dtype, **options)
    with torch.no_grad():
        lif.w_in[1].mul_(0.1)
    return lif


def inputs(dtype=torch.float64):
    return SpikeTrains.poisson(torch.full((4, 6), 60.0, dtype=dtype), 60.0, generator=torch.Generator().manual_seed(1))


def test_the_surrogate_is_the_mean_of_the_count_so_far_and_the_voltage_of_who_is_silent(lif_kernels):
    sol = adjsnn.solve(network(), inputs(), kernels=lif_kernels)
    found = losses.surrogate_spike_count(sol).detach()
    counts, gap = sol.spike_counts(), sol.voltage_gap().detach()
    assert bool((counts == 0).any())
    assert bool((counts > 1).any())
    for sample, events in enumerate(sol.layer_spikes[-1].to_list()):
        for neuron in range(3):
            times = [t for t, k in events if k == neuron]
            by_hand = sum(1.0 - t / sol.t_end for t in times) if times else -float(gap[sample, neuron])
            assert float(found[sample, neuron]) == pytest.approx(by_hand, rel=1e-12)
    assert torch.equal(found > 0.0, counts > 0)
    assert bool((gap[counts == 0] > 0.0).all())
    assert bool((gap[counts > 0] == 0.0).all())


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("body", ["fused", pytest.param("plain", marks=pytest.mark.slow)])
def test_its_gradient_is_that_of_central_differences(body):
    net, x = network(learn=("weights", "v_th", "tau_mem")), inputs()

    def loss(sol):
        return losses.spike_count_cross_entropy(sol, LABELS, scale=2.0)

    adjsnn.gradcheck(net, x, loss, entries=1, kernels=body)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_the_mean_of_its_samples(dtype):
    net, x = network(dtype), inputs(dtype)
    whole = losses.spike_count_cross_entropy(adjsnn.solve(net, x), LABELS)
    single = [losses.spike_count_cross_entropy(adjsnn.solve(net, x[k]), LABELS[k : k + 1]) for k in range(4)]
    assert whole.dtype == dtype
    torch.testing.assert_close(whole, torch.stack(single).mean())


def test_a_silent_layer_has_a_gradient_by_it():
    net, x = network(), inputs()
    with torch.no_grad():
        net.w_in[1].mul_(0.01)
    sol = adjsnn.solve(net, x)
    assert int(sol.spike_counts().sum()) == 0
    losses.spike_count_cross_entropy(sol, LABELS).backward()
    assert float(net.w_in[1].grad.abs().max()) > 0.0
    assert float(net.w_in[0].grad.abs().max()) > 0.0


def test_gated_networks_and_clocks_keep_their_own_count():
    gated = adjsnn.GatedSynapseNetwork(2, 3, 1, neuron=adjsnn.LIF(), dtype=torch.float64)
    u = 8.0 * torch.rand(40, 4, 2, dtype=torch.float64)
    sol = adjsnn.solve(gated, u, dt=0.5)
    assert torch.equal(losses.spike_count_cross_entropy(sol, LABELS), cross_entropy(sol.spike_count(), LABELS))
    clocked = adjsnn.solve(network(), inputs(), dt=0.5, adjoint=rules.SurrogateBPTT())
    assert torch.equal(losses.spike_count_cross_entropy(clocked, LABELS), cross_entropy(clocked.spike_count(), LABELS))
    with pytest.raises(ConfigurationError, match="spike_count, which has a gradient"):
        losses.surrogate_spike_count(clocked)


def test_largest_readout():
    ts = torch.linspace(0.0, 60.0, 31)
    net, x = network(n_out=3), inputs()
    sol = adjsnn.solve(net, x, ts=ts)
    expected = cross_entropy(4.0 * sol.readout.amax(0), LABELS)
    assert torch.equal(losses.readout_max_cross_entropy(sol, LABELS, scale=4.0), expected)
    adjsnn.gradcheck(
        net, x, lambda sol: losses.readout_max_cross_entropy(sol, LABELS, scale=4.0), ts=ts, entries=1, verbose=False
    )
    gated = adjsnn.GatedSynapseNetwork(2, 6, 3, neuron=adjsnn.LIF(), dtype=torch.float64)
    u = 6.0 * torch.rand(60, 4, 2, dtype=torch.float64)
    sol = adjsnn.solve(gated, u, dt=0.5)
    assert torch.equal(losses.readout_max_cross_entropy(sol, LABELS), cross_entropy(sol.readout.amax(0), LABELS))


@pytest.mark.parametrize("labels", [LABELS[:3], LABELS + 1, LABELS.double()])
def test_labels_that_do_not_fit(labels):
    sol = adjsnn.solve(network(n_out=3), inputs(), ts=torch.tensor([30.0]))
    for loss in (losses.spike_count_cross_entropy, losses.readout_max_cross_entropy):
        with pytest.raises(ConfigurationError, match="labels"):
            loss(sol, labels)

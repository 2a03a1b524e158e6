"""The fused loops of a network on a clock against torch's tape: the same spikes, states and gradients."""

import pytest
import torch
from test_clocked import F64, network, spikes

import adjsnn
from adjsnn import ConfigurationError
from adjsnn.lif.cpu import clocked_loops
from adjsnn.lif.structure import LIFState
from adjsnn.rules import (
    Arctangent,
    Boxcar,
    Exponential,
    FastSigmoid,
    FeedbackAlignment,
    RectifiedLinear,
    SurrogateBPTT,
    Triangle,
)

OPTIONS = {
    "plain": {},
    "refractory": {"refractory": 2.0},
    "delays": {"delays": 1.6, "rec_delays": 0.8},
    "per axon": {"delays": (torch.linspace(0.0, 3.0, 5), None), "rec_delays": (torch.linspace(0.5, 4.0, 12), None)},
    "per synapse": {"rec_delays": (torch.linspace(0.5, 4.0, 144).view(12, 12), None), "refractory": 1.0},
}


def found(net, x, u, y0, rule, kernels):
    leaves = [p for p in net.parameters() if p.requires_grad]
    leaves += [u, *(x for state in y0 for x in state)]
    sol = adjsnn.solve(net, x, currents=u, dt=0.5, y0=y0, adjoint=rule, kernels=kernels)
    loss = sol.readout.square().sum()
    for k in range(2):
        for n, part in enumerate((sol.spikes_on_grid(k), sol.v[k], sol.i[k], sol.voltage_max(k), *sol.final_state[k])):
            weight = torch.cos(torch.arange(part.numel(), dtype=part.dtype) + n).view(part.shape)
            loss = loss + (weight * (part + 0.1 * part.square())).sum()
    return sol, dict(zip(range(len(leaves)), torch.autograd.grad(loss, leaves), strict=True))


@pytest.mark.every(4)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("reset", ["to", "by"])
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_they_agree(dtype, reset, through, recurrent, name):
    if not recurrent and name == "per synapse":
        pytest.skip("has recurrent delays alone")
    options = {k: v for k, v in OPTIONS[name].items() if recurrent or k != "rec_delays"}
    net, x = network(recurrent, seed=3, bias=0.3, dtype=dtype, **options), spikes(3, batch=5)
    generator = torch.Generator().manual_seed(0)
    u = (0.3 * torch.rand(120, 5, 5, generator=generator, dtype=F64)).to(dtype).requires_grad_()
    y0 = [
        LIFState(*((0.5 * torch.rand(5, n, generator=generator, dtype=F64)).to(dtype).requires_grad_() for _ in range(2)))
        for n in (12, 3)
    ]
    rule = SurrogateBPTT(FastSigmoid(5.0, normalised=True), reset=reset, through_reset=through)
    (fused, gradients), (plain, expected) = (found(net, x, u, y0, rule, kernels) for kernels in ("fused", "plain"))
    assert (fused.stats.kernel, plain.stats.kernel) == ("fused", "plain")
    assert fused.stats.spikes[1] > 20
    for k in range(2):
        assert torch.equal(fused.spikes_on_grid(k), plain.spikes_on_grid(k))
        for of_fused, of_plain in ((fused.v, plain.v), (fused.i, plain.i)):
            rounding = {"rtol": 1e-12, "atol": 1e-13} if dtype == F64 else {"rtol": 1e-5, "atol": 1e-5}
            torch.testing.assert_close(of_fused[k], of_plain[k], **rounding)
    for n, value in expected.items():
        assert bool(value.any())
        limit = 1e-10 if dtype == F64 else 2e-4
        assert float((gradients[n] - value).norm() / value.norm()) <= limit, n


def test_threads_and_repeated_backward_change_no_bit():
    net, x = network(seed=4), spikes(4, batch=64)
    gradients = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            sol = adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT(Triangle()))
            loss = sol.spike_count().square().sum()
            for _ in range(2):
                gradients.append(torch.autograd.grad(loss, [net.w_in[0], net.tau_mem[0], net.bias[1]], retain_graph=True))
    finally:
        torch.set_num_threads(before)
    for other in gradients[1:]:
        for value, first in zip(other, gradients[0], strict=True):
            torch.testing.assert_close(value, first, rtol=1e-12, atol=1e-14)


def test_a_shape_of_ones_own():
    class Hat(Exponential):
        def shape(self, x):
            return 0.5 * super().shape(x) + 0.5 * super().shape(2.0 * x)

    net, x = network(seed=5), spikes(5)
    gradients = []
    for kernels in ("fused", "plain"):
        sol = adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT(Hat(4.0)), kernels=kernels)
        gradients.append(torch.autograd.grad(sol.spike_count().square().sum(), [net.w_in[0], net.v_th[0]]))
    for value, other in zip(*gradients, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-10, atol=1e-12)


def test_what_was_learnt_meanwhile_changes_nothing():
    nets, gradients = [network(seed=6) for _ in range(2)], []
    for net, learns in zip(nets, (False, True), strict=True):
        sol = adjsnn.solve(net, spikes(6), dt=0.5, adjoint=SurrogateBPTT())
        if learns:
            with torch.no_grad():
                for p in net.parameters():
                    p.add_(0.1)
        loss = sol.readout.square().sum() + sol.voltage_max().sum()
        gradients.append(torch.autograd.grad(loss, list(net.w_in)))
    for value, other in zip(*gradients, strict=True):
        assert torch.equal(value, other)


def test_loops_for_a_gpu_are_refused():
    with pytest.raises(ConfigurationError, match="cuda"):
        adjsnn.solve(network(), spikes(), dt=0.5, adjoint=SurrogateBPTT(), kernels="cuda")


class Steeper(FastSigmoid):
    """A shape of one's own below one that the loops know."""

    def shape(self, x):
        return super().shape(3.0 * x)


@pytest.mark.every(3)
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("shape", [FastSigmoid, Triangle, RectifiedLinear, Exponential, Boxcar, Arctangent, Steeper])
def test_every_shape_is_the_same_in_the_loops(shape, normalised):
    """Known to them or not; in single precision too, where a boxcar's edge must fall to the same side."""
    for dtype, rtol in ((F64, 1e-11), (torch.float32, 1e-4)):
        net, x = network(bias=0.3, dtype=dtype), spikes()
        found = []
        for kernels in ("fused", "plain"):
            sol = adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT(shape(3.0, normalised)), kernels=kernels)
            found.append(torch.autograd.grad(sol.readout.square().sum(), [*net.w_in, *net.w_rec]))
        for own, expected in zip(*found, strict=True):
            assert bool(expected.any())
            torch.testing.assert_close(own, expected, rtol=rtol, atol=rtol * float(expected.abs().max()))
    assert (shape(3.0).loops is None) == (shape in (Exponential, Steeper))


def test_a_shape_that_is_put_in_the_place_of_a_known_one_is_the_one_that_counts(monkeypatch):
    monkeypatch.setattr(FastSigmoid, "shape", lambda self, x: torch.full_like(x, 0.5))
    net, x = network(), spikes()
    found = [
        torch.autograd.grad(
            adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT(), kernels=kernels).readout.square().sum(), [*net.w_in]
        )
        for kernels in ("fused", "plain")
    ]
    for own, expected in zip(*found, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-11, atol=1e-11 * float(expected.abs().max()))


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("delay", [0.0, 1.5, 70.0])
@pytest.mark.parametrize("rate", [30.0, 4000.0])
def test_spikes_one_by_one_and_products_of_matrices_give_the_same(monkeypatch, rate, delay, dtype):
    """Few spikes and many, several of an input in one step, a delay beyond the trial, errors by other weights."""
    net, x = network(False, seed=7, bias=0.3, dtype=dtype, delays=(0.0, delay)), spikes(7, batch=20, rate=rate)
    assert rate < 1000.0 or int(x.counts().max()) > 60.0 / 0.5
    seen = []
    listing = clocked_loops._one_by_one
    monkeypatch.setattr(clocked_loops, "_one_by_one", lambda *given: seen.append(listing(*given)) or seen[-1])
    for rule in (SurrogateBPTT(through_reset=True), FeedbackAlignment()):
        found = []
        for few in (1.0, 0.0):
            monkeypatch.setattr(clocked_loops, "FEW", few)
            seen.clear()
            sol = adjsnn.solve(net, x, dt=0.5, adjoint=rule)
            assert [len(sent.neuron) > 0 for sent in seen] == [few > 0.0, few > 0.0]
            cost = sol.readout.square().sum() + sum(sol.i[k].square().sum() + sol.v[k].sum() for k in range(2))
            inner = [sol.spikes_on_grid(k) for k in range(2)]
            leaves = [p for p in net.parameters() if p.requires_grad]
            found.append([*sol.i, *sol.v, *torch.autograd.grad(cost, [*inner, *leaves])])
        limit = 1e-12 if dtype == F64 else 1e-4  # of sums in another order
        for own, other in zip(*found, strict=True):
            assert float((own - other).detach().norm()) <= limit * float(other.detach().norm())


@pytest.mark.parametrize("thin", [0, 16])
def test_gradients_of_the_first_layer_come_through_thin_weights_and_others(monkeypatch, thin):
    monkeypatch.setattr(clocked_loops, "THIN", thin)
    net, x = network(seed=8), spikes(8)
    found = []
    for kernels in ("fused", "plain"):
        sol = adjsnn.solve(net, x, dt=0.5, adjoint=SurrogateBPTT(), kernels=kernels)
        found.append(torch.autograd.grad(sol.spike_count().square().sum(), [net.w_in[0], net.w_rec[0]]))
    for own, expected in zip(*found, strict=True):
        assert bool(expected.any())
        torch.testing.assert_close(own, expected, rtol=1e-11, atol=1e-11 * float(expected.abs().max()))

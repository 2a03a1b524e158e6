"""Feedback alignment and direct feedback alignment: backpropagation where the matrices are those of the weights."""

import copy

import pytest
import torch
from test_clocked import F64, network, spikes

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork
from adjsnn.rules import DirectFeedbackAlignment, FeedbackAlignment, SurrogateBPTT, Triangle

SHAPE = Triangle(2.0)


def three_layers(recurrent: bool = True, n_out: int | None = None, seed: int = 0, dtype: torch.dtype = F64) -> LIFNetwork:
    net = LIFNetwork(
        5, (10, 8, 3), recurrent, n_out=n_out, learn=("weights", "bias"), dtype=dtype, bias=0.4,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    return net


def loss(sol):
    weight = torch.linspace(0.5, 1.5, sol.spikes_on_grid().numel(), dtype=sol.ts.dtype).view(sol.spikes_on_grid().shape)
    if sol._readout is not None:
        return sol.readout.square().sum()
    return (weight * sol.spikes_on_grid()).sum() + sol.v[-1].square().sum()


def gradients(net, x, rule, kernels="auto", **options):
    leaves = {name: p for name, p in net.named_parameters() if p.requires_grad}
    value = loss(adjsnn.solve(net, x, dt=0.5, adjoint=rule, kernels=kernels, **options))
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def close(found, expected, names=None):
    for name in expected if names is None else names:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-11, msg=name)


@pytest.mark.parametrize("kernels", ["fused", "plain"])
@pytest.mark.parametrize("n_out", [None, 2])
def test_alignment_through_the_weights_is_backpropagation(n_out, kernels):
    net, x = three_layers(n_out=n_out), spikes()
    weights = [*net.w_in[1:], *([] if net.w_out is None else [net.w_out])]
    aligned = FeedbackAlignment(SHAPE, matrices=[*weights, *net.w_rec])
    kept = FeedbackAlignment(SHAPE, recurrent="exact", matrices=weights)
    expected = gradients(net, x, SurrogateBPTT(SHAPE), kernels)
    assert all(bool(g.any()) for g in expected.values())
    for rule in (aligned, kept):
        close(gradients(net, x, rule, kernels), expected)


@pytest.mark.parametrize("kernels", ["fused", "plain"])
def test_direct_alignment_through_the_product_is_backpropagation(kernels):
    """Of two layers: the error of the output's currents through w_in of the last; of one, through w_out."""
    two, x = network(False, seed=1, n_out=None), spikes(1)
    rule = DirectFeedbackAlignment(SHAPE, matrices=[two.w_in[1]])
    close(gradients(two, x, rule, kernels), gradients(two, x, SurrogateBPTT(SHAPE), kernels))
    one = LIFNetwork(5, 12, True, n_out=2, dtype=F64, bias=0.4, generator=torch.Generator().manual_seed(0))
    rule = DirectFeedbackAlignment(SHAPE, recurrent="exact", matrices=[one.w_out])
    close(gradients(one, x, rule, kernels), gradients(one, x, SurrogateBPTT(SHAPE), kernels))


@pytest.mark.parametrize("rule", [FeedbackAlignment, DirectFeedbackAlignment])
@pytest.mark.parametrize("recurrent", ["random", "cut", "exact"])
def test_loops_and_tape_agree_and_the_matrices_stay(rule, recurrent):
    for n_out in (None, 2):
        net, x = three_layers(n_out=n_out), spikes()
        fused, again, plain = (gradients(net, x, rule(SHAPE, recurrent=recurrent), k) for k in ("fused", "fused", "plain"))
        close(fused, plain)
        close(again, fused)
        other = gradients(net, x, rule(SHAPE, recurrent=recurrent, seed=1))
        assert not torch.allclose(other["w_in.0"], fused["w_in.0"])
        exact = gradients(net, x, SurrogateBPTT(SHAPE))
        assert not torch.allclose(fused["w_in.0"], exact["w_in.0"])
        if n_out is None and recurrent == "exact":  # the last layer knows its own error
            close(fused, exact, ["w_in.2", "w_rec.2", "bias.2"])


def test_what_is_cut_carries_nothing():
    """Written out for feed-forward layers: no error, no gradient; for recurrent ones the gradient of what is on the tape."""
    net, x = three_layers(False), spikes()
    nothing = [torch.zeros(3, n, dtype=F64) for n in (10, 8)]
    found = gradients(net, x, DirectFeedbackAlignment(SHAPE, matrices=nothing))
    assert not bool(found["w_in.0"].any())
    assert not bool(found["w_in.1"].any())
    assert bool(found["w_in.2"].any())


def test_it_learns():
    """A rule for what it is for: the loss of a small task falls, with errors that know no weight."""
    for rule in (FeedbackAlignment(), DirectFeedbackAlignment()):
        net, x = network(False, seed=2, learn=("weights",)), spikes(2, batch=8)
        wanted = 0.1 * torch.stack([torch.linspace(0, 1, 121), torch.linspace(1, 0, 121)], 1)[:, None].double().expand(
            -1, 8, -1
        )
        optimiser, losses = torch.optim.Adam(net.parameters(), 0.02), []
        for _ in range(40):
            optimiser.zero_grad()
            value = adjsnn.losses.normalised_cost(adjsnn.solve(net, x, dt=0.5, adjoint=rule), wanted)
            value.backward()
            optimiser.step()
            losses.append(float(value.detach()))
        assert losses[-1] < 0.5 * losses[0], losses


def test_single_precision_has_the_same_matrices():
    x = spikes()
    double, single = (three_layers(False, dtype=dtype) for dtype in (F64, torch.float32))
    with torch.no_grad():
        for p, q in zip(single.parameters(), double.parameters(), strict=True):
            q.copy_(p.double())
    found = [gradients(net, x, FeedbackAlignment(SHAPE))["w_in.0"].double() for net in (single, double)]
    assert float((found[0] - found[1]).norm() / found[1].norm()) < 1e-3


@pytest.mark.parametrize("rule", [FeedbackAlignment(SHAPE), DirectFeedbackAlignment(SHAPE)])
def test_batches_of_cotangents(rule):
    net, x = three_layers(False, n_out=2), spikes()
    sol = adjsnn.solve(net, x, dt=0.5, adjoint=rule)
    cotangents = torch.randn(2, *sol.readout.shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    (together,) = torch.autograd.grad(sol.readout, net.w_in[0], cotangents, is_grads_batched=True, retain_graph=True)
    for value, cotangent in zip(together, cotangents, strict=True):
        (one,) = torch.autograd.grad(sol.readout, net.w_in[0], cotangent, retain_graph=True)
        torch.testing.assert_close(value, one)


def test_rules_with_matrices_can_be_compared_and_copied():
    rule = FeedbackAlignment(matrices=[torch.zeros(2, 2)])
    same = rule
    assert rule == same
    assert copy.deepcopy(rule) != rule


BAD = {
    "no list": (lambda net: FeedbackAlignment(matrices=5), "matrices of type int"),
    "too few": (lambda net: FeedbackAlignment(matrices=[net.w_in[1]]), "matrices of the shapes"),
    "a shape": (lambda net: DirectFeedbackAlignment(matrices=[torch.zeros(2, 2), torch.zeros(3, 8)]), "matrices of the shapes"),
    "a tensor": (lambda net: FeedbackAlignment(matrices=torch.zeros(2, 2)), "matrices of type Tensor"),
    "recurrent": (lambda net: FeedbackAlignment(recurrent="none"), "recurrent='none'"),
    "reset": (lambda net: DirectFeedbackAlignment(reset="up"), "reset='up'"),
    "seed": (lambda net: FeedbackAlignment(seed=-1), "seed"),
    "scale": (lambda net: FeedbackAlignment(scale=0.0), "scale"),
    "surrogate": (lambda net: FeedbackAlignment("triangle"), "surrogate"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    rule, message = BAD[case]
    net = three_layers(False)
    with pytest.raises(ConfigurationError, match=message):
        gradients(net, spikes(), rule(net))

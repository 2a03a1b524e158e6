"""Pruned and normalised weights train as those of torch's own modules do."""

import pytest
import torch
from small_solves import Ball, gated, lif
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm

import adjsnn

F64 = torch.float64
WEIGHTS = {
    "gated w_rec": (gated, lambda net: (net, "w_rec")),
    "gated w_out": (gated, lambda net: (net, "w_out")),
    "lif w_in": (lif, lambda net: (net.w_in, "0")),
    "lif w_rec": (lambda: lif(recurrent=True), lambda net: (net.w_rec, "0")),
    "lif w_out": (lif, lambda net: (net, "w_out")),
}
OLD = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


def _two_steps(case, tensors, mask=None):
    """Losses before two steps of descent and after, and the gradients of the first step."""
    losses, first = [], None
    optimiser = torch.optim.SGD(tensors, lr=1e-7)
    for _ in range(2):
        optimiser.zero_grad()
        loss = case.value().square().mean()
        loss.backward()
        losses.append(loss.item())
        if mask is not None:
            tensors[0].grad *= mask
        first = [x.grad.clone() for x in tensors] if first is None else first
        optimiser.step()
    return [*losses, case.value().square().mean().item()], first


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_pruned_weight_trains_as_one_whose_gradient_is_masked(name):
    make, where = WEIGHTS[name]
    pruned, plain = make(), make()
    module, key = where(pruned.module)
    prune.l1_unstructured(module, key, amount=0.4)
    mask, weight = getattr(module, f"{key}_mask"), getattr(*where(plain.module))
    with torch.no_grad():
        weight *= mask
    losses, (gradient,) = _two_steps(pruned, [getattr(module, f"{key}_orig")])
    expected, (masked,) = _two_steps(plain, [weight], mask)
    assert losses == expected
    assert torch.equal(gradient, masked)
    assert losses[0] != losses[1] != losses[2]
    assert 0 < int((mask == 0).sum()) < mask.numel()
    assert bool(masked.any())


@OLD
@pytest.mark.parametrize("name", WEIGHTS)
def test_the_older_weight_norm_trains_as_the_parametrization_does(name):
    make, where = WEIGHTS[name]
    old, new = make(), make()
    module, key = where(old.module)
    nn.utils.weight_norm(module, key)
    other, _ = where(new.module)
    parametrizations.weight_norm(other, key)
    losses, gradients = _two_steps(old, [getattr(module, f"{key}_g"), getattr(module, f"{key}_v")])
    parts = other.parametrizations[key]
    expected, judged = _two_steps(new, [parts.original0, parts.original1])
    assert losses == expected
    assert losses[0] != losses[1] != losses[2]
    for a, b in zip(gradients, judged, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["gated w_out", "lif w_in"])
def test_the_gradient_through_the_older_spectral_norm_is_that_of_differences(name):
    make, where = WEIGHTS[name]
    case = make()
    module, key = where(case.module)
    torch.manual_seed(0)  # for the vectors that its power iterations start from
    spectral_norm(module, key)
    case.value()
    case.module.eval()  # no more power iterations
    weight = getattr(module, f"{key}_orig")
    direction = torch.randn(weight.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(case.value().square().mean(), weight)
    costs = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):  # smaller, and the cost's rounding shows where the gradient happens to be small
            weight += step * direction
            costs.append(float(case.value().square().mean()))
    assert (costs[0] - costs[1]) / 2e-5 == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


@OLD
@pytest.mark.parametrize("change", [prune.identity, nn.utils.weight_norm])
def test_a_system_whose_own_weight_no_call_computes_anew_is_refused(change):
    class Linear(adjsnn.HybridSystem):
        def __init__(self):
            super().__init__()
            self.k = nn.Parameter(torch.ones(2, 2, dtype=F64))

        def vector_field(self, t, y, u):
            return -y @ self.k.T

    system = Linear()
    change(system, "k")
    with pytest.raises(adjsnn.ConfigurationError, match=r"^k, .*torch\.nn\.utils\.parametrize"):
        adjsnn.solve(system, None, y0=torch.ones(1, 2, dtype=F64), ts=torch.tensor([0.0, 1.0]))
    assert (
        adjsnn.solve(Ball(), None, y0=torch.ones(1, 2, dtype=F64), ts=torch.tensor([0.0, 0.1]), method="dopri5")
        .y.isfinite()
        .all()
    )


def test_a_pruned_layer_that_the_field_calls_trains_as_one_whose_gradient_is_masked():
    class Layered(adjsnn.HybridSystem):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2, dtype=F64)
            with torch.no_grad():
                self.layer.weight.copy_(torch.tensor([[0.5, -0.1], [0.2, -0.7]]))
                self.layer.bias.zero_()

        def vector_field(self, t, y, u):
            return torch.tanh(self.layer(y))

    def cost(system):
        return adjsnn.solve(system, None, y0=torch.ones(1, 2, dtype=F64), ts=torch.tensor([0.0, 1.0], dtype=F64)).y.sum()

    pruned, plain = Layered(), Layered()
    prune.l1_unstructured(pruned.layer, "weight", amount=1)
    mask = pruned.layer.weight_mask
    with torch.no_grad():
        plain.layer.weight *= mask
    for _ in range(2):
        (found,) = torch.autograd.grad(cost(pruned), pruned.layer.weight_orig)
        (expected,) = torch.autograd.grad(cost(plain), plain.layer.weight)
        assert torch.equal(found, expected * mask)
        with torch.no_grad():
            pruned.layer.weight_orig -= found
            plain.layer.weight -= found

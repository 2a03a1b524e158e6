"""Where solves meet torch's autograd: one cotangent or many, layouts, second derivatives, checkpointing around a solve."""

from importlib import import_module

import pytest
import torch
from small_solves import CASES, TAPED, gradients, lif
from torch import nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import adjsnn

F64 = torch.float64
# Said by torch of itself, when forward differentiation is first used.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
# One of each connection to torch; the others run with `make test-slow`.
FAST = ("gated", "gated, checkpoints", "lif", "lif, recurrent, currents", "smooth", "hybrid")
EVERY = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_laid_out_as_their_tensors(name):
    case = CASES[name]()
    for key, found in gradients(case).items():
        assert found.stride() == case.wanted[key].stride(), key
        assert found.view(-1).shape == (found.numel(),)


@pytest.mark.parametrize("name", ["gated", "gated, checkpoints", "lif", "smooth"])
def test_gradients_of_tensors_that_are_not_contiguous_are_laid_out_as_these(name):
    make = CASES[name] if name != "lif" else lambda: lif(read=False)
    plain, turned = make(), make()
    expected = gradients(plain)
    for key, tensor in turned.wanted.items():
        if tensor.dim() > 1 and key != "times":  # whose gradient torch's own indexing lays out
            tensor.data = tensor.data.transpose(0, -1).contiguous().transpose(0, -1)
    for key, found in gradients(turned).items():
        assert found.stride() == turned.wanted[key].stride(), key
        torch.testing.assert_close(found, expected[key], rtol=1e-10, atol=1e-12)
    assert any(not x.is_contiguous() for x in turned.leaves)


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_tensors_that_are_not_contiguous_need_no_loops_of_their_own(method):
    net = adjsnn.GatedSynapseNetwork(3, 4, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    u = torch.rand(3, 5, 7, dtype=F64).transpose(0, 2).requires_grad_()
    adjsnn.solve(net, u, dt=0.5, method=method).readout.sum().backward()
    loops = import_module("adjsnn.gated.cpu.euler_adjoint" if method == "euler" else "adjsnn.gated.cpu.runge_kutta_adjoint")
    arrays = [x for signature in loops.backward.signatures for part in signature for x in getattr(part, "types", ())]
    arrays = [x for x in arrays if hasattr(x, "layout")]
    assert arrays
    assert {x.layout for x in arrays} == {"C"}


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_of_cotangents_gives_the_gradient_of_each(name):
    case = CASES[name]()
    value = case.value()
    rows = torch.randn(3, len(value), dtype=F64, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad(value, case.leaves, rows, is_grads_batched=True, retain_graph=True, allow_unused=True)
    for k, row in enumerate(rows):
        singly = torch.autograd.grad(value, case.leaves, row, retain_graph=True, allow_unused=True)
        for key, batch, single in zip(case.wanted, found, singly, strict=True):
            assert (batch is None) == (single is None), key
            if single is not None:
                torch.testing.assert_close(batch[k], single, rtol=1e-12, atol=1e-14, msg=key)
    assert bool(found[0].any())


def test_a_vectorised_jacobian_is_the_one_row_by_row():
    case = CASES["gated"]()
    u = case.wanted["u"].detach()[:20]

    def readout(u):
        return adjsnn.solve(case.module, u, dt=0.5).readout[-1]

    by_row, vectorised = (torch.autograd.functional.jacobian(readout, u, vectorize=v) for v in (False, True))
    assert by_row.shape == (2, 3, 20, 2, 2)
    assert bool(by_row.any())
    torch.testing.assert_close(vectorised, by_row, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["gated", "lif"])
def test_a_gradient_under_vmap_is_the_gradient_of_each_cotangent(name):
    case = CASES[name]()
    value = case.value()
    rows = torch.randn(2, len(value), dtype=F64, generator=torch.Generator().manual_seed(0))

    def pulled(row):
        return torch.autograd.grad(value, case.leaves[:2], row, retain_graph=True)

    for found, *singly in zip(torch.vmap(pulled)(rows), *(pulled(row) for row in rows), strict=True):
        torch.testing.assert_close(found, torch.stack(singly), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", EVERY)
def test_the_gradient_of_a_gradient_is_refused_at_the_first(name):
    case = CASES[name]()
    with pytest.raises(adjsnn.ConfigurationError, match=r"create_graph=True.*BPTT"):
        torch.autograd.grad(case.value().square().sum(), case.leaves, create_graph=True, allow_unused=True)


@pytest.mark.parametrize(
    "name", ["gated, BPTT", pytest.param("gated, rk4, BPTT", marks=pytest.mark.slow), "smooth, BPTT", "hybrid, BPTT"]
)
def test_second_derivatives_on_the_tape_are_those_of_differences(name):
    case = TAPED[name]()
    random = torch.Generator().manual_seed(1)
    directions = [torch.randn(x.shape, dtype=F64, generator=random) for x in case.leaves]

    def slope(create_graph):
        found = torch.autograd.grad(case.value().square().sum(), case.leaves, create_graph=create_graph, allow_unused=True)
        return sum((g * d).sum() for g, d in zip(found, directions, strict=True) if g is not None)

    second = torch.autograd.grad(slope(True), case.leaves, allow_unused=True)
    predicted = float(sum((g * d).sum() for g, d in zip(second, directions, strict=True) if g is not None))
    slopes = []
    for step in (3e-7, -6e-7):
        for x, d in zip(case.leaves, directions, strict=True):
            x.data += step * d
        slopes.append(float(slope(False)))
    assert predicted == pytest.approx((slopes[0] - slopes[1]) / 6e-7, rel=1e-5)
    assert predicted != 0.0


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_a_solve_inside_torch_checkpoint_has_the_same_gradient(name, reentrant):
    case = CASES[name]()
    expected = gradients(case)

    class Inside:
        module, wanted, leaves = case.module, case.wanted, case.leaves

        @staticmethod
        def value():
            if reentrant:  # which wants an argument that needs a gradient, and looks at no other tensor
                return checkpoint(lambda _: case.value(), torch.zeros((), requires_grad=True), use_reentrant=True)
            return checkpoint(case.value, use_reentrant=False)

    if reentrant:
        value = Inside.value()
        value.backward(torch.cos(torch.arange(len(value), dtype=F64)))
        found = {key: torch.zeros_like(x) if x.grad is None else x.grad for key, x in case.wanted.items()}
    else:
        found = gradients(Inside)
    for key, x in expected.items():
        assert torch.equal(found[key], x), key


@pytest.mark.parametrize("name", EVERY)
def test_a_second_pass_and_saved_tensor_hooks_leave_the_gradient_as_it_is(name):
    case = CASES[name]()
    expected = gradients(case)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.detach().clone(), lambda x: x):
        value = case.value()
    weights = torch.cos(torch.arange(len(value), dtype=F64))
    for last in (False, False, True):
        found = torch.autograd.grad(value, case.leaves, weights, retain_graph=not last, allow_unused=True)
        for (key, x), g in zip(expected.items(), found, strict=True):
            assert torch.equal(torch.zeros_like(x) if g is None else g, x), key


def _parameter_of(case):
    """The name of a parameter, and the cost as a function of it."""
    name = next(key for key, _ in case.module.named_parameters() if key in case.wanted)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = case.module

        def forward(self):
            return case.value().square().mean()

    whole = Whole()
    return case.wanted[name].detach(), lambda x: torch.func.functional_call(whole, {f"module.{name}": x}, ())


TRANSFORMS = {
    "grad": torch.func.grad,
    "vjp": lambda f: lambda x: torch.func.vjp(f, x),
    "jacrev": torch.func.jacrev,
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (x,)),
    "hessian": torch.func.hessian,
    "vmap": lambda f: lambda x: torch.vmap(f)(torch.stack([x, x])),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", ["gated", "gated, checkpoints", "lif", "smooth", "hybrid"])
def test_transforms_of_torch_func_are_refused_with_what_works(name, transform):
    x, cost = _parameter_of(CASES[name]())
    with pytest.raises(adjsnn.ConfigurationError, match=r"torch\.func.*torch\.autograd\.functional\.jacobian"):
        TRANSFORMS[transform](cost)(x)


@pytest.mark.parametrize("name", ["gated", "gated, checkpoints", "lif"])
def test_a_solve_of_plain_tensors_inside_a_transform_is_refused(name):
    case = CASES[name]()
    with pytest.raises(adjsnn.ConfigurationError, match=r"inside a transform of torch\.func"):
        torch.vmap(lambda k: k * case.value().sum())(torch.ones(2))


def test_a_solve_on_the_tape_may_be_a_constant_inside_a_transform():
    case = TAPED["gated, BPTT"]()
    expected = case.value().sum().detach()
    found = torch.vmap(lambda k: k * case.value().sum())(torch.arange(3.0, dtype=F64))
    torch.testing.assert_close(found.detach(), expected * torch.arange(3.0, dtype=F64), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("name", [*FAST, "torchdiffeq"])
def test_forward_differentiation_is_refused(name):
    x, cost = _parameter_of({**CASES, **TAPED}[name]())
    with (
        forward_ad.dual_level(),
        pytest.raises(adjsnn.ConfigurationError, match=r"forward-mode differentiation.*reverse mode.*BPTT"),
    ):
        cost(forward_ad.make_dual(x, torch.ones_like(x)))


@pytest.mark.parametrize("name", ["gated, BPTT", "smooth, BPTT", "hybrid, BPTT"])
def test_forward_differentiation_passes_through_the_tape(name):
    case = TAPED[name]()
    x, cost = _parameter_of(case)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(cost(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cost(y), y)
    assert float(tangent.detach()) == pytest.approx(float(gradient.sum()), rel=1e-10)


def test_jacobians_and_hessians_that_need_what_an_adjoint_has_not_are_refused():
    case = CASES["gated"]()
    u = case.wanted["u"].detach()[:20]

    def cost(u):
        return adjsnn.solve(case.module, u, dt=0.5).readout[-1].square().sum()

    with pytest.raises(adjsnn.ConfigurationError, match="forward-mode"):
        torch.autograd.functional.jacobian(cost, u, strategy="forward-mode", vectorize=True)
    with pytest.raises(adjsnn.ConfigurationError, match="create_graph=True"):
        torch.autograd.functional.hessian(cost, u)

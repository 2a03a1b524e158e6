"""The loops of equations against torch's operations, the same equations as a system written in Python, and differences."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import adjsnn
from tests.equations.systems import SYSTEMS, Case, izhikevich, network, rates


def solved(case: Case, **options: Any) -> tuple[Any, list[Tensor]]:
    """A solution, and the gradients of a loss of its states and event times."""
    case.system.zero_grad()
    y0 = case.y0.detach().clone().requires_grad_()
    u = None if case.u is None else case.u.clone().requires_grad_()
    sol = adjsnn.solve(case.system, u, **{**case.options, "y0": y0, **options})
    times = sol.event_times
    weights = torch.arange(1.0, 1.0 + times.shape[1], dtype=times.dtype)
    loss = (sol.y**2).mean() + (torch.where(times.isfinite(), times, 0.0) * weights).sum() / 100.0
    loss.backward()
    leaves = [y0, *([] if u is None else [u]), *case.system.parameters()]
    return sol, [x.grad.clone() for x in leaves]  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize("make", SYSTEMS.values(), ids=SYSTEMS)
def test_the_same_steps_states_and_gradients_as_torch(make: Callable[[], Case]):
    case = make()
    ours, gradients = solved(case, kernels="fused")
    theirs, expected = solved(case, kernels="plain")
    assert (ours.stats.kernel, theirs.stats.kernel) == ("fused", "plain")
    assert ours.stats.rejected.tolist() == theirs.stats.rejected.tolist()
    assert ours.event_index.tolist() == theirs.event_index.tolist()
    for name in ("times", "lengths", "interval", "output", "rows"):
        torch.testing.assert_close(getattr(ours.stats.taken, name), getattr(theirs.stats.taken, name), rtol=1e-12, atol=1e-13)
    # The order of sums in a product of a matrix is another.
    torch.testing.assert_close(ours.y, theirs.y, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(ours.readout, theirs.readout, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(ours.event_times, theirs.event_times, rtol=1e-12, atol=0.0)
    for ours_, theirs_ in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-10, atol=1e-11 * float(theirs_.abs().max()))


@pytest.mark.parametrize("method", ["euler", "heun", "rk4"])
def test_fixed_steps(method: str):
    case = rates()
    ours, gradients = solved(case, method=method, kernels="fused")
    theirs, expected = solved(case, method=method, kernels="plain")
    torch.testing.assert_close(ours.y, theirs.y, rtol=1e-13, atol=1e-14)
    for ours_, theirs_ in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("make", [izhikevich, network, rates])
def test_checkpoints_change_nothing(make: Callable[[], Case]):
    case = make()
    _, expected = solved(case)
    sol, gradients = solved(case, adjoint=adjsnn.DiscreteAdjoint(checkpoints="sqrt"))
    assert sol.stats.kernel == "fused"
    for ours, theirs in zip(gradients, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_batch_is_its_samples():
    case = izhikevich(4)

    def of(system: adjsnn.Equations, rows: slice) -> tuple[Any, Tensor]:
        assert case.u is not None
        y0 = case.y0[rows].detach().clone().requires_grad_()
        sol = adjsnn.solve(system, case.u[:, rows], **case.options, y0=y0)
        return sol, torch.autograd.grad(sol.y.square().sum() + sol.event_times[sol.event_index >= 0].sum(), y0)[0]

    sol, gradient = of(case.system, slice(None))
    for k in range(4):
        one = izhikevich(4).system
        one.b = torch.nn.Parameter(one.b.detach()[k : k + 1])
        alone, own = of(one, slice(k, k + 1))
        assert torch.equal(sol.y[:, k], alone.y[:, 0])
        assert torch.equal(sol.event_times[k, : alone.event_times.shape[1]], alone.event_times[0])
        assert torch.equal(gradient[k], own[0])


def test_central_differences():
    """Of the event times and states by every parameter, with equal counts of events."""
    case = network()
    count = solved(case)[0].event_index

    def loss(sol: Any) -> Tensor:
        assert sol.event_index.tolist() == count.tolist()
        times = sol.event_times
        return (sol.readout**2).mean() + torch.where(times.isfinite(), times, 0.0).sum() / 10.0

    y0 = case.y0.detach().clone().requires_grad_()
    options = {**case.options, "rtol": 1e-9, "atol": 1e-11, "y0": y0}
    case.system.zero_grad()
    loss(adjsnn.solve(case.system, case.u, **options)).backward()
    for x in (y0, *case.system.parameters()):
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                x += sign * 1e-5 * direction
                values.append(float(loss(adjsnn.solve(case.system, case.u, **options))))
                x -= sign * 1e-5 * direction
        assert x.grad is not None
        # Steps differ between the two solves, by which the states differ by less than the tolerance.
        assert float((x.grad * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-6)


def test_nothing_changes_with_later_steps_of_an_optimiser():
    case = network()
    assert case.u is not None
    u, y0 = case.u.clone().requires_grad_(), case.y0.detach().clone().requires_grad_()
    sol = adjsnn.solve(case.system, u, **{**case.options, "y0": y0})
    expected = torch.autograd.grad(sol.y.square().sum(), [y0, *case.system.parameters()], retain_graph=True)
    with torch.no_grad():
        for x in (*case.system.parameters(), y0, u):
            x.mul_(1.5)
    again = torch.autograd.grad(sol.y.square().sum(), [y0, *case.system.parameters()])
    for one, other in zip(expected, again, strict=True):
        assert torch.equal(one, other)


@pytest.mark.every(2)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"])
def test_a_copy_is_a_system_of_its_own(copied: Callable[[Any], Any]):
    case = network()
    sol, gradients = solved(case, kernels="plain")
    again, of_copy = solved(Case(copied(case.system), *case[1:]), kernels="plain")
    assert torch.equal(again.y, sol.y)
    assert all(torch.equal(x, y) for x, y in zip(of_copy, gradients, strict=True))
    twin, before = copied(case.system), case.system.b.detach().clone()
    with torch.no_grad():
        twin.b.add_(1.0)
    assert torch.equal(case.system.b, before)
    t, u = torch.zeros(2, 1, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    assert not torch.equal(twin.vector_field(t, case.y0, u), case.system.vector_field(t, case.y0, u))


@pytest.mark.parametrize("kernels", ["plain", "fused"])
def test_a_system_whose_guards_never_fire_is_told(kernels: Any):
    system = adjsnn.Equations(
        "dv/dt = drive - v", threshold="v > 1", reset="v = 0", parameters={"drive": 0.5}, learn="drive", initial={"v": 0.0}
    )
    options: dict[str, Any] = {"ts": [0.0, 3.0], "method": "dopri5", "kernels": kernels}
    with pytest.warns(adjsnn.SilentWarning, match="guards of a HybridSystem fired in no sample.*these events") as told:
        adjsnn.solve(system, None, **options).event_times.sum().backward()
    assert told[0].filename == __file__
    adjsnn.solve(system, None, **options).y.sum().backward()  # warnings are errors
    with torch.no_grad():
        system.drive.fill_(1.5)
    adjsnn.solve(system, None, **options).event_times.sum().backward()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, in loops that run as Python
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernels", ["plain", "fused"])
def test_a_gradient_that_is_not_finite_is_told(kernels: Any, dtype: torch.dtype):
    """The logistic map, chaos with a factor of nearly 2 in a step; loops compute in float64, whatever the dtype."""
    system = adjsnn.Equations("dx/dt = r*x*(1 - x) - x", parameters={"r": 3.99}, learn="r", initial={"x": 0.3}, dtype=dtype)
    options: dict[str, Any] = {"method": "euler", "kernels": kernels}
    ends = (20, 300 if dtype == torch.float32 else 1200)
    short, long = (adjsnn.solve(system, None, ts=torch.arange(n + 1.0, dtype=torch.float64), **options) for n in ends)
    assert long.stats.kernel == kernels
    assert long.y.isfinite().all()
    short.y[-1].sum().backward()  # warnings are errors
    assert system.r.grad is not None
    assert system.r.grad.isfinite().all()
    with pytest.warns(adjsnn.NotFiniteWarning, match=r"1 of the 1 tensors asked for.*in samples \[0\]") as told:
        long.y[-1].sum().backward()
    assert told[0].filename == __file__


def test_float32():
    case = rates()
    _, expected = solved(case)
    assert case.u is not None
    case = Case(case.system.float(), case.y0.float(), case.u.float(), case.options)
    sol, gradients = solved(case)
    assert sol.y.dtype == torch.float32
    for ours, theirs in zip(gradients, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.compiled
def test_compiled():
    """The machine code of one text, forward and back, and read from disk the next time."""
    case = network()
    ours, gradients = solved(case, kernels="fused")
    theirs, expected = solved(case, kernels="plain")
    torch.testing.assert_close(ours.y, theirs.y, rtol=1e-11, atol=1e-12)
    for ours_, theirs_ in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-10, atol=1e-11 * float(theirs_.abs().max()))

"""Every adjoint of smooth systems against the others, against central differences, and over leaks that forget."""

import math
import warnings

import pytest
import torch
from smooth_systems import ADAPTIVE, F64, FIXED, TIMES, checkpointed, cost, gradients, options_for, problem, relative
from torch import nn
from torch.nn.utils import parametrizations

from adjsnn import ConfigurationError, IntegrationError
from adjsnn.adjoints import BPTT
from adjsnn.hybrid.backsolve import Backsolve, BacksolveWarning
from adjsnn.hybrid.continuous import ContinuousAdjoint
from adjsnn.hybrid.forward import ForwardSensitivity
from adjsnn.hybrid.solve import solve_hybrid
from adjsnn.hybrid.system import HybridSystem
from adjsnn.numerics.checkpoints import binomial_runs, kept_on_the_way
from adjsnn.numerics.tableaus import TABLEAUS

MODES = ("none", "held", "callable")


@pytest.mark.every(7)
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", FIXED + ADAPTIVE)
def test_discrete_equals_backpropagation(method, mode, seed):
    _, found = gradients(mode, seed, **options_for(method))
    _, judge = gradients(mode, seed, adjoint=BPTT(), **options_for(method))
    # The same sums in another order: some hundred operations of 1e-16 each.
    assert relative(found, judge) < 1e-12


@pytest.mark.every(4)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", FIXED)
def test_discrete_against_central_differences(method, mode):
    _, found = gradients(mode, **options_for(method))
    net, inputs, y0, wanted = problem(mode)
    step, judge = 1e-5, {}
    with torch.no_grad():
        for name, x in wanted.items():
            judge[name] = torch.zeros_like(x)
            for entry, result in zip(x.view(-1), judge[name].view(-1), strict=True):
                before, sides = entry.clone(), []
                for side in (step, -step):
                    entry.copy_(before + side)
                    sides.append(cost(solve_hybrid(net, inputs, ts=TIMES, y0=y0, **options_for(method)).y))
                entry.copy_(before)
                result.copy_((sides[0] - sides[1]) / (2.0 * step))
    # Truncation 1e-10 times a third derivative, and rounding 1e-16·|cost|/1e-5: both near 1e-9 of the gradient.
    assert relative(found, judge) < 1e-7


@pytest.mark.every(4)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", FIXED + ADAPTIVE)
def test_forward_sensitivities_equal_discrete(method, mode):
    _, found = gradients(mode, adjoint=ForwardSensitivity(), **options_for(method))
    _, judge = gradients(mode, **options_for(method))
    assert relative(found, judge) < 1e-12  # both are exact to rounding


@pytest.mark.every(5)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", FIXED)
def test_continuous_converges_to_discrete_at_the_order(method, mode):
    errors = []
    for substeps in (32, 64):
        options = {"method": method, "substeps": substeps}
        _, found = gradients(mode, adjoint=ContinuousAdjoint(method=method), **options)
        _, judge = gradients(mode, **options)
        errors.append(relative(found, judge))
    slope = math.log2(errors[0] / errors[1])
    # The slope approaches the order with an error O(h); a quarter keeps the neighbouring orders out.
    assert slope == pytest.approx(TABLEAUS[method].order, abs=0.25), errors


@pytest.mark.every(3)
@pytest.mark.parametrize("mode", MODES)
def test_continuous_converges_with_its_own_grid(mode):
    _, judge = gradients(mode, method="dopri5", rtol=1e-12, atol=1e-12)
    errors = []
    for dt in (0.1, 0.05):
        adjoint = ContinuousAdjoint(method="rk4", dt=dt)
        errors.append(relative(gradients(mode, method="rk4", substeps=64, adjoint=adjoint)[1], judge))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.4), errors  # intervals are not multiples of dt


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ADAPTIVE)
def test_continuous_converges_with_its_tolerance(method, mode):
    _, judge = gradients(mode, method=method, rtol=1e-12, atol=1e-12)
    errors = []
    for tolerance in (1e-4, 1e-6, 1e-8, 1e-10):
        options = {"method": method, "rtol": tolerance, "atol": tolerance}
        errors.append(relative(gradients(mode, adjoint=ContinuousAdjoint(method=method), **options)[1], judge))
        # Errors of some thirty steps at this tolerance each, in both directions and through the order-4 interpolation.
        assert errors[-1] < 100.0 * tolerance, errors
    assert errors[-1] < 1e-4 * errors[0]


@pytest.mark.every(5)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("checkpoints", ["sqrt", 1, 3, 5])
@pytest.mark.parametrize("method", FIXED + ADAPTIVE)
def test_checkpoints_give_the_same_bits(method, checkpoints, mode):
    stored, judge = gradients(mode, **options_for(method))
    thin, found = gradients(mode, adjoint=checkpointed(checkpoints), **options_for(method))
    assert torch.equal(stored.y, thin.y)
    for name in judge:
        assert torch.equal(found[name], judge[name]), name
    steps = stored.stats.steps
    assert stored.stats.recomputed_steps == 0
    assert thin.stats.recomputed_steps > 0
    if checkpoints == "sqrt":
        assert thin.stats.recomputed_steps < steps
        return
    # The last run of each step is the evaluation of its stages, which the backward pass needs in any case.
    least = binomial_runs(steps, checkpoints) - steps - kept_on_the_way(steps, checkpoints)[-1]
    assert thin.stats.recomputed_steps == least if method in FIXED else thin.stats.recomputed_steps >= least


@pytest.mark.every(2)
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_checkpoints_keep_the_square_root_of_the_states(method):
    net, _, y0, _ = problem("none")
    ts = torch.tensor([0.0, 40.0], dtype=F64)
    options = {"substeps": 400} if method == "rk4" else {"rtol": 1e-9, "atol": 1e-9}
    runs = [solve_hybrid(net, None, ts=ts, method=method, y0=y0, adjoint=a, **options) for a in (None, checkpointed("sqrt"))]
    steps = runs[0].stats.steps
    assert steps >= 300
    all_states = (steps + 1) * y0.nbytes
    # Twice the root of 300 steps is an eighth of all; the times of the steps are kept either way.
    assert runs[0].stats.stored_bytes - runs[1].stats.stored_bytes > 0.8 * all_states
    runs[1].y.sum().backward()
    assert runs[1].stats.recomputed_steps < steps


def test_frozen_parametrized_and_shared_parameters():
    class Orthogonal(HybridSystem):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.inner = parametrizations.orthogonal(nn.Linear(3, 3, dtype=F64))
            self.frozen = nn.Parameter(torch.full((3,), 0.3, dtype=F64), requires_grad=False)
            self.again = self.inner
            self.unused = nn.Parameter(torch.ones(2, dtype=F64))

        def vector_field(self, t, y, u):
            return self.again(torch.tanh(self.inner(y))) - self.frozen * y

    results = []
    for adjoint in (None, BPTT()):
        net = Orthogonal()
        solve_hybrid(net, None, ts=torch.linspace(0.0, 1.0, 5, dtype=F64), y0=torch.ones(2, 3, dtype=F64), adjoint=adjoint).y[
            -1
        ].sum().backward()
        assert net.frozen.grad is None
        results.append({name: x.grad for name, x in net.named_parameters() if x.grad is not None and name != "unused"})
    assert len(results[1]) == 2
    assert relative(results[0], results[1]) < 1e-12


def test_a_change_in_place_is_noticed():
    net, _, y0, _ = problem("none")
    solution = solve_hybrid(net, None, ts=TIMES, y0=y0)
    with torch.no_grad():
        net.w.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        solution.y.sum().backward()


def test_a_second_derivative_is_refused():
    net, _, y0, _ = problem("none")
    loss = solve_hybrid(net, None, ts=TIMES, y0=y0).y.square().sum()
    with pytest.raises(ConfigurationError, match="create_graph=True"):
        torch.autograd.grad(loss, y0, create_graph=True)


class Leaky(HybridSystem):
    """ẏ = -y/τ + 0.5 tanh(W y + cos t)/τ: a leak that forgets within τ."""

    def __init__(self, tau):
        super().__init__()
        random = torch.Generator().manual_seed(5)
        self.w = nn.Parameter(torch.randn(3, 3, generator=random, dtype=F64))
        self.tau = tau

    def vector_field(self, t, y, u):
        return (-y + 0.5 * torch.tanh(y @ self.w.T + torch.cos(t))) / self.tau


def _leak_gradient(length, adjoint, substeps):
    net = Leaky(tau=1.0)
    y0 = torch.tensor([[1.0, -0.5, 0.25]], dtype=F64)
    ts = torch.linspace(0.0, length, 6, dtype=F64)
    solution = solve_hybrid(net, None, ts=ts, method="rk4", y0=y0, substeps=substeps, adjoint=adjoint)
    return torch.autograd.grad((solution.y[1:] ** 2).sum(), net.w)[0]


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [(5, 20, 40), (5, 10, 15, 20, 40, 100, 200)])
def test_errors_over_a_leak(lengths, capsys):
    rows = []
    for length in lengths:
        substeps = 2 * length  # five intervals: a step of τ/10
        judge = _leak_gradient(length, BPTT(), 2 * substeps)  # its own error is 16 times smaller
        errors = []
        for adjoint in (None, ContinuousAdjoint(), Backsolve()):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = _leak_gradient(length, adjoint, substeps)
            errors.append(float((found - judge).abs().max() / judge.abs().max()))
        rows.append((length, *errors, [w.category for w in caught] == [BacksolveWarning]))
    with capsys.disabled():
        print("\n T/τ  discrete  continuous  backsolve  warned")
        for row in rows:
            print("{:4d}   {:.1e}     {:.1e}    {:.1e}  {}".format(*row))
    for length, discrete, continuous, backsolve, warned in rows:
        # rk4 at h = τ/10: h⁴ = 1e-4 times a constant of a few hundredths, whatever the length.
        assert discrete < 1e-5
        assert continuous < 1e-5
        if length >= 40:
            assert not backsolve < 1e-2  # e^40 times rounding is above one; nan counts
            assert warned
    assert not rows[0][-1]


@pytest.mark.slow
def test_strict_backsolve_refuses():
    with pytest.raises(IntegrationError, match="sample 0: integrating backward ended"):
        _leak_gradient(100, Backsolve(strict=True), 400)
    _leak_gradient(5, Backsolve(strict=True), 20)  # e^5 times the error of a step is still small

"""Checkpoints of smooth systems: the steps and the memory they promise, and the end state alone for Backsolve."""

import weakref

import pytest
import torch
from smooth_systems import ADAPTIVE, F64, FIXED, checkpointed, problem
from torch import nn

from adjsnn import ConfigurationError, DiscreteAdjoint
from adjsnn.hybrid import run as hybrid_run
from adjsnn.hybrid import vjp
from adjsnn.hybrid.backsolve import Backsolve
from adjsnn.hybrid.solve import solve_hybrid
from adjsnn.hybrid.system import HybridSystem
from adjsnn.numerics.checkpoints import binomial_runs, kept_on_the_way, runs_again

LONG = torch.tensor([0.0, 1.0, 40.0], dtype=F64)  # ms
STATE = 4 * 3 * 8  # bytes of y0


def _options(method):
    return {"method": method, "substeps": 100} if method in FIXED else {"method": method, "rtol": 1e-8, "atol": 1e-8}


def _solve(method, adjoint=None, **options):
    net, _, y0, wanted = problem("none")
    solution = solve_hybrid(net, None, ts=LONG, y0=y0, adjoint=adjoint, **(_options(method) | options))
    return solution, list(wanted.values())


def _gradients(solution, wanted, **options):
    return torch.autograd.grad(solution.y.square().sum(), wanted, **options)


@pytest.fixture
def watch(monkeypatch):
    """What the states kept were, and the most tensors of a state that were alive while steps were taken again."""
    seen, most, thinned = [], [0], []
    replay, again = vjp.replay, hybrid_run.Thinned.backward

    def watched(program, steps, y, *rest):
        seen.append(weakref.ref(y))
        most[0] = max(most[0], len({id(x()) for x in seen} - {id(None)}))
        return replay(program, steps, y, *rest)

    def noted(self, advance):
        thinned.append((self.n, self.slots, self.rows))
        seen.extend(weakref.ref(y) for y in self.states.values())
        return again(self, advance)

    monkeypatch.setattr(vjp, "replay", watched)
    monkeypatch.setattr(hybrid_run.Thinned, "backward", noted)
    return most, thinned


@pytest.mark.every(7)
@pytest.mark.parametrize("slots", [4, 20, 60])
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_steps_and_states_are_those_of_the_plan(method, slots, watch, unchecked_shapes):
    most, thinned = watch
    stored, wanted = _solve(method)
    expected = _gradients(stored, wanted)
    solution, wanted = _solve(method, checkpointed(slots))
    times = stored.stats.stored_bytes - (stored.stats.steps + 1) * STATE
    assert solution.stats.stored_bytes - times <= slots * STATE
    assert all(torch.equal(x, y) for x, y in zip(_gradients(solution, wanted), expected, strict=True))
    ((n, asked, rows),) = thinned
    assert (n, asked) == (stored.stats.steps, slots)
    assert solution.stats.recomputed_steps == runs_again(n, slots, rows)
    least = binomial_runs(n, slots) - n - kept_on_the_way(n, slots)[-1]
    if method in FIXED:
        assert solution.stats.recomputed_steps == least
    else:  # the states are thinned before the number of steps is known
        assert least <= solution.stats.recomputed_steps <= 1.15 * least
    assert most[0] <= slots + 1  # and the one that the run has come to


class Wide(HybridSystem):
    """ẏ = -y + tanh(W y) + tanh(V u) of any width and dtype."""

    def __init__(self, width, dtype):
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.w = nn.Parameter(torch.randn(width, width, generator=random, dtype=dtype) / width**0.5)
        self.v = nn.Parameter(torch.randn(width, 3, generator=random, dtype=dtype))

    def vector_field(self, t, y, u):
        return -y + torch.tanh(y @ self.w.T) + torch.tanh(u @ self.v.T)


@pytest.mark.every(5)
@pytest.mark.parametrize(("batch", "width"), [(1, 33), (7, 5), (3, 101)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_odd_sizes_are_the_same_bits(method, dtype, batch, width):
    """A matrix product rounds differently at another distance from a cache line's start."""
    random = torch.Generator().manual_seed(1)
    net, ts = Wide(width, dtype), torch.arange(6).to(dtype)
    y0 = torch.randn(batch * width + 1, generator=random, dtype=dtype)[1:].view(batch, width).requires_grad_()
    u = torch.randn(5, batch, 3, generator=random, dtype=dtype).requires_grad_()
    options = {"substeps": 3} if method in FIXED else {"rtol": 1e-5, "atol": 1e-6}
    found = []
    for checkpoints in (None, 3, "sqrt"):
        solution = solve_hybrid(net, u, ts=ts, method=method, y0=y0, adjoint=checkpointed(checkpoints), **options)
        found.append(_gradients(solution, [y0, u, *net.parameters()]))
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(other, found[0], strict=True))


@pytest.mark.every(2)
@pytest.mark.parametrize("method", ["heun", "tsit5"])
def test_a_second_backward_pass_makes_the_states_again(method, watch, unchecked_shapes):
    _, thinned = watch
    solution, wanted = _solve(method, checkpointed(10))
    first = _gradients(solution, wanted, retain_graph=True)
    once = solution.stats.recomputed_steps
    assert all(torch.equal(x, y) for x, y in zip(_gradients(solution, wanted), first, strict=True))
    assert solution.stats.recomputed_steps == 2 * once + thinned[0][2][-1]


@pytest.mark.every(2)
@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_a_memory_budget_of_fixed_steps_holds_everything(method):
    stored, wanted = _solve(method)
    expected = _gradients(stored, wanted)
    everything = stored.stats.stored_bytes
    for share in (1.0, 0.9, 0.6, 0.45):
        solution, wanted = _solve(method, DiscreteAdjoint(memory_mb=share * everything / 1e6))
        assert solution.stats.stored_bytes <= share * everything
        assert all(torch.equal(x, y) for x, y in zip(_gradients(solution, wanted), expected, strict=True))
        assert (solution.stats.recomputed_steps == 0) == (share == 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_memory_budget_of_adaptive_steps_holds_the_states(method, unchecked_shapes):
    stored, wanted = _solve(method)
    expected = _gradients(stored, wanted)
    times = stored.stats.stored_bytes - (stored.stats.steps + 1) * STATE
    for states in (stored.stats.steps + 1, 50, 7):
        solution, wanted = _solve(method, DiscreteAdjoint(memory_mb=states * STATE / 1e6))
        assert solution.stats.stored_bytes - times <= states * STATE
        assert all(torch.equal(x, y) for x, y in zip(_gradients(solution, wanted), expected, strict=True))
        assert (solution.stats.recomputed_steps == 0) == (states > 50)


@pytest.mark.every(5)
@pytest.mark.parametrize("method", FIXED + ADAPTIVE)
def test_backsolve_keeps_the_last_state_alone(method):
    stored, wanted = _solve(method)
    solution, wanted = _solve(method, Backsolve(tolerance=1e30))
    assert stored.stats.stored_bytes - solution.stats.stored_bytes == stored.stats.steps * STATE
    _gradients(solution, wanted)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_a_budget_below_one_state_is_refused(method):
    with pytest.raises(ConfigurationError, match=r"memory_mb=1e-05; expected at least [\d.e-]+: one state"):
        _solve(method, DiscreteAdjoint(memory_mb=1e-5))


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_that_is_none_is_refused(bad):
    with pytest.raises(ConfigurationError, match="memory_mb="):
        DiscreteAdjoint(memory_mb=bad)

"""Adaptive steps: accuracy, independence of the samples, counts, and refusals that name the sample."""

import re

import pytest
import torch
from smooth_systems import ADAPTIVE, F64, TIMES, checkpointed, gradients, problem

from adjsnn import IntegrationError
from adjsnn.adjoints import BPTT
from adjsnn.hybrid import adaptive
from adjsnn.hybrid.solve import solve_hybrid
from adjsnn.hybrid.system import HybridSystem
from hybrid.test_fixed_steps import reference


@pytest.mark.every(5)
@pytest.mark.parametrize("mode", ["none", "held", "callable"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_tolerance_against_scipy(method, mode):
    net, inputs, y0, wanted = problem(mode)
    exact = reference(net, y0, TIMES, inputs if mode == "callable" else None, wanted["u"].detach() if mode == "held" else None)
    with torch.no_grad():
        y = solve_hybrid(net, inputs, ts=TIMES, method=method, y0=y0, rtol=1e-10, atol=1e-10).y
    # About thirty steps, each allowed 1e-10 of |y| ≤ 3, and growing a few times on the way to the end.
    torch.testing.assert_close(y, exact, rtol=0.0, atol=1e-8)


class Pendula(HybridSystem):
    """Element-wise: each sample a pendulum, swinging the faster the larger its third entry."""

    def vector_field(self, t, y, u):
        angle, speed, rate = y[:, :1], y[:, 1:2], y[:, 2:]
        flow = torch.cat([speed * rate, -rate * (angle - angle * angle * angle / 6.0), 0.0 * rate], 1)
        return flow if u is None else flow + u


@pytest.mark.every(8)
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_a_batch_equals_its_samples(method, held, dtype):
    random = torch.Generator().manual_seed(3)
    y0 = torch.randn(7, 3, generator=random, dtype=F64)
    y0[:, 2] = torch.logspace(-1, 2, 7, dtype=F64)  # a thousandfold difference in speed
    y0 = y0.to(dtype).requires_grad_()
    ts = torch.tensor([0.0, 0.4, 1.0], dtype=dtype)
    u = 0.1 * torch.randn(2, 7, 3, generator=random, dtype=F64).to(dtype) if held else None
    options = {"ts": ts, "method": method, "rtol": 1e-6, "atol": 1e-6}
    together = solve_hybrid(Pendula(), u, y0=y0, **options)
    (of_all,) = torch.autograd.grad((together.y**2).sum(), y0)
    assert together.stats.accepted[-1] > 20 * together.stats.accepted[0]
    for b in range(7):
        single = slice(b, b + 1)
        start = y0[single].detach().requires_grad_()
        alone = solve_hybrid(Pendula(), None if u is None else u[:, single], y0=start, **options)
        (of_one,) = torch.autograd.grad((alone.y**2).sum(), start)
        assert torch.equal(together.y[:, single], alone.y)
        assert torch.equal(of_all[single], of_one)
        assert together.stats.accepted[b] == alone.stats.accepted[0]
        assert together.stats.rejected[b] == alone.stats.rejected[0]


def test_step_lengths_forget_their_last_bits():
    x = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=F64) * 10.0
    up = torch.nextafter(x, torch.full_like(x, torch.inf))
    assert torch.equal(adaptive._rounded(x), adaptive._rounded(up))
    torch.testing.assert_close(adaptive._rounded(x), x, rtol=2.0**-adaptive.KEPT_BITS, atol=0.0)


@pytest.mark.parametrize("checkpoints", [None, "sqrt", 2])
@pytest.mark.parametrize("mode", ["none", "held"])
def test_asking_seldom_whether_all_are_done_changes_nothing(mode, checkpoints, monkeypatch):
    options = {"method": "dopri5", "rtol": 1e-6, "atol": 1e-6, "adjoint": checkpoints and checkpointed(checkpoints)}
    often, expected = gradients(mode, **options)
    monkeypatch.setitem(adaptive.ASK_EVERY, "cpu", 16)
    seldom, found = gradients(mode, **options)
    assert torch.equal(often.y, seldom.y)
    assert torch.equal(often.stats.accepted, seldom.stats.accepted)
    for name in expected:
        assert torch.equal(expected[name], found[name]), name


@pytest.mark.parametrize("method", ADAPTIVE)
def test_unrolled_steps_are_the_same_bits(method):
    net, inputs, y0, _ = problem("callable")
    swept, unrolled = (solve_hybrid(net, inputs, ts=TIMES, method=method, y0=y0, adjoint=a).y for a in (None, BPTT()))
    assert torch.equal(swept, unrolled)


def test_looser_tolerances_take_fewer_steps():
    net, _, y0, _ = problem("none")
    counts = [
        solve_hybrid(net, None, ts=TIMES, method="dopri5", y0=y0, rtol=r, atol=r).stats.steps for r in (1e-4, 1e-7, 1e-10)
    ]
    assert counts[0] < counts[1] < counts[2]
    # Order 5: a thousandfold tolerance costs 10^(3/5) = 4 times the steps; output times put a floor under the coarse one.
    assert 2.5 < counts[2] / counts[1] < 5.5


class Decay(HybridSystem):
    """ẏ = -rate (y - cos t), the rate being the sample's second entry."""

    def vector_field(self, t, y, u):
        return torch.cat([-y[:, 1:] * (y[:, :1] - torch.cos(t)), torch.zeros_like(y[:, 1:])], 1)


@pytest.mark.slow
def test_a_stiff_sample_is_named():
    y0 = torch.tensor([[0.0, 1.0], [0.0, 1e7], [0.0, 2.0]], dtype=F64)
    with pytest.raises(IntegrationError, match=r"sample 1 reached t = .* of 10 ms in max_steps=500 .*stiff") as caught:
        solve_hybrid(Decay(), None, ts=torch.tensor([0.0, 10.0], dtype=F64), method="dopri5", y0=y0, max_steps=500)
    reached = float(re.search(r"t = (\S+) of", str(caught.value)).group(1))
    assert 0.0 < reached < 1e-2  # stability allows steps of about 3.3 / 1e7


def test_a_solution_that_blows_up_is_named():
    class Square(HybridSystem):
        def vector_field(self, t, y, u):
            return y * y

    y0 = torch.tensor([[0.1], [0.5]], dtype=F64)  # 1/(2 - t): infinite at t = 2
    with pytest.raises(IntegrationError, match=r"step of sample 1 shrank .* at t = 2 ms.*blow up"):
        solve_hybrid(Square(), None, ts=torch.tensor([0.0, 3.0], dtype=F64), method="tsit5", y0=y0)


def test_a_field_that_is_not_finite_is_named():
    class Root(HybridSystem):
        def vector_field(self, t, y, u):
            return -torch.ones_like(y) + 0.0 * torch.sqrt(y)

    y0 = torch.tensor([[3.0], [0.25]], dtype=F64)
    with pytest.raises(IntegrationError, match=r"step of sample 1 shrank .* at t = 0.25 ms"):
        solve_hybrid(Root(), None, ts=torch.tensor([0.0, 1.0], dtype=F64), method="dopri5", y0=y0)


def test_fixed_steps_that_diverge_are_named():
    y0 = torch.tensor([[0.0, 1.0], [0.0, 1e7]], dtype=F64)
    with pytest.raises(IntegrationError, match=r"sample 1 diverged by t = .* ms.*dopri5"):
        solve_hybrid(Decay(), None, ts=torch.linspace(0.0, 10.0, 101, dtype=F64), method="rk4", y0=y0)

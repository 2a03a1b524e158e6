"""Guards that are exactly zero, at the start or after a jump, and guards that are no numbers."""

import math

import pytest
import torch
from smooth_systems import F64, checkpointed
from torch import nn

import adjsnn
from adjsnn import BPTT, ConfigurationError, ContinuousAdjoint, EventError, HybridSystem

pytestmark = pytest.mark.usefixtures("unchecked_shapes")  # they would quadruple the time of many small solves
F32 = torch.float32
ADJOINTS = [None, checkpointed(3), ContinuousAdjoint(method="dopri5"), BPTT()]


class Ball(HybridSystem):
    """y = (height, speed), put exactly on the floor as it bounces."""

    def __init__(self, dtype=F64, floor=0.0, bounce=0.8):
        super().__init__()
        self.gravity = nn.Parameter(torch.tensor(9.81, dtype=dtype))
        self.bounce = nn.Parameter(torch.tensor(bounce, dtype=dtype))
        self.floor = nn.Parameter(torch.tensor(floor, dtype=dtype))

    def vector_field(self, t, y, u):
        return torch.stack([y[:, 1], -self.gravity + 0.0 * y[:, 0]], 1)

    def guard(self, t, y):
        return self.floor - y[:, :1]

    def jump(self, t, y, fired):
        return torch.where(fired, torch.stack([self.floor.expand(len(y)), -self.bounce * y[:, 1]], 1), y)


def _solve(system, y0, end, dtype=F64, **options):
    rtol = 1e-9 if dtype is F64 else 1e-5
    ts = torch.tensor([0.0, end], dtype=dtype)
    return adjsnn.solve(system, None, y0=y0, ts=ts, **({"method": "dopri5", "rtol": rtol, "atol": rtol} | options))


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("floor", [0.0, 0.3])
@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_a_ball_that_its_jump_puts_on_the_floor(dtype, floor, adjoint):
    """From a height h above the floor; its flights and their derivatives in closed form."""
    ball = Ball(dtype, floor)
    y0 = torch.tensor([[1.0 + floor, 0.0], [2.0 + floor, 0.0]], dtype=dtype, requires_grad=True)
    sol = _solve(ball, y0, 1.6, dtype, adjoint=adjoint)
    g, e, f, h = (x.detach().double().clone().requires_grad_() for x in (ball.gravity, ball.bounce, ball.floor, y0[:, 0]))
    first = (2.0 * (h - f) / g).sqrt()
    second = first * (1.0 + 2.0 * e)
    near = {"rtol": 1e-7, "atol": 1e-7} if dtype is F64 else {"rtol": 3e-4, "atol": 3e-5}
    assert sol.event_index.tolist() == [[0, 0], [0, -1]]
    torch.testing.assert_close(sol.event_times[:, 0].double(), first, **near)
    torch.testing.assert_close(sol.event_times[0, 1].double(), second[0], **near)
    speed = (2.0 * g * (h - f)).sqrt()
    up, after = torch.stack([e * e * speed[0], e * speed[1]]), 1.6 - torch.stack([second[0], first[1]])
    end = f + up * after - 0.5 * g * after**2
    torch.testing.assert_close(sol.y[-1, :, 0].double(), end, **near)
    expected = torch.autograd.grad(end.sum() + second[0], (g, e, f, h))
    found = torch.autograd.grad(sol.y[-1, :, 0].sum() + sol.event_times[0, 1], (ball.gravity, ball.bounce, ball.floor, y0))
    for x, y in zip((*found[:3], found[3][:, 0]), expected, strict=True):
        torch.testing.assert_close(x.double(), y, **near)


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("floor", [0.0, 0.3])
@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_a_ball_thrown_from_the_floor(dtype, floor, adjoint):
    """Its guard is zero at the start and falls; it is back after 2 v/g, alone as in a batch."""
    ball = Ball(dtype, floor)
    y0 = torch.tensor([[floor, 3.0], [floor, 1.0], [floor + 1.0, 0.0]], dtype=dtype, requires_grad=True)
    sol = _solve(ball, y0, 0.25, dtype, adjoint=adjoint)
    assert sol.event_index.tolist() == [[-1], [0], [-1]]
    back = 2.0 / 9.81
    assert sol.event_times[1, 0].item() == pytest.approx(back, rel=1e-6)
    found = torch.autograd.grad(sol.event_times[1, 0], (y0, ball.gravity))
    assert found[0][1, 1].item() == pytest.approx(2.0 / 9.81, rel=1e-5)
    # A higher start is later back by 1/v.
    assert found[0][1, 0].item() == pytest.approx(1.0, rel=1e-5)
    assert found[1].item() == pytest.approx(-2.0 / 9.81**2, rel=1e-5)
    alone = _solve(ball, y0[1:2], 0.25, dtype, adjoint=adjoint)
    assert torch.equal(alone.event_times[0], sol.event_times[1])


@pytest.mark.parametrize("speed", [0.0, -1.0])
def test_a_guard_on_zero_at_the_start_that_does_not_fall_is_refused(speed):
    with pytest.raises(ConfigurationError, match=r"Ball.guard 0 of sample 0 is -?0 at the start.*on it and falling"):
        _solve(Ball(), torch.tensor([[0.0, speed]], dtype=F64), 1.0)


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_a_ball_that_comes_to_rest_is_an_error_near_that_time(dtype, floor):
    """At √(2h/g) (1 + e)/(1 - e)."""
    rest = math.sqrt(2.0 / 9.81) * 1.3 / 0.7
    with pytest.raises(EventError, match="sample 0") as error:
        _solve(Ball(dtype, floor, bounce=0.3), torch.tensor([[1.0 + floor, 0.0]], dtype=dtype), 3.0, dtype)
    found = float(str(error.value).split("at t = " if "at t = " in str(error.value) else "near t = ")[1].split(" ms")[0])
    assert found == pytest.approx(rest, rel=1e-6 if dtype is F64 else 3e-3)


def test_flights_far_shorter_than_a_step_are_all_found():
    """Steps of a flow without error grow to the length of the trial; flights of 2e-5 are a millionth of the first."""
    ball = Ball(bounce=1.0)
    start = torch.tensor([[0.0, 1e-4]], dtype=F64)
    flight = 2e-4 / 9.81
    sol = _solve(ball, start, 20.5 * flight)
    torch.testing.assert_close(sol.event_times[0], flight * torch.arange(1, 21, dtype=F64), rtol=1e-7, atol=0)


class Clock(HybridSystem):
    """ẏ = 1, any guard, and a jump down by 1."""

    def __init__(self, level):
        super().__init__()
        self.level = level

    def vector_field(self, t, y, u):
        return torch.ones_like(y)

    def guard(self, t, y):
        return self.level(t, y)

    def jump(self, t, y, fired):
        return torch.where(fired.any(1, keepdim=True), y - 1.0, y)


WRONG = {
    "at the start": (
        lambda t, y: (y - 1.0).sqrt() - 5.0,
        ConfigurationError,
        "guard 0 of sample 1 is nan at the start, t = 0 ms",
    ),
    "infinite at the start": (
        lambda t, y: torch.where(y > 1.0, y - 9.0, math.inf),
        ConfigurationError,
        "guard 0 of sample 1 is inf at the start",
    ),
    "later": (lambda t, y: (1.5 - y).sqrt() - 5.0, EventError, r"guard 0 of sample \d is nan at t = (0\.25|1\.000)"),
    "the second one": (
        lambda t, y: torch.cat([y - 5.0, (1.5 - y).sqrt() - 5.0], 1),
        EventError,
        r"guard 1 of sample \d is nan at t = (0\.25|1\.000)",
    ),
    "after a jump": (
        lambda t, y: torch.cat([y - 1.75, (y - 0.8).log() - 5.0], 1),
        EventError,
        r"guard 1 of sample 0 is nan after the jump at t = 0\.5",
    ),
    "infinite": (
        lambda t, y: torch.where(t > 0.5, math.inf, y - 9.0),
        EventError,
        r"guard 0 of sample \d is inf at t = 0\.5",
    ),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("method", ["dopri5", "tsit5"])
def test_a_guard_that_is_no_number_is_named(case, method):
    level, error, message = WRONG[case]
    start = [[1.25], [0.9]] if case == "after a jump" else [[1.25], [0.5]]
    with pytest.raises(error, match=message):
        _solve(Clock(level), torch.tensor(start, dtype=F64), 3.0, method=method)


def test_a_guard_from_minus_infinity_fires():
    """φ = log y from y = 0, at y = 1 and then again from 0."""
    sol = _solve(Clock(lambda t, y: y.log()), torch.tensor([[0.0], [0.5]], dtype=F64), 1.75)
    torch.testing.assert_close(sol.event_times, torch.tensor([[1.0, math.inf], [0.5, 1.5]], dtype=F64), rtol=0, atol=1e-9)


def test_what_leaves_its_guard_is_evaluated_once(monkeypatch):
    """Where it falls off its guard has been found when the next step begins, which would ask for the same derivative again."""
    asked, field = [], Ball.vector_field

    def counted(self, t, y, u):
        asked.append((float(t), *y[0].tolist()))
        return field(self, t, y, u) + 0.01 * t

    monkeypatch.setattr(Ball, "vector_field", counted)
    with torch.no_grad():
        sol = _solve(Ball(), torch.tensor([[1.0, 0.0]], dtype=F64), 1.6)
    assert sol.event_index.shape[1] >= 2
    asked = asked[1:]  # the first look at the system
    assert len(set(asked)) == len(asked)

"""Events of HybridSystems: closed forms, every adjoint against the others and against central differences."""

import math

import pytest
import torch
from smooth_systems import ADAPTIVE, F64, checkpointed, relative
from torch import nn

import adjsnn
from adjsnn import ConfigurationError, EventError, HybridSystem

GRAVITY, BOUNCE = 9.81, 0.8


class Ball(HybridSystem):
    """y = (height, speed); the guard rises through zero as the ball reaches the floor, which takes 1 - e of its speed."""

    def __init__(self, gravity=GRAVITY, bounce=BOUNCE):
        super().__init__()
        self.gravity = nn.Parameter(torch.tensor(gravity, dtype=F64))
        self.bounce = nn.Parameter(torch.tensor(bounce, dtype=F64))
        self.floor = nn.Parameter(torch.tensor(0.0, dtype=F64))

    def vector_field(self, t, y, u):
        return torch.stack([y[:, 1], -self.gravity + 0.0 * y[:, 0]], 1)

    def guard(self, t, y):
        return self.floor - y[:, :1]

    def jump(self, t, y, fired):
        return torch.where(fired, torch.stack([y[:, 0], -self.bounce * y[:, 1]], 1), y)


class Pair(HybridSystem):
    """Two neurons that excite each other: leaky voltages, exponential currents, threshold, reset and weights to learn.

    y = (v_1, v_2, i_1, i_2);  τ_m v̇ = -v + i + b + tanh(u);  τ_s i̇ = -i;  at v_n = θ_n: v_n ← v_r, i_m ← i_m + w_mn + c sin t.
    """

    def __init__(self, seed=0, time=False):
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.time = time
        self.w = nn.Parameter(0.4 * torch.rand(2, 2, generator=random, dtype=F64))
        self.bias = nn.Parameter(torch.tensor([1.4, 1.7], dtype=F64))
        self.threshold = nn.Parameter(torch.tensor([1.0, 1.1], dtype=F64))
        self.reset = nn.Parameter(torch.tensor([-0.2, 0.1], dtype=F64))
        self.tau_mem = nn.Parameter(torch.tensor(10.0, dtype=F64))
        self.tau_syn = nn.Parameter(torch.tensor(4.0, dtype=F64))
        self.swing = nn.Parameter(torch.tensor(0.1, dtype=F64))

    def vector_field(self, t, y, u):
        v, i = y[:, :2], y[:, 2:]
        drive = self.bias + (0.3 * torch.sin(0.4 * t) if self.time else 0.0)
        drive = drive if u is None else drive + torch.tanh(u)
        return torch.cat([(i + drive - v) / self.tau_mem, -i / self.tau_syn], 1)

    def guard(self, t, y):
        threshold = self.threshold + (0.05 * torch.cos(0.3 * t) if self.time else 0.0)
        return y[:, :2] - threshold

    def jump(self, t, y, fired):
        kick = fired.to(y.dtype) @ self.w.T
        if self.time:
            kick = kick + self.swing * torch.sin(t)
        return torch.cat([torch.where(fired, self.reset, y[:, :2]), y[:, 2:] + kick], 1)


TIMES = torch.tensor([0.0, 7.0, 12.5, 30.0, 41.0], dtype=F64)
TIGHT = {"rtol": 1e-11, "atol": 1e-11}


def _problem(mode, seed=0, batch=3):
    random = torch.Generator().manual_seed(10 + seed)
    net = Pair(seed, time=mode == "time")
    y0 = torch.rand(batch, 4, generator=random, dtype=F64).mul(0.5).requires_grad_()
    u = None
    wanted = {"y0": y0, **{k: x for k, x in net.named_parameters() if k != "swing" or mode == "time"}}
    if mode == "held":
        u = torch.randn(len(TIMES) - 1, batch, 2, generator=random, dtype=F64).mul(0.2).requires_grad_()
        wanted["u"] = u
    return net, u, y0, wanted


def _cost(sol):
    weights = torch.linspace(-1.0, 2.0, sol.y.numel(), dtype=F64).view_as(sol.y)
    real = sol.event_index >= 0
    times = torch.where(real, sol.event_times, 0.0)
    order = torch.linspace(0.5, 1.0, times.shape[1], dtype=F64)
    return (weights * sol.y).sum() + 0.01 * (order * times + 0.01 * times**2).sum()


def _gradients(mode, method="dopri5", adjoint=None, loss=_cost, seed=0, batch=3, **options):
    net, u, y0, wanted = _problem(mode, seed, batch)
    sol = adjsnn.solve(net, u, ts=TIMES, y0=y0, method=method, adjoint=adjoint, **({"rtol": 1e-8, "atol": 1e-8} | options))
    return sol, dict(zip(wanted, torch.autograd.grad(loss(sol), list(wanted.values())), strict=True))


MODES = ("none", "held", "time")


@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_bouncing_ball_and_its_gradients_have_a_closed_form(method):
    """From height h: first contact at √(2h/g), flights of 2 e^k √(2h/g) after it."""
    ball = Ball()
    height = torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=F64, requires_grad=True)
    ts = torch.tensor([0.0, 2.0], dtype=F64)
    sol = adjsnn.solve(ball, None, ts=ts, y0=height, method=method)
    g, e, h = (x.detach().clone().requires_grad_() for x in (ball.gravity, ball.bounce, height[:, 0]))
    first = (2.0 * h / g).sqrt()
    contacts = torch.stack(
        [first * (1.0 + 2.0 * sum((e**j for j in range(1, k + 1)), torch.zeros_like(e))) for k in range(4)], 1
    )
    real = sol.event_index >= 0
    assert real.sum(1).tolist() == [3, 2]
    torch.testing.assert_close(sol.event_times[real], contacts[:, :3][real], rtol=0, atol=1e-12)
    # After the k-th contact the ball flies with speed e^k √(2gh) upward.
    last = contacts[torch.arange(2), real.sum(1) - 1]
    after = 2.0 - last
    speed = e ** real.sum(1) * (2.0 * g * h).sqrt()
    torch.testing.assert_close(sol.y[-1, :, 0], speed * after - 0.5 * g * after**2, rtol=0, atol=1e-11)
    expected = torch.autograd.grad((speed * after - 0.5 * g * after**2).sum() + contacts[:, :2].sum(), (g, e, h))
    found = torch.autograd.grad(sol.y[-1, :, 0].sum() + sol.event_times[:, :2].sum(), (ball.gravity, ball.bounce, height))
    for x, y in zip((found[0], found[1], found[2][:, 0]), expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=0)


@pytest.mark.every(8)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ADAPTIVE)
def test_discrete_equals_backpropagation_through_events(method, mode):
    sol, found = _gradients(mode, method)
    assert (sol.event_index >= 0).sum(1).min() >= 4
    assert {0, 1} <= set(sol.event_index.flatten().tolist())
    _, judge = _gradients(mode, method, adjsnn.BPTT())
    assert relative(found, judge) < 1e-11


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("mode", ["held", "time"])
def test_against_central_differences(mode):
    """Along a random direction of each tensor, at a tolerance where a difference of the solution sees no steps change."""
    sol, discrete = _gradients(mode, batch=1, **TIGHT)
    _, continuous = _gradients(mode, adjoint=adjsnn.ContinuousAdjoint(method="dopri5"), batch=1, **TIGHT)
    net, u, y0, wanted = _problem(mode, batch=1)
    random, step = torch.Generator().manual_seed(5), 1e-4
    for name, x in wanted.items():
        direction, start, values = torch.randn(x.shape, generator=random, dtype=F64), x.detach().clone(), []
        for side in (2.0, 1.0, -1.0, -2.0):
            with torch.no_grad():
                x.copy_(start + side * step * direction)
                moved = adjsnn.solve(net, u, ts=TIMES, y0=y0, method="dopri5", **TIGHT)
            assert torch.equal(moved.event_index, sol.event_index)
            values.append(float(_cost(moved)))
        with torch.no_grad():
            x.copy_(start)
        judge = (8.0 * (values[1] - values[2]) - (values[0] - values[3])) / (12.0 * step)
        for found in (discrete, continuous):
            # Differences carry 1e-12 · |cost| / step and a fifth derivative times step⁴.
            assert float((found[name] * direction).sum()) == pytest.approx(judge, rel=1e-6, abs=1e-6), name


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("mode", MODES)
def test_continuous_converges_to_discrete(mode):
    errors = []
    for tolerance in (1e-6, 1e-10):
        options = {"rtol": tolerance, "atol": tolerance}
        _, found = _gradients(mode, adjoint=adjsnn.ContinuousAdjoint(method="dopri5"), **options)
        _, judge = _gradients(mode, **options)
        errors.append(relative(found, judge))
        # Each of nine events adds the error of its time.
        assert errors[-1] < 300.0 * tolerance, errors
    assert errors[-1] < 1e-2 * errors[0], errors


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("adjoint", [adjsnn.ContinuousAdjoint(method="rk4"), adjsnn.ContinuousAdjoint(method="rk4", dt=0.25)])
def test_continuous_on_a_grid_of_its_own(adjoint):
    for mode in MODES:
        assert relative(_gradients(mode, adjoint=adjoint, **TIGHT)[1], _gradients(mode, **TIGHT)[1]) < 1e-5


@pytest.mark.every(2)
@pytest.mark.parametrize("checkpoints", ["sqrt", 3])
def test_checkpoints_replay_the_events(checkpoints):
    stored, judge = _gradients("held")
    thin, found = _gradients("held", adjoint=checkpointed(checkpoints))
    assert torch.equal(stored.y, thin.y)
    assert thin.stats.recomputed_steps > 0
    for name in judge:
        assert torch.equal(found[name], judge[name]), name


@pytest.mark.every(2)
@pytest.mark.parametrize("adjoint", [None, adjsnn.ContinuousAdjoint(method="dopri5")])
def test_batch_against_singles(adjoint):
    net, u, y0, _ = _problem("held")
    whole = adjsnn.solve(net, u, ts=TIMES, y0=y0, method="dopri5", adjoint=adjoint)
    of_whole = torch.autograd.grad(whole.y.square().sum(), (y0, u))
    for b in range(len(y0)):
        alone = adjsnn.solve(net, u[:, b : b + 1], ts=TIMES, y0=y0[b : b + 1], method="dopri5", adjoint=adjoint)
        count = alone.event_times.shape[1]
        assert torch.equal(alone.event_times[0], whole.event_times[b, :count])
        assert torch.equal(alone.y[:, 0], whole.y[:, b])
        of_alone = torch.autograd.grad(alone.y.square().sum(), (y0, u))
        torch.testing.assert_close(of_alone[0][b], of_whole[0][b], rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(of_alone[1][:, b], of_whole[1][:, b], rtol=1e-13, atol=1e-14)


class Threshold(HybridSystem):
    """Any flow, guards and jump, given as functions of (t, y)."""

    def __init__(self, flow, guard, jump):
        super().__init__()
        self.flow, self.level, self.after = flow, guard, jump

    def vector_field(self, t, y, u):
        return self.flow(t, y)

    def guard(self, t, y):
        return self.level(t, y)

    def jump(self, t, y, fired):
        return self.after(t, y, fired)


def _solve(system, y0, ts=(0.0, 10.0), **options):
    ts = torch.tensor(ts, dtype=F64)
    return adjsnn.solve(system, None, y0=torch.as_tensor(y0, dtype=F64), ts=ts, **({"method": "dopri5"} | options))


def _integrators(rate=1.0):
    """Two integrators v̇ = rate that reset at 1."""
    return Threshold(
        lambda t, y: torch.full_like(y, rate), lambda t, y: y - 1.0, lambda t, y, fired: torch.where(fired, y - 1.0, y)
    )


def test_guards_that_fire_in_the_same_instant_all_fire():
    start = torch.tensor([[0.25, 0.25], [0.25, 0.5]], dtype=F64, requires_grad=True)
    sol = adjsnn.solve(_integrators(), None, y0=start, ts=torch.tensor([0.0, 2.0], dtype=F64), method="dopri5")
    assert sol.event_index.tolist() == [[0, 1, 0, 1], [1, 0, 1, 0]]
    expected = torch.tensor([[0.75, 0.75, 1.75, 1.75], [0.5, 0.75, 1.5, 1.75]], dtype=F64)
    torch.testing.assert_close(sol.event_times, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(sol.y[-1], torch.tensor([[0.25, 0.25], [0.25, 0.5]], dtype=F64), rtol=0, atol=1e-12)
    (found,) = torch.autograd.grad(sol.event_times.sum(), start)
    torch.testing.assert_close(found, torch.full_like(start, -2.0), rtol=0, atol=1e-9)


def test_an_event_at_an_output_time_happens_once():
    """Rounding says whether the state there is the one before or after it; nothing is lost or doubled."""
    start = torch.tensor([[0.0, 0.5]], dtype=F64, requires_grad=True)
    ts = torch.tensor([0.0, 0.5, 1.0, 1.5, 1.75], dtype=F64)
    sol = adjsnn.solve(_integrators(), None, y0=start, ts=ts, method="dopri5")
    assert sol.event_index.tolist() == [[1, 0, 1]]
    torch.testing.assert_close(sol.event_times, torch.tensor([[0.5, 1.0, 1.5]], dtype=F64), rtol=0, atol=1e-12)
    before = torch.tensor([[0.0, 0.5], [0.5, 1.0], [1.0, 0.5], [0.5, 1.0], [0.75, 0.25]], dtype=F64)
    off = sol.y[:, 0].detach() - before
    assert float((off - off.round()).abs().max()) < 1e-9
    assert set(off.round().flatten().tolist()) <= {0.0, -1.0}
    assert off[-1].abs().max() < 1e-9
    (found,) = torch.autograd.grad(sol.y[-1].sum() + sol.event_times.sum(), start)
    torch.testing.assert_close(found, torch.tensor([[0.0, -1.0]], dtype=F64), rtol=0, atol=1e-9)


def test_a_rise_and_fall_inside_one_step_is_seen():
    """A flow without error, so that steps grow to the length of the trial; the guard is up for more than an eighth of it."""
    pulse = Threshold(
        lambda t, y: torch.ones_like(y),
        lambda t, y: 1.0 - (t - 5.0).abs(),
        lambda t, y, fired: torch.where(fired, y + 1.0, y),
    )
    sol = _solve(pulse, [[0.0]], (0.0, 1.0, 9.0))
    torch.testing.assert_close(sol.event_times, torch.tensor([[4.0]], dtype=F64), rtol=0, atol=1e-9)


def test_single_precision():
    net = Pair().to(torch.float32)
    y0 = torch.full((2, 4), 0.3)
    single = adjsnn.solve(net, None, y0=y0, ts=TIMES.float(), method="dopri5", rtol=1e-5, atol=1e-6)
    double = adjsnn.solve(net.double(), None, y0=y0.double(), ts=TIMES, method="dopri5", rtol=1e-10, atol=1e-10)
    assert torch.equal(single.event_index, double.event_index)
    torch.testing.assert_close(single.event_times.double(), double.event_times, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_a_loss_of_event_times_alone_and_of_states_alone():
    for loss in (lambda sol: sol.event_times[:, :4].square().sum(), lambda sol: sol.y.square().sum()):
        _, found = _gradients("none", loss=loss)
        _, judge = _gradients("none", adjoint=adjsnn.BPTT(), loss=loss)
        assert relative(found, judge) < 1e-11


def test_how_close_events_came_to_grazing_is_reported():
    sol = _solve(_integrators(0.25), [[0.0, 0.5], [-9.0, -9.0]])
    assert sol.stats.slowest_event.tolist() == pytest.approx([0.25, math.inf])
    smooth = _solve(Threshold(lambda t, y: -y, lambda t, y: None, None), [[1.0]])
    assert smooth.stats.slowest_event is None
    assert smooth.event_times.shape == (1, 0)


REFUSED = {
    "fixed steps": (lambda: _solve(_integrators(), [[0.0, 0.0]], method="rk4"), ConfigurationError, "guards and fixed steps"),
    "backsolve": (
        lambda: _solve(_integrators(), [[0.0, 0.0]], adjoint=adjsnn.Backsolve()),
        ConfigurationError,
        "adjoint=Backsolve",
    ),
    "forward sensitivities": (
        lambda: _solve(_integrators(), [[0.0, 0.0]], adjoint=adjsnn.ForwardSensitivity()),
        ConfigurationError,
        "adjoint=ForwardSensitivity",
    ),
    "above at the start": (
        lambda: _solve(_integrators(), [[0.0, 0.0], [0.0, 1.25]]),
        ConfigurationError,
        "guard 1 of sample 1 is 0.25 at the start",
    ),
    "a guard of another shape": (
        lambda: _solve(Threshold(lambda t, y: y, lambda t, y: y[:, 0] - 1.0, lambda t, y, f: y), [[0.0]]),
        ConfigurationError,
        r"guard returned \(1,\)",
    ),
    "a jump of another shape": (
        lambda: _solve(Threshold(lambda t, y: y, lambda t, y: y - 1.0, lambda t, y, f: y[0]), [[0.0]]),
        ConfigurationError,
        r"jump returned \(1,\)",
    ),
    "a jump that leaves its guard": (
        lambda: _solve(Threshold(lambda t, y: y * 0.0 + 1.0, lambda t, y: y - 1.0, lambda t, y, f: y + 0.5), [[0.0]]),
        EventError,
        "jump of guard 0, sample 0, t = 1 ms, left that guard at 0.5",
    ),
    "a jump that raises another guard": (
        lambda: _solve(
            Threshold(lambda t, y: torch.ones_like(y), lambda t, y: y - 1.0, lambda t, y, f: torch.where(f, y - 1.0, y + 1.0)),
            [[0.0, 0.5]],
        ),
        EventError,
        "jump of guard 1, sample 0, t = 0.5 ms, raised guard 0 from -0.5 to 0.5",
    ),
    "events that never end": (
        lambda: _solve(
            Threshold(
                lambda t, y: torch.ones_like(y), lambda t, y: y - 1.0, lambda t, y, f: torch.where(f, 1.0 - 0.5 * (2 - t), y)
            ),
            [[0.0]],
            (0.0, 3.0),
        ),
        EventError,
        "events of sample 0 at t = 2.* without time passing",
    ),
    "a ball that comes to rest": (
        lambda: _solve(Ball(bounce=0.3), [[1.0, 0.0]], (0.0, 3.0)),
        EventError,
        "sample 0.*at t = 0.838|sample 0, touches zero near t = 0.838",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call()


def test_touching_zero_from_below_is_no_event():
    touch = Threshold(lambda t, y: torch.zeros_like(y), lambda t, y: -((t - 5.1) ** 2), lambda t, y, fired: y + 1.0)
    sol = _solve(touch, [[1.0]])
    assert sol.event_times.shape == (1, 0)
    assert sol.y[-1].item() == 1.0


def test_a_crossing_without_speed_is_reported_as_slow():
    """φ = (t - 5.1)³ rises through zero with dφ/dt = 0, where no derivative of the event time exists."""
    inflection = Threshold(lambda t, y: torch.zeros_like(y), lambda t, y: (t - 5.1) ** 3, lambda t, y, fired: y + 1.0)
    start = torch.tensor([[1.0]], dtype=F64, requires_grad=True)
    found = adjsnn.solve(inflection, None, y0=start, ts=torch.tensor([0.0, 10.0], dtype=F64), method="dopri5")
    # Newton's method stops short of the root, where the speed is not quite zero: it says how close it came.
    assert 0.0 < float(found.stats.slowest_event) < 1e-6


def test_an_event_at_a_given_time():
    """A guard that rises with time and stays above zero fires once."""
    dose = Threshold(lambda t, y: -0.5 * y, lambda t, y: t - 3.0, lambda t, y, fired: torch.where(fired, y + 1.0, y))
    sol = _solve(dose, [[1.0]], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(sol.event_times, torch.tensor([[3.0]], dtype=F64), rtol=0, atol=1e-12)
    expected = (math.exp(-1.5) + 1.0) * math.exp(-3.5)
    assert float(sol.y[-1]) == pytest.approx(expected, abs=1e-9)


def test_known_steps_have_to_fit():
    net, u, y0, _ = _problem("held")
    taken = adjsnn.solve(net, u, ts=TIMES, y0=y0, method="dopri5").stats.taken
    again = adjsnn.solve(net, u, ts=TIMES, y0=y0, method="dopri5", adjoint=adjsnn.BPTT(taken))
    once = adjsnn.solve(net, u, ts=TIMES, y0=y0, method="dopri5")
    torch.testing.assert_close(again.y, once.y, rtol=0, atol=1e-13)
    with pytest.raises(ConfigurationError, match=r"BPTT\(steps\) of 3 samples.*a solution with 1 samples"):
        adjsnn.solve(net, u[:, :1], ts=TIMES, y0=y0[:1], method="dopri5", adjoint=adjsnn.BPTT(taken))
    later = torch.cat([TIMES[:-1], TIMES[-1:] + 1.0])
    with pytest.raises(ConfigurationError, match=rf"BPTT\(steps\) with output {len(TIMES) - 1} at .* at {later[-1]:g} ms"):
        adjsnn.solve(net, u, ts=later, y0=y0, method="dopri5", adjoint=adjsnn.BPTT(taken))


def test_known_steps_are_of_so_many_guards():
    """Events of steps without them would be missed in silence."""
    smooth = Threshold(lambda t, y: 1.0 + 0.0 * y, lambda t, y: None, lambda t, y, fired: y)
    one = Threshold(smooth.flow, lambda t, y: y - 1.0, lambda t, y, fired: torch.where(fired, y - 1.0, y))
    levels = torch.tensor([9.0, 1.0], dtype=F64)
    two = Threshold(smooth.flow, lambda t, y: y - levels, lambda t, y, fired: torch.where(fired[:, 1:], y - 1.0, y))
    taken = [_solve(system, [[0.0]], (0.0, 3.5)).stats.taken for system in (smooth, one, two)]
    for system, known in ((one, taken[0]), (smooth, taken[1]), (one, taken[2])):
        with pytest.raises(ConfigurationError, match=r"BPTT\(steps\) of a system .* guards; expected steps of a system of"):
            _solve(system, [[0.0]], (0.0, 3.5), adjoint=adjsnn.BPTT(known))

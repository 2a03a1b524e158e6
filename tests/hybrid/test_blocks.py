"""The steps of a block evaluated side by side: where they are, where they must not be, and the same gradients either way."""

import pytest
import torch
from smooth_systems import F64, TIMES, Drive, Network, checkpointed, cost, options_for, relative
from torch import nn

import adjsnn
from adjsnn import BPTT, HybridSystem
from adjsnn.hybrid import arrays, blocks, discrete, discrete_blocks, products
from hybrid.test_as_seen import Decay
from hybrid.test_events import Pair

pytestmark = pytest.mark.usefixtures("unchecked_shapes")
WIDTHS = (3, 12)  # by matrices, and by a recorded product
CALLS: list[int] = []  # outside of the systems, for which a count of their own would be a state


class Counted(Network):
    """ẏ as in Network; `twist` is one more factor of it."""

    def __init__(self, width=3, twist=None):
        super().__init__(width=width)
        self.twist = twist

    def vector_field(self, t, y, u):
        CALLS.append(len(y))
        flow = super().vector_field(t, y, u)
        return flow if self.twist is None else flow * self.twist(self, t, y)


def _trial(net, mode="none", dtype=F64, batch=4):
    random = torch.Generator().manual_seed(7)
    width = net.w.shape[0]
    y0 = torch.randn(batch, width, generator=random, dtype=F64).to(dtype).requires_grad_()
    u = torch.randn(len(TIMES) - 1, batch, 2, generator=random, dtype=F64).to(dtype).requires_grad_()
    inputs = {"none": None, "held": u, "callable": Drive().to(dtype)}[mode]
    return net.to(dtype), inputs, y0


def _gradients(net, inputs, y0, ts=TIMES, **options):
    """Gradients of all that is there, and how often the field was called on the way back."""
    sol = adjsnn.solve(net, inputs, ts=ts, y0=y0, **options)
    wanted = {"y0": y0, **dict(net.named_parameters())}
    if isinstance(inputs, torch.Tensor):
        wanted["u"] = inputs
    elif inputs is not None:
        wanted |= {f"signal.{name}": x for name, x in inputs.named_parameters()}
    CALLS.clear()
    if inputs is None:
        wanted.pop("v", None)
    found = torch.autograd.grad(cost(sol.y), list(wanted.values()))
    return sol, dict(zip(wanted, found, strict=True)), len(CALLS)


def _one_by_one(monkeypatch):
    monkeypatch.setattr(blocks, "NUMBERS", 0)


@pytest.mark.every(5)
@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("mode", ["held", "none", "callable"])
@pytest.mark.parametrize("method", ["rk4", "heun", "dopri5", "tsit5"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_same_gradient_in_fewer_evaluations(width, method, mode, dtype, monkeypatch):
    trial, options = _trial(Counted(width), mode, dtype), options_for(method, 1e-5)
    sol, found, calls = _gradients(*trial, **options)
    assert calls < sol.stats.steps
    tight = _gradients(*trial, adjoint=checkpointed(3), **options)[1]
    _one_by_one(monkeypatch)
    _, judge, separate = _gradients(*trial, **options)
    assert separate >= 2 * sol.stats.steps  # two stages at least
    # Some hundred operations in another order.
    assert relative(found, judge) < 1e3 * torch.finfo(dtype).eps
    assert all(torch.equal(found[name], tight[name]) for name in found)


@pytest.mark.every(2)
@pytest.mark.parametrize("mode", ["none", "held", "time"])
def test_the_same_gradient_through_events(mode, monkeypatch):
    net = Pair(time=mode == "time")
    random = torch.Generator().manual_seed(0)
    y0 = torch.rand(3, 4, generator=random, dtype=F64).mul(0.5).requires_grad_()
    ts = torch.tensor([0.0, 12.5, 41.0], dtype=F64)
    u = torch.randn(2, 3, 2, generator=random, dtype=F64).mul(0.2).requires_grad_() if mode == "held" else None
    wanted = [x for x in (y0, u, *net.parameters()) if x is not None and (x is not net.swing or mode == "time")]
    calls, field = [0], Pair.vector_field

    def counted(self, t, y, u):
        calls[0] += 1
        return field(self, t, y, u)

    def gradients():
        sol = adjsnn.solve(net, u, ts=ts, y0=y0, method="dopri5")
        assert int((sol.event_index >= 0).sum()) >= 12
        before, value = calls[0], sol.y.square().sum() + sol.event_times[:, :4].square().sum()
        return sol.stats.steps, torch.autograd.grad(value, wanted), calls[0] - before

    monkeypatch.setattr(Pair, "vector_field", counted)
    steps, found, together = gradients()
    assert together < steps
    _one_by_one(monkeypatch)
    _, judge, separate = gradients()
    assert separate >= 6 * steps
    for x, y in zip(found, judge, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-11 * float(y.abs().max()))


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y):
        ctx.save_for_backward(y)
        return y**3

    @staticmethod
    def backward(ctx, *cotangents):
        return 3.0 * ctx.saved_tensors[0] ** 2 * cotangents[0]


REFUSED = {  # what cannot be one evaluation of many steps
    "a branch on the time": lambda s, t, y: 1.0 if t[0] < 1.0 else 0.5,
    "a number of the time": lambda s, t, y: 1.0 + 0.1 * t[0].item(),
    "an array of the time": lambda s, t, y: 1.0 + 0.1 * float(t.numpy()[0, 0]),
    "an operation without a rule": lambda s, t, y: 1.0 + 0.1 * _Cube.apply(torch.tanh(y)),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("twist", REFUSED)
def test_what_cannot_be_one_evaluation_is_evaluated_step_by_step(twist, width):
    trial = _trial(Counted(width, REFUSED[twist]), "held")
    sol, found, calls = _gradients(*trial, method="rk4")
    assert calls >= 4 * sol.stats.steps
    assert relative(found, _gradients(*trial, method="rk4", adjoint=BPTT())[1]) < 1e-12


def _kept(s, t, y):
    s.last = y.detach()
    return 1.0


def test_a_system_that_keeps_something_is_evaluated_as_often_as_ever():
    trial = _trial(Counted(3, _kept))
    sol, found, calls = _gradients(*trial, method="rk4")
    assert calls == 4 * sol.stats.steps
    assert trial[0].last.shape == (4, 3)
    assert relative(found, _gradients(*trial, method="rk4", adjoint=BPTT())[1]) < 1e-12


SEEN_FROM_INSIDE = {
    "in place": lambda s, t, y: torch.ones_like(y).mul_(1.0 + 0.1 * y),
    "of its batch": lambda s, t, y: 1.0 + 0.1 * torch.arange(len(y), dtype=F64)[:, None],
    "a lookup": lambda s, t, y: torch.tensor([1.0, 0.7, 0.4], dtype=F64)[t[0, 0].long()],
    "split": lambda s, t, y: torch.cat(torch.sigmoid(y).split(1, 1), 1),
    "chosen": lambda s, t, y: torch.where(y > 0.0, 1.0, 0.5 + 0.1 * y),
    "constant": lambda s, t, y: torch.linalg.norm(s.w) * 0.1,
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("twist", SEEN_FROM_INSIDE)
def test_what_sees_its_batch_or_the_time_of_a_step_sees_those_of_one_step(twist, width):
    trial = _trial(Counted(width, SEEN_FROM_INSIDE[twist]), "held")
    found = _gradients(*trial, method="rk4")[1]
    assert relative(found, _gradients(*trial, method="rk4", adjoint=BPTT())[1]) < 1e-12


class Table(HybridSystem):
    """ẏ = -y + c of the millisecond, looked up: values that are equal do not make their gradients equal."""

    def __init__(self, number):
        super().__init__()
        self.c, self.number = nn.Parameter(torch.zeros(3, dtype=F64)), number

    def vector_field(self, t, y, u):
        return -y + self.c[int(t[0]) if self.number else t[0, 0].long()]


@pytest.mark.parametrize("number", [True, False])
def test_a_table_of_equal_values_gets_the_gradient_of_each(number):
    """∫ e^{t-T} dt over each millisecond, to the error of rk4 with steps of a quarter."""
    system, y0 = Table(number), torch.ones(1, 2, dtype=F64)
    ts = torch.linspace(0.0, 3.0, 13, dtype=F64)
    y = adjsnn.solve(system, None, y0=y0, ts=ts, method="euler").y[-1].sum()
    found = torch.autograd.grad(y, system.c)[0]
    judge = torch.autograd.grad(adjsnn.solve(system, None, y0=y0, ts=ts, method="euler", adjoint=BPTT()).y[-1].sum(), system.c)
    torch.testing.assert_close(found, judge[0], rtol=1e-13, atol=0.0)
    assert bool((found[1:] > 1.5 * found[:-1]).all())


@pytest.mark.parametrize("where", ["everywhere", "in one step", "at the ends of the last step"])
def test_a_wrong_recorded_product_is_noticed(where, monkeypatch):
    """Products are asked for from the last stage of the last step to the first of the first."""
    monkeypatch.setattr(blocks, "MOST", 8)
    trial, asked = _trial(Counted(12)), [0]
    options = {"method": "rk4", "substeps": 4}
    judge = _gradients(*trial, adjoint=BPTT(), **options)[1]
    right = products.Product.pull

    def pull(*given):
        asked[0] += 1
        step, stage = divmod(asked[0] - 1, 4)
        wrong = {"everywhere": True, "in one step": step == 12, "at the ends of the last step": step == 0 and stage in (0, 3)}
        return right(*given) * (1.0 + 1e-10 * wrong[where])

    monkeypatch.setattr(products.Product, "pull", pull)
    sol, found, calls = _gradients(*trial, **options)
    assert sol.stats.steps == 24
    assert calls >= 4 * (24 - 8)
    assert relative(found, judge) < 1e-12


def test_a_stage_of_other_operations_than_that_which_is_judged_is_noticed(monkeypatch):
    """As of a field with a branch, whose recorded product is that of the other one."""
    monkeypatch.setattr(blocks, "MOST", 8)
    trial, asked = _trial(Counted(12)), [0]
    options = {"method": "rk4", "substeps": 4}
    judge = _gradients(*trial, adjoint=BPTT(), **options)[1]
    right = blocks.evaluated

    def evaluated(stored, *given):
        asked[0] += 1
        out, saved = right(stored, *given)
        return out.relu() - (-out).relu() if asked[0] == 8 else out, saved  # the last stage of the second block

    monkeypatch.setattr(discrete_blocks, "evaluated", evaluated)
    sol, found, calls = _gradients(*trial, **options)
    assert sol.stats.steps == 24
    assert calls >= 4 * (24 - 8)
    assert relative(found, judge) < 1e-12


def test_states_that_did_not_follow_are_noticed(monkeypatch):
    """A field that answers differently the second time, which a solve cannot know."""
    answers = [1.0]
    trial = _trial(Counted(3, lambda s, t, y: answers[0]))
    sol = adjsnn.solve(trial[0], None, ts=TIMES, y0=trial[2], method="rk4")
    answers[0] = 1.1
    CALLS.clear()
    sol.y.sum().backward()
    assert len(CALLS) >= 4 * sol.stats.steps


@pytest.mark.parametrize("saved", [True, False])
def test_a_product_reads_what_autograd_saved_or_computes_it(saved, monkeypatch):
    if not saved:
        monkeypatch.setattr(products.Product, "placed", lambda self, saved: self)
    trial = _trial(Counted(12), "callable")
    sol, found, calls = _gradients(*trial, **options_for("dopri5"))
    assert calls < 6 * sol.stats.steps
    assert relative(found, _gradients(*trial, adjoint=BPTT(), **options_for("dopri5"))[1]) < 1e-12


class Woven(Counted):
    """A field of operations that take lists, return several tensors and have options, before and after the cotangent."""

    def vector_field(self, t, y, u):
        left, right = super().vector_field(t, y, u).chunk(2, 1)
        scale = torch.stack([left, right, left * right], 2).softmax(2)[..., 0]
        high = torch.cat([left, right.flip(1)], 1).logsumexp(1, keepdim=True)
        return torch.cat([left * scale.cumsum(1), torch.where(left > 0.0, right, left * right) - high], 1)


def test_a_product_of_many_kinds_of_operations(monkeypatch):
    made = []
    monkeypatch.setattr(products.Product, "placed", lambda self, saved: made.append(self) or self)
    trial = _trial(Woven(12))
    sol, found, calls = _gradients(*trial, method="rk4")
    assert calls < 2 * sol.stats.steps  # not four for each
    assert len(made[0].read) > 3
    assert relative(found, _gradients(*trial, method="rk4", adjoint=BPTT())[1]) < 1e-12


class Deep(HybridSystem):
    """A field that saves `hidden` numbers for the three of its state."""

    def __init__(self, hidden):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, 3)).double()

    def vector_field(self, t, y, u):
        CALLS.append(len(y))
        return self.f(y)


@pytest.mark.parametrize(
    ("hidden", "fewest", "most"), [(8, 50, 128), (2000, 8, 49), pytest.param(6000, 1, 1, marks=pytest.mark.slow)]
)
def test_a_block_is_shorter_where_a_field_saves_much_more_than_its_state(hidden, fewest, most, monkeypatch):
    torch.manual_seed(0)
    net, sizes = Deep(hidden), []
    of_blocks = blocks.blocks_backward
    monkeypatch.setattr(discrete, "blocks_backward", lambda stored, size: (sizes.append(size), of_blocks(stored, size))[1])
    y0 = torch.randn(4, 3, dtype=F64, requires_grad=True)
    times = torch.linspace(0.0, 2.0, 201, dtype=F64)
    _, found, calls = _gradients(net, None, y0, ts=times, method="rk4")
    assert fewest <= sizes[-1] <= most
    assert calls < 200 if sizes[-1] > 1 else calls >= 4 * 200
    _one_by_one(monkeypatch)
    _, expected, _ = _gradients(net, None, y0, ts=times, method="rk4")
    assert sizes[-1] == 1
    assert relative(found, expected) < 1e-12


def test_long_runs_in_many_blocks(monkeypatch):
    """And a last block of one step."""
    monkeypatch.setattr(blocks, "MOST", 4)
    for width in WIDTHS:
        trial = _trial(Counted(width))
        options = {"ts": torch.linspace(0.0, 2.0, 14, dtype=F64), "method": "heun"}
        _, found, calls = _gradients(*trial, **options)
        assert calls < 2 * 13
        assert relative(found, _gradients(*trial, adjoint=BPTT(), **options)[1]) < 1e-12


def test_a_backward_pass_leaves_nothing_behind():
    """What autograd saves for the backward pass of a block is freed with it."""
    import gc  # noqa: PLC0415

    trial = _trial(Counted(12))
    _gradients(*trial, method="rk4")
    gc.collect()

    def alive():
        return sum(type(x) is torch.Tensor for x in gc.get_objects())

    before = alive()
    gc.disable()
    try:
        for _ in range(3):
            _gradients(*trial, method="rk4")
        gc.collect()
        assert alive() <= before
    finally:
        gc.enable()


@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_arrays_of_numpy_and_of_torch_take_the_same_steps(dtype, monkeypatch):
    """But for the last bit of a power, which a step length does not keep."""
    trial = _trial(Counted(5), "held", dtype)
    fast = adjsnn.solve(trial[0], trial[1], ts=TIMES, y0=trial[2], method="dopri5", rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(arrays, "SMALL", 0)
    plain = adjsnn.solve(trial[0], trial[1], ts=TIMES, y0=trial[2], method="dopri5", rtol=1e-5, atol=1e-6)
    assert torch.equal(fast.y, plain.y)
    assert torch.equal(fast.stats.taken.times, plain.stats.taken.times)
    assert torch.equal(fast.stats.rejected, plain.stats.rejected)


def test_events_by_numpy_and_by_torch_are_the_same(monkeypatch):
    net, y0 = Pair(), torch.full((2, 4), 0.3, dtype=F64)
    options = {"ts": torch.tensor([0.0, 30.0], dtype=F64), "y0": y0, "method": "dopri5"}
    fast = adjsnn.solve(net, None, **options)
    assert int((fast.event_index >= 0).sum()) >= 6
    monkeypatch.setattr(arrays, "SMALL", 0)
    assert torch.equal(adjsnn.solve(net, None, **options).event_times, fast.event_times)


class Watched(Counted):
    """A guard that stays below zero."""

    def guard(self, t, y):
        return y[:, :1] - 100.0


def test_a_guard_that_does_not_fire_costs_no_evaluations():
    calls = []
    for kind in (Counted, Watched):
        net, _, y0 = _trial(kind())
        CALLS.clear()
        sol = adjsnn.solve(net, None, ts=TIMES, y0=y0, **options_for("dopri5"))
        calls.append(len(CALLS))
    assert calls[0] == calls[1]
    assert torch.equal(sol.y, adjsnn.solve(Counted(), None, ts=TIMES, y0=y0, **options_for("dopri5")).y)


@pytest.mark.parametrize("width", [1, 3, 8])
@pytest.mark.parametrize("method", ["heun", "rk4"])
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_a_batch_and_its_samples_have_the_same_bits(dtype, method, width):
    """Whether an entry is in a vector of the processor or in what is left over of it."""
    net, options = Decay(0.5).to(dtype), {"ts": TIMES.to(dtype), "method": method}
    y0 = torch.randn(7, width, generator=torch.Generator().manual_seed(2), dtype=F64).to(dtype).requires_grad_()
    whole = adjsnn.solve(net, None, y0=y0, **options).y
    of_whole = torch.autograd.grad(whole.square().sum(), y0)[0]
    for b in range(7):
        alone = adjsnn.solve(net, None, y0=y0[b : b + 1], **options).y
        assert torch.equal(alone[:, 0], whole[:, b])
        assert torch.equal(torch.autograd.grad(alone.square().sum(), y0)[0][b], of_whole[b])


@pytest.mark.parametrize("error", [TimeoutError, adjsnn.ConfigurationError])
def test_a_limit_of_time_and_an_error_of_the_library_lead_to_no_single_steps(error):
    raised = error("seen", "expected", "try")
    with pytest.raises(error), blocks.refusals():
        raise raised


@pytest.mark.parametrize("error", [RuntimeError, TypeError, NotImplementedError])
def test_what_torch_refuses_leads_to_single_steps(error):
    with pytest.raises(blocks.NotSideBySide), blocks.refusals():
        raise error

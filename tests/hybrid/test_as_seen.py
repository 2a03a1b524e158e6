"""A gradient belongs to what the forward pass saw, whatever has become of the module, the inputs and the results since."""

import math

import pytest
import torch
from smooth_systems import F64, checkpointed
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import adjsnn
from adjsnn import BPTT, Backsolve, ContinuousAdjoint, DiscreteAdjoint, ForwardSensitivity, HybridSystem

pytestmark = pytest.mark.usefixtures("unchecked_shapes")  # they would quadruple the time of many small solves
TS = torch.linspace(0.0, 2.0, 9, dtype=F64)
K = 0.5
# d/dk e^{-kT} at T = 2; the methods below are right to 1e-4.
TRUE = -2.0 * math.exp(-2.0 * K)
ADJOINTS = {
    "discrete": {},
    "square root of the states": {"adjoint": checkpointed("sqrt")},
    "three states": {"adjoint": checkpointed(3)},
    "little memory": {"adjoint": DiscreteAdjoint(memory_mb=0.01)},
    "adaptive": {"method": "dopri5"},
    "adaptive, three states": {"method": "tsit5", "adjoint": checkpointed(3)},
    "continuous": {"adjoint": ContinuousAdjoint()},
    "continuous, adaptive": {"method": "dopri5", "adjoint": ContinuousAdjoint(method="dopri5")},
    "forward": {"adjoint": ForwardSensitivity()},
    "backsolve": {"adjoint": Backsolve()},
    "BPTT": {"adjoint": BPTT()},
    "torchdiffeq": {"method": "torchdiffeq:rk4"},
    "torchdiffeq, backsolve": {"method": "torchdiffeq:rk4", "adjoint": Backsolve()},
}
TAPED = ("BPTT", "torchdiffeq")
each_adjoint = pytest.mark.parametrize("name", ADJOINTS)
each_own = pytest.mark.parametrize("name", [name for name in ADJOINTS if name not in TAPED])


class Decay(HybridSystem):
    """ẏ = -k y."""

    def __init__(self, k=0.3):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(k, dtype=F64))

    def vector_field(self, t, y, u):
        return -self.k * y


class Model(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.system, self.options = Decay(), options

    def forward(self):
        return _end(self.system, **self.options)


def _end(system, inputs=None, y0=None, **options):
    y0 = torch.ones(1, 1, dtype=F64) if y0 is None else y0
    return adjsnn.solve(system, inputs, y0=y0, ts=TS, **options).y[-1].sum()


def _near(gradient, expected=TRUE):
    assert float(gradient) == pytest.approx(expected, rel=2e-4)


@each_adjoint
def test_functional_call_gets_the_gradient_of_the_tensors_it_was_handed(name):
    """A leaf, and a tensor computed from one, whose place the module's own k = 0.3 takes again before the backward pass."""
    model, leaf, half = Model(**ADJOINTS[name]), *(torch.tensor(x, dtype=F64, requires_grad=True) for x in (K, K / 2))
    value = torch.func.functional_call(model, {"system.k": leaf}, ())
    _near(torch.autograd.grad(value, leaf)[0])
    value = torch.func.functional_call(model, {"system.k": 2.0 * half}, ())
    _near(torch.autograd.grad(value, half)[0], 2.0 * TRUE)
    assert model.system.k.item() == 0.3
    assert model.system.k.grad is None


def _replaced(system):
    system.k = nn.Parameter(torch.tensor(0.1, dtype=F64))


def _other_data(system):
    system.k.data = torch.tensor(0.1, dtype=F64)


def _deleted(system):
    del system.k


@each_adjoint
@pytest.mark.parametrize("change", [_replaced, _other_data, _deleted])
def test_a_parameter_replaced_before_the_backward_pass(name, change):
    system = Decay(K)
    k, value = system.k, _end(system, **ADJOINTS[name])
    change(system)
    after = dict(vars(system)["_parameters"])
    _near(torch.autograd.grad(value, k)[0])
    assert vars(system)["_parameters"] == after


@each_own
def test_a_step_of_the_optimiser_before_the_backward_pass_is_torchs_error(name):
    system = Decay(K)
    value = _end(system, **ADJOINTS[name])
    with torch.no_grad():
        system.k -= 0.1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


class Furnished(HybridSystem):
    """ẏ = -k y with a constant of every kind of attribute, 1 in product; `change` makes it another."""

    def __init__(self):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(K, dtype=F64))
        self.register_buffer("scale", torch.tensor(1.0, dtype=F64))
        self.register_buffer("index", torch.tensor([0]))
        self.plain, self.number, self.table = torch.tensor(1.0, dtype=F64), 1.0, [torch.tensor(1.0, dtype=F64), {"a": 1.0}]
        self.inner, self.squash = nn.Sequential(nn.Identity()), lambda x: x

    def vector_field(self, t, y, u):
        factor = (
            self.scale * self.plain * self.number * self.table[0] * self.table[1]["a"] * torch.ones(2, dtype=F64)[self.index]
        )
        return -self.k * factor * self.inner(self.squash(y)) * (1.0 if self.training else 2.0)

    def change(self):
        self.scale = torch.tensor(2.0, dtype=F64)
        self.index = torch.tensor([1])
        self.plain, self.number = torch.tensor(2.0, dtype=F64), 3.0
        self.table[0], self.table[1]["a"] = torch.tensor(2.0, dtype=F64), 5.0
        self.inner, self.squash = nn.Sequential(nn.Tanh()), torch.tanh
        self.eval()


@each_own
def test_every_attribute_is_what_it_was(name):
    system = Furnished()
    value = _end(system, **ADJOINTS[name])
    system.change()
    _near(torch.autograd.grad(value, system.k)[0])
    assert (system.number, system.table[1]["a"], system.training, float(system.plain)) == (3.0, 5.0, False, 2.0)


@pytest.mark.parametrize("tensor", ["scale", "index", "plain"])
def test_a_tensor_without_gradient_changed_in_place_is_torchs_error(tensor):
    system = Furnished()
    value = _end(system)
    getattr(system, tensor).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


class Counting(Decay):
    """Its calls are counted in a number and in a buffer."""

    def __init__(self):
        super().__init__(K)
        self.calls, self.at = 0, []
        self.register_buffer("total", torch.tensor(0))

    def vector_field(self, t, y, u):
        self.calls += 1
        self.total += 1
        self.at.append(t[0].item())
        return super().vector_field(t, y, u)


@pytest.mark.parametrize("name", ["discrete", "continuous", "backsolve"])
def test_a_system_may_count_its_calls(name):
    """Forward and backward, the second pass over the same graph too."""
    system = Counting()
    value = _end(system, **ADJOINTS[name])
    assert system.calls >= 4 * (len(TS) - 1)
    system.calls = 0
    _near(torch.autograd.grad(value, system.k, retain_graph=True)[0])
    once = system.calls
    assert once >= 4 * (len(TS) - 1)
    _near(torch.autograd.grad(value, system.k)[0])
    assert system.calls == 2 * once
    assert len(system.at) > 2 * once


class Signal(nn.Module):
    def __init__(self):
        super().__init__()
        self.height = nn.Parameter(torch.tensor(K, dtype=F64))

    def forward(self, t):
        return self.height * t


class Driven(HybridSystem):
    def vector_field(self, t, y, u):
        return u + 0.0 * y


@each_adjoint
def test_a_signal_of_its_own_parameters_is_what_it_was(name):
    """∫ h t dt = h T²/2."""
    signal = Signal()
    height, value = signal.height, _end(Driven(), signal, **ADJOINTS[name])
    signal.height = nn.Parameter(torch.tensor(7.0, dtype=F64))
    _near(torch.autograd.grad(value, height)[0], 2.0)


class Exponential(nn.Module):
    def forward(self, x):
        return x.exp()


def _parametrized():
    system = Decay(math.log(K))
    parametrize.register_parametrization(system, "k", Exponential())
    return system


@each_adjoint
def test_a_parametrized_weight_with_and_without_the_cache(name):
    """dC/d(log k) = k dC/dk, while what is cached serves another use of the weight too."""
    system = _parametrized()
    original = system.parametrizations.k.original
    _near(torch.autograd.grad(_end(system, **ADJOINTS[name]), original)[0], K * TRUE)
    with parametrize.cached():
        value = _end(system, **ADJOINTS[name])
        total = value + system.k
        _near(torch.autograd.grad(total, original)[0], K * (TRUE + 1.0))


class Linear(HybridSystem):
    def __init__(self, change):
        super().__init__()
        self.layer = change(nn.Linear(2, 2, dtype=F64))

    def vector_field(self, t, y, u):
        return torch.tanh(self.layer(y))


@pytest.mark.parametrize("name", ["discrete", "adaptive", "backsolve", "torchdiffeq, backsolve"])
@pytest.mark.parametrize(
    "change",
    [lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5), parametrizations.weight_norm, lambda layer: layer],
)
def test_two_steps_of_a_pruned_or_normed_layer_train_as_by_tape(name, change):
    trained = []
    for options in (ADJOINTS[name], ADJOINTS[name] | {"adjoint": BPTT()}):
        torch.manual_seed(3)
        system = Linear(change)
        optimiser = torch.optim.SGD(system.parameters(), lr=0.1)
        for _ in range(2):
            optimiser.zero_grad()
            _end(system, y0=torch.tensor([[0.3, -0.2]], dtype=F64), **options).backward()
            optimiser.step()
        trained.append([x.detach() for x in system.parameters()])
    for x, y in zip(*trained, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


RESULTS = {
    "y": lambda sol, y0, u: sol.y,
    "event_times": lambda sol, y0, u: sol.event_times,
    "times of the steps": lambda sol, y0, u: sol.stats.taken.times,
    "lengths of the steps": lambda sol, y0, u: sol.stats.taken.lengths,
    "events of the steps": lambda sol, y0, u: sol.stats.taken.event,
    "accepted": lambda sol, y0, u: sol.stats.accepted,
    "slowest": lambda sol, y0, u: sol.stats.slowest_event,
    "ts": lambda sol, y0, u: sol.ts,
    "y0": lambda sol, y0, u: y0,
    "u": lambda sol, y0, u: u,
}


HARMLESS = ("y", "slowest", "ts", "accepted")


class Firing(HybridSystem):
    """v̇ = u - v, reset to 0 at 1."""

    def vector_field(self, t, y, u):
        return u - y

    def guard(self, t, y):
        return y - 1.0

    def jump(self, t, y, fired):
        return torch.where(fired, 0.0 * y, y)


@pytest.mark.every(2)
@pytest.mark.parametrize("tensor", RESULTS)
@pytest.mark.parametrize("name", ["adaptive", "adaptive, three states", "continuous, adaptive"])
def test_a_result_or_input_overwritten_before_the_backward_pass_is_no_wrong_number(name, tensor):
    def run(overwrite):
        y0, u = torch.full((2, 1), 0.25, dtype=F64), torch.full((8, 2, 1), 2.0, dtype=F64).requires_grad_()
        sol = adjsnn.solve(Firing(), u, y0=y0, ts=TS.clone(), **({"method": "dopri5"} | ADJOINTS[name]))
        assert sol.event_index.shape == (2, 3)
        loss = sol.event_times.square().sum() + sol.y[-1].sum()
        if overwrite:
            with torch.no_grad():
                RESULTS[tensor](sol, y0, u).zero_()
        return torch.autograd.grad(loss, u)[0]

    if tensor in HARMLESS:
        assert torch.equal(run(True), run(False))
    else:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            run(True)


def test_the_solution_shares_no_memory_with_the_times_it_was_given():
    ts = TS.clone()
    sol = adjsnn.solve(Decay(), None, y0=torch.ones(1, 1, dtype=F64), ts=ts)
    ts.zero_()
    assert torch.equal(sol.ts, TS)


class Late(HybridSystem):
    """ẏ = -w y after 1 ms, with a w that is not registered."""

    def __init__(self, w):
        super().__init__()
        self.w = w

    def vector_field(self, t, y, u):
        return -self.w * y if t[0].item() > 1.0 else 0.0 * y


def test_an_attribute_that_is_used_first_on_the_way_is_named():
    start = torch.ones(1, 1, dtype=F64, requires_grad=True)
    value = _end(Late(torch.tensor(1.0, dtype=F64, requires_grad=True)), y0=start)
    with pytest.raises(adjsnn.ConfigurationError, match="w, an attribute that requires a gradient and is not registered"):
        value.backward()


def test_a_solution_kept_as_an_attribute_is_left_alone():
    """Its graph is gone after the first backward pass, and the next solve does not need it."""
    system = Decay(K)
    for _ in range(2):
        system.last = _end(system)
        system.k.grad = None
        system.last.backward()
        _near(system.k.grad)

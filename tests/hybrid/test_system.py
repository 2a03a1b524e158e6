"""What a system may depend on and do inside itself: right under every adjoint, or named before anything is solved."""

import math

import pytest
import torch
from smooth_systems import F64
from torch import nn

import adjsnn
from adjsnn import BPTT, ConfigurationError, ContinuousAdjoint, HybridSystem
from hybrid.test_as_seen import ADJOINTS, TAPED, TS, each_adjoint, each_own

pytestmark = pytest.mark.usefixtures("unchecked_shapes")  # they would quadruple the time of many small solves
LOG_K = -1.0
RATE = math.exp(LOG_K)
TRUE = -2.0 * RATE * math.exp(-2.0 * RATE)  # d/d(log k) e^{-kT} at T = 2


class Decay(HybridSystem):
    """ẏ = -k y with k = e^{log k}, by a flow of its own."""

    def __init__(self, flow):
        super().__init__()
        self.log_k = nn.Parameter(torch.tensor(LOG_K, dtype=F64))
        self.k, self.flow = None, flow

    def vector_field(self, t, y, u):
        return self.flow(self, y)


def _gradient(flow, prepare=None, **options):
    system = Decay(flow)
    if prepare is not None:
        prepare(system)
    y = adjsnn.solve(system, None, y0=torch.ones(1, 1, dtype=F64), ts=TS, **options).y
    return torch.autograd.grad(y[-1].sum(), system.log_k)[0].item()


@each_adjoint
def test_a_weight_computed_before_the_solve_has_its_gradient(name):
    def prepare(system):
        system.k = system.log_k.exp()

    assert _gradient(lambda s, y: -s.k * y, prepare, **ADJOINTS[name]) == pytest.approx(TRUE, rel=2e-4)


@each_own
def test_a_weight_computed_before_the_solve_out_of_sight_is_named(name):
    def prepare(system):
        k = system.log_k.exp()
        system.flow = lambda s, y: -k * y

    with pytest.raises(ConfigurationError, match="vector_field depends on log_k through a tensor that was computed before"):
        _gradient(None, prepare, **ADJOINTS[name])


@each_own
def test_a_weight_that_the_first_call_computes_for_all_is_named(name):
    def flow(system, y):
        if system.k is None:
            system.k = system.log_k.exp()
        return -system.k * y

    with pytest.raises(ConfigurationError, match="keeps a tensor that requires a gradient as 'k'"):
        _gradient(flow, **ADJOINTS[name])


def _energy(system, y):
    return (0.5 * system.log_k.exp() * y**2).sum()


@each_adjoint
def test_a_flow_that_is_the_gradient_of_an_energy(name):
    def flow(system, y):
        return -torch.autograd.grad(_energy(system, y), y, create_graph=True)[0]

    if name == "forward":
        with pytest.raises(ConfigurationError, match=r"torch\.autograd\.grad.*torch\.func\.grad"):
            _gradient(flow, **ADJOINTS[name])
    else:
        assert _gradient(flow, **ADJOINTS[name]) == pytest.approx(TRUE, rel=2e-4)


@each_adjoint
def test_a_flow_that_is_the_gradient_of_an_energy_by_torch_func(name):
    def flow(system, y):
        return -torch.func.grad(lambda y: _energy(system, y))(y)

    assert _gradient(flow, **ADJOINTS[name]) == pytest.approx(TRUE, rel=2e-4)


def test_a_derivative_off_the_tape_is_named():
    def flow(system, y):
        return -torch.autograd.grad(_energy(system, y), y)[0]

    with pytest.raises(ConfigurationError, match="create_graph=True"):
        _gradient(flow)


class Firing(HybridSystem):
    """v̇ = b, up to θ, then down by w; every function may differentiate inside, and every constant be another's."""

    def __init__(self, inside=False, **others):
        super().__init__()
        self.inside = inside
        for name in ("bias", "theta", "w"):
            if name not in others:
                setattr(self, name, nn.Parameter(torch.tensor(1.0, dtype=F64)))
        self.others = lambda name: others[name] if name in others else getattr(self, name)

    def derivative(self, x, rate):
        return torch.autograd.grad((rate * x).sum(), x, create_graph=True)[0] if self.inside else rate + 0.0 * x

    def vector_field(self, t, y, u):
        return self.derivative(y, self.others("bias"))

    def guard(self, t, y):
        return y - self.derivative(y, self.others("theta"))

    def jump(self, t, y, fired):
        return torch.where(fired, y - self.derivative(y, self.others("w")), y)

    def readout(self, y):
        return self.derivative(y, y.detach() * self.others("w"))


def _solve_firing(system, adjoint=None, **options):
    y0 = torch.zeros(2, 1, dtype=F64)
    return adjsnn.solve(
        system, None, y0=y0, ts=torch.tensor([0.0, 2.5], dtype=F64), method="dopri5", adjoint=adjoint, **options
    )


@pytest.mark.parametrize("function", ["bias", "theta", "w"])
@pytest.mark.parametrize("adjoint", [None, ContinuousAdjoint(), BPTT()])
def test_a_tensor_that_is_not_registered_in_guard_or_jump_is_named(function, adjoint):
    """The second event is at (θ + w)/b; torch's tape finds everything by itself."""
    x = torch.tensor(1.0, dtype=F64, requires_grad=True)
    system = Firing(**{function: x})
    if isinstance(adjoint, BPTT):
        times = _solve_firing(system, adjoint).event_times
        assert times.shape == (2, 2)
        expected = {"bias": -4.0, "theta": 2.0, "w": 2.0}[function]
        assert torch.autograd.grad(times[:, 1].sum(), x)[0].item() == pytest.approx(expected, abs=1e-9)
    else:
        what = {"bias": "vector_field", "theta": "guard", "w": "jump"}[function]
        with pytest.raises(ConfigurationError, match=rf"Firing.{what} depends on a tensor of shape \(\) .*nn.Parameter"):
            _solve_firing(system, adjoint)


@pytest.mark.parametrize("adjoint", [None, ContinuousAdjoint(), BPTT()])
def test_guards_jumps_and_readouts_may_differentiate_inside(adjoint):
    system = Firing(inside=True)
    sol = _solve_firing(system, adjoint)
    torch.testing.assert_close(sol.event_times, torch.tensor([[1.0, 2.0]] * 2, dtype=F64), rtol=0, atol=1e-9)
    torch.testing.assert_close(sol.readout, sol.y, rtol=0, atol=1e-12)
    found = torch.autograd.grad(sol.event_times[:, 1].sum(), (system.bias, system.theta, system.w))
    assert [x.item() for x in found] == pytest.approx([-4.0, 2.0, 2.0], abs=1e-9)
    with torch.no_grad():
        again = _solve_firing(system, adjoint)
    assert torch.equal(again.event_times, sol.event_times)
    assert torch.equal(again.readout, sol.readout)


@pytest.mark.parametrize("adjoint", [None, ContinuousAdjoint()])
def test_an_unregistered_tensor_of_a_signal_is_named(adjoint):
    x = torch.tensor(1.0, dtype=F64, requires_grad=True)
    with pytest.raises(ConfigurationError, match=r"inputs\(t\) depends on a tensor of shape \(\)"):
        adjsnn.solve(Decay(lambda s, y: -y), lambda t: x * t, y0=torch.ones(1, 1, dtype=F64), ts=TS, adjoint=adjoint)


def _membrane():
    torch.manual_seed(0)
    net = adjsnn.GatedSynapseNetwork(
        2, 4, 1, neuron=adjsnn.LIF(20.0, v_reset=0.0), gate=adjsnn.RaisedCosineGate(0.1), tau_fast=5.0, tau_slow=20.0
    ).double()
    return adjsnn.ChargeForm(net), torch.full((4, 1, 2), 16.0, dtype=F64), {"dt": 2.0}


def _fires():
    return Firing(), None, {"ts": torch.tensor([0.0, 2.5], dtype=F64), "y0": torch.zeros(2, 1, dtype=F64)}


def _smooth():
    return Decay(lambda s, y: -s.log_k.exp() * y), None, {"ts": TS, "y0": torch.ones(1, 1, dtype=F64)}


@pytest.mark.parametrize("make", [_membrane, _fires, _smooth])
def test_inference_mode_is_like_no_grad(make):
    """Also for a system, a state and inputs that were made in it."""
    system, u, options = make()
    with torch.no_grad():
        expected = adjsnn.solve(system, u, method="dopri5", **options)
    with torch.inference_mode():
        found = [adjsnn.solve(system, u, method="dopri5", **options)]
        other, u, options = make()
        found += [adjsnn.solve(other, u, method="dopri5", **options)]
    found += [adjsnn.solve(other, u, method="dopri5", **options)]
    for sol in found:
        for name in ("y", "readout", "event_times", "event_index"):
            assert torch.equal(getattr(sol, name), getattr(expected, name)), name
    assert make is _smooth or expected.event_times.isfinite().any()
    assert not any(sol.y.requires_grad for sol in found[:2])


def test_the_taped_adjoints_are_the_ones_left_out():
    assert all("adjoint" not in ADJOINTS[name] or isinstance(ADJOINTS[name]["adjoint"], BPTT) for name in TAPED)

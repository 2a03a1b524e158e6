"""A gradient that is not finite, of a solution and a loss that are, is told by every adjoint; and nothing else is."""

import re
import warnings

import pytest
import torch
from torch import Tensor

import adjsnn
from adjsnn import ContinuousAdjoint, DiscreteAdjoint, ForwardSensitivity, NotFiniteWarning, SpikeTrains
from adjsnn.gated.cpu import loops
from adjsnn.numerics.first_order import FirstOrder, first_order
from adjsnn.rules import SuperSpike
from adjsnn.signals import Stream

DT = 0.1
HUGE = {torch.float32: 1e36, torch.float64: 1e306}  # of cotangents, so that trials need not be long
KEPT = {"whole": DiscreteAdjoint(), "sqrt": DiscreteAdjoint(checkpoints="sqrt"), "two": DiscreteAdjoint(checkpoints=2)}
too_long = pytest.mark.filterwarnings("ignore::adjsnn.StepTooLongWarning")  # of some steps among thousands


def chaotic(dtype: torch.dtype) -> adjsnn.GatedSynapseNetwork:
    """A network whose costate grows by some ten powers of ten in 1000 steps."""
    net = adjsnn.GatedSynapseNetwork(2, 40, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        net.w_rec.mul_(4.0)
    return net.to(dtype)


def noise(steps: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(steps, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def lost_at(message: str) -> tuple[int, int]:
    """Step and sample that a warning names."""
    found = re.search(r"grew beyond what it holds by t = (\S+) ms on its way back, first in sample (\d+)", message)
    assert found is not None, message
    return round(float(found[1]) / DT), int(found[2])


@too_long
@pytest.mark.every(7)  # each method and body once, and not the Runge–Kutta loops of float32, which take 40 s to compile
@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("dtype", HUGE)
@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize("method", ["euler", "heun", "rk4"])
def test_a_costate_that_grows_beyond_its_dtype_is_told(method, kernels, dtype, kept):
    net, u = chaotic(dtype), noise(500, dtype).requires_grad_()
    sol = adjsnn.solve(net, u, dt=DT, method=method, kernels=kernels, adjoint=KEPT[kept])
    assert sol.readout.isfinite().all()
    with pytest.warns(NotFiniteWarning, match="not finite in 4 of the 5 tensors asked for") as told:
        (HUGE[dtype] * sol.readout[-1]).sum().backward()
    assert len(told) == 1
    assert told[0].filename == __file__
    assert ("float64" in str(told[0].message).partition("Try")[2]) == (dtype == torch.float32)
    step, sample = lost_at(str(told[0].message))
    lost = ~u.grad.isfinite().all(2)
    assert lost[step, sample]
    assert not lost[step, :sample].any()
    assert not lost[step + 1 :].any()
    assert not net.bias.grad.isfinite().all()
    assert net.w_out.grad.isfinite().all()


@too_long
def test_units_of_a_stream_are_looked_through_without_a_trace(monkeypatch):
    """The words are those of the trial stored whole; the steps that were run again are those of a gradient that is finite."""
    monkeypatch.setattr(loops, "NEURON_STEPS", 50 * 2 * 40)  # ten units
    net, u, told, again = chaotic(torch.float32), noise(500, torch.float32), [], []
    for inputs, adjoint in ((u, DiscreteAdjoint()), (Stream(u.numpy()), DiscreteAdjoint(checkpoints=3))):
        sol = adjsnn.solve(net, inputs, dt=DT, adjoint=adjoint, kernels="fused")
        for _ in range(2):  # a second pass runs more steps again than the first, as states were dropped
            sol.readout[-1].sum().backward(retain_graph=True)
        again.append(sol.stats.recomputed_steps)
        with pytest.warns(NotFiniteWarning, match="grew beyond") as found:
            (1e36 * sol.readout[-1]).sum().backward()
        again.append(sol.stats.recomputed_steps)
        told.append(str(found[0].message))
    assert told[0] == told[1]
    assert again[:2] == [0, 0]
    assert again[3] == again[2] > 500


@too_long
@pytest.mark.parametrize("dtype", HUGE)
def test_backpropagation_through_time_ceases_to_be_finite_there_too(dtype):
    """Nearly: the two sweeps round differently, and the costate grows by a few percent in a step."""
    net, u = chaotic(dtype), noise(500, dtype).requires_grad_()
    sol, judge = (adjsnn.solve(net, u, dt=DT, **options) for options in ({"kernels": "plain"}, {"adjoint": adjsnn.BPTT()}))
    with pytest.warns(NotFiniteWarning) as told:
        (HUGE[dtype] * sol.readout[-1]).sum().backward()
    step, _ = lost_at(str(told[0].message))
    u.grad = None
    (HUGE[dtype] * judge.readout[-1]).sum().backward()
    judged = int((~u.grad.isfinite().all(2)).any(1).nonzero()[-1])
    assert 0 < step < 450
    assert abs(step - judged) <= 5


@too_long
@pytest.mark.parametrize("kernels", ["plain", "fused"])
def test_a_shorter_trial_has_its_gradient(kernels):
    """Warnings are errors here. 60 steps amplify the rounding of float32 by less than ten."""
    net, u = chaotic(torch.float32), noise(60, torch.float32)
    found = []
    for adjoint in (DiscreteAdjoint(), adjsnn.BPTT()):
        options = {"kernels": kernels} if adjoint != adjsnn.BPTT() else {}
        sol = adjsnn.solve(net, u, dt=DT, adjoint=adjoint, **options)
        found.append(torch.autograd.grad((1e30 * sol.readout[-1]).sum(), [net.w_rec, net.bias, net.w_in]))
    for ours, judge in zip(*found, strict=True):
        torch.testing.assert_close(ours, judge, rtol=1e-4, atol=1e-4 * float(judge.abs().max()))


@too_long
def test_12_000_steps_of_a_chaotic_network():
    """With a loss of ordinary size, as in training. In float64 the same trial has a gradient, and nothing is told."""
    sol = adjsnn.solve(chaotic(torch.float32), noise(12_000, torch.float32), dt=DT)
    with pytest.warns(NotFiniteWarning, match=r"torch\.float32"):
        sol.readout.square().mean().backward()
    net = chaotic(torch.float64)
    adjsnn.solve(net, noise(12_000, torch.float64), dt=DT).readout.square().mean().backward()
    assert 1e39 < float(net.w_rec.grad.abs().max()) < float("inf")


class Logistic(adjsnn.HybridSystem):
    """The logistic map by Euler steps of length 1: chaos with a factor of nearly 2 in a step."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.r = torch.nn.Parameter(torch.tensor(3.99, dtype=dtype))

    def vector_field(self, t, y, u):
        return self.r * y * (1.0 - y) - y


def mapped(dtype: torch.dtype, adjoint: object, steps: int) -> tuple[Logistic, Tensor, adjsnn.HybridSolution]:
    system, y0 = Logistic(dtype), torch.tensor([[0.3], [0.0], [0.7]], dtype=dtype, requires_grad=True)
    sol = adjsnn.solve(system, torch.zeros(steps, 3, 1, dtype=dtype), y0=y0, dt=1.0, method="euler", adjoint=adjoint)
    return system, y0, sol


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("adjoint", [*KEPT.values(), ForwardSensitivity(), ContinuousAdjoint()], ids=str)
def test_a_chaotic_system_is_told(adjoint, dtype):
    _, y0, sol = mapped(dtype, adjoint, 300 if dtype == torch.float32 else 1500)
    assert sol.y.isfinite().all()
    with pytest.warns(NotFiniteWarning, match="not finite in 2 of the 2 tensors asked for.*start of the trial, in") as told:
        sol.y[-1].sum().backward()
    assert len(told) == 1
    assert told[0].filename == __file__
    lost = (~y0.grad.isfinite().all(1)).nonzero()[:, 0].tolist()
    assert f"in samples {lost};" in str(told[0].message)
    _, y0, sol = mapped(dtype, adjoint, 20)
    sol.y[-1].sum().backward()  # warnings are errors
    assert y0.grad.isfinite().all()


class Root(adjsnn.HybridSystem):
    """A field whose slope is infinite at the start."""

    def vector_field(self, t, y, u):
        return y.sqrt()


def test_a_slope_that_is_infinite_is_told():
    y0 = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    sol = adjsnn.solve(Root(), torch.zeros(5, 1, 1, dtype=torch.float64), y0=y0, dt=0.1, method="euler")
    with pytest.warns(NotFiniteWarning, match=r"in samples \[0\].*slopes that are finite"):
        sol.y[-1].sum().backward()


def spiking(**options):
    generator = torch.Generator().manual_seed(0)
    lif = adjsnn.LIFNetwork(5, [6, 3], generator=generator, dtype=torch.float64)
    with torch.no_grad():
        for w in lif.w_in:
            w.abs_().mul_(2.0)
    x = SpikeTrains.poisson(torch.full((2, 5), 100.0, dtype=torch.float64), 40.0, generator=generator)
    return lif, adjsnn.solve(lif, x, **options)


def test_a_lif_network_is_told(lif_kernels):
    lif, sol = spiking(kernels=lif_kernels)
    loss = sol.spike_times()[sol.spike_times().isfinite()].sum()
    loss.backward(retain_graph=True)  # warnings are errors
    assert all(w.grad.isfinite().all() for w in lif.w_in)
    assert float(lif.w_in[0].grad.abs().max()) > 5.0
    with pytest.warns(NotFiniteWarning, match="tensors asked for;") as told:
        (1e308 * loss).backward()
    assert told[0].filename == __file__


def test_a_learning_rule_is_told():
    lif, sol = spiking(adjoint=SuperSpike(), dt=0.5, t_end=40.0)
    loss = sol.spike_count(-1).sum()
    loss.backward(retain_graph=True)  # warnings are errors
    assert float(lif.w_in[0].grad.abs().max()) > 100.0
    with pytest.warns(NotFiniteWarning):
        (1e308 * loss).backward()


class Wasteful(FirstOrder):
    """The gradient of its first argument is infinite; whether it is asked for or not."""

    @staticmethod
    def forward(ctx, x, y):
        return x + y

    @staticmethod
    def backward(ctx, *cotangents):
        return infinite(ctx, *cotangents)


@first_order
def infinite(ctx, cotangent):
    return cotangent / 0.0, cotangent


def test_a_gradient_that_nobody_asked_for_is_not_told():
    x, y = torch.ones(2), torch.ones(2, requires_grad=True)
    Wasteful.apply(x, y).sum().backward()  # warnings are errors
    assert torch.equal(y.grad, torch.ones(2))
    with pytest.warns(NotFiniteWarning, match="1 of the 2"):
        Wasteful.apply(x.requires_grad_(), y).sum().backward()


@too_long
@pytest.mark.parametrize("kernels", ["plain", "fused"])
def test_a_gradient_that_a_backward_pass_leaves_out_is_not_told(kernels):
    """Of the readout alone it is finite. Warnings are errors here."""
    net = chaotic(torch.float32)
    loss = 1e36 * adjsnn.solve(net, noise(500, torch.float32), dt=DT, kernels=kernels).readout[-1].sum()
    (first,) = torch.autograd.grad(loss, [net.w_out], retain_graph=True)
    many = torch.autograd.grad(loss, [net.w_out], torch.ones(1), retain_graph=True, is_grads_batched=True)[0]
    loss.backward(inputs=[net.w_out], retain_graph=True)
    assert first.isfinite().all()
    assert torch.equal(first, net.w_out.grad)
    assert torch.equal(first, many[0])
    with pytest.warns(NotFiniteWarning, match="1 of the 2 tensors"):
        torch.autograd.grad(loss, [net.bias, net.w_out], retain_graph=True)
    with pytest.warns(NotFiniteWarning, match="1 of the 1 tensors"):
        loss.backward(inputs=[net.bias])


def lost(y0: Tensor, sol: adjsnn.HybridSolution, cotangent: float) -> Tensor:
    (grad,) = torch.autograd.grad(sol.y, y0, torch.full_like(sol.y, cotangent), retain_graph=True)
    return grad


@pytest.mark.parametrize("cotangent", [float("nan"), float("inf")])
def test_what_a_loss_hands_in_comes_out_untold(cotangent):
    """Warnings are errors here: whoever has such a loss knows, or is told by its value."""
    _, y0, sol = mapped(torch.float64, DiscreteAdjoint(), 5)
    assert not lost(y0, sol, cotangent).isfinite().all()
    assert lost(y0, sol, 1.0).isfinite().all()


def test_the_first_solve_of_a_chain_is_told_of():
    """The one before it is handed what is not finite, and is silent."""
    _, y0, first = mapped(torch.float32, DiscreteAdjoint(), 5)
    second = adjsnn.solve(
        Logistic(torch.float32), torch.zeros(300, 3, 1), y0=first.final_state, dt=1.0, method="euler", adjoint=DiscreteAdjoint()
    )
    with pytest.warns(NotFiniteWarning) as told:
        second.y[-1].sum().backward()
    assert len(told) == 1
    assert not y0.grad.isfinite().all()


def test_of_many_cotangents_each_is_looked_at():
    _, y0, sol = mapped(torch.float32, DiscreteAdjoint(), 300)
    many = torch.zeros(2, *sol.y.shape)
    many[0, 5] = many[1, -1] = 1.0
    with pytest.warns(NotFiniteWarning) as told:
        (grads,) = torch.autograd.grad(sol.y, y0, many, is_grads_batched=True)
    assert len(told) == 1
    assert grads[0].isfinite().all()
    assert not grads[1].isfinite().all()


def test_it_is_told_once_for_each_line_and_can_be_ignored_or_raised():
    _, sol = spiking()
    times = sol.spike_times()

    def differentiate():
        (1e308 * times[times.isfinite()].sum()).backward(retain_graph=True)

    with pytest.warns(NotFiniteWarning):  # a module that is imported on the way makes Python forget what it has told
        differentiate()
    for action, expected in (("default", 1), ("always", 3), ("ignore", 0)):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter(action)
            for _ in range(3):
                differentiate()
        assert len(told) == expected
    with pytest.raises(NotFiniteWarning):
        differentiate()

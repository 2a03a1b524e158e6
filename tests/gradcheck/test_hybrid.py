"""The gradient check and the convergence record of smooth systems: they pass what is right and fail what is wrong."""

import math

import pytest
import torch
from hybrid.test_events import Pair
from smooth_systems import ADAPTIVE, F64, FIXED, TIMES, Network, cost, problem
from torch import nn

import adjsnn
from adjsnn import BPTT, ConfigurationError, ContinuousAdjoint, DiscreteAdjoint, GradientCheckError
from adjsnn.gradcheck import Convergence, convergence
from adjsnn.gradcheck.__main__ import main
from adjsnn.hybrid import discrete_blocks, event_blocks

TOLERANCES = {"rtol": 1e-6, "atol": 1e-6}


def _loss(sol):
    return cost(sol.y)


def _check(mode="held", **options):
    net, inputs, y0, _ = problem(mode)
    return adjsnn.gradcheck(net, inputs, _loss, **({"ts": TIMES, "y0": y0, "verbose": False, "entries": 4} | options))


@pytest.mark.every(5)
@pytest.mark.parametrize("mode", ["held", "callable", "none"])
@pytest.mark.parametrize("method", FIXED)
def test_fixed_methods_agree_with_every_judge(method, mode):
    report = _check(mode, method=method, substeps=2, against=("bptt", "forward", "finite_difference"))
    assert report.spikes == 0
    names = {row.name for row in report.rows}
    assert {"w", "tau", "y0"} <= names
    assert ("u" in names) == (mode == "held")
    assert ("u.speed" in names) == (mode == "callable")
    for row in report.rows:
        assert row.bptt is not None
        assert row.bptt <= 1e-10, row  # the same steps: only the order of sums differs
        assert row.forward is not None
        assert row.forward <= 1e-9, row  # the same derivative carried the other way, amplified by the trial
        assert row.finite_difference is not None
        assert row.finite_difference <= 1e-6, row  # the quotient's own error, which two step lengths agree on to 3e-7
        assert row.norm > 0.0 or (row.name == "v" and mode == "none")


@pytest.mark.slow
@pytest.mark.parametrize("method", ADAPTIVE)
def test_adaptive_methods_agree_with_every_judge(method):
    report = _check(method=method, against=("bptt", "forward"), **TOLERANCES)
    assert all(row.bptt is not None and row.forward is not None for row in report.rows)
    assert all(row.finite_difference is None and row.probed == 0 for row in report.rows)
    assert "vs forward" in str(report)
    default = _check(method=method, **TOLERANCES)
    assert all(row.bptt is not None and row.finite_difference <= 1e-6 for row in default.rows)
    assert "vs forward" not in str(default)


@pytest.mark.slow
def test_events_are_judged_on_the_same_steps():
    """At a loose tolerance, whose discrete gradient differs from the true one by more than is allowed."""
    net, y0 = Pair(time=True), torch.full((2, 4), 0.3, dtype=torch.float64)
    options = {"y0": y0, "ts": torch.tensor([0.0, 12.0, 20.0]), "method": "dopri5", "rtol": 1e-4, "atol": 1e-4}

    def loss(sol):
        return sol.y.square().sum() + 0.1 * torch.where(sol.event_index >= 0, sol.event_times, 0.0).sum()

    report = adjsnn.gradcheck(net, None, loss, verbose=False, entries=2, **options)
    assert report.spikes >= 6
    assert all(row.finite_difference <= 1e-6 and row.skipped == 0 for row in report.rows), report


@pytest.mark.slow
class Upstroke(adjsnn.HybridSystem):
    """v̇ = 0.04 v² + 5 v + 140 - w + 10, Izhikevich's: past the peak it runs to infinity within a fraction of a ms."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(0.02, dtype=torch.float64))

    def vector_field(self, t, y, u):
        v, w = y.unbind(1)
        return torch.stack([0.04 * v**2 + 5.0 * v + 150.0 - w, self.a * (0.2 * v - w)], 1)

    def guard(self, t, y):
        return y[:, :1] - 30.0

    def jump(self, t, y, fired):
        return torch.where(fired, torch.stack([-65.0 + 0.0 * y[:, 0], y[:, 1] + 8.0], 1), y)


@pytest.mark.slow
def test_a_perturbed_solution_that_runs_away_asks_for_a_smaller_perturbation():
    y0 = torch.tensor([[-65.0, -13.0]], dtype=torch.float64)
    options = {"y0": y0, "ts": torch.tensor([0.0, 100.0], dtype=torch.float64), "method": "dopri5", "rtol": 1e-6, "atol": 1e-6}
    report = adjsnn.gradcheck(Upstroke(), None, lambda sol: sol.event_times[:, :3].square().mean(), entries=1, **options)
    assert all(row.probed for row in report.rows)


def test_a_loss_that_is_not_finite_cannot_be_judged():
    y0, ts = torch.tensor([[-65.0, -13.0]], dtype=torch.float64), torch.tensor([0.0, 30.0], dtype=torch.float64)
    with pytest.raises(adjsnn.ConfigurationError, match="a loss of inf"):
        adjsnn.gradcheck(Upstroke(), None, lambda sol: sol.y.abs().sum() * math.inf, y0=y0, ts=ts, method="dopri5")


def test_a_wrong_slope_of_the_guard_is_caught(monkeypatch):
    """As that of the threshold, which a library once dropped: the adjoint is told another guard than the events have."""
    true = event_blocks.level
    monkeypatch.setattr(event_blocks, "level", lambda system, t, y, guard: true(system, t, y, guard) + 0.3 * y[:, 0])
    net, y0 = Pair(), torch.full((1, 4), 0.3, dtype=torch.float64)
    ts = torch.tensor([0.0, 8.0])  # one event
    with pytest.raises(adjsnn.GradientCheckError, match="central differences"):
        adjsnn.gradcheck(net, None, lambda sol: sol.y.square().sum(), verbose=False, entries=2, y0=y0, ts=ts, method="dopri5")


def test_checkpoints_and_float32(capsys):
    net, inputs, y0, _ = problem("held")
    net, inputs, y0 = net.float(), inputs.detach().float(), y0.detach().float()
    before = [p.clone() for p in net.parameters()]
    report = adjsnn.gradcheck(net, inputs, _loss, dt=0.2, y0=y0, entries=2, adjoint=DiscreteAdjoint(checkpoints=2))
    assert str(report) in capsys.readouterr().out
    assert all(p.dtype == torch.float32 and torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))


def test_a_wrong_vector_jacobian_product_of_the_adjoint_is_caught(monkeypatch):
    right = discrete_blocks.transposed
    monkeypatch.setattr(discrete_blocks, "transposed", lambda *given: [x * (1.0 + 1e-5) for x in right(*given)])
    for judge, words in (("bptt", "BPTT, allowed 1e-10"), ("forward", "forward sensitivities, allowed 1e-09")):
        with pytest.raises(GradientCheckError, match=f"from {words}"):
            _check(against=(judge,))
    with pytest.raises(GradientCheckError, match="from central differences, allowed 1e-06"):
        _check(against=("finite_difference",))


class _Square(torch.autograd.Function):
    """y² with a derivative of 2.001 y: what a user may get wrong in a field of one's own."""

    @staticmethod
    def forward(ctx, y):
        ctx.save_for_backward(y)
        return y**2

    @staticmethod
    def backward(ctx, *cotangents):
        return 2.001 * ctx.saved_tensors[0] * cotangents[0]


class _WrongField(Network):
    def vector_field(self, t, y, u):
        return super().vector_field(t, y, u) - 0.1 * _Square.apply(y)


def test_a_wrong_derivative_of_the_field_is_caught_by_differences_only():
    _, inputs, y0, _ = problem("held")
    options = {"ts": TIMES, "y0": y0, "verbose": False}
    adjsnn.gradcheck(_WrongField(), inputs, _loss, against=("bptt",), **options)  # the tape asks the same derivative
    with pytest.raises(GradientCheckError, match="from central differences"):
        adjsnn.gradcheck(_WrongField(), inputs, _loss, **options)


def test_the_continuous_adjoint_is_not_the_gradient_of_the_computed_cost():
    with pytest.raises(GradientCheckError, match="from BPTT"):
        _check(adjoint=ContinuousAdjoint(), against=("bptt",))


def _gated(**options):
    net = adjsnn.GatedSynapseNetwork(2, 4, 1, generator=torch.Generator().manual_seed(0))
    return adjsnn.gradcheck(net, torch.zeros(5, 2, 2), lambda sol: sol.readout.sum(), dt=0.1, **options)


def _converge(inputs_mode="none", **options):
    net, inputs, y0, _ = problem(inputs_mode)
    return convergence(net, inputs, _loss, **({"adjoint": DiscreteAdjoint(), "ts": TIMES, "y0": y0} | options))


REFUSED = {
    "differences, torchdiffeq": (
        lambda: _check(method="torchdiffeq:dopri5", against=("bptt", "finite_difference")),
        "method='torchdiffeq:dopri5'.*whose steps are known",
    ),
    "forward, gated": (lambda: _gated(against=("forward",)), "gated network.*HybridSystems only"),
    "unknown judge": (lambda: _check(against=("oracle",)), "oracle"),
    "loss not scalar": (
        lambda: adjsnn.gradcheck(Network(), None, lambda sol: sol.y, ts=TIMES, y0=torch.zeros(1, 3)),
        "not a single number",
    ),
    "not a system": (lambda: adjsnn.gradcheck(nn.Linear(2, 2), torch.zeros(2, 2, 2), _loss, dt=0.1), "type Linear"),
    "gated, no tensor": (
        lambda: adjsnn.gradcheck(adjsnn.GatedSynapseNetwork(2, 4, 1), None, _loss, dt=0.1),
        "inputs of type NoneType",
    ),
    "y0 not a tensor": (lambda: _check(y0=[1.0]), "y0 of type list"),
    "convergence, gated": (
        lambda: convergence(adjsnn.GatedSynapseNetwork(2, 4, 1), None, _loss, adjoint=BPTT(), dt=1.0),
        "GatedSynapseNetwork.*ChargeForm",
    ),
    "convergence, substeps": (lambda: _converge(substeps=2), "substeps in convergence"),
    "convergence, tolerances of fixed steps": (lambda: _converge(tolerances=(1e-3,)), "tolerances with method='rk4'.*dts"),
    "convergence, steps of adaptive ones": (lambda: _converge(method="dopri5", dts=(0.1,)), "dts with method='dopri5'"),
    "convergence, uneven step": (lambda: _converge(dts=(0.07,)), "0.07 ms between output times 0.8 ms apart"),
    "convergence, negative step": (lambda: _converge(dts=(-0.1,)), "a step of -0.1 ms"),
    "convergence, no times": (lambda: _converge(ts=None), "dt=None; expected a positive dt in ms, or output times ts"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, message = REFUSED[case]
    with pytest.raises(ConfigurationError, match=message) as caught:
        call()
    assert "Try: " in str(caught.value)


@pytest.mark.every(4)
@pytest.mark.parametrize("adjoint", [DiscreteAdjoint, ContinuousAdjoint])
@pytest.mark.parametrize(("method", "order"), [("heun", 2), ("rk4", 4)])
def test_the_slope_is_the_order_of_the_method(method, order, adjoint):
    chosen = adjoint() if adjoint is DiscreteAdjoint else adjoint(method=method)
    found = _converge("held", method=method, adjoint=chosen, dts=(0.1, 0.05, 0.025, 0.0125))
    assert found.sizes == pytest.approx((0.1, 0.05, 0.025, 0.0125))
    # Three halvings from a step of τ/20: the next power of h still bends the slope by a few hundredths.
    assert found.slope == pytest.approx(order, abs=0.25)
    assert found.loss_errors[-1] < found.loss_errors[0] / (0.5 * 8**order)


@pytest.mark.slow
def test_the_error_follows_the_tolerance():
    found = _converge(method="dopri5", tolerances=(1e-9, 1e-5, 1e-7))
    assert found.sizes == (1e-5, 1e-7, 1e-9)
    # Errors per step follow the tolerance; the error at the end follows it to a power between 4/5 and 1, and some luck.
    assert 0.6 < found.slope < 1.4
    assert found.gradient_errors[-1] < 1e-7


@pytest.mark.slow
def test_a_wrong_adjoint_does_not_converge(monkeypatch):
    right = discrete_blocks.transposed
    reference = _converge(dts=(0.1, 0.05))
    monkeypatch.setattr(discrete_blocks, "transposed", lambda *given: [0.9 * x for x in right(*given)])
    found = _converge(dts=(0.1, 0.05), reference={"method": "rk4", "substeps": 100, "adjoint": BPTT()})
    assert reference.slope > 3.0
    assert abs(found.slope) < 0.5
    assert found.loss_errors == pytest.approx(reference.loss_errors, rel=1e-2)  # only its gradient is wrong


def test_the_record_and_its_picture(tmp_path):
    found = Convergence("rk4", "DiscreteAdjoint", "step", (0.4, 0.2, 0.1), (1e-3, 1e-3 / 16, 1e-13), (1e-4, 1e-5, 0.0))
    assert found.slope == pytest.approx(4.0)  # the last error is the reference's own and is left out
    assert math.isnan(Convergence("rk4", "", "step", (0.1,), (1e-3,), (1e-3,)).slope)
    lines = str(found).splitlines()
    assert "rk4, DiscreteAdjoint: slope 4.00" in lines[0]
    assert len(lines) == 6
    found.plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000


def test_one_parameter_in_system_and_input_is_one_leaf():
    net, drive = Network(), problem("callable")[1]
    drive.tau = net.tau
    report = adjsnn.gradcheck(net, drive, _loss, ts=TIMES, y0=torch.zeros(2, 3, dtype=F64), entries=2, verbose=False)
    assert [row.name for row in report.rows] == ["w", "v", "tau", "u.speed", "y0"]


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    assert main(["--convergence", "--picture", str(tmp_path / "picture.png")]) == 0
    printed = capsys.readouterr().out
    for method in ("rk4", "dopri5"):
        for adjoint in ("DiscreteAdjoint", "ContinuousAdjoint"):
            assert f"{method}, {adjoint}: slope " in printed
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    with pytest.raises(SystemExit):
        main(["--picture", "picture.png"])
    assert "goes with --convergence" in capsys.readouterr().err

"""Every way of being wrong about a smooth system: the type of the error, what it says was seen and what to try."""

import math

import numpy as np
import pytest
import torch
from smooth_systems import F64, TIMES, Network, checkpointed

from adjsnn import BPTT, ConfigurationError, DiscreteAdjoint
from adjsnn.hybrid.backsolve import Backsolve
from adjsnn.hybrid.continuous import ContinuousAdjoint
from adjsnn.hybrid.forward import ForwardSensitivity
from adjsnn.hybrid.solve import solve_hybrid
from adjsnn.hybrid.system import HybridSystem


def _y0(batch=3):
    return torch.ones(batch, 3, dtype=F64)


def _u(steps=6, batch=3):
    return torch.zeros(steps, batch, 2, dtype=F64)


def _with(x, at, value):
    x[at] = value
    return x


def _solve(system=None, inputs=None, **options):
    options = {"ts": TIMES, "y0": _y0()} | options
    return solve_hybrid(Network() if system is None else system, inputs, **options)


def _by_dt(**options):
    return _solve(None, _u(), ts=None, **({"dt": 0.1} | options))


class Returning(HybridSystem):
    def __init__(self, result):
        super().__init__()
        self.result = result

    def vector_field(self, t, y, u):
        return self.result(y)


class Guarded(Network):
    def guard(self, t, y):
        return y[:, :1] - 1.0


class Reading(Network):
    def readout(self, y):
        return y.sum(0)


def _unregistered():
    net = Network()
    hidden = torch.ones(3, dtype=F64, requires_grad=True)
    net.vector_field = lambda t, y, u: -y * (2.0 * hidden).exp()
    return net


CASES = {
    "not a system": (lambda: _solve(torch.nn.Linear(3, 3)), "system of type Linear.*HybridSystem"),
    "unknown method": (lambda: _solve(method="rk5"), "method='rk5'.*dopri5.*torchdiffeq"),
    "method not a string": (lambda: _solve(method=4), "method=4"),
    "unknown method of torchdiffeq": (lambda: _solve(method="torchdiffeq:rk5"), "torchdiffeq says: .*rk5"),
    "numpy input": (lambda: _solve(inputs=np.zeros((6, 3, 2))), "ndarray.*torch.as_tensor"),
    "two dimensions": (lambda: _solve(inputs=torch.zeros(6, 3, dtype=F64)), r"shape \(6, 3\).*unsqueeze"),
    "no samples": (lambda: _solve(inputs=_u(batch=0)), r"\(6, 0, 2\)"),
    "integer input": (lambda: _solve(inputs=_u().long()), "torch.int64"),
    "other dtype": (lambda: _solve(inputs=_u().float()), "float64.*inputs is torch.float32"),
    "other device": (lambda: _solve(inputs=None, y0=_y0().to("meta")), "y0 is torch.float64 on meta"),
    "NaN input": (lambda: _solve(inputs=_with(_u(), (3, 1, 0), math.nan)), r"inputs\[3, 1, 0\] = nan"),
    "inputs for other times": (lambda: _solve(inputs=_u(7)), r"7 intervals with 7 output times.*\(6, B, C\)"),
    "inputs of another batch": (lambda: _solve(inputs=_u(batch=2)), "y0 of 3 samples with inputs of 2"),
    "signal of a wrong shape": (lambda: _solve(inputs=lambda t: t[:1]), r"inputs\(t\) returned \(1, 1\).*\(3, C\)"),
    "signal of a wrong dtype": (lambda: _solve(inputs=lambda t: t.float()), "returned .*float32"),
    "dt and ts": (lambda: _solve(inputs=_u(), dt=0.1), "dt=0.1 and ts=given.*either"),
    "neither dt nor ts": (lambda: _solve(inputs=_u(), ts=None), "either dt or ts"),
    "dt without inputs": (lambda: _solve(ts=None, dt=0.1), "dt without inputs.*torch.arange"),
    "dt with a function": (lambda: _solve(inputs=lambda t: t, ts=None, dt=0.1), "dt without inputs"),
    "dt zero": (lambda: _by_dt(dt=0.0), "dt=0.0.*positive"),
    "dt negative": (lambda: _by_dt(dt=-1.0), "dt=-1.0.*positive"),
    "dt NaN": (lambda: _by_dt(dt=math.nan), "dt=nan"),
    "dt a string": (lambda: _by_dt(dt="0.1"), "dt='0.1'"),
    "ts of text": (lambda: _solve(ts=["zero", "one"]), "ts of type list"),
    "ts of two dimensions": (lambda: _solve(ts=TIMES[None]), r"ts of shape \(1, 7\)"),
    "one time": (lambda: _solve(ts=TIMES[:1]), "at least two times"),
    "ts NaN": (lambda: _solve(ts=_with(TIMES.clone(), 2, math.nan)), r"ts\[2\] = nan"),
    "ts not increasing": (lambda: _solve(ts=_with(TIMES.clone(), 3, 0.5)), r"ts\[2\] = 0.5 before ts\[3\] = 0.5"),
    "ts with a gradient": (lambda: _solve(ts=TIMES.clone().requires_grad_()), "ts that requires a gradient"),
    "y0 of one dimension": (lambda: _solve(y0=torch.ones(3, dtype=F64)), r"y0 is \(3,\).*unsqueeze"),
    "y0 of integers": (lambda: _solve(y0=_y0().long()), "y0 is .*int64"),
    "y0 not a tensor": (lambda: _solve(y0=[1.0]), "y0 is list"),
    "y0 of another dtype": (lambda: _solve(y0=_y0().float()), "float32.*w is torch.float64"),
    "y0 NaN": (lambda: _solve(y0=_with(_y0(), (2, 1), math.nan)), r"y0\[2, 1\] = nan"),
    "no state to start from": (lambda: _solve(y0=None), "Network without y0.*initial_state"),
    "rtol with fixed steps": (lambda: _solve(rtol=1e-3), "rtol=0.001 with method='rk4'.*dopri5"),
    "atol with fixed steps": (lambda: _solve(atol=1e-3, method="euler"), "atol=0.001 with method='euler'"),
    "rtol zero": (lambda: _solve(method="dopri5", rtol=0.0), "rtol=0.0.*positive"),
    "atol negative": (lambda: _solve(method="tsit5", atol=-1.0), "atol=-1.0.*positive"),
    "rtol below rounding": (
        lambda: _solve(Network().float(), y0=_y0().float(), method="dopri5", rtol=1e-8),
        "rtol=1e-08 in torch.float32.*float64",
    ),
    "max_steps zero": (lambda: _solve(method="dopri5", max_steps=0), "max_steps=0"),
    "substeps zero": (lambda: _solve(substeps=0), "substeps=0"),
    "substeps a fraction": (lambda: _solve(substeps=1.5), "substeps=1.5"),
    "substeps with adaptive steps": (lambda: _solve(method="dopri5", substeps=2), "substeps=2 with method='dopri5'"),
    "field of a wrong shape": (lambda: _solve(Returning(lambda y: y[:, :2])), r"vector_field returned \(3, 2\).*\(3, 3\)"),
    "field without its batch": (lambda: _solve(Returning(lambda y: y.sum(0))), r"vector_field returned \(3,\)"),
    "field of a wrong dtype": (lambda: _solve(Returning(lambda y: y.float())), "vector_field returned .*float32"),
    "field returning nothing": (lambda: _solve(Returning(lambda y: None)), "vector_field returned NoneType"),
    "readout without its rows": (lambda: _solve(Reading()), "readout returned .* for 21 rows"),
    "a guard": (lambda: _solve(Guarded()), "Guarded with guards and fixed steps.*dopri5"),
    "adjoint class, not instance": (lambda: _solve(adjoint=DiscreteAdjoint), "an adjoint instance"),
    "adjoint by name": (lambda: _solve(adjoint="discrete"), "adjoint='discrete'"),
    "adjoint that torchdiffeq lacks": (
        lambda: _solve(method="torchdiffeq:rk4", adjoint=ContinuousAdjoint()),
        "ContinuousAdjoint.*BPTT",
    ),
    "checkpoints zero": (lambda: _solve(adjoint=checkpointed(0)), "checkpoints=0"),
    "checkpoints by another name": (lambda: _solve(adjoint=checkpointed("log")), "checkpoints='log'"),
    "checkpoints zero, adaptive": (lambda: _solve(method="dopri5", adjoint=checkpointed(0)), "checkpoints=0"),
    "too many directions": (lambda: _solve(adjoint=ForwardSensitivity(most=5)), "19 directions.*at most 5"),
    "no directions": (lambda: ForwardSensitivity(most=0), "most=0"),
    "continuous: method": (lambda: ContinuousAdjoint(method="rk5"), "method='rk5'"),
    "continuous: dt": (lambda: ContinuousAdjoint(dt=0.0), "dt=0.0"),
    "continuous: rtol of fixed steps": (lambda: ContinuousAdjoint(rtol=1e-3), "rtol=0.001 with fixed"),
    "continuous: atol": (lambda: ContinuousAdjoint(method="dopri5", atol=0.0), "atol=0.0"),
    "continuous: no tolerance": (lambda: _solve(adjoint=ContinuousAdjoint(method="dopri5")), "without tolerances.*rtol=1e-6"),
    "backsolve: tolerance": (lambda: Backsolve(tolerance=-1.0), "tolerance=-1.0"),
}


@pytest.mark.parametrize("case", CASES)
def test_case(case):
    call, message = CASES[case]
    with pytest.raises(ConfigurationError, match=f"(?s){message}"):
        call()


@pytest.mark.parametrize("adjoint", [None, ContinuousAdjoint(), ForwardSensitivity(), Backsolve()])
def test_an_unregistered_tensor_is_named(adjoint):
    with pytest.raises(ConfigurationError, match=r"tensor of shape \(3,\) that requires a gradient.*nn.Parameter"):
        _solve(_unregistered(), adjoint=adjoint)


def test_the_tape_finds_unregistered_tensors_by_itself():
    hidden = torch.ones(3, dtype=F64, requires_grad=True)
    y = _solve(Returning(lambda y: -hidden * y), adjoint=BPTT()).y
    y.sum().backward()
    assert hidden.grad.abs().min() > 0.0

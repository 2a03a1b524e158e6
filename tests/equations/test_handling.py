"""Equations as modules: pickled, changed after they were made, solved for another number of samples, and asked of elsewhere."""

import copy
import dataclasses
import io
import pickle
from typing import Any

import pytest
import torch
from pint_units import REGISTRY
from torch import Tensor, nn
from torch.nn.utils import parametrize

import adjsnn
from adjsnn import plotting
from adjsnn.equations import link

F64 = torch.float64
OPTIONS: dict[str, Any] = {"ts": [0.0, 10.0, 30.0], "method": "dopri5"}


def delayed() -> adjsnn.Equations:
    return adjsnn.Equations(
        "dv/dt = (b - v + where(g > 0, g, 0.5*g))/10\ndg/dt = -g/5",
        threshold="v > 1",
        reset="v = 0",
        size={"v": 2, "g": 2},
        parameters={"b": torch.tensor([1.5, 1.3]), "W": torch.tensor([[0.0, 0.4], [0.3, -0.2]]), "d": torch.ones(2, 2)},
        learn=("b", "W", "d"),
        synapses={"g": {"weight": "W", "delay": "d"}},
        readout=("v", "sum(g)"),
        dtype=F64,
    )


def by_pickle(system: adjsnn.Equations) -> adjsnn.Equations:
    return pickle.loads(pickle.dumps(system))


def by_file(system: adjsnn.Equations) -> adjsnn.Equations:
    file = io.BytesIO()
    torch.save(system, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


@pytest.mark.parametrize("again", [by_pickle, by_file, copy.deepcopy])
def test_the_same_system_again(again: Any):
    system = delayed()
    other = again(system)
    with torch.no_grad():
        for x in system.parameters():
            x += 0.1
    y0 = torch.zeros(1, 4, dtype=F64)
    found = [adjsnn.solve(x, None, **OPTIONS, y0=y0).readout for x in (delayed(), other)]
    assert torch.equal(*found)


def of_samples() -> adjsnn.Equations:
    return adjsnn.Equations("dv/dt = -v/tau + 1", parameters={"tau": torch.tensor([5.0, 10.0], dtype=F64)}, learn="tau")


@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_parameters_of_other_samples(kernels: str, method: str):
    """Two time constants are not those of four samples in turn."""
    system = of_samples()
    options: dict[str, Any] = {"ts": [0.0, 1.0], "method": method, "kernels": kernels}
    with pytest.raises(adjsnn.ConfigurationError, match="tau of 2 samples with 4"):
        adjsnn.solve(system, None, **options, y0=torch.zeros(4, 1, dtype=F64))
    assert adjsnn.solve(system, None, **options, y0=torch.zeros(2, 1, dtype=F64)).y.shape == (2, 2, 1)


@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize(
    ("name", "now", "match"),
    [
        ("tau", torch.tensor(5.0), r"tau of shape \(\).*\(B, 1\), as it was given"),
        ("tau", torch.ones(2, 2), r"tau of shape \(2, 2\)"),
        ("tau", torch.tensor([1.0, float("nan")]), r"tau has entries that are not finite, the first tau\[1\] = nan"),
        ("b", torch.ones(2), r"b of shape \(2,\).*\(1,\), as it was given"),
        ("b", torch.tensor(float("inf")), "b has entries .* = inf"),
        ("late", torch.tensor(float("nan")), "late has entries .* = nan"),
    ],
)
def test_parameters_that_became_others(name: str, now: Tensor, match: str, kernels: str):
    """By an optimiser that diverged, say; `late` is read at the first event, long after the start."""
    given = {"tau": torch.tensor([5.0, 10.0], dtype=F64), "b": 2.0, "late": 0.0}
    system = adjsnn.Equations(
        "dv/dt = (b - v)/tau", threshold="v > 1", reset="v = late", parameters=given, learn=tuple(given), dtype=F64
    )
    system.get_parameter(name).data = now.to(F64)
    with pytest.raises(adjsnn.ConfigurationError, match=match):
        adjsnn.solve(system, None, ts=[0.0, 1.0], method="dopri5", y0=torch.zeros(2, 1, dtype=F64), kernels=kernels)


def test_a_signal_without_a_value():
    """Of Python: its name is no part of the text."""
    system = adjsnn.Equations("dv/dt = x - v\nx = 2*I", inputs="I", initial={"v": 0.0}, dtype=F64)
    with pytest.raises(adjsnn.ConfigurationError, match="'I', which is nan at the start"):
        adjsnn.solve(system, lambda t: t + float("nan"), ts=[0.0, 1.0], method="dopri5")


def test_numbers_can_be_set():
    """An attribute of that name would be read by nothing."""
    system = adjsnn.Equations("dv/dt = -v/tau", parameters={"tau": 5.0}, initial={"v": 1.0}, dtype=F64)
    system.tau = 10
    for kernels in ("plain", "fused"):
        y: Tensor = adjsnn.solve(system, None, ts=[0.0, 10.0], method="dopri5", rtol=1e-10, kernels=kernels).y
        assert float(y[-1]) == pytest.approx(float(torch.tensor(-1.0, dtype=F64).exp()), rel=1e-8)
    for wrong in (torch.ones(2), float("nan"), "10*ms", torch.nn.Parameter(torch.tensor(1.0))):
        with pytest.raises(adjsnn.ConfigurationError, match="tau"):
            system.tau = wrong
    assert system.numbers == {"tau": 10.0}


def test_numbers_with_units_can_be_set():
    system = adjsnn.Equations("dv/dt = -v/tau : volt", parameters={"tau": 10.0 * REGISTRY.ms}, initial={"v": 2.0 * REGISTRY.mV})
    system.tau = 0.02 * REGISTRY.s
    assert system.numbers == {"tau": 20.0}
    with pytest.raises(adjsnn.ConfigurationError, match="mV"):
        system.tau = 3.0 * REGISTRY.mV


def test_initial_values_are_copied():
    given = torch.zeros(2, dtype=F64)
    system = adjsnn.Equations("dv/dt = -v", size=2, initial={"v": given}, dtype=F64)
    given += 1.0
    assert torch.equal(system.start(), torch.zeros(1, 2, dtype=F64))


@pytest.mark.parametrize(("name", "shape"), [("W", (4,)), ("W", (1, 2)), ("d", ()), ("b", (1,))])
def test_another_shape_than_was_given(name: str, shape: tuple[int, ...]):
    """Four weights in a row are not a matrix of two columns."""
    system = delayed()
    setattr(system, name, torch.nn.Parameter(torch.ones(shape, dtype=F64)))
    with pytest.raises(adjsnn.ConfigurationError, match=f"{name} of shape"):
        adjsnn.solve(system, None, **OPTIONS, y0=torch.zeros(1, 4, dtype=F64))


def test_a_packet_is_no_guard():
    """In the steps that a solution shows: -1 is written where no guard fired. A system without synapses cannot take them."""
    sol: Any = adjsnn.solve(delayed(), None, **OPTIONS, y0=torch.zeros(1, 4, dtype=F64))
    assert int(sol.stats.taken.event.min()) == -1
    other: Any = adjsnn.Equations("dv/dt = 1 - v\ndg/dt = -g", threshold="v > 2", size=2, dtype=F64)
    with pytest.raises(adjsnn.ConfigurationError, match="packets of synapses arrive, for a system without"):
        adjsnn.solve(other, None, **OPTIONS, y0=torch.zeros(1, 4, dtype=F64), adjoint=adjsnn.BPTT(sol.stats.taken))


def test_asked_of_elsewhere():
    system, y0 = delayed(), torch.zeros(1, 4, dtype=F64)
    with pytest.raises(adjsnn.ConfigurationError, match="compiled loops alone, and adjoint=ForwardSensitivity"):
        adjsnn.gradcheck(system, None, lambda sol: sol.y.sum(), ("forward",), **OPTIONS, y0=y0)
    sol = adjsnn.solve(system, None, **OPTIONS, y0=y0)
    draws: list[Any] = [plotting.raster, plotting.voltages, plotting.event_diagnostics]
    for draw in draws:
        with pytest.raises(adjsnn.ConfigurationError, match="sol of type HybridSolution"):
            draw(sol)


def test_code_is_kept_by_the_numbers_of_the_method(monkeypatch: pytest.MonkeyPatch):
    """They stand in the machine code: that of other numbers must not be read from disk."""

    names = []
    monkeypatch.setattr(link, "_renamed", lambda function, digest, scope: names.append(digest) or function)
    source = delayed().source
    for scale in (1.0, 1.5):
        tableau = link.TABLEAUS["dopri5"]
        assert tableau.b_error is not None
        changed = dataclasses.replace(tableau, b_error=tuple(scale * x for x in tableau.b_error))
        monkeypatch.setattr(link, "TABLEAUS", {"dopri5": changed})
        link._linked.__wrapped__(source, "dopri5", interpreted=True)
    assert len(set(names)) == 2


class Positive(nn.Module):
    """What keeps delays above zero."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(x)


def test_parametrized_delays():
    system, plain = delayed(), delayed()
    parametrize.register_parametrization(system, "d", Positive())
    y0 = torch.zeros(1, 4, dtype=F64)
    with torch.no_grad():
        plain.get_parameter("d").copy_(nn.functional.softplus(torch.ones(2, 2, dtype=F64)))
    found = []
    for x, name in ((system, "parametrizations.d.original"), (plain, "d")):
        sol = adjsnn.solve(x, None, **OPTIONS, y0=y0)
        assert sol.stats is not None
        assert sol.stats.kernel == "fused"
        found.append((sol.y, torch.autograd.grad(sol.y.sum(), x.get_parameter(name))[0]))
    assert torch.equal(found[0][0], found[1][0])
    slope = torch.sigmoid(torch.ones(2, 2, dtype=F64))  # of softplus
    torch.testing.assert_close(found[0][1], found[1][1] * slope, rtol=1e-14, atol=0.0)

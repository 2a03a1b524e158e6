"""Where several samples of a batch fail, every body names the first of them in the batch, whichever fails first in time."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import adjsnn
from adjsnn import AdjsnnError, EventError, IntegrationError, LIFNetwork, SpikeTrains
from adjsnn.equations import link
from adjsnn.hybrid import costate_path, discrete_events, event_blocks, vjp
from adjsnn.hybrid.refusals import first_to_fail

F64 = torch.float64


def told(call: Callable[[], object], kind: type[AdjsnnError]) -> str:
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


TEXTS: dict[str, tuple[dict[str, Any], list[float], type[AdjsnnError], str]] = {
    # All blow up but the first and the last, at 1/y0: sample 3 first.
    "stuck": ({"text": "dx/dt = x**2"}, [-1.0, 0.7, 0.9, 2.0, -1.0], IntegrationError, "the step of sample 1 shrank"),
    "too many": ({"text": "dx/dt = -100*x**3"}, [0.0, 1.0, 9.0, 30.0], IntegrationError, "sample 1 reached"),
    # A jump that leaves its guard reached, 1.1 or 1.2 above -1, at different times.
    "not left": (
        {"text": "dx/dt = 1 + 0*x", "threshold": "x > 1", "reset": "x += 0.5"},
        [-9.0, 0.1, 0.8, 0.3],
        EventError,
        "the jump of guard 0, sample 1",
    ),
    "piled": (
        {"text": "dx/dt = 1 + 0*x", "threshold": "x > 1", "reset": "x = 1 - 1e-16"},
        [-9.0, 0.1, 0.8, 0.3],
        EventError,
        "sample 1",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_equations_by_loops_and_by_torch(case: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(link, "INTERPRETED", True)
    given, y0, kind, seen = TEXTS[case]
    system = adjsnn.Equations(**given, dtype=F64)
    options: dict[str, Any] = {
        "ts": [0.0, 3.0],
        "method": "dopri5",
        "rtol": 1e-3,
        "max_steps": 12 if case == "too many" else 10_000,
    }

    def solve(y0: list[float], kernels: str) -> object:
        return adjsnn.solve(system, None, y0=torch.tensor(y0, dtype=F64)[:, None], kernels=kernels, **options)

    fused, plain = (told(lambda kernels=kernels: solve(y0, kernels), kind) for kernels in ("fused", "plain"))
    assert fused == plain
    assert seen in fused
    solve(y0[:1], "plain")
    assert fused == told(lambda: solve(y0[:2], "plain"), kind)  # whatever comes after it


LAYERS: dict[str, dict[str, Any]] = {
    "abreast": {},
    "one by one": {"tau_mem": [10.0, 11.0, 12.0, 13.0, 14.0]},
    "recurrent": {"recurrent": True},
    "generalised": {"receptors": 1, "tau_adapt": [20.0], "jump_adapt": 0.0},
}


@pytest.mark.parametrize("layer", LAYERS)
def test_lif_layers_by_loops_and_plain(layer: str):
    """Sample 1 runs away last of all, after the most arrivals; sample 0 does not."""
    net = LIFNetwork(2, 5, tau_syn=5.0, dtype=F64, **({"tau_mem": 10.0} | LAYERS[layer]))
    with torch.no_grad():
        net.w_in[0].copy_(torch.tensor([[0.0, 0.0], [200.0, 0.0], [0.1, 0.1], [300.0, 0.0], [0.1, 0.1]]).expand_as(net.w_in[0]))
        if net.recurrent[0]:
            net.w_rec[0].zero_()
    events = [[(float(t), 1) for t in range(calm)] + [(calm + 0.5, 0)] * (k > 0) for k, calm in enumerate((3, 30, 4, 8, 0))]
    x = SpikeTrains.from_list(events, n_neurons=2, t_max=60.0, dtype=F64)
    for kernels in ("plain", "fused"):
        seen = told(lambda kernels=kernels: adjsnn.solve(net, x, max_spikes=20, kernels=kernels), EventError)
        assert "of layer 0 in sample 1 by 3" in seen
    adjsnn.solve(net, x[:1], max_spikes=20)


@pytest.mark.parametrize("membrane", [adjsnn.LIF(), adjsnn.NIF()], ids=["lif", "nif"])
def test_gated_networks_by_loops_and_by_torch(membrane: adjsnn.Membrane):
    """All samples take a step at once: the first step is named, and the first sample in it."""
    net = adjsnn.GatedSynapseNetwork(1, 3, 1, neuron=membrane, dtype=F64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.w_in.fill_(1.0)
    u = torch.zeros(40, 4, 1, dtype=F64)
    for sample, step in ((1, 30), (2, 20), (3, 20)):
        u[step:, sample] = 1e6
    fused, plain = (
        told(lambda kernels=kernels: adjsnn.solve(net, u, dt=0.5, kernels=kernels), IntegrationError)
        for kernels in ("fused", "plain")
    )
    assert fused.partition(" at sample ")[2] == plain.partition(" at sample ")[2] != ""  # loops count no more than 127 turns
    assert "at sample 2" in fused


class Bouncing(adjsnn.HybridSystem):
    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        return self.speed * torch.ones_like(y)

    def guard(self, t: Tensor, y: Tensor) -> Tensor:
        return y - 1.0

    def jump(self, t: Tensor, y: Tensor, fired: Tensor) -> Tensor:
        return torch.where(fired, y - self.height, y)

    def __init__(self) -> None:
        super().__init__()
        self.speed, self.height = (torch.nn.Parameter(torch.tensor(x, dtype=F64)) for x in (1.0, 1.0))


@pytest.mark.parametrize("adjoint", [adjsnn.DiscreteAdjoint(), adjsnn.ContinuousAdjoint()], ids=["discrete", "continuous"])
def test_events_that_have_no_gradient(adjoint: Any, monkeypatch: pytest.MonkeyPatch):
    """Those of sample 1 lie before those of sample 2, so the way back meets these first."""
    refused = {1: 0.6, 2: 2.3}

    def check(fires: Tensor, guard: Tensor, speed: Tensor, t: Tensor) -> None:
        wrong = torch.zeros_like(fires)
        for sample, time in refused.items():
            wrong[..., sample, :] = fires[..., sample, :] & ((t[..., sample, :].detach() - time).abs() < 1e-3)
        vjp.check_speed(wrong, guard, -speed, t)

    for module in (discrete_events, event_blocks, costate_path):
        monkeypatch.setattr(module, "check_speed", check)
    y0 = torch.tensor([[0.5], [0.4], [0.7]], dtype=F64)
    sol: Any = adjsnn.solve(Bouncing(), None, ts=[0.0, 3.0], y0=y0, method="dopri5", adjoint=adjoint)
    assert "sample 1, fired at t = 0.6 ms" in told(lambda: sol.event_times.clamp(max=9.0).sum().backward(), EventError)


def test_many_that_fail_are_told_in_few_runs():
    """Each after those behind it in the batch; or whatever a run comes upon; one that fails alone takes one run more."""

    def runs_until(first: int, batch: int, seen: Callable[[int], int]) -> int:
        runs = []

        def run(count: int) -> str:
            runs.append(count)
            if count > first:
                error = EventError("", "", "")
                error.sample = seen(count)
                raise error
            return "fine"

        with pytest.raises(EventError) as error:
            first_to_fail(run, batch)
        assert error.value.sample == first
        return len(runs)

    for batch in (1, 2, 5, 300):
        assert all(runs_until(first, batch, lambda _, first=first: first) == 1 + (first > 0) for first in range(batch))
        assert all(runs_until(first, batch, lambda count: count - 1) <= 20 for first in range(batch))
    assert first_to_fail(lambda count: count, 7) == 7


class Nested(Bouncing):
    """Solves another system in its field, which from 0.5 ms on blows up in sample 1."""

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        y0 = torch.tensor([[0.0], [2.0 * float(t.max().detach() > 0.5)], [1.0]], dtype=F64)
        inner = adjsnn.Equations("dx/dt = x**2", dtype=F64)
        end: Any = adjsnn.solve(inner, None, ts=[0.0, 0.6], y0=y0, method="dopri5", rtol=1e-3, kernels="plain")
        return 0.1 * end.y[-1, 0] + 0.0 * y


def test_a_failing_solve_within_a_field_is_told():
    """Its sample is none of the outer batch."""
    y0 = torch.zeros(2, 1, dtype=F64)
    seen = told(lambda: adjsnn.solve(Nested(), None, ts=[0.0, 1.0], y0=y0, method="dopri5"), IntegrationError)
    assert "the step of sample 1 shrank" in seen

"""The loops for a GPU against those of Python: on a GPU where there is one, else in numba's simulator."""

from typing import Any

import pytest
import torch
from torch import Tensor

import adjsnn
from adjsnn.equations import body
from adjsnn.equations.cuda import run
from adjsnn.numerics import device
from tests.equations.systems import Case, ball, izhikevich, rates, synapses
from tests.equations.test_loops import solved

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def placed(case: Case) -> Case:
    u = None if case.u is None else case.u.to(DEVICE)
    return Case(case.system.to(DEVICE), case.y0.to(DEVICE), u, case.options)


def agree(make: Any, **options: Any) -> tuple[Any, Any]:
    """Steps, states, event times and gradients of both."""
    there, gradients = solved(placed(make(2)), kernels="cuda", **options)
    here, expected = solved(make(2), kernels="fused", **options)
    assert (there.stats.kernel, here.stats.kernel) == ("cuda", "fused")
    assert there.stats.accepted.tolist() == here.stats.accepted.tolist()
    assert there.event_index.tolist() == here.event_index.tolist()
    # The simulator computes the same bits; on a GPU products and sums are fused, and functions round differently.
    for ours, theirs in ((there.y, here.y), (there.event_times, here.event_times), *zip(gradients, expected, strict=True)):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-12, atol=1e-12 * finite(theirs))
    return there, here


def finite(x: Tensor) -> float:
    return float(x.detach()[x.isfinite()].abs().max()) if x.isfinite().any() else 0.0


@pytest.mark.parametrize("make", [izhikevich, ball, rates])
def test_states_and_gradients_agree(make: Any):
    there, here = agree(make)
    assert torch.equal(there.stats.taken.rows.cpu(), here.stats.taken.rows)
    assert there.y.device.type == DEVICE


def test_packets():
    there, _ = agree(synapses)
    assert (there.event_index >= 0).sum() > 4


def test_more_room_and_parts_of_a_batch_change_nothing(monkeypatch: pytest.MonkeyPatch):
    """Samples go on where they stopped for want of room, and are taken in several launches."""
    expected, gradients = solved(placed(izhikevich(3)), kernels="cuda")
    counted = []

    def launch(*arguments: Any) -> None:
        counted.append(arguments[1])
        device.launch(*arguments)

    monkeypatch.setattr(run, "launch", launch)
    monkeypatch.setattr(run, "PART", 12_000)
    monkeypatch.setattr(body, "FEW", 5)
    for adjoint in (adjsnn.DiscreteAdjoint(), adjsnn.DiscreteAdjoint(checkpoints="sqrt")):
        sol, ours = solved(placed(izhikevich(3)), kernels="cuda", adjoint=adjoint)
        assert torch.equal(sol.y, expected.y)
        assert torch.equal(sol.event_times, expected.event_times)
        for a, b in zip(ours, gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-14, atol=0.0)  # sums of samples in another order
    assert set(counted) == {1, 2}
    assert len(counted) > 12  # of three samples, twice, forward and back


def test_errors_are_those_of_the_other_loops():
    def told(kernels: str, case: Case) -> str:
        options: dict[str, Any] = {**case.options, "y0": case.y0, "kernels": kernels, "max_steps": 5}
        with pytest.raises(adjsnn.AdjsnnError) as error:
            adjsnn.solve(case.system, case.u, **options)
        return str(error.value)

    assert told("cuda", placed(izhikevich(2))) == told("fused", izhikevich(2))


def test_what_does_not_run_there(monkeypatch: pytest.MonkeyPatch):
    case = ball(2)
    monkeypatch.setattr(device, "SIMULATED", False)
    with pytest.raises(adjsnn.ConfigurationError, match='kernels="cuda", but .* is on the CPU'):
        adjsnn.solve(case.system, None, **case.options, y0=case.y0, kernels="cuda")
    stats = adjsnn.solve(case.system, None, **case.options, y0=case.y0).stats
    assert stats is not None
    assert stats.kernel == "fused"

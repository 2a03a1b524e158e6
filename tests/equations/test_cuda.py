"""The loops for a GPU against those of Python: on a GPU where there is one, else in numba's simulator."""

from typing import Any

import pytest
import torch
from torch import Tensor

import adjsnn
from tests.equations.systems import Case, ball, izhikevich, rates
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

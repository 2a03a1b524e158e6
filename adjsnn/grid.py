"""Spikes as simulators that step on a grid label them."""

import torch
from torch import Tensor

from adjsnn.checks import EPS, bins
from adjsnn.errors import ConfigurationError

RULES = ("nest", "brian2")


def labels(times: Tensor, dt: float, rule: object, eps: float) -> Tensor:
    """Label of each time ≥ 0, (...), ms, float64; inf stays inf. See `SpikeTrains.to_grid`.

    Args:
        times: of spikes, ms.
        dt: the step, ms.
        rule: "nest" for the end of the step, n dt - dt < t ≤ n dt, "brian2" for its beginning, n dt ≤ t < n dt + dt.
        eps: spacing of the dtype of times or dt. A time off an edge by no more than roundings lies on it, as in `bins`.

    Raises:
        ConfigurationError: another rule.
    """
    if not isinstance(rule, str) or rule not in RULES:
        raise ConfigurationError(f"rule={rule!r}", f"one of {RULES}", 'rule="nest", the end of a step')
    t = times.detach().double()
    finite = torch.where(t.isfinite(), t, 0.0)
    n = bins(finite, dt, eps)
    if rule == "nest":
        n = n + (finite - n.double() * dt > finite * (1.5 * eps + 2.0 * EPS))
    return torch.where(t.isfinite(), decimal(dt, n), t)


def decimal(dt: float, n: Tensor) -> Tensor:
    """n dt, float64, as decimal numbers are rounded: 3 · 0.1 is 0.30000000000000004, and 3 / 10 is 0.3."""
    if (whole := round(dt * 1e6)) / 1e6 == dt:  # of nanoseconds
        return n.double() * whole / 1e6
    return n.double() / (1.0 / dt) if (1.0 / dt).is_integer() else n.double() * dt

"""Delays and refractory times as simulators that step on a grid let them act."""

import torch
from torch import Tensor

from adjsnn.checks import bins, positive, rounding
from adjsnn.errors import ConfigurationError
from adjsnn.grid import RULES, decimal

TICK = 0.001  # ms: NEST counts refractory times in these before it rounds them up


class Grid:
    """A simulator's rules at a step of h ms.

    Raises:
        ConfigurationError: another simulator, or a step that it has not.
    """

    def __init__(self, simulator: object, h: object) -> None:
        if not isinstance(simulator, str) or simulator not in RULES:
            raise ConfigurationError(f"simulator={simulator!r}", f"one of {RULES}", 'simulator="nest"')
        self.h = positive("h", h, "a positive step in ms", "h=0.1")
        self.nest = simulator == "nest"
        self.ticks = round(self.h / TICK)
        if self.nest:
            if not abs(self.ticks * TICK - self.h) <= 2.0 * rounding(h) * self.h:
                raise ConfigurationError(f"h={h!r} in NEST", "a whole number of microseconds", "h=0.1")
            self.h = self.ticks / 1000.0

    def delays(self, name: str, d: Tensor | None) -> Tensor | None:
        """To the nearest step, half of one up.

        Raises:
            ConfigurationError: none, or less than half a step, in NEST.
        """
        if d is None:
            if self.nest:
                raise ConfigurationError(f"no {name}", f"in NEST at least one step, {self.h:g} ms", f"{name}={self.h:g}")
            return None
        t = d.double()
        if self.nest:
            steps = bins(t + 0.5 * self.h, self.h, rounding(d))
            if not bool((steps >= 1).all()):
                raise ConfigurationError(
                    f"{name} from {float(t.min()):g} ms", f"in NEST at least half a step of {self.h:g} ms", f"{name}={self.h:g}"
                )
        else:  # as Brian2 computes it, in seconds: 0.15 ms at 0.1 ms is a little less than one and a half steps
            steps = (t * 1e-3 / (self.h * 1e-3) + 0.5).floor()
        return decimal(self.h, steps)

    def refractory(self, t: Tensor) -> Tensor:
        """NEST: up to whole steps, from whole microseconds. Brian2: down to whole steps, less one."""
        if self.nest:
            ticks = bins(t.double() + 0.5 * TICK, TICK, rounding(t))
            return decimal(self.h, -torch.div(-ticks, self.ticks, rounding_mode="floor"))
        step = self.h * 1e-3  # as Brian2 computes it, in seconds
        return decimal(self.h, ((t.double() * 1e-3 + 1e-3 * step) / step).floor().sub(1.0).clamp(min=0.0))

"""Systems of equations that several tests solve, with a state and inputs to begin with."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

import adjsnn


class Case(NamedTuple):
    system: adjsnn.Equations
    y0: Tensor
    u: Tensor | None
    options: dict[str, Any]


def izhikevich(batch: int = 3) -> Case:
    """Spikes, two parameters of one value and one of each sample."""
    system = adjsnn.Equations(
        "dv/dt = 0.04*v**2 + 5*v + 140 - w + I\ndw/dt = a*(b*v - w)",
        threshold="v > 30",
        reset="v = c; w += d",
        parameters={"a": 0.02, "b": torch.linspace(0.2, 0.25, batch, dtype=torch.float64), "c": -65.0, "d": 8.0},
        inputs=("I",),
        learn=("a", "b", "d"),
        dtype=torch.float64,
    )
    u = 10.0 + 5.0 * torch.rand(4, batch, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Case(system, system.start(batch, v=-65.0, w=-13.0), u, {"dt": 10.0, "method": "dopri5", "rtol": 1e-6})


def ball(batch: int = 3) -> Case:
    """A guard that its jump leaves on zero."""
    system = adjsnn.Equations(
        "dx/dt = v  # height\ndv/dt = -g",
        threshold="x < 0",
        reset="v = -loss*v",
        parameters={"g": 9.81, "loss": 0.8},
        learn=("g", "loss"),
        dtype=torch.float64,
    )
    y0 = system.start(batch, x=torch.linspace(1.0, 2.0, batch), v=0.0)
    return Case(system, y0, None, {"ts": torch.linspace(0.0, 2.0, 3), "method": "tsit5"})


def network(batch: int = 2) -> Case:
    """Vectors, guards of each unit, coupling, two kinds of events, time, subexpressions."""
    generator = torch.Generator().manual_seed(0)
    n = 4

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    system = adjsnn.Equations(
        """
        drive = I*(1 + 0.1*sin(t)) + b + mean(v)/10
        dv/dt = (-v + drive + g)/tau
        dg/dt = -g/5
        dcount/dt = 0
        dh/dt = (1 - h)/tau_h
        """,
        threshold={"spike": "v > 1 + h/10", "again": "h > 0.9"},
        reset={"spike": "v = h/10; g += W @ fired; count += 1 + v", "again": "h = 0.1*h"},
        size={"v": n, "g": n},
        parameters={
            "W": 0.4 * random(n, n) - 0.1,
            "b": random(n),
            "tau": 10.0,
            "tau_h": 10.0 + 5.0 * random(batch, 1),
        },
        inputs=("I",),
        learn=("W", "b", "tau", "tau_h"),
        readout=("v", "sum(g)"),
        initial={"v": "b/2", "g": 0.0, "count": 0.0, "h": 0.0},
        dtype=torch.float64,
    )
    u = 1.5 + random(3, batch, 1)
    return Case(system, system.start(batch), u, {"dt": 8.0, "method": "dopri5", "rtol": 1e-7, "atol": 1e-9})


def rates(batch: int = 2) -> Case:
    """A smooth system with a product of a matrix, for fixed steps too."""
    generator = torch.Generator().manual_seed(0)
    n = 3
    system = adjsnn.Equations(
        """
        dx/dt = (-x + tanh(W @ x + b + I))/tau
        total = sum(x)
        ds/dt = exprel(total - 1) - s + where(s > 0.5, s**2 - 0.25, 0)
        """,
        size={"x": n},
        parameters={
            "W": torch.randn(n, n, generator=generator, dtype=torch.float64),
            "b": torch.randn(n, generator=generator, dtype=torch.float64),
            "tau": 5.0,
        },
        inputs={"I": n},
        learn=("W", "b", "tau"),
        dtype=torch.float64,
    )
    u = torch.randn(5, batch, n, generator=generator, dtype=torch.float64)
    return Case(system, system.start(batch, x=0.1, s=0.2), u, {"dt": 1.0, "method": "rk4", "substeps": 2})


def synapses(batch: int = 2) -> Case:
    """Three neurons that fire, and what each tells the others later, by a matrix and by a list of synapses."""
    few = adjsnn.Synapses(torch.tensor([1, 0]), torch.tensor([0, 2]))
    system = adjsnn.Equations(
        "dv/dt = (b - v + c)/10\ndc/dt = -c/4",
        threshold="v > 1",
        reset="v = 0",
        size=3,
        parameters={
            "b": torch.tensor([1.5, 1.2, 0.5]),
            "W": torch.tensor([[0.0, 0.4, 0.2], [0.3, 0.0, -0.2], [2.0, 2.5, 0.0]]),
            "d": torch.tensor([[1.0, 1.5, 2.0], [1.2, 1.0, 0.7], [3.0, 2.5, 1.0]]),
            "J": torch.tensor([0.1, -0.2]),
            "h": torch.tensor([0.3, 0.6]),
        },
        learn=("b", "W", "d", "J", "h"),
        synapses={"c": [{"weight": "W", "delay": "d"}, {"weight": "J", "delay": "h", "edges": few}]},
        dtype=torch.float64,
    )
    y0 = torch.linspace(0.0, 0.3, 6 * batch, dtype=torch.float64).reshape(batch, 6)
    return Case(system, y0, None, {"ts": [0.0, 20.0], "method": "dopri5", "rtol": 1e-6})


SYSTEMS = {"izhikevich": izhikevich, "ball": ball, "network": network, "rates": rates}

"""Events, output times and packets in one instant: an event is counted once, whatever else happens then."""

import math
from typing import Any

import pytest
import torch

import adjsnn

F64 = torch.float64


def ball(**given: Any) -> adjsnn.Equations:
    return adjsnn.Equations(
        "dx/dt = v\ndv/dt = -1 + 0*c\ndc/dt = 0*x",
        threshold="-x > 0",
        reset="v = -v",
        dtype=F64,
        initial={"v": 0.0, "c": 0.0},
        **given,
    )


@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize("height", [0.5, 0.7])
def test_output_at_a_bounce(kernels: str, height: float):
    """The floor is left at once: a step of length zero to the output time must not see the ball fall through it again."""
    system = ball()
    options: dict[str, Any] = {"y0": system.start(x=height), "method": "dopri5", "kernels": kernels}
    bounces = adjsnn.solve(system, None, ts=[0.0, 5.0], **options).event_times[0].tolist()
    assert bounces == pytest.approx([math.sqrt(2.0 * height) * k for k in (1, 3)], abs=1e-12)
    for time in bounces:
        for ts in (time, math.nextafter(time, 9.0), math.nextafter(time, 0.0)):
            sol = adjsnn.solve(system, None, ts=[0.0, ts, 5.0], **options)
            torch.testing.assert_close(sol.event_times, torch.tensor([bounces], dtype=F64), rtol=0.0, atol=1e-12)


def test_packet_at_a_bounce():
    system = ball(parameters={"W": torch.ones(1, 1, dtype=F64), "d": 0.0}, synapses={"c": {"weight": "W", "delay": "d"}})
    sol = adjsnn.solve(system, None, ts=[0.0, 1.0, 3.0, 6.0], y0=system.start(x=0.5), method="dopri5")
    assert sol.event_times[0].tolist() == pytest.approx([1.0, 3.0, 5.0], abs=1e-12)
    assert float(system.of(sol.y, "c")[-1]) == 3.0


@pytest.mark.parametrize("extra", [0.0, 1.0])
def test_packet_of_a_guard_that_no_jump_moves(extra: float):
    """A rise through one half is one event, and sends one packet, also where rounding left the guard a little below zero."""
    system = adjsnn.Equations(
        "dv/dt = cos(t)\ndn/dt = 0*v",
        threshold="v > 0.5",
        parameters={"W": torch.ones(1, 1, dtype=F64), "d": 0.0},
        synapses={"n": {"weight": "W", "delay": "d"}},
        initial={"v": 0.0, "n": 0.0},
        dtype=F64,
    )
    for k in range(12):
        y0 = system.start(v=0.013 * k)
        ts = [0.0, 0.1 + extra * k, 20.0]
        sol = adjsnn.solve(system, None, ts=ts, y0=y0, method="tsit5", rtol=1e-9, atol=1e-11)
        assert sol.event_times.shape == (1, 4)
        assert float(system.of(sol.y, "n")[-1]) == 4.0

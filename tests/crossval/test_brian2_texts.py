"""A text and units that Brian2 ran, taken as they are."""

import json
from pathlib import Path

import pytest
import torch

import adjsnn

FOUND = Path(__file__).parents[2] / "crossval" / "brian2_adex.json"


@pytest.mark.slow
def test_spikes_of_brian2s_text():
    """Brian2 notes a spike at the step in which the threshold was crossed, and the reset is as much later: 2 µs a spike."""
    found = json.loads(FOUND.read_text())
    system = adjsnn.Equations(
        found["text"],
        threshold=found["threshold"],
        reset=found["reset"],
        parameters=found["parameters"],
        inputs=("I",),
        initial={"v": "E_l", "w": 0},
        dtype=torch.float64,
    )
    u = torch.tensor(found["currents"], dtype=torch.float64).view(1, -1, 1)
    sol = adjsnn.solve(system, u, dt=found["duration"], method="dopri5", rtol=1e-9, atol=1e-9)
    for sample, expected in enumerate(found["spikes"]):
        times = sol.event_times[sample][sol.event_index[sample] >= 0]
        assert len(times) == len(expected) >= 1
        late = (torch.tensor(expected, dtype=torch.float64) - times) / found["step"]
        allowed = 2.0 * torch.arange(1.0, len(expected) + 1.0)
        assert bool((late.abs() <= allowed).all()), late

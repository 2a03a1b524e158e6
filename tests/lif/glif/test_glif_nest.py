"""GLIF levels 1 to 5 against NEST's glif_psc, which steps on a grid: its spikes are late by no more than a step for each."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from adjsnn import LIFNetwork, solve

FOUND = json.loads((Path(__file__).parents[3] / "crossval" / "nest_glif.json").read_text())


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_nest_rounds_each_exact_spike_up(level):
    p = FOUND["parameters"]
    config = {
        "R_input": 1e9 / p["g"], "C": p["C_m"] * 1e-12, "th_inf": (p["V_th"] - p["E_L"]) * 1e-3,
        "dt": 1e-6, "spike_cut_length": round(p["t_ref"] * 1e3),
        "asc_amp_array": [1e-12 * x for x in p["asc_amps"]], "asc_tau_array": [1e-3 / x for x in p["asc_decay"]],
        "AScurrent_reset_method": {"params": {"r": p["asc_r"]}},
        "voltage_reset_method": {"params": {"a": p["voltage_reset_fraction"], "b": 1e-3 * p["voltage_reset_add"]}},
        "threshold_dynamics_method": {"params": {
            "a_spike": 1e-3 * p["th_spike_add"], "b_spike": 1e3 * p["th_spike_decay"],
            "a_voltage": 1e3 * p["th_voltage_index"], "b_voltage": 1e3 * p["th_voltage_decay"],
        }},
    }  # fmt: skip
    lif = LIFNetwork.glif(level, config, dtype=torch.float64)
    u = torch.full((1, 1, 1), FOUND["current"], dtype=torch.float64)
    times = solve(lif, u, dt=FOUND["duration"]).spike_times().detach().numpy()
    assert len(times) >= 19
    for name, spikes in FOUND["spikes"][str(level)].items():
        step = float(name)
        assert abs(len(spikes) - len(times)) <= (0 if step < 0.1 else 1)
        late = np.array(spikes[:10]) - times[:10]
        # The current begins a step late, and every spike waits for the end of its step. In long steps v passes the threshold by
        # so much that a reset that keeps a part of it counts.
        assert bool((late > 0.0).all())
        assert bool((late < (1.0 if step < 0.1 else 1.5) * step * np.arange(2, 12)).all())

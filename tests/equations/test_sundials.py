"""Spikes of conductance models and their slopes by all conductances, against SUNDIALS (crossval/sundials.sh)."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import adjsnn
from adjsnn import models

FOUND = json.loads((Path(__file__).parents[2] / "crossval" / "sundials.json").read_text())["found"]
MODELS: dict[str, Callable[..., adjsnn.Equations]] = {
    "squid": models.hodgkin_huxley,
    "regular spiking": lambda **o: models.hodgkin_huxley("regular spiking", **o),
    "wang-buzsaki": models.wang_buzsaki,
    "morris-lecar": models.morris_lecar,
}


@pytest.mark.every(4)
@pytest.mark.parametrize("name", ["morris-lecar", "squid", "regular spiking", "wang-buzsaki"])
def test_spikes_and_their_gradients_are_those_of_cvode(name: str):
    """Spikes to 1e-7 ms, slopes to 1e-7 of the largest: CVODE's own two methods differ by 1e-9 of either."""
    case = FOUND[name]
    names = list(case["conductances"])
    neuron = MODELS[name](learn=names, dtype=torch.float64)
    assert {x: float(getattr(neuron, x).detach()) for x in names} == case["conductances"]
    u = torch.full((1, 1, 1), case["current"], dtype=torch.float64)
    options = {"dt": case["end"], "method": "tsit5", "rtol": 1e-10, "atol": 1e-11}
    sol = adjsnn.solve(neuron, u, y0=torch.tensor([case["y0"]], dtype=torch.float64), **options)
    times, slopes = sol.event_times[0], np.array(case["slopes"])
    assert len(times) == len(case["spikes"]) > 1
    assert np.abs(times.detach().numpy() - case["spikes"]).max() < 1e-7
    assert np.abs(sol.y[-1, 0].detach().numpy() - case["last"]).max() < 1e-6
    for k, expected in enumerate(slopes):
        own = torch.autograd.grad(times[k], [getattr(neuron, x) for x in names], retain_graph=True)
        assert np.abs(np.array([float(x) for x in own]) - expected).max() < 1e-7 * np.abs(expected).max()

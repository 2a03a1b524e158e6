"""Fitting a neuron that is written as text, its loops as Python: they would take seconds to compile."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import adjsnn
from adjsnn.equations import link
from adjsnn.training import main

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
import fit_equations  # the folder of scripts is not a package
from fit_neuron import KINDS

FILE = """
text = "dv/dt = (g*(rest - v) + I)/c"
threshold = "v > theta"
reset = "v = rest"
inputs = ["I"]
parameters = {g = 0.1, rest = -67.0, c = 1.0, theta = -55.0}
initial = {v = "rest"}
"""


@pytest.mark.parametrize("model", [pytest.param(x, marks=pytest.mark.slow) for x in ("adex", "adex_refractory")] + ["file"])
def test_a_short_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str):
    monkeypatch.setattr(link, "INTERPRETED", True)
    monkeypatch.setattr(fit_equations, "record", lambda neuron, u, dt: (u, np.arange(12.0, len(u) * dt, 15.0)))
    if model == "file":
        model = str(tmp_path / "lif.toml")
        Path(model).write_text(FILE)
    argv = ["--task", "equations", "--model", model, "--trials", "2", "--batch", "2", "--duration", "40", "--dt", "2.0"]
    argv += ["--mean", "3", "--iterations", "3", "--rtol", "1e-3", "--threads", "1"]
    argv += [] if "toml" in model else ["--scan", "v_t"]
    assert main(*KINDS, argv=[*argv, "--runs", str(tmp_path)]) == 0
    (run,) = (tmp_path / "fit_neuron").iterdir()
    held_out = json.loads((run / "summary.json").read_text())["held_out"]
    assert held_out["recorded_per_s"] > 0.0
    assert (run / "figures" / "held_out.png").exists()


def test_a_text_that_is_none(tmp_path: Path):
    for content, message in (("x = 1", "text, and of"), ('text = "dv/dt = -v"\nsize = 2', "text, and of")):
        path = tmp_path / "neuron.toml"
        path.write_text(content)
        with pytest.raises(adjsnn.ConfigurationError, match=message):
            fit_equations.equations(str(path))
    with pytest.raises(adjsnn.ConfigurationError, match="one of adex, adex_refractory, exponential_if, or a"):
        fit_equations.equations("izhikevich")


def test_a_scan_of_what_is_not_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fit_equations, "record", lambda neuron, u, dt: (u, np.arange(12.0, len(u) * dt, 15.0)))
    config = fit_equations.EquationsFit(trials=1, batch=1, duration=40.0, scan=("v_th",))
    with pytest.raises(adjsnn.ConfigurationError, match="scan=v_th of adex_refractory"):
        fit_equations.FitEquations(config).network()

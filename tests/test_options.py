"""Options of `solve`: the same in its overloads, in the families' entries and at run time; a misspelt one is named."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Required, get_args, get_origin, get_type_hints

import pytest
import torch

import adjsnn
from adjsnn.gated.adjoint import GatedChoice
from adjsnn.gated.solve import solve_gated
from adjsnn.hybrid.adjoint import HybridChoice
from adjsnn.hybrid.solve import solve_hybrid
from adjsnn.lif.adjoint import ClockedAdjoint, LIFAdjoint
from adjsnn.lif.engine import Kernels
from adjsnn.lif.solve import solve_lif

SOLVE = sys.modules["adjsnn.solve"]
ENTRIES = {"GatedOptions": solve_gated, "LIFOptions": solve_lif, "HybridOptions": solve_hybrid}
# What the module of `solve` knows to type checkers alone, for it is loaded with the first network of its kind.
LATE = {
    "Kernels": Kernels,
    "GatedChoice": GatedChoice,
    "LIFAdjoint": LIFAdjoint,
    "ClockedAdjoint": ClockedAdjoint,
    "HybridChoice": HybridChoice,
}
ROOT = Path(__file__).parent.parent


class Decay(adjsnn.HybridSystem):
    def vector_field(self, t, y, u):
        return -y


@pytest.mark.parametrize("name", ENTRIES)
def test_the_overloads_have_the_options_of_the_entries(name):
    hints = get_type_hints(getattr(SOLVE, name), localns=LATE, include_extras=True)
    declared = {key: get_args(x)[0] if get_origin(x) is Required else x for key, x in hints.items()}
    parameters = inspect.signature(ENTRIES[name]).parameters.values()
    known = get_type_hints(ENTRIES[name])
    if name == "LIFOptions":
        declared["adjoint"] |= ClockedAdjoint  # whose solutions are others, so it has an overload of its own
    assert declared == {x.name: known[x.name] for x in parameters if x.kind is x.KEYWORD_ONLY}
    needed = {key for key, x in hints.items() if get_origin(x) is Required}
    assert needed == {x.name for x in parameters if x.kind is x.KEYWORD_ONLY and x.default is x.empty}


def test_a_rule_on_a_clock_has_the_options_of_a_lif_network():
    of_rules, of_networks = (get_type_hints(getattr(SOLVE, name), localns=LATE) for name in ("ClockedOptions", "LIFOptions"))
    assert {key: x for key, x in of_rules.items() if key not in ("dt", "adjoint")} == {
        key: x for key, x in of_networks.items() if key not in ("dt", "adjoint", "max_spikes")
    }


def solve_each(**options):
    """What each family says to the options."""
    x = adjsnn.SpikeTrains.from_list([[(1.0, 0)]], n_neurons=1, t_max=5.0)
    for call in (
        lambda: adjsnn.solve(adjsnn.GatedSynapseNetwork(1, 2, 1), torch.zeros(2, 1, 1), dt=0.5, **options),
        lambda: adjsnn.solve(adjsnn.LIFNetwork(1, (1,)), x, **options),
        lambda: adjsnn.solve(Decay(), None, ts=[0.0, 1.0], y0=torch.ones(1, 1), **options),
    ):
        with pytest.raises(adjsnn.ConfigurationError) as error:
            call()
        yield str(error.value)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("kernel", ("kernels=...",) * 3),
        ("adjiont", ("adjoint=...", "adjoint=...", "adjoint=...")),
        ("y_0", ("y0=...", "y0=...", "y0=...")),
        ("max_spike", ("leaving it out", "max_spikes=...", "max_steps=...")),
        ("tend", ("leaving it out", "t_end=...", "leaving it out")),
        ("Method", ("method=...", "leaving it out", "method=...")),
        ("nothing_of_the_kind", ("leaving it out",) * 3),
    ],
)
def test_a_misspelt_option_is_refused_with_the_nearest_right_one(wrong, right):
    found = list(solve_each(**{wrong: 1}))
    for message, what, nearest in zip(found, ("a gated network", "a LIF network", "a HybridSystem"), right, strict=True):
        assert f"{wrong} for {what}" in message
        assert f"Try: {nearest}" in message


CALLS = """
import adjsnn, torch
net, u = adjsnn.GatedSynapseNetwork(1, 2, 1), torch.zeros(2, 1, 1)
adjsnn.solve(net, u, dt=0.5, method="rk4", kernels="plain")
adjsnn.solve(net, u, dt=0.5, kernel="plain")
adjsnn.solve(net, u)
adjsnn.solve(net, u, dt=0.5, kernels="quick")
x = adjsnn.SpikeTrains.poisson(torch.ones(1, 1), 10.0)
lif = adjsnn.LIFNetwork(1, (1,))
adjsnn.solve(lif, x, t_end=10.0, ts=[1.0, 2.0])
adjsnn.solve(lif, x, tend=10.0)
adjsnn.solve(lif, x, rtol=1e-6)
"""


@pytest.mark.slow
def test_a_type_checker_reports_misspelt_options(tmp_path):
    (tmp_path / "calls.py").write_text(CALLS)
    config = {"include": ["calls.py"], "extraPaths": [str(ROOT)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)["generalDiagnostics"]
    lines = {x["range"]["start"]["line"] + 1 for x in report if x["severity"] == "error"}
    assert lines == {5, 6, 7, 11, 12}

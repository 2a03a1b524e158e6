"""Whatever is given as an argument, what cannot be used is refused by the library's own error."""

import inspect

import numpy as np
import pytest
import torch

import adjsnn
from adjsnn import AdjsnnError

JUNK = [
    None, "a", "weights", object(), int, 1j, True, -1, 0, 2.5, float("nan"), float("inf"), (), {}, [5], [1, None],
    ["tau_mem", 3], np.array(["x", "y"]), torch.arange(7.0), torch.zeros(2).to_sparse(), torch.empty(3, device="meta"),
]  # fmt: skip
pytestmark = pytest.mark.usefixtures("unchecked_shapes")
X = adjsnn.SpikeTrains.from_list([[(1.0, 0)]], n_neurons=2, t_max=5.0)
U = torch.zeros(2, 1, 2)


def gated(**options):
    return adjsnn.GatedSynapseNetwork(**({"n_in": 2, "n_hidden": 3, "n_out": 1} | options))


def lif(**options):
    return adjsnn.LIFNetwork(**({"n_in": 2, "layers": (3,)} | options))


def solve_gated(**options):
    return adjsnn.solve(gated(), options.pop("inputs", U), **({"dt": 0.5} | options))


def solve_lif(**options):
    return adjsnn.solve(lif(), options.pop("inputs", X), **options)


def _options(function, *more):
    return [name for name in inspect.signature(function).parameters if name not in ("self", "system")] + list(more)


CALLS = {
    "gated network": (gated, _options(adjsnn.GatedSynapseNetwork)),
    "LIF network": (lif, _options(adjsnn.LIFNetwork)),
    "solve, gated": (solve_gated, ["inputs", "dt", "method", "adjoint", "y0", "kernels"]),
    "solve, LIF": (solve_lif, ["inputs", "dt", "currents", "t_end", "ts", "adjoint", "y0", "max_spikes", "kernels"]),
    "rectangular gate": (adjsnn.RectangularGate, ["width"]),
    "cosine gate": (adjsnn.RaisedCosineGate, ["width"]),
    "LIF": (adjsnn.LIF, ["tau_mem", "v_reset"]),
    "QIF": (adjsnn.QIF, ["tau_v"]),
    "charge form": (adjsnn.ChargeForm, ["net"]),
    "discrete adjoint": (adjsnn.DiscreteAdjoint, ["checkpoints", "memory_mb"]),
    "continuous adjoint": (adjsnn.ContinuousAdjoint, _options(adjsnn.ContinuousAdjoint)),
    "backsolve": (adjsnn.Backsolve, _options(adjsnn.Backsolve)),
    "forward sensitivities": (adjsnn.ForwardSensitivity, _options(adjsnn.ForwardSensitivity)),
    "initial state, gated": (gated().initial_state, ["batch"]),
    "initial state, LIF": (lif().initial_state, ["batch"]),
    "projection, gated": (gated().project_, ["tau_min"]),
    "projection, LIF": (lif().project_, ["tau_min", "tau_max", "margin"]),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_impossible_argument_is_refused_by_a_typed_error_or_taken(name):
    call, options = CALLS[name]
    refused = []
    for option in options:
        for value in JUNK:
            try:
                call(**{option: value})
            except AdjsnnError as error:
                refused.append(error)
    assert len(refused) >= len(options) * len(JUNK) // 4  # of no argument most of these are values
    assert all(error.seen and error.expected and error.remedy for error in refused)


@pytest.mark.parametrize("make", [gated, lif])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learn": None}, "learn=None"),
        ({"learn": 5}, "learn=5"),
        ({"learn": ["bias", 3]}, r"learn names \[3\]"),
        ({"generator": 0}, "generator of type int"),
        ({"device": "gpu"}, "device='gpu'"),
        ({"dtype": "float32"}, "dtype=float32"),
    ],
)
def test_the_error_names_the_argument_and_what_to_try(make, options, message):
    with pytest.raises(adjsnn.ConfigurationError, match=message):
        make(**options)

"""Whatever is given as an argument, what cannot be used is refused by the library's own error."""

import functools
import inspect

import numpy as np
import pytest
import torch

import adjsnn
from adjsnn import AdjsnnError, losses

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


def judge(**options):
    net = lif(bias=1.5)
    given = {"network": net, "inputs": X, "parameters": {"w_in.0": net.w_in[0]}, "t_end": 60.0} | options
    return adjsnn.judge(lambda x: adjsnn.solve(net, x, t_end=60.0).first_spike_times(), loss=torch.sum, **given)


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
    "judge": (judge, ["network", "inputs", "parameters", "t_end", "entries", "seed"]),
    "projection, gated": (gated().project_, ["tau_min"]),
    "projection, LIF": (lif().project_, ["tau_min", "tau_max", "margin"]),
}


class Decay(adjsnn.HybridSystem):
    def vector_field(self, t, y, u):
        return -y


SOLUTIONS = {
    "gated": solve_gated,
    "LIF": lambda: adjsnn.solve(adjsnn.LIFNetwork(2, (3, 2), n_out=1, bias=1.5), X, ts=[0.0, 1.0, 5.0]),
    "HybridSystem": lambda: adjsnn.solve(Decay(), None, y0=torch.ones(1, 2), ts=[0.0, 1.0]),
}
EVENTS = dict.fromkeys(("sample", "neuron", "sign"), torch.ones(1, dtype=torch.long)) | {"time": torch.ones(1)}
GOOD = EVENTS | {
    "target": torch.zeros(3, 1, 1), "labels": torch.zeros(1, dtype=torch.long), "events": [[(1.0, 0)]], "n_neurons": 2,
    "t_max": 5.0, "rates": torch.ones(1, 2), "x": torch.zeros(2, 1, 2), "dt": 0.5, "batch": 2, "trains": [X], "other": X,
    "samples": [X[0]], "start": torch.zeros(1), "stop": torch.ones(1), "which": 0, "device": "cpu",
}  # fmt: skip


def _readers():
    """Whatever is read from a solution or from spike trains with arguments: a loss, a figure, a constructor."""
    solutions = {name: solve() for name, solve in SOLUTIONS.items()}
    of_sol = [f for f in vars(losses).values() if getattr(f, "__module__", "") == losses.__name__ and f.__name__[0] != "_"]
    calls = {f"{f.__name__}, {name}": functools.partial(f, sol) for f in of_sol for name, sol in solutions.items()}
    for name, x in (*solutions.items(), ("spikes", X)):
        methods = [m for key in dir(x) if key[0] != "_" and callable(m := getattr(x, key)) and inspect.ismethod(m)]
        calls |= {f"{m.__name__} of {name}": m for m in methods}
    return calls


def test_what_is_read_of_a_solution_or_of_spikes_refuses_junk_by_a_typed_error():
    raw, asked = [], 0
    for name, call in _readers().items():
        parameters = [p for p in inspect.signature(call).parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        given = {p.name: GOOD[p.name] for p in parameters if p.default is p.empty}
        for parameter in parameters:
            for value in JUNK:
                asked += 1
                try:
                    call(**given | {parameter.name: value})
                except AdjsnnError:
                    pass
                except Exception as error:
                    raw.append((name, parameter.name, value, error))
    assert not raw
    assert asked > 1000


@pytest.mark.parametrize("layer", [2, -3, 1.0, "last", None, torch.tensor([0])])
def test_a_layer_that_is_not_there_is_refused(layer):
    sol = SOLUTIONS["LIF"]()
    for read in (sol.spike_times, sol.first_spike_times, sol.voltage_max, sol.spike_speeds, sol.spike_counts):
        with pytest.raises(adjsnn.ConfigurationError, match="an integer from -2 to 1, one of 2"):
            read(layer)
    assert torch.equal(sol.spike_times(np.int64(-1)), sol.spike_times(1))


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

"""Functions under torch.compile that solve, or read a solution: values and gradients are those without it."""

import pytest
import torch
from small_solves import CASES, lif

import adjsnn
from adjsnn import losses

F64 = torch.float64
READ = {
    "first_spike_times": lambda s: s.first_spike_times(),
    "first_spike_times of the layer below": lambda s: s.first_spike_times(0),
    "spike_times": lambda s: s.spike_times(),
    "spike_counts": lambda s: s.spike_counts(),
    "layer_spikes": lambda s: s.layer_spikes[0].time,
    "counts": lambda s: s.layer_spikes[0].counts(),
    "to_dense": lambda s: s.layer_spikes[0].to_dense(0.7),
    "voltage_max": lambda s: s.voltage_max(),
    "voltage_integral": lambda s: s.voltage_integral(0),
    "readout": lambda s: s.readout,
    "readout_error": lambda s: s.readout_error(torch.ones(5, 2, 2, dtype=F64)),
    "squared_rate": lambda s: s.squared_rate(),
    "spike_speeds": lambda s: s.spike_speeds(),
    "van_rossum": lambda s: losses.van_rossum(s.layer_spikes[0].between(0.0, 20.0), s.layer_spikes[0].between(20.0, 40.0)),
    "first_spike_cross_entropy": lambda s: losses.first_spike_cross_entropy(s, torch.tensor([0, 1])),
    "first_spike_mse": lambda s: losses.first_spike_mse(s, torch.full((2, 4), 9.0, dtype=F64)),
    "firing_rate": losses.firing_rate,
}
FAST = ("first_spike_times", "voltage_max", "to_dense")  # the others run with `make test-slow`
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # which torch's compiler itself reads


@pytest.fixture(autouse=True)
def forgotten():
    """Each test compiles anew."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _value_and_gradient(read, sol, wanted):
    value = read(sol)
    real = value[value.isfinite()].double()
    return value.detach(), torch.autograd.grad(real.sum(), wanted)[0] if value.requires_grad else None


@pytest.mark.parametrize("name", [x if x in FAST else pytest.param(x, marks=pytest.mark.slow) for x in READ])
def test_what_is_read_from_a_solution_is_what_it_is_without_compilation(name):
    case = lif()
    net = case.module
    with torch.no_grad():
        net.w_in[1][0] *= 0.1  # this neuron stays silent
    x = adjsnn.SpikeTrains.from_list([[(t, 0), (t + 1.0, 2)] for t in (1.0, 1.5)], n_neurons=3, t_max=40.0, dtype=F64)

    def solved():
        return adjsnn.solve(net, x, ts=torch.linspace(0.0, 40.0, 5, dtype=F64))

    expected, expected_gradient = _value_and_gradient(READ[name], solved(), net.w_in[0])
    found, gradient = _value_and_gradient(torch.compile(READ[name], backend="aot_eager"), solved(), net.w_in[0])
    assert expected.isfinite().any()
    assert torch.equal(found, expected)
    assert expected_gradient is None or torch.equal(gradient, expected_gradient)
    assert expected_gradient is None or bool(expected_gradient.any())


@pytest.mark.parametrize("backend", [pytest.param("eager", marks=pytest.mark.slow), "aot_eager"])
@pytest.mark.parametrize("name", ["gated", pytest.param("gated, checkpoints", marks=pytest.mark.slow), "lif", "smooth"])
def test_a_solve_inside_a_compiled_function_is_the_solve(name, backend):
    case = CASES[name]()

    def loss(scale):
        return (case.value() * scale).square().sum()

    scale = torch.tensor(0.5, dtype=F64)
    expected = loss(scale)
    found = torch.compile(loss, backend=backend)(scale)
    assert torch.equal(found, expected)
    ours, theirs = (torch.autograd.grad(x, case.leaves, allow_unused=True) for x in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b) if b is not None else a is None

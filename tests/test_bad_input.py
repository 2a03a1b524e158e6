"""Every way of being wrong at the door: the type of the error, and that the message says what was seen and what to try."""

import math
import pickle

import numpy as np
import pytest
import quantities as pq
import torch

import adjsnn
from adjsnn import ConfigurationError, GatedState, IntegrationError, SpikeTrains
from adjsnn.gated.balanced import tightly_balanced
from adjsnn.signals import load_signal, lowpass, random_sinusoids


def _net(**options):
    options = {"neuron": adjsnn.NIF(), "generator": torch.Generator().manual_seed(0)} | options
    return adjsnn.GatedSynapseNetwork(2, 4, 1, **options)


def _u(steps=10, batch=3):
    return torch.zeros(steps, batch, 2)


def _nan_at_3_1_0():
    u = _u()
    u[3, 1, 0] = math.nan
    return u


def _state(**fields):
    rest = {name: torch.zeros(3, 4) for name in GatedState._fields}
    return GatedState(**(rest | fields))


SOLVE_CASES = {
    "not a system": (lambda: adjsnn.solve(torch.nn.Linear(2, 2), _u(), dt=0.1), "system of type Linear"),
    "numpy input": (lambda: adjsnn.solve(_net(), np.zeros((10, 3, 2)), dt=0.1), "torch.as_tensor"),
    "two dimensions": (lambda: adjsnn.solve(_net(), torch.zeros(10, 2), dt=0.1), r"shape \(10, 2\).*unsqueeze"),
    "batch first": (lambda: adjsnn.solve(_net(), torch.zeros(3, 10, 1), dt=0.1), "C_in = 2"),
    "no steps": (lambda: adjsnn.solve(_net(), _u(steps=0), dt=0.1), "T ≥ 1"),
    "no samples": (lambda: adjsnn.solve(_net(), _u(batch=0), dt=0.1), "B ≥ 1"),
    "integer input": (lambda: adjsnn.solve(_net(), _u().long(), dt=0.1), "torch.int64"),
    "other dtype": (lambda: adjsnn.solve(_net(), _u().double(), dt=0.1), r"float64.*float32.*net.to"),
    "other device": (lambda: adjsnn.solve(_net(), _u().to("meta"), dt=0.1), "on meta"),
    "NaN input": (lambda: adjsnn.solve(_net(), _nan_at_3_1_0(), dt=0.1), r"inputs\[3, 1, 0\] = nan"),
    "infinite input": (lambda: adjsnn.solve(_net(), _u() + math.inf, dt=0.1), r"inputs\[0, 0, 0\] = inf"),
    "dt zero": (lambda: adjsnn.solve(_net(), _u(), dt=0.0), "dt=0.0.*positive"),
    "dt negative": (lambda: adjsnn.solve(_net(), _u(), dt=-0.1), "dt=-0.1.*positive"),
    "dt NaN": (lambda: adjsnn.solve(_net(), _u(), dt=math.nan), "dt=nan"),
    "dt a string": (lambda: adjsnn.solve(_net(), _u(), dt="0.1"), "dt='0.1'"),
    "step too long for tau_fast": (lambda: adjsnn.solve(_net(), _u(), dt=5.0), "dt=5 ms with tau_fast=5 ms"),
    "step too long for the membrane": (
        lambda: adjsnn.solve(_net(neuron=adjsnn.LIF(tau_mem=2.0)), _u(), dt=3.0),
        "dt=3 ms with tau_mem=2 ms",
    ),
    "unknown method": (lambda: adjsnn.solve(_net(), _u(), dt=0.1, method="rk5"), "method='rk5'.*euler"),
    "adjoint class, not instance": (lambda: adjsnn.solve(_net(), _u(), dt=0.1, adjoint=adjsnn.BPTT), "instance"),
    "checkpoints": (lambda: adjsnn.DiscreteAdjoint(checkpoints="cube"), "checkpoints='cube'"),
    "unknown kernels": (lambda: adjsnn.solve(_net(), _u(), dt=0.1, kernels="fast"), "kernels='fast'.*auto"),
    "fused loops for a heterogeneous network": (
        lambda: adjsnn.solve(_net(tau_fast=[5.0, 6.0, 7.0, 8.0]), _u(), dt=0.1, kernels="fused"),
        "tau_fast and tau_slow differ between neurons",
    ),
    "y0 of another batch": (
        lambda: adjsnn.solve(_net(), _u(), dt=0.1, y0=_net().initial_state(2)),
        r"y0.v is \(2, 4\).*\(3, 4\)",
    ),
    "y0 NaN": (lambda: adjsnn.solve(_net(), _u(), dt=0.1, y0=_state(a_fast=torch.full((3, 4), math.nan))), "y0.a_fast"),
    "y0 not a state": (lambda: adjsnn.solve(_net(), _u(), dt=0.1, y0=torch.zeros(3, 4)), "y0.*v, a_fast and a_slow"),
    "v above threshold at the start": (
        lambda: adjsnn.solve(_net(), _u(), dt=0.1, y0=_state(v=torch.full((3, 4), -1.2))),
        r"y0.v\[0, 0\] = -1.2, at or beyond the threshold",
    ),
}


@pytest.mark.parametrize("case", SOLVE_CASES)
def test_solve(case):
    call, message = SOLVE_CASES[case]
    with pytest.raises(ConfigurationError, match=message) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    assert "Try: " in str(caught.value)


BUILD_CASES = {
    "no neurons": (lambda: adjsnn.GatedSynapseNetwork(2, 0, 1), "n_hidden=0"),
    "fractional size": (lambda: adjsnn.GatedSynapseNetwork(2, 4.0, 1), "n_hidden=4.0"),
    "negative inputs": (lambda: adjsnn.GatedSynapseNetwork(-1, 4, 1), "n_in=-1"),
    "neuron by name": (lambda: _net(neuron="QIF"), "neuron='QIF'"),
    "gate by number": (lambda: _net(gate=0.1), "gate=0.1"),
    "gate width zero": (lambda: adjsnn.RaisedCosineGate(0.0), "width=0.0"),
    "gate width NaN": (lambda: adjsnn.RectangularGate(math.nan), "width=nan"),
    "zone reaches the reset": (
        lambda: _net(neuron=adjsnn.LIF(v_reset=0.95), gate=adjsnn.RaisedCosineGate(0.1)),
        "zone of width 0.1 with threshold 1.0 and reset 0.95",
    ),
    "tau_fast zero": (lambda: _net(tau_fast=0.0), "tau_fast=0.0"),
    "tau_slow of wrong length": (lambda: _net(tau_slow=[5.0, 6.0]), r"tau_slow of shape \(2,\)"),
    "tau_mem negative": (lambda: adjsnn.LIF(tau_mem=-1.0), "tau_mem=-1.0"),
    "v_reset infinite": (lambda: adjsnn.LIF(v_reset=math.inf), "v_reset=inf"),
    "learn unknown": (lambda: _net(learn=("weights", "tau_mem")), r"learn names \['tau_mem'\]"),
    "half precision": (lambda: _net(dtype=torch.float16), "float16"),
    "balanced net of three inputs": (lambda: tightly_balanced(adjsnn.GatedSynapseNetwork(3, 4, 2), 0.1), "3 inputs"),
    "balanced net without scale": (lambda: tightly_balanced(adjsnn.GatedSynapseNetwork(2, 4, 2), 0.0), "scale=0.0"),
    "unknown judge": (lambda: adjsnn.gradcheck(_net(), _u(), None, against=("oracle",), dt=0.1), "oracle"),
    "loss not scalar": (lambda: adjsnn.gradcheck(_net(), _u(), lambda sol: sol.readout, dt=0.1), "scalar"),
}


def test_a_unit_is_not_dropped():
    """Numbers of a quantity are not in ms because ms are asked for."""
    net, x = adjsnn.LIFNetwork(1, 1), SpikeTrains.from_list([[(1.0, 0)]], n_neurons=1, t_max=60.0)
    for call in (
        lambda: adjsnn.solve(net, x, t_end=0.06 * pq.s),
        lambda: adjsnn.LIFNetwork(1, 1, tau_mem=0.02 * pq.s),
        lambda: adjsnn.LIFNetwork(1, 2, tau_mem=[0.02 * pq.s, 0.03 * pq.s]),
        lambda: SpikeTrains.from_list([[(0.001 * pq.s, 0)]], n_neurons=1, t_max=60.0),
        lambda: x.to_grid(0.0001 * pq.s),
    ):
        with pytest.raises(ConfigurationError, match="which has a unit"):
            call()


@pytest.mark.parametrize("case", BUILD_CASES)
def test_building(case):
    call, message = BUILD_CASES[case]
    with pytest.raises(ConfigurationError, match=message):
        call()


def test_parameters_gone_wrong_are_named():
    net = _net()
    with torch.no_grad():
        net.w_in[1, 1] = math.nan
    with pytest.raises(ConfigurationError, match="w_in has entries that are not finite"):
        adjsnn.solve(net, _u(), dt=0.1)
    net = _net(learn=("tau_fast",))
    with torch.no_grad():
        net.tau_fast.fill_(-0.5)
    with pytest.raises(ConfigurationError, match=r"tau_fast=-0.5 ms.*project_"):
        adjsnn.solve(net, _u(), dt=0.1)
    net = _net()
    net.bias.data = net.bias.data.double()
    with pytest.raises(ConfigurationError, match="bias is torch.float64"):
        adjsnn.solve(net, _u(), dt=0.1)
    net = _net(neuron=adjsnn.LIF(), learn=("v_reset",))
    with torch.no_grad():
        net.v_reset.fill_(0.95)
    with pytest.raises(ConfigurationError, match="v_reset=0.95"):
        adjsnn.solve(net, _u(), dt=0.1)


def test_divergence_names_sample_and_time(kernels):
    net = _net(neuron=adjsnn.LIF())
    with torch.no_grad():
        net.w_rec.fill_(1e30)
        net.bias.fill_(1.5)
    y0 = _state(a_fast=torch.tensor([[0.0], [-1e20], [0.0]]).expand(3, 4).contiguous())
    with pytest.raises(IntegrationError, match=r"diverged at sample 1, neuron 0, t = 0.1 ms"):
        adjsnn.solve(net, _u(), dt=0.1, y0=y0, kernels=kernels)


@pytest.mark.parametrize("adjoint", [adjsnn.DiscreteAdjoint(), adjsnn.BPTT()])
def test_runaway_names_sample_and_time(adjoint, kernels):
    net = _net()
    with torch.no_grad():
        net.w_rec.fill_(1e3)
    u = _u()
    u[4:, 2] = 30.0
    with pytest.raises(IntegrationError, match="sample 2, neuron"):
        adjsnn.solve(net, u, dt=0.1, adjoint=adjoint, kernels=kernels)


def test_a_lif_reset_past_the_threshold_is_runaway(kernels):
    net = _net(neuron=adjsnn.LIF())
    u = _u()
    with torch.no_grad():
        net.w_in.fill_(1.0)
    u[2:, 1, 0] = 1e4
    with pytest.raises(IntegrationError, match=r"runaway.*sample 1, neuron 0, t = 0.3 ms"):
        adjsnn.solve(net, u, dt=0.1, kernels=kernels)


def test_a_phase_slipping_backward_is_warned_of(kernels):
    net = _net(neuron=adjsnn.QIF())
    with torch.no_grad():
        net.w_rec.zero_()
        net.w_in.fill_(1.0)
    u = torch.full((4, 1, 2), -1.6)
    with pytest.warns(adjsnn.StepTooLongWarning, match="back through its reset"):
        adjsnn.solve(
            net, u, dt=0.5, y0=GatedState(torch.full((1, 4), 0.5), torch.zeros(1, 4), torch.zeros(1, 4)), kernels=kernels
        )


def _trains(idx, time, n_neurons=3, t_max=10.0, sign=None):
    return SpikeTrains(torch.tensor(idx), torch.tensor(time), n_neurons, t_max, sign)


INF = math.inf
SPIKE_CASES = {
    "shapes differ": (lambda: _trains([[0, 1]], [[1.0]]), r"idx \(1, 2\), time \(1, 1\)"),
    "one dimension": (lambda: _trains([0, 1], [1.0, 2.0]), r"\(B, K\)"),
    "unsorted": (lambda: _trains([[0, 1], [0, 1]], [[1.0, 2.0], [2.0, 1.0]]), "unsorted spike times in sample 1"),
    "negative time": (lambda: _trains([[0]], [[-1.0]]), "from -1"),
    "after the end": (lambda: _trains([[0]], [[11.0]]), "t_max = 10"),
    "NaN time": (lambda: _trains([[0]], [[math.nan]]), "NaN"),
    "neuron out of range": (lambda: _trains([[3]], [[1.0]]), r"indices from 3 to 3.*0 … 2"),
    "neuron below the padding": (lambda: _trains([[-2]], [[INF]]), "from -2"),
    "padding in idx only": (lambda: _trains([[0, -1]], [[1.0, 2.0]]), "padding"),
    "padding before a spike": (lambda: _trains([[-1, 0]], [[INF, 1.0]]), "padding"),
    "no neurons": (lambda: _trains([[-1]], [[INF]], n_neurons=0), "n_neurons=0"),
    "endless": (lambda: _trains([[-1]], [[INF]], t_max=INF), "t_max=inf"),
    "float neurons": (lambda: _trains([[0.0]], [[1.0]]), "torch.float32"),
    "grid of width zero": (lambda: _trains([[0]], [[1.0]]).to_dense(0.0), "dt=0.0"),
}


@pytest.mark.parametrize("case", SPIKE_CASES)
def test_spike_trains(case):
    call, message = SPIKE_CASES[case]
    with pytest.raises(ConfigurationError, match=message):
        call()


def test_target_of_the_wrong_length():
    sol = adjsnn.solve(_net(), _u(), dt=0.1)
    for loss in (adjsnn.losses.readout_mse, adjsnn.losses.normalised_cost):
        with pytest.raises(ConfigurationError, match=r"target of shape \(10, 3, 1\).*\(11, 3, 1\)"):
            loss(sol, torch.zeros(10, 3, 1))


def test_signals():
    with pytest.raises(ConfigurationError, match="steps=0"):
        random_sinusoids(0, 1, 1, 0.1)
    with pytest.raises(ConfigurationError, match="dt=-1"):
        random_sinusoids(10, 1, 1, -1)
    with pytest.raises(ConfigurationError, match="dt=10.0 with tau=10.0"):
        lowpass(torch.zeros(3, 1, 1), 10.0, 10.0)


FILE_CASES = {
    "missing.npy": (None, "cannot be read"),
    "words.csv": ("a,b\n1,x\n2,3\n", "cannot be read"),
    "one_sample.csv": ("1,2\n", "T ≥ 2"),
    "gap.csv": ("1\n2\nnan\n4\n", "nan in row 2, column 0"),
    "constant.csv": ("1\n1\n1\n1\n", "constant"),
    "recording.wav": ("1\n2\n", "suffix '.wav'"),
    "ragged.csv": ("1,2\n3\n", "cannot be read"),
    "empty.csv": ("", "T ≥ 2|cannot be read"),
}


@pytest.mark.parametrize("name", FILE_CASES)
def test_signal_files(name, tmp_path):
    content, message = FILE_CASES[name]
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        load_signal(tmp_path / name, 1.0, 0.5)


def test_a_signal_file_needs_positive_times(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(5.0))
    with pytest.raises(ConfigurationError, match="signal_dt=0"):
        load_signal(tmp_path / "x.npy", 0.0, 0.5)
    with pytest.raises(ConfigurationError, match="at least one step"):
        load_signal(tmp_path / "x.npy", 1.0, 50.0)


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(ConfigurationError("a", "b", "c")))
    assert str(error) == "a; expected b. Try: c."

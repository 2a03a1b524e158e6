"""Numbers and times may be Python's, numpy's, arrays or tensors without dimensions; what is none of these is a typed error."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

import adjsnn
from adjsnn import ConfigurationError, SpikeTrains, losses, plotting, signals
from adjsnn.checks import at_end, count, flag, number, rounding, times
from adjsnn.gated.balanced import tightly_balanced
from adjsnn.gradcheck import convergence, threshold_bracket
from adjsnn.gradcheck.built_in import LeakyNetwork


def _lif(**options):
    options = {"layers": (3,), "generator": torch.Generator().manual_seed(0), "dtype": torch.float64} | options
    return adjsnn.LIFNetwork(2, **options)


TRAINS = SpikeTrains.from_list([[(1.0, 0), (2.0, 1)], [(3.0, 1)]], n_neurons=2, t_max=8.0, dtype=torch.float64)
CURRENTS = torch.full((4, 2, 2), 0.5, dtype=torch.float64)


def _lif_solve(x=TRAINS, **options):
    return adjsnn.solve(_lif(n_out=1), x, kernels="plain", **options)


def _gated(**options):
    net = adjsnn.GatedSynapseNetwork(2, 3, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return adjsnn.solve(net, CURRENTS, kernels="plain", **options).readout


def _smooth(inputs=None, **options):
    options = {"ts": torch.tensor([0.0, 1.0, 2.0])} | options
    if inputs is not None:
        options.pop("ts")
    start = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    sol = adjsnn.solve(LeakyNetwork(2).double(), inputs, y0=start, **options)
    return torch.autograd.grad(sol.y.square().sum(), start)[0]


def _signal_file(path, **options):
    np.save(path / "u.npy", np.sin(np.arange(40.0)))
    return signals.load_signal(path / "u.npy", **options)


def _seeded():
    return torch.Generator().manual_seed(0)


def _first_spikes(**options):
    return losses.first_spike_cross_entropy(_lif_solve(), torch.tensor([0, 1]), **options)


START = {"y0": torch.ones(1, 2), "ts": torch.tensor([0.0, 1.0])}

# Each: what takes the number, as a function of it, and a value; a whole one where it is a count.
ENTRIES = {
    "solve gated dt": (lambda x: _gated(dt=x), 0.5),
    "solve lif dt": (lambda x: _lif_solve(CURRENTS, dt=x).final_state[0].v, 2.0),
    "solve lif t_end": (lambda x: _lif_solve(t_end=x).final_state[0].v, 6.0),
    "solve lif t_end of currents": (lambda x: _lif_solve(CURRENTS, dt=2.0, t_end=x).final_state[0].v, 8.0),
    "solve lif max_spikes": (lambda x: _lif_solve(max_spikes=x).final_state[0].v, 100),
    "solve smooth dt": (lambda x: _smooth(CURRENTS[:, :1], dt=x), 0.5),
    "solve smooth rtol": (lambda x: _smooth(method="dopri5", rtol=x), 0.25),
    "solve smooth atol": (lambda x: _smooth(method="dopri5", atol=x), 0.25),
    "solve smooth max_steps": (lambda x: _smooth(method="dopri5", max_steps=x), 50),
    "solve smooth substeps": (lambda x: _smooth(substeps=x), 2),
    "DiscreteAdjoint checkpoints": (lambda x: _gated(dt=0.5, adjoint=adjsnn.DiscreteAdjoint(checkpoints=x)), 2),
    "DiscreteAdjoint checkpoints, smooth": (lambda x: _smooth(adjoint=adjsnn.DiscreteAdjoint(checkpoints=x)), 2),
    "DiscreteAdjoint memory_mb": (lambda x: _gated(dt=0.5, adjoint=adjsnn.DiscreteAdjoint(memory_mb=x)), 1.0),
    "DiscreteAdjoint memory_mb, smooth": (lambda x: _smooth(adjoint=adjsnn.DiscreteAdjoint(memory_mb=x)), 1.0),
    "ForwardSensitivity most": (lambda x: _smooth(adjoint=adjsnn.ForwardSensitivity(most=x)), 100),
    "ContinuousAdjoint dt": (lambda x: _smooth(adjoint=adjsnn.ContinuousAdjoint(dt=x)), 0.5),
    "ContinuousAdjoint rtol": (lambda x: _smooth(adjoint=adjsnn.ContinuousAdjoint(method="dopri5", rtol=x, atol=1e-6)), 0.25),
    "ContinuousAdjoint atol": (lambda x: _smooth(adjoint=adjsnn.ContinuousAdjoint(method="dopri5", rtol=1e-6, atol=x)), 0.25),
    "Backsolve tolerance": (lambda x: _smooth(adjoint=adjsnn.Backsolve(tolerance=x)), 0.5),
    "Gate width": (lambda x: adjsnn.RectangularGate(x).width, 0.25),
    "membrane time": (lambda x: adjsnn.LIF(tau_mem=x).constants["tau_mem"], 8.0),
    "membrane reset": (lambda x: adjsnn.LIF(v_reset=x).constants["v_reset"], 0.25),
    "QIF": (lambda x: adjsnn.QIF(x).constants["tau_v"], 8.0),
    "gated n_in": (lambda x: adjsnn.GatedSynapseNetwork(x, 2, 1).n_in, 3),
    "gated n_hidden": (lambda x: adjsnn.GatedSynapseNetwork(1, x, 1).n_hidden, 3),
    "gated n_out": (lambda x: adjsnn.GatedSynapseNetwork(1, 2, x).n_out, 3),
    "gated tau_fast": (lambda x: adjsnn.GatedSynapseNetwork(1, 2, 1, tau_fast=x).tau_fast, 4.0),
    "lif n_in": (lambda x: adjsnn.LIFNetwork(x, (2,)).n_in, 3),
    "lif layers": (lambda x: adjsnn.LIFNetwork(1, x).layers[0], 3),
    "lif layers, listed": (lambda x: adjsnn.LIFNetwork(1, [x, 2]).layers[0], 3),
    "lif n_out": (lambda x: adjsnn.LIFNetwork(1, (2,), n_out=x).n_out, 3),
    "lif tau_mem": (lambda x: _lif(tau_mem=x).tau_mem[0], 8.0),
    "lif bias": (lambda x: _lif(bias=x).bias[0], 0.25),
    "lif delays": (lambda x: _lif(delays=x).delays[0], 2.0),
    "lif rec_delays of a feed-forward layer": (lambda x: float(_lif(rec_delays=x).rec_delays[0] is None), 2.0),
    "lif tau_out": (lambda x: _lif(n_out=1, tau_out=x).tau_out, 8.0),
    "tightly_balanced": (lambda x: tightly_balanced(adjsnn.GatedSynapseNetwork(2, 3, 2), x).w_rec, 0.25),
    "SpikeTrains n_neurons": (lambda x: SpikeTrains(TRAINS.idx, TRAINS.time, x, 8.0).n_neurons, 4),
    "SpikeTrains t_max": (lambda x: SpikeTrains(TRAINS.idx, TRAINS.time, 2, x).t_max, 16.0),
    "from_list time": (lambda x: SpikeTrains.from_list([[(x, 1)]], n_neurons=2, t_max=8.0).time, 2.0),
    "from_list neuron": (lambda x: SpikeTrains.from_list([[(2.0, x)]], n_neurons=2, t_max=8.0).idx, 1),
    "from_dense dt": (lambda x: SpikeTrains.from_dense(CURRENTS > 0, x).time, 0.5),
    "from_dense t_max": (lambda x: SpikeTrains.from_dense(CURRENTS > 0, 0.5, t_max=x).t_max, 16.0),
    "to_dense": (TRAINS.to_dense, 0.5),
    "poisson": (lambda x: SpikeTrains.poisson(torch.full((1, 2), 50.0), x, generator=_seeded()).time, 64.0),
    "latency t_max": (lambda x: SpikeTrains.latency(torch.rand(2, 3, generator=_seeded()), x).time, 8.0),
    "latency bias": (lambda x: SpikeTrains.latency(torch.rand(2, 3, generator=_seeded()), 8.0, bias=x).time, 4.0),
    "between start": (lambda x: TRAINS.between(x, 8.0).time, 2.0),
    "between stop": (lambda x: TRAINS.between(0.0, x).time, 2.0),
    "Stream": (lambda x: signals.Stream(lambda a, b: CURRENTS[a:b], steps=x).steps, 4),
    "random_sinusoids steps": (lambda x: signals.random_sinusoids(x, 1, 1, 1.0, generator=_seeded()), 4),
    "random_sinusoids dt": (lambda x: signals.random_sinusoids(4, 1, 1, x, generator=_seeded()), 0.5),
    "random_sinusoids period": (lambda x: signals.random_sinusoids(4, 1, 1, 1.0, base_period=x, generator=_seeded()), 64.0),
    "random_sinusoids harmonics": (lambda x: signals.random_sinusoids(4, 1, 1, 1.0, harmonics=x, generator=_seeded()), 3),
    "random_sinusoids mean_norm": (lambda x: signals.random_sinusoids(4, 1, 1, 1.0, mean_norm=x, generator=_seeded()), 0.5),
    "lowpass dt": (lambda x: signals.lowpass(CURRENTS, x, 5.0), 0.5),
    "lowpass tau": (lambda x: signals.lowpass(CURRENTS, 0.5, x), 4.0),
    "cross entropy tau0": (lambda x: _first_spikes(tau0=x), 0.5),
    "cross entropy alpha": (lambda x: _first_spikes(alpha=x), 0.25),
    "cross entropy tau1": (lambda x: _first_spikes(tau1=x), 4.0),
    "van_rossum": (lambda x: losses.van_rossum(TRAINS, TRAINS.between(0.0, 2.0), tau=x), 4.0),
    "van_rossum tau_rise": (lambda x: losses.van_rossum(TRAINS, TRAINS.between(0.0, 2.0), tau_rise=x), 4.0),
    "squared_rate": (lambda x: _lif_solve().squared_rate(tau=x), 4.0),
    "threshold_bracket rtol": (lambda x: threshold_bracket(_lif(), TRAINS, rtol=x, kernels="plain"), 0.5),
    "threshold_bracket neuron": (lambda x: threshold_bracket(_lif(), TRAINS, neuron=x, rtol=0.5, kernels="plain"), 1),
    "gradcheck entries": (
        lambda x: adjsnn.gradcheck(
            LeakyNetwork(2), None, lambda s: s.y.sum(), ("finite_difference",), entries=x, verbose=False, **START
        ).loss,
        1,
    ),
    "convergence dt": (
        lambda x: convergence(
            *(LeakyNetwork(2), CURRENTS[:, :1], lambda s: s.y.sum()), adjoint=adjsnn.BPTT(), dts=[0.5], dt=x, y0=START["y0"]
        ).gradient_errors,
        0.5,
    ),
    "new_figure": (lambda x: plotting.new_figure(x, 2.0).get_figwidth(), 4.0),
    "plotting window": (
        lambda x: plotting.balanced_currents(
            torch.arange(8.0), torch.arange(8.0).sin(), torch.arange(8.0), window=x
        ).get_title(loc="left"),
        2.0,
    ),
    "plotting sample": (
        lambda x: plotting.layers_raster({"a": TRAINS}, sample=x).get_xlim(),
        1,
    ),
}  # fmt: skip


def _forms(value):
    """The same number as others give it; each exact in float32."""
    if isinstance(value, int):
        return [np.int64(value), np.uint8(value), np.array(value), torch.tensor(value, dtype=torch.int16)]
    forms = [np.float32(value), np.array(value), torch.tensor(value), torch.tensor(value).double()]
    return [*forms, int(value), np.int64(value)] if value == int(value) else forms


def _same(found, expected):
    if isinstance(expected, torch.Tensor):
        return torch.equal(found, expected)
    return found == expected


@pytest.mark.every(3)
@pytest.mark.parametrize("entry", ENTRIES)
def test_every_kind_of_number_means_the_same(entry):
    call, value = ENTRIES[entry]
    expected = call(value)
    for form in _forms(value):
        assert _same(call(form), expected), f"{type(form).__name__} {form!r}"


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.usefixtures("unchecked_shapes")  # the library's own checks are asked, not the annotations
def test_what_is_no_number_is_refused(entry):
    call, value = ENTRIES[entry]
    wrong = [torch.tensor([float(value)] * 4)[:, None, None], torch.tensor(math.nan), np.float64(math.nan)]
    if entry != "lif bias":
        wrong += [True, np.bool_(True), torch.tensor(True)]
    if entry not in ("gated tau_fast", "lif tau_mem", "lif bias", "lif delays", "lif rec_delays of a feed-forward layer"):
        wrong.append(torch.tensor(float(value), requires_grad=True))  # a parameter may start from another
    if isinstance(value, int):
        wrong += [value + 0.5, float(value), torch.tensor(float(value))]
    if entry == "lif rec_delays of a feed-forward layer":
        wrong = wrong[:1]
    for x in wrong:
        with pytest.raises(ConfigurationError) as caught:
            call(x)
        assert caught.value.expected
        assert caught.value.remedy


def test_signal_files_take_every_kind_of_number(tmp_path):
    expected = _signal_file(tmp_path, signal_dt=1.0, dt=2.0, mean_norm=0.5)
    found = _signal_file(tmp_path, signal_dt=np.int64(1), dt=torch.tensor(2.0), mean_norm=np.float32(0.5))
    assert torch.equal(found, expected)
    for name in ("signal_dt", "dt", "mean_norm"):
        with pytest.raises(ConfigurationError, match=name):
            _signal_file(tmp_path, **({"signal_dt": 1.0, "dt": 2.0} | {name: np.bool_(True)}))


TIMES = [0.0, 2.0, 4.0]
KINDS = {
    "list": TIMES,
    "tuple": tuple(TIMES),
    "list of numpy": [np.float32(x) for x in TIMES],
    "list of tensors": [torch.tensor(x) for x in TIMES],
    "integers": [0, 2, 4],
    "range": range(0, 5, 2),
    "float64 array": np.array(TIMES),
    "float32 array": np.array(TIMES, np.float32),
    "big-endian array": np.array(TIMES, ">f8"),
    "reversed view": np.array(TIMES[::-1])[::-1],
    "integer array": np.array([0, 2, 4], np.uint16),
    "float32 tensor": torch.tensor(TIMES),
    "integer tensor": torch.tensor([0, 2, 4]),
    "bfloat16 tensor": torch.tensor(TIMES, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_times_means_the_same(kind):
    exact = torch.tensor(TIMES, dtype=torch.float64)
    given = KINDS[kind]
    for call in (lambda ts: _lif_solve(ts=ts).v[0], lambda ts: _lif_solve(ts=ts).readout, lambda ts: _smooth(ts=ts)):
        assert torch.equal(call(given), call(exact))
    read_only = np.array(TIMES)
    read_only.setflags(write=False)
    assert torch.equal(_lif_solve(ts=read_only).v[0], _lif_solve(ts=exact).v[0])


@pytest.mark.parametrize(
    "ts",
    [
        [[0.0, 1.0]], 3.0, "0, 1", ["a", "b"], [0.0, None], [0.0, [1.0]], [0.0, math.nan], [0.0, math.inf], [True, False],
        torch.tensor([0.0, 1.0], requires_grad=True), torch.tensor([0.0, 1.0j]), torch.zeros(2, device="meta"),
        torch.tensor([0.0, 1.0]).to_sparse(), np.array([0.0, 1.0], object), np.array(["2020"], "datetime64[Y]"), {0.0, 1.0},
    ],
)  # fmt: skip
def test_what_are_no_times_is_refused(ts):
    for call in (lambda: _lif_solve(ts=ts), lambda: _smooth(ts=ts)):
        with pytest.raises(ConfigurationError, match="ts"):
            call()


def test_bools_of_numpy_and_torch_are_bools():
    for value in (np.True_, torch.tensor(True), np.array(True)):
        net = _lif(recurrent=value, bias=value)
        assert net.recurrent == (True,)
        assert net.bias[0].requires_grad
        assert not net.bias[0].any()  # zero and learnt, not one
    assert _lif(layers=np.array([3, 2]), recurrent=np.array([True, False])).recurrent == (True, False)
    assert adjsnn.Backsolve(strict=np.True_).strict is True
    with pytest.raises(ConfigurationError, match="flag=1"):
        flag("flag", 1)


def test_spike_trains_of_numpy_arrays():
    idx, time = np.array([[1, 0, -1]], np.int16), np.array([[0.5, 2.0, np.inf]])
    x = SpikeTrains(idx, time, 2, 3.0, sign=np.array([[1, -1, 0]]))
    assert x.to_list() == [[(0.5, 1), (2.0, 0)]]
    assert (x.idx.dtype, x.time.dtype) == (torch.int64, torch.float64)
    time[:] = 9.0  # a copy: what was checked stays
    assert float(x.time[0, 0]) == 0.5
    assert SpikeTrains.from_dense(np.array([[[1, 0]], [[0, 2]]]), 0.5).counts().tolist() == [[1, 2]]
    wrong = [
        (time.astype(str), time), ([[0], [0, 1]], time), (idx, [["a"]]), (idx > 0, time), (idx.astype(float), time), (idx, idx),
        (idx, None), (idx.astype(object), time), (idx, time.astype(complex)),
    ]  # fmt: skip
    for pair in wrong:
        with pytest.raises(ConfigurationError, match="idx|time"):
            SpikeTrains(*pair, 2, 3.0)
    with pytest.raises(ConfigurationError, match="sign"):
        SpikeTrains(idx, np.array([[0.5, 2.0, np.inf]]), 2, 3.0, sign="up")
    with pytest.raises(ConfigurationError, match="a neuron=1.5"):
        SpikeTrains.from_list([[(1.0, 1.5)]], n_neurons=2, t_max=2.0)


def test_the_smallest_parts():
    assert number("x", Fraction(1, 4)) == 0.25
    assert count("n", torch.tensor(3, dtype=torch.uint8)) == 3
    with pytest.raises(ConfigurationError, match="x=1000"):
        number("x", 10**400)
    with pytest.raises(ConfigurationError, match="one, pass|constant"):
        number("x", torch.tensor(1.0, requires_grad=True))
    assert rounding(1.0, None, [1, 2]) == torch.finfo(torch.float64).eps
    assert (
        rounding(1.0, torch.zeros(2))
        == rounding(np.float32(1.0))
        == rounding([np.float32(1.0)])
        == torch.finfo(torch.float32).eps
    )
    assert times("ts", torch.arange(3)).dtype == torch.float64
    ends = at_end(torch.tensor([0.1, 0.3, 0.30000000000000004, 0.3000001], dtype=torch.float64), 0.3, rounding())
    assert ends.tolist() == [0.1, 0.3, 0.3, 0.3000001]

"""Networks by physical constants, NEST's parameters, and what simulators round."""

import re
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import quantities as pq
import torch
from pint_units import REGISTRY as UNIT

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork, SpikeTrains
from adjsnn.lif.units import DIMENSIONS

F64 = torch.float64
CONSTANTS = {
    "tau_m": 20.0,
    "C_m": 250.0,
    "tau_syn": 5.0,
    "E_L": -70.0,
    "V_th": -55.0,
    "V_reset": -72.0,
    "t_ref": 2.0,
    "I_e": 30.0,
}
PINT = {
    "tau_m": UNIT.s,
    "C_m": UNIT.nF,
    "tau_syn": UNIT.s,
    "E_L": UNIT.V,
    "V_th": UNIT.V,
    "V_reset": UNIT.V,
    "t_ref": UNIT.s,
    "I_e": UNIT.nA,
}
SCALE = {"tau_m": "ms", "C_m": "pF", "tau_syn": "ms", "E_L": "mV", "V_th": "mV", "V_reset": "mV", "t_ref": "ms", "I_e": "pA"}


class InSI(np.ndarray):
    """A quantity as Brian2 has it: numbers in SI that know their dimension."""

    def __new__(cls, value, unit):
        *exponents, size = DIMENSIONS[unit]
        new = np.array(np.asarray(value) / size).view(cls)
        names = ("length", "mass", "time", "current")
        new.dim = SimpleNamespace(get_dimension=dict(zip(names, exponents, strict=True)).get)
        return new

    def __array_finalize__(self, other):
        self.dim = getattr(other, "dim", None)


def network(constants=CONSTANTS, **options):
    weights = torch.tensor([[100.0, -50.0, 0.0], [20.0, 30.0, 40.0]], dtype=F64)
    return LIFNetwork.from_physical(constants, 3, 2, **{"weights": weights, "delays": 1.0, "dtype": F64} | options)


def parts(net):
    return dict(net.state_dict())


def equal(a, b):
    assert parts(a).keys() == parts(b).keys()
    for name, x in parts(a).items():
        torch.testing.assert_close(x, parts(b)[name], rtol=1e-12, atol=1e-12)


def test_voltages_and_weights_are_in_mv_above_rest():
    net = network()
    assert net.tau_mem[0].tolist() == [20.0, 20.0]
    assert net.v_th[0].tolist() == [15.0, 15.0]
    assert net.v_reset[0].tolist() == [-2.0, -2.0]
    torch.testing.assert_close(net.bias[0], torch.full((2,), 30.0 * 0.08, dtype=F64))  # 0.08 GΩ
    torch.testing.assert_close(net.w_in[0], 0.08 * torch.tensor([[100.0, -50.0, 0.0], [20.0, 30.0, 40.0]], dtype=F64))


def test_a_psp_is_that_of_the_membrane_equation():
    """C_m V̇ = -(V - E_L)/R + I in SI, by small steps of Euler's method, of order h."""
    tau_m, c_m, tau_s, w, h = 0.02, 250e-12, 0.005, 100e-12, 1e-6
    v, current = 0.0, w
    for _ in range(10_000):
        v, current = v + h * (-v / tau_m + current / c_m), current * (1.0 - h / tau_s)
    x = SpikeTrains.from_list([[(0.0, 0)]], n_neurons=3, t_max=20.0, dtype=F64)
    net = network(CONSTANTS | {"I_e": 0.0}, delays=None)
    sol = adjsnn.solve(net, x, t_end=20.0, ts=torch.tensor([10.0], dtype=F64))
    assert float(sol.v[0][0, 0, 0].detach()) == pytest.approx(1e3 * v, rel=1e-3)


@pytest.mark.parametrize(
    "of", [{"tau_m": 20.0, "R": 80.0}, {"tau_m": 20.0, "g_L": 12.5}, {"C_m": 250.0, "R": 80.0}, {"C_m": 250.0, "g_L": 12.5}]
)
def test_any_two_constants_of_the_membrane(of):
    rest = {name: x for name, x in CONSTANTS.items() if name not in ("tau_m", "C_m")}
    equal(network(rest | of), network())


def test_quantities_of_pint_quantities_and_brian2():
    si = {"tau_m": 1e-3, "C_m": 1e-3, "tau_syn": 1e-3, "E_L": 1e-3, "V_th": 1e-3, "V_reset": 1e-3, "t_ref": 1e-3, "I_e": 1e-3}
    weights = [[100.0, -50.0, 0.0], [20.0, 30.0, 40.0]]
    by_pint = {name: x * si[name] * PINT[name] for name, x in CONSTANTS.items()}
    equal(network(by_pint, weights=np.array(weights) * UNIT.pA, delays=1e-3 * UNIT.s), network())
    by_pq = {name: pq.Quantity(x, SCALE[name]) for name, x in CONSTANTS.items()}
    equal(network(by_pq, weights=pq.Quantity(weights, "pA"), delays=pq.Quantity(1.0, "ms")), network())
    by_brian = {name: InSI(x, SCALE[name]) for name, x in CONSTANTS.items()}
    equal(network(by_brian, weights=InSI(weights, "pA"), delays=InSI(1.0, "ms")), network())
    several = CONSTANTS | {"tau_m": [20.0 * UNIT.ms, 0.02 * UNIT.s], "V_th": [InSI(-55.0, "mV"), -55.0]}
    equal(network(several), network())


def test_weights_in_volts_need_no_resistance():
    constants = {name: x for name, x in CONSTANTS.items() if name not in ("C_m", "I_e")}
    weights = 0.08 * np.array([[100.0, -50.0, 0.0], [20.0, 30.0, 40.0]])
    equal(network(constants | {"I_e": 2.4 * UNIT.mV}, weights=weights * UNIT.mV), network())
    with pytest.raises(ConfigurationError, match="C_m, R or g_L"):
        network(constants)


def test_layers_of_their_own_and_recurrence():
    other = CONSTANTS | {"tau_m": [10.0, 12.0, 14.0]}
    net = LIFNetwork.from_physical(
        (CONSTANTS, other), 3, (2, 3), weights=(50.0, np.ones((3, 2))), rec_weights=(None, 5.0), rec_delays=(None, 1.0),
        delays=(1.0, [1.0, 2.0] * UNIT.ms), learn=("weights",),
    )  # fmt: skip
    assert net.recurrent == (False, True)
    assert net.tau_mem[1].tolist() == [10.0, 12.0, 14.0]
    torch.testing.assert_close(net.w_in[1][:, 0], torch.tensor([0.04, 0.048, 0.056]))
    torch.testing.assert_close(net.w_rec[1][0], torch.full((3,), 0.2))
    assert net.delays[1].tolist() == [1.0, 2.0]
    assert net.w_in[0].requires_grad


def test_two_time_constants_are_two_receptors():
    net = network(CONSTANTS | {"tau_syn_in": 8.0})
    assert net.w_in[0].shape == (2, 2, 3)
    assert net.tau_syn[0].tolist() == [[5.0, 5.0], [8.0, 8.0]]
    assert bool((net.w_in[0][0] >= 0.0).all() and (net.w_in[0][1] <= 0.0).all())
    torch.testing.assert_close(net.w_in[0].sum(0), network().w_in[0])


NEST = {
    "C_m": 250.0,
    "tau_m": 20.0,
    "tau_syn_ex": 5.0,
    "tau_syn_in": 5.0,
    "E_L": -70.0,
    "V_th": -55.0,
    "V_reset": -72.0,
    "t_ref": 2.0,
    "I_e": 30.0,
}


def test_nest_is_the_same_by_its_names():
    weights = [[100.0, -50.0, 0.0], [20.0, 30.0, 40.0]]
    equal(LIFNetwork.from_nest(NEST, 3, 2, weights=weights, delays=1.0, dtype=F64), network())
    got = NEST | {"tau_m": (20.0, 20.0), "V_m": (-70.0, -70.0), "model": ("iaf_psc_exp_ps",) * 2, "V_min": (-np.inf,) * 2}
    equal(LIFNetwork.from_nest((got,), 3, 2, weights=weights, delays=1.0, dtype=F64), network())
    default = LIFNetwork.from_nest({}, 1, weights=1.0)
    assert (float(default.tau_mem[0]), float(default.v_th[0]), float(default.refractory[0])) == (10.0, 15.0, 2.0)


@pytest.mark.parametrize("inhibition", [5.0, 8.0])
def test_there_and_back(inhibition):
    net = network(CONSTANTS | {"tau_syn_in": inhibition}, rec_weights=[[0.0, 10.0], [-10.0, 0.0]], rec_delays=2.0)
    (layer,) = net.to_nest(E_L=-65.0, C_m=100.0)
    assert (layer["model"], layer["n"]) == ("iaf_psc_exp_ps", 2)
    assert layer["params"]["V_m"] == layer["params"]["E_L"] == [-65.0, -65.0]
    weights, recurrent = (sum(x["weight"] for x in layer[name]) for name in ("input", "recurrent"))
    assert layer["input"][0]["delay"].shape == (2, 3)
    back = LIFNetwork.from_nest(
        layer["params"], 3, 2, weights=weights, rec_weights=recurrent, delays=[1.0] * 3, dtype=F64,
        rec_delays=layer["recurrent"][0]["delay"][0],
    )  # fmt: skip
    equal(back, net)


def test_to_nest_is_no_view_of_the_network():
    net = network()
    (layer,) = net.to_nest()
    layer["input"][0]["weight"][:] = 0.0
    layer["input"][0]["delay"][:] = 0.0
    equal(net, network())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"tau": 20.0}, "names among"),
        ({"V_th": None}, "without"),
        ({"tau_m": None, "C_m": None}, "tau_m and one of"),
        ({"R": 80.0}, "tau_m and one of"),
        ({"C_m": -250.0}, "positive"),
        ({"V_th": 20.0 * UNIT.ms}, "comes to mV"),
        ({"V_th": pq.Quantity(1.0, "s")}, "comes to mV"),
        ({"V_th": InSI(1.0, "ms")}, "comes to mV"),
        ({"V_th": np.ma.array(-55.0)}, "MaskedArray"),
        ({"V_th": [-55.0] * 3}, "2 of them"),
        ({"V_th": float("nan")}, "finite"),
        ({"V_th": "-55"}, "V_th"),
        ({"V_reset": -50.0}, "reset below"),
        ({"tau_syn": 0.0}, "tau_syn"),
    ],
)
def test_impossible_constants(change, match):
    with pytest.raises(ConfigurationError, match=match):
        network(CONSTANTS | change)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"constants": [CONSTANTS]}, "a dict"),
        ({"constants": (CONSTANTS,) * 2}, "one for each of 1 layers"),
        ({"weights": np.ones((3, 2))}, "2 × 3"),
        ({"weights": None}, "weights"),
        ({"weights": 1.0 * UNIT.ms}, "comes to pA"),
        ({"rec_weights": np.ones((2, 3))}, "2 × 2"),
        ({"delays": 1.0 * UNIT.mV}, "comes to ms"),
        ({"delays": -1.0}, "delays"),
        ({"tau_syn": 5.0}, "beside physical"),
        ({"receptors": 2}, "beside physical"),
    ],
)
def test_impossible_arguments(given, match):
    with pytest.raises(ConfigurationError, match=match):
        network(**given)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"tau_syn": 5.0}, "those of iaf_psc_exp_ps"),
        ({"delta": 1.0}, "delta=0.0"),
        ({"V_min": -80.0}, "V_min"),
        ({"V_m": -60.0}, "y0"),
        ({"V_m": [-70.0, -70.0, -70.0], "E_L": [-70.0, -70.0]}, "y0"),
        ({"delta": "no"}, "delta"),
        ({"I_syn_ex": 1.0}, "y0"),
        ({"model": "iaf_psc_alpha"}, "iaf_psc_alpha"),
    ],
)
def test_what_nest_has_beyond_these_neurons(change, match):
    with pytest.raises(ConfigurationError, match=match):
        LIFNetwork.from_nest(NEST | change, 3, 2, weights=1.0)
    with pytest.raises(ConfigurationError, match="a dict"):
        LIFNetwork.from_nest([NEST], 3, 2, weights=1.0)


@pytest.mark.parametrize(
    ("options", "call", "match"),
    [
        ({"leak": False}, {}, "no leak"),
        ({"reset": "by"}, {}, "a reset by"),
        ({"receptors": 3}, {}, "3 receptors"),
        ({"receptors": 2}, {}, "both signs"),
        ({"tau_adapt": 100.0, "jump_adapt": -0.1}, {}, "spike-triggered"),
        ({"tau_th": 100.0, "jump_th": 0.1}, {}, "threshold that spikes raise"),
        ({"delays": None}, {}, "without delays"),
        ({"delays": 0.0}, {}, "one of 0"),
        ({"recurrent": True}, {}, "rec_delays"),
        ({"refractory": 0.0}, {}, "refractory"),
        ({"synapses": adjsnn.Synapses([0], [0])}, {}, "list of synapses"),
        ({"n_out": 2}, {}, "a filtered readout, w_out"),
        ({}, {"model": "iaf_psc_alpha"}, "one of"),
        ({}, {"C_m": 0.0}, "C_m"),
        ({}, {"E_L": float("inf")}, "E_L"),
    ],
)
def test_what_nest_has_not(options, call, match):
    net = LIFNetwork(3, 2, **{"delays": 1.0, "refractory": 1.0} | options)
    with pytest.raises(ConfigurationError, match=match):
        net.to_nest(**call)


def test_rounded_is_a_copy():
    net = network(CONSTANTS | {"t_ref": 2.04}, delays=1.26, learn=("delays",))
    other = net.rounded("nest", torch.tensor(0.1))
    assert (other.refractory[0].tolist(), other.delays[0].tolist()) == ([2.1, 2.1], [1.3] * 3)
    assert other.delays[0].requires_grad
    assert net.delays[0].tolist() == [1.26] * 3
    torch.testing.assert_close(other.w_in[0], net.w_in[0])
    single = LIFNetwork(1, 1, delays=0.25, refractory=2.1, dtype=torch.float32).rounded("nest", 0.1)  # past its rounding
    assert float(single.delays[0]) == pytest.approx(0.3, abs=1e-7)
    assert float(single.refractory[0]) == pytest.approx(2.1, abs=1e-6)
    assert LIFNetwork(1, 1).rounded("brian2", 0.1).delays[0] is None


@pytest.mark.parametrize(
    ("simulator", "h", "match"),
    [
        ("neuron", 0.1, "one of"),
        (None, 0.1, "one of"),
        ("nest", 0.0, "h="),
        ("nest", 0.0005, "microseconds"),
        ("brian2", True, "h="),
    ],
)
def test_simulators_that_are_not(simulator, h, match):
    with pytest.raises(ConfigurationError, match=match):
        network().rounded(simulator, h)


def test_nests_voltages_may_be_quantities():
    net = LIFNetwork.from_nest(NEST | {"E_L": -70.0 * pq.mV, "V_m": -0.07 * pq.V}, 3, 2, weights=1.0)
    assert net.v_th[0].tolist() == LIFNetwork.from_nest(NEST, 3, 2, weights=1.0).v_th[0].tolist()


@pytest.mark.parametrize("dt", [0.1, 0.3, 0.7, 0.025, 1.5, 1 / 3])
def test_labels_are_the_nearest_to_decimal_numbers(dt):
    step = Fraction(str(dt)) if dt != 1 / 3 else Fraction(1, 3)
    exact = torch.tensor([[float(k * step) for k in range(1, 3000)]], dtype=F64)
    x = SpikeTrains(torch.zeros_like(exact, dtype=torch.long), exact, 1, float(exact.max()))
    for rule in ("nest", "brian2"):
        assert torch.equal(x.to_grid(dt, rule).time, exact)


def test_nest_has_no_delay_below_half_a_step():
    with pytest.raises(ConfigurationError, match="half a step"):
        network(delays=0.04).rounded("nest", 0.1)
    with pytest.raises(ConfigurationError, match="no delays"):
        network(delays=None).rounded("nest", 0.1)
    with pytest.raises(ConfigurationError, match="no rec_delays"):
        network(rec_weights=1.0).rounded("nest", 0.1)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_labels_of_times_on_and_between_grid_points(dtype):
    steps = torch.arange(1, 2000, dtype=dtype)
    on, between = steps * 0.1, (steps - 0.5) * 0.1
    x = SpikeTrains(torch.zeros(2, len(steps), dtype=torch.long), torch.stack([on, between]), 1, 200.0)
    exact = torch.tensor([k / 10 for k in range(1, 2000)], dtype=dtype)
    nest, brian = x.to_grid(0.1, "nest"), x.to_grid(0.1, "brian2")
    assert torch.equal(nest.time, torch.stack([exact, exact]))
    assert torch.equal(brian.time[0], exact)
    assert torch.equal(brian.time[1, 1:], exact[:-1])
    assert torch.equal(nest.to_grid(0.1, "nest").time, nest.time)


def test_labels_keep_the_rest():
    time = torch.tensor([[0.0, 1.01, 9.98, float("inf")]], dtype=F64, requires_grad=True)
    x = SpikeTrains(torch.tensor([[1, 0, 1, -1]]), time, 2, 9.99, torch.tensor([[1, -1, 1, 0]]))
    nest = x.to_grid(0.25)
    assert nest.time.tolist() == [[0.0, 1.25, 10.0, float("inf")]]
    assert (nest.t_max, x.to_grid(0.25, "brian2").t_max) == (10.0, 9.99)
    assert torch.equal(nest.idx, x.idx)
    assert torch.equal(nest.sign, x.sign)
    assert not nest.time.requires_grad
    assert x.to_grid(0.3, "brian2").time[0, 1] == 0.9
    assert len(x[:0].to_grid(0.1)) == 0


@pytest.mark.parametrize(("dt", "rule", "match"), [(0.0, "nest", "dt"), (0.1, "pynn", "one of"), (0.1, None, "one of")])
def test_no_such_grid(dt, rule, match):
    x = SpikeTrains.from_list([[(1.0, 0)]], n_neurons=1, t_max=2.0)
    with pytest.raises(ConfigurationError, match=match):
        x.to_grid(dt, rule)


def test_weights_that_are_missing_are_those_of_the_call():
    with pytest.raises(TypeError, match=r"from_nest.* 'weights'"):
        LIFNetwork.from_nest({"C_m": 250.0}, 3)  # pyright: ignore[reportCallIssue]


def test_the_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "simulators.md").read_text()
    names = {}
    for code in re.findall(r"```{code-cell}\n(.*?)```", page, re.DOTALL):
        exec(compile(code, "simulators.md", "exec"), names)
    lif = names["lif"]
    assert lif.rounded("nest").refractory[0].tolist() == [2.0] * 4
    assert lif.rounded("brian2").refractory[0].tolist() == [1.9] * 4
    assert len(names["labels"]) == len(names["spikes"])

"""Units: numbers in ms, mV, pA and what follows from them; dimensions that do not fit; texts as Brian takes them."""

import re
from typing import Any

import pytest
import quantities as pq
import torch
from pint_units import REGISTRY as U

import adjsnn
from adjsnn import ConfigurationError
from adjsnn.equations.units import stated, unit_of, value_of

F64 = torch.float64
ADEX = """dv/dt = (g_l*(E_l - v) + g_l*D*exp((v - v_t)/D) - w + I)/C : volt
dw/dt = (a*(v - E_l) - w)/tau_w : amp
I : amp"""
GIVEN: dict[str, Any] = {
    "g_l": "10*nS", "E_l": -70 * U.mV, "D": 0.002 * U.volt, "v_t": -50 * pq.mV, "C": "0.2*nF", "a": 2e-3 * U.uS,
    "tau_w": 0.03 * pq.s, "v_r": "-58*mV", "b": "0.05*nA",
}  # fmt: skip
NUMBERS = {"g_l": 10.0, "E_l": -70.0, "D": 2.0, "v_t": -50.0, "C": 200.0, "a": 2.0, "tau_w": 30.0, "v_r": -58.0, "b": 50.0}


def adex(text: str = ADEX, **options: Any) -> adjsnn.Equations:
    given: dict[str, Any] = {"threshold": "v > 0*mV", "reset": "v = v_r; w += b", "parameters": GIVEN, "inputs": ("I",)}
    initial = {"v": "E_l", "w": 0}
    return adjsnn.Equations(text, **{**given, "initial": initial, "dtype": F64, **options})


def test_every_way_to_give_a_unit_comes_to_the_same_numbers():
    system = adex()
    assert system.numbers == pytest.approx(NUMBERS, rel=1e-15)
    assert {name: system.units[name] for name in ("v", "w", "I", "t", "g_l", "C")} == {
        "v": "mV", "w": "pA", "I": "pA", "t": "ms", "g_l": "nS", "C": "pF",
    }  # fmt: skip


def test_the_same_solution_as_in_plain_numbers():
    plain = re.sub(" : [a-z]+", "", ADEX.removesuffix("\nI : amp"))
    other = adjsnn.Equations(
        plain, threshold="v > -40", reset="v = v_r; w += b", parameters=adex().numbers, inputs=("I",), dtype=F64
    )
    system, u = adex(threshold="v > -40*mV"), torch.full((1, 1, 1), 900.0, dtype=F64)
    ours = adjsnn.solve(system, u, dt=10.0, method="dopri5")
    theirs = adjsnn.solve(other, u, dt=10.0, method="dopri5", y0=other.start(1, v=-70.0, w=0.0))
    assert ours.event_times.shape[1] >= 1
    torch.testing.assert_close(ours.y, theirs.y, rtol=1e-12, atol=1e-12)
    assert torch.equal(ours.event_index, theirs.event_index)


UNITS = {
    "ms": 1.0, "second": 1e3, "us": 1e-3, "mV": 1.0, "volt": 1e3, "nS": 1.0, "uS": 1e3, "siemens": 1e9, "pA": 1.0, "nA": 1e3,
    "amp": 1e12, "pF": 1.0, "nF": 1e3, "Mohm": 1e-3, "Gohm": 1.0, "Hz": 1e-3, "kHz": 1.0, "um": 1.0, "um2": 1.0, "cm2": 1e8,
    "mM": 1.0, "molar": 1e3, "fC": 1.0, "nS2": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), UNITS.items())
def test_the_system_is_coherent(name: str, value: float):
    """Beside pint, which knows what each unit is in SI."""
    assert float(value_of(name)) == pytest.approx(value, rel=1e-15)
    in_pint = name[:-1] + "**2" if name.endswith("2") else {"molar": "mole/liter", "mM": "mmole/liter"}.get(name, name)
    found = stated("x", U.Quantity(1.0, in_pint.replace("amp", "ampere")))
    unit = unit_of(name)
    assert found is not None
    assert unit is not None
    assert found[1] == unit[1]
    assert float(found[0]) == pytest.approx(value, rel=1e-12)


def test_products_need_no_factor():
    """nS mV = pA, pF mV / ms = pA, mV / pA = GΩ, pA ms = fC, amol / μm³ = mM."""
    for one, other in (("nS*mV", "pA"), ("pF*mV/ms", "pA"), ("mV/pA", "Gohm"), ("pA*ms", "fC"), ("1/ms", "kHz")):
        system = adjsnn.Equations(
            "dx/dt = 0*kHz : 1\nda/dt = x*b/ms : " + other, parameters={"b": f"1*{one.replace('1/', 'ms/ms/')}"}
        )
        assert system.numbers == {"b": 1.0}
        assert system.units["a"] == system.units["b"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "term": ({"text": ADEX.replace("- w + I", "- w + v")}, "'v', which is in mV, at line 1, column 55.*expected pA, as"),
    "right side": ({"parameters": {**GIVEN, "C": 200.0}}, "which is in pA, at line 1, column 8.*expected mV/ms, as dv/dt has"),
    "exponent": ({"text": ADEX.replace("/D)", ")")}, "'v - v_t', which is in mV,.*a number without a unit, as exp takes"),
    "threshold": ({"threshold": "v > 0.5"}, "'0.5', which is in 1,.*'v > 0.5'; expected mV, as 'v'"),
    "reset": ({"reset": "v = w"}, "'w', which is in pA,.*expected mV, as v has"),
    "factor": ({"reset": "v *= v_r"}, "'v_r', which is in mV,.*expected 1, as a factor"),
    "branches": (
        {"text": ADEX.replace("exp((v - v_t)/D)", "where(v > v_t, 1, v)")},
        "'v', which is in mV,.*expected 1, as '1'",
    ),
    "condition": ({"text": ADEX.replace("exp((v - v_t)/D)", "int(v > w)")}, "'w', which is in pA,.*expected mV, as 'v'"),
    "power": ({"text": ADEX.replace("exp((v - v_t)/D)", "v**a")}, "'a', which is in nS,.*as a power"),
    "root": ({"text": ADEX.replace("exp((v - v_t)/D)", "sqrt(v)")}, "expected pA"),
    "power that is no number": ({"text": ADEX.replace("exp((v - v_t)/D)", "v**(1 + 1)")}, "a power that is a number"),
    "initial": ({"initial": {"v": "b", "w": 0}}, "'b', which is in pA,.*expected mV, as v has"),
    "initial number": ({"initial": {"v": -70.0, "w": 0}}, "initial value -70.0 of 'v' without a unit; expected a value in mV"),
    "readout": ({"readout": "v + w"}, "'w', which is in pA,.*expected mV"),
    "line without": ({"text": ADEX.replace(" : volt", "")}, "'v' without a unit, where others have one, at line 1"),
    "input without": ({"text": ADEX.removesuffix("\nI : amp")}, "'I', which is in 1,.*expected pA"),
    "unknown": ({"text": ADEX.replace(": volt", ": foo")}, "the unit 'foo'"),
    "no unit": ({"text": ADEX.replace(": volt", ": exp(3)")}, "the unit 'exp"),
    "parameter": ({"text": ADEX + "\nb : volt"}, "b in pA at line 4.*expected mV, as the line says"),
    "light": ({"parameters": {**GIVEN, "D": 2 * U.candela}}, "D=2 candela; expected a quantity of length"),
    "complex": ({"parameters": {**GIVEN, "D": 2j * U.mV}}, "D=2j millivolt; expected real numbers"),
    "list": ({"parameters": {**GIVEN, "D": [2 * U.mV, 3.0]}}, "one unit, of each or of none"),
    "text": ({"parameters": {**GIVEN, "D": "2*mV +"}}, "'2\\*mV \\+', which is no expression"),
    "state in a parameter": ({"parameters": {**GIVEN, "D": "v"}}, "the unknown name 'v'.*expected a number, or units"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_dimensions_that_do_not_fit(options: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=re.compile(message, re.DOTALL)):
        adex(**options)


def test_values_at_the_start():
    system = adex()
    assert system.start(1).tolist() == [[-70.0, 0.0]]
    assert system.start(1, v=-0.065 * U.volt, w=3.0).tolist() == [[-65.0, 3.0]]
    with pytest.raises(ConfigurationError, match="v in nS; expected mV"):
        system.start(1, v=3 * U.nS)
    plain = adjsnn.Equations("dv/dt = -v")
    with pytest.raises(ConfigurationError, match="equations without units"):
        plain.start(1, v=3 * U.nS)


def test_texts_without_units_are_not_checked():
    assert adjsnn.Equations("dv/dt = -v + tau", parameters={"tau": 3.0}).units == {}
    with pytest.raises(ConfigurationError, match="without a unit"):
        adjsnn.Equations("dv/dt = -v/tau", parameters={"tau": 3.0 * U.ms})
    with pytest.raises(ConfigurationError, match="unknown name 'mV'"):
        adjsnn.Equations("dv/dt = 3*mV")


def test_arrays_and_learnt_parameters_have_units_too():
    system = adjsnn.Equations(
        "dv/dt = (W @ s - v)/tau : volt\nds/dt = -s/tau : 1",
        parameters={"W": torch.eye(2, dtype=F64).numpy() * 0.5 * U.mV, "tau": [0.01, 0.02] * pq.s},
        size={"v": 2, "s": 2},
        learn=("W", "tau"),
        dtype=F64,
    )
    assert system.W.tolist() == [[0.5, 0.0], [0.0, 0.5]]
    torch.testing.assert_close(system.tau.detach(), torch.tensor([10.0, 20.0], dtype=F64), rtol=1e-15, atol=0.0)
    assert system.units == {"t": "ms", "W": "mV", "tau": "ms", "v": "mV", "s": "1"}


# Texts in the habits of Brian2, with what is given for the names in them; the reason where they are refused.
BRIAN: dict[str, tuple[str, dict[str, Any], tuple[str, ...], str | None]] = {
    "leaky": ("dv/dt = (v_rest - v)/tau : volt", {"v_rest": "-60*mV", "tau": "20*ms"}, (), None),
    "constants in the text": ("dv/dt = (-(v + 49*mV) + ge)/(20*ms) : volt\ndge/dt = -ge/(5*ms) : volt", {}, (), None),
    "flags": ("dv/dt = (c - v)/tau : 1\nc : 1 (constant)\ntau : second (shared)", {"c": 2.0, "tau": "9*ms"}, (), None),
    "rates": (
        "dm/dt = alpha*(1 - m) - beta*m : 1\n"
        "alpha = 0.32/mV * 4*mV / exprel((13*mV - v)/(4*mV))/ms : Hz  # of sodium\n"
        "beta = 0.28*5/exprel((v - 40*mV)/(5*mV))/ms : Hz\n"
        "dv/dt = 0*mV/ms : volt", {}, (), None,
    ),
    "per area": (
        "dv/dt = (gl*(El - v) + I)/Cm : volt\nI : amp/metre**2",
        {"gl": "5e-5*siemens/cm**2", "El": "-60*mV", "Cm": "1*uF*cm**-2"}, ("I",), None,
    ),
    "a condition": ("dv/dt = int(v > 10*mV and t < 5*ms)*mV/ms - v/(10*ms) : volt", {}, (), None),
    "clip": ("dx/dt = clip(x, 0, 1)/ms : 1", {}, (), None),
    "power by a roof": ("dx/dt = -x^3/ms : 1", {}, (), None),
    "refractory": ("dv/dt = -v/(10*ms) : volt (unless refractory)", {}, (), "\\(unless refractory\\).*a guard of its own"),
    "noise": ("dv/dt = -v/tau + xi*tau**-0.5 : 1", {"tau": "10*ms"}, (), "'xi', noise"),
    "drawn": ("dv/dt = rand()/ms - v/ms : 1", {}, (), "rand\\(\\), random numbers"),
    "unit number": ("dv/dt = i*mV/ms : volt", {}, (), "'i', the number of a unit"),
    "group size": ("dv/dt = N*mV/ms : volt", {}, (), "'N', the number of units"),
    "timed array": ("dv/dt = (I(t) - v)/ms : 1", {}, (), "'I'.*inputs=\\('I',\\)"),
    "clock": ("dv/dt = (timestep(t, dt) - v)/ms : 1", {}, (), "timestep\\(\\), the grid of a clock"),
    "event-driven": ("dv/dt = -v/ms : 1\ndA/dt = -A/ms : 1 (event-driven)", {}, (), "the equation as it is"),
    "summed": ("dv/dt = g/ms : 1\ng : 1 (summed)", {}, (), "summed.*W @ x"),
    "linked": ("dv/dt = g/ms : 1\ng : 1 (linked)", {}, (), "linked.*an input"),
    "equality": ("dv/dt = int(v == 0)/ms : 1", {}, (), "a comparison by < or >"),
    "remainder": ("dv/dt = (t % (5*ms))/ms**2 : 1", {}, (), "'t % \\(5 \\* ms\\)'"),
    "jumps": ("dv/dt = floor(v)/ms : 1", {}, (), "floor\\(\\), a function that jumps"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "parameters", "inputs", "reason"), BRIAN.values(), ids=BRIAN)
def test_texts_as_brian_takes_them(text: str, parameters: dict[str, Any], inputs: tuple[str, ...], reason: str | None):
    if reason is None:
        system = adjsnn.Equations(text, parameters=parameters, inputs=inputs)
        y = torch.full((1, system.model.width), 0.5)
        assert bool(system.vector_field(torch.zeros(1, 1), y, torch.zeros(1, len(inputs))).isfinite().all())
        return
    with pytest.raises(ConfigurationError, match=re.compile(reason, re.DOTALL)):
        adjsnn.Equations(text, parameters=parameters, inputs=inputs)

"""GLIF neurons by the parameters that the Allen Institute publishes, as layers of (6.1), (6.2).

Teeter et al., Generalized leaky integrate-and-fire models classify multiple neuron types, Nat. Commun. 9:709 (2018). Their
state after a spike is that at the end of the time cut out for it; here it jumps at the spike and decays through the refractory
time, so a jump is larger by that decay. What follows the voltage in the threshold stays as it is during the cut in both.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adjsnn.checks import Count, count, number, positive
from adjsnn.errors import ConfigurationError

MILLI = 1e3  # of volts and seconds


def glif_options(level: Count, config: Mapping[str, Any], neurons: Count) -> tuple[dict[str, Any], float]:
    """Options of a LIFNetwork for neurons of a GLIF level, and the weight of an input of 1 pA, mV.

    Args:
        level: 1 to 5.
        config: a neuron_config.json of the Allen Cell Types Database, in SI units, as a dict; see `LIFNetwork.glif`.
        neurons: how many equal ones.

    Raises:
        ConfigurationError: another level; a parameter that is missing, or impossible.
    """
    level = count("level", level)
    if level > 5:
        raise ConfigurationError(f"level={level}", "1 to 5", "level=5")
    given = _Given(config, level)
    factor = _Given(given.config.get("coeffs", {}), level, "coeffs")

    def scaled(name: str) -> float:
        return number(name, given(name)) * factor.number(name)

    resistance = positive("R_input", given("R_input"), "a positive resistance in Ω", "R_input=1e8")
    resistance /= positive("coeffs.G", factor.number("G"), "a positive factor", "G=1.0")
    tau = resistance * positive("C", scaled("C"), "a positive capacitance in F", "C=1e-10") * MILLI
    rest = number("El", given.config.get("El", 0.0)) * MILLI
    cut = number("spike_cut_length", given.config.get("spike_cut_length", 0)) * positive("dt", given("dt")) * MILLI
    v_th = scaled("th_inf") * MILLI - rest
    options: dict[str, Any] = {
        "n_in": 1,
        "layers": (count("neurons", neurons),),
        "tau_mem": tau,
        "v_th": v_th,
        "v_reset": -rest,  # to zero, of voltages that are counted from El here
        "refractory": cut,
    }
    if level in (2, 4, 5):
        options |= _resets(given, v_th, rest, cut)
    if level == 5:
        options |= _follows(given, factor)
    if level > 2:
        options |= _afterspike(given, factor, resistance, cut)
    return options, resistance * 1e-12 * MILLI


class _Given:
    """Parameters that a level has."""

    def __init__(self, config: object, level: int, name: str = "config") -> None:
        if not isinstance(config, Mapping):
            raise ConfigurationError(f"{name} of type {type(config).__name__}", "a dict of parameters", f"{name}={{}}")
        self.config, self.level = config, level

    def __call__(self, *path: str) -> Any:
        """A parameter, or one inside of another.

        Raises:
            ConfigurationError: it is missing.
        """
        value: Any = self.config
        for name in path:
            if not isinstance(value, Mapping) or value.get(name) is None:
                raise ConfigurationError(
                    f"config without {'.'.join(path)}", f"{path[-1]}, which level {self.level} has", "a model of that level"
                )
            value = value[name]
        return value

    def number(self, name: str) -> float:
        """A factor, 1 unless given."""
        return number(name, self.config.get(name, 1.0), "a finite factor", f"{name}=1.0")

    def row(self, *path: str) -> list[float]:
        """Several numbers."""
        value, name = self(*path), ".".join(path)
        if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
            raise ConfigurationError(f"{name}={value!r}", "a list of numbers", f"{name}=[1.0, 1.0]")
        return [number(name, x) for x in value]


def _resets(given: _Given, v_th: float, rest: float, cut: float) -> dict[str, Any]:
    """The reset rule and the threshold that spikes raise, of levels 2, 4 and 5; voltages in mV."""
    reset, moves = ("voltage_reset_method", "params"), ("threshold_dynamics_method", "params")
    kept, added = number("a", given(*reset, "a")), number("b", given(*reset, "b")) * MILLI
    rate = positive("b_spike", given(*moves, "b_spike"), "a positive rate in 1/s", "b_spike=100.0")
    jump = number("a_spike", given(*moves, "a_spike")) * MILLI
    return {
        "reset": kept,
        "v_reset": kept * v_th + added + (kept - 1.0) * rest,
        "tau_th": [MILLI / rate],
        "jump_th": [jump * _before(cut, MILLI / rate)],
    }


def _follows(given: _Given, factor: _Given) -> dict[str, Any]:
    """What follows the voltage, θ̇_v = a_v (V - E_L) - b_v θ_v, of level 5; its two factors are a and b among the coeffs."""
    moves = ("threshold_dynamics_method", "params")
    gain = number("a_voltage", given(*moves, "a_voltage")) * factor.number("a")
    rate = number("b_voltage", given(*moves, "b_voltage")) * factor.number("b")
    rate = positive("b_voltage", rate, "a positive rate in 1/s", "b_voltage=10.0")
    return {"tau_follow": MILLI / rate, "gain_follow": gain / rate}


def _afterspike(given: _Given, factor: _Given, resistance: float, cut: float) -> dict[str, Any]:
    """Afterspike currents, of levels 3 to 5, as voltages in mV."""
    taus = [positive("asc_tau_array", x, "positive times in s", "[0.1]") * MILLI for x in given.row("asc_tau_array")]
    sizes = given.row("asc_amp_array")
    several = factor.row("asc_amp_array") if "asc_amp_array" in factor.config else [1.0] * len(taus)
    kept = given.row("AScurrent_reset_method", "params", "r")
    if not taus or not len(taus) == len(sizes) == len(several) == len(kept):
        raise ConfigurationError(
            f"{len(taus)} afterspike times, {len(sizes)} amplitudes and {len(kept)} r", "one of each", "lists of one length"
        )
    volts = [x * y * resistance * MILLI for x, y in zip(sizes, several, strict=True)]
    return {
        "tau_adapt": taus,
        "jump_adapt": [x * _before(cut, t) for x, t in zip(volts, taus, strict=True)],
        "scale_adapt": kept,
    }


def _before(cut: float, tau: float) -> float:
    """What a jump is larger at the spike than at the end of the cut.

    Raises:
        ConfigurationError: nothing would be left of a jump by then.
    """
    if cut > 30.0 * tau:
        raise ConfigurationError(
            f"a time constant of {tau:g} ms beside a cut of {cut:g} ms", "one that outlasts the spike", "a model without it"
        )
    return math.exp(cut / tau)

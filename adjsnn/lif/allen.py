"""GLIF neurons by the parameters that the Allen Institute publishes, as layers of (6.1), (6.2).

Teeter et al., Generalized leaky integrate-and-fire models classify multiple neuron types, Nat. Commun. 9:709 (2018). Their
state after a spike is that at the end of the time cut out for it; here it jumps at the spike and decays through the refractory
time, so a jump is larger by that decay.
"""

import math
from collections.abc import Mapping
from typing import Any

from adjsnn.checks import Count, count, number, positive
from adjsnn.errors import ConfigurationError

MILLI = 1e3  # of volts and seconds


def glif_options(level: Count, config: Mapping[str, Any], neurons: Count) -> tuple[dict[str, Any], float]:
    """Options of a LIFNetwork for neurons of a GLIF level, and the weight of an input of 1 pA, mV.

    Args:
        level: 1 to 4. Level 5, whose threshold follows the voltage, is not among these neurons.
        config: a neuron_config.json of the Allen Cell Types Database, in SI units, as a dict; see `LIFNetwork.glif`.
        neurons: how many equal ones.

    Raises:
        ConfigurationError: level 5 or none; a parameter that is missing, or impossible.
    """
    level = count("level", level)
    if level > 4:
        raise ConfigurationError(
            f"level={level}", "1 to 4; in 5 the threshold follows the voltage", "level=4, or a HybridSystem for level 5"
        )
    if not isinstance(config, Mapping):
        raise ConfigurationError(f"config of type {type(config).__name__}", "a dict of parameters", "json.load(open(path))")
    factor = config.get("coeffs", {})

    given = _Given(config, level)

    def scaled(name: str) -> float:
        return float(number(name, given(name))) * float(factor.get(name, 1.0))

    resistance = positive("R_input", given("R_input"), "a positive resistance in Ω", "R_input=1e8") / float(
        factor.get("G", 1.0)
    )
    tau = resistance * positive("C", scaled("C"), "a positive capacitance in F", "C=1e-10") * MILLI
    rest = float(number("El", config.get("El", 0.0)))
    cut = float(number("spike_cut_length", config.get("spike_cut_length", 0))) * positive("dt", given("dt")) * MILLI
    v_th = scaled("th_inf") * MILLI
    options: dict[str, Any] = {
        "n_in": 1,
        "layers": (count("neurons", neurons),),
        "tau_mem": tau,
        "v_th": v_th,
        "v_reset": 0.0,
        "refractory": cut,
    }
    if level in (2, 4):
        options |= _resets(given, factor, v_th, rest * MILLI, cut)
    if level in (3, 4):
        options |= _afterspike(given, config, factor, resistance, cut)
    return options, resistance * 1e-12 * MILLI


class _Given:
    """Parameters that a level has."""

    def __init__(self, config: Mapping[str, Any], level: int) -> None:
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


def _resets(given: _Given, factor: Mapping[str, Any], v_th: float, rest: float, cut: float) -> dict[str, Any]:
    """The reset rule and the threshold that spikes raise, of levels 2 and 4; voltages in mV."""
    reset, moves = ("voltage_reset_method", "params"), ("threshold_dynamics_method", "params")
    kept = number("a", given(*reset, "a")) * number("coeffs.a", factor.get("a", 1.0))
    added = number("b", given(*reset, "b")) * number("coeffs.b", factor.get("b", 1.0)) * MILLI
    rate = positive("b_spike", given(*moves, "b_spike"), "a positive rate in 1/s", "b_spike=100.0")
    jump = number("a_spike", given(*moves, "a_spike")) * MILLI
    return {
        "reset": kept,
        "v_reset": kept * v_th + added + (kept - 1.0) * rest,
        "tau_th": [MILLI / rate],
        "jump_th": [jump * math.exp(rate * cut / MILLI)],
    }


def _afterspike(
    given: _Given, config: Mapping[str, Any], factor: Mapping[str, Any], resistance: float, cut: float
) -> dict[str, Any]:
    """Afterspike currents, of levels 3 and 4, as voltages in mV."""
    taus = [positive("asc_tau_array", x, "positive times in s", "[0.1]") * MILLI for x in given("asc_tau_array")]
    sizes, several = given("asc_amp_array"), factor.get("asc_amp_array", [1.0] * len(taus))
    kept = config.get("AScurrent_reset_method", {}).get("params", {}).get("r", [1.0] * len(taus))
    if not len(taus) == len(sizes) == len(several) == len(kept):
        raise ConfigurationError(
            f"{len(taus)} afterspike times and {len(sizes)} amplitudes", "one of each", "asc_tau_array as asc_amp_array"
        )
    volts = [number("asc_amp_array", x) * number("coeffs", y) * resistance * MILLI for x, y in zip(sizes, several, strict=True)]
    return {
        "tau_adapt": taus,
        "jump_adapt": [x * math.exp(cut / t) for x, t in zip(volts, taus, strict=True)],
        "scale_adapt": [number("r", x) for x in kept],
    }

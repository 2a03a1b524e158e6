"""LIF networks by physical constants: voltages in mV above E_L, currents as the voltages that they come to.

    C_m V̇ = -(V - E_L)/R + I + I_e,   τ_s İ = -I,   a spike adds w to I

With v = V - E_L, τ_m = R C_m, i = R I and b = R I_e this is (2.1) and (2.2), where a weight is R w, in mV.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adjsnn.checks import values
from adjsnn.errors import ConfigurationError
from adjsnn.lif.units import current, plain

UNITS = {"tau_m": "ms", "C_m": "pF", "R": "Mohm", "g_L": "nS", "tau_syn": "ms", "tau_syn_in": "ms", "E_L": "mV", "V_th": "mV"}
UNITS |= {"V_reset": "mV", "t_ref": "ms", "I_e": "pA"}
MEMBRANES = ({"tau_m", "C_m"}, {"tau_m", "R"}, {"tau_m", "g_L"}, {"C_m", "R"}, {"C_m", "g_L"}, {"tau_m"})
OURS = ("tau_mem", "tau_syn", "v_th", "v_reset", "bias", "refractory", "receptors", "recurrent", "leak", "reset")


def physical_options(
    parameters: object, fan_in: tuple[int, ...], layers: tuple[int, ...], given: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Tensor], list[Tensor | None]]:
    """Options of a LIFNetwork, and its input and recurrent weights in mV.

    Args:
        parameters: a dict of the names in `UNITS`, or a tuple with one for each layer; see `LIFNetwork.from_physical`.
        fan_in: neurons that feed each layer.
        layers: neurons of each layer.
        given: weights, rec_weights, delays and rec_delays.
        options: others of LIFNetwork, among which what is made here is refused.

    Raises:
        ConfigurationError: names that are unknown, missing or too many; units or shapes that do not fit.
    """
    if clash := [name for name in (*OURS, "synapses", "rec_synapses") if name in options]:
        raise ConfigurationError(f"{clash} beside physical constants", "options that these leave open", "LIFNetwork(...)")
    several = [_Constants(x, n, k) for k, (x, n) in enumerate(zip(each("parameters", parameters, layers), layers, strict=True))]
    two = any(not torch.equal(x("tau_syn"), x.of_inhibition) for x in several)
    weights, recurrent = (each(name, given[name], layers) for name in ("weights", "rec_weights"))
    made: dict[str, Any] = {
        "recurrent": tuple(w is not None for w in recurrent),
        "receptors": 2 if two else None,
        "tau_mem": tuple(x.tau_m for x in several),
        "tau_syn": tuple(torch.stack([x("tau_syn"), x.of_inhibition]) if two else x("tau_syn") for x in several),
        "v_th": tuple(x("V_th") - x("E_L") for x in several),
        "v_reset": tuple((x("V_reset") if "V_reset" in x.own else x("E_L")) - x("E_L") for x in several),
        "refractory": tuple(x("t_ref") for x in several),
        "bias": tuple(x.voltage("I_e", x.own.get("I_e", 0.0), n) for x, n in zip(several, layers, strict=True)),
    }
    for name in ("delays", "rec_delays"):
        d = given[name]
        made[name] = tuple(plain(name, x, "ms") for x in d) if isinstance(d, tuple) else plain(name, d, "ms")

    def signed(w: Tensor) -> Tensor:
        return torch.stack([w.clamp(min=0.0), w.clamp(max=0.0)]) if two else w

    w_in = [signed(x.voltage("weights", w, x.n, m)) for x, w, m in zip(several, weights, fan_in, strict=True)]
    w_rec = [
        None if w is None else signed(x.voltage("rec_weights", w, x.n, x.n)) for x, w in zip(several, recurrent, strict=True)
    ]
    return made, w_in, w_rec


def each(name: str, value: object, layers: tuple[int, ...]) -> tuple[Any, ...]:
    """One entry for each layer, of one for all or a tuple."""
    entries = value if isinstance(value, tuple) else (value,) * len(layers)
    if len(entries) != len(layers):
        raise ConfigurationError(
            f"{name} with {len(entries)} entries", f"one for each of {len(layers)} layers", f"a tuple of {name}"
        )
    return entries


class _Constants:
    """Those of layer k of n neurons, each as (n,): ms, mV and GΩ."""

    def __init__(self, own: object, n: int, k: int) -> None:
        if not isinstance(own, Mapping):
            raise ConfigurationError(
                f"parameters of layer {k} of type {type(own).__name__}", "a dict for all layers or each", '{"tau_m": 20.0, ...}'
            )
        self.own, self.n, self.k = {name: x for name, x in own.items() if x is not None}, n, k
        if unknown := [name for name in self.own if name not in UNITS]:
            raise ConfigurationError(f"parameters {unknown} of layer {k}", f"names among {list(UNITS)}", "one of these")
        if missing := [name for name in ("tau_syn", "V_th") if name not in self.own]:
            raise ConfigurationError(f"layer {k} without {missing}", "tau_syn in ms and V_th in mV", '{"tau_syn": 5.0, ...}')
        there = {name for name in ("tau_m", "C_m", "R", "g_L") if name in self.own}
        if there not in MEMBRANES:
            raise ConfigurationError(
                f"{sorted(there)} of layer {k}", "tau_m and one of C_m, R, g_L, or C_m and one of R, g_L", "tau_m and C_m"
            )
        self.resistance = None if there == {"tau_m"} else self._resistance(there)
        self.tau_m = self.resistance * self("C_m") if self.resistance is not None and "tau_m" not in there else self("tau_m")
        self.of_inhibition = self("tau_syn_in" if "tau_syn_in" in self.own else "tau_syn")

    def __call__(self, name: str) -> Tensor:
        return self._full(name, plain(name, self.own.get(name, 0.0), UNITS[name]), self.n)

    def voltage(self, name: str, value: Any, *shape: int) -> Tensor:
        """Currents by the voltages that they come to; the first dimension is that of the neurons."""
        numbers, volts = current(name, value)
        x = self._full(name, numbers, *shape)
        if volts or not bool(x.any()):
            return x
        if self.resistance is None:
            raise ConfigurationError(
                f"{name} in pA and tau_m alone in layer {self.k}",
                "C_m, R or g_L beside it, or quantities in mV",
                '"C_m": 250.0',
            )
        return x * self.resistance.view(-1, *(1,) * (len(shape) - 1))

    def _resistance(self, there: set[str]) -> Tensor:
        for name in there:
            if not bool((self(name) > 0.0).all()):
                seen = f"{name} of layer {self.k} from {float(self(name).min()):g} {UNITS[name]}"
                raise ConfigurationError(seen, "positive numbers", "the sign and unit of it")
        if "R" in there:
            return self("R") * 1e-3
        return 1.0 / self("g_L") if "g_L" in there else self("tau_m") / self("C_m")

    def _full(self, name: str, value: Any, *shape: int) -> Tensor:
        expected = f"a number or {' × '.join(map(str, shape))} of them"
        x = values(f"{name} of layer {self.k}", value, torch.float64, expected, f"{name} of shape {shape}")
        if x.shape not in ((), shape):
            raise ConfigurationError(
                f"{name} of shape {tuple(x.shape)} for layer {self.k}", expected, f"{name} of shape {shape}"
            )
        if not bool(x.isfinite().all()):
            raise ConfigurationError(
                f"{name} of layer {self.k} is not finite", "finite numbers", "checking where it comes from"
            )
        return x.expand(shape).clone()

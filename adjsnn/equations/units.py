"""Units in equations: names of units, dimensions, and numbers in one coherent system.

The system is that of ms, mV and pA, in which conductances are in nS (nS · mV = pA), capacities in pF (pF · mV/ms = pA), and
resistances in GΩ; with lengths in μm and amounts in amol concentrations are in mM (amol/μm³).
"""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import sympy

from adjsnn.checks import in_si
from adjsnn.errors import ConfigurationError

BASES = ("length", "mass", "time", "current", "temperature", "substance")
POWERS = (-6, -12, -3, -12, 0, -18)  # of ten, of these in SI: mass by which V · A · s³ is mV · pA · ms³
SI: dict[str, str] = dict(zip(("m", "kg", "s", "A", "K", "mol"), BASES, strict=True))
PREFIXES = {"": 0, "f": -15, "p": -12, "n": -9, "u": -6, "m": -3, "c": -2, "k": 3, "M": 6, "G": 9}
# exponents of metre, kilogram, second, ampere, kelvin and mole
VOLT, SIEMENS, FARAD, OHM = (2, 1, -3, -1, 0, 0), (-2, -1, 3, 2, 0, 0), (-2, -1, 4, 2, 0, 0), (2, 1, -3, -2, 0, 0)
LONG = {
    "metre": (1, 0, 0, 0, 0, 0), "meter": (1, 0, 0, 0, 0, 0), "second": (0, 0, 1, 0, 0, 0),
    "amp": (0, 0, 0, 1, 0, 0), "ampere": (0, 0, 0, 1, 0, 0), "volt": VOLT, "siemens": SIEMENS, "farad": FARAD, "ohm": OHM,
    "hertz": (0, 0, -1, 0, 0, 0), "coulomb": (0, 0, 1, 1, 0, 0), "kelvin": (0, 0, 0, 0, 1, 0), "mole": (0, 0, 0, 0, 0, 1),
    "mol": (0, 0, 0, 0, 0, 1), "molar": (-3, 0, 0, 0, 0, 1), "joule": (2, 1, -2, 0, 0, 0), "watt": (2, 1, -3, 0, 0, 0),
}  # fmt: skip
SHORT = {
    "m": "metre", "s": "second", "A": "amp", "V": "volt", "S": "siemens", "F": "farad", "Hz": "hertz", "M": "molar",
    "C": "coulomb", "K": "kelvin",
}  # fmt: skip
UNIT = re.compile(rf"(?P<prefix>[{''.join(x for x in PREFIXES if x)}]?)(?P<base>{'|'.join((*LONG, *SHORT))})(?P<power>[234]?)$")


class Dimension(NamedTuple):
    """Exponents of length, mass, time, current, temperature and substance."""

    exponents: tuple[Fraction, ...]

    def times(self, other: "Dimension", power: int = 1) -> "Dimension":
        return Dimension(tuple(x + power * y for x, y in zip(self.exponents, other.exponents, strict=True)))

    def to(self, power: Fraction) -> "Dimension":
        return Dimension(tuple(x * power for x in self.exponents))

    def size(self) -> Fraction:
        """The power of ten of the coherent unit in SI."""
        return sum((x * power for x, power in zip(self.exponents, POWERS, strict=True)), Fraction(0))

    def __str__(self) -> str:
        if known := NAMED.get(self):
            return known
        length, mass, time, current, *others = self.exponents
        volts = mass  # of V · A · s³ is a mass times a squared length
        exponents = (volts, current + volts, time + 3 * volts, length - 2 * volts, *others)
        shown = zip(("mV", "pA", "ms", "um", "kelvin", "amol"), exponents, strict=True)
        return "*".join(symbol + ("" if x == 1 else f"**{x}" if x > 0 else f"**({x})") for symbol, x in shown if x) or "1"


def _dimension(*exponents: int) -> Dimension:
    return Dimension(tuple(map(Fraction, exponents)))


NONE = _dimension(0, 0, 0, 0, 0, 0)
TIME = _dimension(*LONG["second"])
# What a dimension is called in messages: the coherent unit where it has a name.
NAMED = {_dimension(*x): name for x, name in ((VOLT, "mV"), (SIEMENS, "nS"), (FARAD, "pF"), (OHM, "Gohm"))}
NAMED |= {_dimension(0, 0, -1, 0, 0, 0): "kHz", _dimension(2, 1, -4, -1, 0, 0): "mV/ms", _dimension(-3, 0, 0, 0, 0, 1): "mM"}


@cache
def unit_of(name: str) -> tuple[int, Dimension] | None:
    """The power of ten of a unit in SI, and its dimension; None for what is none. Brian's names: ms, mV, nS, volt, um2, …

    Those of one letter are left to the names of the equations.
    """
    found = UNIT.match(name)
    if found is None or (not found["prefix"] and found["base"] in SHORT and found["base"] != "Hz"):
        return None
    base = _dimension(*LONG[SHORT.get(found["base"], found["base"])])
    power = int(found["power"] or 1)
    ten = PREFIXES[found["prefix"]] + (3 if found["base"] in ("molar", "M") else 0)
    return ten * power, base.to(Fraction(power))


def value_of(name: str) -> Any:
    """A unit as a number of the coherent system; None for what is none."""
    unit = unit_of(name)
    if unit is None:
        return None
    power = Fraction(unit[0]) - unit[1].size()
    assert power.denominator == 1
    return sympy.Integer(10) ** int(power)


def stated(name: str, value: Any) -> tuple[Any, Dimension] | None:
    """Numbers of the coherent system and the dimension of a quantity of pint, quantities or Brian2; None for plain numbers.

    Raises:
        ConfigurationError: a quantity of something else, such as light.
    """
    if isinstance(value, list | tuple) and value:
        parts = [stated(f"{name}[{k}]", x) for k, x in enumerate(value)]
        real = [x for x in parts if x is not None]
        if not real:
            return None
        if len(real) < len(parts) or len({x[1] for x in real}) > 1:
            raise ConfigurationError(f"{name}={value}", "one unit, of each or of none", "one array with a unit")
        return [x[0] for x in real], real[0][1]
    quantity: Any = value
    if in_si(value):  # Brian2
        exponents = {x: quantity.dim.get_dimension(x) for x in (*BASES, "luminosity")}
        return _coherent(name, value, exponents, lambda: np.asarray(value))
    if not hasattr(value, "magnitude"):
        return None
    if hasattr(value, "rescale"):  # quantities
        plain = quantity.simplified
        exponents = {SI.get(str(unit.symbol), str(unit)): power for unit, power in plain.dimensionality.items()}
        return _coherent(name, value, exponents, lambda: plain.magnitude)
    exponents = {unit.strip("[]"): power for unit, power in quantity.dimensionality.items()}
    return _coherent(name, value, exponents, lambda: quantity.to(_si(exponents)).magnitude)


def _si(exponents: Mapping[str, Any]) -> str:
    """The unit of SI of exponents, as pint reads it."""
    names = dict(zip(BASES, ("meter", "kilogram", "second", "ampere", "kelvin", "mole"), strict=True))
    return " * ".join(f"{names[x]}**({power})" for x, power in exponents.items() if x in names) or "dimensionless"


def _coherent(name: str, value: Any, exponents: Mapping[str, Any], numbers: Callable[[], Any]) -> tuple[Any, Dimension]:
    if any(power and base not in BASES for base, power in exponents.items()):
        raise ConfigurationError(f"{name}={value}", f"a quantity of {', '.join(BASES)}", "a plain number")
    dimension = Dimension(tuple(Fraction(exponents.get(x, 0)).limit_denominator(100) for x in BASES))
    power = dimension.size()
    return np.asarray(numbers(), dtype=np.float64) * 10.0 ** float(-power), dimension

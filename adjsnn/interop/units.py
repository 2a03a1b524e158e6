"""Units of time, by name or as objects of quantities and pint; and times from them to ms and back.

A time t is up · t / down ms, where one of the two is 1: one correctly rounded operation in float64.
"""

from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from torch import Tensor

from adjsnn.checks import has_unit, in_si, positive
from adjsnn.errors import ConfigurationError, MissingPackageError
from adjsnn.lif.units import plain

UnitName: TypeAlias = Any  # a name, or an object of quantities or pint


class Unit(NamedTuple):
    """A unit of time: up / down ms."""

    name: str
    up: float
    down: float = 1.0


KNOWN = {
    "min": Unit("min", 60_000.0),
    "s": Unit("s", 1000.0),
    "ms": Unit("ms", 1.0),
    "us": Unit("us", 1.0, 1000.0),
    "ns": Unit("ns", 1.0, 1e6),
}
SAME = {
    "minute": "min", "second": "s", "sec": "s", "millisecond": "ms", "msec": "ms",
    "microsecond": "us", "usec": "us", "µs": "us", "μs": "us", "nanosecond": "ns", "nsec": "ns",
}  # fmt: skip
EXPECTED = "a unit of time: 'min', 's', 'ms', 'us' or 'ns', or one of quantities or pint"


def unit_of(unit: UnitName) -> Unit:
    """The unit of a name or of an object with units.

    Raises:
        ConfigurationError: no unit of time.
    """
    name = unit if isinstance(unit, str) else _name(unit)
    if name is not None and np.all(getattr(unit, "magnitude", 1.0) == 1.0):  # 0.1 ms is no ms
        known = name if name in KNOWN else SAME.get(name, SAME.get(name.removesuffix("s"), ""))
        if known:
            return KNOWN[known]
    if isinstance(unit, str) or name is None:
        raise ConfigurationError(f"unit={unit!r}", EXPECTED, "unit='ms'")
    try:  # a unit of the user's own, such as a step of 0.1 ms: the library that made it says how long it is
        in_ms = (1.0 * unit).rescale("ms") if hasattr(unit, "dimensionality") and hasattr(unit, "rescale") else None
        in_ms = (1.0 * unit).to("ms") if in_ms is None else in_ms
        length = float(in_ms.magnitude)
    except (TypeError, ValueError, AttributeError) as error:  # pint's errors of dimension are TypeErrors
        raise ConfigurationError(f"unit={unit!r}: {error}", EXPECTED, "unit='ms'") from error
    return Unit(name, positive("unit", length, EXPECTED, "unit='ms'"))


def _name(unit: object) -> str | None:
    """What an object of quantities or pint calls its unit; None for what has none."""
    dimensionality = getattr(unit, "dimensionality", None)
    if hasattr(dimensionality, "string"):  # quantities: UnitTime is a Quantity
        return str(dimensionality.string)  # type: ignore[union-attr]
    if dimensionality is not None:  # pint: a Unit, or a Quantity of them
        return str(getattr(unit, "units", unit))
    return None


def bare(name: str, values: object, unit: UnitName | None) -> tuple[object, Unit]:
    """Times without their unit, and the unit: that which they carry, or the one that is named.

    Raises:
        ConfigurationError: no unit at all, no unit of time, or two that differ.
    """
    carried = None
    if isinstance(values, list | tuple) and any(has_unit(x) for x in values):
        parts = [bare(f"{name}[{k}]", x, unit) for k, x in enumerate(values)]
        if len(several := {own for _, own in parts}) > 1 or not all(has_unit(x) for x in values):
            seen = sorted(own.name for own in several)
            raise ConfigurationError(f"{name} in {seen}, and plain numbers", "one unit, of each or of none", "one array")
        return [x for x, _ in parts], parts[0][1]
    if in_si(values):  # whatever Brian2's arrays print
        carried, values = KNOWN["s"], plain(name, values, "s")
    elif _name(values) is not None:
        carried, values = unit_of(values.units), values.magnitude  # type: ignore[attr-defined]
    given = None if unit is None else unit_of(unit)
    if carried is None and given is None:
        raise ConfigurationError(f"{name} without a unit", EXPECTED, "unit='ms'")
    if carried is not None and given is not None and carried != given:
        raise ConfigurationError(f"{name} in {carried.name} with unit={given.name!r}", "one unit", "leaving unit out")
    return values, carried or given  # type: ignore[return-value]


def in_ms(time: Tensor, unit: Unit) -> Tensor:
    """Times, float64, in ms; gradients pass."""
    return time * unit.up if unit.down == 1.0 else time / unit.down


def from_ms(time: np.ndarray, unit: Unit) -> np.ndarray:
    """Times in ms, float64, in a unit: the nearest double, which `in_ms` brings back to the bit where it does any.

    It does some 98 of 100 in s and in us. Doubles from 2^k to 1.024 · 2^k s are 1.95 spacings of doubles in ms apart, most of
    those in us 1.024, so that some times in ms are stepped over. These come back within one rounding.
    """
    return time / unit.up if unit.down == 1.0 else time * unit.down


def package(name: str, extra: str) -> ModuleType:
    """A module of an optional package.

    Raises:
        MissingPackageError: it is not installed; names the extra.
    """
    from importlib import import_module  # noqa: PLC0415

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name.partition(".")[0]:
            raise
        raise MissingPackageError(name, extra) from error

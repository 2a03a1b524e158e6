"""Numbers in a stated unit, of plain numbers or of quantities of pint, quantities (neo, elephant) or Brian2."""

from typing import Any

import numpy as np
from torch import Tensor

from adjsnn.checks import in_si
from adjsnn.errors import ConfigurationError

# Exponents of metre, kilogram, second and ampere, and the size in SI: for Brian2, whose quantities are numbers in SI.
DIMENSIONS = {"s": (0, 0, 1, 0, 1.0), "ms": (0, 0, 1, 0, 1e3), "mV": (2, 1, -3, -1, 1e3), "pF": (-2, -1, 4, 2, 1e12)}
DIMENSIONS |= {"Mohm": (2, 1, -3, -2, 1e-6), "nS": (-2, -1, 3, 2, 1e9), "pA": (0, 0, 0, 1, 1e12)}
BASES = ("length", "mass", "time", "current")


def plain(name: str, value: Any, unit: str) -> Any:
    """Numbers in the unit; those without one are taken as they are.

    Raises:
        ConfigurationError: a quantity of another dimension, or of a package that is not known here.
    """
    remedy = f"{name} in {unit}"
    if isinstance(value, list | tuple):
        return [plain(name, x, unit) for x in value]
    if hasattr(value, "magnitude"):  # pint, quantities
        convert = value.rescale if hasattr(value, "rescale") else value.to
        try:
            return convert(unit).magnitude
        except Exception as error:  # each package has its own
            raise ConfigurationError(f"{name}={value}", f"a quantity that comes to {unit}", remedy) from error
    if in_si(value):
        dimension = value.dim.get_dimension
        *exponents, size = DIMENSIONS[unit]
        if [dimension(x) for x in BASES] != exponents:
            raise ConfigurationError(f"{name}={value}", f"a quantity that comes to {unit}", remedy)
        return np.asarray(value) * size
    if isinstance(value, np.ndarray) and type(value) is not np.ndarray:
        raise ConfigurationError(f"{name} of type {type(value).__name__}", f"numbers in {unit}, or quantities of pint", remedy)
    return value


def current(name: str, value: Any) -> tuple[Any, bool]:
    """Numbers in pA, or in mV where these are quantities of a voltage, and whether they are."""
    first = value
    while isinstance(first, list | tuple) and first:
        first = first[0]
    if isinstance(first, int | float | np.number | Tensor) or type(first) is np.ndarray:
        return plain(name, value, "pA"), False
    try:
        return plain(name, value, "mV"), True
    except ConfigurationError:
        return plain(name, value, "pA"), False

"""Numbers, counts and times as callers give them, made plain at the door: Python's, numpy's, arrays and tensors of none or one
dimension.

Every function takes the argument's name for its message, returns Python numbers (a float64 tensor for times), and raises
ConfigurationError for what is no such number: a bool where a number is asked for, NaN, text, more than one entry, or a tensor
that requires a gradient, which none of these arguments passes on.
"""

import math
from collections.abc import Callable, Sequence
from functools import wraps
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeAlias

import numpy as np
import torch
from torch import Tensor

from adjsnn.errors import ConfigurationError

Number: TypeAlias = int | float | np.number | np.ndarray | Tensor
Count: TypeAlias = int | np.integer | np.ndarray | Tensor
Times: TypeAlias = Sequence[float] | np.ndarray | Tensor

P = ParamSpec("P")
EPS = float(np.finfo(np.float64).eps)


def number(name: str, value: object, expected: str = "a finite number", remedy: str | None = None) -> float:
    """A finite number."""
    plain = _plain(name, value)
    if plain is None or not math.isfinite(plain):
        raise ConfigurationError(f"{name}={value!r}", expected, remedy or f"{name}=0.0")
    return plain


def positive(name: str, value: object, expected: str = "a positive time in ms", remedy: str | None = None) -> float:
    """A positive finite number."""
    plain = _plain(name, value)
    if plain is None or not 0.0 < plain < math.inf:
        raise ConfigurationError(f"{name}={value!r}", expected, remedy or f"{name}=1.0")
    return plain


def duration(name: str, value: object, expected: str = "a finite time ≥ 0 in ms", remedy: str | None = None) -> float:
    """A finite number ≥ 0."""
    plain = _plain(name, value)
    if plain is None or not 0.0 <= plain < math.inf:
        raise ConfigurationError(f"{name}={value!r}", expected, remedy or f"{name}=60.0")
    return plain


def count(name: str, value: object, least: int = 1, expected: str | None = None, remedy: str | None = None) -> int:
    """A whole number of an integer type, at least `least`."""
    item = _item(name, value)
    if isinstance(item, bool) or not isinstance(item, Integral) or item < least:
        raise ConfigurationError(f"{name}={value!r}", expected or f"an integer ≥ {least}", remedy or f"{name}={max(least, 1)}")
    return int(item)


def index(name: str, value: object, n: int) -> int:
    """The place 0 … n-1 of one of n things, counted from the front, or by a negative number from the back."""
    expected, remedy = f"an integer from {-n} to {n - 1}, one of {n}", f"{name}=-1, the last"
    place = count(name, value, -n, expected, remedy)
    if place >= n:
        raise ConfigurationError(f"{name}={value!r}", expected, remedy)
    return place % n


def indices(name: str, values: Any, n: int) -> list[int]:
    """Places of several of n things, as `index` has them."""
    if np.ndim(values) != 1:
        raise ConfigurationError(f"{name}={values!r}", f"a row of integers from {-n} to {n - 1}", f"{name}=[0]")
    return [index(name, k, n) for k in values]


def is_flag(value: object) -> bool:
    """Whether a value is a bool, of Python, numpy or torch."""
    return isinstance(_item("", value), bool)


def flag(name: str, value: object) -> bool:
    """A bool."""
    item = _item(name, value)
    if not isinstance(item, bool):
        raise ConfigurationError(f"{name}={value!r}", "True or False", f"{name}=False")
    return item


def times(name: str, values: object, expected: str = "finite times in ms, (T,)", remedy: str | None = None) -> Tensor:
    """A row of finite numbers, (T,), float64, on the device of a tensor that is given; a copy."""
    remedy = remedy or f"{name}=torch.linspace(0.0, 60.0, 61)"
    row = tensor(name, values, expected, remedy)
    if row.requires_grad:
        raise ConfigurationError(f"{name} that requires a gradient", "times as constants", f"{name}.detach()")
    if row.dtype == torch.bool or row.is_complex() or row.dim() != 1:
        raise ConfigurationError(f"{name} of shape {tuple(row.shape)}, {row.dtype}", expected, remedy)
    row = row.to(torch.float64, copy=True)
    wrong = ~row.isfinite()
    if bool(wrong.any()):
        n = int(wrong.nonzero()[0])
        raise ConfigurationError(f"{name}[{n}] = {float(row[n]):g}", "finite times in ms", remedy)
    return row


def values(name: str, given: object, dtype: torch.dtype, expected: str, remedy: str) -> Tensor:
    """Numbers of any shape that a parameter starts from, in its dtype, on the CPU: a copy, without gradient."""
    numbers = tensor(name, given, expected, remedy)
    if numbers.dtype == torch.bool or numbers.is_complex():
        raise ConfigurationError(f"{name} of {numbers.dtype}", expected, remedy)
    return numbers.detach().to("cpu", dtype, copy=True)


def tensor(name: str, values: object, expected: str, remedy: str) -> Tensor:
    """Values as a tensor of their own dtype: one that is given as it is, anything else copied to the CPU."""
    if isinstance(values, Tensor):
        if values.is_meta or values.layout != torch.strided:
            raise ConfigurationError(f"{name} of layout {values.layout} on {values.device}", expected, remedy)
        return values
    unitless(name, values)
    try:
        array = np.array(values)
        if array.dtype.kind in "ui" and array.dtype.itemsize > 1:
            array = array.astype(np.int64)
        return torch.from_numpy(array if array.dtype.isnative else array.byteswap().view(array.dtype.newbyteorder()))
    except (TypeError, ValueError, RuntimeError) as error:  # ragged, text, objects, tensors that require a gradient
        raise ConfigurationError(f"{name} of type {type(values).__name__}: {error}", expected, remedy) from error


def as_array(x: Tensor) -> np.ndarray:
    """A copy or view on the CPU, contiguous, of float64 or of integers."""
    array = x.numpy(force=True)
    return np.asarray(array, np.float64 if array.dtype.kind == "f" else None, order="C")


def all_finite(*tensors: Tensor) -> bool:
    """Whether every entry of dense tensors is finite. On the CPU by numpy: its calls are short, and torch's idle threads would
    spin on the cores that the loops need."""
    if not all(x.is_cpu for x in tensors):
        if math.isfinite(sum(x.detach().sum() for x in tensors)):  # waits for the device once
            return True
        return all(bool(x.detach().isfinite().all()) for x in tensors)
    return finite_arrays([x.numpy(force=True) for x in tensors])


def finite_arrays(arrays: Sequence[np.ndarray]) -> bool:
    """The same of arrays."""
    # Sums are the faster look: finite only if every entry is. Of finite entries they overflow at worst.
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isfinite(sum(np.add.reduce(x, None) for x in arrays)):
            return True
    return all(bool(np.isfinite(x).all()) for x in arrays)


def finite(name: str, x: Tensor, expected: str, remedy: str) -> None:
    """Refuse a tensor with an entry that is not finite; names the first."""
    if all_finite(x):
        return
    place = (~x.detach().isfinite()).nonzero()[0].tolist()
    first = f"{name}{place or ''} = {float(x.detach()[tuple(place)]):g}"
    raise ConfigurationError(f"{name} has entries that are not finite, the first {first}", expected, remedy)


def matches(name: str, x: object, shape: tuple[int, ...], like: Tensor, remedy: str) -> None:
    """Refuse what is no tensor of that shape and of the dtype and device of `like`."""
    if not isinstance(x, Tensor) or x.shape != shape or x.dtype != like.dtype or x.device != like.device:
        seen = f"{tuple(x.shape)}, {x.dtype}, {x.device}" if isinstance(x, Tensor) else type(x).__name__
        raise ConfigurationError(f"{name} is {seen}", f"a tensor {shape}, {like.dtype}, {like.device}", remedy)


def same_kind(name: str, x: Tensor, like: Tensor, remedy: str) -> None:
    """Refuse a tensor of another dtype or on another device than the network's."""
    if x.dtype != like.dtype or x.device != like.device:
        raise ConfigurationError(
            f"{name} of {x.dtype} on {x.device} for a network of {like.dtype} on {like.device}",
            "the same dtype and device",
            remedy,
        )


def real(name: str, given: object, expected: str, remedy: str) -> Tensor:
    """Real numbers of any shape as a tensor, see `tensor`; gradients pass."""
    numbers = tensor(name, given, expected, remedy)
    if numbers.is_complex() or numbers.dtype == torch.bool:
        raise ConfigurationError(f"{name} of {numbers.dtype}", expected, remedy)
    return numbers


def kind(name: str, value: object, *kinds: type) -> None:
    """Refuse what is of none of these classes."""
    if not isinstance(value, kinds):
        known = " or ".join(k.__name__ for k in kinds)
        raise ConfigurationError(f"{name} of type {type(value).__name__}", known, f"another {name}")


def float_dtype(dtype: object) -> None:
    """Refuse what is no floating-point dtype; None is one."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ConfigurationError(f"dtype={dtype!r}", "a floating-point dtype of torch", "dtype=torch.float64")


def at_end(times: Tensor, end: float, eps: float) -> Tensor:
    """Times (T,), float64, with those that are `end` but for a rounding set to it.

    `eps` is the spacing of the dtype in which they were given, see `rounding`. A time is the end where it is beyond by no more
    than `eps` of it, and in a dtype coarser than float64, which holds no number in between, where it is as little before.
    """
    before = end * (1.0 - eps) if eps > EPS else end
    return torch.where((times >= before) & (times <= end * (1.0 + eps)), end, times)


def bins(times: Tensor, dt: float, eps: float) -> Tensor:
    """Number n of the bin n dt ≤ t < (n+1) dt that holds each time t ≥ 0, (...), int64, past the roundings of t and dt.

    A grid in floating point is off its edges by the roundings of t, of dt and on the way from one to the other, three of its
    dtype where linspace made it. So a t that falls short of an edge by no more than (1.5 `eps` + 2 ε) t lies on it, with `eps`
    the spacing of the dtype that t or dt was given in, which is two roundings, and ε that of float64, for the edge itself.
    No other time moves; where half a bin is less than that, t goes to the nearest edge.
    """
    t = times.detach().double()
    n = (t / dt).floor()
    short = (n + 1.0) * dt - t
    return (n + (short <= (t * (1.5 * eps + 2.0 * EPS)).clamp(max=0.5 * dt))).long()


def steps_in(length: float, dt: float, eps: float = EPS) -> tuple[int, bool]:
    """Number of whole steps of dt in a length, and whether they fill it, both past its roundings as `bins` says."""
    n = int(bins(torch.tensor(length, dtype=torch.float64), dt, eps))
    return n, length - n * dt <= length * (1.5 * eps + 2.0 * EPS)


def rounding(*values: object) -> float:
    """The coarsest relative spacing of the dtypes in which numbers or times were given: ε, float64's for Python's numbers."""
    coarsest = EPS
    for value in values:
        if isinstance(value, Tensor) and value.is_floating_point():
            coarsest = max(coarsest, torch.finfo(value.dtype).eps)
        elif isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind == "f":
            coarsest = max(coarsest, float(np.finfo(str(value.dtype)).eps))
        elif isinstance(value, Sequence) and len(value) and not isinstance(value, str):
            coarsest = max(coarsest, rounding(value[-1]))
    return coarsest


def _plain(name: str, value: object) -> float | None:
    """A real number as a float; None for anything else."""
    item = _item(name, value)
    if isinstance(item, bool) or not isinstance(item, Real):
        return None
    try:
        return float(item)
    except OverflowError:
        return math.inf


def in_si(value: object) -> bool:
    """Whether it is a quantity of Brian2, whose numbers are in SI units."""
    return hasattr(getattr(value, "dim", None), "get_dimension")


def has_unit(value: object) -> bool:
    """Whether it is a quantity: of pint, quantities, Brian2 or astropy."""
    return type(value) not in (float, int) and (hasattr(value, "dimensionality") or in_si(value) or hasattr(value, "unit"))


def unitless(name: str, value: object) -> None:
    """Refuse quantities, and lists of them: numpy takes their numbers and drops the unit.

    Raises:
        ConfigurationError: there is a unit.
    """
    if isinstance(value, list | tuple):
        if not {*map(type, value)} <= {float, int}:  # quick where they are many
            for entry in value:
                unitless(name, entry)
    elif has_unit(value):
        raise ConfigurationError(f"{name}={value}, which has a unit", "plain numbers", f"the number of {name} in its unit")


def _item(name: str, value: object) -> object:
    """The entry of a tensor, array or numpy scalar without dimensions; anything else as it is."""
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise ConfigurationError(f"{name} that requires a gradient", "a constant: none is passed on", f"{name}.detach()")
        return value if value.dim() or value.is_meta else value.item()
    if isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0:
        unitless(name, value)
        return value.item()
    return value


def names(name: str, given: Any, known: Sequence[str], remedy: str = "one of these") -> tuple[str, ...]:
    """Names among those that are known: one, or several."""
    try:
        chosen = (given,) if isinstance(given, str) else tuple(given)
    except TypeError as error:
        raise ConfigurationError(f"{name}={given!r}", f"names among {list(known)}", f"{name}=()") from error
    if unknown := [x for x in chosen if not isinstance(x, str) or x not in known]:
        raise ConfigurationError(f"{name} names {unknown}", f"names among {list(known)}", remedy)
    return chosen


def placement(device: Any, generator: object) -> None:
    """Refuse a device that torch does not know or have, and what is no generator of random numbers."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ConfigurationError(
            f"generator of type {type(generator).__name__}", "a torch.Generator", "torch.Generator().manual_seed(0)"
        )
    if generator is not None and generator.device.type != "cpu":
        raise ConfigurationError(
            f"generator on {generator.device}", "one on the CPU, where numbers are drawn", "torch.Generator().manual_seed(0)"
        )
    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"device={device!r}", "a device that torch has", 'device="cpu"') from error


def on_the_host(init: Callable[P, None]) -> Callable[P, None]:
    """A constructor that computes on the CPU. Torch's default device, meta included, is what its `device=None` stands for."""

    @wraps(init)
    def run(*args: P.args, **options: P.kwargs) -> None:
        if options.get("device") is None:
            options["device"] = torch.get_default_device()
        with torch.device("cpu"):
            init(*args, **options)

    return run

"""Ranges of numbers in a configuration, as annotations of its fields; a run is refused before it has a folder."""

import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from adjsnn.errors import ConfigurationError


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; `above` and `below` leave the ends out.

    Example:
        tau_mem: Annotated[float, Range(1.0, 100.0)] = 20.0
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and (
            value < self.high if self.below else value <= self.high
        )

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"a number above {self.low:g}" if self.above else f"{self.low:g} or more"
        return f"{self.low:g} {'<' if self.above else '≤'} it {'<' if self.below else '≤'} {self.high:g}"


MOST_THREADS = max(256, 4 * (os.cpu_count() or 1))
Count = Annotated[int, Range(1)]
Seed = Annotated[int, Range(0, 2**62)]
Threads = Annotated[int, Range(1, MOST_THREADS)]
Positive = Annotated[float, Range(0.0, above=True)]
NotNegative = Annotated[float, Range(0.0)]
Share = Annotated[float, Range(0.0, 1.0)]


def check_ranges(config: Any) -> None:
    """See that the numbers of a configuration, a dataclass, lie in the ranges that its fields are annotated with.

    Numbers are finite, whether annotated or not, unless the field's own default is not.

    Raises:
        ConfigurationError: a number out of its range; names the field.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for number, allowed in _numbers(value, hints[field.name]):
            finite = math.isfinite(number) or number == field.default
            if finite and (allowed is None or number in allowed):
                continue
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            flag = f"--{field.name.replace('_', '-')}"
            raise ConfigurationError(
                f"{field.name}={shown}", str(allowed or "a finite number"), f"{flag} {_flagged(field.default, allowed)}"
            )


def _numbers(value: object, hint: object) -> Iterator[tuple[float, Range | None]]:
    """Numbers in the value of a field of that type, and the range of each."""
    if isinstance(value, tuple):
        inner = get_args(hint) if get_origin(hint) is tuple else ()
        for k, part in enumerate(value):
            if inner:
                yield from _numbers(part, inner[0] if inner[-1] is Ellipsis else inner[k])
    elif isinstance(value, int | float) and not isinstance(value, bool):
        parts = get_args(hint) if get_origin(hint) is Annotated else ()
        yield value, next((part for part in parts if isinstance(part, Range)), None)


def _flagged(default: object, allowed: Range | None) -> str:
    if default is dataclasses.MISSING:
        return f"{allowed.low:g}" if allowed else "1"
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)

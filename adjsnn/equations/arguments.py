"""The arguments of `Equations` that are names and texts, made plain."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adjsnn.checks import count
from adjsnn.equations.lines import lines, nearest, plain_name
from adjsnn.errors import ConfigurationError

MATRIX = re.compile(r"(?<!\w)(\w+)\s*@")


def events_of(threshold: object, reset: object) -> tuple[dict[str, str], dict[str, str]]:
    """Thresholds and resets by the same names."""
    if threshold is None:
        if reset is not None:
            raise ConfigurationError("a reset without a threshold", "a threshold", 'threshold="v > 30"')
        return {}, {}
    if isinstance(threshold, str):
        if reset is not None and not isinstance(reset, str):
            raise ConfigurationError(f"one threshold and a reset of type {type(reset).__name__}", "text", 'reset="v = c"')
        return {"event": threshold}, {"event": reset or ""}
    thresholds, resets = mapping_of("threshold", threshold), mapping_of("reset", reset)
    if resets.keys() - thresholds.keys() or not thresholds:
        names = sorted(resets.keys() - thresholds.keys())
        raise ConfigurationError(f"resets of {names or 'nothing'}", ", ".join(thresholds), "the same names")
    return dict(thresholds), {name: resets.get(name, "") for name in thresholds}


def mapping_of(name: str, given: object) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{name} of type {type(given).__name__}", "a dict by name", f"{name}={{...}}")
    return given


def counts_of(what: str, given: Mapping[str, Any]) -> dict[str, int]:
    return {name: count(f"{what}[{name!r}]", n) for name, n in given.items()}


def names_of(name: str, given: object) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not all(isinstance(x, str) for x in names) or len(set(names)) != len(names):
        raise ConfigurationError(f"{name}={given!r}", "text, or several, each once", f'{name}=("v",)')
    return tuple(names)


def input_sizes(given: object) -> dict[str, int]:
    """Sizes of inputs by name."""
    found = counts_of("inputs", given) if isinstance(given, Mapping) else dict.fromkeys(names_of("inputs", given), 1)
    for name in found:
        if plain_name(name) is None:
            raise ConfigurationError(
                f"an input {name!r}", "a name without a meaning", f"inputs=({str(name).strip('_') + '_0'!r},)"
            )
    return {plain_name(name) or name: n for name, n in found.items()}


def matrices_in(texts: Mapping[str, Iterable[str]]) -> set[str]:
    """Names before @ in texts, by what they are called."""
    found = (place.line for what, several in texts.items() for text in several for place in lines(text, what))
    return {x for line in found for x in MATRIX.findall(line)}


def check_learnt(learnt: Iterable[str], parameters: Iterable[str], used: set[str]) -> None:
    """Refuse what is learnt and no parameter, or one of which nothing is a function."""
    known = list(parameters)
    for name in learnt:
        if name not in known:
            remedy = nearest(name, known, f"parameters={{{name!r}: 1.0}}")
            raise ConfigurationError(
                f"learn={name!r}", f"one of {', '.join(known) or 'parameters, of which there are none'}", remedy
            )
        if name not in used:
            raise ConfigurationError(
                f"learn={name!r}, of which nothing is a function", "parameters that are used", "leaving it out"
            )


def other_samples(name: str, n: int, batch: int) -> ConfigurationError:
    """The error of a parameter of another number of samples than there are."""
    return ConfigurationError(f"{name} of {n} samples with {batch}", "one for each sample", f"{name} of shape (B,)")

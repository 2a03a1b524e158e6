"""The arguments of `Equations` that are names and texts, made plain."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from adjsnn.checks import count, finite
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


def check_shape(name: str, shape: tuple[int, ...], kept: tuple[int, int], *, own: bool) -> None:
    """Refuse a parameter of another shape than that it was given with.

    Args:
        name: of the parameter.
        shape: that it has now.
        kept: rows and columns of a matrix; entries and 0 of anything else.
        own: whether each sample has entries of its own.
    """
    n, columns = kept
    if own:
        fits, wanted = shape[1:] == (n,) or (n == 1 and len(shape) == 1), f"(B, {n})"
    else:
        whole = (n, columns) if columns else (n,)
        fits, wanted = shape == whole or (n == 1 and shape == ()), str(whole)
    if not fits:
        raise ConfigurationError(f"{name} of shape {tuple(shape)}", f"{wanted}, as it was given", "keeping its shape")


def check_parameter(name: str, x: Tensor, kept: tuple[int, int], batch: int | None) -> None:
    """Refuse a parameter that has become another than was given, by its shape or with entries that are not finite.

    Args:
        name: of the parameter.
        x: what it is now.
        kept: as `check_shape`.
        batch: B where each sample has entries of its own, else None.
    """
    check_shape(name, x.shape, kept, own=batch is not None)
    if batch is not None and len(x) not in (1, batch):
        raise other_samples(name, len(x), batch)
    finite(name, x, "finite numbers", f"another {name}; where it is learnt, a smaller learning rate")


def other_samples(name: str, n: int, batch: int) -> ConfigurationError:
    """The error of a parameter of another number of samples than there are."""
    return ConfigurationError(f"{name} of {n} samples with {batch}", "one for each sample", f"{name} of shape (B,)")

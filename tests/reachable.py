"""Every tensor that a user can reach from some objects, found by walking them, and ways to overwrite it."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from adjsnn import ConfigurationError, SpikeTrains


def reachable(roots: dict[str, Any]) -> dict[str, Tensor]:
    """By the way to them; the same memory once, by the first way. Empty tensors, which cannot change, are left out."""
    found: dict[str, Tensor] = {}
    seen = set()
    for path, x in _walk(roots, "", set()):
        key = (x.data_ptr(), x.shape, x.stride())
        if x.numel() and key not in seen:
            seen.add(key)
            found[path] = x
    return found


def _walk(x: Any, path: str, above: set[int]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(x, Tensor):
        yield path, x
        return
    plain = isinstance(x, (int, float, str, bytes, type)) or (callable(x) and not isinstance(x, nn.Module))
    if x is None or plain or id(x) in above:
        return
    for name, part in _parts(x):
        yield from _walk(part, f"{path}.{name}" if path else name, above | {id(x)})


def _parts(x: Any) -> Iterator[tuple[str, Any]]:
    """Its parts by name: entries, parameters and buffers, public attributes, and results of methods that need no argument."""
    if isinstance(x, dict):
        yield from x.items()
    elif isinstance(x, nn.Module):
        yield from x.named_parameters()
        yield from x.named_buffers()
    elif isinstance(x, (list, tuple)):
        yield from zip(getattr(x, "_fields", map(str, range(len(x)))), x, strict=True)
    elif type(x).__module__.startswith("adjsnn"):
        for name in sorted({*vars(x), *dir(type(x))}):
            if not name.startswith("_") and (found := _attribute(x, name)) is not None:
                yield name, found


def _attribute(x: Any, name: str) -> Any:
    try:
        value = getattr(x, name)
    except AttributeError:
        return None
    if not inspect.ismethod(value):
        return value
    if isinstance(x, SpikeTrains) or value.__self__ is type(x):
        return None  # makes others
    needed = [p for p in inspect.signature(value).parameters.values() if p.default is p.empty]
    try:
        return None if needed else value()
    except ConfigurationError:  # not on offer for this solution
        return None


def overwrite(x: Tensor) -> None:
    """Give a tensor other values in place; of one that is expanded, the memory it has."""
    with torch.no_grad():
        memory = x[tuple(slice(1) if stride == 0 else slice(None) for stride in x.stride())]
        memory.copy_(overwritten(memory))


def overwritten(x: Tensor) -> Tensor:
    """Other values of the same kind: indices stay in their range."""
    if x.is_floating_point():
        return torch.where(x.isfinite(), 0.5 * x + 0.3, x)
    if x.dtype == torch.bool:
        return ~x
    turned = x.flatten().flip(0).view_as(x)
    return torch.zeros_like(x) if torch.equal(turned, x) else turned

"""What a solution keeps of tensors that others can change: private copies, and a seal on what is too large to copy."""

from collections.abc import Callable
from copy import copy
from dataclasses import is_dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import Tensor

from adjsnn.errors import ConfigurationError

R = TypeVar("R")
S = TypeVar("S")

# A figure that is computed when first asked for, and kept. To type checkers it is a property, as protocols ask for one.
if TYPE_CHECKING:
    computed_once = property
else:

    class computed_once:
        """As `functools.cached_property`, with two places: what is asked for first without a tape has no gradient, and must
        not be handed to a loss that has one."""

        def __init__(self, function: Callable[[Any], Any]) -> None:
            self.function, self.__doc__ = function, function.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self.name = name

        def __get__(self, sol: Any, owner: type | None = None) -> Any:
            if sol is None:
                return self
            kept = vars(sol)
            place = self.name if torch.is_grad_enabled() else f"{self.name} without a tape"
            if place not in kept:  # what has a tape is found under its name before this is called, in either mode
                kept.setdefault(place, alone(self.function, sol))  # of several threads the first one's
            return kept[place]


def alone(function: Callable[[S], R], sol: S) -> R:
    """function(sol), outside the transforms of torch.func that it is asked for in: they would wrap what outlives them."""
    if not torch._C._are_functorch_transforms_active():
        return function(sol)
    with torch._C._DisableFuncTorch():  # pyright: ignore[reportAttributeAccessIssue]
        return function(sol)


def kept(x: Tensor) -> Tensor:
    """A private copy on the tape. No later change of `x` reaches it; its gradient is that of `x`, unread."""
    return x.clone()


class Seal:
    """Tensors, by what users call them, that figures are computed from when asked for.

    A figure of tensors that were changed in place meanwhile would be a wrong number. Torch counts such changes; what is written
    behind its back, through `.data` or an array that shares the memory, is not seen.
    """

    def __init__(self, **tensors: Tensor) -> None:
        self._tensors = tensors
        self._versions = {name: _version(x) for name, x in tensors.items()}
        self._lock = Lock()

    def add(self, **tensors: Tensor) -> None:
        """Tensors more, as they are now; those of a thread that was first stay."""
        with self._lock:
            if not tensors.keys() & self._tensors.keys():
                self._versions |= {name: _version(x) for name, x in tensors.items()}
                self._tensors |= tensors

    def get(self, *names: str) -> tuple[Tensor, ...] | None:
        """Those of the named tensors, if they are there."""
        with self._lock:
            return tuple(self._tensors[name] for name in names) if all(name in self._tensors for name in names) else None

    def changed(self, *names: str) -> list[str]:
        """Those of the named tensors, or of all where none is named, that were changed in place."""
        return [name for name in names or self._tensors if _version(self._tensors[name]) != self._versions[name]]

    def spoil(self, names: list[str]) -> None:
        """Let these count as changed."""
        self._versions |= dict.fromkeys(names, -1)

    def check(self, *names: str) -> None:
        """Raise ConfigurationError if one of the named tensors, or of all where none is named, was changed in place."""
        for name in self.changed(*names):
            raise ConfigurationError(
                f"{name}, changed in place since the solve",
                "the values of the solve, from which this figure is computed when it is first asked for",
                f"asking before the change, or changing {name}.clone()",
            )


class Recorded:
    """What deep copies, pickles and `torch.save` hold of an object that solves make: its numbers, without a gradient.

    A gradient lies on the tape of one solve. A copy on this tape would not be deep, as it would share what the tape keeps, and
    no file holds a tape. `copy.copy` is another name for the same tensors, gradients included.
    """

    def __post_init__(self) -> None:
        """Seal what figures are computed from, where there is any."""

    def __copy__(self) -> Self:
        new = object.__new__(type(self))
        vars(new).update(vars(self))
        return new

    def __getstate__(self) -> dict[str, Any]:
        seal, known = vars(self).get("_seal"), dict[int, Tensor]()
        state = {name: detached(x, known) for name, x in vars(self).items() if name != "_seal"}
        return state if seal is None else state | {"_changed": seal.changed()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        changed = state.pop("_changed", None)
        vars(self).update(state)
        if changed is not None:
            self.__post_init__()
            vars(self)["_seal"].spoil(changed)


def detached(x: Any, known: dict[int, Tensor]) -> Any:
    """Containers with their tensors off the tape; equal ones stay one, `known` by the identity of the former."""
    if isinstance(x, Tensor):
        return known.setdefault(id(x), x.detach()) if x.requires_grad else x
    if isinstance(x, dict):
        return {key: detached(entry, known) for key, entry in x.items()}
    if isinstance(x, list):
        return [detached(entry, known) for entry in x]
    if isinstance(x, tuple):
        entries = (detached(entry, known) for entry in x)
        return type(x)(*entries) if hasattr(x, "_fields") else tuple(entries)
    if is_dataclass(x) and not isinstance(x, (type, Recorded)):
        new = copy(x)
        vars(new).update(detached(vars(x), known))
        return new
    return x


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version  # under inference_mode torch does not count

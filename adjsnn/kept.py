"""What a solution keeps of tensors that others can change: private copies, and a seal on what is too large to copy."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adjsnn.errors import ConfigurationError

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
                kept[place] = self.function(sol)
            return kept[place]


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

    def check(self, *names: str) -> None:
        """Raise ConfigurationError if one of the named tensors, or of all where none is named, was changed in place."""
        for name in names or self._tensors:
            if _version(self._tensors[name]) != self._versions[name]:
                raise ConfigurationError(
                    f"{name}, changed in place since the solve",
                    "the values of the solve, from which this figure is computed when it is first asked for",
                    f"asking before the change, or changing {name}.clone()",
                )


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version  # under inference_mode torch does not count

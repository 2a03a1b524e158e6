"""What a solution keeps of tensors that others can change: private copies, and a seal on what is too large to copy."""

from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from adjsnn.errors import ConfigurationError

# A figure that is computed when first asked for, and kept. To type checkers it is a property, as protocols ask for one.
if TYPE_CHECKING:
    computed_once = property
else:
    computed_once = cached_property


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

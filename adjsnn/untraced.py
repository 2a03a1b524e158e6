"""Functions that torch.compile leaves as they are."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

F = TypeVar("F", bound=Callable[..., Any])


def untraced(function: F) -> F:
    """`function`, run as written where torch.compile traces a caller: the trace breaks before it and goes on after it.

    What is solved runs compiled loops of its own, and what is read from a solution keeps books in numpy, which a trace turns
    into torch operations: slower, and a read after a write by index has been seen to get the array from before the write.
    Nothing of torch's compiler is loaded unless something is being traced.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return cast(F, run)

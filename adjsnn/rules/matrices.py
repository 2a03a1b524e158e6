"""Fixed matrices that learning rules use: drawn from a seed, or given by the user."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from adjsnn.checks import tensor
from adjsnn.errors import ConfigurationError

Shape = tuple[int, ...]


def listed(matrices: object) -> tuple[Tensor, ...] | None:
    """Copies of a user's matrices; None for none.

    Raises:
        ConfigurationError: no list of matrices.
    """
    if matrices is None:
        return None
    if not isinstance(matrices, list | tuple):
        raise ConfigurationError(f"matrices of type {type(matrices).__name__}", "a list of matrices", "matrices=[...]")
    found = [tensor(f"matrices[{k}]", x, "a matrix", "a tensor") for k, x in enumerate(matrices)]
    return tuple(x.detach().clone() for x in found)


def fixed(
    matrices: Sequence[Tensor] | None, shapes: Sequence[Shape], seed: int, draw: Callable[..., Tensor], like: Tensor
) -> list[Tensor]:
    """A matrix of each shape: the user's, or by `draw(shape, generator=, dtype=)`, the same for a seed in any dtype.

    Raises:
        ConfigurationError: the user's are of other shapes.
    """
    if matrices is None:
        generator = torch.Generator().manual_seed(seed)
        return [draw(shape, generator=generator, dtype=torch.float64).to(like) for shape in shapes]
    seen = [tuple(x.shape) for x in matrices]
    if seen != list(shapes):
        raise ConfigurationError(
            f"matrices of the shapes {seen}", f"{list(shapes)}, (to, from)", "one in each place, in this order"
        )
    return [x.to(like) for x in matrices]

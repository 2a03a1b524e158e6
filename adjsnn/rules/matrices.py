"""Fixed matrices that learning rules use: drawn from a seed, or given by the user."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from adjsnn.checks import Number, finite, real
from adjsnn.errors import ConfigurationError

Shape = tuple[int, ...]


def listed(matrices: object) -> tuple[Tensor, ...] | None:
    """Copies of a user's matrices; None for none.

    Raises:
        ConfigurationError: no list of matrices, or entries that are not finite.
    """
    if matrices is None:
        return None
    if not isinstance(matrices, list | tuple):
        raise ConfigurationError(f"matrices of type {type(matrices).__name__}", "a list of matrices", "matrices=[...]")
    found = [real(f"matrices[{k}]", x, "a matrix", "a tensor").detach().clone() for k, x in enumerate(matrices)]
    for k, x in enumerate(found):
        finite(f"matrices[{k}]", x, "finite entries", "another matrix")
    return tuple(found)


def gaussian(scale: Number) -> Callable[..., Tensor]:
    """What draws Gaussian matrices with a standard deviation of scale/√(rows)."""

    def draw(shape: Shape, **options: Any) -> Tensor:
        return torch.randn(shape, **options) * (float(scale) / max(shape[0], 1) ** 0.5)

    return draw


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

"""Matrices that take the place of weights on the way back, and never change: a user's, or Gaussian ones."""

from collections.abc import Sequence

import torch
from torch import Tensor

from adjsnn.checks import Count, Number, finite, real
from adjsnn.errors import ConfigurationError


def copied(matrices: object) -> tuple[Tensor, ...] | None:
    """Copies of a user's matrices; None where there are none.

    Raises:
        ConfigurationError: no list of tensors, or entries that are not finite.
    """
    if matrices is None:
        return None
    if not isinstance(matrices, list | tuple):
        raise ConfigurationError(f"matrices of type {type(matrices).__name__}", "a list of matrices", "matrices=[...]")
    copies = [real(f"matrices[{k}]", x, "a matrix", "a tensor").detach().clone() for k, x in enumerate(matrices)]
    for k, x in enumerate(copies):
        finite(f"matrices[{k}]", x, "finite entries", "another matrix")
    return tuple(copies)


def fixed(
    matrices: Sequence[Tensor] | None, shapes: Sequence[tuple[int, ...]], like: Tensor, seed: Count, scale: Number
) -> list[Tensor]:
    """The matrices of a solve.

    Args:
        matrices: the user's.
        shapes: of what they replace, (to, from).
        like: a tensor of the network's dtype and device.
        seed: of Gaussian ones, the same for a seed in any dtype.
        scale: their standard deviation is scale/√to.

    Raises:
        ConfigurationError: the user's are of other shapes.
    """
    if matrices is None:
        generator = torch.Generator().manual_seed(int(seed))
        noise = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        return [(x * (float(scale) / max(len(x), 1) ** 0.5)).to(like) for x in noise]
    seen = [tuple(x.shape) for x in matrices]
    if seen != list(shapes):
        raise ConfigurationError(
            f"matrices of the shapes {seen}", f"{list(shapes)}, (to, from)", "one in each place, in this order"
        )
    return [x.to(like) for x in matrices]

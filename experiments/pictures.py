"""scikit-learn's pictures of handwritten digits, 8 x 8 pixels, for several experiments."""

import torch
from torch import Tensor

from adjsnn.errors import MissingPackageError

SIDE, BRIGHTEST = 8, 16.0


def shuffled_digits(seed: int) -> tuple[Tensor, Tensor]:
    """All 1797 pictures (S, 8, 8), float64 from 0 to 1, and their digits (S,), in an order of their own for each seed.

    Raises:
        MissingPackageError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415  a second to load, for this data alone
    except ImportError as error:
        raise MissingPackageError("scikit-learn", "experiments") from error
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return (torch.from_numpy(images / BRIGHTEST).view(-1, SIDE, SIDE))[order], torch.from_numpy(labels).long()[order]

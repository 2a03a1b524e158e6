"""Which body of code solved a system, and why, as solutions tell it."""

from typing import NamedTuple


class Ran(NamedTuple):
    """What ran.

    Attributes:
        kernel: "fused", compiled loops; "cuda", loops compiled for a GPU; or "plain", torch or numpy operations.
        reason: in words, why this one.
    """

    kernel: str
    reason: str

"""Which body solves LIF layers: the contract that every body keeps, and the bodies there are."""

from collections.abc import Callable
from typing import NamedTuple

from adjsnn.lif import plain, plain_adjoint
from adjsnn.lif.cpu import loops
from adjsnn.lif.layer import LayerGradients, LayerRun


class Body(NamedTuple):
    """A way to compute what the equations say; all of them agree to rounding.

    Attributes:
        name: as in `kernels=`.
        forward: the solve of a layer; arguments and result as of `lif.plain.forward`.
        backward: its adjoint; arguments and result as of `lif.plain_adjoint.backward`.
    """

    name: str
    forward: Callable[..., LayerRun]
    backward: Callable[..., LayerGradients]


PLAIN = Body("plain", plain.forward, plain_adjoint.backward)  # the readable truth
CPU = Body("fused", loops.forward, loops.backward)  # compiled by numba
BODIES = {"auto": CPU, "fused": CPU, "plain": PLAIN}

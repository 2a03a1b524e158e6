"""Which body solves LIF layers: the contract that every body keeps, and the bodies there are."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from adjsnn.bodies import Ran
from adjsnn.errors import ConfigurationError
from adjsnn.lif import plain, plain_adjoint
from adjsnn.lif.cpu import loops
from adjsnn.lif.layer import LayerGradients, LayerRun
from adjsnn.lif.network import LIFLayer


class Body(NamedTuple):
    """A way to compute what the equations say; all of them agree to rounding.

    Attributes:
        name: as in `kernels=`.
        obstacle: why the body cannot solve a network's layers, or None where it can.
        forward: the solve of a layer; arguments and result as of `lif.plain.forward`.
        backward: its adjoint; arguments and result as of `lif.plain_adjoint.backward`.
    """

    name: str
    obstacle: Callable[[Sequence[LIFLayer]], str | None]
    forward: Callable[..., LayerRun]
    backward: Callable[..., LayerGradients]


PLAIN = Body("plain", lambda layers: None, plain.forward, plain_adjoint.backward)  # the readable truth
CPU = Body("fused", loops.obstacle, loops.forward, loops.backward)  # compiled by numba
BODIES = {"fused": CPU, "plain": PLAIN}
KERNELS = ("auto", *BODIES)


def choose(kernels: str, layers: Sequence[LIFLayer]) -> tuple[Body, Ran]:
    """The body that solves the layers, and why this one.

    Args:
        kernels: "fused" or "plain", which must run; or "auto", the fused loops where they can, else plain code.
        layers: of the network.

    Raises:
        ConfigurationError: another choice, or one that cannot run these layers.
    """
    if not isinstance(kernels, str) or kernels not in KERNELS:
        raise ConfigurationError(f"kernels={kernels!r}", f"one of {list(KERNELS)}", 'kernels="auto"')
    if kernels == "auto":
        why = BODIES["fused"].obstacle(layers)
        body = BODIES["fused" if why is None else "plain"]
        return body, Ran(body.name, why or "the fused loops cover this network")
    body = BODIES[kernels]
    if (why := body.obstacle(layers)) is not None:
        raise ConfigurationError(f'kernels="{kernels}", but {why}', "a network that these loops cover", 'kernels="auto"')
    return body, Ran(body.name, f'kernels="{kernels}"')

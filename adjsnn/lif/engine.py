"""Which body solves LIF layers: the contract that every body keeps, and the bodies there are."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.errors import ConfigurationError
from adjsnn.lif import plain, plain_adjoint
from adjsnn.lif.clocked import ClockedLayer, ClockedRun, Differentiated, Reset, Sent, unroll
from adjsnn.lif.cpu import clocked_adaptive_loops, glif_loops, loops
from adjsnn.lif.cuda import loops as cuda_loops
from adjsnn.lif.glif import plain as glif_plain
from adjsnn.lif.glif import plain_adjoint as glif_plain_adjoint
from adjsnn.lif.glif.body import both, both_back
from adjsnn.lif.layer import Events, LayerCotangents, LayerGradients, LayerRun, Trial, back_on_the_host, on_the_host
from adjsnn.lif.structure import AnyState, LIFLayer


class Forward(Protocol):
    """The solve of a layer for every sample.

    Raises:
        EventError: a neuron spikes more often than trial.limit.
    """

    def __call__(self, layer: LIFLayer, inputs: Events, start: AnyState, trial: Trial, /) -> LayerRun: ...


class Backward(Protocol):
    """Gradients of a layer from the cotangents of what the same body's solve gave, at least of what is wanted: names of
    fields of Layer, "v" and "i".

    Raises:
        EventError: the loss depends on a spike that touches its threshold without crossing it.
    """

    def __call__(
        self,
        layer: LIFLayer,
        inputs: Events,
        start: AnyState,
        trial: Trial,
        run: LayerRun,
        cotangents: LayerCotangents,
        wanted: frozenset[str],
        /,
    ) -> LayerGradients: ...


class Body(NamedTuple):
    """A way to compute what the equations say; all of them agree to rounding.

    Attributes:
        name: as in `kernels=`.
        obstacle: why the body cannot solve a network's layers, or None where it can.
        forward: the solve of a layer, of tensors on the network's device, of its dtype or float64.
        backward: its adjoint.
        device: the type of device whose networks "auto" gives to the body; None for any.
        generalised: whether it solves generalised layers.
    """

    name: str
    obstacle: Callable[[Sequence[LIFLayer]], str | None]
    forward: Forward
    backward: Backward
    device: str | None = None
    generalised: bool = True

    def why_not(self, layers: Sequence[LIFLayer], generalised: bool) -> str | None:
        """Why it cannot solve these layers, or None."""
        if (why := self.obstacle(layers)) is not None:
            return why
        return "generalised layers have no loops there" if generalised and not self.generalised else None


# The readable truth, and loops compiled by numba; those of arrays solve a network on a GPU on the host.
# Of generalised layers there are these two kinds; a GPU has none.
PLAIN = Body(
    "plain",
    lambda layers: None,
    both(on_the_host(plain.forward), glif_plain.forward),
    both_back(back_on_the_host(plain_adjoint.backward), glif_plain_adjoint.backward),
)
CPU = Body(
    "fused",
    loops.obstacle,
    both(on_the_host(loops.forward), glif_loops.forward),
    both_back(back_on_the_host(loops.backward), glif_loops.backward),
)
CUDA = Body("cuda", cuda_loops.obstacle, cuda_loops.forward, cuda_loops.backward, device="cuda", generalised=False)
BODIES = {body.name: body for body in (CUDA, CPU, PLAIN)}  # "auto" takes the first without an obstacle; plain code has none
KERNELS = ("auto", *BODIES)
Kernels = Literal["auto", "cuda", "fused", "plain"]  # the same for type checkers


def choose(kernels: str, layers: Sequence[LIFLayer], generalised: bool = False) -> tuple[Body, Ran]:
    """The body that solves the layers, and why this one.

    Args:
        kernels: the name of a body, which must run; or "auto", the first of BODIES that is for the network's device and can.
        layers: of the network.
        generalised: whether there are generalised ones among them.

    Raises:
        ConfigurationError: another choice, or one that cannot run these layers.
    """
    if not isinstance(kernels, str) or kernels not in KERNELS:
        raise ConfigurationError(f"kernels={kernels!r}", f"one of {list(KERNELS)}", 'kernels="auto"')
    if kernels == "auto":
        device, reason, passed = layers[0].w_in.device.type, "", ""
        for body in BODIES.values():
            if body.device not in (None, device):
                continue
            if (why := body.why_not(layers, generalised)) is None:
                covers = f"the {body.name} loops cover this network"
                return body, Ran(body.name, reason if body.name == "plain" else covers + passed)
            reason = why
            if body.device is not None:  # the next solve it on another machine, which is worth a word
                passed = f", on the host: {why}"
    body = BODIES[kernels]
    if (why := body.why_not(layers, generalised)) is not None:
        raise ConfigurationError(f'kernels="{kernels}", but {why}', "a network that these loops cover", 'kernels="auto"')
    return body, Ran(body.name, f'kernels="{kernels}"')


class ClockedBody(Protocol):
    """The steps of a layer on a clock, on torch's tape or with an adjoint of their own; as `adjsnn.lif.clocked.unroll`."""

    def __call__(
        self,
        layer: ClockedLayer,
        arriving: Tensor | Sent,
        start: AnyState,
        drive: Tensor | None,
        spike: Differentiated,
        reset: Reset,
        through_reset: bool,
        rec_back: Tensor | None,
        /,
    ) -> ClockedRun: ...


def choose_clocked(asked: Ran, layers: Sequence[LIFLayer]) -> tuple[ClockedBody, Ran]:
    """What takes the steps of a network on a clock, and why: compiled loops on the CPU, torch's tape elsewhere.

    Args:
        asked: what `choose` said.
        layers: of the network.

    Raises:
        ConfigurationError: loops for a GPU were asked for.
    """
    device = layers[0].w_in.device.type
    if asked == Ran("cuda", 'kernels="cuda"'):
        raise ConfigurationError(
            asked.reason + " on a clock, for which there are no such loops", '"auto" or "plain"', 'kernels="auto"'
        )
    if asked.kernel == "plain":
        return unroll, asked
    if device != "cpu":
        return unroll, Ran("plain", f"the network is on {device}, for which there are no loops on a clock")
    return clocked_adaptive_loops.fused, Ran("fused", "the fused loops cover networks on a clock")

"""The one public entry: solve a system forward, ready to be differentiated."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict, Unpack, overload

import torch
from torch import Tensor, nn

from adjsnn.adjoints import BPTT
from adjsnn.checks import Count, Number, Times
from adjsnn.errors import ConfigurationError
from adjsnn.gated.network import GatedState, GatedSynapseNetwork
from adjsnn.hybrid.system import HybridSystem
from adjsnn.lif.network import LIFNetwork
from adjsnn.lif.structure import AnyState
from adjsnn.spikes import SpikeTrains
from adjsnn.untraced import untraced

if TYPE_CHECKING:  # what solves a family is loaded when the first of its networks is solved
    from adjsnn.gated.adjoint import GatedChoice
    from adjsnn.gated.solution import CheckpointedSolution, GatedSolution
    from adjsnn.hybrid.adjoint import HybridChoice
    from adjsnn.hybrid.solution import HybridSolution
    from adjsnn.lif.adjoint import ClockedAdjoint, LIFAdjoint
    from adjsnn.lif.clocked_solution import ClockedSolution
    from adjsnn.lif.engine import Kernels
    from adjsnn.lif.solution import LIFSolution


class GatedOptions(TypedDict, total=False):
    """Options of `solve` for gated networks; as `adjsnn.gated.solve.solve_gated` explains them."""

    dt: Required[Number]
    method: str
    adjoint: GatedChoice | None
    y0: GatedState | None
    kernels: Literal["auto", "plain", "fused", "cuda", "backward"]


class LIFOptions(TypedDict, total=False):
    """Options of `solve` for LIF networks; as `adjsnn.lif.solve.solve_lif` explains them."""

    dt: Number | None
    currents: Tensor | None
    t_end: Number | None
    ts: Times | None
    adjoint: LIFAdjoint | None
    y0: Sequence[AnyState] | None
    max_spikes: Count | None
    kernels: Kernels


class ClockedOptions(TypedDict, total=False):
    """Options of `solve` for LIF networks and a learning rule on a clock; as `adjsnn.lif.solve.solve_lif` explains them."""

    dt: Required[Number]
    currents: Tensor | None
    t_end: Number | None
    ts: Times | None
    adjoint: Required[ClockedAdjoint]
    y0: Sequence[AnyState] | None
    kernels: Kernels


class HybridOptions(TypedDict, total=False):
    """Options of `solve` for users' own systems; as `adjsnn.hybrid.solve.solve_hybrid` explains them."""

    dt: Number | None
    ts: Times | None
    method: str
    rtol: Number | None
    atol: Number | None
    max_steps: Count
    adjoint: HybridChoice | None
    y0: Tensor | None
    substeps: Count
    kernels: Literal["auto", "plain", "fused", "cuda"]


@overload
def solve(system: LIFNetwork, inputs: SpikeTrains | Tensor, **options: Unpack[LIFOptions]) -> LIFSolution: ...
@overload
def solve(system: LIFNetwork, inputs: SpikeTrains | Tensor, **options: Unpack[ClockedOptions]) -> ClockedSolution: ...
@overload
def solve(system: GatedSynapseNetwork, inputs: Tensor, **options: Unpack[GatedOptions]) -> GatedSolution: ...
@overload
def solve(
    system: GatedSynapseNetwork, inputs: Any, **options: Unpack[GatedOptions]
) -> GatedSolution | CheckpointedSolution: ...
@overload
def solve(system: HybridSystem, inputs: Any = None, **options: Unpack[HybridOptions]) -> HybridSolution: ...


@untraced
def solve(
    system: Any, inputs: Any = None, **options: Any
) -> GatedSolution | CheckpointedSolution | HybridSolution | LIFSolution | ClockedSolution:
    """Integrate `system` through `inputs`; a loss of the solution, `.backward()`, runs the chosen adjoint.

    Args:
        system: a GatedSynapseNetwork, a LIFNetwork, or a HybridSystem.
        inputs: u, (T, B, C_in), held constant over each step; also an `adjsnn.signals.Stream` for gated networks, and a
            function u(t) or None for HybridSystems; for LIF networks the input spikes, a SpikeTrains, or u.
        options: for gated networks those of `adjsnn.gated.solve.solve_gated` (dt, method, adjoint, y0, kernels), for LIF
            networks those of `adjsnn.lif.solve.solve_lif` (t_end, ts, dt, currents, adjoint, y0, max_spikes, kernels), for
            HybridSystems those of `adjsnn.hybrid.solve.solve_hybrid` (dt or ts, method, rtol, atol, max_steps, adjoint,
            y0, substeps, kernels).

    Returns:
        GatedSolution, CheckpointedSolution where the adjoint keeps checkpoints, LIFSolution, ClockedSolution where the adjoint
        is a learning rule on a clock, or HybridSolution. Gradients reach parameters, `inputs` and `y0`, as far as they require
        one.

    Raises:
        ConfigurationError: arguments that cannot be right; says which. Tensors of a transform of torch.func.
        IntegrationError: the solution diverged; names the sample and time.
        EventError: a LIF neuron fires without bound; names it.

    Warns:
        NotFiniteWarning: on backward(), a gradient that is not finite, of a solution and a loss that are.
    """
    if torch._C._are_functorch_transforms_active():
        _check_transforms(system, inputs, options)
    if isinstance(system, GatedSynapseNetwork):
        from adjsnn.gated.solve import solve_gated  # noqa: PLC0415  what one kind of network needs

        _check_options(options, solve_gated, "a gated network")
        if "dt" not in options:
            raise ConfigurationError("no dt", "the step in ms", "dt=0.5")
        return solve_gated(system, inputs, **options)
    if isinstance(system, LIFNetwork):
        from adjsnn.lif.solve import solve_lif  # noqa: PLC0415  as above

        _check_options(options, solve_lif, "a LIF network")
        return solve_lif(system, inputs, **options)
    if isinstance(system, HybridSystem):
        from adjsnn.hybrid.solve import solve_hybrid  # noqa: PLC0415  as above

        _check_options(options, solve_hybrid, "a HybridSystem")
        return solve_hybrid(system, inputs, **options)
    raise ConfigurationError(
        f"a system of type {type(system).__name__}",
        "a GatedSynapseNetwork, a LIFNetwork or a HybridSystem",
        "building or subclassing one",
    )


def _check_transforms(system: object, inputs: object, options: dict[str, Any]) -> None:
    """Refuse tensors of torch.func.grad, vjp, jvp, vmap and what is built of them: a solve reads numbers out of its tensors."""
    y0 = options.get("y0")
    parts = (y0,) if isinstance(y0, Tensor) else y0 or ()  # a state, or one for each layer
    states = [x for part in parts for x in (part if isinstance(part, tuple) else (part,))]
    time = inputs.time if isinstance(inputs, SpikeTrains) else None
    tensors = [*system.parameters(), *system.buffers()] if isinstance(system, nn.Module) else []
    seen = [x for x in (*tensors, inputs, time, options.get("currents"), *states) if isinstance(x, Tensor)]
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # pyright: ignore[reportAttributeAccessIssue]
    taped = isinstance(options.get("adjoint"), BPTT) and not isinstance(system, HybridSystem)
    if not taped or any(wrapped(x) for x in seen):  # functions with a backward of their own run inside no transform at all
        raise ConfigurationError(
            "a solve inside a transform of torch.func, such as grad, vjp, jacrev, jvp or vmap",
            "plain tensors",
            "torch.autograd.grad; torch.autograd.functional.jacobian(..., vectorize=True) for all rows; samples as the batch, "
            "the second dimension of the inputs, for vmap",
        )


def _check_options(options: dict[str, Any], entry: Callable[..., object], what: str) -> None:
    known = _options_of(entry)
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, 1)
            remedy = f"{near[0]}=..." if near else "leaving it out"
            raise ConfigurationError(f"{name} for {what}", f"options among {', '.join(known)}", remedy)


@cache
def _options_of(entry: Callable[..., object]) -> tuple[str, ...]:
    """The keywords of a family's entry."""
    return tuple(x.name for x in inspect.signature(entry).parameters.values() if x.kind is x.KEYWORD_ONLY)

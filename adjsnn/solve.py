"""The one public entry: solve a system forward, ready to be differentiated."""

from typing import Any, overload

import torch
from torch import Tensor, nn

from adjsnn.errors import ConfigurationError
from adjsnn.gated.network import GatedSynapseNetwork
from adjsnn.gated.solution import CheckpointedSolution, GatedSolution
from adjsnn.gated.solve import solve_gated
from adjsnn.hybrid.solution import HybridSolution
from adjsnn.hybrid.solve import solve_hybrid
from adjsnn.hybrid.system import HybridSystem
from adjsnn.lif.network import LIFNetwork
from adjsnn.lif.solution import LIFSolution
from adjsnn.lif.solve import solve_lif
from adjsnn.spikes import SpikeTrains
from adjsnn.untraced import untraced

GATED = ("dt", "method", "adjoint", "y0", "kernels")
SMOOTH = ("dt", "ts", "method", "rtol", "atol", "max_steps", "adjoint", "y0", "substeps")
LIF_EVENTS = ("dt", "currents", "t_end", "ts", "adjoint", "y0", "max_spikes", "kernels")


@overload
def solve(system: LIFNetwork, inputs: SpikeTrains | Tensor, **options: Any) -> LIFSolution: ...
@overload
def solve(system: GatedSynapseNetwork, inputs: Tensor, **options: Any) -> GatedSolution: ...
@overload
def solve(system: GatedSynapseNetwork, inputs: Any, **options: Any) -> GatedSolution | CheckpointedSolution: ...
@overload
def solve(system: HybridSystem, inputs: Any = None, **options: Any) -> HybridSolution: ...


@untraced
def solve(
    system: Any, inputs: Any = None, **options: Any
) -> GatedSolution | CheckpointedSolution | HybridSolution | LIFSolution:
    """Integrate `system` through `inputs`; a loss of the solution, `.backward()`, runs the chosen adjoint.

    Args:
        system: a GatedSynapseNetwork, a LIFNetwork, or a HybridSystem of one's own.
        inputs: u, (T, B, C_in), held constant over each step; also an `adjsnn.signals.Stream` for gated networks, and a
            function u(t) or None for systems of one's own; for LIF networks the input spikes, a SpikeTrains, or u.
        options: for gated networks those of `adjsnn.gated.solve.solve_gated` (dt, method, adjoint, y0, kernels), for LIF
            networks those of `adjsnn.lif.solve.solve_lif` (t_end, ts, dt, currents, adjoint, y0, max_spikes, kernels), for
            systems of one's own those of `adjsnn.hybrid.solve.solve_hybrid` (dt or ts, method, rtol, atol, max_steps, adjoint,
            y0, substeps).

    Returns:
        GatedSolution, CheckpointedSolution where the adjoint keeps checkpoints, LIFSolution, or HybridSolution. Gradients
        reach parameters, `inputs` and `y0`, as far as they require one.

    Raises:
        ConfigurationError: arguments that cannot be right; says which. Tensors of a transform of torch.func.
        IntegrationError: the solution diverged; names the sample and time.
        EventError: a LIF neuron fires without bound; names it.
    """
    if torch._C._are_functorch_transforms_active():
        _check_transforms(system, inputs, options)
    if isinstance(system, GatedSynapseNetwork):
        _check_options(options, GATED, "a gated network")
        return solve_gated(system, inputs, **options)
    if isinstance(system, LIFNetwork):
        _check_options(options, LIF_EVENTS, "a LIF network")
        return solve_lif(system, inputs, **options)
    if isinstance(system, HybridSystem):
        _check_options(options, SMOOTH, "a system of one's own")
        return solve_hybrid(system, inputs, **options)
    raise ConfigurationError(
        f"a system of type {type(system).__name__}",
        "a GatedSynapseNetwork, a LIFNetwork or a HybridSystem",
        "building or subclassing one",
    )


def _check_transforms(system: Any, inputs: Any, options: dict[str, Any]) -> None:
    """Refuse tensors of torch.func.grad, vjp, jvp, vmap and what is built of them: a solve reads numbers out of its tensors."""
    y0 = options.get("y0")
    states = (
        [y0] if isinstance(y0, Tensor) else [x for part in y0 or () for x in (part if isinstance(part, tuple) else (part,))]
    )
    time = inputs.time if isinstance(inputs, SpikeTrains) else None
    tensors = [*system.parameters(), *system.buffers()] if isinstance(system, nn.Module) else []
    seen = [x for x in (*tensors, inputs, time, options.get("currents"), *states) if isinstance(x, Tensor)]
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(system, HybridSystem) or any(wrapped(x) for x in seen):
        raise ConfigurationError(
            "a solve inside a transform of torch.func, such as grad, vjp, jacrev, jvp or vmap",
            "plain tensors",
            "torch.autograd.grad; torch.autograd.functional.jacobian(..., vectorize=True) for all rows; samples as the batch, "
            "the second dimension of the inputs, for vmap",
        )


def _check_options(options: dict[str, Any], known: tuple[str, ...], what: str) -> None:
    if unknown := [name for name in options if name not in known]:
        raise ConfigurationError(f"{', '.join(unknown)} for {what}", f"options among {', '.join(known)}", "leaving it out")
    if known is GATED and "dt" not in options:
        raise ConfigurationError("no dt", "the step in ms", "dt=0.5")

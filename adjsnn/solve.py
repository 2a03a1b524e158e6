"""The one public entry: solve a system forward, ready to be differentiated."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from adjsnn.adjoints.discrete import BPTT, DiscreteAdjoint
from adjsnn.errors import ConfigurationError
from adjsnn.integrate.gated_euler import GatedEuler
from adjsnn.integrate.gated_rk import GatedRungeKutta
from adjsnn.integrate.tableaus import TABLEAUS
from adjsnn.kernels.fused import obstacle
from adjsnn.solution import GatedSolution
from adjsnn.systems.gated_network import GatedState, GatedSynapseNetwork, GatedTensors

METHODS = ("euler", "heun", "rk4")
KERNELS = {"auto": ("forward", "backward"), "plain": (), "fused": ("forward", "backward"), "backward": ("backward",)}


def solve(
    system: GatedSynapseNetwork,
    inputs: Tensor,
    *,
    dt: float,
    method: str = "euler",
    adjoint: DiscreteAdjoint | BPTT | None = None,
    y0: GatedState | None = None,
    kernels: Literal["auto", "plain", "fused", "backward"] = "auto",
) -> GatedSolution:
    """Integrate `system` through `inputs`; a loss of the solution, `.backward()`, runs the chosen adjoint.

    Args:
        system: the network.
        inputs: u, (T, B, C_in), held constant over each step of length dt; dtype and device of the parameters.
        dt: h, step in ms, shorter than every time constant.
        method: "euler", the charge-conserving Euler steps of equation (1.6).
        adjoint: how gradients are computed; default DiscreteAdjoint().
        y0: initial state, each field (B, N); default all zero.
        kernels: "auto", fused loops where there are any for this network; "plain", torch operations only; "fused", an error
            where there are none; "backward", torch operations forward and fused loops backward, which `gradcheck` uses.

    Returns:
        GatedSolution with times, states, readout, spikes and stats. Gradients reach the network's parameters, `inputs`, and
        `y0`, as far as they require one.

    Raises:
        ConfigurationError: arguments that cannot be right; says which.
        IntegrationError: the solution diverged; names the sample and time.

    Warns:
        StepTooLongWarning: a step ran through several thresholds.
    """
    if not isinstance(system, GatedSynapseNetwork):
        raise ConfigurationError(f"a system of type {type(system).__name__}", "a GatedSynapseNetwork", "building one")
    if method not in METHODS:
        raise ConfigurationError(f"method={method!r}", f"one of {list(METHODS)}", 'method="euler"')
    adjoint = DiscreteAdjoint() if adjoint is None else adjoint
    if not isinstance(adjoint, (DiscreteAdjoint, BPTT)):
        raise ConfigurationError(
            f"adjoint={adjoint!r}", "an adjoint instance", "adjoint=adjsnn.DiscreteAdjoint() or adjsnn.BPTT()"
        )
    tensors = system.tensors()
    _check_tensors(tensors)
    _check_kernels(system, tensors, kernels)
    _check_step(system, tensors, dt)
    _check_input(system, tensors, inputs)
    y0 = system.initial_state(inputs.shape[1]) if y0 is None else y0
    _check_state(system, y0, inputs)
    if method == "euler":
        program = GatedEuler(system.neuron, system.gate, float(dt), fused=KERNELS[kernels])
    else:
        program = GatedRungeKutta(system.neuron, system.gate, float(dt), TABLEAUS[method], fused=KERNELS[kernels])
    trajectory = adjoint.run(program, tensors, inputs, y0)
    ts = torch.arange(len(inputs) + 1, dtype=inputs.dtype, device=inputs.device) * dt
    v, a_fast, a_slow, readout = trajectory.flat()[:4]
    return GatedSolution(ts, v, a_fast, a_slow, readout, program, tensors, trajectory, inputs.detach())


def _check_tensors(tensors: GatedTensors) -> None:
    reference = tensors.w_rec
    for name, x in zip(tensors.names(), tensors.flat(), strict=True):
        if x.dtype != reference.dtype or x.device != reference.device:
            raise ConfigurationError(
                f"{name} is {x.dtype} on {x.device} while w_rec is {reference.dtype} on {reference.device}",
                "one dtype and device for the whole network",
                "net.to(dtype) or net.to(device)",
            )
        if not _finite(x):
            raise ConfigurationError(
                f"{name} has entries that are not finite",
                "finite parameters",
                "a smaller learning rate or gradient clipping, if this happened in training",
            )


def _check_kernels(system: GatedSynapseNetwork, tensors: GatedTensors, kernels: str) -> None:
    if kernels not in KERNELS:
        raise ConfigurationError(f"kernels={kernels!r}", f"one of {list(KERNELS)}", 'kernels="auto"')
    if kernels == "fused" and (why := obstacle(system.neuron, system.gate, tensors)):
        raise ConfigurationError(f'kernels="fused", but {why}', "a network that the fused loops cover", 'kernels="auto"')


def _check_step(system: GatedSynapseNetwork, tensors: GatedTensors, dt: float) -> None:
    if isinstance(dt, bool) or not isinstance(dt, (int, float)) or not 0.0 < dt < float("inf"):
        raise ConfigurationError(f"dt={dt!r}", "a positive step in ms", "dt=0.5")
    times = {"tau_fast": tensors.tau_fast, "tau_slow": tensors.tau_slow}
    times |= {name: tensors.constants[name] for name in system.neuron.time_constants}
    if "v_reset" in tensors.constants:
        highest = float(tensors.constants["v_reset"].detach().max())
        zone = system.neuron.threshold - system.gate.width
        if highest > zone:
            raise ConfigurationError(
                f"v_reset={highest:g}",
                f"a reset below the active zone, at most {zone:g}",
                "an upper bound on v_reset in training",
            )
    for name, tau in times.items():
        shortest = float(tau.detach().min())
        if shortest <= dt:
            raise ConfigurationError(
                f"dt={dt:g} ms with {name}={shortest:g} ms",
                "a step shorter than every time constant, and positive time constants",
                f"dt={shortest / 5:g}" if shortest > 0 else f"a lower bound on {name} in training",
            )


def _check_input(system: GatedSynapseNetwork, tensors: GatedTensors, u: Tensor) -> None:
    if not isinstance(u, Tensor):
        raise ConfigurationError(f"inputs of type {type(u).__name__}", "a tensor (T, B, C_in)", "torch.as_tensor(inputs)")
    if u.dim() != 3 or u.shape[2] != system.n_in or u.shape[0] < 1 or u.shape[1] < 1:
        raise ConfigurationError(
            f"inputs of shape {tuple(u.shape)}",
            f"(T, B, C_in) with T ≥ 1, B ≥ 1 and C_in = {system.n_in}: time first, batch second",
            "u.unsqueeze(1) for a single sample, u.transpose(0, 1) where the batch comes first",
        )
    reference = tensors.w_rec
    if u.dtype != reference.dtype or u.device != reference.device:
        raise ConfigurationError(
            f"inputs of {u.dtype} on {u.device} for a network of {reference.dtype} on {reference.device}",
            "the same dtype and device",
            "inputs.to(net.w_rec) or net.to(inputs)",
        )
    if not _finite(u):
        step, sample, channel = (int(k) for k in (~u.detach().isfinite()).nonzero()[0])
        raise ConfigurationError(
            f"inputs[{step}, {sample}, {channel}] = {u[step, sample, channel]:g}",
            "finite inputs",
            "interpolating or dropping the gaps of the recording",
        )


def _check_state(system: GatedSynapseNetwork, y0: GatedState, u: Tensor) -> None:
    if not isinstance(y0, GatedState):
        raise ConfigurationError(
            f"y0 of type {type(y0).__name__}", "a GatedState of v, a_fast and a_slow", "net.initial_state(batch)"
        )
    shape = (u.shape[1], system.n_hidden)
    for name, x in zip(y0._fields, y0, strict=True):
        if not isinstance(x, Tensor) or x.shape != shape or x.dtype != u.dtype or x.device != u.device:
            seen = f"{tuple(x.shape)}, {x.dtype}, {x.device}" if isinstance(x, Tensor) else type(x).__name__
            raise ConfigurationError(
                f"y0.{name} is {seen}", f"a tensor {shape}, {u.dtype}, {u.device}", "net.initial_state(batch)"
            )
        if not _finite(x):
            raise ConfigurationError(f"y0.{name} has entries that are not finite", "finite states", "net.initial_state(batch)")
    v, threshold = y0.v.detach(), system.neuron.threshold
    above = (v.abs() if system.neuron.two_sided else v) >= threshold
    if bool(above.any()):
        sample, neuron = (int(k) for k in above.nonzero()[0])
        raise ConfigurationError(
            f"y0.v[{sample}, {neuron}] = {v[sample, neuron]:g}, at or beyond the threshold {threshold:g}",
            "voltages below the threshold at the start",
            "clipping the initial voltages",
        )


def _finite(x: Tensor) -> bool:
    """Whether every entry is finite. On the CPU by numpy, in this thread: torch's idle ones would spin on their cores."""
    x = x.detach()
    return bool(np.isfinite(x.numpy()).all()) if x.device.type == "cpu" else bool(x.isfinite().all())

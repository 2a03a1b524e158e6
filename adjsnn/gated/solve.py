"""Solve a gated-synapse network: every check of the arguments, and the choice of what runs."""

from typing import Literal

import torch
from torch import Tensor

from adjsnn.adjoints import DiscreteAdjoint
from adjsnn.checks import Number, all_finite, finite, matches, positive, same_kind
from adjsnn.errors import ConfigurationError
from adjsnn.gated.adjoint import GatedChoice, gated_adjoint
from adjsnn.gated.engine import KERNELS, LOOPS, Engine
from adjsnn.gated.euler import GatedEuler
from adjsnn.gated.inheritance import check_promises, of_the_base
from adjsnn.gated.network import GatedState, GatedSynapseNetwork, GatedTensors, check_zone
from adjsnn.gated.problem import GatedProblem
from adjsnn.gated.runge_kutta import ALONG, GatedRungeKutta
from adjsnn.gated.shapes import gated_tensors
from adjsnn.gated.solution import CheckpointedSolution, GatedSolution
from adjsnn.numerics.tableaus import TABLEAUS
from adjsnn.signals import Stream

METHODS = tuple(ALONG)  # the charge-conserving Euler steps, and Runge–Kutta methods whose currents are known inside a step


def solve_gated(
    system: GatedSynapseNetwork,
    inputs: Tensor | Stream,
    *,
    dt: Number,
    method: str = "euler",
    adjoint: GatedChoice | None = None,
    y0: GatedState | None = None,
    kernels: Literal["auto", "plain", "fused", "cuda", "backward"] = "auto",
) -> GatedSolution | CheckpointedSolution:
    """Integrate `system` through `inputs`; a loss of the solution, `.backward()`, runs the chosen adjoint.

    Args:
        system: the network.
        inputs: u, (T, B, C_in), held constant over each step of length dt; dtype and device of the parameters. A Stream is
            read block by block and never held whole; that needs an adjoint with checkpoints.
        dt: h, step in ms, shorter than every time constant.
        method: "euler", the charge-conserving Euler steps of equation (1.6); "heun" or "rk4", order 2 and 4 (1.14).
        adjoint: how gradients are computed: DiscreteAdjoint(), the default, for a Stream with checkpoints="sqrt"; BPTT(); or
            anything with the method of `adjsnn.gated.adjoint.GatedAdjoint`.
        y0: initial state, each field (B, N); default all zero.
        kernels: "auto", compiled loops where there are any for this network and its device; "plain", torch operations only;
            "fused", loops for the CPU, and "cuda", loops for a GPU, an error where they do not cover the network; "backward",
            torch operations forward and compiled loops backward, which `gradcheck` uses.

    Returns:
        GatedSolution with times, states, readout, spikes and stats; CheckpointedSolution where the adjoint keeps checkpoints.
        Gradients reach the network's parameters, `inputs`, and `y0`, as far as they require one.

    Raises:
        ConfigurationError: arguments that cannot be right; says which.
        IntegrationError: the solution diverged; names the sample and time.

    Warns:
        StepTooLongWarning: a step ran through several thresholds.
    """
    if not isinstance(method, str) or method not in METHODS:
        raise ConfigurationError(
            f"method={method!r} for a gated network",
            f"one of {list(METHODS)}",
            'method="euler", or adjsnn.ChargeForm(net) for adaptive steps',
        )
    if adjoint is None:
        adjoint = DiscreteAdjoint(checkpoints="sqrt" if isinstance(inputs, Stream) else None)
    chosen = gated_adjoint(adjoint)
    check_zone(system.neuron, system.gate)
    tensors = gated_tensors(system).kept()
    _check_finite(tensors)
    check_promises(system.neuron, system.gate, tensors.constants, tensors.w_rec)
    _check_overrides(system, method)
    if not isinstance(kernels, str) or kernels not in KERNELS:
        raise ConfigurationError(f"kernels={kernels!r}", f"one of {list(KERNELS)}", 'kernels="auto"')
    dt = positive("dt", dt, "a positive step in ms", "dt=0.5")
    _check_step(system, tensors, dt)
    if isinstance(inputs, Stream):
        _check_stream(system, inputs)
        n_steps, batch = inputs.steps, inputs.batch
    else:
        _check_input(system, tensors, inputs)
        n_steps, batch = inputs.shape[:2]
    y0 = _initial_state(system, tensors, y0, batch)
    engine = _engine(system, tensors, method, dt, kernels)
    ts = torch.arange(n_steps + 1, dtype=tensors.w_rec.dtype, device=tensors.w_rec.device) * dt
    return chosen.run_gated(GatedProblem(engine, tensors, inputs, y0, ts))


def _initial_state(system: GatedSynapseNetwork, tensors: GatedTensors, y0: GatedState | None, batch: int) -> GatedState:
    if y0 is None:
        y0 = system.initial_state(batch)
        if system.neuron.threshold > 0.0:  # rest is below it
            return y0
    _check_state(system, y0, tensors.w_rec, batch)
    return y0


def _engine(system: GatedSynapseNetwork, tensors: GatedTensors, method: str, dt: float, kernels: str) -> Engine:
    if method == "euler":
        program = GatedEuler(system.neuron, system.gate, dt)
    else:
        program = GatedRungeKutta(system.neuron, system.gate, dt, TABLEAUS[method])
    engine = Engine(program, kernels)
    if kernels in LOOPS and (why := engine.obstacle(tensors)):
        raise ConfigurationError(
            f'kernels="{kernels}", but {why}', f"a network that the {kernels} loops cover", 'kernels="auto"'
        )
    return engine


def _check_stream(system: GatedSynapseNetwork, stream: Stream) -> None:
    if stream.channels != system.n_in:
        raise ConfigurationError(
            f"a stream of {stream.channels} channels", f"C_in = {system.n_in}", "a network with as many inputs"
        )


def _check_finite(tensors: GatedTensors) -> None:
    if all_finite(*tensors.flat()):
        return
    for name, x in zip(tensors.names(), tensors.flat(), strict=True):
        finite(name, x, "finite parameters", "a smaller learning rate or gradient clipping, if this happened in training")


def _check_overrides(system: GatedSynapseNetwork, method: str) -> None:
    if method != "euler" and not of_the_base(system.neuron, "reset"):
        raise ConfigurationError(
            f"{type(system.neuron).__name__}.reset with method={method!r}, whose resets inside the step (1.16) do not call it",
            "a membrane that overrides v_reset at most",
            'method="euler"',
        )
    if type(system).readout is not GatedSynapseNetwork.readout:
        raise ConfigurationError(
            f"{type(system).__name__}.readout, which a solve does not call",
            "o = W_out a_s",
            "another name for it, and sol.a_slow as its argument",
        )


def _check_step(system: GatedSynapseNetwork, tensors: GatedTensors, dt: float) -> None:
    times = {"tau_fast": tensors.tau_fast, "tau_slow": tensors.tau_slow}
    times |= {name: tensors.constants[name] for name in system.neuron.time_constants}
    if "v_reset" in tensors.constants:
        highest = float(tensors.constants["v_reset"].detach().max())
        zone = system.neuron.threshold - system.gate.width
        if highest > zone:
            raise ConfigurationError(
                f"v_reset={highest:g}",
                f"a reset below the active zone, at most {zone:g}",
                "net.project_(tau_min=...) after each step of the optimiser",
            )
    for name, tau in times.items():
        shortest = float(tau.detach().min())
        if shortest <= dt:
            raise ConfigurationError(
                f"dt={dt:g} ms with {name}={shortest:g} ms",
                "a step shorter than every time constant, and positive time constants",
                f"net.project_(tau_min={5 * dt:g}) after each step of the optimiser, or a shorter dt",
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
    same_kind("inputs", u, tensors.w_rec, "inputs.to(net.w_rec) or net.to(inputs)")
    finite("inputs", u, "finite inputs", "interpolating or dropping the gaps of the recording")


def _check_state(system: GatedSynapseNetwork, y0: GatedState, like: Tensor, batch: int) -> None:
    if not isinstance(y0, GatedState):
        raise ConfigurationError(
            f"y0 of type {type(y0).__name__}", "a GatedState of v, a_fast and a_slow", "net.initial_state(batch)"
        )
    shape = (batch, system.n_hidden)
    for name, x in zip(y0._fields, y0, strict=True):
        matches(f"y0.{name}", x, shape, like, "net.initial_state(batch)")
        finite(f"y0.{name}", x, "finite states", "net.initial_state(batch)")
    v, threshold = y0.v.detach(), system.neuron.threshold
    above = (v.abs() if system.neuron.two_sided else v) >= threshold
    if bool(above.any()):
        sample, neuron = (int(k) for k in above.nonzero()[0])
        raise ConfigurationError(
            f"y0.v[{sample}, {neuron}] = {v[sample, neuron]:g}, at or beyond the threshold {threshold:g}",
            "voltages below the threshold at the start",
            "clipping the initial voltages",
        )

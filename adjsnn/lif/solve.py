"""Solve a LIF network, event by event: every check of the arguments."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from adjsnn.checks import (
    Count,
    Number,
    Times,
    all_finite,
    at_end,
    count,
    duration,
    finite,
    finite_arrays,
    matches,
    positive,
    rounding,
    same_kind,
    times,
)
from adjsnn.errors import ConfigurationError
from adjsnn.kept import kept
from adjsnn.lif.adjoint import ClockedAdjoint, EventAdjoint, LIFAdjoint, has_clock, lif_adjoint
from adjsnn.lif.clocked_solution import ClockedSolution
from adjsnn.lif.drive import injected
from adjsnn.lif.engine import Kernels, choose
from adjsnn.lif.glif.body import is_ordinary
from adjsnn.lif.layer import Drive
from adjsnn.lif.network import LIFNetwork
from adjsnn.lif.problem import LIFProblem
from adjsnn.lif.readout import Readout
from adjsnn.lif.run import LIFTrial
from adjsnn.lif.shapes import lif_layers
from adjsnn.lif.solution import LIFSolution
from adjsnn.lif.structure import PER_SYNAPSE, RESETS, AdaptiveState, AnyState, LIFLayer, Structure, at_rest
from adjsnn.numerics.first_order import differentiated
from adjsnn.shapes import checked
from adjsnn.spikes import SpikeTrains

POSITIVE, NOT_NEGATIVE = "positive times", "times ≥ 0"
RULES = {  # of the parameters of a layer that only some numbers are possible for, what is expected
    "tau_adapt": POSITIVE, "tau_th": POSITIVE, "tau_follow": POSITIVE, "tau_mem": POSITIVE, "tau_syn": POSITIVE,
    "refractory": NOT_NEGATIVE, "v_reset": "a reset below v_th", "delays": NOT_NEGATIVE, "rec_delays": NOT_NEGATIVE,
}  # fmt: skip
RATE_LIMIT = 10.0  # spikes per ms of one neuron, over a whole trial, beyond which firing counts as run away


def solve_lif(
    system: LIFNetwork,
    inputs: SpikeTrains | Tensor,
    *,
    dt: Number | None = None,
    currents: Tensor | None = None,
    t_end: Number | None = None,
    ts: Times | None = None,
    adjoint: LIFAdjoint | ClockedAdjoint | None = None,
    y0: Sequence[AnyState] | None = None,
    max_spikes: Count | None = None,
    kernels: Kernels = "auto",
) -> LIFSolution | ClockedSolution:
    """Every spike of `system` in answer to input spikes, sampled input currents, or both, located to rounding; no time grid.

    Args:
        system: the network.
        inputs: spikes of its n_in inputs, checked again here; those after t_end do nothing, and times that have moved past
            each other are put in order. If `inputs.time` requires a gradient it gets one.
            Or u, (T, B, n_in), analog currents held constant over each of T steps of dt, (2.16): W_in u is added to the bias of
            the first layer, of K receptors Σ_k W_in[k] u. Delays do not apply to it. Spikes are located inside the steps as
            without them.
        dt: length of the steps of the currents, ms, and of the clock, where the adjoint is a learning rule that has one.
        currents: u where `inputs` are spikes.
        t_end: end of the trial, ms; default inputs.t_max, or with currents T dt, the only one possible.
        ts: sorted times in 0 … t_end at which voltages and currents are recorded, (T,), ms.
        adjoint: how gradients are computed: EventAdjoint(), the default, a rule of `adjsnn.rules`, or anything with the method
            of `adjsnn.lif.adjoint.LIFAdjoint`.
        y0: initial state of each layer, each field (B, N_l); default all zero. No neuron is refractory then, and no spike
            on its way.
        max_spikes: the most spikes of one neuron in one sample; default 1000 + 10 per ms.
        kernels: "auto", compiled loops, of a network on a GPU where it is (`adjsnn[cuda]`), if they cover it, else on the host,
            of which `stats.kernel_reason` tells; "fused" or "cuda", an error where those on the host or on a GPU cannot run;
            "plain", the same in plain numpy, event by event, slow and readable.

    Returns:
        LIFSolution, or a ClockedSolution by a rule on a clock. Gradients reach the network's parameters, input spike times,
        currents and y0, as far as they require one.

    Raises:
        ConfigurationError: arguments that cannot be right; says which.
        EventError: a neuron spikes more than max_spikes times; in the backward pass, the loss depends on a spike that touches
            its threshold without crossing it.
    """
    chosen = EventAdjoint() if adjoint is None else lif_adjoint(adjoint)
    layers = [layer.kept() for layer in lif_layers(system)]
    structures = _structures(system, layers, chosen)
    body, ran = choose(kernels, layers, any(x is not None for x in structures))
    _check_layers(layers)
    readout = _readout(system, layers)
    if isinstance(inputs, Tensor):
        if currents is not None:
            raise ConfigurationError("two tensors of currents", "spikes and currents, or one of them", "their sum")
        inputs, currents = _no_spikes(system, inputs), inputs
    _check_inputs(system, inputs)
    drive: Drive | None = None
    step: float | None = None
    eps = rounding(dt, t_end)
    device = layers[0].w_in.device
    edges = no_edges = torch.zeros(0, dtype=torch.float64, device=device)
    if currents is not None:
        t_end, step = _check_currents(system, layers[0].w_in, currents, inputs.batch, dt, t_end)
        drive = Drive(injected(currents, layers[0], system.structure[0]), step)
        edges = step * torch.arange(1, len(currents), dtype=torch.float64, device=device)
    elif has_clock(chosen):
        step = None if dt is None else positive("dt", dt, "the length of a step, a positive time in ms", "dt=0.1")
    elif dt is not None:
        raise ConfigurationError("dt for a LIF network without analog currents", "none: it has no grid", "leaving it out")
    end = duration("t_end", inputs.t_max if t_end is None else t_end)
    probes = _times(ts, end, max(eps, rounding(ts))).to(device)
    if has_clock(chosen) and max_spikes is not None:
        raise ConfigurationError("max_spikes on a clock", "none: a neuron spikes once in a step", "leaving it out")
    limit = _limit(max_spikes, end)
    rest = [
        at_rest((inputs.batch, n), own, (layer.v_th, layer.tau_adapt, layer.tau_th, layer.tau_follow))
        for n, own, layer in zip(system.layers, system.structure, layers, strict=True)
    ]
    if y0 is None:
        own = getattr(system.initial_state, "__func__", None) is not LIFNetwork.initial_state
        y0 = system.initial_state(inputs.batch) if own else rest  # of a user's own, which may be anything
    if y0 is not rest or _starts_above(layers):
        _check_state(layers, y0, rest)
        rest = [state._make(map(kept, state)) for state in y0]
    first, source, time = _columns(inputs, end, eps)
    trial = LIFTrial(first, source, end, probes, limit, body, edges, no_edges.view(0, 0, 0), no_edges, structures, [])
    return chosen.run_lif(LIFProblem(trial, layers, time, rest, drive, readout, ran, step))


def _check_layers(layers: list[LIFLayer]) -> None:
    for k, layer in enumerate(layers):
        others = [x for name in PER_SYNAPSE if (x := getattr(layer, name)) is not None]
        if not (all_finite(*others) and finite_arrays([*layer.constants.values()])):
            remedy = "a smaller learning rate or gradient clipping, if this happened in training"
            for name, x in layer._asdict().items():
                if x is not None:
                    finite(f"{name}[{k}]", x, "finite parameters", remedy)
        for name, expected in RULES.items():
            x = getattr(layer, name)
            if x is None or not x.numel():
                continue
            values = x.numpy(force=True) if name in PER_SYNAPSE else layer.constants[name]
            least = np.minimum.reduce(layer.constants["v_th"] - values if name == "v_reset" else values, None)
            if not (least >= 0.0 if expected == NOT_NEGATIVE else least > 0.0):
                raise ConfigurationError(
                    f"{name}[{k}] from {values.min():g} to {values.max():g}",
                    expected,
                    "lif.project_() after each step of the optimiser",
                )


def _structures(
    system: LIFNetwork, layers: list[LIFLayer], chosen: LIFAdjoint | ClockedAdjoint
) -> tuple[Structure | None, ...]:
    """Of each generalised layer, which only an adjoint that knows them solves; on a clock some do those that adapt."""
    own = [None if is_ordinary(layer, x) else x for layer, x in zip(layers, system.structure, strict=True)]
    if getattr(chosen, "generalised", False):
        return tuple(own)
    adapts = bool(getattr(chosen, "adaptive", False))
    for k, x in enumerate(own):
        if x is None:
            continue
        layer = layers[k]
        refused = {
            "receptors": x.receptors is not None,
            "a list of synapses": x.synapses is not None or x.rec_synapses is not None,
            "no leak": not x.leak,
            "a threshold that follows the voltage": layer.tau_follow is not None,
            "spike-triggered currents": not adapts and layer.tau_adapt is not None,
            "a moving threshold": not adapts and layer.tau_th is not None,
            f"reset={x.reset:g}": not adapts and x.reset != 0.0,
        }
        seen = [name for name, there in refused.items() if there]
        if seen:
            raise ConfigurationError(
                f"layer {k} with {', '.join(seen)}, by {type(chosen).__name__}",
                "a layer of (5.1) and (5.1a), which may adapt" if adapts else "an ordinary layer, (2.1) and (2.2)",
                "adjoint=adjsnn.EventAdjoint()",
            )
        if x.reset not in {0.0, RESETS.get(getattr(chosen, "reset", "to"))}:
            remedy = f'{type(chosen).__name__}(reset="by"), or' if x.reset == RESETS["by"] else 'reset="to" or "by", or'
            raise ConfigurationError(
                f"layer {k} with reset={x.reset:g} by {type(chosen).__name__}(reset={getattr(chosen, 'reset', 'to')!r})",
                "the reset of the rule, 0 to v_reset or 1 by v_th - v_reset",
                f"{remedy} adjoint=adjsnn.EventAdjoint()",
            )
    return tuple(own)


def _readout(system: LIFNetwork, layers: list[LIFLayer]) -> Readout | None:
    if system.w_out is None:
        return None
    w_out, shape = checked("w_out", system.w_out, layers[0].w_in), (system.n_out, system.layers[-1])
    if w_out.shape != shape:
        raise ConfigurationError(f"w_out of shape {tuple(w_out.shape)}", f"{shape}, (n_out, N)", "a parameter of that shape")
    finite("w_out", w_out, "finite parameters", "a smaller learning rate")
    tau = positive("tau_out", system.tau_out, "a positive finite number of ms; it is not learnt", "lif.tau_out = 20.0")
    return Readout(kept(w_out), tau)


def _check_inputs(system: LIFNetwork, x: SpikeTrains) -> None:
    if not isinstance(x, SpikeTrains):
        raise ConfigurationError(
            f"inputs of type {type(x).__name__} for a LIF network",
            "adjsnn.SpikeTrains, or a tensor (T, B, n_in) of currents",
            "SpikeTrains.from_list or from_dense",
        )
    if x.n_neurons != system.n_in:
        raise ConfigurationError(
            f"input spikes of {x.n_neurons} neurons", f"n_in = {system.n_in}", "a network with as many inputs"
        )
    x.check(ordered=False)
    if x.batch < 1:
        raise ConfigurationError("an empty batch", "at least one sample", "leaving empty batches out")
    if bool((x.sign.numpy(force=True) < 0).any()):
        raise ConfigurationError("input spikes of negative sign", "spikes of sign +1", "a second set of inputs for them")


def _columns(x: SpikeTrains, end: float, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Input spikes in flat columns, in order of time as it is now: first (B+1,), neuron (S,), time (S,).

    A spike that is beyond the end by a rounding alone, of the dtypes of both, is at it.
    """
    idx, time = x.idx, x.time
    t = time.numpy(force=True)
    if bool((t[:, 1:] < t[:, :-1]).any()):  # moved past each other since the trains were made
        time, order = time.sort(dim=1, stable=True)
        t, idx = time.numpy(force=True), idx.gather(1, order)
    neuron = idx.numpy(force=True)
    real = neuron >= 0
    first = np.zeros(len(real) + 1, np.int64)
    real.sum(1).cumsum(out=first[1:])
    t = t[real]
    time = time[torch.from_numpy(real).to(time.device)] if differentiated(time) else torch.from_numpy(t).to(time.device)
    if len(t) and float(t.max()) > end:
        late = t.astype(np.float64) - end
        near = (late > 0.0) & (late <= max(eps, torch.finfo(time.dtype).eps) * end)
        if bool(near.any()):  # float64 holds the end itself; the shift has no gradient
            time = time.double() - torch.from_numpy(np.where(near, late, 0.0)).to(time.device)
    return torch.from_numpy(first).to(time.device), torch.from_numpy(neuron[real]).to(time.device), time


def _no_spikes(system: LIFNetwork, u: Tensor) -> SpikeTrains:
    """The absent input spikes of a solve whose inputs are currents alone."""
    if u.dim() != 3:
        raise ConfigurationError(f"currents of shape {tuple(u.shape)}", "(T, B, n_in): time first", "u.unsqueeze(1)")
    idx = torch.full((u.shape[1], 0), -1, dtype=torch.long, device=u.device)
    return SpikeTrains(idx, torch.zeros(idx.shape, dtype=torch.float64, device=u.device), system.n_in, 0.0)


def _check_currents(
    system: LIFNetwork, like: Tensor, u: Tensor, batch: int, dt: Number | None, t_end: Number | None
) -> tuple[float, float]:
    """t_end and dt, ms."""
    if not isinstance(u, Tensor):
        raise ConfigurationError(f"currents of type {type(u).__name__}", "a tensor (T, B, n_in)", "torch.as_tensor(currents)")
    if u.dim() != 3 or u.shape[0] < 1 or u.shape[1:] != (batch, system.n_in):
        raise ConfigurationError(
            f"currents of shape {tuple(u.shape)}", f"(T, B, n_in) = (T, {batch}, {system.n_in}), T ≥ 1", "u.unsqueeze(1)"
        )
    same_kind("currents", u, like, "u.to(lif.w_in[0])")
    finite("currents", u, "finite currents", "checking where they come from")
    near = max(1e-9, 2.0 * rounding(dt, t_end))
    if dt is None:
        raise ConfigurationError("dt=None for analog currents", "the length of their steps in ms", "dt=0.5")
    dt = positive("dt", dt, "the length of the currents' steps, a positive time in ms", "dt=0.5")
    length = len(u) * dt
    if t_end is None:
        return length, dt
    end = duration("t_end", t_end)
    if not math.isclose(end, length, rel_tol=near):
        raise ConfigurationError(
            f"t_end={t_end!r} for {len(u)} steps of {dt:g} ms", f"T dt = {length:g} ms", "leaving it out, or other currents"
        )
    return end, dt


def _times(ts: Times | None, t_end: float, eps: float) -> Tensor:
    """Sorted times in 0 … t_end, and t_end after them; one at a rounding of t_end is t_end."""
    last = torch.from_numpy(np.array([t_end]))
    if ts is None:
        return last
    remedy = "ts=torch.linspace(0.0, t_end, 61)"
    probes = at_end(times("ts", ts, "sorted times, (T,)", remedy).cpu(), t_end, eps)
    if not bool((probes[1:] >= probes[:-1]).all()):
        raise ConfigurationError(f"unsorted ts of shape {tuple(probes.shape)}", "sorted times, (T,)", remedy)
    if len(probes) and not 0.0 <= float(probes.min()) <= float(probes.max()) <= t_end:
        raise ConfigurationError(
            f"ts from {float(probes.min()):.9g} to {float(probes.max()):.9g} ms",
            f"times from 0 to t_end = {t_end:.9g} ms",
            "a larger t_end",
        )
    return torch.cat([probes, last])


def _limit(max_spikes: Count | None, t_end: float) -> int:
    if max_spikes is None:
        return int(1000 + RATE_LIMIT * t_end)
    return count("max_spikes", max_spikes, 1, "an integer ≥ 1, or None", "max_spikes=1000")


def _starts_above(layers: list[LIFLayer]) -> bool:
    """Whether a neuron at rest is at its threshold or above."""
    return any(np.minimum.reduce(layer.constants["v_th"], None) <= 0.0 for layer in layers)


def _check_state(layers: list[LIFLayer], y0: Sequence[AnyState], at_rest: list[AnyState]) -> None:
    if not isinstance(y0, Sequence) or len(y0) != len(layers) or not all(isinstance(state, AnyState) for state in y0):
        raise ConfigurationError(
            f"y0 of type {type(y0).__name__}", "a LIFState for each layer, or an AdaptiveState", "lif.initial_state(batch)"
        )
    like = layers[0].w_in
    for k, (state, layer, rest) in enumerate(zip(y0, layers, at_rest, strict=True)):
        if type(state) is not type(rest):
            raise ConfigurationError(f"y0[{k}] of type {type(state).__name__}", type(rest).__name__, "lif.initial_state(batch)")
        for name, x in state._asdict().items():
            matches(f"y0[{k}].{name}", x, tuple(getattr(rest, name).shape), like, "lif.initial_state(batch)")
            finite(f"y0[{k}].{name}", x, "finite states", "lif.initial_state(batch)")
        threshold = layer.v_th.detach() + (state.h.detach().sum(1) if isinstance(state, AdaptiveState) else 0.0)
        above = state.v.detach() >= threshold
        if bool(above.any()):
            sample, neuron = (int(n) for n in above.nonzero()[0])
            raise ConfigurationError(
                f"y0[{k}].v[{sample}, {neuron}] = {float(state.v[sample, neuron].detach()):g}, at or above its threshold",
                "voltages below the threshold at the start",
                "clipping the initial voltages",
            )

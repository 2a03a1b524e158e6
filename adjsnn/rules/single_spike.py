"""Networks of non-leaky neurons that spike once, in closed form by causal sets, equation (5.7)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.errors import ConfigurationError
from adjsnn.lif.layer import Events, LayerRun
from adjsnn.lif.problem import LIFProblem
from adjsnn.lif.run import LayerResult
from adjsnn.lif.solution import LIFSolution
from adjsnn.lif.structure import LIFLayer, LIFState
from adjsnn.numerics.first_order import FirstOrder, first_order, laid_out
from adjsnn.rules.stated import LAYER_ERROR, OTHERS, OWN, Stated

LEAKLESS = 1e12  # τ_m over the length of a trial, from which on a leak is none: v loses less than 1e-12 of itself
ENTRIES = 2**21  # arrivals times neurons that are looked at together
COVERED = ("w_in", "tau_mem", "tau_syn", "v_th", "delays")  # what may learn
EVENT = "adjoint=adjsnn.EventAdjoint(), which has all of it"


@dataclass(frozen=True)
class SingleSpike:
    """First spike times of non-leaky neurons from their causal sets, and the exact gradient by differentiating these (5.7).

    Mostafa 2018. With z = e^{t/τ_s} the time of a neuron's spike is a quotient of sums over the arrivals before it. They are
    taken in one after the other, until the spike that they cause lies before the next. Spike times and gradients are those of
    `EventAdjoint` on the same network to rounding, found another way: a judge.

    A neuron leaks nothing with leak=False, or where tau_mem ≥ 1e12 t_end; weights and v_th then stand as w_in/tau_mem to v_th,
    τ_m v̇ = i. It spikes once where refractory ≥ t_end. Any number of input spikes may arrive.

    Raises:
        ConfigurationError: in a solve, what has no such closed form: neurons that leak or may spike twice, recurrence, a bias,
            currents, a readout or times ts; a bias, a reset or refractory times that learn; in the backward pass, a loss of
            the final state.
    """

    stated: ClassVar[Stated] = Stated(
        "nothing; only neurons without leak, one spike each (5.7)",
        (OWN, LAYER_ERROR, OTHERS),
        "a spike time and the size of a causal set for each neuron, B N",
        "arrivals times neurons",
    )

    generalised: ClassVar[bool] = True  # neurons without leak; others it refuses itself

    def run_lif(self, problem: LIFProblem) -> LIFSolution:
        """Solve in closed form; gradients are those of the closed form."""
        _check(problem)
        leaks = [x is None for x in problem.trial.structures]
        layers = [
            x if y else x._replace(tau_mem=torch.ones_like(x.tau_mem)) for x, y in zip(problem.layers, leaks, strict=True)
        ]
        problem = replace(problem, layers=layers)  # v̇ = i is τ_m v̇ = i with τ_m = 1 ms
        trial, results = problem.trial, list[LayerResult]()
        inputs, time = problem.inputs, problem.time
        for layer, start in zip(problem.layers, problem.y0, strict=True):
            runs: list[LayerRun] = []
            solved: Any = _Layer.apply(trial.t_end, inputs, runs, time, *layer, *start)
            time, v, i = solved
            results.append(LayerResult(time.to(layer.w_in, copy=True), v, i, runs[0]))
            inputs = runs[0].spikes
        return replace(problem, ran=Ran("plain", "the closed form (5.7), by torch operations")).solution(results)


def _check(problem: LIFProblem) -> None:
    """Refuse what has no closed form."""
    trial = problem.trial
    asked = problem.ran.kernel
    if asked != "plain" and problem.ran.reason == f'kernels="{asked}"':
        raise _uncovered(problem.ran.reason, "no loops: it is torch operations", 'kernels="auto"')
    for there, seen in (
        (problem.drive is not None, "analog currents"),
        (problem.readout is not None, "a readout"),
        (len(trial.probes) > 1, "states at times ts"),
    ):
        if there:
            raise _uncovered(seen, "spikes, and a loss of their times", EVENT)
    for k, layer in enumerate(problem.layers):
        if layer.w_rec is not None:
            raise _uncovered(f"recurrent weights in layer {k}", "layers one after the other", EVENT)
        if bool(layer.bias.any()):
            raise _uncovered(f"a bias in layer {k}", "bias=0.0, since v is driven by spikes alone", "an input that spikes at 0")
        own = trial.structures[k]
        if own is not None and (own.leak or not own._replace(leak=True).ordinary or layer.adaptive):
            raise _uncovered(f"layer {k}, more than a leak away from an ordinary one", "ordinary layers, or leak=False", EVENT)
        least = float(layer.tau_mem.detach().min())
        if own is None and least < LEAKLESS * trial.t_end:
            raise _uncovered(
                f"tau_mem[{k}] of {least:g} ms, neurons that leak",
                f"tau_mem ≥ {LEAKLESS:g} t_end = {LEAKLESS * trial.t_end:g} ms, with w_in in proportion",
                EVENT,
            )
        once = float(layer.refractory.detach().min())
        if once < trial.t_end:
            raise _uncovered(
                f"refractory[{k}] of {once:g} ms, neurons that may spike twice",
                f"refractory ≥ t_end = {trial.t_end:g} ms",
                f"refractory={trial.t_end:g}",
            )
        learnt = [name for name, x in layer._asdict().items() if x is not None and x.requires_grad and name not in COVERED]
        if learnt:
            raise _uncovered(f"{learnt[0]}[{k}] that learns", "weights, delays, v_th and time constants that learn", EVENT)


def _uncovered(seen: str, expected: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"{seen}, by SingleSpike", expected, remedy)


class _Arrivals(NamedTuple):
    """What arrives at some samples, in order of time: K arrivals, the same for all neurons unless delays are per synapse.

    Attributes:
        time: (K, B, 1 or N), ms; inf in the padding.
        spike: (K, B, 1 or N), number of the spike in the flat columns; 0 in the padding.
        synapse: (K, B, N), number of the synapse, n M + m.
    """

    time: Tensor
    spike: Tensor
    synapse: Tensor


def _parts(inputs: Events, layer: LIFLayer) -> Iterator[tuple[slice, _Arrivals]]:
    """Arrivals, of as many samples together as fit."""
    n, m = layer.w_in.shape
    first, neurons = inputs.first, torch.arange(n, device=inputs.first.device)
    most = max(1, int(first.diff().max()))
    size = max(1, ENTRIES // (most * n))
    delays = None if layer.delays is None else layer.delays.detach().double()
    for start in range(0, inputs.batch, size):
        part = slice(start, min(start + size, inputs.batch))
        begin, count = first[:-1][part], first.diff()[part]
        k = torch.arange(int(count.max()), device=first.device)[:, None]
        real = k < count
        spike = torch.where(real, begin + k, 0)[:, :, None]
        source = inputs.neuron[spike]
        time = torch.where(real[:, :, None], inputs.time[spike], torch.inf)
        if delays is not None:
            time = time + (delays[source] if delays.dim() == 1 else delays[neurons, source])
        time, order = time.sort(dim=0, stable=True)
        spike, source = (x.expand(time.shape).gather(0, order) for x in (spike, source))
        yield part, _Arrivals(time, spike, neurons * m + source)


class _Found(NamedTuple):
    """What was found of each neuron: its spike time, inf without; the size of its causal set; i at the spike; the end."""

    time: Tensor
    causes: Tensor
    current: Tensor
    v: Tensor
    i: Tensor


def _first_spikes(layer: LIFLayer, start: LIFState, arrivals: _Arrivals, t_end: float) -> _Found:
    """Causal sets, one arrival after the other: the first whose spike lies before the next arrival, or before the end.

    Between arrivals x = v τ_m/τ_s goes from x_k to x_k + i_k (1 - e^{-s/τ_s}), i_k = Σ_C w e^{-(t_k - t_m)/τ_s}, and
    x_k + i_k = x_0 + Σ_C w, where C has i(0) at 0. So it is at θ = v_th τ_m/τ_s after s = -τ_s log(1 - (θ - x_k)/i_k), which is
    (5.7) with t_k as the origin of time: nothing overflows, and what is small is not a difference. Whether it gets there is
    asked of the same x as the next interval starts from, so that no spike falls between two.
    """
    w = layer.w_in.detach().double().flatten()
    tau, tau_mem, v_th = (x.detach().double() for x in (layer.tau_syn, layer.tau_mem, layer.v_th))
    theta = v_th * tau_mem / tau
    k, batch, n = arrivals.synapse.shape
    x, i = start.v.detach().double() * tau_mem / tau, start.i.detach().double()
    current, time, now = torch.zeros_like(x), torch.full_like(x, torch.inf), torch.zeros_like(x)
    causes = torch.zeros_like(x, dtype=torch.long)
    for row in range(k + 1):
        until = arrivals.time[row].clamp(max=t_end).expand(batch, n) if row < k else torch.full_like(x, t_end)
        gap = (until - now) / tau
        after = x - i * torch.expm1(-gap)
        fires = time.isinf() & (after >= theta) & (i > theta - x)  # the last is x_0 + Σ_C w > θ
        if bool(fires.any()):
            part = torch.where(fires, (theta - x) / i, 0.0).clamp(min=0.0)
            when = torch.minimum(now - torch.log1p(-part) * tau, until)
            # To the side of rounding where the threshold is reached, so that an interval that ends at a spike contains it.
            step = until * 2.0**-53
            while bool((low := fires & (when < until) & (x - i * torch.expm1((now - when) / tau) < theta)).any()):
                when, step = torch.where(low, torch.minimum(when + step, until), when), 2.0 * step
            time = torch.where(fires, when, time)
            causes = torch.where(fires, row, causes)
            current = torch.where(fires, i - (theta - x), current)
        x, i, now = after, i * torch.exp(-gap), until
        if row < k:
            i = i + torch.where(arrivals.time[row] <= t_end, w[arrivals.synapse[row]], 0.0)
    v = torch.where(time.isinf(), x * tau / tau_mem, layer.v_reset.detach().double())
    return _Found(time, causes, current, v, i)


class _Layer(FirstOrder):
    """A layer's spike times in flat columns (S,), and v and i at the end (1, B, N)."""

    @staticmethod
    def forward(ctx: Any, t_end: float, inputs: Events, runs: list[LayerRun], time: Tensor, *flat: Any) -> Any:
        layer, (v, i) = LIFLayer._make(flat[:-2]), flat[-2:]
        parts = [_first_spikes(layer, LIFState(v[part], i[part]), arrivals, t_end) for part, arrivals in _parts(inputs, layer)]
        found = _Found._make(torch.cat(x) for x in zip(*parts, strict=True))
        spikes, place = _in_order(found.time)
        current = found.current.flatten()[place]
        speed = current / layer.tau_mem.double()[spikes.neuron]
        runs.append(LayerRun(spikes, current, None, tuple(found[:3]), speed))
        ctx.inputs = inputs
        ctx.save_for_backward(time, *found[:3], place, *flat)
        ctx.set_materialize_grads(False)
        return spikes.time.clone(), found.v[None].to(layer.w_in), found.i[None].to(layer.w_in)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return _backward(ctx, *cotangents)


def _in_order(time: Tensor) -> tuple[Events, Tensor]:
    """Spikes in flat columns, in order of time within a sample; and the place of each among all neurons of all samples."""
    ordered, neuron = time.sort(dim=1, stable=True)
    there = ordered.isfinite()
    first = torch.nn.functional.pad(there.sum(1).cumsum(0), (1, 0))
    sample = there.nonzero()[:, 0]
    return Events(first, ordered[there], neuron[there]), sample * time.shape[1] + neuron[there]


@first_order
def _backward(ctx: Any, c_time: Any, c_v: Tensor | None, c_i: Tensor | None) -> tuple[Tensor | None, ...]:
    if c_v is not None or c_i is not None:
        raise ConfigurationError("a loss of the final state, by SingleSpike", "one of spike times", EVENT)
    time, when, causes, current, place, *flat = ctx.saved_tensors
    layer, start, inputs = LIFLayer._make(flat[:-2]), LIFState(*(x.double() for x in flat[-2:])), ctx.inputs
    told = torch.zeros_like(when).flatten().index_put((place,), c_time).view(when.shape)
    tau, tau_mem, v_th = (x.double() for x in (layer.tau_syn, layer.tau_mem, layer.v_th))
    w = layer.w_in.double().flatten()
    per_current = torch.where(told != 0.0, told / current, 0.0)  # dC/dt over i at the spike
    d_w, d_time = torch.zeros_like(w), torch.zeros_like(inputs.time)
    d_delays = None if layer.delays is None else torch.zeros_like(layer.delays, dtype=torch.float64).flatten()
    age = torch.where(told != 0.0, when / tau, 0.0)
    d_i, way = tau * torch.expm1(-age) * per_current, v_th - start.v
    # d/dτ_s, the parts of the threshold and of i(0), to which comes that of each arrival
    charge = per_current * (age * start.i * torch.exp(-age) - way * tau_mem / tau)
    for part, whole in _parts(inputs, layer):
        arrivals = _Arrivals._make(x[: int(causes[part].max())] for x in whole)
        k = torch.arange(len(arrivals.time), device=w.device)[:, None, None]
        age = torch.where(k < causes[part], (when[part] - arrivals.time) / tau, 0.0)
        among = torch.where(k < causes[part], per_current[part], 0.0)
        d_w.index_add_(0, arrivals.synapse.flatten(), (tau * torch.expm1(-age) * among).flatten())
        moved = w[arrivals.synapse] * torch.exp(-age) * among
        charge[part] += (age * moved).sum(0)
        together = moved.sum(2, keepdim=True) if arrivals.spike.shape[2] == 1 else moved
        d_time.index_add_(0, arrivals.spike.flatten(), together.flatten())
        if d_delays is not None:
            axons = arrivals.synapse if len(d_delays) == len(w) else arrivals.synapse % layer.w_in.shape[1]
            d_delays.index_add_(0, axons.flatten(), moved.flatten())
    gradients: dict[str, Tensor | None] = {
        "w_in": d_w,
        "tau_mem": (per_current * way).sum(0),
        "tau_syn": charge.sum(0),
        "v_th": (per_current * tau_mem).sum(0),
        "delays": d_delays,
        "v": -per_current * tau_mem,
        "i": d_i,
    }
    shaped = [
        None if (g := gradients.get(name)) is None else g.view(x.shape).to(x)
        for name, x in zip((*LIFLayer._fields, *LIFState._fields), flat, strict=True)
    ]
    return None, None, None, *laid_out((d_time.to(time), *shaped), (time, *flat))

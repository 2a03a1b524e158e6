"""e-prop: eligibility traces of each neuron's own dynamics, times learning signals from the readout, equation (5.8)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.checks import Count, Number, count, flag, kind, positive
from adjsnn.errors import ConfigurationError
from adjsnn.lif.clocked import RESETS, ClockedLayer, ClockedRun, Reset, clocked_layer
from adjsnn.lif.clocked_problem import clocked_solution, grid, input_spikes, solve_clocked
from adjsnn.lif.clocked_solution import ClockedSolution
from adjsnn.lif.problem import LIFProblem
from adjsnn.lif.structure import AnyState
from adjsnn.numerics.first_order import FirstOrder, first_order
from adjsnn.rules.stated import OUTPUT_ERROR, OWN, Stated
from adjsnn.rules.surrogates import FastSigmoid, Surrogate

COVERED = ("w_in", "w_rec", "bias")


@dataclass(frozen=True)
class EProp:
    """Each synapse keeps a trace of how it moves its own neuron; the readout's error tells it which way to go (5.8).

    For one layer with a readout. The trace, ε_v = ∂v_n/∂w_nm along the neuron's own dynamics alone, goes forward with the
    steps; what a spike of the neuron does to other neurons is left out. What it does to its own neuron's spike-triggered
    currents and threshold is not: of each of these a synapse keeps a trace more (5.8a). Bellec et al. 2020. In memory traces
    are weights times samples, O(N²), whatever the length of the trial. Since a loss is known only after the solve, traces go
    forward in the backward pass, along the spikes that are stored. What a loss says of a neuron's own spikes, such as a price
    on activity, is told to that neuron alone.

    Args:
        surrogate: σ′ (5.2).
        feedback: "symmetric", the learning signal goes through w_out, or "random", through a fixed Gaussian matrix of its
            shape.
        seed: of that matrix; the same at every solve.
        scale: its standard deviation is scale/√n_out.
        reset: as of `SurrogateBPTT`.
        through_reset: whether the trace knows that a spike resets its neuron.

    Raises:
        ConfigurationError: another kind of value; in a solve, more than one layer, no readout, or something that learns but
            weights and biases; in the backward pass, a loss of voltages or currents.
    """

    surrogate: Surrogate = field(default_factory=FastSigmoid)
    feedback: Literal["symmetric", "random"] = "symmetric"
    seed: Count = 0
    scale: Number = 1.0
    reset: Reset = "to"
    through_reset: bool = False

    clocked = adaptive = True  # solves in steps of dt, and layers that adapt
    stated: ClassVar[Stated] = Stated(
        "that and what a spike does to other neurons through W_rec (5.8)",
        (OWN, OUTPUT_ERROR),
        "a trace of each synapse, B W, one more for each adaptation of its neuron, for any T",
        "B T W",
    )

    def __post_init__(self) -> None:
        kind("surrogate", self.surrogate, Surrogate)
        for name, known in (("reset", RESETS), ("feedback", ("symmetric", "random"))):
            if (value := getattr(self, name)) not in known:
                raise ConfigurationError(f"{name}={value!r}", f"one of {list(known)}", f'{name}="{known[0]}"')
        object.__setattr__(self, "seed", count("seed", self.seed, 0))
        object.__setattr__(self, "scale", positive("scale", self.scale, "a positive number", "scale=1.0"))
        object.__setattr__(self, "through_reset", flag("through_reset", self.through_reset))

    def run_lif(self, problem: LIFProblem) -> ClockedSolution:
        """Solve on the clock; gradients are the rule's."""
        if len(problem.layers) != 1 or problem.readout is None:
            raise ConfigurationError(
                f"{len(problem.layers)} layers {'without' if problem.readout is None else 'with'} a readout, by EProp",
                "one layer with a readout, LIFNetwork(n_in, N, n_out=...)",
                "FeedbackAlignment(recurrent='cut') for several layers",
            )
        layer, w_out = problem.layers[0], problem.readout.w_out
        others = [name for name, x in layer._asdict().items() if x is not None and x.requires_grad and name not in COVERED]
        if others or any(x.requires_grad for state in problem.y0 for x in state):
            raise ConfigurationError(
                f"gradients of {', '.join(others) or 'initial states'}, by EProp",
                "weights and biases",
                "SurrogateBPTT(), which has all of them",
            )
        drive = None if problem.drive is None else problem.drive.values
        results: Any = _Traced.apply(self, problem, layer.w_in, layer.w_rec, layer.bias, w_out, drive)
        *run, sent = results
        ran = Ran("plain", "traces are carried forward by torch operations")
        return clocked_solution(problem, [ClockedRun(*run)], ran, sent=sent)

    def back(self, w_out: Tensor) -> Tensor:
        """What brings the error of the readout to the neurons, (n_out, N)."""
        if self.feedback == "symmetric":
            return w_out
        noise = torch.randn(w_out.shape, generator=torch.Generator().manual_seed(int(self.seed)), dtype=torch.float64)
        return (noise * (float(self.scale) / len(w_out) ** 0.5)).to(w_out)


class _Traced(FirstOrder):
    @staticmethod
    def forward(ctx, rule, problem, w_in, w_rec, bias, w_out, drive):
        sol = solve_clocked(problem, rule.surrogate, rule.reset, rule.through_reset)
        run = sol._runs[0].each(Tensor.detach)
        ctx.rule, ctx.problem = rule, problem
        ctx.save_for_backward(w_rec, rule.back(w_out).detach().clone(), run.spikes, run.peak)
        ctx.set_materialize_grads(False)
        return *run, torch.nn.functional.linear(run.spikes, w_out)

    @staticmethod
    def backward(ctx, *cotangents):
        return _backward(ctx, *cotangents)


@first_order
def _backward(ctx, c_spikes, *others):
    *c_states, error = others
    if any(x is not None for x in c_states):
        raise ConfigurationError(
            "a loss of voltages or currents, by EProp",
            "one of the readout and of spikes",
            "SurrogateBPTT(), which has the gradient of all",
        )
    rule, problem = ctx.rule, ctx.problem
    w_rec, back, spikes, peak = ctx.saved_tensors
    dt, steps = grid(problem)
    layer = clocked_layer(problem.layers[0], dt, first=True)
    signal = torch.zeros_like(spikes) if error is None else error @ back  # of each neuron at each step
    signal = signal if c_spikes is None else signal + c_spikes
    traces = [_Synapses(layer, layer.w_in, layer.lags, input_spikes(problem, dt, steps))]
    if w_rec is not None and layer.rec_lags is not None:
        traces.append(_Synapses(layer, w_rec, layer.rec_lags, spikes))
    of_bias, own = _Trace(layer, len(peak[0]), 1), list[_Step]()  # of each step, for currents
    for n, step in enumerate(_steps(rule, layer, problem.y0[0], spikes, peak)):
        told = signal[n] * step.slope
        of_bias.step(step, told, 1.0 - layer.beta)
        for trace in traces:
            trace.arrive(n, step, told)
        if ctx.needs_input_grad[6]:
            own.append(step)
    d_w_in, d_w_rec, d_bias = traces[0].total, traces[1].total if len(traces) > 1 else None, of_bias.total[:, 0]
    d_w_out = None if error is None else torch.einsum("tbc,tbn->cn", error, spikes)
    return None, None, d_w_in, d_w_rec, d_bias, d_w_out, _to_currents(layer, own, signal) if own else None


class _Adapted(NamedTuple):
    """Derivatives of a step of what spikes trigger: ∂a⁺/∂a but through S, ∂a⁺/∂S, (B, J, N), and the same of h, (B, H, N)."""

    kept_a: Tensor
    of_spike_a: Tensor
    kept_h: Tensor
    of_spike_h: Tensor


class _Step(NamedTuple):
    """Derivatives of a step along each neuron's own dynamics, (B, N).

    Attributes:
        slope: σ′, 0 of a neuron that is held.
        kept: ∂v⁺/∂v but through S.
        through: ∂v⁺/∂S σ′; None where the gradient through the reset is cut.
        free: 1 where v flows on to the next step, else 0.
        adapted: None of a layer without adaptation.
    """

    slope: Tensor
    kept: Tensor
    through: Tensor | None
    free: Tensor
    adapted: _Adapted | None


def _steps(rule: EProp, layer: ClockedLayer, start: AnyState, spikes: Tensor, peak: Tensor) -> Iterator[_Step]:
    """Of each step in turn; what spikes trigger is found again from them."""
    (_, _, *adapted), own = start, layer.own
    held = torch.zeros_like(peak[0], dtype=torch.long)
    for s, v in zip(spikes, peak, strict=True):
        threshold = layer.v_th if own is None else own.threshold(layer.v_th, adapted[1])
        slope = rule.surrogate.derivative(v - threshold) * (held == 0)
        to = layer.v_reset - (v if rule.reset == "to" else layer.v_th)
        held, of = torch.where(s > 0, layer.hold, (held - 1).clamp(min=0)), None
        if own is not None:
            a, h = adapted
            kept_a, kept_h = (1.0 + s[:, None] * (scale - 1.0) for scale in (own.scale_a, own.scale_h))
            of = _Adapted(kept_a, own.of_spike_a(a), kept_h, own.of_spike_h(h))
            a, h = own.after(s, a, h)
            adapted = [own.decay_a * a, own.decay_h * h]
        kept = 1.0 - s if rule.reset == "to" else torch.ones_like(s)
        yield _Step(slope, kept, slope * to if rule.through_reset else None, (held == 0).to(s), of)


def _to_currents(layer: ClockedLayer, own: list[_Step], signal: Tensor) -> Tensor:
    """What is told of the currents of each step, (T, B, N): what is told of spikes, back along the neuron's own dynamics.

    The currents are W_in u, whose weights are outside; the sum over traces of each of them is this one.
    """
    late, found, adaptation = torch.zeros_like(signal[0]), list[Tensor](), layer.own
    late_a = late_h = late[:, None]
    for n in range(len(own) - 1, -1, -1):
        step = own[n]
        told = signal[n] * step.slope
        if step.through is not None:
            told = told + step.through * late
        if step.adapted is not None:
            told = told + step.slope * ((late_a * step.adapted.of_spike_a).sum(1) + (late_h * step.adapted.of_spike_h).sum(1))
        costate = step.kept * late + told
        if not n:
            break
        free = own[n - 1].free
        found.append(costate * free * (1.0 - layer.beta))
        late = costate * (1.0 + free * (layer.beta - 1.0))
        if adaptation is not None and step.adapted is not None:
            late_a = adaptation.decay_a * step.adapted.kept_a * late_a + adaptation.gain_a * (free * costate)[:, None]
            late_h = adaptation.decay_h * (step.adapted.kept_h * late_h - told[:, None])
    return torch.stack(found[::-1])


class _Trace:
    """How something of each neuron moves it: ε_v, (B, N, M), ε_a and ε_h, (B, C, N, M), and the gradient so far, (N, M)."""

    def __init__(self, layer: ClockedLayer, batch: int, width: int) -> None:
        self.layer, n = layer, len(layer.v_th)
        self.total = layer.v_th.new_zeros(n, width)
        rows = (0, 0) if layer.own is None else (len(layer.own.decay_a), len(layer.own.decay_h))
        self.v = self.total.new_zeros(batch, n, width)
        self.a, self.h = (self.total.new_zeros(batch, k, n, width) for k in rows)

    def step(self, step: _Step, told: Tensor, gain: Tensor, source: Tensor | None = None) -> None:
        """Add what a step is told, and move on to the next, in which gain times `source`, or gain, is added to v."""
        own, of = self.layer.own, step.adapted
        kept, free = step.kept[:, :, None], step.free[:, :, None]
        flow, gain = 1.0 + free * (self.layer.beta[:, None] - 1.0), free * gain[:, None]
        through = None if step.through is None else step.through[:, :, None]
        added = gain if source is None else gain * source
        if own is None or of is None:
            self.total += torch.einsum("bn,bnm->nm", told, self.v)
            self.v = self.v * ((kept if through is None else kept + through) * flow) + added
            return
        over = self.v - self.h.sum(1)  # how v - θ moves
        self.total += torch.einsum("bn,bnm->nm", told, over)
        spike = (step.slope[:, :, None] * over)[:, None]
        a = of.kept_a[..., None] * self.a + of.of_spike_a[..., None] * spike
        h = of.kept_h[..., None] * self.h + of.of_spike_h[..., None] * spike
        v = kept * self.v if through is None else kept * self.v + through * over
        self.v = flow * v + added + free * (own.gain_a[:, :, None] * a).sum(1)
        self.a, self.h = own.decay_a[:, :, None] * a, own.decay_h[:, :, None] * h


class _Synapses(_Trace):
    """The eligibility of a layer's synapses, with ε_i, (B, N, M)."""

    def __init__(self, layer: ClockedLayer, w: Tensor, lags: Tensor, sent: Tensor) -> None:
        super().__init__(layer, sent.shape[1], w.shape[1])
        self.sent = sent
        self.lags = lags.expand(w.shape) if lags.dim() == 1 else lags
        self.i = torch.zeros_like(self.v)
        self.found = sorted(set(lags.flatten().tolist()))

    def arrive(self, n: int, step: _Step, told: Tensor) -> None:
        """Step n, after what arrives in it."""
        for lag in self.found:
            if lag <= n:
                self.i += self.sent[n - lag][:, None, :] * (self.lags == lag)
        self.step(step, told, self.layer.kappa, self.i)
        self.i = self.layer.alpha[:, None] * self.i

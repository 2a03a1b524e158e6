"""e-prop: eligibility traces of each neuron's own dynamics, times learning signals from the readout, equation (5.8)."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.checks import Count, Number, count, flag, kind, positive
from adjsnn.errors import ConfigurationError
from adjsnn.lif.clocked import RESETS, ClockedLayer, ClockedRun, Reset, clocked_layer
from adjsnn.lif.clocked_problem import clocked_solution, grid, input_spikes, solve_clocked
from adjsnn.lif.clocked_solution import ClockedSolution
from adjsnn.lif.problem import LIFProblem
from adjsnn.numerics.first_order import FirstOrder, first_order
from adjsnn.rules.stated import OUTPUT_ERROR, OWN, Stated
from adjsnn.rules.surrogates import FastSigmoid, Surrogate

COVERED = ("w_in", "w_rec", "bias")


@dataclass(frozen=True)
class EProp:
    """Each synapse keeps a trace of how it moves its own neuron; the readout's error tells it which way to go (5.8).

    For one layer with a readout. The trace, ε_v = ∂v_n/∂w_nm along the neuron's own dynamics alone, goes forward with the
    steps; what a spike of the neuron does to other neurons is left out. Bellec et al. 2020. In memory traces are weights times
    samples, O(N²), whatever the length of the trial. Since a loss is known only after the solve, traces go forward in the
    backward pass, along the spikes that are stored. What a loss says of a neuron's own spikes, such as a price on activity, is
    told to that neuron alone.

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

    clocked = True  # solves in steps of dt
    stated: ClassVar[Stated] = Stated(
        "that and what a spike does to other neurons through W_rec (5.8)",
        (OWN, OUTPUT_ERROR),
        "a trace of each synapse, B W, for any T",
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
        (run,) = sol._runs
        ctx.rule, ctx.problem = rule, problem
        ctx.save_for_backward(w_rec, bias, rule.back(w_out).detach().clone(), run.spikes, run.peak)
        ctx.set_materialize_grads(False)
        return *(x.detach() for x in run), torch.nn.functional.linear(run.spikes, w_out)

    @staticmethod
    def backward(ctx, *cotangents):
        return _backward(ctx, *cotangents)


@first_order
def _backward(ctx, c_spikes, c_peak, c_v, c_i, error):
    if any(x is not None for x in (c_peak, c_v, c_i)):
        raise ConfigurationError(
            "a loss of voltages or currents, by EProp",
            "one of the readout and of spikes",
            "SurrogateBPTT(), which has the gradient of all",
        )
    rule, problem = ctx.rule, ctx.problem
    w_rec, bias, back, spikes, peak = ctx.saved_tensors
    dt, steps = grid(problem)
    layer = clocked_layer(problem.layers[0], dt, first=True)
    signal = torch.zeros_like(spikes) if error is None else error @ back  # of each neuron at each step
    signal = signal if c_spikes is None else signal + c_spikes
    traces = [_Trace(layer, layer.w_in, layer.lags, input_spikes(problem, dt, steps), 0)]
    if w_rec is not None and layer.rec_lags is not None:
        traces.append(_Trace(layer, w_rec, layer.rec_lags, spikes, 1))
    d_bias, of_bias = torch.zeros_like(bias), torch.zeros_like(peak[0])
    held = torch.zeros_like(peak[0], dtype=torch.long)
    own: list[tuple[Tensor, Tensor, Tensor]] = []  # of each step, for currents
    for n in range(steps + 1):
        s, x = spikes[n], peak[n] - layer.v_th
        slope = rule.surrogate.derivative(x) * (held == 0)
        to = layer.v_reset - (peak[n] if rule.reset == "to" else layer.v_th)
        stays = (1.0 - s if rule.reset == "to" else torch.ones_like(s)) + (slope * to if rule.through_reset else 0.0)
        held = torch.where(s > 0, layer.hold, (held - 1).clamp(min=0))
        free, told = (held == 0).to(s), signal[n] * slope
        d_bias += (told * of_bias).sum(0)
        of_bias = torch.where(held == 0, layer.beta * stays * of_bias + 1.0 - layer.beta, stays * of_bias)
        for trace in traces:
            trace.step(n, told, stays, free)
        if ctx.needs_input_grad[6]:
            own.append((told, stays * (1.0 + free * (layer.beta - 1.0)), free * (1.0 - layer.beta)))
    d_w_in, d_w_rec = traces[0].total, traces[1].total if len(traces) > 1 else None
    d_w_out = None if error is None else torch.einsum("tbc,tbn->cn", error, spikes)
    return None, None, d_w_in, d_w_rec, d_bias, d_w_out, _to_currents(own) if own else None


def _to_currents(own: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """What is told of the currents of each step, (T, B, N): what is told of v, back along the neuron's own dynamics.

    The currents are W_in u, whose weights are outside; the sum over traces of each of them is this one.
    """
    costate, found = own[-1][0], list[Tensor]()
    for told, stays, gain in own[-2::-1]:
        found.append(costate * gain)
        costate = told + costate * stays
    return torch.stack(found[::-1])


class _Trace:
    """The eligibility of a layer's synapses: ε_v and ε_i, (B, N, M), and the gradient so far."""

    def __init__(self, layer: ClockedLayer, w: Tensor, lags: Tensor, sent: Tensor, least: int) -> None:
        self.layer, self.sent, self.least = layer, sent, least
        self.lags = lags.expand(w.shape) if lags.dim() == 1 else lags
        shape = (sent.shape[1], *w.shape)
        self.v, self.i, self.total = sent.new_zeros(shape), sent.new_zeros(shape), torch.zeros_like(w)
        self.found = sorted(set(lags.flatten().tolist()))

    def step(self, n: int, told: Tensor, stays: Tensor, free: Tensor) -> None:
        """Add what step n is told, and move on to the next."""
        for lag in self.found:
            if lag <= n:
                self.i += self.sent[n - lag][:, None, :] * (self.lags == lag)
        self.total += torch.einsum("bn,bnm->nm", told, self.v)
        beta, kappa, alpha = (x[:, None] for x in (self.layer.beta, self.layer.kappa, self.layer.alpha))
        stays, free = stays[:, :, None], free[:, :, None]
        self.v = self.v * stays * (1.0 + free * (beta - 1.0)) + free * kappa * self.i
        self.i = alpha * self.i

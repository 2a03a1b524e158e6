"""SuperSpike: presynaptic traces times σ′ of the voltage times the error of the output's spikes, equation (5.4)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from adjsnn.checks import Count, Number, count, kind, positive
from adjsnn.errors import ConfigurationError
from adjsnn.lif.clocked import RESETS, ClockedLayer, ClockedRun, Reset, by_lag, clocked_layer, over_resting, weights_told
from adjsnn.lif.clocked_problem import clocked_solution, grid, input_spikes, solve_clocked
from adjsnn.lif.clocked_solution import ClockedSolution
from adjsnn.lif.problem import LIFProblem
from adjsnn.lif.structure import LIFLayer
from adjsnn.numerics.first_order import FirstOrder, first_order
from adjsnn.rules.stated import OUTPUT_ERROR, OWN, Stated
from adjsnn.rules.surrogates import FastSigmoid, Surrogate

COVERED = ("w_in", "w_rec", "bias")
STATES = 6  # of a ClockedRun
FEEDBACK = ("symmetric", "random", "uniform")


@dataclass(frozen=True)
class SuperSpike:
    """dC/dw_nm = Σ_t c_n[t] σ′(v_n[t] - v_th) (ε∗S_m)[t], with errors straight from the output's spikes (5.4).

    ε is the voltage after an input spike of a neuron that is never reset, c_n of an output neuron the cotangent of its spikes:
    for `losses.van_rossum` with `tau_rise` the error filtered by the kernel of the distance, forward and back. A neuron of a
    hidden layer has c_h[t] = Σ_k b_kh c_k[t]; with a readout e, the cotangent of W_out S, is in the place of c_k, and all
    layers are hidden ones. A loss of the spikes of a hidden layer, such as a price on them, adds to c_h. Recurrent weights have
    traces of their own layer's spikes and the error of their own neuron; what a spike does to other neurons is left out, and
    to its own neuron's adaptation, as the reset is.
    Zenke and Ganguli 2018.

    Online a synapse keeps its trace. Here a loss is known after the solve, and what a neuron is told, c σ′, is filtered back
    through ε and multiplied with the spikes: the same sum.

    Args:
        surrogate: σ′ (5.2).
        feedback: b: "symmetric", the weights from the neuron to the output, their product over the layers between; "random",
            Gaussian and fixed; "uniform", the same for all.
        seed: of random b; the same at every solve.
        scale: the standard deviation of random b, and uniform b.
        reset: as of `SurrogateBPTT`.
        kernel: τ_s and τ_m of ε, ms; None for the neuron's own.

    Raises:
        ConfigurationError: another kind of value; in a solve, something that learns but weights and biases; in the backward
            pass, a loss of voltages or currents.
    """

    surrogate: Surrogate = field(default_factory=FastSigmoid)
    feedback: Literal["symmetric", "random", "uniform"] = "symmetric"
    seed: Count = 0
    scale: Number = 1.0
    reset: Reset = "to"
    kernel: tuple[Number, Number] | None = None

    clocked = adaptive = True  # solves in steps of dt, and layers that adapt
    stated: ClassVar[Stated] = Stated(
        "what surrogates drop, resets, other layers and W_rec on the way back (5.4)",
        (OWN, OUTPUT_ERROR),
        "online a trace of each synapse, B W; here spikes and voltages, B T N",
        "B T (N + W)",
    )

    def __post_init__(self) -> None:
        kind("surrogate", self.surrogate, Surrogate)
        for name, known in (("reset", RESETS), ("feedback", FEEDBACK)):
            if (value := getattr(self, name)) not in known:
                raise ConfigurationError(f"{name}={value!r}", f"one of {list(known)}", f'{name}="{known[0]}"')
        object.__setattr__(self, "seed", count("seed", self.seed, 0))
        object.__setattr__(self, "scale", positive("scale", self.scale, "a positive number", "scale=1.0"))
        if self.kernel is not None:
            if not isinstance(self.kernel, tuple) or len(self.kernel) != 2:
                raise ConfigurationError(f"kernel={self.kernel!r}", "two time constants in ms, or None", "kernel=(5.0, 10.0)")
            pair = tuple(positive("kernel", x, "positive times in ms", "kernel=(5.0, 10.0)") for x in self.kernel)
            object.__setattr__(self, "kernel", pair)

    def run_lif(self, problem: LIFProblem) -> ClockedSolution:
        """Solve on the clock; gradients are the rule's."""
        learnt = {name for layer in problem.layers for name, x in layer._asdict().items() if x is not None and x.requires_grad}
        others = [name for name in LIFLayer._fields if name in learnt - {*COVERED}]
        if others or any(x.requires_grad for state in problem.y0 for x in state):
            raise ConfigurationError(
                f"gradients of {', '.join(others) or 'initial states'}, by SuperSpike",
                "weights and biases",
                "SurrogateBPTT(), which has all of them",
            )
        flat = [getattr(layer, name) for layer in problem.layers for name in COVERED]
        w_out = None if problem.readout is None else problem.readout.w_out
        drive = None if problem.drive is None else problem.drive.values  # W_in u, whose weights are outside
        ran, *results = _Told.apply(self, problem, drive, w_out, *flat)
        runs = [ClockedRun(*results[k : k + STATES]) for k in range(0, STATES * len(problem.layers), STATES)]
        return clocked_solution(problem, runs, ran, sent=None if w_out is None else results[-1])

    def back(self, problem: LIFProblem) -> list[Tensor]:
        """b of each layer but the output, (N_out, N_l); with a readout of every layer, (n_out, N_l)."""
        ways = [layer.w_in.detach() for layer in problem.layers[1:]]
        ways += [] if problem.readout is None else [problem.readout.w_out.detach()]
        if not ways:
            return []
        if self.feedback == "symmetric":
            found = [ways[-1]]
            for w in reversed(ways[:-1]):
                found.append(found[-1] @ w)
            return found[::-1]
        shapes = [(len(ways[-1]), w.shape[1]) for w in ways]
        if self.feedback == "uniform":
            return [w.new_full(shape, float(self.scale)) for w, shape in zip(ways, shapes, strict=True)]
        generator = torch.Generator().manual_seed(int(self.seed))
        noise = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        return [(x * float(self.scale)).to(w) for w, x in zip(ways, noise, strict=True)]


class _Told(FirstOrder):
    @staticmethod
    def forward(ctx: Any, rule: SuperSpike, problem: LIFProblem, drive: Any, w_out: Tensor | None, *flat: Tensor | None) -> Any:
        sol = solve_clocked(problem, rule.surrogate, rule.reset)
        runs = [run.each(Tensor.detach) for run in sol._runs]
        ctx.rule, ctx.problem = rule, problem
        own = [clocked_layer(layer, sol.dt, first=k == 0) for k, layer in enumerate(problem.layers)]
        over = [over_resting(*each) for each in zip(own, runs, problem.y0, strict=True)]
        kept = [x for run, peak in zip(runs, over, strict=True) for x in (run.spikes, peak)]
        ctx.save_for_backward(*kept, *(b.clone() for b in rule.back(problem)))
        ctx.set_materialize_grads(False)
        sent = [] if w_out is None else [torch.nn.functional.linear(runs[-1].spikes, w_out)]
        return sol._ran, *(x for run in runs for x in run), *sent

    @staticmethod
    def backward(ctx, *cotangents):
        return _backward(ctx, *cotangents)


@first_order
def _backward(ctx: Any, _: None, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
    rule, problem = ctx.rule, ctx.problem
    count, (dt, steps) = len(problem.layers), grid(problem)
    saved = ctx.saved_tensors
    spikes, peaks, backs = saved[: 2 * count : 2], saved[1 : 2 * count : 2], saved[2 * count :]
    given = [cotangents[STATES * k : STATES * (k + 1)] for k in range(count)]
    if any(x is not None for _, *states in given for x in states):
        raise ConfigurationError(
            "a loss of voltages or currents, by SuperSpike",
            "one of spikes or the readout",
            "SurrogateBPTT(), which has the gradient of all",
        )
    error = given[-1][0] if problem.readout is None else cotangents[-1]
    gradients, d_drive = list[Tensor | None](), None
    sent = input_spikes(problem, dt, steps)
    for k, (s, peak) in enumerate(zip(spikes, peaks, strict=True)):
        own = clocked_layer(problem.layers[k], dt, first=k == 0)
        parts = [error @ backs[k]] if error is not None and k < len(backs) else []
        c = sum([x for x in (given[k][0], *parts) if x is not None], torch.zeros_like(s))
        told = c * rule.surrogate.derivative(peak - own.v_th) * may_spike(s, own.hold)
        by_drive, by_arrival = filtered_back(told, _with_kernel(rule.kernel, problem.layers[k], own, dt))
        d_rec = None
        if own.w_rec is not None and own.rec_lags is not None:
            d_rec = weights_told(torch.zeros_like(own.w_rec), by_arrival, s, by_lag(own.rec_lags, s))
        d_in = weights_told(torch.zeros_like(own.w_in), by_arrival, sent, by_lag(own.lags, sent))
        gradients += [d_in, d_rec, by_drive.sum((0, 1))]
        if k == 0 and problem.drive is not None:
            d_drive = by_drive[: len(problem.drive.values)].to(problem.drive.values)
        sent = s
    d_out = None
    if problem.readout is not None and error is not None:
        d_out = error.flatten(0, 1).T @ spikes[-1].flatten(0, 1)
    return None, None, d_drive, d_out, *gradients


def may_spike(spikes: Tensor, hold: Tensor) -> Tensor:
    """1 where a neuron may spike, 0 for `hold` steps after each of its spikes; (T+1, B, N)."""
    before = torch.nn.functional.pad(spikes.cumsum(0), (0, 0, 0, 0, 1, 0))[:-1]  # how often so far
    step = torch.arange(len(spikes), device=spikes.device)[:, None, None]
    earlier = (step - hold).clamp(min=0).expand(spikes.shape)
    return (before == before.gather(0, earlier)).to(spikes)


def filtered_back(told: Tensor, layer: ClockedLayer) -> tuple[Tensor, Tensor]:
    """The gradient of Σ_t told[t] v[t], without resets, by b in each step, (T, B, N), and by what arrives at each time."""
    late = _summed_back(told, layer.beta)[1:]  # of v one step later
    by_current = torch.zeros_like(told)
    by_current[:-1] = layer.kappa * late
    return (1.0 - layer.beta) * late, _summed_back(by_current, layer.alpha)


def _summed_back(x: Tensor, decay: Tensor) -> Tensor:
    """Σ_k decay^k x[n + k], over windows of twice the length at a time."""
    total, step = x.clone(), 1
    while step < len(x):
        total[:-step] += decay * total[step:]
        decay, step = decay.square(), 2 * step
    return total


def _with_kernel(kernel: Sequence[float] | None, layer: LIFLayer, own: ClockedLayer, dt: float) -> ClockedLayer:
    if kernel is None:
        return own
    syn, mem = (torch.full_like(layer.tau_syn, tau) for tau in kernel)
    return clocked_layer(layer._replace(tau_syn=syn, tau_mem=mem), dt, first=False)

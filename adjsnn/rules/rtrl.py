"""Real-time recurrent learning: forward mode of the network on a clock, equation (5.3)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.checks import Count, count, flag, kind
from adjsnn.errors import ConfigurationError
from adjsnn.lif.clocked import RESETS, ClockedRun, Reset, clocked_layer
from adjsnn.lif.clocked_problem import clocked_solution, grid, input_spikes, solve_clocked
from adjsnn.lif.clocked_solution import ClockedSolution
from adjsnn.lif.network import COMPONENTS
from adjsnn.lif.problem import LIFProblem
from adjsnn.lif.structure import LIFLayer
from adjsnn.numerics.first_order import FirstOrder, first_order
from adjsnn.rules.stated import LAYER_ERROR, OTHERS, OWN, Stated
from adjsnn.rules.surrogates import FastSigmoid, Surrogate

FIELDS = ("w_in", "w_rec", "bias", "tau_mem", "tau_syn", "v_th", "v_reset", *COMPONENTS)
WIDTH, STATES = len(FIELDS), 6  # of a ClockedRun
SMALL = 2**20  # numbers, 8 MB: so few directions are held together


@dataclass(frozen=True)
class RTRL:
    """The gradient of `SurrogateBPTT`, carried forward: ∂v/∂θ and ∂i/∂θ of every neuron and parameter, step by step (5.3).

    The derivatives of all states by all parameters go along with the steps, so nothing is kept of the past. In memory they
    are parameters times neurons times samples, O(N³) for a recurrent layer, and in time as much for each step. Since a loss is
    known only after the solve, its cotangents are, and the steps are taken again with their derivatives in the backward pass.
    Williams and Zipser 1989.

    Args:
        surrogate: σ′ (5.2).
        own_neuron: a truncation: no derivative goes through recurrent weights to other neurons, O(N²) if it were stored so.
        reset: as of `SurrogateBPTT`.
        through_reset: likewise.
        chunk: parameters whose derivatives are carried at a time, of which more take more memory; None for as many as there are
            neurons times samples, with which it is that of one derivative of each state by each parameter; few at once.

    Raises:
        ConfigurationError: another kind of value; in a solve, initial states or currents that require a gradient.
    """

    surrogate: Surrogate = field(default_factory=FastSigmoid)
    own_neuron: bool = False
    reset: Reset = "to"
    through_reset: bool = False
    chunk: Count | None = None

    clocked = adaptive = True  # solves in steps of dt, and layers that adapt
    stated: ClassVar[Stated] = Stated(
        "the same; nothing is kept of the past",
        (OWN, LAYER_ERROR, OTHERS),
        "how each parameter moves each neuron, B N W, for any T",
        "B T N W; of `own_neuron` no less, as it is carried here",
    )

    def __post_init__(self) -> None:
        kind("surrogate", self.surrogate, Surrogate)
        if self.reset not in RESETS:
            raise ConfigurationError(f"reset={self.reset!r}", f"one of {list(RESETS)}", 'reset="to"')
        for name in ("own_neuron", "through_reset"):
            object.__setattr__(self, name, flag(name, getattr(self, name)))
        if self.chunk is not None:
            object.__setattr__(self, "chunk", count("chunk", self.chunk))

    def together(self, problem: LIFProblem, parameters: int) -> int:
        """How many parameters are carried at a time. Along each goes a tensor of the size of all parameters, its direction."""
        if self.chunk is not None:
            return int(self.chunk)
        states = (len(problem.trial.first) - 1) * sum(len(layer.v_th) for layer in problem.layers)
        return max(1, parameters if parameters * parameters <= SMALL else states)

    def run_lif(self, problem: LIFProblem) -> ClockedSolution:
        """Solve on the clock; gradients are the rule's."""
        states = [x for state in problem.y0 for x in state] + ([] if problem.drive is None else [problem.drive.values])
        if problem.drive is not None and problem.layers[0].w_in.requires_grad:
            raise ConfigurationError("currents into weights that learn, by RTRL", "input spikes", "SurrogateBPTT()")
        if any(x.requires_grad for x in states):
            raise ConfigurationError(
                "initial states that require a gradient, by RTRL", "parameters alone", "SurrogateBPTT(), the same backward"
            )
        flat = [getattr(layer, name) for layer in problem.layers for name in FIELDS]
        results: Any = _Forward.apply(self, problem, *flat)
        runs = [ClockedRun(*results[k : k + STATES]) for k in range(0, len(results), STATES)]
        return clocked_solution(problem, runs, Ran("plain", "derivatives are carried forward by torch operations"))


class _Forward(FirstOrder):
    @staticmethod
    def forward(ctx, rule, problem, *flat):
        sol = solve_clocked(problem, rule.surrogate, rule.reset, rule.through_reset)
        ctx.rule, ctx.problem = rule, problem
        ctx.save_for_backward(*flat)
        ctx.set_materialize_grads(False)
        return tuple(None if x is None else x.detach() for run in sol._runs for x in run)

    @staticmethod
    def backward(ctx, *cotangents):
        return _backward(ctx, *cotangents)


@first_order
def _backward(ctx, *cotangents):
    rule, problem, flat = ctx.rule, ctx.problem, ctx.saved_tensors
    wanted = [k for k, needed in enumerate(ctx.needs_input_grad[2:]) if needed]
    given = [cotangents[k : k + STATES] for k in range(0, len(cotangents), STATES)]
    at = [flat[k].detach() for k in wanted]
    sizes = [x.numel() for x in at]

    def contracted(theta: Tensor) -> Tensor:
        """The loss, linear in the states of the run."""
        whole = [None if x is None else x.detach() for x in flat]
        for k, x, part in zip(wanted, at, theta.split(sizes), strict=True):
            whole[k] = part.view(x.shape)
        layers = [
            layer._replace(**dict(zip(FIELDS, whole[WIDTH * k : WIDTH * (k + 1)], strict=True)))
            for k, layer in enumerate(problem.layers)
        ]
        return _contraction(rule, problem, layers, given)

    theta = torch.cat([x.flatten() for x in at])
    numbers = torch.arange(len(theta), device=theta.device)

    def along(number: Tensor) -> Tensor:
        return torch.func.jvp(contracted, (theta,), ((numbers == number).to(theta),))[1]

    with warnings.catch_warnings():  # torch's own forward mode still scripts some functions when it is first used
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.")
        found = torch.func.vmap(along, chunk_size=rule.together(problem, len(theta)))(numbers)
    gradients: list[Tensor | None] = [None] * len(flat)
    for k, x, part in zip(wanted, at, found.split(sizes), strict=True):
        gradients[k] = part.view(x.shape)
    return None, None, *gradients


def _contraction(
    rule: RTRL, problem: LIFProblem, layers: Sequence[LIFLayer], given: Sequence[Sequence[Tensor | None]]
) -> Tensor:
    """Σ_n of cotangents times S, v before and after resets, i, a, h, all layers step by step; nothing of the past is kept."""
    dt, steps = grid(problem)
    clocked = [clocked_layer(layer, dt, first=k == 0) for k, layer in enumerate(layers)]
    inputs = input_spikes(problem, dt, steps)
    drive = None if problem.drive is None else problem.drive.values.to(inputs)
    state = [[x.detach() for x in start] for start in problem.y0]
    held = [torch.zeros_like(start[0], dtype=torch.long) for start in state]
    sent: list[list[Tensor]] = [[] for _ in clocked]  # of the last steps
    total = inputs.new_zeros(())
    longest = [
        max(0 if layer.rec_lags is None else int(layer.rec_lags.max()), 0 if after is None else int(after.lags.max()) + 1)
        for layer, after in zip(clocked, [*clocked[1:], None], strict=True)
    ]
    for n in range(steps + 1):
        for k, layer in enumerate(clocked):
            (v, i, *adapted), adaptation = state[k], layer.own
            before = sent[k - 1] if k else inputs[: n + 1].flip(0).unbind()
            i = i + _arriving(layer.w_in, layer.lags, before, 0)
            if layer.w_rec is not None and layer.rec_lags is not None:
                own = [x.detach() for x in sent[k]] if rule.own_neuron else sent[k]
                i = i + _arriving(layer.w_rec, layer.rec_lags, own, 1)
            x = v - (layer.v_th if adaptation is None else adaptation.threshold(layer.v_th, adapted[1]))
            slope = rule.surrogate.derivative(x.detach())
            s = ((x.detach() >= 0).to(x) + slope * (x - x.detach())) * (held[k] == 0)
            gate = s if rule.through_reset else s.detach()
            after = v + gate * (layer.v_reset - (v if rule.reset == "to" else layer.v_th))
            if adaptation is not None:
                adapted = adaptation.after(s, *adapted)
            for cotangent, part in zip(given[k], (s, v, after, i, *adapted), strict=False):
                if cotangent is not None:
                    total = total + (cotangent[n] * part).sum()
            held[k] = torch.where(s.detach() > 0, layer.hold, (held[k] - 1).clamp(min=0))
            bias = layer.bias if drive is None or k or n >= len(drive) else layer.bias + drive[n]
            moved = bias + layer.beta * (after - bias) + layer.kappa * i
            if adaptation is not None:
                moved = adaptation.driven(moved, adapted[0])
                adapted = adaptation.decay_a * adapted[0], adaptation.decay_h * adapted[1]
            state[k] = [torch.where(held[k] > 0, after, moved), layer.alpha * i, *adapted]
            sent[k] = [s, *sent[k]][: longest[k]]
    return total


def _arriving(w: Tensor, lags: Tensor, past: Sequence[Tensor], first: int) -> Tensor | float:
    """What arrives now of the spikes of `past`, the latest of which were sent `first` steps ago."""
    total: Tensor | float = 0.0
    for lag in lags.unique().tolist():
        if lag - first < len(past):
            total = total + torch.nn.functional.linear(past[lag - first], w * (lags == lag).to(w))
    return total

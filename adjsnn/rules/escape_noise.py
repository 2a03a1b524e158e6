"""Escape noise: spikes are drawn, and what is differentiated is their log-probability, equation (5.9)."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.checks import Count, Number, count, finite, index, kind, placement, positive, real
from adjsnn.errors import ConfigurationError
from adjsnn.lif.clocked import RESETS, ClockedRun, Reset, clocked_layer, over_resting, spiking
from adjsnn.lif.clocked_problem import clocked_solution, counted, grid, solve_clocked
from adjsnn.lif.clocked_solution import ClockedSolution
from adjsnn.lif.problem import LIFProblem
from adjsnn.numerics.first_order import FirstOrder, first_order
from adjsnn.rules.stated import OWN, REWARD, Stated
from adjsnn.spikes import SpikeTrains
from adjsnn.untraced import untraced

Baseline = Literal["leave_one_out", "mean"]
RARE, SURE = -37.0, 10.0  # log hρ beyond which log(1 - e^{-hρ}) is log hρ, and 0, to rounding in float64
LARGEST = 40.0  # log hρ of a silent step above which the square of a gradient, of about 1e17, is near the end of float32


@dataclass(frozen=True, eq=False)
class EscapeNoise:
    """A neuron spikes with probability 1 - e^{-hρ(v)} in a step of h, ρ = ρ_0 e^{(v - v_th)/Δ} (5.9). Pfister et al. 2006.

    Visible neurons: with a `target` the last layer spikes as it does, and `sol.log_likelihood` is differentiated exactly.
    Hidden neurons: spikes that are drawn have no derivative, their log-probability has, and `score_function` gives an
    unbiased gradient of the mean of any cost; a loss of drawn spikes without it is refused. No neuron spikes while it is
    refractory.

    Draws: `seed` gives the same spikes at every solve, `generator` goes on from solve to solve, and without either torch's
    global generator does, which `torch.manual_seed` sets. They are made in float64 on the CPU, a sample after the other: the
    same in any dtype, unless a neuron is within rounding of spiking, on any device, and the first samples of a larger batch
    have the draws of a smaller one.

    Args:
        rate: ρ_0, the rate at the threshold, 1/ms.
        width: Δ, in units of voltage.
        seed: of the draws; None for new ones at every solve.
        generator: instead of a seed, where the draws come from, on the CPU.
        target: spikes of the last layer, as many samples as the inputs; on the grid, at the times nearest to theirs.
        reset: as of `SurrogateBPTT`.

    Raises:
        ConfigurationError: another kind of value; in a solve, compiled loops were asked for, which draw no spikes, or a target
            that these neurons cannot have; in the backward pass, a loss of drawn spikes without `score_function`.
    """

    rate: Number = 0.1
    width: Number = 0.1
    seed: Count | None = None
    generator: torch.Generator | None = None
    target: SpikeTrains | None = None
    reset: Reset = "to"

    clocked = adaptive = True  # solves in steps of dt, and layers that adapt
    stated: ClassVar[Stated] = Stated(
        "nothing in the mean: spikes are drawn, what has a derivative is their probability (5.9)",
        (OWN, REWARD),
        "every step of every neuron, B T N",
        "B T (N + W), for each of many draws",
    )

    def __post_init__(self) -> None:
        rate = positive("rate", self.rate, "a positive rate in 1/ms", "rate=0.1")
        object.__setattr__(self, "rate", rate)
        object.__setattr__(self, "width", positive("width", self.width, "a positive voltage", "width=0.1"))
        placement(None, self.generator)
        if self.seed is not None:
            object.__setattr__(self, "seed", count("seed", self.seed, 0))
            if self.generator is not None:
                raise ConfigurationError("a seed and a generator", "one of them", "seed=None")
        if self.generator is not None and self.generator.device.type != "cpu":
            raise ConfigurationError(
                f"a generator on {self.generator.device}", "one on the CPU, where spikes are drawn", "torch.Generator()"
            )
        if self.target is not None:
            kind("target", self.target, SpikeTrains)
        if self.reset not in RESETS:
            raise ConfigurationError(f"reset={self.reset!r}", f"one of {list(RESETS)}", 'reset="to"')

    def run_lif(self, problem: LIFProblem) -> "DrawnSolution":
        """Draw the spikes on the clock; gradients are those of their log-probability."""
        kernel, reason = problem.ran
        if kernel != "plain" and reason == f'kernels="{kernel}"':
            raise ConfigurationError(
                f"{reason}, but compiled loops draw no spikes", "spikes drawn by torch operations", 'kernels="auto"'
            )
        dt, steps = grid(problem)
        batch, sizes = len(problem.trial.first) - 1, [len(layer.w_in) for layer in problem.layers]
        least = self._draws(batch, steps + 1, sizes)
        clamped = self._clamped(problem, dt, steps)
        if clamped is not None:
            least[-1] = torch.where(clamped > 0, -math.inf, math.inf).double()
        spike = _Drawn(chain.from_iterable(least), self._log_hazard(dt))
        ran = Ran("plain", "spikes are drawn by torch operations") if kernel != "plain" else problem.ran
        problem = replace(problem, ran=ran)
        runs = solve_clocked(problem, spike, self.reset)._runs
        logs = [self._log_probability(problem, k, run) for k, run in enumerate(runs)]
        likelihood = None
        if clamped is not None:
            _check_taken(clamped, runs[-1], dt)
            likelihood = logs.pop()
        score, seen = _Score(), list[ClockedRun]()
        for k, run in enumerate(runs):
            of_drawn = _unscored(score, logs[: k + 1])
            seen.append(run.each(of_drawn))
        sol = clocked_solution(problem, seen, ran)
        return DrawnSolution(
            **{x.name: getattr(sol, x.name) for x in fields(sol) if x.init},
            _logs=logs,
            _likelihood=None if likelihood is None else _unscored(score, logs)(likelihood),
            _score=score,
        )

    def _draws(self, batch: int, steps: int, sizes: Sequence[int]) -> list[Tensor]:
        """log E of each layer, (T+1, B, N), E exponential with mean 1: P(E < hρ) = 1 - e^{-hρ}."""
        generator = self.generator if self.seed is None else torch.Generator().manual_seed(int(self.seed))
        uniform = torch.rand(batch, steps * sum(sizes), generator=generator, dtype=torch.float64, device="cpu")
        parts = torch.log(-torch.log1p(-uniform)).split([steps * n for n in sizes], 1)
        return [x.view(batch, steps, n).transpose(0, 1) for x, n in zip(parts, sizes, strict=True)]

    def _log_hazard(self, dt: float) -> Callable[[Tensor], Tensor]:
        """log hρ of v - v_th."""
        return lambda x: x / float(self.width) + math.log(dt * float(self.rate))

    def _log_probability(self, problem: LIFProblem, k: int, run: ClockedRun) -> Tensor:
        """Of the spikes of a layer and of its silence, given all spikes before, (B,).

        Raises:
            ConfigurationError: silence where it is next to impossible.
        """
        dt, _ = grid(problem)
        layer, fired = clocked_layer(problem.layers[k], dt, first=k == 0), spiking(run)
        n = torch.arange(len(fired), device=fired.device)[:, None, None]
        last = torch.where(fired, n, -1 - layer.hold).cummax(0).values[:-1]  # the latest spike before each step but the first
        silent = ~fired
        silent[1:] &= n[1:] - last > layer.hold  # and free to spike
        resting = over_resting(layer, run, problem.y0[k])
        log_hazard = self._log_hazard(dt)(resting - layer.v_th)
        over = (log_hazard.detach() > LARGEST) & silent
        if bool(over.any()):
            step, sample, neuron = (int(x) for x in over.nonzero()[0])
            v, over_v_th = (float(x.detach()[step, sample, neuron]) for x in (run.peak, resting - layer.v_th))
            raise ConfigurationError(
                f"a target silent at {step * dt:g} ms, where v[{sample}, {neuron}] = {v:g}",
                f"voltages below {v - over_v_th + float(self.width) * LARGEST:g}, where silence is not impossible",
                "smaller weights to start from, or a larger width",
            )
        of_spikes = _log_of_a_spike(torch.where(fired, log_hazard, 0.0))
        of_silence = -torch.where(silent, log_hazard, -math.inf).exp()
        return torch.where(fired, of_spikes, of_silence).sum((0, 2))

    def _clamped(self, problem: LIFProblem, dt: float, steps: int) -> Tensor | None:
        """The target on the grid, (T+1, B, N)."""
        target, like = self.target, problem.layers[-1].w_in
        if target is None:
            return None
        target.check(ordered=False)
        batch, n = len(problem.trial.first) - 1, len(like)
        if (target.batch, target.n_neurons) != (batch, n):
            raise ConfigurationError(
                f"a target of {target.batch} samples of {target.n_neurons} neurons",
                f"{batch} of {n}, those of the last layer",
                "EscapeNoise(target=...) anew for each batch",
            )
        sample, place = (target.idx >= 0).nonzero(as_tuple=True)
        time = target.time.detach()[sample, place]
        late = time > problem.trial.t_end * (1.0 + 1e-6)
        if bool(late.any()):
            raise ConfigurationError(
                f"a target that spikes at {float(time[late][0]):g} ms in a trial of {problem.trial.t_end:g} ms",
                "spikes within the trial",
                "a larger t_end",
            )
        sample, neuron, time = (x.to(like.device) for x in (sample, target.idx[sample, place], time))
        found = counted(like.new_zeros(steps + 1, batch, n), sample, neuron, time, dt)
        if bool((found > 1).any()):
            step, b, k = (int(x) for x in (found > 1).nonzero()[0])
            raise ConfigurationError(
                f"two spikes of neuron {k} of the target at {step * dt:g} ms, in sample {b}",
                "one in a step at most",
                "a smaller dt",
            )
        return found


def _log_of_a_spike(a: Tensor) -> Tensor:
    """log(1 - e^{-x}) of a = log x; it and its derivative are free of cancellation and overflow."""
    usual = torch.log(-torch.expm1(-a.clamp(RARE, SURE).exp()))
    return torch.where(a > RARE, usual, a)


def _check_taken(clamped: Tensor, run: ClockedRun, dt: float) -> None:
    """Refuse a target that a refractory neuron did not follow."""
    missed = (clamped > 0) & ~spiking(run)
    if bool(missed.any()):
        step, sample, neuron = (int(x) for x in missed.nonzero()[0])
        raise ConfigurationError(
            f"a target spike of neuron {neuron} at {step * dt:g} ms, in sample {sample}, within its refractory time",
            "a target that has a probability",
            "a shorter refractory time",
        )


class _Drawn:
    """Whether neurons spike: where log hρ is above the next row, of each step of each layer in turn."""

    def __init__(self, least: Iterator[Tensor], log_hazard: Callable[[Tensor], Tensor]) -> None:
        self.least, self.log_hazard = least, log_hazard

    def fire(self, x: Tensor) -> Tensor:
        """S of x = v - v_th; a drawn spike has no derivative."""
        return (next(self.least).to(x.device) < self.log_hazard(x.detach()).double()).to(x.dtype)

    def derivative(self, x: Tensor) -> Tensor:
        """None."""
        return torch.zeros_like(x)


@dataclass
class _Score:
    """Whether a loss has the score function of the drawn spikes."""

    taken: bool = False


def _unscored(score: _Score, logs: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """Makes a figure refuse its cotangent until the score is taken, where spikes before it were drawn by what learns."""
    learns = [x for x in logs if x.requires_grad]
    return lambda x: _Unscored.apply(score, x, *learns[:1]) if learns else x  # pyright: ignore[reportReturnType]


class _Unscored(FirstOrder):
    @staticmethod
    def forward(ctx: Any, score: _Score, x: Tensor, *drawn: Tensor) -> Tensor:
        ctx.score, ctx.drawn = score, len(drawn)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return _unscored_back(ctx, *cotangents)


@first_order
def _unscored_back(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    if not ctx.score.taken:
        raise ConfigurationError(
            "a loss that depends on drawn spikes, which have no derivative",
            "the score function of a cost of each sample",
            "adjsnn.rules.score_function(cost, sol).backward(), or another rule",
        )
    return None, cotangent, *(None for _ in range(ctx.drawn))


@dataclass(frozen=True, kw_only=True, repr=False)
class DrawnSolution(ClockedSolution):
    """What `EscapeNoise` returns: a ClockedSolution that knows how probable its spikes were.

    A neuron spikes at any voltage, so `voltage_max` is the largest one, spikes or not. Gradients of its figures are those at
    the spikes that were drawn, and pass once `score_function` has been called; without drawn spikes at once.
    """

    _logs: Sequence[Tensor] = field(repr=False)
    _likelihood: Tensor | None = field(repr=False)
    _score: _Score = field(repr=False)

    @property
    def log_likelihood(self) -> Tensor:
        """log P of the target's spikes and silences, given the spikes of the layers below, (B,); differentiable.

        Where layers below are drawn and learn, its negative is a cost for `score_function`.

        Raises:
            ConfigurationError: a solve without a target.
        """
        if self._likelihood is None:
            raise ConfigurationError(
                "the log-likelihood of a solve without a target", "one with", "adjoint=EscapeNoise(target=trains)"
            )
        return self._likelihood

    @untraced
    def log_probability(self, layer: int | None = None) -> Tensor:
        """log P of the spikes that were drawn, (B,); differentiable: its gradient is the score.

        Args:
            layer: its number; None for all layers that were drawn, so without that of a target.

        Raises:
            ConfigurationError: the layer of the target, of which `log_likelihood` tells.
        """
        if layer is None:
            return torch.stack([self._runs[0].v.new_zeros(self._runs[0].v.shape[1]), *self._logs]).sum(0)
        k = index("layer", layer, len(self._runs))
        if k == len(self._logs):
            raise ConfigurationError(
                f"the log-probability of layer {k}, which is the target's", "a layer that is drawn", "sol.log_likelihood"
            )
        return self._logs[k]

    @untraced
    def voltage_max(self, layer: int = -1) -> Tensor:
        """Largest voltage of each neuron over the grid, (B, N); differentiable as its other figures are."""
        return self._run(layer).peak.amax(0)


@untraced
def score_function(
    cost: Tensor, sol: ClockedSolution, baseline: Baseline | None = "leave_one_out", *, repeats: Count | None = None
) -> Tensor:
    """The mean of a cost over samples, whose gradient is that of its mean over all draws, estimated without bias (5.9).

    The gradient is mean(∂c + (c - b) ∂ log P): c changes at the spikes that were drawn, and probable are those that cost less
    than b. Since b does not depend on a sample's own spikes, "leave_one_out", the mean cost of the other samples, takes no
    bias. "mean", that of all samples, shrinks the second part by 1 - 1/R, R the number of samples it is taken over.

    Args:
        cost: c, one number for each sample, (B,), such as `losses.van_rossum`, or minus `sol.log_likelihood`.
        sol: a solution by `EscapeNoise`.
        baseline: b: "leave_one_out", "mean", or None for none.
        repeats: R, where inputs are solved several times: samples k R … (k+1) R - 1 are draws of the same input, as
            x[torch.arange(len(inputs)).repeat_interleave(R)] makes them, and baselines are means over those. Default: over the
            whole batch, which is right, but tells less where inputs differ.

    Returns:
        the mean cost; its gradient is the estimate.

    Raises:
        ConfigurationError: a cost of another shape or that is not finite, a solution by another rule, another baseline, a
            number of repeats that does not divide the batch, or one sample alone with "leave_one_out".
    """
    if not isinstance(sol, DrawnSolution):
        raise ConfigurationError(
            f"sol of type {type(sol).__name__}", "a solution whose spikes are drawn", "adjoint=adjsnn.rules.EscapeNoise()"
        )
    log_p = sol.log_probability()
    cost = real("cost", cost, "one number for each sample, (B,)", "a cost of each sample").to(log_p)
    if cost.shape != log_p.shape:
        raise ConfigurationError(
            f"a cost of shape {tuple(cost.shape)}", f"{tuple(log_p.shape)}, a number for each sample", "no mean over the batch"
        )
    finite("cost", cost, "finite costs", "t_end for times of silent neurons")
    if baseline not in ("leave_one_out", "mean", None):
        raise ConfigurationError(f"baseline={baseline!r}", "'leave_one_out', 'mean' or None", 'baseline="leave_one_out"')
    size = len(cost) if repeats is None else count("repeats", repeats)
    if size < (2 if baseline == "leave_one_out" else 1) or len(cost) % size:
        raise ConfigurationError(
            f"{'' if repeats is None else f'repeats={size} in '}a batch of {len(cost)} with baseline={baseline!r}",
            "several draws of each input, and as many of all",
            "x[torch.arange(len(inputs)).repeat_interleave(8)], repeats=8",
        )
    sol._score.taken |= torch.is_grad_enabled()  # a cost that is only looked at leaves no score to a loss
    each = cost.detach().view(-1, size)
    if baseline is not None:
        each = each - each.mean(1, keepdim=True)
    if baseline == "leave_one_out":
        each = each * (size / (size - 1))
    return (cost + each.flatten() * (log_p - log_p.detach())).mean()

"""A LIF network and its trial on a clock: from the problem at the door to the solution."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.checks import steps_in
from adjsnn.errors import ConfigurationError
from adjsnn.lif.clocked import EXACT, ClockedRun, Differentiated, Feedback, Reset, Sent, arrivals, carried, clocked_layer
from adjsnn.lif.clocked_solution import ClockedSolution
from adjsnn.lif.engine import choose_clocked
from adjsnn.lif.problem import LIFProblem
from adjsnn.numerics.first_order import FirstOrder, first_order


class Paths(NamedTuple):
    """How errors go back through a network where not through its weights.

    Attributes:
        layers: of each layer; none for the weights of all.
        readout: in the place of w_out, (n_out, N).
        direct: what brings the error of the output to each hidden layer at once, (N_out, N_l), N_out the channels of the
            readout or, without one, the neurons of the last layer; with a readout one for the last layer too. None for none.
    """

    layers: Sequence[Feedback] = ()
    readout: Tensor | None = None
    direct: Sequence[Tensor] = ()


def solve_clocked(
    problem: LIFProblem, spike: Differentiated, reset: Reset = "to", through_reset: bool = False, paths: Paths | None = None
) -> ClockedSolution:
    """Solve a network on a clock, layer by layer; gradients go through every step and the derivative of `spike`.

    Args:
        problem: what to solve.
        spike: what the rule takes for the derivative of a spike.
        reset: "to" v_reset, or "by" v_th - v_reset.
        through_reset: whether gradients go through S in the reset.
        paths: how errors go back, where not through the weights.

    Raises:
        ConfigurationError: as of `grid`; times ts that are not on the grid; loops that do not cover it.
    """
    dt, steps = grid(problem)
    body, ran = choose_clocked(problem.ran, problem.layers)
    paths = Paths() if paths is None else paths
    _rows(problem, dt, steps)  # raises before anything is solved
    sent, runs = input_spikes(problem, dt, steps), list[ClockedRun]()
    for k, (layer, start) in enumerate(zip(problem.layers, problem.y0, strict=True)):
        clocked = clocked_layer(layer, dt, first=k == 0)
        drive = problem.drive.values.to(layer.w_in) if problem.drive is not None and k == 0 else None
        back = paths.layers[k] if paths.layers else EXACT
        arriving = Sent(clocked.w_in, clocked.lags, sent, back.w_in)
        if paths.direct and problem.readout is None and k + 1 == len(problem.layers):
            lag = int(clocked.lags.min())
            arriving = directed(arrivals(*arriving), [run.spikes for run in runs], paths.direct, lag)
        run = body(clocked, arriving, start, drive, spike, reset, through_reset, back.w_rec)
        runs.append(run)
        sent = run.spikes
    return clocked_solution(problem, runs, ran, paths)


def clocked_solution(
    problem: LIFProblem, runs: Sequence[ClockedRun], ran: Ran, paths: Paths | None = None, sent: Tensor | None = None
) -> ClockedSolution:
    """The solution of what was found of each layer.

    Args:
        problem: what was solved.
        runs: of each layer; gradients of the solution's figures are theirs.
        ran: what took the steps.
        paths: how errors go back from the readout.
        sent: W_out S, (T+1, B, n_out), where its gradient is not that through S.

    Raises:
        ConfigurationError: as of `solve_clocked`.
    """
    dt, steps = grid(problem)
    paths = Paths() if paths is None else paths
    rows, like, read = _rows(problem, dt, steps), problem.layers[0].w_in, sent

    def asked(x: Tensor | None) -> Tensor | None:
        return x if x is None or len(rows) > steps else x[rows]

    if problem.readout is not None and read is None:
        read = carried(runs[-1].spikes, problem.readout.w_out, paths.readout)
        if paths.direct:
            read = directed(read, [run.spikes for run in runs], paths.direct, 0)
    return ClockedSolution(
        ts=(rows.double() * dt).clamp(max=problem.trial.t_end).to(like),
        i=[run.i if len(rows) > steps else run.i[rows] for run in runs],
        a=[asked(run.a) for run in runs],
        h=[asked(run.h) for run in runs],
        t_end=problem.trial.t_end,
        dt=dt,
        _rows=rows,
        _layers=problem.layers,
        _runs=runs,
        _readout=problem.readout,
        _sent=read,
        _ran=ran,
    )


def directed(
    output: Float[Tensor, "T1 B C"], hidden: Sequence[Float[Tensor, "T1 B _"]], direct: Sequence[Tensor], lag: int
) -> Float[Tensor, "T1 B C"]:
    """The output, whose error e goes straight to hidden layers too: dC/dS_l[n] += B_lᵀ e[n + lag]."""
    result: Tensor = _Directed.apply(output, lag, len(hidden), *hidden, *direct)  # pyright: ignore[reportAssignmentType]
    return result


class _Directed(FirstOrder):
    @staticmethod
    def forward(ctx: Any, output: Tensor, lag: int, layers: int, *given: Tensor) -> Tensor:
        ctx.lag, ctx.layers = lag, layers
        ctx.save_for_backward(*given[layers:])
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return _directed_back(ctx, *cotangents)


@first_order
def _directed_back(ctx: Any, e: Tensor) -> tuple[Tensor | None, ...]:
    late = torch.nn.functional.pad(e[ctx.lag :], (0, 0, 0, 0, 0, min(ctx.lag, len(e))))
    return e, None, None, *(late @ b for b in ctx.saved_tensors), *(None for _ in range(ctx.layers))


def grid(problem: LIFProblem) -> tuple[float, int]:
    """The step h, ms, and the number of steps of a trial on a clock.

    Raises:
        ConfigurationError: no dt; a trial that is no whole number of steps; input spike times, delays or refractory times that
            require a gradient, which a grid does not have.
    """
    dt, t_end = problem.dt, problem.trial.t_end
    if dt is None:
        raise ConfigurationError("no dt for a network on a clock", "the length of its steps in ms", "dt=0.1")
    if problem.time.requires_grad:
        raise ConfigurationError(
            "input spike times that require a gradient, on a clock",
            "times without, which a grid rounds",
            "x.time.detach(), or adjoint=adjsnn.EventAdjoint()",
        )
    rounded = ("delays", "rec_delays", "refractory")
    learnt = [name for layer in problem.layers for name in rounded if _requires_grad(getattr(layer, name))]
    if learnt:
        raise ConfigurationError(
            f"{learnt[0]} that learn, on a clock",
            "times without a gradient, which are rounded to steps",
            f"lif.{learnt[0]}.requires_grad_(False), or adjoint=adjsnn.EventAdjoint()",
        )
    steps, whole = steps_in(t_end, dt, 1e-7)
    if steps < 1 or not whole:
        raise ConfigurationError(
            f"t_end={t_end:g} ms in steps of {dt:g} ms", "a whole number of steps", f"t_end={max(1, round(t_end / dt)) * dt:g}"
        )
    return dt, steps


def _requires_grad(x: Tensor | None) -> bool:
    return x is not None and x.requires_grad


def input_spikes(problem: LIFProblem, dt: float, steps: int) -> Float[Tensor, "T1 B M"]:
    """Number of input spikes at each time of the grid, each at the time nearest to its own."""
    trial, like = problem.trial, problem.layers[0].w_in
    batch, n_in = len(trial.first) - 1, like.shape[1]
    sample = torch.arange(batch, device=trial.first.device).repeat_interleave(trial.first.diff())
    within = problem.time.detach().double() <= trial.t_end
    counts = like.new_zeros(steps + 1, batch, n_in)
    return counted(counts, sample[within], trial.source[within], problem.time[within], dt)


def counted(
    counts: Float[Tensor, "T1 B M"], sample: Int[Tensor, " S"], neuron: Int[Tensor, " S"], time: Float[Tensor, " S"], dt: float
) -> Float[Tensor, "T1 B M"]:
    """The counts and, added to them in place, spikes, each at the time of the grid nearest to its own."""
    step = (time.detach().double() / dt).round().long().clamp(max=len(counts) - 1)
    return counts.index_put_((step, sample, neuron), counts.new_ones(()), accumulate=True)


def _rows(problem: LIFProblem, dt: float, steps: int) -> Tensor:
    """The rows of the grid at the times that were asked for; all of them where none were."""
    asked = problem.trial.probes[:-1]
    if not len(asked):
        return torch.arange(steps + 1, device=asked.device)
    rows = (asked / dt).round()
    off = (rows * dt - asked).abs() > 1e-6 * dt + 2.5e-7 * asked  # of times in float32, too
    if bool(off.any()):
        raise ConfigurationError(
            f"a time ts of {float(asked[off][0]):g} ms on a clock of {dt:g} ms", "times of the grid", "ts=None for all of them"
        )
    return rows.long()

"""A LIF network and its trial on a clock: from the problem at the door to the solution."""

import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.checks import steps_in
from adjsnn.errors import ConfigurationError
from adjsnn.kept import kept
from adjsnn.lif.clocked import ClockedRun, Differentiated, Reset, arrivals, clocked_layer
from adjsnn.lif.clocked_solution import ClockedSolution
from adjsnn.lif.engine import choose_clocked
from adjsnn.lif.network import LIFState
from adjsnn.lif.problem import LIFProblem


def solve_clocked(problem: LIFProblem, spike: Differentiated, reset: Reset, through_reset: bool) -> ClockedSolution:
    """Solve a network on a clock, layer by layer; gradients go through every step and the derivative of `spike`.

    Raises:
        ConfigurationError: as of `grid`; times ts that are not on the grid; loops that do not cover it.
    """
    dt, steps = grid(problem)
    body, ran = choose_clocked(problem.ran, problem.layers)
    rows = _rows(problem, dt, steps)
    sent, runs = input_spikes(problem, dt, steps), list[ClockedRun]()
    for k, (layer, start) in enumerate(zip(problem.layers, problem.y0, strict=True)):
        clocked = clocked_layer(layer, dt, first=k == 0)
        drive = problem.drive.values.to(layer.w_in) if problem.drive is not None and k == 0 else None
        arriving = arrivals(clocked.w_in, clocked.lags, sent)
        run = body(clocked, arriving, start, drive, spike, reset, through_reset)
        runs.append(run)
        sent = run.spikes
    like = problem.layers[0].w_in
    return ClockedSolution(
        ts=(rows.double() * dt).clamp(max=problem.trial.t_end).to(like),
        v=[run.v[rows] for run in runs],
        i=[run.i[rows] for run in runs],
        final_state=[LIFState(run.v[-1].clone(), run.i[-1].clone()) for run in runs],
        t_end=problem.trial.t_end,
        dt=dt,
        _rows=rows,
        _layers=problem.layers,
        _runs=runs,
        _readout=None if problem.readout is None else problem.readout._replace(w_out=kept(problem.readout.w_out)),
        _ran=ran,
    )


def grid(problem: LIFProblem) -> tuple[float, int]:
    """The step h, ms, and the number of steps of a trial on a clock.

    Raises:
        ConfigurationError: no dt; a trial that is no whole number of steps; input spike times that require a gradient, which
            a grid does not have.
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
    steps, whole = steps_in(t_end, dt, 1e-7)
    if steps < 1 or not whole:
        raise ConfigurationError(
            f"t_end={t_end:g} ms in steps of {dt:g} ms", "a whole number of steps", f"t_end={max(1, round(t_end / dt)) * dt:g}"
        )
    return dt, steps


def input_spikes(problem: LIFProblem, dt: float, steps: int) -> Float[Tensor, "T1 B M"]:
    """Number of input spikes at each time of the grid, each at the time nearest to its own."""
    trial, like = problem.trial, problem.layers[0].w_in
    batch, n_in = len(trial.first) - 1, like.shape[1]
    sample = torch.arange(batch, device=trial.first.device).repeat_interleave(trial.first.diff())
    time = problem.time.detach().double()
    within = time <= trial.t_end
    step = (time[within] / dt).round().long().clamp(max=steps)
    counts = like.new_zeros(steps + 1, batch, n_in)
    place = (step, sample[within], trial.source[within])
    return counts.index_put_(place, like.new_ones(()), accumulate=True)


def _rows(problem: LIFProblem, dt: float, steps: int) -> Tensor:
    """The rows of the grid at the times that were asked for; all of them where none were."""
    asked = problem.trial.probes[:-1]
    if not len(asked):
        return torch.arange(steps + 1, device=asked.device)
    rows = (asked / dt).round()
    off = (rows * dt - asked).abs() > 1e-6 * dt
    if bool(off.any()):
        raise ConfigurationError(
            f"a time ts of {float(asked[off][0]):g} ms on a clock of {dt:g} ms", "times of the grid", "ts=None for all of them"
        )
    return rows.long()

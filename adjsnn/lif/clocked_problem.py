"""A LIF network and its trial on a clock: from the problem at the door to the solution."""

import torch
from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.errors import ConfigurationError
from adjsnn.kept import kept
from adjsnn.lif.clocked import ClockedRun, Differentiated, Reset, arrivals, clocked_layer, grid, input_spikes, unroll
from adjsnn.lif.clocked_loops import fused
from adjsnn.lif.clocked_solution import ClockedSolution
from adjsnn.lif.network import LIFState
from adjsnn.lif.problem import LIFProblem


def solve_clocked(problem: LIFProblem, spike: Differentiated, reset: Reset, through_reset: bool) -> ClockedSolution:
    """Solve a network on a clock, layer by layer; gradients go through every step and the derivative of `spike`.

    Raises:
        ConfigurationError: as of `adjsnn.lif.clocked.grid`; times ts that are not on the grid; loops that do not cover it.
    """
    dt, steps = grid(problem)
    ran = _body(problem)
    rows = _rows(problem, dt, steps)
    sent, runs = input_spikes(problem, dt, steps), list[ClockedRun]()
    for k, (layer, start) in enumerate(zip(problem.layers, problem.y0, strict=True)):
        clocked = clocked_layer(layer, dt, first=k == 0)
        drive = problem.drive.values.to(layer.w_in) if problem.drive is not None and k == 0 else None
        arriving = arrivals(clocked.w_in, clocked.lags, sent)
        if ran.kernel == "fused":
            run = fused(clocked, arriving, start, drive, spike.derivative, reset, through_reset)
        else:
            run = unroll(clocked, arriving, start, drive, spike.fire, reset, through_reset)
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


def _body(problem: LIFProblem) -> Ran:
    """What takes the steps: compiled loops on the CPU, torch's tape elsewhere or where it was asked for."""
    asked, where = problem.ran, problem.layers[0].w_in.device.type
    if asked.kernel == "cuda" and asked.reason.startswith("kernels="):
        raise ConfigurationError(
            'kernels="cuda" on a clock, for which there are no loops on a GPU', '"auto" or "plain"', 'kernels="auto"'
        )
    if where != "cpu":
        return Ran("plain", f"the network is on {where}, for which there are no loops on a clock")
    return asked if asked.kernel == "plain" else Ran("fused", "the fused loops cover a network on a clock")


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

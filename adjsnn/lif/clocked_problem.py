"""A LIF network and its trial on a clock: from the problem at the door to the solution."""

import torch
from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.errors import ConfigurationError
from adjsnn.kept import kept
from adjsnn.lif.clocked import ClockedRun, Fire, Reset, arrivals, clocked_layer, grid, input_spikes, unroll
from adjsnn.lif.clocked_solution import ClockedSolution
from adjsnn.lif.network import LIFState
from adjsnn.lif.problem import LIFProblem


def solve_clocked(problem: LIFProblem, fire: Fire, reset: Reset, through_reset: bool) -> ClockedSolution:
    """Solve a network on a clock, layer by layer; gradients go through torch's tape and by `fire`.

    Raises:
        ConfigurationError: as of `adjsnn.lif.clocked.grid`; times ts that are not on the grid.
    """
    dt, steps = grid(problem)
    rows = _rows(problem, dt, steps)
    sent, runs = input_spikes(problem, dt, steps), list[ClockedRun]()
    for k, (layer, start) in enumerate(zip(problem.layers, problem.y0, strict=True)):
        clocked = clocked_layer(layer, dt, first=k == 0)
        drive = problem.drive.values.to(layer.w_in) if problem.drive is not None and k == 0 else None
        run = unroll(clocked, arrivals(clocked.w_in, clocked.lags, sent), start, drive, fire, reset, through_reset)
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
        _ran=Ran("plain", "rules on a clock run on torch's tape"),
    )


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

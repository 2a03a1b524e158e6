"""Continuous (Pontryagin) adjoint of hybrid systems: the costate's own differential equation, integrated backward."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adjsnn.checks import Number, positive
from adjsnn.errors import ConfigurationError
from adjsnn.hybrid.adaptive import Control, march
from adjsnn.hybrid.arrays import stage_time
from adjsnn.hybrid.autograd import attach
from adjsnn.hybrid.costate_path import Breaks, Dense, breaks_of, cross_event, dense_output
from adjsnn.hybrid.problem import HybridProblem
from adjsnn.hybrid.run import Gradients, Stored
from adjsnn.hybrid.solution import HybridSolution
from adjsnn.hybrid.steps import HybridProgram, Steps, combine, reversed_steps, step_times
from adjsnn.hybrid.vjp import add_held, add_leaves, pull_field
from adjsnn.numerics.tableaus import TABLEAUS, Tableau


@dataclass(frozen=True)
class ContinuousAdjoint:
    """Gradient of the true cost, at the method's order, by integrating the costate λ = dC/dy backward in time.

        λ̇ = -f_yᵀ λ,    λ jumps by dC/dy(t_n) at each output time,    dC/dθ = ∫ f_θᵀ λ dt,    dC/dy(0) = λ(0)

    (3.3), and at events as (3.5) says; for gated networks in the charge form these are (1.7)-(1.12). The state comes from the
    continuous extension of the forward steps, cubic or better; the integral over θ is a quadrature with the method's own
    weights, outside the error norm. It is not the gradient of the computed cost: the two converge to each other at the method's
    order.

    Memory: the states of all steps, and three to four times that for the continuous extension while the backward pass runs.

    Args:
        dt: longest backward step, ms; steps end on the output times. None: the forward steps again, or adaptive steps.
        method: "euler", "heun", "rk4" with fixed steps; "dopri5", "tsit5", adaptive where dt is None.
        rtol: relative tolerance of adaptive backward steps; None: that of the forward solve.
        atol: absolute tolerance of adaptive backward steps, relative to the largest cotangent dC/dy of a sample's output
            states, so that it means the same for a sum and for a mean; None: that of the forward solve.

    Raises:
        ConfigurationError: an unknown method, a dt that is not positive, or tolerances that cannot be right.
    """

    dt: Number | None = None
    method: str = "rk4"
    rtol: Number | None = None
    atol: Number | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, str) or self.method not in TABLEAUS:
            raise ConfigurationError(f"method={self.method!r}", f"one of {list(TABLEAUS)}", 'method="rk4"')
        if self.dt is not None:
            object.__setattr__(self, "dt", positive("dt", self.dt, "a positive step in ms, or None", "dt=0.1"))
        for name, tolerance in (("rtol", self.rtol), ("atol", self.atol)):
            if tolerance is not None and not self.adaptive:
                raise ConfigurationError(
                    f"{name}={tolerance!r} with fixed backward steps", "tolerances with adaptive steps only", 'method="dopri5"'
                )
            if tolerance is not None:
                object.__setattr__(self, name, positive(name, tolerance, "a positive tolerance", f"{name}=1e-6"))

    @property
    def adaptive(self) -> bool:
        """Whether the backward pass chooses its own steps."""
        return self.dt is None and TABLEAUS[self.method].b_error is not None

    def run_hybrid(self, problem: HybridProblem) -> HybridSolution:
        self._tolerances(problem.program)
        return attach(problem, self.sweep)

    def _tolerances(self, program: HybridProgram) -> tuple[float, float]:
        """The tolerances of the backward pass; raises ConfigurationError where it needs some and has none."""
        rtol, atol = float(self.rtol or program.rtol), float(self.atol or program.atol)
        if self.adaptive and not (rtol and atol):
            raise ConfigurationError(
                "an adaptive backward pass after fixed forward steps, without tolerances",
                "rtol and atol",
                f'ContinuousAdjoint(method="{self.method}", rtol=1e-6, atol=1e-6)',
            )
        return rtol, atol

    def sweep(self, stored: Stored, cotangents: Tensor) -> Gradients:
        """Gradients from the cotangents of the output states, (T+1, B, D)."""
        with torch.no_grad():
            path = _Path(stored, dense_output(stored), breaks_of(stored.steps, cotangents))
            return _integrate(path, TABLEAUS[self.method], self._steps(path, cotangents))

    def _steps(self, path: "_Path", cotangents: Tensor) -> Steps:
        """The backward steps, in the time s = -t, with the breaks as output times."""
        stored, breaks = path.stored, path.breaks
        if self.dt is not None:
            return _grid(-breaks.times, float(self.dt))
        if not self.adaptive:
            return reversed_steps(stored.steps, breaks.numbers)
        rtol, atol = self._tolerances(stored.program)
        size = cotangents.abs().amax((0, 2))
        if stored.of_times is not None:
            size = torch.maximum(size, stored.of_times.abs().amax(0))
        scale = torch.where(size > 0.0, size, 1.0)[:, None]

        def field(s: Tensor, costate: Tensor, interval: Tensor | None) -> Tensor:
            assert interval is not None
            _, out, y, _ = path.evaluate(s, interval, wants_u=False)
            return pull_field(out, y, None, (), costate)[0]

        control = Control(rtol, atol * scale, stored.program.max_steps or 100_000, keep=1)
        first = breaks.kicks[0]
        return march(
            TABLEAUS[self.method], field, -breaks.times, first, None, control, arrive=path.arrive, by_interval=True
        ).steps


@dataclass(frozen=True)
class _Path:
    """What the costate meets on its way back: the state, and the breaks."""

    stored: Stored
    dense: Dense
    breaks: Breaks

    def evaluate(self, s: Tensor, interval: Tensor, *, wants_u: bool) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The interval of the held input and f, y and u on the tape at t = -s, (B, 1), `interval` (B,) breaks from the end."""
        samples = torch.arange(len(interval), device=interval.device)
        high = self.breaks.rows[interval, samples]
        low = self.breaks.rows[interval + 1, samples]
        y = self.dense.at(-s, low, high).requires_grad_()
        held = self.stored.steps.interval[(high - 1).clamp(min=0), samples]
        u = None
        if self.stored.u is not None:
            u = self.stored.u[held, samples].detach().requires_grad_(wants_u)
        with torch.enable_grad():
            out = self.stored.program.field(-s, y, u)
        return held, out, y, u

    def arrive(self, which: Tensor, costate: Tensor, arrived: Tensor, sums: list[Tensor] | None = None) -> Tensor:
        """λ after break `which` (B,), for the samples that have `arrived`: an output time, or an event."""
        samples = torch.arange(len(which), device=which.device)
        kicked = torch.where(arrived[:, None], costate + self.breaks.kicks[which, samples], costate)
        step = torch.where(arrived, self.breaks.events[which, samples], -1)
        if self.stored.steps.event is None or not bool((step >= 0).any()):
            return kicked
        return cross_event(self.stored, self.dense, step, kicked, sums)


def _integrate(path: _Path, tableau: Tableau, steps: Steps) -> Gradients:
    """Take the backward steps, with the quadrature of f_θᵀ λ and f_uᵀ λ."""
    stored = path.stored
    sums = [torch.zeros_like(x) for x in stored.leaves]
    u_bar = torch.zeros_like(stored.u) if stored.wants_u and stored.u is not None else None
    # A sample with fewer steps than others starts after padding.
    costate = path.arrive(steps.output[0].clamp(min=0), torch.zeros_like(stored.y0), steps.output[0] >= 0)
    for k in range(len(steps)):
        times = step_times(steps, k, costate.dtype)
        interval = steps.interval[k]
        rates: list[Tensor] = []
        for i in range(tableau.stages - tableau.first_same_as_last):
            stage = costate if i == 0 else costate + times[2] * combine(tableau.a[i], rates)
            s = stage_time(tableau, i, times)
            held, out, y, u = path.evaluate(s, interval, wants_u=stored.wants_u)
            weighted = (times[2] * tableau.b[i]) * stage
            rates.append(pull_field(out, y, None, (), stage, retain=True)[0])
            if stored.leaves or u_bar is not None:
                _, of_u, of_leaves = pull_field(out, y, u, stored.leaves, weighted)
                add_leaves(sums, of_leaves)
                if u_bar is not None and of_u is not None:
                    add_held(u_bar, held, of_u)
        costate = costate + times[2] * combine(tableau.b, rates)
        which = steps.output[k + 1]
        costate = path.arrive(which.clamp(min=0), costate, which >= 0, sums)
    return Gradients(costate, u_bar, tuple(sums))


def _grid(ts: Tensor, dt: float) -> Steps:
    """Equal steps of at most dt in each interval between the times ts, (M, B), of each sample."""
    spans = ts.diff(dim=0)
    # A span of three steps must not become four because 0.3 / 0.1 is above 3; one without length has a step all the same,
    # so that every time has a row of its own.
    counts = (spans / dt * (1.0 - 1e-12)).ceil().long().clamp(min=1)
    ends = counts.cumsum(0)
    rows = torch.cat([torch.zeros_like(ends[:1]), ends])
    k = torch.arange(int(ends[-1].max()), device=ts.device)[:, None].expand(-1, ts.shape[1])
    interval = torch.searchsorted(ends.T.contiguous(), k.T.contiguous(), right=True).T
    real = interval < len(spans)
    interval = interval.clamp(max=len(spans) - 1)
    lengths = torch.where(real, (spans / counts).gather(0, interval), 0.0)
    starts = ts.gather(0, interval) + (k - rows.gather(0, interval)) * lengths
    times = torch.cat([torch.where(real, starts, ts[-1]), ts[-1:]])
    numbers = torch.arange(len(ts), device=ts.device)[:, None].expand_as(rows)
    output = torch.full((len(times), ts.shape[1]), -1, dtype=torch.long, device=ts.device)
    return Steps(times, lengths, interval, output.scatter_(0, rows, numbers), rows)

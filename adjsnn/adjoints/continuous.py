"""Continuous (Pontryagin) adjoint of smooth systems: the costate's own differential equation, integrated backward."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adjsnn.adjoints.smooth_discrete import Gradients, Stored, add_held, add_leaves, at_row, pull_field
from adjsnn.errors import ConfigurationError
from adjsnn.integrate.adaptive import Control, march
from adjsnn.integrate.smooth import SmoothProgram, Steps, combine, stage_derivatives, stage_time, step_times
from adjsnn.integrate.tableaus import TABLEAUS, Tableau


@dataclass(frozen=True)
class ContinuousAdjoint:
    """Gradient of the true cost, at the method's order, by integrating the costate λ = dC/dy backward in time.

        λ̇ = -f_yᵀ λ,    λ jumps by dC/dy(t_n) at each output time,    dC/dθ = ∫ f_θᵀ λ dt,    dC/dy(0) = λ(0)

    The state comes from the continuous extension of the forward steps, cubic or better; the integral over θ is a quadrature
    with the method's own weights, outside the error norm. It is not the gradient of the computed cost: the two converge to each
    other at the method's order.

    Memory: the states of all steps, and three to four times that for the continuous extension while the backward pass runs.

    Args:
        dt: longest backward step, ms; steps end on the output times. None: the forward steps again, or adaptive steps.
        method: "euler", "heun", "rk4" with fixed steps; "dopri5", "tsit5", adaptive where dt is None.
        rtol, atol: tolerances of adaptive backward steps; None: those of the forward solve.

    Raises:
        ConfigurationError: an unknown method, a dt that is not positive, or tolerances that cannot be right.
    """

    dt: float | None = None
    method: str = "rk4"
    rtol: float | None = None
    atol: float | None = None

    def __post_init__(self) -> None:
        if self.method not in TABLEAUS:
            raise ConfigurationError(f"method={self.method!r}", f"one of {list(TABLEAUS)}", 'method="rk4"')
        if self.dt is not None and not 0.0 < self.dt < float("inf"):
            raise ConfigurationError(f"dt={self.dt!r}", "a positive step in ms, or None", "dt=0.1")
        for name, tolerance in (("rtol", self.rtol), ("atol", self.atol)):
            if tolerance is not None and not self.adaptive:
                raise ConfigurationError(
                    f"{name}={tolerance!r} with fixed backward steps", "tolerances with adaptive steps only", 'method="dopri5"'
                )
            if tolerance is not None and not 0.0 < tolerance < float("inf"):
                raise ConfigurationError(f"{name}={tolerance!r}", "a positive tolerance", f"{name}=1e-6")

    @property
    def adaptive(self) -> bool:
        """Whether the backward pass chooses its own steps."""
        return self.dt is None and TABLEAUS[self.method].b_error is not None

    def check(self, program: SmoothProgram) -> tuple[float, float]:
        """The tolerances of the backward pass; raises ConfigurationError where it needs some and has none."""
        rtol, atol = self.rtol or program.rtol, self.atol or program.atol
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
            dense = _dense_output(stored)
            steps = self._steps(stored, dense, cotangents)
            return _integrate(stored, dense, TABLEAUS[self.method], steps, cotangents)

    def _steps(self, stored: Stored, dense: "_Dense", cotangents: Tensor) -> Steps:
        """The backward steps, in the time s = -t, with the output times counted from the last."""
        ts = stored.program.ts
        if self.dt is not None:
            return _grid(-ts.flip(0), self.dt, cotangents.shape[1])
        if not self.adaptive:
            return reversed_steps(stored.steps, len(ts) - 1)
        rtol, atol = self.check(stored.program)

        def field(s: Tensor, costate: Tensor, interval: Tensor | None) -> Tensor:
            assert interval is not None
            _, out, y, _ = _evaluate(stored, dense, s, interval, wants_u=False)
            return pull_field(out, y, None, (), costate)[0]

        control = Control(rtol, atol, stored.program.max_steps or 100_000, most=1)
        kicks = cotangents.flip(0)
        return march(TABLEAUS[self.method], field, -ts.flip(0), kicks[0], None, control, kicks, by_interval=True).steps


@dataclass(frozen=True)
class _Dense:
    """Continuous extension of the forward steps: y(t_k + σh) = y_k + Σ_p C_p σ^p.

    Attributes:
        steps: the forward steps.
        starts: y_k, (K, B, D).
        coefficients: C_p, p = 1 … P, (P, K, B, D).
        times: step times, (B, K+1), for searching.
    """

    steps: Steps
    starts: Tensor
    coefficients: Tensor
    times: Tensor

    def at(self, t: Tensor) -> Tensor:
        """y(t), (B, D), at each sample's own time, (B, 1)."""
        t = t.double()
        k = torch.searchsorted(self.times, t, right=True).squeeze(1) - 1
        k = torch.minimum(k.clamp(min=0), self.steps.accepted - 1)
        samples = torch.arange(len(k), device=k.device)
        sigma = (t.squeeze(1) - self.steps.times[k, samples]) / self.steps.lengths[k, samples]
        sigma = sigma.to(self.starts.dtype).unsqueeze(1)
        total = torch.zeros_like(self.starts[0])
        for coefficient in self.coefficients[:, k, samples].flip(0):
            total = (total + coefficient) * sigma
        return self.starts[k, samples] + total


def _dense_output(stored: Stored) -> _Dense:
    """Continuous extension of the stored steps: the tableau's own for order 5, else the cubic Hermite polynomial."""
    program, steps, y, tableau = stored.program, stored.steps, stored.kept, stored.program.tableau
    width = max(len(row) for row in tableau.dense) if tableau.first_same_as_last else 3
    coefficients = y.new_empty(width, len(steps), *y.shape[1:])
    for k in range(len(steps)):
        t, t_end, h = step_times(steps, k, y.dtype)
        u = program.held(stored.u, steps, k)
        if tableau.first_same_as_last:
            ks = stage_derivatives(tableau, program.field, steps, k, y[k], u)
            ks.append(program.field(t_end, y[k + 1], u))
            for p in range(width):
                weights = [row[p] if p < len(row) else 0.0 for row in tableau.dense]
                coefficients[p, k] = h * combine(weights, ks)
        else:
            begins, ends = h * program.field(t, y[k], u), h * program.field(t_end, y[k + 1], u)
            change = y[k + 1] - y[k]
            coefficients[0, k] = begins
            coefficients[1, k] = 3.0 * change - 2.0 * begins - ends
            coefficients[2, k] = begins + ends - 2.0 * change
    return _Dense(steps, y[:-1], coefficients, steps.times.T.contiguous())


def _integrate(stored: Stored, dense: _Dense, tableau: Tableau, steps: Steps, cotangents: Tensor) -> Gradients:
    """Take the backward steps, with the quadrature of f_θᵀ λ and f_uᵀ λ."""
    reversed_cotangents = cotangents.flip(0)
    sums = [torch.zeros_like(x) for x in stored.leaves]
    u_bar = torch.zeros_like(stored.u) if stored.wants_u and stored.u is not None else None
    costate = at_row(steps, reversed_cotangents, 0)
    for k in range(len(steps)):
        times = step_times(steps, k, costate.dtype)
        interval = steps.interval[k]
        rates: list[Tensor] = []
        for i in range(tableau.stages - tableau.first_same_as_last):
            stage = costate if i == 0 else costate + times[2] * combine(tableau.a[i], rates)
            s = stage_time(tableau, i, times)
            forward_interval, out, y, u = _evaluate(stored, dense, s, interval, wants_u=stored.wants_u)
            weighted = (times[2] * tableau.b[i]) * stage
            rates.append(pull_field(out, y, None, (), stage, retain=True)[0])
            if stored.leaves or u_bar is not None:
                _, of_u, of_leaves = pull_field(out, y, u, stored.leaves, weighted)
                add_leaves(sums, of_leaves)
                if u_bar is not None and of_u is not None:
                    add_held(u_bar, forward_interval, of_u)
        costate = costate + times[2] * combine(tableau.b, rates) + at_row(steps, reversed_cotangents, k + 1)
    return Gradients(costate, u_bar, tuple(sums))


def _evaluate(
    stored: Stored, dense: _Dense, s: Tensor, interval: Tensor, *, wants_u: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The forward interval and f, y and u on the tape at the time t = -s, (B, 1), in the backward `interval` of each sample."""
    forward_interval = len(stored.program.ts) - 2 - interval
    y = dense.at(-s).requires_grad_()
    u = None
    if stored.u is not None:
        samples = torch.arange(len(interval), device=interval.device)
        u = stored.u[forward_interval, samples].detach().requires_grad_(wants_u)
    with torch.enable_grad():
        out = stored.program.field(-s, y, u)
    return forward_interval, out, y, u


def reversed_steps(steps: Steps, intervals: int) -> Steps:
    """The same steps from the last to the first, in the time s = -t, padded at the front."""
    output = steps.output.flip(0)
    return Steps(
        -steps.times.flip(0),
        steps.lengths.flip(0),
        intervals - 1 - steps.interval.flip(0),
        torch.where(output >= 0, intervals - output, -1),
        len(steps) - steps.rows.flip(0),
    )


def _grid(ts: Tensor, dt: float, batch: int) -> Steps:
    """Equal steps of at most dt in each interval between the times ts, (T+1,)."""
    spans = ts.diff()
    # A span of three steps must not become four because 0.3 / 0.1 is above 3.
    counts = (spans / dt * (1.0 - 1e-12)).ceil().long()
    interval = torch.arange(len(spans), device=ts.device).repeat_interleave(counts)
    rows = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    lengths = (spans / counts).repeat_interleave(counts)
    inner = torch.arange(len(interval), device=ts.device) - rows[interval]
    times = torch.cat([ts[interval] + inner * lengths, ts[-1:]])
    output = rows.new_full((len(times),), -1)
    output[rows] = torch.arange(len(rows), device=ts.device)
    return Steps(*(x[:, None].expand(-1, batch) for x in (times, lengths, interval, output, rows)))

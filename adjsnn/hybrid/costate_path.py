"""What a costate meets on its way back: the state between steps, the times at which it jumps, and how it crosses an event."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.hybrid.guards import level
from adjsnn.hybrid.run import Stored
from adjsnn.hybrid.steps import Steps, combine, jump, stage_derivatives, step_times
from adjsnn.hybrid.vjp import add_leaves, check_speed, pull


@dataclass(frozen=True)
class Breaks:
    """The output times and events of each sample, M at most, from the last to the first, padded with the first time.

    Attributes:
        times: (M, B), float64, ms.
        rows: the row of the forward states, (M, B).
        kicks: dC/dy there, zero at events, (M, B, D).
        events: the step that ends in the event, (M, B), -1 where there is none.
        numbers: which break each row of the forward states is, -1 for none, (K+1, B).
    """

    times: Float[Tensor, "M B"]
    rows: Int[Tensor, "M B"]
    kicks: Float[Tensor, "M B D"]
    events: Int[Tensor, "M B"]
    numbers: Int[Tensor, "K1 B"]


def breaks_of(steps: Steps, cotangents: Float[Tensor, "T1 B D"]) -> Breaks:
    """The breaks of a run."""
    broken = steps.output >= 0
    if steps.event is not None:
        broken = torch.cat([broken[:1], broken[1:] | (steps.event >= 0)])
    backward = broken.flip(0)
    counts = backward.sum(0)
    most = int(counts.max())
    order = (~backward).to(torch.int8).argsort(dim=0, stable=True)[:most]
    real = torch.arange(most, device=order.device)[:, None] < counts
    rows = torch.where(real, len(steps) - order, 0)
    samples = torch.arange(rows.shape[1], device=rows.device)
    output = torch.where(real, steps.output.gather(0, rows), -1)
    kicks = torch.where((output >= 0)[..., None], cotangents[output.clamp(min=0), samples], 0.0)
    events = torch.full_like(rows, -1)
    if steps.event is not None:
        before = (rows - 1).clamp(min=0)
        events = torch.where(real & (rows > 0) & (steps.event.gather(0, before) >= 0), before, -1)
    numbers = torch.where(backward, backward.long().cumsum(0) - 1, -1).flip(0)
    return Breaks(steps.times.gather(0, rows), rows, kicks, events, numbers)


@dataclass(frozen=True)
class Dense:
    """Continuous extension of the forward steps: y(t_k + σh) = y_k + Σ_p C_p σ^p.

    Attributes:
        steps: the forward steps.
        starts: y_k, (K, B, D).
        ends: the state at the end of each step, before the jump of an event, (K, B, D).
        coefficients: C_p, p = 1 … P, (P, K, B, D).
        times: step times, (B, K+1), for searching.
    """

    steps: Steps
    starts: Tensor
    ends: Tensor
    coefficients: Tensor
    times: Tensor

    def at(self, t: Tensor, low: Int[Tensor, " B"], high: Int[Tensor, " B"]) -> Float[Tensor, "B D"]:
        """y(t) at each sample's own time, (B, 1), by the steps from row `low` to row `high` of the states."""
        t = t.double()
        k = torch.searchsorted(self.times, t, right=True).squeeze(1) - 1
        k = torch.minimum(torch.maximum(k, low), (high - 1).clamp(min=0))
        samples = torch.arange(len(k), device=k.device)
        length = self.steps.lengths[k, samples]
        sigma = (t.squeeze(1) - self.steps.times[k, samples]) / torch.where(length > 0.0, length, 1.0)
        sigma = sigma.to(self.starts.dtype).unsqueeze(1)
        increment = torch.zeros_like(self.starts[0])
        for coefficient in self.coefficients[:, k, samples].flip(0):
            increment = (increment + coefficient) * sigma
        return self.starts[k, samples] + increment


def dense_output(stored: Stored) -> Dense:
    """Continuous extension of the stored steps: the tableau's own for order 5, else the cubic Hermite polynomial."""
    program, steps, y = stored.program, stored.steps, stored.kept
    tableau = program.tableau
    width = max(len(row) for row in tableau.dense) if tableau.first_same_as_last else 3
    coefficients = y.new_empty(width, len(steps), *y.shape[1:])
    ends = y[1:] if steps.event is None else torch.empty_like(y[1:])
    for k in range(len(steps)):
        t, t_end, h = step_times(steps, k, y.dtype)
        u = program.held(stored.u, steps, k)
        if tableau.first_same_as_last:
            ks = stage_derivatives(tableau, program.field, steps, k, y[k], u)
            if steps.event is not None:
                ends[k] = y[k] + h * combine(tableau.b, ks)
            ks.append(program.field(t_end, ends[k], u))
            for p in range(width):
                weights = [row[p] if p < len(row) else 0.0 for row in tableau.dense]
                coefficients[p, k] = h * combine(weights, ks)
        else:
            begins, stops = h * program.field(t, y[k], u), h * program.field(t_end, y[k + 1], u)
            change = y[k + 1] - y[k]
            coefficients[0, k] = begins
            coefficients[1, k] = 3.0 * change - 2.0 * begins - stops
            coefficients[2, k] = begins + stops - 2.0 * change
    return Dense(steps, y[:-1], ends, coefficients, steps.times.T.contiguous())


def cross_event(
    stored: Stored, dense: Dense, step: Int[Tensor, " B"], costate: Float[Tensor, "B D"], sums: list[Tensor] | None
) -> Float[Tensor, "B D"]:
    """λ⁻ before the event that ends `step` (B,), -1 where there is none, from λ⁺ after it, (3.5).

        B = λ⁺ᵀ (r_y f⁻ + r_t - f⁺) + dC/dt_k,    D = φ_yᵀ f⁻ + φ_t
        λ⁻ = r_yᵀ λ⁺ - φ_y B/D,    θ̄ += r_θᵀ λ⁺ - φ_θ B/D

    Args:
        sums: θ̄, added to where given.

    Raises:
        EventError: D ≤ 0; names sample, guard and time.
    """
    program, steps = stored.program, stored.steps
    assert steps.event is not None
    samples = torch.arange(len(step), device=step.device)
    k, fires = step.clamp(min=0), step >= 0
    guard = torch.where(fires, steps.event[k, samples], -1)
    t = steps.times[k + 1, samples].to(costate.dtype).unsqueeze(1).requires_grad_()
    minus = dense.ends[k, samples].detach().clone().requires_grad_()
    leaves = () if sums is None else stored.leaves
    with torch.enable_grad():
        plus = jump(program.system, t, minus, guard, program.guards)
        value = level(program.system, t, minus, guard)
    of_minus, of_t, *of_leaves = pull(plus, (minus, t, *leaves), costate)
    slope, slope_t = pull(value, (minus, t), torch.ones_like(value), retain=True)
    u = None if stored.u is None else stored.u[steps.interval[k, samples], samples]
    flow, flow_plus = (program.field(t.detach(), y.detach(), u) for y in (minus, plus))
    speed = (slope * flow).sum(1, keepdim=True) + slope_t
    check_speed(fires[:, None], guard, speed, t)
    of_time = (of_minus * flow).sum(1, keepdim=True) + of_t - (costate * flow_plus).sum(1, keepdim=True)
    if stored.of_times is not None:
        of_time = of_time + stored.of_times[k, samples].unsqueeze(1)
    ratio = torch.where(fires[:, None], of_time / speed, 0.0)
    if sums is not None:
        add_leaves(sums, of_leaves)
        add_leaves(sums, pull(value, leaves, -ratio.squeeze(1)))
    return torch.where(fires[:, None], of_minus - ratio * slope, costate)

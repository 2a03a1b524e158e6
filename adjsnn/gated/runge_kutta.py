"""Runge–Kutta steps of a gated-synapse network on the charge form (1.5), with resets inside the step (1.14)-(1.16).

With z = h/τ, ΔG_i = G(v_i) - G(v), and the tableau extended by its weights as a last row, r = a - G/τ gives at the stages and
at the end of the step

    a_i + z Σ_{j<i} A_ij a_j = a + ΔG_i/τ,     so     a_i = α_i a + Σ_{j≤i} C_ij ΔG_j/τ,     C = (1 + zA)⁻¹,  α = C 1    (1.14)

in which v̇ does not appear and every full crossing counts exactly 1, whatever the step. G counts on through the threshold.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.gated.gates import Gate
from adjsnn.gated.membranes import Constants, Membrane
from adjsnn.gated.network import GatedTensors
from adjsnn.gated.program import NO_MEMORY, GatedProgram, GatedTrajectory, Located, Step, blocks
from adjsnn.numerics.scalars import spread
from adjsnn.numerics.tableaus import Tableau

# The current inside a step from those of its stages, I(σ) = Σ_i ℓ_i(σ) I_i: for each stage the coefficients of 1, σ, σ². One
# order below that of the step is enough, because a reset integrates it over a part of the step.
ALONG: dict[str, tuple[tuple[float, ...], ...]] = {
    "euler": ((1.0,),),
    "heun": ((1.0, -1.0), (0.0, 1.0)),
    "rk4": ((1.0, -3.0, 2.0), (0.0, 2.0, -2.0), (0.0, 2.0, -2.0), (0.0, -1.0, 2.0)),
}
MOST_ITERATIONS = 80  # bisection alone would end within the 53 bits of a float64


class Filter(NamedTuple):
    """α and C/τ of (1.14), by row: stages 0 … s-1 and the end of the step; entries are numbers or (N,)."""

    keep: tuple[Tensor, ...]
    gain: tuple[tuple[Tensor, ...], ...]


class Rates(NamedTuple):
    """What a step needs of the network: W_recᵀ, both filters, and the membrane's prepared constants."""

    w_rec_t: Tensor
    fast: Filter
    slow: Filter
    constants: Constants


class Stages(NamedTuple):
    """Stages of one step, or of many at once: lists over stages of voltage, current, dv/dt and ΔG (none for the first)."""

    v: list[Tensor]
    current: list[Tensor]
    flow: list[Tensor]
    charge: list[Tensor | None]


class GatedRungeKutta(GatedProgram):
    """Explicit Runge–Kutta steps on the charge form, order 2 (Heun) or 4 (RK4).

    Args:
        tableau: the method; `ALONG` must know it.
    """

    reads_input_again = True

    def __init__(self, neuron: Membrane, gate: Gate, dt: float, tableau: Tableau) -> None:
        super().__init__(neuron, gate, dt)
        self.tableau, self.along, self.stage_count = tableau, ALONG[tableau.name], tableau.stages

    def rates(self, tensors: GatedTensors) -> Rates:
        return Rates(
            tensors.w_rec.T.contiguous(),
            self.filter(tensors.tau_fast),
            self.filter(tensors.tau_slow),
            self.neuron.prepare(tensors.constants),
        )

    def filter(self, tau: Tensor) -> Filter:
        """α and C/τ of (1.14), by forward substitution; differentiable in τ."""
        z, gain = self.dt / tau, 1.0 / tau
        one, zero = torch.ones_like(tau), torch.zeros_like(tau)
        rows: list[list[Tensor]] = []
        for i, a in enumerate((*self.tableau.a, self.tableau.b)):
            row = [one if j == i else zero for j in range(self.tableau.stages + 1)]
            for k, weight in enumerate(a):
                if weight:
                    row = [x - z * weight * y for x, y in zip(row, rows[k], strict=True)]
            rows.append(row)
        keep = tuple(torch.stack(row).sum(0) for row in rows)
        return Filter(keep, tuple(tuple(gain * x for x in row) for row in rows))

    def unwrapped_charge(self, v: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """G of a voltage that has been counted on through the threshold."""
        if not self.neuron.wraps:
            return self.charge_level(v)
        inside = torch.frac(v)
        return self.charge_level(inside) + (v - inside).detach()

    def unwrapped_slope(self, v: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """g of a voltage that has been counted on through the threshold."""
        return self.gate_slope(torch.frac(v) if self.neuron.wraps else v)

    def stages(
        self, v: Tensor, a_fast: Tensor, level: Tensor, drive: Tensor, rates: Rates, first: Tensor | None = None
    ) -> Stages:
        """Stages of the step from (v, a_f), with G(v) = level and W_in u + b = drive; `first` is I of the first, if known."""
        stages = Stages([], [], [], [])
        for i, weights in enumerate(self.tableau.a):
            now = v if i == 0 else self._along_flow(v, stages.flow, weights)
            charge = self.unwrapped_charge(now) - level if i else None
            stages.v.append(now)
            stages.charge.append(charge)
            if i == 0 and first is not None:
                current = first
            else:
                current = drive + self.filtered(a_fast, stages.charge, rates.fast, i) @ rates.w_rec_t
            stages.current.append(current)
            stages.flow.append(spread(self.neuron.flow(now, current, rates.constants), now))
        return stages

    def filtered(self, a: Tensor, charge: list[Tensor | None], filter_: Filter, row: int) -> Tensor:
        """a_i of (1.14): `row` a stage, or the number of stages for the end of the step."""
        activity = filter_.keep[row] * a
        for j in range(1, row + 1):
            released = charge[j]
            assert released is not None
            activity = activity + filter_.gain[row][j] * released
        return activity

    def step(self, now: Step, drive: Float[Tensor, "B N"], rates: Rates, memory: Step = NO_MEMORY) -> Step:
        stages = self.stages(now.v, now.a_fast, now.charge_level, drive, rates)
        moved = self._along_flow(now.v, stages.flow, self.tableau.b)
        v, crossings = self.reset(now.v, moved, stages, rates.constants)
        level = self.charge_level(v)
        charge = [*stages.charge, level - now.charge_level + crossings]
        end = self.tableau.stages
        a_fast, a_slow = self.filtered(now.a_fast, charge, rates.fast, end), self.filtered(now.a_slow, charge, rates.slow, end)
        result = Step(v, a_fast, a_slow, stages.current[0], crossings, level)
        if memory is NO_MEMORY:
            return result
        for target, value in zip(memory[:5], result[:5], strict=True):
            target.copy_(value)
        return Step(*memory[:5], level)

    def reset(self, v: Tensor, moved: Tensor, stages: Stages, c: Constants) -> tuple[Tensor, Tensor]:
        """v⁺ and the signed number of thresholds crossed."""
        if self.neuron.wraps:
            wrapped = torch.frac(moved)
            return wrapped, (moved - wrapped).detach()
        upward = moved.detach() >= self.neuron.threshold
        spiked = upward | (moved.detach() <= -self.neuron.threshold) if self.neuron.two_sided else upward
        crossings = torch.where(spiked, moved.detach().sign(), 0.0)
        if not bool(spiked.any()):
            return moved, crossings
        places = spiked.nonzero(as_tuple=True)
        constants = {name: x[places[-1]] if x.dim() else x for name, x in c.items()}
        after = self.after_reset(
            v[places], [x[places] for x in stages.flow], [x[places] for x in stages.current], moved[places], constants
        )
        return moved.index_put(places, after), crossings

    def after_reset(self, v: Tensor, flow: list[Tensor], current: list[Tensor], moved: Tensor, c: Constants) -> Tensor:
        """v⁺ of S spikes, (1.16): a step of the same method from v_r over the rest of the step, under the current I(σ).

        Args:
            v: at the start of the step, (S,).
            flow: k_i of its stages, each (S,).
            current: I_i of its stages, each (S,).
            moved: ṽ, at its end before the reset, (S,).
            c: constants from `prepare`, each () or (S,).
        """
        sigma = self.crossing(v, flow, moved)
        rest = (1.0 - sigma) * self.dt
        start = self.neuron.v_reset(c) + torch.zeros_like(v)
        slopes: list[Tensor] = []
        for weights, node in zip(self.tableau.a, self.tableau.c, strict=True):
            position = sigma + node * (1.0 - sigma)
            now = start
            for weight, slope in zip(weights, slopes, strict=True):
                now = now + weight * rest * slope
            drive = sum(
                (polynomial(ell, position) * x for ell, x in zip(self.along, current, strict=True)), torch.zeros_like(v)
            )
            slopes.append(self.neuron.flow(now, drive, c))
        for weight, slope in zip(self.tableau.b, slopes, strict=True):
            start = start + weight * rest * slope
        return start

    def crossing(self, v: Tensor, flow: list[Tensor], moved: Tensor) -> Tensor:
        """σ of (1.15), 0 < σ ≤ 1, where the method's dense output v + h Σ b_i(σ) k_i meets the threshold.

        Found by Newton's method inside a bracket; its derivative is that of one more Newton step, which is exact.
        """
        level = self.first_level(v.detach(), moved.detach())
        with torch.no_grad():
            sigma = self._root(v.detach(), [x.detach() for x in flow], level, moved.detach())
            speed = self.dense_slope(flow, sigma)
        height = v + self.dt * sum((polynomial((0.0, *b), sigma) * k for b, k in zip(self.tableau.dense, flow, strict=True)))
        return sigma - (height - height.detach()) / speed

    def dense_slope(self, flow: list[Tensor], sigma: Tensor) -> Tensor:
        """d/dσ of the dense output, h Σ b_i′(σ) k_i."""
        slopes = (tuple((n + 1) * x for n, x in enumerate(b)) for b in self.tableau.dense)
        return self.dt * sum((polynomial(b, sigma) * k for b, k in zip(slopes, flow, strict=True)), torch.zeros_like(sigma))

    def _root(self, v: Tensor, flow: list[Tensor], level: Tensor, moved: Tensor) -> Tensor:
        direction = torch.where(moved >= v, 1.0, -1.0).to(v.dtype)
        low, high = torch.zeros_like(v), torch.ones_like(v)
        sigma = (level - v) / (moved - v)
        for _ in range(MOST_ITERATIONS):
            height = v + self.dt * sum(
                (polynomial((0.0, *b), sigma) * k for b, k in zip(self.tableau.dense, flow, strict=True)), torch.zeros_like(v)
            )
            miss = (height - level) * direction
            low, high = torch.where(miss < 0, sigma, low), torch.where(miss < 0, high, sigma)
            newton = sigma - (height - level) / self.dense_slope(flow, sigma)
            following = torch.where((newton > low) & (newton < high), newton, 0.5 * (low + high))
            still = (following - sigma).abs() > 2 * torch.finfo(v.dtype).eps
            sigma = following
            if not bool(still.any()):
                break
        return sigma

    def locate(self, tensors: GatedTensors, u: Tensor, trajectory: GatedTrajectory) -> Located:
        """Stages are computed again, block by block, and the dense output solved for the threshold."""
        parts: list[Located] = []
        n_steps, batch, n_hidden = trajectory.current.shape
        with torch.no_grad():
            rates = self.rates(tensors)
            for start, stop in blocks(n_steps, batch * n_hidden):
                spiked = trajectory.crossings[start:stop].nonzero(as_tuple=True)
                stages = self.block_stages(tensors, rates, u, trajectory, start, stop)
                v, flow = trajectory.v[start:stop][spiked], [x[spiked] for x in stages.flow]
                moved = v
                for weight, slope in zip(self.tableau.b, flow, strict=True):
                    moved = moved + self.dt * weight * slope
                crossings = trajectory.crossings[start:stop][spiked]
                sigma = self._root(v, flow, self.first_level(v, moved), moved)
                speed = self.dense_slope(flow, sigma) / self.dt
                step, sample, neuron = spiked
                parts.append(Located(step + start, sample, neuron, crossings, v, moved, sigma, speed))
        return Located._make(torch.cat(column) for column in zip(*parts, strict=True))

    def block_stages(
        self, tensors: GatedTensors, rates: Rates, u: Tensor, trajectory: GatedTrajectory, start: int, stop: int
    ) -> Stages:
        """Stages of steps start … stop-1 at once, each (steps, B, N), from the stored states."""
        v, current = trajectory.v[start:stop], trajectory.current[start:stop]
        drive = torch.addmm(tensors.bias, u[start:stop].flatten(0, 1), tensors.w_in.T).unflatten(0, u[start:stop].shape[:2])
        return self.stages(v, trajectory.a_fast[start:stop], self.charge_level(v), drive, rates, current)

    def _along_flow(self, v: Tensor, flow: list[Tensor], weights: tuple[float, ...]) -> Tensor:
        for weight, slope in zip(weights, flow, strict=False):
            if weight:
                v = torch.add(v, slope, alpha=self.dt * weight)
        return v


def polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Σ_n coefficients[n] xⁿ."""
    value = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value = value * x + c
    return value

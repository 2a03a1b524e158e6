"""Hand-written discrete adjoint of the Runge–Kutta steps on the charge form, equations (4.5).

Backward through one step, with λ the cotangents at its end, g_i = g(v_i), and z, A, C, α of (1.14):

    v̄_e = λ_v + g(v⁺) m,    m = λ_f/τ_f + λ_s/τ_s                          (cotangent of v⁺)
    k̄_i = h b_i v̄_e,  or at a reset  v̄_e ∂v⁺/∂k_i                          (and Ī_i = v̄_e ∂v⁺/∂I_i there)
    for i = s … 1:    Ī_i += ∂_I f_i k̄_i       ā_i = W_recᵀ Ī_i
                      x_i  = Σ_{j≥i} C_ji ā_j/τ_f + C_ei λ_f/τ_f + C_ei λ_s/τ_s        (cotangent of ΔG_i, i > 1)
                      v̄_i = ∂_v f_i k̄_i + g_i x_i        k̄_j += h A_ij v̄_i
    λ_v ← v̄_1 + Σ_{i>1} v̄_i + v̄_e (or v̄_e ∂v⁺/∂v) - g(v) (m + Σ_{i>1} x_i)
    λ_f ← α_e λ_f + Σ_i α_i ā_i       λ_s ← α_e λ_s

Stages are computed again from the stored states, for a block of steps at once; each weight gradient is one product per block.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from adjsnn.adjoints.gated_euler import GatedCotangents, GatedGradients, outer
from adjsnn.integrate.gated_program import GatedTrajectory, blocks
from adjsnn.integrate.gated_rk import Filter, GatedRungeKutta, Rates, Stages
from adjsnn.systems.gated_network import GatedState, GatedTensors
from adjsnn.systems.membranes import Partials


@dataclass(frozen=True)
class _Block:
    """What the sweep through one block reads; every tensor (steps, B, N).

    Attributes:
        stages: of each step.   partials: of f at each stage.   slopes: g_i at each stage.   slope_after: g(v⁺).
        at: index (step, sample, neuron) of the resets that are no translations.
        after_v, after_flow, after_current: ∂v⁺/∂(v, k_i, I_i), h b_i and so on where nothing was reset.
        after_constants: ∂v⁺/∂c at the resets, by name, each (S,).
    """

    stages: Stages
    partials: list[Partials]
    slopes: list[Tensor]
    slope_after: Tensor
    at: tuple[Tensor, ...] | None
    after_v: Tensor | None
    after_flow: list[Tensor]
    after_current: list[Tensor]
    after_constants: dict[str, Tensor]


def gated_rk_adjoint(
    program: GatedRungeKutta,
    tensors: GatedTensors,
    u: Tensor,
    trajectory: GatedTrajectory,
    cotangents: GatedCotangents,
    wanted: frozenset[str],
) -> GatedGradients:
    """Gradients of a loss, given its cotangents, by the recursion (4.5); arguments as in `gated_euler_adjoint`."""
    with torch.no_grad():
        return _Sweep(program, tensors, u, trajectory, cotangents, wanted).run()


class _Sweep:
    """The backward recursion. Carries λ_v, λ_f and λ_s."""

    def __init__(
        self,
        program: GatedRungeKutta,
        tensors: GatedTensors,
        u: Tensor,
        trajectory: GatedTrajectory,
        cotangents: GatedCotangents,
        wanted: frozenset[str],
    ) -> None:
        self.program, self.tensors, self.u = program, tensors, u
        self.trajectory, self.cotangents, self.wanted = trajectory, cotangents, wanted
        self.rates: Rates = program.rates(tensors)
        self.constants = tuple(name for name in tensors.constants if name in wanted)
        self.total: dict[str, Tensor] = {}
        zero = torch.zeros_like(trajectory.v[0])
        self.lam_v, self.lam_fast, self.lam_slow = (zero + x for x in self._loss(len(trajectory.v) - 1))

    def run(self) -> GatedGradients:
        n_steps, batch, n_hidden = self.trajectory.current.shape
        d_u = torch.zeros_like(self.u) if "u" in self.wanted else None
        for start, stop in reversed(list(blocks(n_steps, batch * n_hidden * self.program.tableau.stages))):
            block = self._block(start, stop)
            flows, currents, filtered, after = self._recur(block, start, stop)
            self._gradients(block, flows, currents, filtered, after, start, stop, d_u)
        c = self.cotangents.readout
        if c is not None and "w_out" in self.wanted:
            self.total["w_out"] = outer(c, self.trajectory.a_slow)
        return GatedGradients(self.total, d_u, GatedState(self.lam_v, self.lam_fast, self.lam_slow))

    def _recur(self, block: _Block, start: int, stop: int) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]], Tensor]:
        """Sweep steps stop-1 … start. Returns, for the whole block, k̄_i, Ī_i, the cotangents of a at the stages and the end
        for both filters, and v̄_e."""
        program, tensors, fast, slow = self.program, self.tensors, self.rates.fast, self.rates.slow
        tableau, h = program.tableau, program.dt
        s = tableau.stages
        new = torch.empty_like(block.slope_after)
        flows, currents = [torch.empty_like(new) for _ in range(s)], [torch.empty_like(new) for _ in range(s)]
        filtered = [torch.empty_like(new) for _ in range(s + 1)]
        slow_end, ends = torch.empty_like(new), torch.empty_like(new)
        for n in reversed(range(stop - start)):
            m = fast.gain[s][s] * self.lam_fast + slow.gain[s][s] * self.lam_slow
            end = self.lam_v + block.slope_after[n] * m
            filtered[s][n], slow_end[n], ends[n] = self.lam_fast, self.lam_slow, end
            k = [x[n] * end for x in block.after_flow]
            lam_v = end if block.after_v is None else end * block.after_v[n]
            released = m
            lam_fast = fast.keep[s] * self.lam_fast
            for i in reversed(range(s)):
                current = block.partials[i].d_current[n] * k[i]
                if block.after_current:
                    current = current + block.after_current[i][n] * end
                a = current @ tensors.w_rec
                flows[i][n], currents[i][n], filtered[i][n] = k[i], current, a
                lam_fast = lam_fast + fast.keep[i] * a
                voltage = block.partials[i].d_v[n] * k[i]
                if i:
                    x = fast.gain[s][i] * self.lam_fast + slow.gain[s][i] * self.lam_slow
                    for j in range(i, s):
                        x = x + fast.gain[j][i] * filtered[j][n]
                    released = released + x
                    voltage = voltage + block.slopes[i][n] * x
                    for j, weight in enumerate(tableau.a[i]):
                        if weight:
                            k[j] = k[j] + h * weight * voltage
                lam_v = lam_v + voltage
            loss_v, loss_fast, loss_slow = self._loss(start + n)
            self.lam_v = lam_v - block.slopes[0][n] * released + loss_v
            self.lam_fast = lam_fast + loss_fast
            self.lam_slow = slow.keep[s] * self.lam_slow + loss_slow
        return flows, currents, [filtered, [slow_end]], ends

    def _gradients(
        self,
        block: _Block,
        flows: list[Tensor],
        currents: list[Tensor],
        filtered: list[list[Tensor]],
        after: Tensor,
        start: int,
        stop: int,
        d_u: Tensor | None,
    ) -> None:
        """Add the block's share of every wanted gradient."""
        whole = torch.stack(currents).sum(0)
        trajectory, program, stages = self.trajectory, self.program, block.stages
        if "bias" in self.wanted:
            self._add("bias", whole.sum((0, 1)))
        if "w_in" in self.wanted:
            self._add("w_in", outer(whole, self.u[start:stop]))
        if d_u is not None:
            d_u[start:stop] = whole @ self.tensors.w_in
        a_fast = trajectory.a_fast[start:stop]
        if "w_rec" in self.wanted:
            for i, current in enumerate(currents):
                self._add("w_rec", outer(current, program.filtered(a_fast, stages.charge, self.rates.fast, i)))
        level = program.charge_level(trajectory.v[start : stop + 1])
        charge = [*stages.charge, level[1:] - level[:-1] + trajectory.crossings[start:stop]]
        s = program.tableau.stages
        if "tau_fast" in self.wanted:
            self._add("tau_fast", self._filter_gradient(self.tensors.tau_fast, a_fast, charge, dict(enumerate(filtered[0]))))
        if "tau_slow" in self.wanted:
            a_slow = trajectory.a_slow[start:stop]
            self._add("tau_slow", self._filter_gradient(self.tensors.tau_slow, a_slow, charge, {s: filtered[1][0]}))
        for name in self.constants:
            share = sum(
                (k * partial.d_constants[name] for k, partial in zip(flows, block.partials, strict=True)),
                torch.zeros_like(after),
            )
            if block.at is not None:
                share = share.index_put(block.at, after[block.at] * block.after_constants[name], accumulate=True)
            self._add(name, share.sum_to_size(self.tensors.constants[name].shape))

    def _filter_gradient(self, tau: Tensor, a: Tensor, charge: list[Tensor | None], cotangents: dict[int, Tensor]) -> Tensor:
        """dC/dτ through α and C/τ of (1.14), for the cotangents of a at the given rows."""
        with torch.enable_grad():
            leaf = tau.detach().requires_grad_()
            found: Filter = self.program.filter(leaf)
            value = sum(
                ((c * self.program.filtered(a, charge, found, row)).sum() for row, c in cotangents.items()), leaf.new_zeros(())
            )
            return torch.autograd.grad(value, leaf)[0]

    def _block(self, start: int, stop: int) -> _Block:
        program, trajectory, c = self.program, self.trajectory, self.tensors.constants
        stages = program.block_stages(self.tensors, self.rates, self.u, trajectory, start, stop)
        partials = [
            program.neuron.flow_partials(v, current, c, self.constants)
            for v, current in zip(stages.v, stages.current, strict=True)
        ]
        slopes = [program.unwrapped_slope(v) for v in stages.v]
        slope_after = program.gate_slope(trajectory.v[start + 1 : stop + 1])
        after_flow = [torch.full_like(slope_after, program.dt * weight) for weight in program.tableau.b]
        if program.neuron.wraps:
            return _Block(stages, partials, slopes, slope_after, None, None, after_flow, [], {})
        at = trajectory.crossings[start:stop].nonzero(as_tuple=True)
        d_v, d_flow, d_current, d_constants = self._reset_partials(stages, at)
        ones, zeros = torch.ones_like(slope_after), torch.zeros_like(slope_after)
        return _Block(
            stages, partials, slopes, slope_after, at, ones.index_put(at, d_v),
            [x.index_put(at, d) for x, d in zip(after_flow, d_flow, strict=True)],
            [zeros.index_put(at, d) for d in d_current], d_constants,
        )  # fmt: skip

    def _reset_partials(
        self, stages: Stages, at: tuple[Tensor, ...]
    ) -> tuple[Tensor, list[Tensor], list[Tensor], dict[str, Tensor]]:
        """∂v⁺/∂(v, k_i, I_i, c) at S resets, element by element, so that one gradient of the sum gives them all."""
        program, s, constants = self.program, self.program.tableau.stages, self.tensors.constants

        def leaf(x: Tensor) -> Tensor:
            return x.detach().clone().requires_grad_()

        with torch.enable_grad():
            v, flow, current = leaf(stages.v[0][at]), [leaf(x[at]) for x in stages.flow], [leaf(x[at]) for x in stages.current]
            raw = {name: leaf(x.detach()[at[2]] if x.dim() else x.detach().expand_as(v)) for name, x in constants.items()}
            moved = v.detach()
            for weight, slope in zip(program.tableau.b, flow, strict=True):
                moved = moved + program.dt * weight * slope.detach()
            after = program.after_reset(v, flow, current, moved, program.neuron.prepare(raw))
            leaves = [v, *flow, *current, *raw.values()]
            found = torch.autograd.grad(after.sum(), leaves, allow_unused=True, materialize_grads=True)
        d_constants = dict(zip(raw, found[1 + 2 * s :], strict=True))
        return found[0], list(found[1 : 1 + s]), list(found[1 + s : 1 + 2 * s]), d_constants

    def _loss(self, n: int) -> tuple[Tensor | float, Tensor | float, Tensor | float]:
        """Loss cotangents of v, a_f and a_s at time n."""
        c = self.cotangents
        slow = 0.0 if c.readout is None else c.readout[n] @ self.tensors.w_out
        if c.a_slow is not None:
            slow = slow + c.a_slow[n]
        return (0.0 if c.v is None else c.v[n]), (0.0 if c.a_fast is None else c.a_fast[n]), slow

    def _add(self, name: str, part: Tensor) -> None:
        self.total[name] = self.total[name] + part if name in self.total else part

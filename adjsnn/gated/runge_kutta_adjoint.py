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

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adjsnn.gated.cotangents import charge_sources, outer
from adjsnn.gated.membranes import Partials
from adjsnn.gated.network import GatedTensors
from adjsnn.gated.program import GatedTrajectory, block_length, nested
from adjsnn.gated.runge_kutta import Filter, GatedRungeKutta, Rates, Stages


@dataclass(frozen=True)
class _Block:
    """What the sweep through one block reads; every tensor (steps, B, N).

    Attributes:
        stages: of each step.
        partials: of f at each stage.
        slopes: g_i at each stage.
        slope_after: g(v⁺).
        resets: index (step, sample, neuron) of the resets that are no translations.
        after_v: ∂v⁺/∂v, 1 where nothing was reset.
        after_flow: ∂v⁺/∂k_i of each stage, h b_i where nothing was reset.
        after_current: ∂v⁺/∂I_i of each stage, 0 where nothing was reset.
        after_constants: ∂v⁺/∂c at the resets, by name, each (S,).
    """

    stages: Stages
    partials: list[Partials]
    slopes: list[Tensor]
    slope_after: Tensor
    resets: tuple[Tensor, ...] | None
    after_v: Tensor | None
    after_flow: list[Tensor]
    after_current: list[Tensor]
    after_constants: dict[str, Tensor]


class RungeKuttaSweep:
    """The backward recursion (4.5) and the gradients gathered so far; arguments and use as of `EulerSweep`.

    Carries λ_v, λ_f and λ_s. In a learning rule the costate may go back through others than the network's w_rec and w_out:
    through those of `back`; stages are computed again from the network's own.
    """

    def __init__(
        self,
        program: GatedRungeKutta,
        tensors: GatedTensors,
        shape: tuple[int, int, int],
        wanted: frozenset[str],
        last: Sequence[Tensor | None],
        c_charge: Tensor | None = None,
        back: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        n_steps, batch, n_hidden = shape
        self.program, self.tensors = program, tensors
        self.back_rec, self.back_out = (tensors.w_rec, tensors.w_out) if back is None else back
        self.wanted, self.c_charge = wanted, c_charge
        self.length = block_length(n_steps, batch * n_hidden * program.stage_count)
        with torch.no_grad():
            self.rates: Rates = program.rates(tensors)
            zero = tensors.w_rec.new_zeros(batch, n_hidden)
            self.last_readout: Tensor | None = None if last[0] is None else last[0][None]
            at_end = self._loss([None if x is None else x[None] for x in last], 0)
            self.lam_v, self.lam_fast, self.lam_slow = (zero + x for x in at_end)
        self.constants = tuple(name for name in tensors.constants if name in wanted)
        self.gradients: dict[str, Tensor] = {}

    def back(self, u: Tensor, trajectory: GatedTrajectory, cotangents: Sequence[Tensor | None], d_u: Tensor | None) -> None:
        """Sweep through a unit of the trajectory; arguments as of `EulerSweep.back`."""
        with torch.no_grad():
            if self.last_readout is not None and "w_out" in self.wanted:
                self._add("w_out", outer(self.last_readout, trajectory.a_slow[-1:]))
            self.last_readout = None
            for start, stop in reversed(list(nested(len(trajectory.current), self.length, self.length))):
                steps, states = slice(start, stop), slice(start, stop + 1)
                t = trajectory
                part = GatedTrajectory(
                    t.v[states], t.a_fast[states], t.a_slow[states], t.readout[states], t.current[steps], t.crossings[steps]
                )
                in_block = [None if x is None else x[steps] for x in cotangents]
                self._unit(u[steps], part, in_block, None if d_u is None else d_u[steps])

    def finish(self, a_fast: Tensor, a_slow: Tensor) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Gradients by name, and of the initial state, whose a_fast and a_slow are given."""
        return self.gradients, (self.lam_v, self.lam_fast, self.lam_slow)

    def _unit(self, u: Tensor, trajectory: GatedTrajectory, cotangents: list[Tensor | None], d_u: Tensor | None) -> None:
        """Sweep through one block of steps."""
        if self.c_charge is not None:
            direct, end = charge_sources(self.program, trajectory, 0, len(u), self.c_charge)
            cotangents[1] = direct if cotangents[1] is None else cotangents[1] + direct
            self.lam_v = self.lam_v + end
        block = self._block(u, trajectory)
        flows, currents, filtered, after = self._recur(block, cotangents)
        self._gradients(block, flows, currents, filtered, after, u, trajectory, d_u)
        if cotangents[0] is not None and "w_out" in self.wanted:
            self._add("w_out", outer(cotangents[0], trajectory.a_slow[:-1]))

    def _recur(
        self, block: _Block, cotangents: Sequence[Tensor | None]
    ) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]], Tensor]:
        """Sweep the steps of a block, last first. Returns, for the whole block, k̄_i, Ī_i, the cotangents of a at the stages and
        the end for both filters, and v̄_e."""
        fast, slow = self.rates.fast, self.rates.slow
        tableau, h = self.program.tableau, self.program.dt
        s = tableau.stages
        new = torch.empty_like(block.slope_after)
        flows, currents = [torch.empty_like(new) for _ in range(s)], [torch.empty_like(new) for _ in range(s)]
        filtered = [torch.empty_like(new) for _ in range(s + 1)]
        slow_end, ends = torch.empty_like(new), torch.empty_like(new)
        for n in reversed(range(len(new))):
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
                a = current @ self.back_rec
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
            loss_v, loss_fast, loss_slow = self._loss(cotangents, n)
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
        u: Tensor,
        trajectory: GatedTrajectory,
        d_u: Tensor | None,
    ) -> None:
        """Add the block's share of every wanted gradient."""
        of_drive = torch.stack(currents).sum(0)
        program, stages = self.program, block.stages
        if "bias" in self.wanted:
            self._add("bias", of_drive.sum((0, 1)))
        if "w_in" in self.wanted:
            self._add("w_in", outer(of_drive, u))
        if d_u is not None:
            d_u[:] = of_drive @ self.tensors.w_in
        a_fast = trajectory.a_fast[:-1]
        if "w_rec" in self.wanted:
            for i, current in enumerate(currents):
                self._add("w_rec", outer(current, program.filtered(a_fast, stages.charge, self.rates.fast, i)))
        level = program.charge_level(trajectory.v)
        charge = [*stages.charge, level[1:] - level[:-1] + trajectory.crossings]
        s = program.tableau.stages
        if "tau_fast" in self.wanted:
            self._add("tau_fast", self._filter_gradient(self.tensors.tau_fast, a_fast, charge, dict(enumerate(filtered[0]))))
        if "tau_slow" in self.wanted:
            a_slow = trajectory.a_slow[:-1]
            self._add("tau_slow", self._filter_gradient(self.tensors.tau_slow, a_slow, charge, {s: filtered[1][0]}))
        for name in self.constants:
            share = sum(
                (k * partial.d_constants[name] for k, partial in zip(flows, block.partials, strict=True)),
                torch.zeros_like(after),
            )
            if block.resets is not None:
                share = share.index_put(block.resets, after[block.resets] * block.after_constants[name], accumulate=True)
            self._add(name, share.sum_to_size(self.tensors.constants[name].shape))

    def _filter_gradient(self, tau: Tensor, a: Tensor, charge: list[Tensor | None], cotangents: dict[int, Tensor]) -> Tensor:
        """dC/dτ through α and C/τ of (1.14), for the cotangents of a at the given rows."""
        with torch.enable_grad():
            leaf = tau.detach().requires_grad_()
            filter_: Filter = self.program.filter(leaf)
            value = sum(
                ((c * self.program.filtered(a, charge, filter_, row)).sum() for row, c in cotangents.items()),
                leaf.new_zeros(()),
            )
            return torch.autograd.grad(value, leaf)[0]

    def _block(self, u: Tensor, trajectory: GatedTrajectory) -> _Block:
        program, c = self.program, self.tensors.constants
        stages = program.block_stages(self.tensors, self.rates, u, trajectory, 0, len(u))
        partials = [
            program.flow_partials(v, current, c, self.constants) for v, current in zip(stages.v, stages.current, strict=True)
        ]
        slopes = [program.unwrapped_slope(v) for v in stages.v]
        slope_after = program.gate_slope(trajectory.v[1:])
        after_flow = [torch.full_like(slope_after, program.dt * weight) for weight in program.tableau.b]
        if program.neuron.wraps:
            return _Block(stages, partials, slopes, slope_after, None, None, after_flow, [], {})
        resets = trajectory.crossings.nonzero(as_tuple=True)
        d_v, d_flow, d_current, d_constants = self._reset_partials(stages, resets)
        ones, zeros = torch.ones_like(slope_after), torch.zeros_like(slope_after)
        return _Block(
            stages, partials, slopes, slope_after, resets, ones.index_put(resets, d_v),
            [x.index_put(resets, d) for x, d in zip(after_flow, d_flow, strict=True)],
            [zeros.index_put(resets, d) for d in d_current], d_constants,
        )  # fmt: skip

    def _reset_partials(
        self, stages: Stages, resets: tuple[Tensor, ...]
    ) -> tuple[Tensor, list[Tensor], list[Tensor], dict[str, Tensor]]:
        """∂v⁺/∂(v, k_i, I_i, c) at S resets, element by element, so that one gradient of the sum gives them all."""
        program, constants = self.program, self.tensors.constants
        s = program.tableau.stages

        def leaf(x: Tensor) -> Tensor:
            return x.detach().clone().requires_grad_()

        with torch.enable_grad():
            v = leaf(stages.v[0][resets])
            flow, current = [leaf(x[resets]) for x in stages.flow], [leaf(x[resets]) for x in stages.current]
            raw = {name: leaf(x.detach()[resets[2]] if x.dim() else x.detach().expand_as(v)) for name, x in constants.items()}
            moved = v.detach()
            for weight, slope in zip(program.tableau.b, flow, strict=True):
                moved = moved + program.dt * weight * slope.detach()
            after = program.after_reset(v, flow, current, moved, program.neuron.prepare(raw))
            leaves = [v, *flow, *current, *raw.values()]
            gradients = torch.autograd.grad(after.sum(), leaves, allow_unused=True, materialize_grads=True)
        d_constants = dict(zip(raw, gradients[1 + 2 * s :], strict=True))
        return gradients[0], list(gradients[1 : 1 + s]), list(gradients[1 + s : 1 + 2 * s]), d_constants

    def _loss(self, cotangents: Sequence[Tensor | None], n: int) -> tuple[Tensor | float, Tensor | float, Tensor | float]:
        """Loss cotangents of v, a_f and a_s at row n, from those of readout, v, a_f and a_s."""
        c_readout, c_v, c_fast, c_slow = cotangents
        slow = 0.0 if c_readout is None else c_readout[n] @ self.back_out
        if c_slow is not None:
            slow = slow + c_slow[n]
        return (0.0 if c_v is None else c_v[n]), (0.0 if c_fast is None else c_fast[n]), slow

    def _add(self, name: str, part: Tensor) -> None:
        self.gradients[name] = self.gradients[name] + part if name in self.gradients else part

"""Hand-written discrete adjoint of the charge-conserving Euler program of a gated-synapse network.

With λ the cotangents of the state after a step and m = λ_f/τ_f + λ_s/τ_s, one step backward is (4.1)

    p_v = λ_v + g(v⁺) m              μ = ρ p_v at a reset, else p_v
    w   = h ∂_I f ∘ μ + p_v ∂v⁺/∂I   (the second term at resets only: ρ depends on I)
    λ_v ← (1 + h ∂_v f) μ - g(v) m   λ_f ← (1 - h/τ_f) λ_f + W_recᵀ w      λ_s ← (1 - h/τ_s) λ_s

plus the loss cotangents at that time; dW_rec = Σ w a_fᵀ, dW_in = Σ w uᵀ, db = Σ w, du = W_inᵀ w. Everything element-wise is
computed for a block of steps at once, every weight gradient is one matrix product per block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adjsnn.gated.cotangents import charge_sources, outer
from adjsnn.gated.euler import GatedEuler
from adjsnn.gated.membranes import Partials
from adjsnn.gated.network import GatedTensors
from adjsnn.gated.program import GatedTrajectory, block_length, nested


@dataclass(frozen=True)
class _Factors:
    """Element-wise factors of one block, each (steps, B, N), from the stored trajectory alone.

    Attributes:
        gate: g(v) at the times before the steps and after the last one, (steps + 1, B, N).
        keep: 1 + h ∂_v f.
        push: h ∂_I f.
        constants: h ∂f/∂c for each constant that needs a gradient.
        reset: ∂v⁺/∂(ṽ, I, c), or None where every reset is a translation.
    """

    gate: Tensor
    keep: Tensor
    push: Tensor
    constants: dict[str, Tensor]
    reset: Partials | None


class EulerSweep:
    """The backward recursion (4.1) with its preallocated memory, and the gradients gathered so far.

    Units of a trajectory are handed to `back` last first. Carries λ_v, p_f = λ_f/τ_f and p_s = λ_s/τ_s; p instead of λ saves
    two operations per step.

    Args:
        program: the program that ran.
        tensors: the network's tensors it ran with.
        shape: (T, B, N) of the whole trajectory.
        wanted: names of tensors, and "u", whose gradients are computed.
        last: cotangents of readout, v, a_fast and a_slow at the last time, None where the loss has none.
        c_charge: cotangents of each neuron's Σ|q|, (B, N), where the loss depends on it.
    """

    def __init__(
        self,
        program: GatedEuler,
        tensors: GatedTensors,
        shape: tuple[int, int, int],
        wanted: frozenset[str],
        last: Sequence[Tensor | None],
        c_charge: Tensor | None = None,
    ) -> None:
        n_steps, batch, n_hidden = shape
        self.program, self.tensors, self.wanted = program, tensors, wanted
        self.length = block_length(n_steps, batch * n_hidden)
        self.wanted_constants = tuple(name for name in tensors.constants if name in wanted)
        memory, new = (self.length, batch, n_hidden), tensors.w_rec.new_empty
        self.w = new(memory)
        # What the gradients of constants need of each step; None where none is wanted.
        self.mu_block = new(memory) if self.wanted_constants else None
        self.p_v_block = new(memory) if self.wanted_constants and not program.translates else None
        self.p_fast_block = new(memory) if "tau_fast" in wanted else None
        self.p_slow_block = new(memory) if "tau_slow" in wanted else None
        self.decay_fast = 1.0 - program.dt / tensors.tau_fast
        self.decay_slow = 1.0 - program.dt / tensors.tau_slow
        self.decay_number = float(self.decay_fast) if self.decay_fast.dim() == 0 else None
        # λ_f ← ... + W_recᵀ w, divided by τ_f: the columns of W_rec, one per presynaptic neuron, carry the division.
        self.w_rec_over_tau = (tensors.w_rec / tensors.tau_fast).contiguous()
        self.last_readout: Tensor | None = None if last[0] is None else last[0][None]
        at_end = _carried(tensors, [None if x is None else x[None] for x in last])
        zero = tensors.w_rec.new_zeros(batch, n_hidden)
        self.lam_v, self.p_fast, self.p_slow = (zero.clone() if x is None else x[0].clone() for x in at_end)
        self.m, self.p_v = torch.empty_like(zero), torch.empty_like(zero)
        self.c_charge = c_charge
        self.gradients: dict[str, Tensor] = {}

    def back(self, u: Tensor, trajectory: GatedTrajectory, cotangents: Sequence[Tensor | None], d_u: Tensor | None) -> None:
        """Sweep through a unit of the trajectory.

        Args:
            u: of the unit, (T, B, C).
            trajectory: of the unit.
            cotangents: of readout, v, a_fast and a_slow; the rows of the unit's T times before each step are read.
            d_u: memory for the gradient of u.
        """
        if self.last_readout is not None and "w_out" in self.wanted:
            self._add("w_out", outer(self.last_readout, trajectory.a_slow[-1:]))
        self.last_readout = None
        tensors, wanted = self.tensors, self.wanted
        n_steps = len(trajectory.current)
        for start, stop in reversed(list(nested(n_steps, self.length, self.length))):
            steps = slice(start, stop)
            in_block = [None if x is None else x[steps] for x in cotangents]
            w = self._block(trajectory, in_block, start, stop)
            for name, part in self._constant_gradients(trajectory, start, stop).items():
                self._add(name, part)
            if "w_rec" in wanted:
                self._add("w_rec", outer(w, trajectory.a_fast[steps]))
            if "w_in" in wanted:
                self._add("w_in", outer(w, u[steps]))
            if in_block[0] is not None and "w_out" in wanted:
                self._add("w_out", outer(in_block[0], trajectory.a_slow[steps]))
            if "bias" in wanted:
                self._add("bias", w.sum((0, 1)))
            if d_u is not None:
                d_u[steps] = w @ tensors.w_in  # d_u has the layout of u, which `out=` does not take

    def finish(self, a_fast: Tensor, a_slow: Tensor) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Gradients by name, and of the initial state, whose a_fast and a_slow are given."""
        d_y0 = (self.lam_v, self.p_fast * self.tensors.tau_fast, self.p_slow * self.tensors.tau_slow)
        return self.gradients, d_y0

    def _add(self, name: str, part: Tensor) -> None:
        self.gradients[name] = self.gradients[name] + part if name in self.gradients else part

    def _block(self, trajectory: GatedTrajectory, cotangents: Sequence[Tensor | None], start: int, stop: int) -> Tensor:
        """Sweep steps stop-1 … start of a unit; returns w of (4.1) of each, (steps, B, N), valid until the next call."""
        factors, sources = self._factors(trajectory, start, stop), _carried(self.tensors, cotangents)
        if self.c_charge is not None:
            direct, end = charge_sources(self.program, trajectory, start, stop, self.c_charge)
            sources = (direct if sources[0] is None else sources[0] + direct, *sources[1:])
            self.lam_v = self.lam_v + end
        with torch.inference_mode():  # writes into memory from outside; autograd's bookkeeping would double the time
            self._recur(factors, sources, stop - start)
        return self.w[: stop - start]

    def _recur(self, factors: _Factors, sources: tuple[Tensor | None, ...], steps: int) -> None:
        gate, keep, push, ws = (x.unbind() for x in (factors.gate, factors.keep, factors.push, self.w))
        resets = (None, None) if factors.reset is None else factors.reset[:2]
        wanted_rows = (self.p_fast_block, self.p_slow_block, self.p_v_block, self.mu_block)
        ratio, ratio_current = (_rows(x, steps) for x in resets)
        c_v, c_fast, c_slow = (_rows(x, steps) for x in sources)
        p_fasts, p_slows, p_vs, mus = (_rows(x, steps) for x in wanted_rows)
        lam_v, p_fast, p_slow = self.lam_v, self.p_fast, self.p_slow
        m, p_v = self.m, self.p_v
        for n in reversed(range(steps)):
            _keep(p_fasts[n], p_fast)
            _keep(p_slows[n], p_slow)
            torch.add(p_fast, p_slow, out=m)
            torch.addcmul(lam_v, gate[n + 1], m, out=p_v)
            if ratio[n] is None:
                mu = p_v
                w = torch.mul(push[n], mu, out=ws[n])
            else:
                mu = torch.mul(p_v, ratio[n], out=lam_v)
                w = torch.mul(p_v, ratio_current[n], out=ws[n]).addcmul_(push[n], mu)
            _keep(p_vs[n], p_v)
            _keep(mus[n], mu)
            torch.mul(keep[n], mu, out=lam_v).addcmul_(gate[n], m, value=-1.0)
            if self.decay_number is None:
                p_fast.mul_(self.decay_fast).addmm_(w, self.w_rec_over_tau)
            else:
                p_fast.addmm_(w, self.w_rec_over_tau, beta=self.decay_number)
            if c_slow[n] is None:
                p_slow.mul_(self.decay_slow)
            else:
                torch.addcmul(c_slow[n], p_slow, self.decay_slow, out=p_slow)
            if c_fast[n] is not None:
                p_fast.add_(c_fast[n])
            if c_v[n] is not None:
                lam_v.add_(c_v[n])

    def _constant_gradients(self, trajectory: GatedTrajectory, start: int, stop: int) -> dict[str, Tensor]:
        """Gradients of τ_f, τ_s and the membrane's constants from the block just swept."""
        parts: dict[str, Tensor] = {}
        steps = stop - start
        for name, p, a in (
            ("tau_fast", self.p_fast_block, trajectory.a_fast),
            ("tau_slow", self.p_slow_block, trajectory.a_slow),
        ):
            if p is not None:  # ∂a⁺/∂τ = -(a⁺ - a)/τ
                change = a[start + 1 : stop + 1] - a[start:stop]
                parts[name] = -(p[:steps] * change).sum_to_size(getattr(self.tensors, name).shape)
        for name in self.wanted_constants:
            assert self.mu_block is not None
            share = self.mu_block[:steps] * self.factors.constants[name]
            if self.factors.reset is not None and self.p_v_block is not None:
                share += self.p_v_block[:steps] * self.factors.reset.d_constants[name]
            parts[name] = share.sum_to_size(self.tensors.constants[name].shape)
        return parts

    def _factors(self, trajectory: GatedTrajectory, start: int, stop: int) -> _Factors:
        program, constants = self.program, self.tensors.constants
        v, current = trajectory.v[start:stop], trajectory.current[start:stop]
        gate = program.gate_slope(trajectory.v[start : stop + 1])
        keep, push, d_constants = program.step_partials(v, current, constants, self.wanted_constants)
        self.factors = _Factors(
            gate=gate,
            keep=keep,
            push=push,
            constants=d_constants,
            reset=None if program.translates else self._reset_factors(trajectory, start, stop),
        )
        return self.factors

    def _reset_factors(self, trajectory: GatedTrajectory, start: int, stop: int) -> Partials:
        """∂v⁺/∂(ṽ, I, c): 1 and 0 where nothing was reset, evaluated only at the spikes."""
        neuron, constants = self.program.neuron, self.tensors.constants
        crossings = trajectory.crossings[start:stop]
        spiked = crossings.nonzero(as_tuple=True)
        v, current = trajectory.v[start:stop][spiked], trajectory.current[start:stop][spiked]
        c = {name: x[spiked[2]] if x.dim() else x for name, x in constants.items()}
        moved = neuron.advance(v, current, neuron.prepare(c), self.program.dt)
        partials = neuron.reset_partials(moved, current, c)
        zeros = torch.zeros_like(trajectory.current[start:stop])
        d_constants = {name: zeros.index_put(spiked, partials.d_constants[name]) for name in self.wanted_constants}
        return Partials(
            torch.ones_like(zeros).index_put_(spiked, partials.d_v),
            zeros.index_put(spiked, partials.d_current),
            d_constants,
        )


def _carried(tensors: GatedTensors, cotangents: Sequence[Tensor | None]) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Loss cotangents of readout, v, a_fast and a_slow, (steps, B, ·), in the carried form: of v, of a_f over τ_f, of a_s over
    τ_s."""
    c_readout, c_v, c_fast, c_slow = cotangents
    slow = None if c_readout is None else c_readout @ (tensors.w_out / tensors.tau_slow)
    if c_slow is not None:
        direct = c_slow / tensors.tau_slow
        slow = direct if slow is None else slow.add_(direct)
    return c_v, (None if c_fast is None else c_fast / tensors.tau_fast), slow


def _rows(x: Tensor | None, steps: int) -> Sequence[Any]:
    """The first `steps` rows, or as many None."""
    return (None,) * steps if x is None else x[:steps].unbind()


def _keep(row: Tensor | None, value: Tensor) -> None:
    if row is not None:
        row.copy_(value)

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
from jaxtyping import Float
from torch import Tensor

from adjsnn.integrate.gated_euler import GatedEuler
from adjsnn.integrate.gated_program import GatedTrajectory, blocks
from adjsnn.scalars import scalar
from adjsnn.systems.gated_network import GatedState, GatedTensors
from adjsnn.systems.membranes import Partials


@dataclass(frozen=True)
class GatedCotangents:
    """Cotangents of the loss with respect to a trajectory, None where the loss does not depend on it.

    Attributes:
        v, a_fast, a_slow: (T+1, B, N).   readout: (T+1, B, C_out).
    """

    v: Tensor | None
    a_fast: Tensor | None
    a_slow: Tensor | None
    readout: Tensor | None


@dataclass(frozen=True)
class GatedGradients:
    """Gradients of the loss: by tensor name, with respect to the input u (T, B, C_in), and to the initial state."""

    tensors: dict[str, Tensor]
    u: Tensor | None
    y0: GatedState


@dataclass(frozen=True)
class _Factors:
    """Element-wise factors of one block, each (steps, B, N), from the stored trajectory alone.

    Attributes:
        gate: g(v) at the times before the steps and after the last one, (steps + 1, B, N).
        keep: 1 + h ∂_v f.   push: h ∂_I f.   constants: h ∂f/∂c for each constant that needs a gradient.
        reset: ∂v⁺/∂(ṽ, I, c), or None where every reset is a translation.
    """

    gate: Tensor
    keep: Tensor
    push: Tensor
    constants: dict[str, Tensor]
    reset: Partials | None


def gated_euler_adjoint(
    program: GatedEuler,
    tensors: GatedTensors,
    u: Float[Tensor, "T B C"],
    trajectory: GatedTrajectory,
    cotangents: GatedCotangents,
    wanted: frozenset[str],
) -> GatedGradients:
    """Gradients of a loss, given its cotangents, by the recursion (4.1) backward through the stored trajectory.

    Args:
        program: the program that ran.
        tensors: the network's tensors it ran with.
        u: the input it ran on.
        trajectory: what it stored.
        cotangents: of the loss.
        wanted: names of tensors, and "u", whose gradients are computed.
    """
    n_steps, batch, n_hidden = trajectory.current.shape
    total: dict[str, Tensor] = {}
    d_readout = cotangents.readout if "w_out" in wanted else None
    if d_readout is not None:
        total["w_out"] = outer(d_readout[:1], trajectory.a_slow[:1])
    d_u = torch.zeros_like(u) if "u" in wanted else None
    spans = list(blocks(n_steps, batch * n_hidden))
    sweep = _Sweep(program, tensors, trajectory, cotangents, wanted, spans[0][1])
    for start, stop in reversed(spans):
        w = sweep.back(start, stop)
        parts = sweep.constant_gradients(start, stop)
        if "w_rec" in wanted:
            parts["w_rec"] = outer(w, trajectory.a_fast[start:stop])
        if "w_in" in wanted:
            parts["w_in"] = outer(w, u[start:stop])
        if d_readout is not None:
            parts["w_out"] = outer(d_readout[start + 1 : stop + 1], trajectory.a_slow[start + 1 : stop + 1])
        if "bias" in wanted:
            parts["bias"] = w.sum((0, 1))
        if d_u is not None:
            torch.matmul(w, tensors.w_in, out=d_u[start:stop])
        for name, part in parts.items():
            total[name] = total[name] + part if name in total else part
    return GatedGradients(total, d_u, sweep.initial())


class _Sweep:
    """The backward recursion (4.1) with its preallocated memory.

    Carries λ_v, p_f = λ_f/τ_f and p_s = λ_s/τ_s; p instead of λ saves two operations per step.
    """

    def __init__(
        self,
        program: GatedEuler,
        tensors: GatedTensors,
        trajectory: GatedTrajectory,
        cotangents: GatedCotangents,
        wanted: frozenset[str],
        block_length: int,
    ) -> None:
        self.program, self.tensors, self.trajectory, self.cotangents = program, tensors, trajectory, cotangents
        self.wanted_constants = tuple(name for name in tensors.constants if name in wanted)
        shape = (block_length, *trajectory.v.shape[1:])
        new = trajectory.v.new_empty
        self.w = new(shape)
        # What the gradients of constants need of each step; None where none is wanted.
        self.mu_block = new(shape) if self.wanted_constants else None
        self.p_v_block = new(shape) if self.wanted_constants and not program.neuron.wraps else None
        self.p_fast_block = new(shape) if "tau_fast" in wanted else None
        self.p_slow_block = new(shape) if "tau_slow" in wanted else None
        self.decay_fast = 1.0 - program.dt / tensors.tau_fast
        self.decay_slow = 1.0 - program.dt / tensors.tau_slow
        self.decay_number = float(self.decay_fast) if self.decay_fast.dim() == 0 else None
        # λ_f ← ... + W_recᵀ w, divided by τ_f: the columns of W_rec, one per presynaptic neuron, carry the division.
        self.w_rec_over_tau = (tensors.w_rec / tensors.tau_fast).contiguous()
        last = self._loss(-1, None)
        zero = torch.zeros_like(trajectory.v[0])
        self.lam_v, self.p_fast, self.p_slow = (zero.clone() if x is None else x[0].clone() for x in last)
        self.m, self.p_v = torch.empty_like(zero), torch.empty_like(zero)

    def initial(self) -> GatedState:
        """Cotangents of the initial state, once every block has been swept."""
        return GatedState(self.lam_v, self.p_fast * self.tensors.tau_fast, self.p_slow * self.tensors.tau_slow)

    def back(self, start: int, stop: int) -> Tensor:
        """Sweep steps stop-1 … start; returns w of (4.1) for each of them, (steps, B, N), valid until the next call."""
        factors, sources = self._factors(start, stop), self._loss(start, stop)
        with torch.inference_mode():  # writes into memory from outside; autograd's bookkeeping would double the time
            self._recur(factors, sources, stop - start)
        return self.w[: stop - start]

    def _recur(self, factors: _Factors, sources: tuple[Tensor | None, ...], steps: int) -> None:
        gate, keep, push, ws = (x.unbind() for x in (factors.gate, factors.keep, factors.push, self.w))
        resets = (None, None) if factors.reset is None else factors.reset[:2]
        kept = (self.p_fast_block, self.p_slow_block, self.p_v_block, self.mu_block)
        ratio, ratio_current = (_rows(x, steps) for x in resets)
        c_v, c_fast, c_slow = (_rows(x, steps) for x in sources)
        p_fasts, p_slows, p_vs, mus = (_rows(x, steps) for x in kept)
        lam_v, p_fast, p_slow, m, p_v = self.lam_v, self.p_fast, self.p_slow, self.m, self.p_v
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

    def constant_gradients(self, start: int, stop: int) -> dict[str, Tensor]:
        """Gradients of τ_f, τ_s and the membrane's constants from the block just swept."""
        parts: dict[str, Tensor] = {}
        steps, trajectory = stop - start, self.trajectory
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

    def _loss(self, start: int, stop: int | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Loss cotangents at times start..stop-1 in the carried form: of v, of a_f over τ_f, of a_s over τ_s."""
        at = slice(start, stop)
        c = self.cotangents
        slow = None
        if c.readout is not None:
            slow = c.readout[at] @ (self.tensors.w_out / self.tensors.tau_slow)
        if c.a_slow is not None:
            direct = c.a_slow[at] / self.tensors.tau_slow
            slow = direct if slow is None else slow.add_(direct)
        fast = None if c.a_fast is None else c.a_fast[at] / self.tensors.tau_fast
        return (None if c.v is None else c.v[at]), fast, slow

    def _factors(self, start: int, stop: int) -> _Factors:
        program, trajectory, constants = self.program, self.trajectory, self.tensors.constants
        v, current = trajectory.v[start:stop], trajectory.current[start:stop]
        gate = program.gate_slope(trajectory.v[start : stop + 1])
        d_v, d_current, d_constants = program.neuron.flow_partials(v, current, constants, self.wanted_constants)
        h = scalar(program.dt, v.dtype)
        self.factors = _Factors(
            gate=gate,
            keep=d_v.mul(h).add_(1.0),
            push=d_current * h,
            constants={name: d_constants[name] * h for name in self.wanted_constants},
            reset=None if program.neuron.wraps else self._reset_factors(start, stop),
        )
        return self.factors

    def _reset_factors(self, start: int, stop: int) -> Partials:
        """∂v⁺/∂(ṽ, I, c): 1 and 0 where nothing was reset, evaluated only at the spikes."""
        trajectory, neuron, constants = self.trajectory, self.program.neuron, self.tensors.constants
        crossings = trajectory.crossings[start:stop]
        at = crossings.nonzero(as_tuple=True)
        v, current = trajectory.v[start:stop][at], trajectory.current[start:stop][at]
        c = {name: x[at[2]] if x.dim() else x for name, x in constants.items()}
        moved = neuron.advance(v, current, neuron.prepare(c), self.program.dt)
        partials = neuron.reset_partials(moved, current, c)
        zeros = torch.zeros_like(trajectory.current[start:stop])
        d_constants = {name: zeros.index_put(at, partials.d_constants[name]) for name in self.wanted_constants}
        return Partials(
            torch.ones_like(zeros).index_put_(at, partials.d_v),
            zeros.index_put(at, partials.d_current),
            d_constants,
        )


def _rows(x: Tensor | None, steps: int) -> Sequence[Any]:
    """The first `steps` rows, or as many None."""
    return (None,) * steps if x is None else x[:steps].unbind()


def _keep(row: Tensor | None, value: Tensor) -> None:
    if row is not None:
        row.copy_(value)


def outer(left: Float[Tensor, "T B I"], right: Float[Tensor, "T B J"]) -> Float[Tensor, "I J"]:
    """Σ over time and batch of left ⊗ right, as one matrix product; faster with the narrow factor first."""
    left, right = left.flatten(0, 1), right.flatten(0, 1)
    return (right.T @ left).T if right.shape[1] < left.shape[1] else left.T @ right

"""Hand-written discrete adjoint of the charge-conserving Euler program of a gated-synapse network.

With λ the cotangents of the state after a step and m = λ_f/τ_f + λ_s/τ_s, one step backward is (4.1)

    p_v = λ_v + g(v⁺) m              μ = ρ p_v at a reset, else p_v
    w   = h ∂_I f ∘ μ + p_v ∂v⁺/∂I   (the second term at resets only: ρ depends on I)
    λ_v ← (1 + h ∂_v f) μ - g(v) m   λ_f ← (1 - h/τ_f) λ_f + W_recᵀ w      λ_s ← (1 - h/τ_s) λ_s

plus the loss cotangents at that time; dW_rec = Σ w a_fᵀ, dW_in = Σ w uᵀ, db = Σ w, du = W_inᵀ w. Everything element-wise is
computed for a block of steps at once, every weight gradient is one matrix product per block.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.integrate.gated_euler import GatedEuler, GatedTrajectory, blocks
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
    if cotangents.readout is not None and "w_out" in wanted:
        total["w_out"] = _outer(cotangents.readout, trajectory.a_slow)
    d_u = torch.zeros_like(u) if "u" in wanted else None
    spans = list(blocks(n_steps, batch * n_hidden))
    sweep = _Sweep(program, tensors, trajectory, cotangents, wanted, spans[0][1])
    for start, stop in reversed(spans):
        w = sweep.back(start, stop)
        parts = sweep.constant_gradients(start, stop)
        if "w_rec" in wanted:
            parts["w_rec"] = _outer(w, trajectory.a_fast[start:stop])
        if "w_in" in wanted:
            parts["w_in"] = _outer(w, u[start:stop])
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
        self.wanted_tau = tuple(name for name in ("tau_fast", "tau_slow") if name in wanted)
        shape = (block_length, *trajectory.v.shape[1:])
        new = trajectory.v.new_empty
        self.w = new(shape)
        self.mu = new(shape) if self.wanted_constants else None
        self.p_v = new(shape) if self.wanted_constants and not program.neuron.wraps else None
        self.p_fast_block = new(shape) if "tau_fast" in wanted else None
        self.p_slow_block = new(shape) if "tau_slow" in wanted else None
        # λ_f ← ... + W_recᵀ w, divided by τ_f: the columns of W_rec, one per presynaptic neuron, carry the division.
        self.w_rec_over_tau = (tensors.w_rec / tensors.tau_fast).contiguous()
        last = self._loss(-1, None)
        zero = torch.zeros_like(trajectory.v[0])
        self.lam_v, self.p_fast, self.p_slow = (zero.clone() if x is None else x[0].clone() for x in last)

    def initial(self) -> GatedState:
        """Cotangents of the initial state, once every block has been swept."""
        return GatedState(self.lam_v, self.p_fast * self.tensors.tau_fast, self.p_slow * self.tensors.tau_slow)

    def back(self, start: int, stop: int) -> Tensor:
        """Sweep steps stop-1 … start; returns w of (4.1) for each of them, (steps, B, N), valid until the next call."""
        steps = stop - start
        factors = self._factors(start, stop)
        c_v, c_fast, c_slow = (_rows(x, steps) for x in self._loss(start, stop))
        keep_fast, keep_slow = (
            1.0 - self.program.dt / self.tensors.tau_fast,
            1.0 - self.program.dt / self.tensors.tau_slow,
        )
        scalar_tau = keep_fast.dim() == 0
        keep_fast_number = float(keep_fast) if scalar_tau else 1.0
        gate, keep, push, ws = (x.unbind() for x in (factors.gate, factors.keep, factors.push, self.w))
        mus, p_vs = _rows(self.mu, steps), _rows(self.p_v, steps)
        p_fasts, p_slows = _rows(self.p_fast_block, steps), _rows(self.p_slow_block, steps)
        ratios = currents = (None,) * steps
        if factors.reset is not None:
            ratios, currents = factors.reset.d_v.unbind(), factors.reset.d_current.unbind()
        lam_v, p_fast, p_slow = self.lam_v, self.p_fast, self.p_slow
        m, p_v = torch.empty_like(lam_v), torch.empty_like(lam_v)
        for n in reversed(range(steps)):
            if p_fasts[n] is not None:
                p_fasts[n].copy_(p_fast)
            if p_slows[n] is not None:
                p_slows[n].copy_(p_slow)
            torch.add(p_fast, p_slow, out=m)
            torch.addcmul(lam_v, gate[n + 1], m, out=p_v)
            w, mu = ws[n], p_v
            if ratios[n] is not None:
                if p_vs[n] is not None:
                    p_vs[n].copy_(p_v)
                mu = torch.mul(p_v, ratios[n], out=lam_v)
                torch.mul(p_v, currents[n], out=w).addcmul_(push[n], mu)
            else:
                torch.mul(push[n], mu, out=w)
            if mus[n] is not None:
                mus[n].copy_(mu)
            torch.mul(keep[n], mu, out=lam_v)
            lam_v.addcmul_(gate[n], m, value=-1.0)
            if not scalar_tau:
                p_fast.mul_(keep_fast)
            p_fast.addmm_(w, self.w_rec_over_tau, beta=keep_fast_number)
            p_slow.mul_(keep_slow)
            if c_v[n] is not None:
                lam_v.add_(c_v[n])
            if c_fast[n] is not None:
                p_fast.add_(c_fast[n])
            if c_slow[n] is not None:
                p_slow.add_(c_slow[n])
        return self.w[:steps]

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
            assert self.mu is not None
            share = self.mu[:steps] * self.factors.constants[name]
            if self.factors.reset is not None and self.p_v is not None:
                share += self.p_v[:steps] * self.factors.reset.d_constants[name]
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
        d_v, d_current, d_constants = program.neuron.flow_partials(v, current, constants)
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
        moved = v + self.program.dt * neuron.flow(v, current, c)
        partials = neuron.reset_partials(moved, current, c)
        zeros = torch.zeros_like(trajectory.current[start:stop])
        d_constants = {name: zeros.index_put(at, partials.d_constants[name]) for name in self.wanted_constants}
        return Partials(
            torch.ones_like(zeros).index_put_(at, partials.d_v),
            zeros.index_put(at, partials.d_current),
            d_constants,
        )


def _rows(x: Tensor | None, steps: int):
    return (None,) * steps if x is None else x[:steps].unbind()


def _outer(left: Float[Tensor, "T B I"], right: Float[Tensor, "T B J"]) -> Float[Tensor, "I J"]:
    """Σ over time and batch of left ⊗ right, as one matrix product."""
    return left.flatten(0, 1).T @ right.flatten(0, 1)

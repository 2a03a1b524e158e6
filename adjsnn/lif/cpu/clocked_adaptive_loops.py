"""Connects the fused loops of a clocked layer that adapts to torch; it does what `lif.clocked.unroll` does."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from adjsnn.lif.clocked import ClockedLayer, ClockedRun, Differentiated, Reset, Sent, after_reset
from adjsnn.lif.cpu import clocked_loops as ordinary
from adjsnn.lif.structure import AdaptiveState, AnyState
from adjsnn.numerics.first_order import FirstOrder, first_order
from adjsnn.numerics.memory import fresh
from adjsnn.numerics.threads import groups_of, run_groups

OF_NEURONS = 6  # numbers of a neuron beside those of its adaptation


def fused(
    layer: ClockedLayer,
    arriving: Tensor | Sent,
    start: AnyState,
    drive: Tensor | None,
    spike: Differentiated,
    reset: Reset = "to",
    through_reset: bool = False,
    rec_back: Tensor | None = None,
) -> ClockedRun:
    """As `unroll`, of any layer and of tensors on the CPU; what arrives is used up."""
    if layer.own is None or not isinstance(start, AdaptiveState):
        return ordinary.fused(layer, arriving, start, drive, spike, reset, through_reset, rec_back)
    given = ordinary.prepared(layer, arriving, start, drive, spike, reset, through_reset, rec_back)
    results: Any = _Fused.apply(*given, start.a, start.h, *layer.own)
    spikes, peak, i, a, h = results
    return ClockedRun(spikes, peak, lambda: after_reset(peak, spikes, layer, reset, through_reset), i, a, h)


class _Fused(FirstOrder):
    @staticmethod
    def forward(ctx, fixed, arriving, w_in, sent, v0, i0, drive, w_rec, *others):
        from adjsnn.lif.cpu import clocked  # noqa: PLC0415  loads the compiler
        from adjsnn.lif.cpu import clocked_adaptive as loops  # noqa: PLC0415

        (*of_neurons, a0, h0), own = others[: OF_NEURONS + 2], others[OF_NEURONS + 2 :]
        shape = (fixed.steps, *v0.shape)
        batch, n = v0.shape
        peak, spikes = (fresh(shape, v0) for _ in range(2))
        a, h = (fresh((fixed.steps + 1, x.shape[1], batch, n), v0) for x in (a0, h0))
        i = fresh(shape, v0) if arriving is None else arriving.contiguous().detach()
        peak[0], a[0], h[0] = v0, a0.transpose(0, 1), h0.transpose(0, 1)
        i[0] = i0 if arriving is None else i[0] + i0
        state = torch.empty(shape, dtype=torch.int8)
        layer = ordinary.layer_of(clocked, fixed, of_neurons, ordinary.by_lag(w_rec, fixed).transpose(1, 2), drive)
        adaptation = loops.Own(*(ordinary.array_of(x.repeat(1, len(layer.bias) // n)) for x in own))
        path = loops.Path(ordinary.flat(peak), ordinary.flat(i), _rows(a), _rows(h))
        rows, numbers, held = ordinary.flat(state), ordinary.flat(spikes), np.zeros(batch * n, np.int32)

        def work(k: int, first: int, last: int) -> None:
            memory = np.zeros((4, len(layer.bias)), numbers.dtype)
            loops.forward(layer, adaptation, fixed.sent, path, rows, numbers, held, memory, first, last)

        run_groups(work, groups_of(batch, fixed.steps * n, n))
        ctx.fixed, ctx.state, ctx.layer, ctx.own = fixed, state, layer, adaptation
        ctx.save_for_backward(w_in, sent, spikes, peak, i, a, h, drive, w_rec, of_neurons[1], of_neurons[4])
        ctx.set_materialize_grads(False)
        return spikes, peak, i, a[1:].transpose(1, 2), h[1:].transpose(1, 2)

    @staticmethod
    def backward(ctx, *cotangents):
        return _backward(ctx, *cotangents)


@first_order
def _backward(ctx, c_spikes, c_peak, c_i, c_a, c_h):
    from adjsnn.lif.cpu import clocked  # noqa: PLC0415  loads the compiler
    from adjsnn.lif.cpu import clocked_adaptive as loops  # noqa: PLC0415

    fixed, state = ctx.fixed, ctx.state
    w_in, sent, spikes, peak, i, a, h, drive, w_rec, v_th, beta = ctx.saved_tensors
    steps, batch, n = peak.shape
    _, needs_arriving, needs_w_in, needs_sent, _, _, needs_drive, needs_w_rec, *_ = ctx.needs_input_grad
    layer = ctx.layer._replace(weights=ordinary.array_of(ordinary.by_lag(w_rec if fixed.back is None else fixed.back, fixed)))
    slope = ordinary.slope_of(clocked, fixed.spike, *_excess(ctx, peak, h, v_th))
    path = loops.Path(ordinary.flat(peak), ordinary.flat(i), _rows(a), _rows(h))
    nothing = peak.new_empty(0, 0)
    c_spikes, c_peak, c_i = (ordinary.flat(nothing if x is None else x) for x in (c_spikes, c_peak, c_i))
    none = peak.new_empty(0, 0, batch, n)
    given = loops.Path(c_peak, c_i, *(_rows(none if x is None else x.transpose(1, 2)) for x in (c_a, c_h)))
    lam_v, *sums = (peak.new_zeros(batch, n) for _ in range(7))
    lam_a, lam_h, *own = (peak.new_zeros(len(x), batch, n) for x in (ctx.own.decay_a, ctx.own.decay_h, *ctx.own))
    lam_i, d_drive = fresh((steps, batch, n), peak), torch.empty_like(drive)
    numbers = [ordinary.array_of(x).reshape(-1) for x in sums]
    of_drive = ordinary.flat(d_drive if needs_drive else nothing)
    into = (
        clocked.Back._make([ordinary.array_of(lam_v).reshape(-1), ordinary.flat(lam_i), *numbers, of_drive, True, True]),
        loops.OwnBack(ordinary.flat(lam_a), ordinary.flat(lam_h), loops.Own(*map(ordinary.flat, own))),
    )
    groups = groups_of(batch, steps * n, n)
    d_weights = peak.new_zeros(len(groups), sent.shape[2] if needs_w_in else 0, n)

    def work(k: int, first: int, last: int) -> None:
        memory, of_weights = np.zeros((7, len(layer.bias)), slope.gamma.dtype), ordinary.array_of(d_weights[k])
        rows, samples = ordinary.flat(state), (first, last)
        loops.backward(layer, ctx.own, fixed.sent, path, rows, slope, given, c_spikes, into, of_weights, memory, samples)

    run_groups(work, groups)
    d_bias, *d_others = (x.sum(0) for x in sums)
    d_w_rec = ordinary.weights_back(lam_i, spikes, w_rec, fixed) if needs_w_rec else None
    d_w_in = d_weights.sum(0).T.contiguous() if needs_w_in else None
    w_back = w_in if fixed.w_back is None else fixed.w_back
    d_sent = ordinary.told_back(clocked, lam_i, w_back, fixed.sent.lag) if needs_sent else None
    d_arriving, d_drive = lam_i if needs_arriving else None, d_drive if needs_drive else None
    d_starts = lam_a.transpose(0, 1), lam_h.transpose(0, 1)
    d_of_neurons = d_bias * (1.0 - beta), *d_others, *d_starts, *(x.sum(1) for x in own)
    return None, d_arriving, d_w_in, d_sent, lam_v, lam_i[0].clone(), d_drive, d_w_rec, *d_of_neurons


def _excess(ctx: Any, peak: Tensor, h: Tensor, v_th: Tensor) -> tuple[Tensor, Tensor]:
    """v and v_th as a shape of σ′ that the loops do not know takes them: v less what θ has above v_th."""
    if getattr(ctx.fixed.spike, "loops", None) is not None:
        return peak, v_th
    before = h[:-1].clone()
    before[1:] *= torch.from_numpy(ctx.own.decay_h[:, : len(v_th)])[:, None]
    return peak - before.sum(1), v_th


def _rows(x: Tensor) -> np.ndarray:
    """(T, C, B, N) as (T, C, B·N)."""
    array = ordinary.array_of(x)
    return array.reshape(*array.shape[:2], array.shape[2] * array.shape[3])

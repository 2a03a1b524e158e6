"""Connects the fused loops of a clocked layer to torch; its results are those of `adjsnn.lif.clocked.unroll`, to rounding."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adjsnn.lif.clocked import SHAPES, ClockedLayer, ClockedRun, Differentiated, Reset, Slope, after_reset
from adjsnn.lif.network import LIFState
from adjsnn.numerics.first_order import FirstOrder, first_order
from adjsnn.numerics.memory import fresh
from adjsnn.numerics.threads import groups_of, run_groups

CACHED = 2**15  # numbers of which a few arrays stay in a core's second cache
TILE = 512  # neurons of some samples that are treated together: their vectors stay in a core's nearest cache


class Fixed(NamedTuple):
    """What of a layer has no gradient.

    Attributes:
        spike: what the rule takes for the derivative of a spike.
        reset: "to" or "by".
        through: whether the gradient goes through S in the reset.
        hold: steps at the reset, (N,).
        lags: those that there are, (L,).
        rec_lags: of each connection; None without recurrence.
        back: what errors go back through in the place of the recurrent weights.
    """

    spike: Differentiated
    reset: Reset
    through: bool
    hold: Tensor
    lags: Tensor
    rec_lags: Tensor | None
    back: Tensor | None


def fused(
    layer: ClockedLayer,
    arriving: Tensor,
    start: LIFState,
    drive: Tensor | None,
    spike: Differentiated,
    reset: Reset = "to",
    through_reset: bool = False,
    rec_back: Tensor | None = None,
) -> ClockedRun:
    """As `unroll`, of tensors on the CPU; what arrives is used up."""
    if drive is None:
        drive = arriving.new_zeros(0, *arriving.shape[1:])
    of_neurons = (layer.bias, layer.v_th, layer.v_reset, layer.alpha, layer.beta, layer.kappa)
    lags = torch.zeros(0, dtype=torch.long) if layer.rec_lags is None else layer.rec_lags.unique()
    w_rec = arriving.new_zeros(0, arriving.shape[2]) if layer.w_rec is None else layer.w_rec
    fixed = Fixed(spike, reset, through_reset, layer.hold, lags, layer.rec_lags, rec_back)
    results: Any = _Fused.apply(fixed, arriving, *start, drive, w_rec, *of_neurons)
    spikes, peak, i = results
    return ClockedRun(spikes, peak, lambda: after_reset(peak, spikes, layer, reset, through_reset), i)


class _Fused(FirstOrder):
    @staticmethod
    def forward(ctx, fixed, arriving, v0, i0, drive, w_rec, *of_neurons):
        from adjsnn.lif.cpu import clocked as loops  # noqa: PLC0415  loads the compiler

        steps, batch, n = arriving.shape
        peak, spikes = (fresh(arriving.shape, arriving) for _ in range(2))
        i = arriving.contiguous().detach()
        peak[0] = v0
        i[0] += i0
        state = torch.empty(arriving.shape, dtype=torch.int8)
        layer = _layer(loops, fixed, of_neurons, _by_lag(w_rec, fixed).transpose(1, 2), drive)
        path, held = loops.Steps(_flat(peak), _flat(i)), np.zeros(batch * n, np.int32)
        rows, numbers = _flat(state), _flat(spikes)

        def work(k: int, first: int, last: int) -> None:
            loops.forward(layer, path, rows, numbers, held, np.empty(len(layer.bias), numbers.dtype), first, last)

        run_groups(work, groups_of(batch, steps * n, n))
        ctx.fixed, ctx.state = fixed, state
        ctx.save_for_backward(spikes, peak, i, drive, w_rec, *of_neurons)
        ctx.set_materialize_grads(False)
        return spikes, peak, i

    @staticmethod
    def backward(ctx, *cotangents):
        return _backward(ctx, *cotangents)


@first_order
def _backward(ctx, c_spikes, c_peak, c_i):
    from adjsnn.lif.cpu import clocked as loops  # noqa: PLC0415  loads the compiler

    fixed, state = ctx.fixed, ctx.state
    spikes, peak, i, drive, w_rec, *of_neurons = ctx.saved_tensors
    steps, batch, n = peak.shape
    like, nothing = peak.dtype, torch.empty(0, 0, dtype=peak.dtype)
    slope = _slope(loops, fixed.spike, peak, of_neurons[1])
    weights = _by_lag(w_rec if fixed.back is None else fixed.back, fixed)
    layer = _layer(loops, fixed, of_neurons, weights, drive)
    path = loops.Steps(_flat(peak), _flat(i))
    c_spikes, *given = (_flat(nothing if x is None else x) for x in (c_spikes, c_peak, c_i))
    lam_v, *sums = (torch.zeros(batch, n, dtype=like) for _ in range(7))
    lam_i, d_drive = fresh(peak.shape, peak), torch.empty_like(drive)
    needs_drive, _, _, *needs = ctx.needs_input_grad[4:]
    of_drive = _flat(d_drive if needs_drive else nothing)
    own = [_array(x).reshape(-1) for x in sums]
    into = loops.Back._make([_array(lam_v).reshape(-1), _flat(lam_i), *own, of_drive, any(needs[:2]), any(needs[2:])])

    def work(k: int, first: int, last: int) -> None:
        memory = np.empty((4, len(layer.bias)), slope.gamma.dtype)
        loops.backward(layer, path, _flat(state), slope, c_spikes, loops.Steps(*given), into, memory, first, last)

    run_groups(work, groups_of(batch, steps * n, n))
    d_bias, *d_others = (x.sum(0) for x in sums)
    d_bias = d_bias * (1.0 - of_neurons[4])
    d_w_rec = _of_weights(lam_i, spikes, w_rec, fixed) if ctx.needs_input_grad[5] else None
    return None, lam_i, lam_v, lam_i[0].clone(), d_drive if needs_drive else None, d_w_rec, d_bias, *d_others


def _slope(loops: Any, spike: Differentiated, peak: Tensor, v_th: Tensor) -> Any:
    """σ′ that the loops compute; of a shape that they do not know, its values at all steps."""
    number = _array(peak[:0]).dtype.type
    known: Slope | None = getattr(spike, "loops", None)
    if known is not None:
        none = torch.empty(0, peak[0].numel(), dtype=peak.dtype)
        return loops.Slope(1 + SHAPES.index(known.shape), number(known.gamma), number(known.height), _flat(none))
    slopes = fresh(peak.shape, peak)
    together = max(1, CACHED // max(1, peak[0].numel()))  # steps whose intermediate results stay in a core's cache
    for rows, into in zip(peak.split(together), slopes.split(together), strict=True):
        into.copy_(spike.derivative(rows - v_th))
    return loops.Slope(0, number(0.0), number(0.0), _flat(slopes))


def _of_weights(lam_i: Tensor, sent: Tensor, w_rec: Tensor, fixed: Fixed) -> Tensor:
    """Σ λ_i[n + D] S[n]ᵀ."""
    total, steps = torch.zeros_like(w_rec), len(lam_i)
    for lag in fixed.lags.tolist():
        if lag < steps:
            whole = lam_i[lag:].flatten(0, 1).T @ sent[: steps - lag].flatten(0, 1)
            total += whole if len(fixed.lags) == 1 else whole * (fixed.rec_lags == lag).to(whole)
    return total


def _by_lag(w_rec: Tensor, fixed: Fixed) -> Tensor:
    """Recurrent weights of each lag, (L, N, N)."""
    if fixed.rec_lags is None:
        return w_rec.new_zeros(0, w_rec.shape[1], w_rec.shape[1])
    return torch.stack([w_rec * (fixed.rec_lags == lag).to(w_rec) for lag in fixed.lags.tolist()])


def _layer(loops: Any, fixed: Fixed, of_neurons: Any, weights: Tensor, drive: Tensor) -> Any:
    """The layer as the loops take it, its numbers repeated for the samples of a tile."""
    samples = max(1, TILE // max(1, len(fixed.hold)))
    repeated = [np.tile(_array(x), samples) for x in (*of_neurons, fixed.hold.to(torch.int32))]
    recurrent = (_array(fixed.lags), _array(weights), _flat(drive))
    return loops.Clocked(*repeated, bool(fixed.hold.any()), *recurrent, fixed.reset == "by", fixed.through)


def _flat(x: Tensor) -> np.ndarray:
    """The neurons of all samples in one row, (T, B·N)."""
    array = _array(x)
    return array.reshape(len(array), int(np.prod(array.shape[1:])))


def _array(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()

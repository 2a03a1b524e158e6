"""Connects the fused loops of a clocked layer to torch; its results are those of `adjsnn.lif.clocked.unroll`, to rounding."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from adjsnn.lif.clocked import ClockedLayer, ClockedRun, Differentiated, Reset
from adjsnn.lif.network import LIFState
from adjsnn.numerics.first_order import FirstOrder, first_order
from adjsnn.numerics.threads import groups_of, run_groups


def fused(
    layer: ClockedLayer,
    arriving: Tensor,
    start: LIFState,
    drive: Tensor | None,
    spike: Differentiated,
    reset: Reset = "to",
    through_reset: bool = False,
) -> ClockedRun:
    """As `unroll`, of tensors on the CPU."""
    if drive is None:
        drive = arriving.new_zeros(0, *arriving.shape[1:])
    of_neurons = (layer.bias, layer.v_th, layer.v_reset, layer.alpha, layer.beta, layer.kappa)
    lags = torch.zeros(0, dtype=torch.long) if layer.rec_lags is None else layer.rec_lags.unique()
    w_rec = arriving.new_zeros(0, arriving.shape[2]) if layer.w_rec is None else layer.w_rec
    constants = (spike.derivative, reset, through_reset, layer.hold, lags, layer.rec_lags)
    results: Any = _Fused.apply(constants, arriving, *start, drive, w_rec, *of_neurons)
    return ClockedRun(*results)


class _Fused(FirstOrder):
    @staticmethod
    def forward(ctx, constants, arriving, v0, i0, drive, w_rec, *of_neurons):
        from adjsnn.lif.cpu import clocked as loops  # noqa: PLC0415  loads the compiler

        _, reset, through, hold, lags, rec_lags = constants
        steps, batch, n = arriving.shape
        by_lag = _by_lag(w_rec, lags, rec_lags)
        peak, v, i = torch.empty_like(arriving), torch.empty_like(arriving), arriving.contiguous().clone()
        peak[0] = v0
        i[0] += i0
        state = torch.empty(arriving.shape, dtype=torch.int8)
        layer = _layer(loops, of_neurons, hold, lags, by_lag.transpose(1, 2), drive, reset, through)
        path = loops.Steps(*(_array(x) for x in (peak, v, i)))
        held = np.zeros((batch, n), np.int64)

        def work(k: int, first: int, last: int) -> None:
            loops.forward(layer, path, state.numpy(), held, first, last)

        run_groups(work, groups_of(batch, steps * n, n))
        ctx.constants, ctx.state, ctx.start = constants, state, (v0, i0)
        ctx.save_for_backward(peak, v, i, drive, w_rec, *of_neurons)
        ctx.set_materialize_grads(False)
        return (state == loops.SPIKES).to(arriving.dtype), peak, v, i

    @staticmethod
    def backward(ctx, *cotangents):
        return _backward(ctx, *cotangents)


@first_order
def _backward(ctx, c_spikes, c_peak, c_v, c_i):
    from adjsnn.lif.cpu import clocked as loops  # noqa: PLC0415  loads the compiler

    derivative, reset, through, hold, lags, rec_lags = ctx.constants
    peak, v, i, drive, w_rec, *of_neurons = ctx.saved_tensors
    steps, batch, n = peak.shape
    v_th = of_neurons[1]
    with torch.no_grad():
        slope = derivative(peak - v_th).contiguous()
    c_spikes, c_peak = (torch.zeros_like(peak) if x is None else x.contiguous() for x in (c_spikes, c_peak))
    p, lam_i = (torch.zeros_like(peak) if x is None else x.contiguous().clone() for x in (c_v, c_i))
    by_lag = _by_lag(w_rec, lags, rec_lags)
    layer = _layer(loops, of_neurons, hold, lags, by_lag, drive, reset, through)
    path, given = (loops.Steps(*(_array(x) for x in xs)) for xs in ((peak, v, i), (c_peak, p, lam_i)))
    lam = torch.zeros(batch, n, dtype=peak.dtype)
    sums = [torch.zeros(batch, n, dtype=peak.dtype) for _ in range(6)]
    d_drive = torch.zeros_like(drive)
    into = loops.Back(*(x.numpy() for x in (*sums, d_drive)))

    def work(k: int, first: int, last: int) -> None:
        memory = np.empty(n, lam.numpy().dtype)
        head = (layer, path, ctx.state.numpy(), slope.numpy(), given, c_spikes.numpy(), lam.numpy(), into, memory)
        loops.backward(*head, first, last)

    run_groups(work, groups_of(batch, steps * n, n))
    d_w_rec = torch.zeros_like(w_rec)
    if len(w_rec):
        sent = (ctx.state == loops.SPIKES).to(peak.dtype)
        for lag in lags.tolist():
            if lag < steps:
                whole = torch.einsum("tbn,tbm->nm", lam_i[lag:], sent[: steps - lag])
                d_w_rec += whole * (rec_lags == lag).to(whole)
    bias, v_th, v_reset, alpha, beta, kappa = (x.sum(0) for x in sums)
    return None, lam_i, lam, lam_i[0].clone(), d_drive, d_w_rec, bias, v_th, v_reset, alpha, beta, kappa


def _by_lag(w_rec: Tensor, lags: Tensor, rec_lags: Tensor | None) -> Tensor:
    """Recurrent weights of each lag, (L, N, N)."""
    if rec_lags is None:
        return w_rec.new_zeros(0, w_rec.shape[1], w_rec.shape[1])
    return torch.stack([w_rec * (rec_lags == lag).to(w_rec) for lag in lags.tolist()])


def _layer(
    loops: Any, of_neurons: Any, hold: Tensor, lags: Tensor, weights: Tensor, drive: Tensor, reset: Reset, through: bool
) -> Any:
    numbers = (_array(x) for x in (*of_neurons, hold, lags, weights, drive))
    return loops.Clocked(*numbers, reset == "by", through)


def _array(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()

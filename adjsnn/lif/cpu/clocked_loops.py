"""Connects the fused loops of a clocked layer to torch; its results are those of `adjsnn.lif.clocked.unroll`, to rounding."""

from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adjsnn.lif.clocked import SHAPES, ClockedLayer, ClockedRun, Differentiated, Reset, Sent, Slope, after_reset, arrivals
from adjsnn.lif.structure import AnyState
from adjsnn.numerics.first_order import FirstOrder, first_order
from adjsnn.numerics.memory import fresh
from adjsnn.numerics.threads import groups_of, run_groups

CACHED = 2**15  # numbers of which a few arrays stay in a core's second cache
FEW = 1 / 8  # of the neurons spike in a step; more spikes are sooner summed up by a product of matrices than one by one
THIN = 16  # rows of weights; errors go back through as few of them sooner by a loop than by a product of matrices
TILE = 1024  # neurons of some samples that are treated together: their vectors stay in a core's caches


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
        steps: T+1.
        sent: spikes that are sent to it one by one, and their weights; of no spikes where what arrives is given.
        w_back: what errors go back through in the place of these weights.
    """

    spike: Differentiated
    reset: Reset
    through: bool
    hold: Tensor
    lags: Tensor
    rec_lags: Tensor | None
    back: Tensor | None
    steps: int
    sent: Any
    w_back: Tensor | None


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
    """As `unroll`, of an ordinary layer and of tensors on the CPU; what arrives is used up."""
    results: Any = _Fused.apply(*prepared(layer, arriving, start, drive, spike, reset, through_reset, rec_back))
    spikes, peak, i = results
    return ClockedRun(spikes, peak, lambda: after_reset(peak, spikes, layer, reset, through_reset), i)


def prepared(
    layer: ClockedLayer,
    arriving: Tensor | Sent,
    start: AnyState,
    drive: Tensor | None,
    spike: Differentiated,
    reset: Reset,
    through_reset: bool,
    rec_back: Tensor | None,
) -> tuple[Any, ...]:
    """Fixed; what arrives, or weights and spikes that are sent one by one; v and i at the start, the drive, recurrent weights,
    and the numbers of the neurons."""
    like, one_by_one = layer.w_in, _one_by_one(arriving, layer.w_in)
    given = w_in = spikes = w_back = None
    if isinstance(arriving, Tensor):
        given = arriving
    elif len(one_by_one.first):
        w_in, _, spikes, w_back = arriving
    else:
        given = arrivals(*arriving)
    steps = len(arriving if isinstance(arriving, Tensor) else arriving.spikes)
    if drive is None:
        drive = like.new_zeros(0, *start.v.shape)
    of_neurons = (layer.bias, layer.v_th, layer.v_reset, layer.alpha, layer.beta, layer.kappa)
    lags = torch.zeros(0, dtype=torch.long) if layer.rec_lags is None else layer.rec_lags.unique()
    w_rec = like.new_zeros(0, len(like)) if layer.w_rec is None else layer.w_rec
    fixed = Fixed(spike, reset, through_reset, layer.hold, lags, layer.rec_lags, rec_back, steps, one_by_one, w_back)
    return fixed, given, w_in, spikes, start.v, start.i, drive, w_rec, *of_neurons


class _Fused(FirstOrder):
    @staticmethod
    def forward(ctx, fixed, arriving, w_in, sent, v0, i0, drive, w_rec, *of_neurons):
        from adjsnn.lif.cpu import clocked as loops  # noqa: PLC0415  loads the compiler

        shape = (fixed.steps, *v0.shape)
        batch, n = v0.shape
        peak, spikes = (fresh(shape, v0) for _ in range(2))
        i = fresh(shape, v0) if arriving is None else arriving.contiguous().detach()
        peak[0] = v0
        i[0] = i0 if arriving is None else i[0] + i0
        state = torch.empty(shape, dtype=torch.int8)
        layer = layer_of(loops, fixed, of_neurons, by_lag(w_rec, fixed).transpose(1, 2), drive)
        path, held = loops.Steps(flat(peak), flat(i)), np.zeros(batch * n, np.int32)
        rows, numbers = flat(state), flat(spikes)

        def work(k: int, first: int, last: int) -> None:
            memory = np.zeros((3, len(layer.bias)), numbers.dtype)
            loops.forward(layer, fixed.sent, path, rows, numbers, held, memory, first, last)

        run_groups(work, groups_of(batch, fixed.steps * n, n))
        ctx.fixed, ctx.state, ctx.layer = fixed, state, layer
        ctx.save_for_backward(w_in, sent, spikes, peak, i, drive, w_rec, *of_neurons)
        ctx.set_materialize_grads(False)
        return spikes, peak, i

    @staticmethod
    def backward(ctx, *cotangents):
        return _backward(ctx, *cotangents)


@first_order
def _backward(ctx, c_spikes, c_peak, c_i):
    from adjsnn.lif.cpu import clocked as loops  # noqa: PLC0415  loads the compiler

    fixed, state = ctx.fixed, ctx.state
    w_in, sent, spikes, peak, i, drive, w_rec, *of_neurons = ctx.saved_tensors
    steps, batch, n = peak.shape
    _, needs_arriving, needs_w_in, needs_sent, _, _, needs_drive, needs_w_rec, *needs = ctx.needs_input_grad
    nothing = peak.new_empty(0, 0)
    layer = ctx.layer._replace(weights=array_of(by_lag(w_rec if fixed.back is None else fixed.back, fixed)))
    slope = slope_of(loops, fixed.spike, peak, of_neurons[1])
    path, rows = loops.Steps(flat(peak), flat(i)), flat(state)
    c_spikes, *given = (flat(nothing if x is None else x) for x in (c_spikes, c_peak, c_i))
    lam_v, *sums = (peak.new_zeros(batch, n) for _ in range(7))
    whole = needs_arriving or needs_sent or len(fixed.lags) > 0  # else a row of λ_i is read by the next one alone
    lam_i, d_drive = fresh((steps if whole else 2, batch, n), peak), torch.empty_like(drive)
    of_drive = flat(d_drive if needs_drive else nothing)
    of_states, own = loops.Steps(*given), [array_of(x).reshape(-1) for x in sums]
    into = loops.Back._make([array_of(lam_v).reshape(-1), flat(lam_i), *own, of_drive, any(needs[1:3]), any(needs[3:])])
    groups = groups_of(batch, steps * n, n)
    d_weights = peak.new_zeros(len(groups), sent.shape[2] if needs_w_in else 0, n)

    def work(k: int, first: int, last: int) -> None:
        memory = np.zeros((5, len(layer.bias)), slope.gamma.dtype)
        of_weights = array_of(d_weights[k])
        loops.backward(layer, fixed.sent, path, rows, slope, c_spikes, of_states, into, of_weights, memory, first, last)

    run_groups(work, groups)
    d_bias, *d_others = (x.sum(0) for x in sums)
    d_bias = d_bias * (1.0 - of_neurons[4])
    d_w_rec = weights_back(lam_i, spikes, w_rec, fixed) if needs_w_rec else None
    d_w_in = d_weights.sum(0).T.contiguous() if needs_w_in else None
    d_sent = told_back(loops, lam_i, w_in if fixed.w_back is None else fixed.w_back, fixed.sent.lag) if needs_sent else None
    d_arriving = lam_i if needs_arriving else None
    d_drive = d_drive if needs_drive else None
    return None, d_arriving, d_w_in, d_sent, lam_v, lam_i[0].clone(), d_drive, d_w_rec, d_bias, *d_others


def _one_by_one(arriving: Tensor | Sent, like: Tensor) -> Any:
    """Spikes as the loops take them; none where they are too many, or do not all arrive after the same time."""
    from adjsnn.lif.cpu import clocked as loops  # noqa: PLC0415  loads the compiler

    nothing = array_of(like.new_empty(0, 0))
    none = loops.Sent(np.empty(0, np.int64), np.empty(0, np.int32), nothing.reshape(-1), 0, nothing)
    if isinstance(arriving, Tensor) or len(lags := arriving.lags.unique()) != 1:
        return none
    (steps, batch, n_sending), sent = arriving.spikes.shape, array_of(arriving.spikes).reshape(-1)
    room = int(FEW * len(sent)) + loops.WORDS
    first, neuron, number = np.zeros(steps * batch + 1, np.int64), np.empty(room, np.int64), np.empty(room, sent.dtype)
    found = loops.list_spikes(sent, sent.view(f"i{sent.itemsize}"), n_sending, first, neuron, number)
    if found < 0:
        return none
    return loops.Sent(first, neuron[:found].astype(np.int32), number[:found].copy(), int(lags[0]), array_of(arriving.w.T))


def told_back(loops: Any, lam_i: Tensor, w: Tensor, lag: int) -> Tensor:
    """The cotangent of what was sent: that of what arrives, back through the weights."""
    d_sent = fresh((*lam_i.shape[:2], w.shape[1]), lam_i)
    arrived = max(0, len(lam_i) - lag)
    d_sent[arrived:] = 0.0
    told, into = lam_i[lag:].flatten(0, 1), d_sent[:arrived].flatten(0, 1)
    if len(w) > THIN:
        torch.mm(told, w, out=into)
        return d_sent
    arrays = array_of(told), array_of(w), into.numpy()
    run_groups(
        lambda k, first, last: loops.products(arrays[0][first:last], arrays[1], arrays[2][first:last]),
        groups_of(len(told), w.numel(), len(w)),
    )
    return d_sent


def slope_of(loops: Any, spike: Differentiated, peak: Tensor, v_th: Tensor) -> Any:
    """σ′ that the loops compute; of a shape that they do not know, its values at all steps."""
    number = array_of(peak[:0]).dtype.type
    known: Slope | None = getattr(spike, "loops", None)
    if known is not None:
        none = torch.empty(0, peak[0].numel(), dtype=peak.dtype)
        return loops.Slope(1 + SHAPES.index(known.shape), number(known.gamma), number(known.height), flat(none))
    slopes = fresh(peak.shape, peak)
    together = max(1, CACHED // max(1, peak[0].numel()))  # steps whose intermediate results stay in a core's cache
    for rows, into in zip(peak.split(together), slopes.split(together), strict=True):
        into.copy_(spike.derivative(rows - v_th))
    return loops.Slope(0, number(0.0), number(0.0), flat(slopes))


def weights_back(lam_i: Tensor, sent: Tensor, w_rec: Tensor, fixed: Fixed) -> Tensor:
    """Σ λ_i[n + D] S[n]ᵀ."""
    total, steps = torch.zeros_like(w_rec), len(lam_i)
    for lag in fixed.lags.tolist():
        if lag < steps:
            whole = lam_i[lag:].flatten(0, 1).T @ sent[: steps - lag].flatten(0, 1)
            total += whole if len(fixed.lags) == 1 else whole * (fixed.rec_lags == lag).to(whole)
    return total


def by_lag(w_rec: Tensor, fixed: Fixed) -> Tensor:
    """Recurrent weights of each lag, (L, N, N)."""
    if fixed.rec_lags is None:
        return w_rec.new_zeros(0, w_rec.shape[1], w_rec.shape[1])
    return torch.stack([w_rec * (fixed.rec_lags == lag).to(w_rec) for lag in fixed.lags.tolist()])


def layer_of(loops: Any, fixed: Fixed, of_neurons: Any, weights: Tensor, drive: Tensor) -> Any:
    """The layer as the loops take it, its numbers repeated for the samples of a tile."""
    samples = max(1, TILE // max(1, len(fixed.hold)))
    numbers = array_of(torch.stack(of_neurons).repeat(1, samples))
    hold = array_of(fixed.hold.to(torch.int32).repeat(samples))
    recurrent = (array_of(fixed.lags), array_of(weights), flat(drive))
    return loops.Clocked(*numbers, hold, bool(hold.any()), *recurrent, fixed.reset == "by", fixed.through)


def flat(x: Tensor) -> np.ndarray:
    """The neurons of all samples in one row, (T, B·N)."""
    array = array_of(x)
    return array.reshape(len(array), prod(array.shape[1:]))


def array_of(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()

"""Sums over all pairs of spikes of a group, by the recursions of `pairs`, and their gradient."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.numerics.first_order import FirstOrder, first_order


def pair_sums(time: Float[Tensor, " S"], w: Float[Tensor, "S C"], first: Int[Tensor, " G1"], tau: float) -> Float[Tensor, " G"]:
    """½ Σ_{k,l} w_k·w_l e^{-|t_k-t_l|/τ} over the spikes of each group; differentiable once, by times and weights.

    Args:
        time: times, sorted within each group, ms; float64.
        w: a weight for each spike and channel; float64.
        first: (G+1,), spikes first[g] … first[g+1]-1 are those of group g.
        tau: ms.
    """
    return _PairSums.apply(time, w, first, tau)


class _PairSums(FirstOrder):
    @staticmethod
    def forward(ctx, time, w, first, tau):
        t, x = (a.detach().cpu().numpy() for a in (time, w.contiguous()))
        from adjsnn.numerics import pairs  # noqa: PLC0415  loads the compiler

        ctx.first, ctx.tau = first.cpu().numpy(), tau
        before = torch.from_numpy(pairs.earlier(ctx.first, t, x, tau)).to(w)
        ctx.save_for_backward(time, w, before)
        group = torch.arange(len(first) - 1, device=w.device).repeat_interleave(first.diff().to(w.device))
        ctx.group = group
        return w.new_zeros(len(first) - 1).index_add(0, group, (w * (0.5 * w + before)).sum(1))

    @staticmethod
    def backward(ctx, *cotangents):
        return _backward(ctx, *cotangents)


@first_order
def _backward(ctx, cotangent):
    time, w, before = ctx.saved_tensors
    t, x = (a.detach().cpu().numpy() for a in (time, w.contiguous()))
    from adjsnn.numerics import pairs  # noqa: PLC0415  loads the compiler

    after = torch.from_numpy(pairs.later(ctx.first, t, x, ctx.tau)).to(w)
    share = cotangent[ctx.group]
    return share * (w * (after - before)).sum(1) / ctx.tau, share[:, None] * (w + before + after), None, None

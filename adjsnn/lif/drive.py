"""Analog currents into a layer, equation (2.16)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adjsnn.lif.structure import LIFLayer, Structure
from adjsnn.numerics.first_order import FirstOrder, first_order, laid_out


class _BySample(FirstOrder):
    """u Wᵀ of (T, B, C) and (N, C), each sample rounded as it is alone, whatever the batch; one product does not."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(u, w)
        return torch.bmm(u.transpose(0, 1), w.T.expand(u.shape[1], -1, -1)).transpose(0, 1).contiguous()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return _backward(ctx, *grad_outputs)


@first_order
def _backward(ctx: Any, of_drive: Tensor) -> Sequence[Tensor | None]:
    u, w = ctx.saved_tensors
    needs_u, needs_w = ctx.needs_input_grad
    of_u = torch.bmm(of_drive.transpose(0, 1), w.expand(u.shape[1], -1, -1)).transpose(0, 1) if needs_u else None
    of_w = of_drive.flatten(0, 1).T @ u.flatten(0, 1) if needs_w else None
    return laid_out((of_u, of_w), (u, w))


class _ByList(FirstOrder):
    """u Wᵀ of (T, B, C) and a list of weights (E,), from `pre` to `post` of N neurons."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, each: Tensor, post: Tensor, pre: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(u, each)
        ctx.places = post, pre
        matrix = torch.sparse_coo_tensor(torch.stack([post, pre]), each, (n, u.shape[2]), check_invariants=False)
        return torch.sparse.mm(matrix, u.flatten(0, 1).T).T.reshape(*u.shape[:2], n)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return _back_by_list(ctx, *grad_outputs)


@first_order
def _back_by_list(ctx: Any, of_drive: Tensor) -> Sequence[Tensor | None]:
    (u, each), (post, pre), (needs_u, needs_each, *_) = ctx.saved_tensors, ctx.places, ctx.needs_input_grad
    flat, of_u, of_each = of_drive.flatten(0, 1).T, None, None
    if needs_u:
        size = u.shape[2], len(flat)
        matrix = torch.sparse_coo_tensor(torch.stack([pre, post]), each, size, check_invariants=False)
        of_u = torch.sparse.mm(matrix, flat).T.reshape(u.shape)
    if needs_each:
        of_each = (flat @ u.flatten(0, 1))[post, pre]
    return *laid_out((of_u, of_each), (u, each)), None, None, None


def injected(u: Tensor, layer: LIFLayer, own: Structure) -> Tensor:
    """W_in u of each step, (T, B, N), float64; of receptors the sum over them, of a list of synapses the sum over it."""
    w, u = layer.w_in.double(), u.double()
    if own.synapses is None:
        return _BySample.apply(u, w if own.receptors is None else w.sum(0))
    each = w if own.synapses.shared is None else w[own.synapses.shared.to(w.device)]
    pre, post = own.synapses.pre.to(w.device), own.synapses.post.to(w.device)
    return _ByList.apply(u, each, post, pre, len(layer.v_th))

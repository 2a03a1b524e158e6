"""Analog currents into a layer, equation (2.16)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adjsnn.lif.network import LIFLayer
from adjsnn.lif.structure import Structure
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


def injected(u: Tensor, layer: LIFLayer, own: Structure) -> Tensor:
    """W_in u of each step, (T, B, N), float64; of receptors the sum over them, of a list of synapses the sum over it."""
    w, u = layer.w_in.double(), u.double()
    if own.synapses is None:
        return _BySample.apply(u, w if own.receptors is None else w.sum(0))
    each = w if own.synapses.shared is None else w[own.synapses.shared.to(w.device)]
    pre, post = own.synapses.pre.to(w.device), own.synapses.post.to(w.device)
    matrix = torch.sparse_coo_tensor(torch.stack([post, pre]), each, (len(layer.v_th), own.sources), check_invariants=False)
    flat = torch.sparse.mm(matrix, u.reshape(-1, own.sources).T).T
    return flat.reshape(*u.shape[:2], len(layer.v_th))

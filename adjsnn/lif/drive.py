"""Analog currents into a layer, equation (2.16)."""

import torch
from torch import Tensor

from adjsnn.lif.network import LIFLayer
from adjsnn.lif.structure import Structure


def injected(u: Tensor, layer: LIFLayer, own: Structure) -> Tensor:
    """W_in u of each step, (T, B, N), float64; of receptors the sum over them, of a list of synapses the sum over it."""
    w, u = layer.w_in.double(), u.double()
    if own.synapses is None:
        return u @ (w if own.receptors is None else w.sum(0)).T
    each = w if own.synapses.shared is None else w[own.synapses.shared.to(w.device)]
    pre, post = own.synapses.pre.to(w.device), own.synapses.post.to(w.device)
    matrix = torch.sparse_coo_tensor(torch.stack([post, pre]), each, (len(layer.v_th), own.sources), check_invariants=False)
    flat = torch.sparse.mm(matrix, u.reshape(-1, own.sources).T).T
    return flat.reshape(*u.shape[:2], len(layer.v_th))

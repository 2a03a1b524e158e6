"""Analog currents into a layer, equation (2.16)."""

import torch
from torch import Tensor

from adjsnn.errors import ConfigurationError
from adjsnn.lif.network import LIFLayer
from adjsnn.lif.structure import Structure


def injected(u: Tensor, layer: LIFLayer, own: Structure) -> Tensor:
    """W_in u of each step, (T, B, N), float64; of a list of synapses the sum over it.

    Raises:
        ConfigurationError: a layer whose weights belong to receptors, which a current does not pass.
    """
    if own.receptors is not None:
        raise ConfigurationError(
            "analog currents into a layer with receptors",
            "input spikes, or a layer without receptors for the currents",
            "receptors=(None, 2) for a first layer of other neurons, or bias",
        )
    w, u = layer.w_in.double(), u.double()
    if own.synapses is None:
        return u @ w.T
    each = w if own.synapses.shared is None else w[own.synapses.shared.to(w.device)]
    pre, post = own.synapses.pre.to(w.device), own.synapses.post.to(w.device)
    matrix = torch.sparse_coo_tensor(torch.stack([post, pre]), each, (len(layer.v_th), own.sources), check_invariants=False)
    flat = torch.sparse.mm(matrix, u.reshape(-1, own.sources).T).T
    return flat.reshape(*u.shape[:2], len(layer.v_th))

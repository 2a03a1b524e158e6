"""Remedies for silent neurons: named, and no part of the gradient of a loss.

A neuron that does not spike has no spike time, so losses of spikes have no gradient by its weights, exactly. What is here
moves such neurons by other means: `wake` changes weights after a step, `voltage_gap` is a price of its own, to be added to a
loss. For a network that is silent from the start there is `adjsnn.start_from_data`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.utils import parametrize

from adjsnn.checks import Count, Number, duration, index, kind, tensor
from adjsnn.errors import ConfigurationError
from adjsnn.lif.network import LIFNetwork
from adjsnn.solutions import FirstSpikeSolution, check_face
from adjsnn.untraced import untraced


@untraced
@torch.no_grad()
def wake(
    net: LIFNetwork,
    sol: FirstSpikeSolution,
    wanted: Tensor,
    rise: Number,
    *,
    layer: Count = -1,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Where a neuron is silent though it should spike, raise its weights from neurons below that did spike; in place.

    A weight rises by `rise` times the share of such samples in which the neuron below spiked. Call it after each step of an
    optimiser, with `rise` about its learning rate. It changes weights beside the gradient, never the gradient.

    Args:
        net: the network, whose `w_in[layer]` is a matrix (N, M).
        sol: its solution of the batch.
        wanted: which neurons should spike: the class of each sample, (B,), integers; or (B, N), bool.
        rise: how far weights rise at most.
        layer: number of the layer, the second or a later one; default the last.
        reduce: what turns a tensor of sums of this process into the mean over processes, where several share a batch.

    Raises:
        ConfigurationError: the first layer, one with receptors or a list of synapses, or one whose weights are parametrized or
            pruned; `wanted` of another shape.
    """
    kind("net", net, LIFNetwork)
    check_face(sol, "first_spike_times", "those of LIF networks")
    k, rise = index("layer", layer, len(net.layers)), duration("rise", rise, "a number ≥ 0", "rise=0.01")
    weights = net.w_in[k]
    if not k or weights.shape != (net.layers[k], net.layers[k - 1]):
        raise ConfigurationError(
            f"layer {k}, whose weights are {tuple(weights.shape)}",
            "a layer above another, with one weight for each pair",
            "adjsnn.start_from_data, or adjsnn.remedies.voltage_gap in the loss",
        )
    if parametrize.is_parametrized(net.w_in, str(k)) or not isinstance(weights, nn.Parameter):
        raise ConfigurationError(
            f"weights of layer {k} that are computed from other parameters",
            "a plain Parameter, which can be raised",
            "adjsnn.remedies.voltage_gap in the loss",
        )
    counts = sol.layer_counts(k)
    silent = (_mask(wanted, counts) & (counts == 0)).to(weights)
    spiked = (sol.layer_counts(k - 1) > 0).to(weights)
    shares = torch.cat([silent.T @ spiked, silent.sum(0)[:, None]], 1)
    shares = shares if reduce is None else reduce(shares)
    weights.add_(rise * shares[:, :-1] / shares[:, -1:].clamp(min=1e-9))


@untraced
def voltage_gap(sol: FirstSpikeSolution, wanted: Tensor, layer: int = -1) -> Float[Tensor, ""]:
    """How far neurons stay below their threshold that should spike and do not: Σ (v_th - max v) over them, per sample.

    A named price to add to a loss, small beside it: its gradient is that of a maximum of the voltage (2.11), exact in itself,
    and raises silent neurons that the loss cannot see, if neurons below them spike. Zero where all that should spike do.

    Args:
        sol: the solution of a LIF network.
        wanted: which neurons should spike: the class of each sample, (B,), integers; or (B, N), bool.
        layer: its number; default the last.

    Raises:
        ConfigurationError: `wanted` of another shape; a layer whose thresholds move without a spike.
    """
    check_face(sol, "voltage_gap", "those of LIF networks")
    counts = sol.layer_counts(layer)
    missing = _mask(wanted, counts) & (counts == 0)
    return sol.voltage_gap(layer)[missing].sum() / max(len(counts), 1)


def _mask(wanted: object, counts: Tensor) -> Tensor:
    """(B, N), bool, from it or from classes (B,)."""
    given = tensor("wanted", wanted, "classes (B,), or (B, N) of bool", "labels.long()").to(counts.device)
    if given.dtype == torch.bool and given.shape == counts.shape:
        return given
    whole = not (given.dtype == torch.bool or given.is_floating_point() or given.is_complex())
    if not whole or given.shape != counts.shape[:1] or bool(((given < 0) | (given >= counts.shape[1])).any()):
        raise ConfigurationError(
            f"wanted of {given.dtype} and shape {tuple(given.shape)}",
            f"({len(counts)},) classes 0 … {counts.shape[1] - 1}, or {tuple(counts.shape)} of bool",
            "labels.long(), one per sample",
        )
    return one_hot(given.long(), counts.shape[1]).bool()

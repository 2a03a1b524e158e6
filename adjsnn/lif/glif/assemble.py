"""A layer's parameters as the arrays that bodies of generalised neurons take, and gradients by these carried back to them.

Time constants become rates and weights a list of synapses on torch's tape, in float64, which also carries gradients back.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adjsnn.lif.glif.arrays import GLIF, GLIFGradients, Neurons, Wiring
from adjsnn.lif.layer import as_array
from adjsnn.lif.structure import LIFLayer, Structure
from adjsnn.lif.synapses import Synapses


class Connections(NamedTuple):
    """Synapses in the order of bodies: weight and delay (E,), float64, on the tape, delay None for none; and their wiring."""

    weight: Tensor
    delay: Tensor | None
    wiring: Wiring


class Assembled(NamedTuple):
    """Tensors that a layer's arrays are made of."""

    neurons: dict[str, Tensor]
    incoming: Connections
    recurrent: Connections

    def arrays(self) -> GLIF:
        """As bodies take them."""
        return GLIF(
            Neurons(**{name: as_array(x) for name, x in self.neurons.items()}), self.incoming.wiring, self.recurrent.wiring
        )


def assembled(layer: LIFLayer, own: Structure) -> Assembled:
    """What a layer's arrays are made of, from its tensors on the host."""
    n = len(layer.v_th)
    wide = LIFLayer._make(None if x is None else x.double() for x in layer)
    one, no_rows = torch.ones_like(wide.tau_mem), wide.tau_mem.new_zeros(0, n)
    synaptic = 1.0 / (wide.tau_syn if own.receptors is not None else wide.tau_syn[None])

    def rows(x: Tensor | None) -> Tensor:
        return no_rows if x is None else x

    def scale(x: Tensor | None, like: Tensor | None) -> Tensor:
        return no_rows if like is None else torch.ones_like(like) if x is None else x

    th_rate, th_jump, th_scale = 1.0 / rows(wide.tau_th), rows(wide.jump_th), scale(wide.scale_th, wide.tau_th)
    follow = no_rows
    if wide.tau_follow is not None and wide.gain_follow is not None:
        rate, th_jump, th_scale = 1.0 / wide.tau_follow, torch.cat([th_jump, 0.0 * one[None]]), torch.cat([th_scale, one[None]])
        th_rate, follow = torch.cat([th_rate, rate[None]]), (wide.gain_follow * rate)[None]
    neurons = {
        "leak_rate": 1.0 / wide.tau_mem if own.leak else torch.zeros_like(one),
        "gain": 1.0 / wide.tau_mem if own.leak else one,
        "bias": wide.bias,
        "v_th": wide.v_th,
        "v_reset": wide.v_reset,
        "reset_factor": torch.full_like(one, own.reset),
        "refractory": wide.refractory,
        "rate": torch.cat([synaptic, 1.0 / rows(wide.tau_adapt)]),
        "jump": rows(wide.jump_adapt),
        "scale": scale(wide.scale_adapt, wide.tau_adapt),
        "th_rate": th_rate,
        "th_jump": th_jump,
        "th_scale": th_scale,
        "follow": follow,
    }
    incoming = _connections(wide.w_in, wide.delays, own, own.synapses, n, own.sources)
    recurrent = _connections(wide.w_rec, wide.rec_delays, own, own.rec_synapses, n, n)
    return Assembled(neurons, incoming, recurrent)


def _connections(
    weights: Tensor | None, delays: Tensor | None, own: Structure, synapses: Synapses | None, n: int, m: int
) -> Connections:
    if weights is None:
        start, none, nothing = np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0)
        return Connections(torch.zeros(0).double(), None, Wiring(start, nothing, start, none, none, nothing))
    if synapses is None:
        k = own.currents
        by_pre = (weights if weights.dim() == 3 else weights[None]).permute(2, 1, 0)
        weight, pre = by_pre.reshape(-1), torch.arange(m).repeat_interleave(n * k)
        post, receptor = torch.arange(n).repeat_interleave(k).repeat(m), torch.arange(k).repeat(n * m)
        if delays is not None:
            spread = delays[:, None] if delays.dim() == 1 else delays.T
            delays = spread.expand(m, n)[:, :, None].expand(m, n, k).reshape(-1)
        return _sorted(weight, delays, pre, post, receptor, m)
    order = synapses.by_pre
    weight = weights[order if synapses.shared is None else synapses.shared[order]]
    pre, post, receptor = synapses.in_order
    if delays is not None:
        delays = delays.expand(len(order)) if delays.numel() == 1 else delays[order]
    return _sorted(weight, delays, pre, post, receptor, m)


def _sorted(weight: Tensor, delays: Tensor | None, pre: Tensor, post: Tensor, receptor: Tensor, sources: int) -> Connections:
    """Synapses that are sorted by their sources, in groups of those of a source that arrive together."""
    starts = pre.diff(prepend=pre.new_tensor([-1])) != 0
    if delays is None:
        times = np.zeros(int(starts.sum()))
    else:
        late = delays.detach()
        if bool(((late.diff() < 0.0) & ~starts[1:]).any()):
            order = torch.from_numpy(np.lexsort((late.numpy(), pre.numpy())))
            weight, delays, post, receptor = (x[order] for x in (weight, delays, post, receptor))
            late = late[order]
        starts = starts | (late.diff(prepend=late.new_tensor([-1.0])) != 0.0)
        times = as_array(late[starts])
    begin = starts.nonzero()[:, 0]
    edge = torch.cat([begin, begin.new_tensor([len(pre)])])
    first = torch.searchsorted(pre[begin], torch.arange(sources + 1))
    columns = (first, times, edge, post, receptor, weight.detach())
    return Connections(weight, delays, Wiring(*(x if isinstance(x, np.ndarray) else as_array(x) for x in columns)))


def carried_back(layer: LIFLayer, own: Structure, given: GLIFGradients) -> LIFLayer:
    """Gradients by a layer's tensors from those by its arrays."""
    there = [x is not None for x in layer]
    leaves = LIFLayer._make(None if x is None else x.detach().requires_grad_() for x in layer)
    with torch.enable_grad():
        made = assembled(leaves, own)
    outputs: list[Tensor] = []
    cotangents: list[Tensor] = []

    def pair(output: Tensor | None, cotangent: np.ndarray) -> None:
        if output is not None and output.requires_grad:
            outputs.append(output)
            cotangents.append(torch.from_numpy(cotangent).view(output.shape))

    for name, x in made.neurons.items():
        pair(x, getattr(given.neurons, name))
    pair(made.incoming.weight, given.in_weight)
    pair(made.incoming.delay, given.in_delay)
    pair(made.recurrent.weight, given.rec_weight)
    pair(made.recurrent.delay, given.rec_delay)
    inputs: Sequence[Tensor] = [x for x in leaves if x is not None]
    found = iter(torch.autograd.grad(outputs, inputs, cotangents, allow_unused=True, materialize_grads=True))
    return LIFLayer._make(next(found) if is_there else None for is_there in there)

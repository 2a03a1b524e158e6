"""The network of `lif_gradient.py` in other libraries, where they are installed: what one of their gradients takes.

They step on a grid, here of `STEP` ms with the input spikes put on it, and differentiate the steps with a surrogate in place
of the derivative of a spike. Their loss is a cross-entropy of the output neurons' spike counts, because their spike times have
no derivative. So times can be compared, gradients cannot: these are not gradients of the cost that ran.
"""

import statistics
import time
from collections.abc import Callable
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from adjsnn import LIFNetwork, SpikeTrains

STEP = 0.5  # ms
Forward = Callable[[list[Tensor], Tensor], Tensor]


class Peer(NamedTuple):
    """A row of the table: version, or None where it is not installed; times, ms; output spikes; what its gradient is."""

    name: str
    version: str | None
    times: list[float]
    spikes: float
    note: str


def norse(lif: LIFNetwork) -> Forward:
    """Counts of output spikes, (B, N), from weights and dense spikes (T, B, n_in), by norse's LIF step."""
    module = import_module("norse.torch")
    second = 1000.0
    options = {
        "tau_mem_inv": torch.tensor(second / float(lif.tau_mem[0][0])),
        "tau_syn_inv": torch.tensor(second / float(lif.tau_syn[0][0])),
    }
    cells = [module.LIFCell(module.LIFParameters(**options), dt=STEP / second) for _ in lif.layers]

    def forward(weights: list[Tensor], x: Tensor) -> Tensor:
        states, total = [None] * len(cells), x.new_zeros(())
        for z in x.unbind():
            for k, (cell, w) in enumerate(zip(cells, weights, strict=True)):
                z, states[k] = cell(z @ w.T, states[k])
            total = total + z
        return total

    return forward


def snntorch(lif: LIFNetwork) -> Forward:
    """The same by snntorch's Synaptic neurons; its voltage adds the current at each step, hence the factor on the weights."""
    module = import_module("snntorch")
    tau_mem, tau_syn = float(lif.tau_mem[0][0]), float(lif.tau_syn[0][0])
    alpha, beta = (float(torch.exp(torch.tensor(-STEP / tau))) for tau in (tau_syn, tau_mem))
    cells = [module.Synaptic(alpha=alpha, beta=beta, reset_mechanism="zero") for _ in lif.layers]

    def forward(weights: list[Tensor], x: Tensor) -> Tensor:
        states, total = [cell.init_synaptic() for cell in cells], x.new_zeros(())
        for z in x.unbind():
            for k, (cell, w) in enumerate(zip(cells, weights, strict=True)):
                z, *states[k] = cell(STEP / tau_mem * (z @ w.T), *states[k])
            total = total + z
        return total

    return forward


PEERS: dict[str, tuple[Callable[[LIFNetwork], Forward] | None, str]] = {
    "norse": (norse, "backpropagation through Euler steps with a surrogate (SuperSpike), spikes on the grid"),
    "snntorch": (snntorch, "backpropagation through exponential steps with a surrogate (arctangent), spikes on the grid"),
    "jaxsnn": (None, "event-based, exact (EventProp); installed, but this script knows no way to run it"),
}


def measure(name: str, lif: LIFNetwork, x: SpikeTrains, labels: Tensor, t_end: float, repeats: int) -> Peer:
    """Times of one gradient after one that is not measured; feed-forward networks only."""
    build, note = PEERS[name]
    if find_spec(name) is None:
        return Peer(name, None, [], 0.0, "not installed")
    version = metadata.version(name)
    if build is None:
        return Peer(name, version, [], 0.0, note)
    steps = round(t_end / STEP)
    dense = torch.zeros(steps, x.batch, x.n_neurons)
    grid = x.to_dense(STEP)[:steps]
    dense[: len(grid)] = grid
    forward, weights = build(lif), [w.detach().clone().requires_grad_() for w in lif.w_in]
    times, spikes = [], 0.0
    for _ in range(repeats + 1):
        start = time.perf_counter()
        counts = forward(weights, dense)
        torch.autograd.grad(cross_entropy(counts, labels), weights)
        times.append(1e3 * (time.perf_counter() - start))
        spikes = float(counts.detach().sum())
    return Peer(name, version, times[1:], spikes, note)


def row(peer: Peer, ours: float) -> str:
    """One line of the table; `ours` is adjsnn's median, ms."""
    if not peer.times:
        return f"| {' '.join(filter(None, peer[:2]))} | - | - | - | {peer.note} |"
    median = statistics.median(peer.times)
    return f"| {peer.name} {peer.version} | {median:.1f} | {min(peer.times):.1f} | {median / ours:.1f} | {peer.note} |"

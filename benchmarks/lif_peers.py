"""The network of `lif_gradient.py` in other libraries, where they are installed: what one of their gradients takes.

norse and snntorch step on a grid, here of `STEP` ms with the input spikes put on it, and differentiate the steps with a
surrogate in place of the derivative of a spike. Their loss is a cross-entropy of the output neurons' spike counts, because
their spike times have no derivative. So times can be compared, gradients cannot: these are not gradients of the cost that ran.

jaxsnn (`lif_jaxsnn.py`) locates spikes and takes the gradient of the same loss as adjsnn; its row says how far it is from
adjsnn's in float64. It is compiled before it is timed, and has as many threads as torch.

They are found in the environment adjsnn runs in: `pip install norse snntorch jaxsnn`; jaxsnn brings jax for the CPU.
"""

import copy
import statistics
import time
from collections.abc import Callable
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import NamedTuple

import torch
from lif_jaxsnn import jaxsnn
from torch import Tensor
from torch.nn.functional import cross_entropy

import adjsnn
from adjsnn import LIFNetwork, SpikeTrains, losses

STEP = 0.5  # ms
Forward = Callable[[list[Tensor], Tensor], Tensor]
Gradient = Callable[[], tuple[float, list[Tensor]]]  # output spikes, and the gradient of every w_in


class Library(NamedTuple):
    """How to build what takes one gradient; whether it is one of adjsnn's loss, to be compared; what to say of it."""

    build: Callable[[LIFNetwork, SpikeTrains, Tensor, float], Gradient]
    same_loss: bool
    note: str


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


def on_grid(build: Callable[[LIFNetwork], Forward]) -> Callable[[LIFNetwork, SpikeTrains, Tensor, float], Gradient]:
    """The gradient of the cross-entropy of output spike counts, by steps."""

    def prepare(lif: LIFNetwork, x: SpikeTrains, labels: Tensor, t_end: float) -> Gradient:
        steps = round(t_end / STEP)
        dense = torch.zeros(steps, x.batch, x.n_neurons)
        grid = x.to_dense(STEP)[:steps]
        dense[: len(grid)] = grid
        forward, weights = build(lif), [w.detach().clone().requires_grad_() for w in lif.w_in]

        def gradient() -> tuple[float, list[Tensor]]:
            counts = forward(weights, dense)
            found = torch.autograd.grad(cross_entropy(counts, labels), weights)
            return float(counts.detach().sum()), list(found)

        return gradient

    return prepare


PEERS = {
    "norse": Library(
        on_grid(norse), False, "backpropagation through Euler steps with a surrogate (SuperSpike), spikes on the grid"
    ),
    "snntorch": Library(
        on_grid(snntorch), False, "backpropagation through exponential steps with a surrogate (arctangent), spikes on the grid"
    ),
    "jaxsnn": Library(jaxsnn, True, "EventProp, event-based, of spike times by Newton's method, which may miss one"),
}


def measure(name: str, lif: LIFNetwork, x: SpikeTrains, labels: Tensor, t_end: float, repeats: int) -> Peer:
    """Times of one gradient after one that is not measured; feed-forward networks only."""
    library = PEERS[name]
    if find_spec(name) is None:
        return Peer(name, None, [], 0.0, "not installed")
    gradient, times, spikes, found = library.build(lif, x, labels, t_end), [], 0.0, []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        spikes, found = gradient()
        times.append(1e3 * (time.perf_counter() - start))
    note = library.note
    if library.same_loss:
        exact = copy.deepcopy(lif).double(), x.to(dtype=torch.float64), labels, t_end
        single, double = distance(found, *exact), distance(library.build(*exact)()[1], *exact)
        note += f"; differs from adjsnn's by {single:.0e} in float32, as timed, and by {double:.0e} in float64"
    return Peer(name, metadata.version(name), times[1:], spikes, note)


def distance(found: list[Tensor], lif: LIFNetwork, x: SpikeTrains, labels: Tensor, t_end: float) -> float:
    """Of a gradient from adjsnn's, relative to its norm, the larger one of the layers'."""
    sol = adjsnn.solve(lif, x, t_end=t_end)
    expected = torch.autograd.grad(losses.first_spike_cross_entropy(sol, labels), list(lif.w_in))
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))


def row(peer: Peer, ours: float) -> str:
    """One line of the table; `ours` is adjsnn's median, ms."""
    if not peer.times:
        return f"| {' '.join(filter(None, peer[:2]))} | - | - | - | {peer.note} |"
    median = statistics.median(peer.times)
    return f"| {peer.name} {peer.version} | {median:.1f} | {min(peer.times):.1f} | {median / ours:.1f} | {peer.note} |"

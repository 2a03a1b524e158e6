"""The exact gradient of recurrent weights as a sum over pairs of spikes, docs/equations.md (5.10a)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

import adjsnn
from adjsnn.gated.membranes import partials_by_autograd


class Costate(NamedTuple):
    """What an error makes of each step; every field (T, B, N).

    Attributes:
        response: ∂v⁺/∂I of the step, resets included.
        keep: ∂v⁺/∂v, likewise.
        source: S, of the voltage after the step.
        error: p_v, so that w = response · error is the cotangent of the current.
    """

    response: Tensor
    keep: Tensor
    source: Tensor
    error: Tensor


@dataclass(frozen=True)
class Attribution:
    """Who is to answer for the gradient of w_rec. Rows are the S spikes, then what belongs to none, of each neuron and sample.

    Attributes:
        sample: of each row, (J,), J = S + B N.
        neuron: likewise.
        time: of the spike, the middle of its step, ms; NaN for what belongs to none.
        source: S_k of (5.10a), the error that a postsynaptic spike is told.
        pre: a_j[t], presynaptic activity that a spike's charge leaves, (J, T).
        post: (∂v[k]/∂I[t]) S_k, what its error makes of the current, (J, T).
    """

    sample: Tensor
    neuron: Tensor
    time: Tensor
    source: Tensor
    pre: Tensor
    post: Tensor

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """For each sample, its rows, (R,), and the contribution K of each pair to dC/dw, (R, R), postsynaptic first."""
        for sample in range(int(self.sample.max()) + 1):
            rows = (self.sample == sample).nonzero()[:, 0]
            yield rows, self.post[rows] @ self.pre[rows].T

    def gradient(self, n_hidden: int) -> Tensor:
        """dC/dW_rec, (N, N), the sum over all pairs."""
        total = self.pre.new_zeros(n_hidden, n_hidden)
        for rows, k in self.pairs():
            neuron = self.neuron[rows]
            total.index_put_((neuron[:, None], neuron[None, :]), k, accumulate=True)
        return total


def costate(net: adjsnn.GatedSynapseNetwork, u: Tensor, sol: adjsnn.GatedSolution, c_readout: Tensor, dt: float) -> Costate:
    """The recursion (4.1) for a cost of the readout alone, written out step by step.

    Args:
        net: one that Euler steps have solved.
        u: its inputs, (T, B, C_in).
        sol: its solution.
        c_readout: cotangents of the readout, (T+1, B, C_out).
        dt: the step, ms.
    """
    t, neuron = net.tensors(), net.neuron
    v, a_fast = sol.v.detach(), sol.a_fast.detach()
    current = (u @ t.w_in.T + t.bias + a_fast[:-1] @ t.w_rec.T).detach()

    def step(v: Tensor, current: Tensor, c: dict[str, Tensor]) -> Tensor:
        prepared = neuron.prepare(c)
        return neuron.reset(neuron.advance(v, current, prepared, dt), current, prepared)[0]

    keep, response, _ = partials_by_autograd(step, v[:-1], current, t.constants)
    gate = net.gate.slope(v, threshold=neuron.threshold, two_sided=neuron.two_sided)
    of_slow = c_readout @ (t.w_out / t.tau_slow).detach()
    w_rec, shrink_fast, shrink_slow = (t.w_rec / t.tau_fast).detach(), dt / t.tau_fast.detach(), dt / t.tau_slow.detach()
    source, error = torch.zeros_like(current), torch.zeros_like(current)
    p_fast, p_slow = torch.zeros_like(v[0]), of_slow[-1]
    p_v = later = torch.zeros_like(v[0])
    for n in reversed(range(len(current))):
        m = p_fast + p_slow
        source[n] = gate[n + 1] * (m - later)
        p_v = error[n] = source[n] + (keep[n + 1] * p_v if n + 1 < len(keep) else 0.0)
        p_fast = (1.0 - shrink_fast) * p_fast + (response[n] * p_v) @ w_rec
        p_slow = (1.0 - shrink_slow) * p_slow + of_slow[n]
        later = m
    return Costate(response, keep, source, error)


def attributed(
    net: adjsnn.GatedSynapseNetwork, u: Tensor, sol: adjsnn.GatedSolution, c_readout: Tensor, dt: float
) -> Attribution:
    """Spikes and what each contributes; arguments as of `costate`. Neurons have one threshold, which they cross upward.

    A charge, and the error at a voltage, belong to the spike on the way to which the voltage has entered the active zone.
    """
    found, q, t = costate(net, u, sol, c_readout, dt), sol.charge.detach(), net.tensors()
    crossings, (steps, batch, n) = sol.crossings, q.shape
    place = crossings.nonzero()
    spikes = len(place)
    ids = torch.full_like(q, -1.0).long()
    ids[tuple(place.T)] = torch.arange(spikes)
    none = spikes + torch.arange(batch * n).view(batch, n)
    inside = net.gate.slope(sol.v.detach(), threshold=net.neuron.threshold, two_sided=False) > 0.0
    of_state, of_charge = none.repeat(steps + 1, 1, 1), none.repeat(steps, 1, 1)
    for s in reversed(range(steps)):
        of_charge[s] = torch.where(ids[s] >= 0, ids[s], of_state[s + 1])
        of_state[s] = torch.where(inside[s], of_charge[s], none)
    rows = spikes + batch * n
    sample = torch.cat([place[:, 1], torch.arange(batch).repeat_interleave(n)])
    neuron = torch.cat([place[:, 2], torch.arange(n).repeat(batch)])
    time = torch.cat([(place[:, 0] + 0.5) * dt, torch.full((batch * n,), torch.nan)]).to(q)
    tau, pre, post = t.tau_fast.detach().expand(n)[neuron], q.new_zeros(rows, steps), q.new_zeros(rows, steps)
    activity, error = q.new_zeros(rows), q.new_zeros(rows)
    activity[spikes:] = sol.a_fast[0].detach().flatten()
    for s in range(steps):
        pre[:, s] = activity
        activity = (1.0 - dt / tau) * activity
        activity.index_add_(0, of_charge[s].flatten(), (q[s] / t.tau_fast.detach()).flatten())
    source = q.new_zeros(rows)
    for s in reversed(range(steps)):
        here = of_state[s + 1].flatten()
        if s + 1 < steps:
            error = error * found.keep[s + 1][sample, neuron]
        error.index_add_(0, here, found.source[s].flatten())
        source.index_add_(0, here, found.source[s].flatten())
        post[:, s] = error * found.response[s][sample, neuron]
    return Attribution(sample, neuron, time, source, pre, post)

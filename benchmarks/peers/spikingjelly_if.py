"""SpikingJelly's `timing_based.SRM`: non-leaky neurons with exact spike times, as many spikes as there are.

v̇ = Σ w over the input spikes so far; a spike takes the voltage back to 0 and leaves its slope. The loss is the mean square of
all output spike times.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import protocol


def output(case: protocol.Case, torch: Any) -> Callable[[list[Any]], tuple[Any, ...]]:
    """From weights to times of the output spikes, their places among samples and neurons, and the number of hidden spikes."""
    srm = import_module("spikingjelly.timing_based.functional").srm
    time, idx, t_end = case["time"], case["idx"], case.number("t_end")
    present = idx >= 0
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(present.sum(1))]))
    times, indices = torch.from_numpy(time[present]), torch.from_numpy(idx[present].astype(np.int64))
    samples, outputs, room = len(idx), len(case["w1"]), int(case["events"].max()) + 1

    def spikes(weights: list[Any]) -> tuple[Any, ...]:
        hidden = srm(times, indices, offsets, weights[0], t_end, 1.0, room)
        out, neuron, bounds = srm(*hidden, weights[1], t_end, 1.0, room)
        return out, neuron + outputs * torch.repeat_interleave(torch.arange(samples), bounds.diff()), len(hidden[0])

    return spikes


def earliest(torch: Any, out: Any, place: Any, shape: tuple[int, int]) -> Any:
    """The first spike of each output neuron in each sample, inf where there is none."""
    first = torch.full((shape[0] * shape[1],), torch.inf, dtype=out.dtype)
    return first.scatter_reduce(0, place, out, "amin").reshape(shape)


def build(case: protocol.Case) -> protocol.Run:
    torch = import_module("torch")
    weights, spikes, shape = case.torch(torch, "w0", "w1"), output(case, torch), (len(case["idx"]), len(case["w1"]))

    def run() -> protocol.Results:
        out, place, hidden = spikes(weights)
        found = torch.autograd.grad(out.square().mean(), weights)
        counts = torch.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)
        first = earliest(torch, out.detach(), place, shape)
        return {"d_w0": found[0], "d_w1": found[1], "counts": counts, "first": first, "hidden": hidden}

    return run


def layer(case: protocol.Case) -> protocol.Pull:
    torch = import_module("torch")
    spikes, shape = output(case, torch), (len(case["idx"]), len(case["w1"]))

    def first(weights: list[Any]) -> Any:
        out, place, _ = spikes(weights)
        return earliest(torch, out, place, shape)

    return protocol.by_tape(torch, first)


if __name__ == "__main__":
    protocol.serve(["spikingjelly", "torch"], build, layer)

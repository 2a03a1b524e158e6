"""SpikingJelly's `timing_based.SRM`: non-leaky neurons with exact spike times, as many spikes as there are.

v̇ = Σ w over the input spikes so far; a spike takes the voltage back to 0 and leaves its slope. The loss is the mean square of
all output spike times.
"""

from importlib import import_module

import numpy as np
import protocol


def build(case: protocol.Case) -> protocol.Run:
    torch = import_module("torch")
    srm = import_module("spikingjelly.timing_based.functional").srm
    w0, w1 = case.torch(torch, "w0", "w1")
    time, idx, t_end = case["time"], case["idx"], case.number("t_end")
    present = idx >= 0
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(present.sum(1))]))
    times, indices = torch.from_numpy(time[present]), torch.from_numpy(idx[present].astype(np.int64))
    samples, outputs, room = len(idx), len(case["w1"]), int(case["events"].max()) + 1

    def run() -> protocol.Results:
        hidden = srm(times, indices, offsets, w0, t_end, 1.0, room)
        out, neuron, bounds = srm(*hidden, w1, t_end, 1.0, room)
        found = torch.autograd.grad(out.square().mean(), [w0, w1])
        place = neuron + outputs * torch.repeat_interleave(torch.arange(samples), bounds.diff())
        first = torch.full((samples * outputs,), torch.inf, dtype=out.dtype)
        first = first.scatter_reduce(0, place, out.detach(), "amin").reshape(samples, outputs)
        counts = torch.bincount(place, minlength=samples * outputs).reshape(samples, outputs)
        return {"d_w0": found[0], "d_w1": found[1], "counts": counts, "first": first, "hidden": len(hidden[0])}

    return run


if __name__ == "__main__":
    protocol.serve(["spikingjelly", "torch"], build)

"""The LIF network in norse, snntorch and SpikingJelly: steps on a grid, and a surrogate in place of the derivative of a spike.

Input spikes are put on the grid. The loss is a cross-entropy of the output neurons' spike counts, because spike times on a grid
have no derivative: times can be compared with adjsnn's, and the spikes that come out, but gradients cannot.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import protocol

Forward = Callable[[list[Any], Any], Any]  # weights and dense spikes (T, B, n_in) to output spikes (T, B, n_out)


def norse(case: protocol.Case, step: float) -> Forward:
    """norse's LIF step, in seconds; its voltage jumps to 0 at a spike."""
    torch, module, second = import_module("torch"), import_module("norse.torch"), 1000.0
    inverse = {f"{name}_inv": torch.tensor(second / case.number(name)) for name in ("tau_mem", "tau_syn")}
    cells = [module.LIFCell(module.LIFParameters(**inverse), dt=step / second) for _ in range(2)]

    def forward(weights: list[Any], x: Any) -> Any:
        states, out = [None] * len(cells), []
        for z in x.unbind():
            for k, (cell, w) in enumerate(zip(cells, weights, strict=True)):
                z, states[k] = cell(z @ w.T, states[k])
            out.append(z)
        return torch.stack(out)

    return forward


def snntorch(case: protocol.Case, step: float) -> Forward:
    """snntorch's Synaptic neurons; the voltage adds the current at each step, hence the factor on the weights.

    By default a reset comes one step late and spikes are fewer; `reset_delay=False` resets in the step of the spike.
    """
    torch, module = import_module("torch"), import_module("snntorch")
    alpha, beta = (float(np.exp(-step / case.number(name))) for name in ("tau_syn", "tau_mem"))
    cells = [module.Synaptic(alpha=alpha, beta=beta, reset_mechanism="zero", reset_delay=False) for _ in range(2)]

    def forward(weights: list[Any], x: Any) -> Any:
        states, out = [cell.init_synaptic() for cell in cells], []
        for z in x.unbind():
            for k, (cell, w) in enumerate(zip(cells, weights, strict=True)):
                z, *states[k] = cell(step / case.number("tau_mem") * (z.to(w) @ w.T), *states[k])  # its spikes are float32
            out.append(z)
        return torch.stack(out)

    return forward


def spikingjelly(case: protocol.Case, step: float) -> Forward:
    """SpikingJelly's current-based LIF nodes, all steps in one call; the voltage adds the current at each step, as above."""
    torch, whole = import_module("torch"), "spikingjelly.activation_based"
    neuron, surrogate, functional = (import_module(f"{whole}.{name}") for name in ("neuron", "surrogate", "functional"))
    alpha, beta = (float(np.exp(-step / case.number(name))) for name in ("tau_syn", "tau_mem"))
    constants = {"c_decay": alpha, "v_decay": beta, "v_threshold": case.number("v_th")}
    cells = [neuron.CUBALIFNode(**constants, surrogate_function=surrogate.ATan()) for _ in range(2)]
    layers = torch.nn.Sequential(*cells)
    functional.set_step_mode(layers, "m")

    def forward(weights: list[Any], x: Any) -> Any:
        functional.reset_net(layers)
        for cell, w in zip(cells, weights, strict=True):
            x = cell(x @ (step / case.number("tau_mem") * w).T)
        return x

    return forward


LIBRARIES = {"norse": norse, "snntorch": snntorch, "spikingjelly": spikingjelly}


def dense(case: protocol.Case, step: float) -> np.ndarray:
    """Input spikes as counts on the grid, (T, B, n_in), each at the step that begins next to it."""
    time, idx = case["time"], case["idx"]
    x = np.zeros((round(case.number("t_end") / step), len(idx), case["w0"].shape[1]), case.dtype)
    sample, spike = np.nonzero((idx >= 0) & (time < case.number("t_end")))
    bins = np.minimum(np.rint(time[sample, spike] / step).astype(int), len(x) - 1)
    np.add.at(x, (bins, sample, idx[sample, spike]), 1.0)
    return x


def build(case: protocol.Case) -> protocol.Run:
    torch, step = import_module("torch"), case.options["step"]
    w0, w1, labels = case.torch(torch, "w0", "w1", "labels")
    forward, x = LIBRARIES[case.options["library"]](case, step), torch.from_numpy(dense(case, step))

    def run() -> protocol.Results:
        out = forward([w0, w1], x)
        loss = torch.nn.functional.cross_entropy(out.sum(0), labels)
        found = torch.autograd.grad(loss, [w0, w1])
        out = out.detach()
        counts = out.sum(0)
        steps = (out > 0).to(torch.int64).argmax(0) + 1  # the voltage compared is that at the end of a step
        first = torch.where(counts > 0, steps * step, torch.inf)
        return {"surrogate_w0": found[0], "surrogate_w1": found[1], "counts": counts, "first": first}

    return run


def layer(case: protocol.Case) -> protocol.Pull:
    """First spike times with the surrogate for a spike's derivative: the end of the first step that has one."""
    torch, step = import_module("torch"), case.options["step"]
    torch.set_default_dtype(getattr(torch, case.dtype))  # of states that libraries make themselves
    forward, x = LIBRARIES[case.options["library"]](case, step), torch.from_numpy(dense(case, step))
    ends = step * torch.arange(1, len(x) + 1, dtype=x.dtype)[:, None, None]

    def first(weights: list[Any]) -> Any:
        out = forward(weights, x).to(x)
        silent = (1.0 - out).cumprod(0)
        before = torch.cat([torch.ones_like(silent[:1]), silent[:-1]])
        return torch.where(silent[-1] > 0.5, torch.inf, (ends * out * before).sum(0))

    return protocol.by_tape(torch, first)


if __name__ == "__main__":
    protocol.serve([protocol.arguments().options["library"], "torch"], build, layer)

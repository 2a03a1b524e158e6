"""exact-snn-nn's `ExactEventLinear`: layers of neurons that spike at most once, exact times and gradients.

Its kernel is (e^{-t/τ_m} - e^{-t/τ_s}) / (τ_m - τ_s) over a constant that the layer knows, adjsnn's is τ_s times that without
the constant. Biases are spikes at 0 with weights of their own, here zero.
"""

from importlib import import_module
from typing import Any

import protocol

TAU_0, ALPHA, TAU_1 = 0.5, 0.003, 6.4  # of the first-spike cross-entropy, ms, the defaults of adjsnn's


def network(case: protocol.Case, torch: Any) -> tuple[list[Any], list[float], Any]:
    """Layers without weights, the factor on each one's, and the input times."""
    layer, dtype = import_module("exact_snn.event").ExactEventLinear, getattr(torch, case.dtype)
    tau_mem, tau_syn, t_end = (case.number(name) for name in ("tau_mem", "tau_syn", "t_end"))
    options = {"tm": tau_mem, "ts": tau_syn, "theta": case.number("v_th"), "t_max": t_end, "dtype": dtype}
    layers = [layer(case[name].shape[1], case[name].shape[0], **options) for name in ("w0", "w1")]
    order = case["idx"].argsort(1)  # here every input has one spike
    times = torch.from_numpy(case["time"]).gather(1, torch.from_numpy(order)).T.contiguous()
    return layers, [tau_syn * x.k_peak for x in layers], times


def fill(torch: Any, layers: list[Any], factors: list[float], weights: list[Any]) -> None:
    with torch.no_grad():
        for x, w, factor in zip(layers, weights, factors, strict=True):
            x.weight.zero_()
            x.weight[:, :-1] = factor * w


def build(case: protocol.Case) -> protocol.Run:
    torch = import_module("torch")
    w0, w1, labels = case.torch(torch, "w0", "w1", "labels")
    layers, factors, times = network(case, torch)
    fill(torch, layers, factors, [w0, w1])
    t_end = case.number("t_end")

    def run() -> protocol.Results:
        first = layers[1](layers[0](times)).T
        time = torch.where(first.isinf(), t_end, first)
        right = time.gather(1, labels[:, None])[:, 0]
        each = right / TAU_0 + torch.logsumexp(-time / TAU_0, 1) + ALPHA * torch.expm1(right / TAU_1)
        found = torch.autograd.grad(each.mean(), [x.weight for x in layers])
        gradient = {f"d_w{k}": factor * g[:, :-1] for k, (factor, g) in enumerate(zip(factors, found, strict=True))}
        return gradient | {"counts": first.detach().isfinite(), "first": first.detach()}

    return run


def layer(case: protocol.Case) -> protocol.Pull:
    """The layers take the weights as parameters, so gradients are read off these."""
    torch = import_module("torch")
    layers, factors, times = network(case, torch)

    def pull(w0: Any, w1: Any, cotangent: Any) -> protocol.Results:
        fill(torch, layers, factors, [torch.from_numpy(w) for w in (w0, w1)])
        first = layers[1](layers[0](times)).T
        if cotangent is None:
            return {"first": first.detach()}
        there = first.isfinite()
        cost = (torch.from_numpy(cotangent)[there] * first[there]).sum()
        found = torch.autograd.grad(cost, [x.weight for x in layers])
        gradients = {f"d_w{k}": factor * g[:, :-1] for k, (factor, g) in enumerate(zip(factors, found, strict=True))}
        return gradients | {"first": first.detach()}

    return pull


if __name__ == "__main__":
    protocol.serve(["exact-snn-nn", "torch"], build, layer)

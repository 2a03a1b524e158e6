"""exact-snn-nn's `ExactEventLinear`: layers of neurons that spike at most once, exact times and gradients.

Its kernel is (e^{-t/τ_m} - e^{-t/τ_s}) / (τ_m - τ_s) over a constant that the layer knows, adjsnn's is τ_s times that without
the constant. Biases are spikes at 0 with weights of their own, here zero.
"""

from importlib import import_module

import protocol

TAU_0, ALPHA, TAU_1 = 0.5, 0.003, 6.4  # of the first-spike cross-entropy, ms, the defaults of adjsnn's


def build(case: protocol.Case) -> protocol.Run:
    torch = import_module("torch")
    layer = import_module("exact_snn.event").ExactEventLinear
    w0, w1, labels = case.torch(torch, "w0", "w1", "labels")
    tau_mem, tau_syn, t_end = (case.number(name) for name in ("tau_mem", "tau_syn", "t_end"))
    options = {"tm": tau_mem, "ts": tau_syn, "theta": case.number("v_th"), "t_max": t_end, "dtype": w0.dtype}
    layers = [layer(w.shape[1], w.shape[0], **options) for w in (w0, w1)]
    factors = [tau_syn * x.k_peak for x in layers]
    with torch.no_grad():
        for x, w, factor in zip(layers, (w0, w1), factors, strict=True):
            x.weight.zero_()
            x.weight[:, :-1] = factor * w
    order = case["idx"].argsort(1)  # here every input has one spike
    times = torch.from_numpy(case["time"]).gather(1, torch.from_numpy(order)).T.contiguous()

    def run() -> protocol.Results:
        first = layers[1](layers[0](times)).T
        time = torch.where(first.isinf(), t_end, first)
        right = time.gather(1, labels[:, None])[:, 0]
        each = right / TAU_0 + torch.logsumexp(-time / TAU_0, 1) + ALPHA * torch.expm1(right / TAU_1)
        found = torch.autograd.grad(each.mean(), [x.weight for x in layers])
        gradient = {f"d_w{k}": factor * g[:, :-1] for k, (factor, g) in enumerate(zip(factors, found, strict=True))}
        return gradient | {"counts": first.detach().isfinite(), "first": first.detach()}

    return run


if __name__ == "__main__":
    protocol.serve(["exact-snn-nn", "torch"], build)

"""adjsnn's side of `peers.py`: writes a problem into a file of arrays, and serves its gradients as the peers do.

    python adjsnn_side.py --case FILE.npz --options '{"problem": "lif"}'

With "small" among the options a problem has few samples and units, for tests.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the other benchmarks, whose problems these are

import gated_gradient
import hybrid_gradient
import lif_gradient
import protocol

import adjsnn
from adjsnn import LIFNetwork, SpikeTrains, losses
from adjsnn.rules import SurrogateBPTT

NO_LEAK = 1e9  # ms, time constants in place of none: what they change is smaller than 1e-7
FIRST = 50.0  # ms, the trial of first spikes
Problem = tuple[dict[str, Any], protocol.Run]  # arrays and numbers for the peers, and one gradient


def gated(dtype: torch.dtype, small: bool) -> Problem:
    """The network of `gated_gradient.py`, by Euler steps."""
    net, u = gated_gradient.problem(dtype, *((8, 2, 20) if small else ()))
    names = ("w_in", "w_rec", "bias", "w_out")
    arrays = {name: getattr(net, name).detach() for name in names} | {"u": u, "dt": gated_gradient.DT}
    arrays |= {"tau_v": gated_gradient.TAU_V, "width": gated_gradient.WIDTH, "samples": u.shape[1]}
    arrays |= {"tau_fast": gated_gradient.TAU_FAST, "tau_slow": gated_gradient.TAU_SLOW}

    def run() -> protocol.Results:
        return {f"d_{name}": g for name, g in zip(names, gated_gradient.by_adjsnn(net, u), strict=True)}

    return arrays, run


def _spiking(net: LIFNetwork, x: SpikeTrains, labels: Tensor, t_end: float) -> dict[str, Any]:
    """A layered network as arrays; what is the same for all neurons of all layers, as a number."""
    sol = adjsnn.solve(net, x, t_end=t_end)
    counts = [x.counts(), *(sol.spike_counts(k) for k in range(len(net.layers)))]
    numbers = {name: float(getattr(net, name)[0][0]) for name in ("tau_mem", "tau_syn", "v_th", "refractory")}
    arrays = {f"w{k}": w.detach() for k, w in enumerate(net.w_in)} | numbers
    # The largest numbers of events in a sample: libraries with a record of fixed length need them.
    arrays["events"] = np.array([int(n.sum(1).max()) for n in counts])
    arrays["spikes"] = np.array([int(n.sum()) for n in counts])
    return arrays | {"time": x.time, "idx": x.idx, "labels": labels, "t_end": t_end, "samples": x.batch, "scale": 1.0}


def _first_spikes(net: LIFNetwork, x: SpikeTrains, labels: Tensor, t_end: float) -> protocol.Run:
    def run() -> protocol.Results:
        sol = adjsnn.solve(net, x, t_end=t_end)
        found = torch.autograd.grad(losses.first_spike_cross_entropy(sol, labels), list(net.w_in))
        forward = {"counts": sol.spike_counts(-1), "first": sol.first_spike_times().detach()}
        return {f"d_w{k}": g for k, g in enumerate(found)} | forward

    return run


def lif(dtype: torch.dtype, small: bool) -> Problem:
    """The feed-forward network of `lif_gradient.py`."""
    net, x, labels = lif_gradient.problem(False, *((4, 10) if small else ()))
    net, x = net.to(dtype), x.to(dtype=dtype)
    return _spiking(net, x, labels, lif_gradient.T_END), _first_spikes(net, x, labels, lif_gradient.T_END)


def clock(dtype: torch.dtype, small: bool) -> Problem:
    """The same network in steps of 0.5 ms, and the loss that libraries on a grid take."""
    net, x, labels = lif_gradient.problem(False, *((4, 10) if small else ()))
    net, x = net.to(dtype), x.to(dtype=dtype)
    rule = SurrogateBPTT()

    def run() -> protocol.Results:
        sol = adjsnn.solve(net, x, t_end=lif_gradient.T_END, dt=0.5, adjoint=rule)
        found = torch.autograd.grad(torch.nn.functional.cross_entropy(sol.spike_count(), labels), list(net.w_in))
        forward = {"counts": sol.layer_counts(), "first": sol.first_spike_times().detach()}
        return {f"d_w{k}": g for k, g in enumerate(found)} | forward

    return _spiking(net, x, labels, lif_gradient.T_END), run


def no_leak(dtype: torch.dtype, small: bool) -> Problem:
    """5-120-3 without leaks, v̇ = Σ w over the spikes so far: both time constants very long, weights as much larger."""
    random, exact = torch.Generator().manual_seed(0), torch.float64
    batch, hidden = (4, 10) if small else (lif_gradient.BATCH, lif_gradient.HIDDEN)
    weights = [
        0.0085 + 0.005 * torch.randn(hidden, 5, generator=random, dtype=exact),
        (0.001 + 0.001 * torch.randn(3, hidden, generator=random, dtype=exact)) * 120 / hidden,
    ]
    net = LIFNetwork(5, (hidden, 3), tau_mem=NO_LEAK, tau_syn=NO_LEAK, dtype=dtype)
    with torch.no_grad():
        for w, value in zip(net.w_in, weights, strict=True):
            w.copy_(NO_LEAK * value)
    points = torch.rand(batch, 2, generator=random, dtype=exact)
    x = SpikeTrains.latency(torch.cat([points, 1.0 - points], 1), lif_gradient.INPUT_END, bias=0.0).to(dtype=dtype)
    arrays = _spiking(net, x, torch.zeros(batch, dtype=torch.int64), lif_gradient.T_END)
    arrays |= {f"w{k}": w for k, w in enumerate(weights)} | {"scale": NO_LEAK}

    def run() -> protocol.Results:
        sol = adjsnn.solve(net, x, t_end=lif_gradient.T_END)
        found = torch.autograd.grad(sol.spike_times().square().mean(), list(net.w_in))
        forward = {"counts": sol.spike_counts(-1), "first": sol.first_spike_times().detach()}
        return {f"d_w{k}": NO_LEAK * g for k, g in enumerate(found)} | forward

    return arrays, run


def single(samples: int, n_in: int, hidden: int, classes: int) -> Callable[[torch.dtype, bool], Problem]:
    """One spike of each input, within 30 ms, and of each neuron at most one: it stays refractory."""

    def prepare(dtype: torch.dtype, small: bool) -> Problem:
        random, exact = torch.Generator().manual_seed(0), torch.float64
        inputs, units, batch = (5, 10, 2) if small else (n_in, hidden, samples)
        net = LIFNetwork(inputs, (units, classes), tau_mem=15.0, tau_syn=4.0, refractory=2 * FIRST, dtype=dtype)
        with torch.no_grad():
            for w, mean in zip(net.w_in, (30.0, 40.0), strict=True):
                n = w.shape[1]
                w.copy_(mean / n + 6.0 / n**0.5 * torch.randn(w.shape, generator=random, dtype=exact))
        x = SpikeTrains.latency(torch.rand(batch, inputs, generator=random, dtype=exact), 30.0).to(dtype=dtype)
        labels = torch.randint(0, classes, (batch,), generator=random)
        return _spiking(net, x, labels, FIRST), _first_spikes(net, x, labels, FIRST)

    return prepare


def hybrid(name: str, gradient: bool = True, *, text: bool = False) -> Callable[[torch.dtype, bool], Problem]:
    """A problem of `hybrid_gradient.py`, always in float64, or its `text`; without a gradient the forward run alone."""

    def prepare(dtype: torch.dtype, small: bool) -> Problem:
        del dtype
        system, options = hybrid_gradient.problem(name)
        system = hybrid_gradient.written(name) if text else system
        if small:
            options["y0"], options["ts"] = options["y0"][:2], options["ts"][:: len(options["ts"]) - 1] / 4
        tolerances = {key: options.get(key, 1e-6) for key in ("rtol", "atol")}
        arrays = {key: p.detach() for key, p in system.named_parameters()} | tolerances
        arrays |= {"y0": options["y0"].clone(), "ts": options["ts"], "samples": len(options["y0"])}
        sol = adjsnn.solve(system, None, **options)
        arrays["most"] = np.array(sol.event_times.shape[1] if sol.event_times.numel() else 0)  # events of a sample
        y0, rest = options["y0"].requires_grad_(), {key: x for key, x in options.items() if key != "y0"}

        def forward() -> protocol.Results:
            with torch.no_grad():
                sol = adjsnn.solve(system, None, y0=y0, **rest)
            return {"y": sol.y[-1], "events": (sol.event_index >= 0).sum(1)}

        def run() -> protocol.Results:
            sol = adjsnn.solve(system, None, y0=y0, **rest)
            loss, fired = sol.y.square().mean(), sol.event_index >= 0
            if sol.event_times.numel():
                loss = loss + 0.01 * torch.where(fired, sol.event_times, 0.0).sum()
            leaves = {"y0": y0} | dict(system.named_parameters())
            found = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
            return {f"d_{key}": g for key, g in found.items()} | {"y": sol.y[-1].detach(), "events": fired.sum(1)}

        return arrays, run if gradient else forward

    return prepare


TEXTS = ("smooth-rk4", "smooth-dopri5", "balls", "izhikevich")
PROBLEMS: dict[str, Callable[[torch.dtype, bool], Problem]] = {
    "gated": gated,
    "lif": lif,
    "clock": clock,
    "if": no_leak,
    "single-5": single(150, 5, 120, 3),
    "single-784": single(16, 784, 350, 10),
    "smooth-rk4": hybrid("rk4"),
    "smooth-dopri5": hybrid("dopri5"),
    "balls": hybrid("balls"),
    "izhikevich": hybrid("izhikevich"),
    **{f"{name}, text": hybrid(name.removeprefix("smooth-"), text=True) for name in TEXTS},
    "balls, forward": hybrid("balls", gradient=False),
    "izhikevich, forward": hybrid("izhikevich", gradient=False),
}


def build(case: protocol.Case) -> protocol.Run:
    torch.set_num_threads(case.threads)
    arrays, run = PROBLEMS[case.options["problem"]](getattr(torch, case.dtype), bool(case.options.get("small")))
    protocol.save(case.file, arrays)
    return run


if __name__ == "__main__":
    protocol.serve(["adjsnn", "torch"], build)

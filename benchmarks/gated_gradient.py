"""One gradient of a gated-synapse network, four ways: time and peak memory side by side.

    python benchmarks/gated_gradient.py [--threads 2] [--rounds 5] [--method euler]

N = 128 QIF neurons, 2 inputs, batch 64, 1000 Euler steps of 0.5 ms, float32, gradient of the mean squared readout with respect
to w_in, w_rec, bias and w_out. Compared are adjsnn's discrete adjoint, backpropagation through time in plain PyTorch,
torchdiffeq.odeint_adjoint, and the three bare matrix products per step that no method can do without.

Recurrent gain, bias and input weights (1, 1 to 1.4, 0.3) are in units of 1/τ_v, which puts the rates near 90 spikes/s, about
23 steps per cycle. In units of 1/ms the same numbers fire a neuron at 400 spikes/s and more, several turns in some steps.

The wider the gate, the more neurons release charge at every step, at width 1 all of them always: --widths measures that too.

With --method heun or rk4 both adjsnn and torchdiffeq take steps of that method (torchdiffeq's "heun2" and "rk4"); BPTT is then
that of adjsnn's own program on torch's tape.

Each method runs in a process of its own, in rounds that alternate between the methods; times are medians over all rounds.
Memory is the peak above that of the process after a gradient through 30 steps.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from math import pi
from pathlib import Path
from typing import Any

import psutil
import torch
import torchdiffeq
from torch import Tensor, nn

import adjsnn
from adjsnn.training.runs import processor

N, CHANNELS, BATCH, STEPS, DT = 128, 2, 64, 1000, 0.5
TAU_V, TAU_FAST, TAU_SLOW, WIDTH = 25.0, 5.0, 20.0, 0.1
WARM_UP = 2  # gradients before the measured ones
METHODS = ("adjsnn", "bptt", "torchdiffeq", "products")
LABELS = {
    "adjsnn": "adjsnn, DiscreteAdjoint",
    "bptt": "plain PyTorch, BPTT",
    "torchdiffeq": "torchdiffeq.odeint_adjoint",
    "products": "bare matrix products, 3 per step",
}
RESULTS = Path(__file__).parent / "results"
SCHEMES = {"euler": "euler", "heun": "heun2", "rk4": "rk4"}  # adjsnn's name: torchdiffeq's name
TITLES = {"euler": "Euler", "heun": "Heun", "rk4": "RK4"}
WIDER = (0.3, 0.6, 1.0)
COMPARED = ("adjsnn", "bptt", "products")  # at the wider gates
scheme = "euler"  # set once by main


def problem(
    dtype: torch.dtype, n: int = N, batch: int = BATCH, steps: int = STEPS
) -> tuple[adjsnn.GatedSynapseNetwork, Tensor]:
    generator = torch.Generator().manual_seed(0)
    net = adjsnn.GatedSynapseNetwork(
        CHANNELS, n, CHANNELS, neuron=adjsnn.QIF(TAU_V), gate=adjsnn.RaisedCosineGate(WIDTH),
        tau_fast=TAU_FAST, tau_slow=TAU_SLOW, dtype=torch.float64, generator=generator,
    )  # fmt: skip
    with torch.no_grad():
        net.w_rec.copy_(torch.randn(n, n, generator=generator, dtype=torch.float64) / n**0.5 / TAU_V)
        net.bias.copy_((1.0 + 0.4 * torch.rand(n, generator=generator, dtype=torch.float64)) / TAU_V)
        net.w_in.copy_(0.3 * torch.randn(n, CHANNELS, generator=generator, dtype=torch.float64) / TAU_V)
    u = adjsnn.signals.random_sinusoids(steps, batch, CHANNELS, DT, mean_norm=1.0, generator=generator, dtype=torch.float64)
    return net.to(dtype), u.to(dtype)


def weights(net: adjsnn.GatedSynapseNetwork) -> list[Tensor]:
    return [net.w_in, net.w_rec, net.bias, net.w_out]


def by_adjsnn(net: adjsnn.GatedSynapseNetwork, u: Tensor) -> list[Tensor]:
    sol = adjsnn.solve(net, u, dt=DT, method=scheme)
    return list(torch.autograd.grad(sol.readout.square().mean(), weights(net)))


def by_bptt(net: adjsnn.GatedSynapseNetwork, u: Tensor) -> list[Tensor]:
    """The same equations as a user would write them, with the usual care: unbind, addmm, one stack at the end."""
    if scheme != "euler":
        sol = adjsnn.solve(net, u, dt=DT, method=scheme, adjoint=adjsnn.BPTT())
        return list(torch.autograd.grad(sol.readout.square().mean(), weights(net)))

    def charge(v: Tensor) -> Tensor:
        x = ((v - (1.0 - WIDTH)) / WIDTH).clamp(0.0, 1.0)
        return x - torch.sin(2 * pi * x) / (2 * pi)

    w_rec_t = net.w_rec.T
    v, a_fast, a_slow = (u.new_zeros(BATCH, N) for _ in range(3))
    level, slow = charge(v), [a_slow]
    for drive in (u @ net.w_in.T + net.bias).unbind():
        current = torch.addmm(drive, a_fast, w_rec_t)
        cosine = torch.cos(2 * pi * v)
        moved = v + DT * ((1 + cosine) / TAU_V + (1 - cosine) * current)
        reached = charge(moved)
        q = reached - level
        a_fast = (1 - DT / TAU_FAST) * a_fast + q / TAU_FAST
        a_slow = (1 - DT / TAU_SLOW) * a_slow + q / TAU_SLOW
        spiked = moved >= 1.0
        v = torch.where(spiked, moved - 1.0, moved)
        level = torch.where(spiked, 0.0, reached)
        slow.append(a_slow)
    readout = torch.stack(slow) @ net.w_out.T
    return list(torch.autograd.grad(readout.square().mean(), weights(net)))


class SmoothNetwork(nn.Module):
    """The network as a smooth ODE for torchdiffeq: the QIF phase needs no reset where f and g are periodic in v."""

    def __init__(self, net: adjsnn.GatedSynapseNetwork, u: Tensor) -> None:
        super().__init__()
        self.w_in, self.w_rec, self.bias, self.u = net.w_in, net.w_rec, net.bias, u

    def forward(self, t: Tensor, y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        v, a_fast, a_slow = y
        step = min(max(math.floor(float(t.detach()) / DT + 1e-3), 0), len(self.u) - 1)
        current = torch.addmm(self.u[step] @ self.w_in.T + self.bias, a_fast, self.w_rec.T)
        cosine = torch.cos(2 * pi * v)
        flow = (1 + cosine) / TAU_V + (1 - cosine) * current
        x = ((v - torch.floor(v) - (1.0 - WIDTH)) / WIDTH).clamp(0.0, 1.0)
        released = (1 - torch.cos(2 * pi * x)) / WIDTH * flow
        return flow, (released - a_fast) / TAU_FAST, (released - a_slow) / TAU_SLOW


def by_torchdiffeq(net: adjsnn.GatedSynapseNetwork, u: Tensor) -> list[Tensor]:
    system = SmoothNetwork(net, u)
    ts = torch.arange(len(u) + 1, dtype=u.dtype) * DT
    y0 = tuple(u.new_zeros(BATCH, N) for _ in range(3))
    params = (net.w_in, net.w_rec, net.bias)
    states: Any = torchdiffeq.odeint_adjoint(system, y0, ts, method=SCHEMES[scheme], adjoint_params=params)
    a_slow = states[2]
    return list(torch.autograd.grad((a_slow @ net.w_out.T).square().mean(), weights(net)))


def by_products(net: adjsnn.GatedSynapseNetwork, u: Tensor) -> list[Tensor]:
    with torch.no_grad():
        a, w_rec, w_rec_t = u.new_ones(BATCH, N), net.w_rec.detach(), net.w_rec.detach().T.contiguous()
        forward, backward, gradient = torch.empty_like(a), torch.empty_like(a), torch.zeros_like(w_rec)
        for _ in range(len(u)):
            torch.mm(a, w_rec_t, out=forward)
            torch.mm(a, w_rec, out=backward)
            gradient.addmm_(a.T, a)
    return [gradient]


RUN: dict[str, Callable[[adjsnn.GatedSynapseNetwork, Tensor], list[Tensor]]] = {
    "adjsnn": by_adjsnn, "bptt": by_bptt, "torchdiffeq": by_torchdiffeq, "products": by_products,
}  # fmt: skip


def measure(method: str, repeats: int) -> dict[str, object]:
    """Seconds of each repetition after WARM_UP unmeasured ones, and peak memory above the level before the first.

    What a first gradient loads into the process, compilers and libraries, is there before: it does not grow with the problem.
    """
    RUN[method](*problem(torch.float32, steps=30))
    net, u = problem(torch.float32)
    before = psutil.Process().memory_info().rss
    seconds = []
    for _ in range(repeats + WARM_UP):
        start = time.perf_counter()
        RUN[method](net, u)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds[WARM_UP:], "peak_mb": (peak - before) / 1e6}


def relative(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest relative difference over the tensors."""
    return max(float((f - e).norm() / e.norm()) for f, e in zip(found, expected, strict=True))


def agreement() -> dict[str, float]:
    """Relative differences of float32 gradients from adjsnn's in float64."""
    exact = by_adjsnn(*problem(torch.float64))
    net, u = problem(torch.float32)
    return {method: relative([g.double() for g in RUN[method](net, u)], exact) for method in METHODS[:3]}


def main() -> None:
    global scheme, WIDTH
    parser = argparse.ArgumentParser(description="Time and memory of one gradient, four ways.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of each method in each round")
    parser.add_argument("--method", choices=SCHEMES, default="euler")
    parser.add_argument("--width", type=float, default=WIDTH, help="of the gate")
    parser.add_argument("--widths", action="store_true", help=f"rows for the gates of widths {WIDER} too")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/results, which git keeps")
    parser.add_argument("--one", choices=METHODS, help="measure one method and print JSON; used by the rounds")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scheme, WIDTH = options.method, options.width
    if options.one:
        print(json.dumps(measure(options.one, options.repeats)))
        return
    cases = [(method, options.width) for method in METHODS]
    cases += [(method, width) for width in WIDER for method in COMPARED] if options.widths else []
    seconds: dict[tuple[str, float], list[float]] = {case: [] for case in cases}
    peak: dict[tuple[str, float], list[float]] = {case: [] for case in cases}
    for _ in range(options.rounds):
        for method, width in cases:
            command = [sys.executable, __file__, "--one", method, "--threads", str(options.threads), "--width", str(width)]
            command += ["--repeats", str(options.repeats), "--method", scheme]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            seconds[method, width] += found["seconds"]
            peak[method, width].append(found["peak_mb"])
    first = {method: seconds[method, options.width] for method in METHODS}
    table = report(first, {method: peak[method, options.width] for method in METHODS}, agreement(), options.threads)
    if options.widths:
        table += by_width(seconds)
    print(table)
    if options.write:
        (RESULTS / ("gated_gradient.md" if scheme == "euler" else f"gated_gradient_{scheme}.md")).write_text(table)


def report(seconds: dict[str, list[float]], peak: dict[str, list[float]], agree: dict[str, float], threads: int) -> str:
    ours = statistics.median(seconds["adjsnn"])
    labels = LABELS | ({"bptt": "adjsnn's program on the tape, BPTT"} if scheme != "euler" else {})
    lines = [
        "# One gradient of a gated-synapse network",
        "",
        f"N = {N}, batch {BATCH}, {STEPS} {TITLES[scheme]} steps of {DT} ms, float32. {processor()}, {threads} threads, "
        f"torch {torch.__version__}, torchdiffeq {torchdiffeq.__version__}, {date.today()}. Written by "
        "`benchmarks/gated_gradient.py`.",
        "",
        "| method | median s | fastest s | slowest s | time / adjsnn | peak MB | gradient off by |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        times = seconds[method]
        off = f"{agree[method]:.1e}" if method in agree else "-"
        lines.append(
            f"| {labels[method]} | {statistics.median(times):.3f} | {min(times):.3f} | {max(times):.3f} "
            f"| {statistics.median(times) / ours:.2f} | {statistics.median(peak[method]):.0f} | {off} |"
        )
    lines += [
        "",
        f"adjsnn is {statistics.median(seconds['bptt']) / ours:.1f}x faster than BPTT, "
        f"{statistics.median(seconds['torchdiffeq']) / ours:.1f}x than torchdiffeq's adjoint, and takes "
        f"{ours / statistics.median(seconds['products']):.1f}x the time of the bare products. "
        "Gradients are compared with adjsnn's in float64.",
        "",
    ]
    return "\n".join(lines)


def by_width(seconds: dict[tuple[str, float], list[float]]) -> str:
    lines = [
        "## Wider gates",
        "",
        "| gate width | adjsnn, median s | BPTT, median s | bare products, median s | BPTT / adjsnn | adjsnn / products |",
        "|---|---|---|---|---|---|",
    ]
    for width in sorted({width for _, width in seconds}):
        ours, bptt, products = (statistics.median(seconds[method, width]) for method in COMPARED)
        lines.append(f"| {width} | {ours:.3f} | {bptt:.3f} | {products:.3f} | {bptt / ours:.1f} | {ours / products:.2f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()

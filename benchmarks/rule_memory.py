"""Memory of learning rules against what they say of it: bytes of tensors held at most, as the network and the trial grow.

    python benchmarks/rule_memory.py [--write]

A recurrent layer with a readout, float64, batch 2, steps of 0.5 ms. Counted are torch's own allocations on the CPU, to the
byte, so that nothing depends on the machine: at most during the solve, and during the backward pass beyond what the solve has
left. Slopes are of the logarithm over the last doubling.
"""

import argparse
import math
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import adjsnn
from adjsnn import LIFNetwork, SpikeTrains
from adjsnn.rules import RTRL, EProp, SurrogateBPTT

PAGE = Path(__file__).parent / "results" / "rule_memory.md"
DT, BATCH, INPUTS = 0.5, 2, 4
RULES: dict[str, Any] = {"SurrogateBPTT": SurrogateBPTT(), "EProp": EProp(), "RTRL": RTRL()}
SIZES = {"SurrogateBPTT": (32, 64, 128, 256), "EProp": (32, 64, 128, 256), "RTRL": (8, 16, 32, 64)}
STEPS = (25, 50, 100, 200)
NEURONS, TRIAL = 16, 20  # of the other axis


def most(work: Callable[[], Any]) -> int:
    """Bytes of torch's tensors at most during the work, above those at its start."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        work()
    held = top = 0
    results = found.profiler
    assert results is not None
    kineto: Any = results.kineto_results
    for event in kineto.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            top = max(top, held)
    return top


def measured(rule: Any, neurons: int, steps: int) -> tuple[int, int]:
    """Bytes at most in the solve and in the backward pass beyond."""
    net = LIFNetwork(
        INPUTS, neurons, recurrent=True, n_out=2, bias=1.2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    rates = torch.full((BATCH, INPUTS), 50.0, dtype=torch.float64)
    x = SpikeTrains.poisson(rates, DT * steps, generator=torch.Generator().manual_seed(0))

    def solve() -> torch.Tensor:
        return adjsnn.solve(net, x, dt=DT, adjoint=rule, kernels="plain").readout.square().mean()

    solve().backward()  # what is made once is made before
    costs: list[torch.Tensor] = []
    forward = most(lambda: costs.append(solve()))
    return forward, most(costs[0].backward)


def slope(first: int, last: int) -> float:
    return math.log2(last / first)


def table(name: str, label: str, values: tuple[int, ...], found: list[tuple[int, int]]) -> list[str]:
    lines = [f"| {name}, {label} | " + " | ".join(map(str, values)) + " | slope |", "|---" * (len(values) + 2) + "|"]
    for part, k in (("solve", 0), ("backward pass", 1)):
        bytes_of = [pair[k] for pair in found]
        cells = [f"{x / 2**20:.3f}" for x in bytes_of] + [f"{slope(*bytes_of[-2:]):.2f}"]
        lines.append(f"| {part}, MB | " + " | ".join(cells) + " |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Memory of learning rules",
        "",
        f"Written by `python benchmarks/rule_memory.py --write`, torch {torch.__version__}, {date.today()}. A recurrent "
        f"layer, {INPUTS} inputs, 2 outputs, batch {BATCH}, float64. Bytes of torch's tensors at most. The solve keeps the "
        "trajectory, B T N, for all of them, since a loss is known after it only. In the backward pass, against N: RTRL has "
        f"B N W derivatives, with W = N² + {INPUTS} N a slope of 3; e-prop traces of B W, 2, beside the learning signal of "
        "each step, B T N. SurrogateBPTT has its costates there, B T N, and the gradient, W.",
        "",
    ]
    for name, rule in RULES.items():
        lines += table(name, f"{TRIAL} steps, N =", SIZES[name], [measured(rule, n, TRIAL) for n in SIZES[name]])
        lines += table(name, f"N = {NEURONS}, T =", STEPS, [measured(rule, NEURONS, steps) for steps in STEPS])
    text = "\n".join(lines)
    print(text)
    if options.write:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()

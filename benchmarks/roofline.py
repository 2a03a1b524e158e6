"""What one core could do at best, counted on paper, beside what the compiled loops take.

    python benchmarks/roofline.py [--rounds 15] [--write]

docs/performance.md says what is counted. The core's own limits are measured first: multiply-adds of a large matrix product, and
a copy of arrays that no cache holds. A floor is the larger of the time of the bytes and that of the arithmetic; no loop is
faster, and one may be slower for reasons that the count leaves out. One thread, processor time, medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import gated_gradient
import lif_gradient
import torch

import adjsnn
from adjsnn.training.runs import processor

RESULT = Path(__file__).parent / "results" / "roofline.md"
SIDE, LARGE = 1024, 1 << 25  # of a matrix; entries of an array
H100 = {
    "bytes": 3.35e12,
    "float32": 33.5e12,
    "float64": 17e12,
}  # data sheet, SXM: bytes/s, multiply-adds/s without tensor cores


class Work(NamedTuple):
    """What a loop cannot do without, per unit of work: bytes to and from memory, multiply-adds by precision."""

    bytes: float
    madds: float
    precision: str


class Row(NamedTuple):
    name: str
    unit: str
    units: float
    work: Work
    seconds: float


def clocked(run: Callable[[], object], rounds: int) -> float:
    """Median seconds of processor time of this thread."""
    found = []
    for _ in range(rounds + 1):
        start = time.thread_time()
        run()
        found.append(time.thread_time() - start)
    return statistics.median(found[1:])


def limits(rounds: int) -> dict[str, float]:
    """Multiply-adds per second in both precisions, and bytes per second."""
    found = {}
    for precision in ("float32", "float64"):
        a = torch.rand(SIDE, SIDE, dtype=getattr(torch, precision))
        out = torch.empty_like(a)
        found[precision] = SIDE**3 / clocked(lambda a=a, out=out: torch.mm(a, a, out=out), rounds)
    x = torch.rand(LARGE)
    y = torch.empty_like(x)
    found["bytes"] = 2 * x.nbytes / clocked(lambda: y.copy_(x), rounds)
    return found


def gated(width: float, rounds: int) -> list[Row]:
    """Euler steps of the problem of gated_gradient.py."""
    gated_gradient.WIDTH = width
    net, u = gated_gradient.problem(torch.float32)
    n, units = gated_gradient.N, gated_gradient.STEPS * gated_gradient.BATCH * gated_gradient.N
    sol = adjsnn.solve(net, u, dt=gated_gradient.DT)
    x = (sol.v.detach() - (1 - width)) / width
    inside = (x > 0) & (x < 1)
    share = float((inside[1:] | inside[:-1] | (sol.crossings != 0)).float().mean())
    forward = clocked(lambda: adjsnn.solve(net, u, dt=gated_gradient.DT), rounds)
    whole = clocked(lambda: gated_gradient.by_adjsnn(net, u), rounds)
    there, back = Work(4.25, share * n + 30, "float32"), Work(4.25, 2 * share * n + 50, "float32")
    return [
        Row(f"gated, width {width:g}, forward", "neuron-step", units, there, forward),
        Row(f"gated, width {width:g}, backward", "neuron-step", units, back, whole - forward),
    ]


def lif(recurrent: bool, rounds: int) -> list[Row]:
    """The problem of lif_gradient.py: every arrival at every neuron that it reaches."""
    case = lif_gradient.problem(recurrent)
    net, x, _ = case
    options: Any = {"t_end": lif_gradient.T_END}
    sol = adjsnn.solve(net, x, **options)
    inputs, hidden = int(x.time.isfinite().sum()), sol.stats.layer_spikes[0]
    arrivals = (inputs + (hidden if recurrent else 0)) * lif_gradient.HIDDEN + hidden * 3
    forward = clocked(lambda: adjsnn.solve(net, x, **options), rounds)
    whole = clocked(lambda: lif_gradient.gradient(case), rounds)
    name = "LIF, recurrent" if recurrent else "LIF, feed-forward"
    return [
        Row(f"{name}, forward", "arrival at a neuron", arrivals, Work(0, 6, "float64"), forward),
        Row(f"{name}, backward", "arrival at a neuron", arrivals, Work(0, 10, "float64"), whole - forward),
    ]


def page(core: dict[str, float], rows: list[Row]) -> str:
    lines = [
        "# Measured beside the floor",
        "",
        f"{processor()}, 1 thread, torch {torch.__version__}, adjsnn {adjsnn.__version__}, {date.today()}. Written by "
        "`benchmarks/roofline.py`; docs/performance.md says what is counted.",
        "",
        f"This core: {core['float32'] / 1e9:.0f} billion multiply-adds/s in float32 and {core['float64'] / 1e9:.0f} in "
        f"float64, {core['bytes'] / 1e9:.1f} GB/s of a copy. H100 (data sheet): {H100['float32'] / 1e12:g} and "
        f"{H100['float64'] / 1e12:g} trillion, {H100['bytes'] / 1e12:g} TB/s.",
        "",
        "| loop | unit | bytes | multiply-adds | floor, ns | bound by | measured, ns | measured / floor | H100 floor, ps |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        of_bytes, of_madds = row.work.bytes / core["bytes"], row.work.madds / core[row.work.precision]
        floor, measured = max(of_bytes, of_madds), row.seconds / row.units
        there = max(row.work.bytes / H100["bytes"], row.work.madds / H100[row.work.precision])
        lines.append(
            f"| {row.name} | {row.unit} | {row.work.bytes:g} | {row.work.madds:.0f} | {1e9 * floor:.2f} "
            f"| {'bytes' if of_bytes > of_madds else 'arithmetic'} | {1e9 * measured:.2f} | {measured / floor:.1f} "
            f"| {1e12 * there:.2f} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="Floors counted on paper beside measured times.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/results, which git keeps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for width in (0.1, 1.0) for row in gated(width, options.rounds)]
    rows += [row for recurrent in (False, True) for row in lif(recurrent, options.rounds)]
    table = page(limits(options.rounds), rows)
    print(table)
    if options.write:
        RESULT.write_text(table)


if __name__ == "__main__":
    main()

"""LIF networks on a GPU: checked against the plain code, then timed beside this machine's CPU. It writes its own page.

    python benchmarks/gpu.py [--rounds 10] [--write]
    python benchmarks/gpu.py --simulate            the check alone, in numba's simulator, where there is no GPU

The problem is that of lif_gradient.py: 5-120-3, 60 ms, about 190 hidden spikes in a sample, gradient of the first-spike
cross-entropy with respect to all weights; feed-forward with 15,000 samples at once, recurrent with 1,500. The first call
compiles. Medians, the GPU waited for at both ends of a measurement. The check comes first: a fast wrong number is none.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lif_gradient
import torch
from torch import Tensor

import adjsnn
from adjsnn import SpikeTrains, losses
from adjsnn.training.runs import processor

RESULT = Path(__file__).parent / "results" / "gpu.md"
SIZES = {False: 15_000, True: 1_500}  # samples, feed-forward and recurrent
CHECKED, TINY = 20, 1  # samples of the check on a GPU, and in the simulator
ALLOWED = 1e-10  # relative, between bodies that both compute in float64
Kernels = Literal["cuda", "fused", "plain"]


class Timed(NamedTuple):
    """Seconds of the first gradient, and medians of a forward run and of a whole gradient; peak memory in bytes."""

    first: float
    forward: float
    whole: float
    peak: int
    spikes: int


def placed(recurrent: bool, batch: int, device: str, dtype: torch.dtype, hidden: int = lif_gradient.HIDDEN) -> Any:
    """The problem on a device."""
    lif, x, labels = lif_gradient.problem(recurrent, batch, hidden)
    inputs = SpikeTrains(x.idx.to(device), x.time.to(device, dtype), x.n_neurons, x.t_max)
    return lif.to(device, dtype), inputs, labels.to(device)


def solved(case: Any, kernels: Kernels) -> tuple[adjsnn.LIFSolution, list[Tensor]]:
    """Solution, and gradients of all weights."""
    lif, x, labels = case
    sol = adjsnn.solve(lif, x, t_end=lif_gradient.T_END, kernels=kernels)
    weights = [w for w in (*lif.w_in, *lif.w_rec) if w is not None]
    return sol, list(torch.autograd.grad(losses.first_spike_cross_entropy(sol, labels), weights))


def disagreement(recurrent: bool, device: str, batch: int, hidden: int) -> float:
    """Largest relative difference between GPU and plain code, of spike times and gradients; inf if spikes differ."""
    found = solved(placed(recurrent, batch, device, torch.float64, hidden), "cuda")
    expected = solved(placed(recurrent, batch, "cpu", torch.float64, hidden), "plain")
    worst = 0.0
    for k in range(2):
        ours, truth = found[0].layer_spikes[k], expected[0].layer_spikes[k]
        if not torch.equal(ours.idx.cpu(), truth.idx):
            return float("inf")
        worst = max(worst, _relative(ours.time, truth.time))
    return max(worst, *(_relative(a, b) for a, b in zip(found[1], expected[1], strict=True)))


def _relative(found: Tensor, expected: Tensor) -> float:
    a, b = (x.detach().cpu()[expected.detach().cpu().isfinite()] for x in (found, expected))
    return float((a - b).abs().max() / b.abs().max()) if b.numel() else 0.0


def timed(recurrent: bool, device: str, kernels: Kernels, rounds: int) -> Timed:
    """One problem on one machine, float32 parameters."""
    on_gpu = device != "cpu"
    case = placed(recurrent, SIZES[recurrent], device, torch.float32)
    lif, x, _ = case

    def clocked(run: Callable[[], object]) -> float:
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    first = clocked(lambda: solved(case, kernels))
    forward = [clocked(lambda: adjsnn.solve(lif, x, t_end=lif_gradient.T_END, kernels=kernels)) for _ in range(rounds)]
    whole = [clocked(lambda: solved(case, kernels)) for _ in range(rounds)]
    spikes = sum(adjsnn.solve(lif, x, t_end=lif_gradient.T_END, kernels=kernels).stats.layer_spikes)
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    return Timed(first, statistics.median(forward), statistics.median(whole), peak, spikes)


def page(checks: dict[bool, float], rows: dict[bool, tuple[Timed, Timed]]) -> str:
    lines = [
        "# LIF networks on a GPU",
        "",
        f"{torch.cuda.get_device_name()}, beside {processor()} with {torch.get_num_threads()} threads; "
        f"torch {torch.__version__}, adjsnn {adjsnn.__version__}, {date.today()}. Written by `benchmarks/gpu.py`.",
        "",
        "| network | samples | spikes | first gradient s | forward ms | gradient ms | spikes/s | GPU memory MB "
        "| CPU gradient ms | CPU / GPU | off from the plain code by |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for recurrent, (gpu, cpu) in rows.items():
        lines.append(
            f"| {'recurrent' if recurrent else 'feed-forward'} | {SIZES[recurrent]} | {gpu.spikes} | {gpu.first:.1f} "
            f"| {1e3 * gpu.forward:.1f} | {1e3 * gpu.whole:.1f} | {gpu.spikes / gpu.whole:.2e} | {gpu.peak / 1e6:.0f} "
            f"| {1e3 * cpu.whole:.0f} | {cpu.whole / gpu.whole:.1f} | {checks[recurrent]:.1e} |"
        )
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description="LIF networks on a GPU, checked and timed.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--simulate", action="store_true", help="check in numba's simulator; nothing is timed")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/results, which git keeps")
    options = parser.parse_args()
    if not options.simulate and not torch.cuda.is_available():
        print("No GPU here: nothing is timed and no page written. --simulate checks the loops without one.")
        return 0
    if options.simulate:
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # read when numba is imported, which is at the first solve
    device, batch, hidden = ("cpu", TINY, 4) if options.simulate else ("cuda", CHECKED, lif_gradient.HIDDEN)
    checks = {recurrent: disagreement(recurrent, device, batch, hidden) for recurrent in SIZES}
    for recurrent, off in checks.items():
        print(f"{'recurrent' if recurrent else 'feed-forward'}: off from the plain code by {off:.1e}", flush=True)
    if max(checks.values()) > ALLOWED:
        print(f"The loops for a GPU are wrong: more than {ALLOWED:g}.", file=sys.stderr)
        return 1
    if options.simulate:
        return 0
    rows = {
        recurrent: (timed(recurrent, "cuda", "cuda", options.rounds), timed(recurrent, "cpu", "fused", 3))
        for recurrent in SIZES
    }
    table = page(checks, rows)
    print(table)
    if options.write:
        RESULT.write_text(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

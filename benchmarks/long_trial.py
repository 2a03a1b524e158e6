"""Gradient of a very long trial: memory and time per step with checkpoints, beside storing everything.

    python benchmarks/long_trial.py [--steps 100000] [--threads 2]

The network of gated_gradient.py, N = 128, batch 8, with its input streamed from a function. Each case runs in a process of its
own; "store all" on as many steps as 10,000, because the whole would not fit. Memory is the peak above that after a short solve.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from gated_gradient import CHANNELS, DT, problem, weights

import adjsnn
from adjsnn.numerics.machine import processor
from adjsnn.signals import Stream

BATCH, STORED_STEPS = 8, 10_000
RESULTS = Path(__file__).parent / "results" / "long_trial.md"
CASES = {"store all": None, "sqrt": "sqrt", "5 states": 5, "20 states": 20}


def source(start: int, stop: int) -> np.ndarray:
    """Sums of sinusoids, computed where they are needed."""
    t = (np.arange(start, stop) * DT)[:, None, None]
    k = np.arange(1, 1 + BATCH * CHANNELS).reshape(BATCH, CHANNELS)
    return np.sin(2 * np.pi * t * k / 1200.0) + np.cos(2 * np.pi * t * (k + 3) / 900.0)


def gradient(net: adjsnn.GatedSynapseNetwork, steps: int, checkpoints: str | int | None) -> int:
    """One gradient; returns the number of steps run again."""
    if checkpoints is None:
        inputs: torch.Tensor | Stream = torch.as_tensor(source(0, steps)).to(net.w_rec)
    else:
        inputs = Stream(source, steps=steps)
    sol = adjsnn.solve(net, inputs, dt=DT, adjoint=adjsnn.DiscreteAdjoint(checkpoints=checkpoints))
    torch.autograd.grad(sol.readout.square().mean(), weights(net))
    return sol.stats.recomputed_steps if checkpoints is not None else 0


def measure(case: str, steps: int, repeats: int) -> dict[str, float]:
    net, _ = problem(torch.float32)
    gradient(net, 64, CASES[case])  # compiles, and loads what there is to load
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, again = [], 0
    for _ in range(repeats):
        start = time.perf_counter()
        again = gradient(net, steps, CASES[case])
        seconds.append(time.perf_counter() - start)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6
    return {"seconds": statistics.median(seconds), "peak_mb": peak, "again": again / steps, "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description="Gradient of a very long trial.")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/results, which git keeps")
    parser.add_argument("--one", choices=CASES, help="measure one case and print JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(measure(options.one, options.steps, options.repeats)))
        return
    found = {}
    for case, checkpoints in CASES.items():
        steps = STORED_STEPS if checkpoints is None else options.steps
        command = [sys.executable, __file__, "--one", case, "--steps", str(steps), "--threads", str(options.threads)]
        command += ["--repeats", str(options.repeats)]
        found[case] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    base = found["store all"]["seconds"] / found["store all"]["steps"]
    lines = [
        "# Gradient of a long trial",
        "",
        f"N = 128 QIF, batch {BATCH}, Euler steps of {DT} ms, float32, input streamed. {processor()}, "
        f"{options.threads} threads, torch {torch.__version__}, {date.today()}, median of {options.repeats}. "
        "Written by `benchmarks/long_trial.py`.",
        "",
        "| kept | steps | s | µs per step | time per step / store all | steps run again, per step | peak MB above start |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, row in found.items():
        per_step = row["seconds"] / row["steps"]
        lines.append(
            f"| {case} | {row['steps']:,.0f} | {row['seconds']:.2f} | {per_step * 1e6:.1f} | {per_step / base:.2f} "
            f"| {row['again']:.2f} | {row['peak_mb']:.0f} |"
        )
    table = "\n".join([*lines, ""])
    print(table)
    if options.write:
        RESULTS.write_text(table)


if __name__ == "__main__":
    main()

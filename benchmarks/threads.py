"""Training on one thread, on two, and in two processes, of an idle machine and of one that is busy.

    python benchmarks/threads.py [--rounds 10] [--iterations 60] [--write]

The delayed XOR with gated synapses (`experiments/delayed_xor.py`), with few trials for evaluation: seconds of training as the
run itself counts them, without start and evaluations. "Busy" is another process that computes all the time on one of two cores.
Runs alternate between the ways; the table has medians and the spread. Two trainings at once, which have nothing to do with
each other, show what two cores are worth beside one: those that share a cache, a memory or a core are worth less than two.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import torch

import adjsnn
from adjsnn.numerics.machine import processor

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PYTHON = (sys.executable,)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
APART = "two trainings at once"
WAYS = {"one thread": (PYTHON, 1), "two threads": (PYTHON, 2), "two processes (torchrun)": (TORCHRUN, 1), APART: (PYTHON, 1)}
STATES = {"idle": tuple(WAYS), "busy": ("one thread", "two threads")}


@contextmanager
def state(name: str) -> Iterator[None]:
    """The machine idle, or with one more process that computes all the time."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if name == "busy" else None
    try:
        yield
    finally:
        if other is not None:
            other.kill()
            other.wait()


def seconds(way: str, iterations: int) -> float:
    """Of training; of two at once the mean."""
    with ThreadPoolExecutor() as pool:
        return statistics.mean(pool.map(lambda _: _seconds(way, iterations), range(2 if way == APART else 1)))


def _seconds(way: str, iterations: int) -> float:
    """Of training, in a process of its own."""
    launch, threads = WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        command = [*launch, str(ROOT / "experiments" / "delayed_xor.py"), "--network", "gated", "--runs", folder]
        command += ["--iterations", str(iterations), "--log-every", str(iterations), "--threads", str(threads)]
        command += ["--validation-trials", "20", "--held-out-trials", "20"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} if launch is TORCHRUN else None
        subprocess.run(command, check=True, capture_output=True, env=environment)
        metrics = [path for path in Path(folder).rglob("metrics.csv") if "checkpoints" not in path.parts]
        with metrics[0].open() as file:
            return max(float(row["seconds"]) for row in csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description="Training on one thread, on two, and in two processes.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/results, which git keeps")
    options = parser.parse_args()
    found: dict[tuple[str, str], list[float]] = {(name, way): [] for name, ways in STATES.items() for way in ways}
    for name, ways in STATES.items():
        with state(name):
            for _ in range(options.rounds):
                for way in ways:
                    found[name, way].append(seconds(way, options.iterations))
    table = report(found, options.iterations)
    print(table)
    if options.write:
        (RESULTS / "threads.md").write_text(table)


def report(found: dict[tuple[str, str], list[float]], iterations: int) -> str:
    runs = len(found["idle", "one thread"])
    lines = [
        "# Threads and processes of a training",
        "",
        f"Delayed XOR with gated synapses, {iterations} steps of 64 trials, {runs} runs each, in alternation. {processor()}, "
        f"torch {torch.__version__}, adjsnn {adjsnn.__version__}, {date.today()}. Written by `benchmarks/threads.py`.",
        "",
        "| machine | way | median s | fastest s | slowest s | median / one thread | slowest / one thread |",
        "|---|---|---|---|---|---|---|",
    ]
    for (name, way), times in found.items():
        one = statistics.median(found[name, "one thread"])
        lines.append(
            f"| {name} | {way} | {statistics.median(times):.2f} | {min(times):.2f} | {max(times):.2f} "
            f"| {statistics.median(times) / one:.2f} | {max(times) / one:.2f} |"
        )
    alone, apart = (statistics.median(found["idle", way]) for way in ("one thread", APART))
    lines += [
        "",
        f"Two cores did {2 * alone / apart:.2f} times the work of one in trainings that have nothing to do with each other.",
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()

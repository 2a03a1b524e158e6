"""Run an experiment with several seeds and write the table of what each reached.

    python experiments/seeds.py --seeds 5

trains predictive coding from that many random starts, two at a time, and writes experiments/RESULTS.md.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import mean, stdev

import torch
import tyro

from adjsnn.training.runs import processor

HERE = Path(__file__).parent
COLUMNS = {
    "cost": ("cost / silent", ".4f"),
    "spikes_per_s": ("spikes/s per neuron", ".1f"),
    "corr_rec": ("corr(W_rec, -W_in W_out)", ".3f"),
    "corr_in_out": ("corr(W_out, W_inᵀ)", ".3f"),
    "seconds": ("training s", ".0f"),
}


@dataclass(frozen=True)
class Config:
    """Seeds 0, 1, … of predictive coding."""

    seeds: int = 5
    parallel: int = 2
    """processes at a time, one thread each"""
    runs: Path = Path("runs")


def one(seed: int, runs: Path) -> dict[str, float]:
    """Train with one seed; the numbers of its summary.json."""
    root = runs / f"seed-{seed}"
    command = [sys.executable, str(HERE / "predictive_coding.py"), "--seed", str(seed), "--runs", str(root)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise SystemExit(f"seed {seed} failed:\n{found.stderr}")
    newest = max((root / "predictive_coding").iterdir())
    summary = json.loads((newest / "summary.json").read_text())
    return {**summary["held_out"], "seconds": summary["training_seconds"], "iterations": summary["iterations"]}


def table(rows: list[dict[str, float]], parallel: int) -> str:
    lines = [
        "# Results",
        "",
        "## Predictive coding, 30 NIF neurons, from a random start, on held-out signals",
        "",
        f"DiscreteAdjoint, {rows[0]['iterations']:.0f} iterations of 32 trials of 100 ms. {processor()}, "
        f"{parallel} runs at a time, one thread each; torch {torch.__version__}; {date.today()}. "
        "Written by `experiments/seeds.py`.",
        "",
        "| seed | " + " | ".join(label for label, _ in COLUMNS.values()) + " |",
        "|" + "---|" * (len(COLUMNS) + 1),
    ]
    for seed, row in enumerate(rows):
        lines.append(f"| {seed} | " + " | ".join(format(row[name], form) for name, (_, form) in COLUMNS.items()) + " |")
    if len(rows) > 1:
        spread = [
            f"{mean(row[name] for row in rows):{form}} ± {stdev(row[name] for row in rows):{form}}"
            for name, (_, form) in COLUMNS.items()
        ]
        lines.append("| mean ± sd | " + " | ".join(spread) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    config = tyro.cli(Config)
    with ThreadPoolExecutor(config.parallel) as pool:
        rows = list(pool.map(lambda seed: one(seed, config.runs), range(config.seeds)))
    text = table(rows, config.parallel)
    (HERE / "RESULTS.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

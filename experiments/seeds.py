"""Run an experiment with several seeds and write the table of what each reached.

    python experiments/seeds.py                                       predictive coding
    python experiments/seeds.py --experiment yin_yang
    python experiments/seeds.py --experiment yin_yang --flags="--learn weights delays"

trains from that many random starts and writes the table into its section of experiments/RESULTS.md.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from adjsnn.training.runs import processor

HERE = Path(__file__).parent
Row = dict[str, float]


@dataclass(frozen=True)
class Columns:
    """A table of an experiment: its title, what was trained, and label and format of each number of a summary.json."""

    title: str
    about: Callable[[dict[str, Any]], str]
    numbers: dict[str, tuple[str, str]]


TABLES = {
    "predictive_coding": Columns(
        "Predictive coding, 30 NIF neurons, from a random start, on held-out signals",
        lambda summary: f"DiscreteAdjoint, {summary['iterations']} iterations of 32 trials of 100 ms.",
        {
            "cost": ("cost / silent", ".4f"),
            "spikes_per_s": ("spikes/s per neuron", ".1f"),
            "corr_rec": ("corr(W_rec, -W_in W_out)", ".3f"),
            "corr_in_out": ("corr(W_out, W_inᵀ)", ".3f"),
            "training_seconds": ("training s", ".0f"),
        },
    ),
    "yin_yang": Columns(
        "Yin-Yang, LIF neurons with jumps, 1000 held-out points",
        lambda summary: (
            f"EventAdjoint, 5-{summary['hidden']}-3, {summary['epochs']} epochs of 5000 points. The network kept is the one "
            "best on 1000 other points, which also say when 95 and 98 % were reached; nan: not."
        ),
        {
            "accuracy": ("accuracy", ".4f"),
            "hidden_spikes": ("spikes per hidden neuron", ".2f"),
            "seconds_to_95": ("s to 95 %", ".1f"),
            "seconds_to_98": ("s to 98 %", ".1f"),
            "seconds": ("training s", ".0f"),
        },
    ),
}


@dataclass(frozen=True)
class Config:
    """Seeds 0, 1, … of an experiment."""

    experiment: Literal["predictive_coding", "yin_yang"] = "predictive_coding"
    flags: str = ""
    """further flags of the experiment"""
    seeds: int = 5
    parallel: int = 2
    """processes at a time"""
    threads: int = 1
    """of each"""
    runs: Path = Path("runs")


def one(seed: int, config: Config) -> dict[str, Any]:
    """Train with one seed; its summary.json."""
    root = config.runs / f"seed-{seed}"
    script = HERE / f"{config.experiment}.py"
    command = [sys.executable, str(script), "--seed", str(seed), "--runs", str(root)]
    command += ["--threads", str(config.threads), *shlex.split(config.flags)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise SystemExit(f"seed {seed} failed:\n{found.stderr}")
    newest = max((root / config.experiment).iterdir())
    return json.loads((newest / "summary.json").read_text())


def flat(summary: dict[str, Any]) -> Row:
    """All numbers of a summary, by their own names."""
    return {**summary["held_out"], **summary.get("training", {}), **{k: v for k, v in summary.items() if isinstance(v, float)}}


def section(summaries: list[dict[str, Any]], config: Config) -> tuple[str, str]:
    """Title and text of the section."""
    table, rows = TABLES[config.experiment], [flat(summary) for summary in summaries]
    title = table.title + (f", `{config.flags}`" if config.flags else "")
    lines = [
        f"{table.about(summaries[0])} {processor()}, {config.parallel} runs at a time, {config.threads} thread(s) each; "
        f"torch {torch.__version__}; {date.today()}. Written by `experiments/seeds.py`.",
        "",
        "| seed | " + " | ".join(label for label, _ in table.numbers.values()) + " |",
        "|" + "---|" * (len(table.numbers) + 1),
    ]
    for seed, row in enumerate(rows):
        lines.append(f"| {seed} | " + " | ".join(format(row[name], form) for name, (_, form) in table.numbers.items()) + " |")
    if len(rows) > 1:
        spread = [
            f"{np.mean([row[name] for row in rows]):{form}} ± {np.std([row[name] for row in rows], ddof=1):{form}}"
            for name, (_, form) in table.numbers.items()
        ]
        lines.append("| mean ± sd | " + " | ".join(spread) + " |")
    return title, "\n".join(lines) + "\n"


def put(text: str, title: str, body: str) -> str:
    """RESULTS.md with a section replaced, or added at the end."""
    parts = re.split(r"^## ", text or "# Results\n\n", flags=re.MULTILINE)
    kept = {part.split("\n", 1)[0]: part for part in parts[1:]}
    kept[title] = f"{title}\n\n{body}\n"
    return parts[0] + "".join(f"## {part.rstrip()}\n\n" for part in kept.values()).rstrip() + "\n"


def main() -> None:
    config = tyro.cli(Config)
    with ThreadPoolExecutor(config.parallel) as pool:
        summaries = list(pool.map(partial(one, config=config), range(config.seeds)))
    title, body = section(summaries, config)
    path = HERE / "RESULTS.md"
    path.write_text(put(path.read_text() if path.exists() else "", title, body))
    print(f"## {title}\n\n{body}")


if __name__ == "__main__":
    main()

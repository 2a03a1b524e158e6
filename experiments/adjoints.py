"""The same training by several adjoints: are the curves the same, and what does each cost?

    python experiments/adjoints.py

trains delayed-memory XOR for some steps in float64 by the discrete adjoint, by backpropagation through the same steps, and by
the continuous adjoint of RK4 steps in the charge form, each in a process of its own. Runs and table go into a folder
runs/adjoints/<utc>. With --page experiments/RESULTS.md the table becomes a section of that page.
"""

import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

import adjsnn
from adjsnn.training.compare import Finished, finished, table
from adjsnn.training.files import read_metrics
from adjsnn.training.ranges import Count, Positive, Threads, check_ranges
from adjsnn.training.results import add_section

# isort: split
import tyro  # after adjsnn.training, which says what to install

HERE = Path(__file__).parent
TITLE = "Adjoints side by side"
NAMES = {"discrete": "discrete adjoint", "bptt": "BPTT", "continuous": "continuous adjoint, RK4 in the charge form"}


@dataclass(frozen=True)
class Config:
    """Adjoints side by side, on delayed-memory XOR with gated synapses."""

    iterations: Count = 20
    batch: Count = 64
    dt: Positive = 0.25
    threads: Threads = 1
    flags: str = ""
    """further flags of every training"""
    runs: Path = Path("runs")
    """where the folder is made"""
    page: Path | None = None
    """a page of results to put the table into"""


def train(adjoint: str, config: Config, root: Path) -> Finished:
    """One training in a process of its own.

    Raises:
        ConfigurationError: it failed.
    """
    options = {"adjoint": adjoint, "iterations": config.iterations, "batch": config.batch, "dt": config.dt}
    fixed = {"dtype": "float64", "log-every": 1, "save-every": 1000, "threads": config.threads}
    fixed |= {"validation-trials": 8, "held-out-trials": 8}
    flags = {**options, **fixed, "device": "cpu", "runs": root / adjoint}
    command = [sys.executable, str(HERE / "delayed_xor.py"), *(str(x) for name, x in flags.items() for x in (f"--{name}", x))]
    done = subprocess.run([*command, *shlex.split(config.flags)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise adjsnn.ConfigurationError(
            f"{adjoint} failed: {(done.stderr.strip() or 'no word').splitlines()[-1]}", "a training", "other flags"
        )
    (run,) = finished([root / adjoint])
    return run


def steps_shown(iterations: int) -> list[int]:
    """Numbers of steps after which the curves are compared."""
    return sorted({step for step in (1, 5, 10) if step < iterations} | {iterations})


def told(runs: dict[str, Finished], config: Config) -> str:
    """The table, and how it came about."""
    curves = {adjoint: np.array(read_metrics(run.path)["train_cost"][1:]) for adjoint, run in runs.items()}
    rows, steps = {}, steps_shown(config.iterations)
    for adjoint, run in runs.items():
        apart = np.abs(curves[adjoint] / curves["discrete"] - 1.0)
        cells = [f"{apart[:step].max():.1e}" if adjoint != "discrete" else "" for step in steps]
        rows[NAMES[adjoint]] = [f"{run.numbers['seconds'] / config.iterations:.3f}", f"{run.numbers['peak_mb']:.0f}", *cells]
    versions = runs["discrete"].summary["versions"]
    others = f" {config.flags}" if config.flags else ""
    heads = [f"curve apart, {step} step{'s' * (step > 1)}" for step in steps]
    return (
        f"`python experiments/adjoints.py{others}`: delayed-memory XOR with gated QIF neurons, {config.iterations} steps of "
        f"{config.batch} trials, dt {config.dt:g} ms, float64; each in a process of its own. "
        f"{versions['machine']}, {config.threads} thread(s); torch {versions['torch']}; {date.today()}. "
        "Peak memory is the whole process's, evaluations included. Curves apart: largest relative "
        "difference of the training cost from the discrete adjoint's; rounding grows as training goes on.\n\n"
        + table(rows, "adjoint", ["s per training step", "peak MB", *heads])
    )


def main(argv: list[str] | None = None) -> int:
    config = tyro.cli(Config, args=argv)
    try:
        check_ranges(config)
        root = config.runs / "adjoints" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S-%f")
        text = told({adjoint: train(adjoint, config, root) for adjoint in NAMES}, config)
        (root / "adjoints.md").write_text(f"# {TITLE}\n\n{text}\n")
        if config.page is not None:
            add_section(config.page, TITLE, text)
    except (adjsnn.AdjsnnError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{text}\n\n{config.page or root / 'adjoints.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

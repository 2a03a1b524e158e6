"""The same training by several adjoints: are the curves the same, and what does each cost?

    python experiments/adjoints.py

trains delayed-memory XOR for some steps in float64 by the discrete adjoint, by backpropagation through the same steps, and by
the continuous adjoint of RK4 steps in the charge form, each in a process of its own. The table goes into RESULTS.md.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import tyro

from adjsnn.training.compare import Finished, finished, table
from adjsnn.training.results import add_section
from adjsnn.training.runs import read_metrics

HERE = Path(__file__).parent
NAMES = {"discrete": "discrete adjoint", "bptt": "BPTT", "continuous": "continuous adjoint, RK4 in the charge form"}


@dataclass(frozen=True)
class Config:
    """Adjoints side by side, on delayed-memory XOR with gated synapses."""

    iterations: int = 20
    batch: int = 64
    dt: float = 0.25
    threads: int = 1
    page: Path = HERE / "RESULTS.md"


def train(adjoint: str, config: Config, root: Path) -> Finished:
    options = {"adjoint": adjoint, "iterations": config.iterations, "batch": config.batch, "dt": config.dt}
    fixed = {"dtype": "float64", "log-every": 1, "save-every": 1000, "threads": config.threads}
    fixed |= {"validation-trials": 8, "held-out-trials": 8}
    flags = {**options, **fixed, "device": "cpu", "runs": root / adjoint}
    command = [sys.executable, str(HERE / "delayed_xor.py"), *(str(x) for name, x in flags.items() for x in (f"--{name}", x))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{adjoint} failed:\n{done.stderr}")
    (run,) = finished([root / adjoint])
    return run


def main() -> None:
    config = tyro.cli(Config)
    with tempfile.TemporaryDirectory() as folder:
        runs = {adjoint: train(adjoint, config, Path(folder)) for adjoint in NAMES}
        curves = {adjoint: np.array(read_metrics(run.path)["train_cost"][1:]) for adjoint, run in runs.items()}
    rows, steps = {}, (1, 5, 10, config.iterations)
    for adjoint, run in runs.items():
        apart = np.abs(curves[adjoint] / curves["discrete"] - 1.0)
        told = [f"{apart[:step].max():.1e}" if adjoint != "discrete" else "" for step in steps]
        rows[NAMES[adjoint]] = [f"{run.numbers['seconds'] / config.iterations:.3f}", f"{run.numbers['peak_mb']:.0f}", *told]
    versions = runs["discrete"].summary["versions"]
    text = (
        f"`python experiments/adjoints.py`: delayed-memory XOR with gated QIF neurons, {config.iterations} steps of "
        f"{config.batch} trials, dt {config.dt:g} ms, float64; each in a process of its own. "
        f"{versions['machine']}, {config.threads} thread(s); torch {versions['torch']}; {date.today()}. "
        "Peak memory is the whole process's, evaluations included. Curves apart: largest relative "
        "difference of the training cost from the discrete adjoint's; rounding grows as training goes on.\n\n"
        + table(rows, "adjoint", ["s per training step", "peak MB", *(f"curve apart, {step} steps" for step in steps)])
    )
    add_section(config.page, "Adjoints side by side", text)
    print(text)


if __name__ == "__main__":
    main()

"""adjsnn beside other libraries: the same work, each in an environment of its own, ratios within one run.

    python benchmarks/peers.py [--only lif,balls] [--peers jaxsnn,diffrax] [--rounds 7] [--threads 1] [--write]

For each problem adjsnn writes weights, inputs and settings into a file. A process for each library reads it, knows nothing of
adjsnn, and stays alive (`peers/protocol.py`). After a first call, which builds and compiles, and one more, they take turns, one
gradient each, in an order that is reversed from round to round. Gradients are compared with adjsnn's in float64.

Environments are made when they are first needed, with the versions that `peers/rows.py` pins, in --environments, and used
again; all together they take some 10 GB. Some need PyTorch, for which PyPI has a build with CUDA of several gigabytes on
Linux: let pip find one for the CPU (PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS) if that is too much. What cannot be installed or
fails has a row that says why.
"""

import argparse
import hashlib
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

import adjsnn
from adjsnn.gradcheck import report, verdict
from adjsnn.training.runs import processor

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE / "peers"
RESULTS = HERE / "results"
sys.path.insert(0, str(SCRIPTS))

from rows import PROBLEMS, ROWS, Problem, Row  # noqa: E402 - from the folder named above

LIMIT = 900.0  # s, for one answer
ENOUGH = 90.0  # s, after which a library takes no part in further rounds
Results = dict[str, np.ndarray]


class Failed(Exception):
    """Why there is no number."""


def environment(packages: Sequence[str], folder: Path) -> Path:
    """The Python of an environment that holds these packages, made now if there is none."""
    if not packages:
        return Path(sys.executable)
    name = packages[0].partition("==")[0] + "-" + hashlib.sha256(repr((packages, sys.version)).encode()).hexdigest()[:8]
    place = folder / name
    python, ready = place / "bin" / "python", place / "ready"
    if not ready.exists():
        print(f"installing {' '.join(packages)} in {place}", file=sys.stderr, flush=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", *packages]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"not installed: {last_line(done.stderr)}")
        ready.write_text(" ".join(packages))
    return python


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no message"])[-1]


class Worker:
    """A process that serves one library's gradients of one problem."""

    def __init__(self, python: Path, row: Row, case: Path, dtype: str, threads: int, extra: dict[str, Any]) -> None:
        self.name, self.log = row.library, tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        number = str(threads)
        limits: dict[str, str] = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"), number)
        if threads == 1:
            limits["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        path = str(HERE.parent) if not row.packages else ""  # adjsnn is seen by its own side alone
        command = [python, SCRIPTS / row.script, "--case", case, "--dtype", dtype, "--threads", number]
        self.process = subprocess.Popen(
            [*map(str, command), "--options", json.dumps(row.options | extra)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=os.environ | limits | {"PYTHONPATH": path},
        )  # fmt: skip
        self.version = str(self.answer()["version"])

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = ""
        if select.select([self.process.stdout], [], [], LIMIT)[0]:
            line = self.process.stdout.readline()
            if not line:
                self.process.wait()
                self.log.seek(0)
                raise Failed(f"stopped: {last_line(self.log.read())}")
        else:
            raise Failed(f"no answer in {LIMIT:.0f} s")
        found = json.loads(line)
        if "error" in found:
            raise Failed(found["error"])
        return found

    def ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.answer()

    def results(self, file: Path) -> Results:
        self.ask(f"save {file}")
        with np.load(file) as arrays:
            return dict(arrays)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Measured:
    """One row while it is measured."""

    def __init__(self, row: Row) -> None:
        self.row, self.worker, self.version, self.failure = row, None, "", ""
        self.first, self.ms, self.cpu_ms = 0.0, [], []
        self.off, self.forward = "", ""

    worker: Worker | None
    ms: list[float]
    cpu_ms: list[float]

    def fail(self, why: Exception) -> None:
        self.failure = str(why)
        if self.worker is not None:
            self.worker.close()
            self.worker = None

    def take_turn(self) -> None:
        if self.worker is None or sum(self.ms) > 1e3 * ENOUGH:
            return
        try:
            found = self.worker.ask("run")
        except Failed as why:
            self.fail(why)
            return
        self.ms.append(found["ms"])
        self.cpu_ms.append(found["cpu_ms"])


def relative(found: Results, exact: Results) -> float | None:
    """Largest relative distance of the derivatives in both; of the first samples where `found` has no more than these."""
    distances = []
    for name, value in found.items():
        if name.startswith("d_"):
            expected = exact[name][: len(value)] if value.ndim else exact[name]
            distances.append(report.relative(*(torch.as_tensor(np.asarray(x)) for x in (value, expected)), floor=0.0))
    return max(distances, default=None)


def beside(found: Results, exact: Results) -> str:
    """What the forward run found, beside adjsnn's in float64."""
    if "counts" in found:
        both = (found, exact)
        first, counts = ([torch.as_tensor(np.asarray(x[key])) for x in both] for key in ("first", "counts"))
        errors = verdict.spike_errors(first[0].unsqueeze(2), first[1].unsqueeze(2), *counts)
        told = (
            f"{errors.spikes} output spikes, adjsnn {errors.exact}; another number in {errors.miscounted} of {errors.neurons} "
            "neurons"
        )
        if np.isnan(errors.median):
            return f"{told}; none spikes in both"
        return f"{told}; first spikes off by {errors.median:.1g} ms (median), {errors.largest:.1g} (largest)"
    if "events" in found and found["events"].any():
        part = len(found["events"])
        total, ours = int(found["events"].sum()), int(exact["events"][:part].sum())
        return f"{total} events, adjsnn {ours}; last states off by {np.abs(found['y'] - exact['y'][:part]).max():.1g}"
    if "y" in found:
        return f"last states off by {np.abs(found['y'] - exact['y'][: len(found['y'])]).max():.1g}"
    return ""


def measure(name: str, rows: Sequence[Row], options: argparse.Namespace, folder: Path) -> tuple[list[Measured], dict[str, Any]]:
    """All rows of a problem, adjsnn's first, and the numbers of its file."""
    problem, small = PROBLEMS[name], {"small": True} if options.small else {}
    ours = Row("adjsnn", "adjsnn_side.py", name, (), problem.ours, {"problem": name})

    def start(row: Row, dtype: str) -> Worker:
        python = environment(row.packages, options.environments)
        own = "" if row is ours or row.packages else "-forward"  # adjsnn's side writes its file
        return Worker(python, row, folder / f"{name}-{dtype}{own}.npz", dtype, options.threads, small)

    judge = start(ours, "float64")
    judge.ask("run")
    exact = judge.results(folder / "exact.npz")
    judge.close()
    measured = [Measured(row) for row in (ours, *rows)]
    for one in measured:
        row = one.row
        try:
            one.worker = start(row, problem.dtype)
            one.version = one.worker.version
            one.first = one.worker.ask("run")["ms"] / 1e3
            found = one.worker.results(folder / "found.npz")
            one.worker.ask("run")
            if row is not ours:
                if problem.dtype != "float64" and not row.why_not:
                    other = start(row, "float64")
                    try:
                        other.ask("run")
                        found = other.results(folder / "found.npz")
                    finally:
                        other.close()
                distance = relative(found, exact)
                one.off = row.why_not if distance is None else f"{distance:.1e}{row.only}"
                one.forward = beside(found, exact)
        except Failed as why:
            one.fail(why)
        print(
            f"{name}: {row.library}, {row.what}: {one.failure or f'first call {one.first:.1f} s'}", file=sys.stderr, flush=True
        )
    for k in range(options.rounds):
        for one in measured if k % 2 == 0 else measured[::-1]:
            one.take_turn()
    for one in measured:
        if one.worker is not None:
            one.worker.close()
    with np.load(folder / f"{name}-{problem.dtype}.npz") as case:
        return measured, {key: case[key] for key in ("samples", "spikes") if key in case}


def table(problem: Problem, measured: Sequence[Measured], case: dict[str, Any]) -> list[str]:
    spikes = int(case["spikes"][1:].sum()) if "spikes" in case else 0
    heads = ["library", "what it computes", "first call s", "median ms", "runs", "cores", "time / adjsnn"]
    heads += ["µs per spike"] if spikes else []
    heads += ["gradient off by", "forward run"]
    count = f" adjsnn finds {case['spikes'][1]} hidden and {case['spikes'][2]} output spikes." if spikes else ""
    lines = [f"## {problem.title}", "", problem.text + count, "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    if measured[0].failure:
        raise Failed(f"adjsnn itself: {measured[0].failure}")
    base = statistics.median(measured[0].ms)
    for one in measured:
        row, total = one.row, int(case["samples"])
        part = min(row.options.get("samples", total), total)
        what = row.what + (f"; {part} of {total} samples, times × {total / part:g}" if part < total else "")
        cells = [one.version or " ".join(row.packages[:1]).replace("==", " "), what]
        if one.ms and not one.failure:
            median = statistics.median(one.ms) * total / part
            cells += [f"{one.first:.1f}", f"{median:.1f}", str(len(one.ms)), f"{sum(one.cpu_ms) / sum(one.ms):.1f}"]
            cells += [f"{median / base:.2f}"] + ([f"{1e3 * median / spikes:.2f}"] if spikes else [])
            cells += [one.off or "-", one.forward or "-"]
        else:
            cells += ["-"] * (len(heads) - 3) + [one.failure or "no round was run"]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of each library")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help=f"problems, with commas between: {', '.join(PROBLEMS)}")
    parser.add_argument("--peers", default="", help="libraries, with commas between")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adjsnn-peers"
    parser.add_argument("--environments", type=Path, default=cache, help="a folder for them; default %(default)s")
    parser.add_argument("--small", action="store_true", help="few samples and units, to see that all works")
    parser.add_argument(
        "--write",
        action="store_true",
        help="put the tables into benchmarks/results, which git keeps; with --only into a page of their own",
    )
    options = parser.parse_args(argv)
    options.only = [name for name in options.only.split(",") if name] or list(PROBLEMS)
    libraries = {row.library for row in ROWS}
    options.libraries = {name for name in options.peers.split(",") if name} or libraries
    unknown = {*options.only} - {*PROBLEMS} | options.libraries - libraries
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))} among {', '.join((*PROBLEMS, *sorted(libraries)))}")
    if options.write and (options.small or options.peers):
        parser.error("--write is for all libraries in full")
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads are 1 or more")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = parsed(argv)
    threads = f"{options.threads} thread{'s' if options.threads > 1 else ''}"
    lines = [
        "# adjsnn beside other libraries",
        "",
        f"Forward run and gradient. {processor()}, {threads} for each library, Python {sys.version.split()[0]}, "
        f"torch {torch.__version__}, adjsnn {adjsnn.__version__}, {options.rounds} rounds, {date.today()}. Written by "
        "`benchmarks/peers.py`, which says how.",
        "",
        "The first call builds and compiles, but loops of adjsnn that are on disk already are not compiled again. Cores are "
        "seconds of the processor per second. A gradient is off by the largest relative distance of its parts from adjsnn's, "
        "in float64. "
        f"What has run for {ENOUGH:.0f} s takes no part in further rounds.",
        "",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            rows = [row for row in ROWS if row.problem == name and row.library in options.libraries]
            lines += table(PROBLEMS[name], *measure(name, rows, options, Path(folder)))
    page = "\n".join(lines)
    print(page)
    if options.write:
        some = "" if options.only == list(PROBLEMS) else "_" + "_".join(options.only)
        (RESULTS / f"peers{some}.md").write_text(page)


if __name__ == "__main__":
    main()

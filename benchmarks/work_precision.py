"""Work and precision of gradients of a smooth leaky network, and what a leak does to adjoints that integrate backward.

    python benchmarks/work_precision.py [--repeats 5]

Work–precision: 32 units, batch 8, T/τ = 20, gradient by every parameter and y0, float64, one thread. Each method runs at a
series of steps or tolerances with each adjoint, and beside them torchdiffeq's odeint_adjoint; the error is against dopri5 at
1e-12 with the discrete adjoint, the time the median of forward and gradient together. Leak: the same network with the trial
from 5 to 200 time constants, at one tolerance. torchdiffeq goes on from the solution's own state at every output time, one each
time constant, where Backsolve keeps the state it reconstructed.

Both tables have two losses, half the sum and half the mean of all squared outputs. Their gradients differ by a factor only, so
an error that differed between them would come from an absolute tolerance of the costate that does not know the loss's size.
"""

import argparse
import statistics
import time
import warnings
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

import adjsnn
from adjsnn.gradcheck.built_in import LeakyNetwork, initial_states
from adjsnn.training.runs import processor

UNITS, BATCH, TAU = 32, 8, 10.0  # TAU in ms
SPAN, OUTPUTS = 20, 20  # trial in time constants, output times, one each time constant
TRIALS = (5, 10, 15, 20, 40, 100, 200)
LEAK_TOLERANCE = 1e-8
REFERENCE = {"method": "dopri5", "rtol": 1e-12, "atol": 1e-12, "max_steps": 1_000_000}
HERE = Path(__file__).parent
RESULTS, LEAK = HERE / "results" / "work_precision.md", HERE / "results" / "leak.md"
PICTURE = HERE.parent / "docs" / "work_precision.png"
STEPS = {"heun": (2, 4, 8, 16, 32, 64), "rk4": (1, 2, 4, 8, 16, 32)}  # between output times
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
ADJOINTS = ("DiscreteAdjoint", "ContinuousAdjoint", "Backsolve")
STYLES = {  # colour by adjoint, marker too, so that a grey print still tells them apart
    "DiscreteAdjoint": ("#0072B2", "o", "-"),
    "ContinuousAdjoint": ("#D55E00", "s", "--"),
    "Backsolve": ("#009E73", "^", ":"),
    "odeint_adjoint": ("#222222", "x", "-."),
}
METHODS = ("heun", "rk4", "dopri5", "tsit5")


@dataclass(frozen=True)
class Point:
    """One run: step (ms) or tolerance, relative gradient errors for the sum and the mean, seconds, whether Backsolve warned."""

    method: str
    adjoint: str
    size: float
    error: float
    error_of_mean: float
    seconds: float
    warned: bool


class Problem:
    """The network, its output times over `span` time constants, and the gradient of its loss."""

    def __init__(self, span: int) -> None:
        self.system, self.y0 = LeakyNetwork(UNITS, TAU), initial_states(BATCH, UNITS).requires_grad_()
        self.ts = torch.linspace(0.0, span * TAU, span * OUTPUTS // SPAN + 1, dtype=torch.float64)
        self.truth = self.gradient(**REFERENCE)

    @property
    def outputs(self) -> int:
        """Number of output values, the factor between the two losses."""
        return len(self.ts) * self.y0.numel()

    def gradient(self, *, mean: bool = False, **options: Any) -> Tensor:
        """dC/d(parameters, y0) as one vector, C half the sum, or half the mean, of squares of all output states; a mean's
        gradient
        is multiplied by the number of outputs, so that both are to be the same.
        """
        y = adjsnn.solve(self.system, ts=self.ts, y0=self.y0, **options).y
        loss = 0.5 * (y.square().mean() if mean else y.square().sum())
        found = torch.autograd.grad(loss, [*self.system.parameters(), self.y0])
        return torch.cat([x.flatten() for x in found]) * (self.outputs if mean else 1)

    def error(self, **options: Any) -> float:
        """Relative error of the gradient."""
        return float((self.gradient(**options) - self.truth).norm() / self.truth.norm())

    def run(self, method: str, adjoint: str, size: float, options: dict[str, Any], repeats: int) -> Point:
        """Measure one point: once for the error, which also loads what there is to load, then for the time."""
        options = {"method": method, "adjoint": build(adjoint, method)} | options
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", adjsnn.BacksolveWarning)
            errors = self.error(**options), self.error(mean=True, **options)
            warned = any(issubclass(one.category, adjsnn.BacksolveWarning) for one in caught)
            seconds = [self._time(options) for _ in range(repeats)]
        return Point(method, adjoint, size, *errors, statistics.median(seconds) if seconds else float("nan"), warned)

    def _time(self, options: dict[str, Any]) -> float:
        start = time.perf_counter()
        self.gradient(**options)
        return time.perf_counter() - start


def build(adjoint: str, method: str) -> Any:
    """The adjoint, with the forward method where it integrates anew."""
    if adjoint == "DiscreteAdjoint":
        return adjsnn.DiscreteAdjoint()
    return adjsnn.ContinuousAdjoint(method=method) if adjoint == "ContinuousAdjoint" else adjsnn.Backsolve()


def work_precision(repeats: int) -> list[Point]:
    """All points of the picture."""
    problem, found = Problem(SPAN), []
    for method in METHODS:
        if method in STEPS:
            runs = [(SPAN * TAU / OUTPUTS / n, {"substeps": n}) for n in STEPS[method]]
        else:
            runs = [(tol, {"rtol": tol, "atol": tol, "max_steps": 1_000_000}) for tol in TOLERANCES]
        found += [problem.run(method, adjoint, *run, repeats) for adjoint in ADJOINTS for run in runs]
    for tol in TOLERANCES:
        one = problem.run("torchdiffeq:dopri5", "Backsolve", tol, {"rtol": tol, "atol": tol}, repeats)
        found.append(Point("dopri5", "odeint_adjoint", tol, one.error, one.error_of_mean, one.seconds, one.warned))
    return found


def leak() -> list[tuple[int, dict[str, Point]]]:
    """Gradient errors against the length of the trial, dopri5 at LEAK_TOLERANCE."""
    options, found = {"rtol": LEAK_TOLERANCE, "atol": LEAK_TOLERANCE, "max_steps": 1_000_000}, []
    for span in TRIALS:
        problem = Problem(span)
        row = {a: problem.run("dopri5", a, LEAK_TOLERANCE, options, 0) for a in ADJOINTS}
        few = {name: options[name] for name in ("rtol", "atol")}
        row["odeint_adjoint"] = problem.run("torchdiffeq:dopri5", "Backsolve", LEAK_TOLERANCE, few, 0)
        found.append((span, row))
    return found


def draw(points: list[Point]) -> None:
    """The picture: a panel for each method."""
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True).flatten()
    for axes, method in zip(panels, METHODS, strict=True):
        for adjoint, (colour, marker, line) in STYLES.items():
            rows = [p for p in points if (p.method, p.adjoint) == (method, adjoint)]
            if rows:
                label = "torchdiffeq odeint_adjoint" if adjoint == "odeint_adjoint" else adjoint
                times, errors = [p.seconds for p in rows], [p.error for p in rows]
                axes.loglog(times, errors, color=colour, marker=marker, ls=line, ms=4.5, lw=1.3, label=label)
        axes.set_title(f"{method}, {'fixed' if method in STEPS else 'adaptive'} steps", fontsize=9)
        axes.grid(alpha=0.3, lw=0.5)
        axes.axhline(1.0, color="#888888", lw=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    panels[0].annotate("no digit right", (0.98, 1.0), xycoords=("axes fraction", "data"), xytext=(0, 2),
                       textcoords="offset points", ha="right", fontsize=7, color="#666666")  # fmt: skip
    figure.supxlabel("forward and gradient (s)", fontsize=9)
    figure.supylabel("relative error of the gradient", fontsize=9)
    handles, labels = panels[2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(PICTURE, dpi=160)


def about(repeats: int | None) -> str:
    how = "" if repeats is None else f", median of {repeats}"
    return (
        f"{UNITS} leaky tanh units, τ = {TAU:g} ms, batch {BATCH}, float64; gradient of half the sum, or half the "
        f"mean, of squares of all outputs by all parameters and y0, against dopri5 at 1e-12. {processor()}, 1 thread, "
        f"torch {torch.__version__}, "
        f"torchdiffeq {version('torchdiffeq')}, "
        f"{date.today()}{how}. Written by `benchmarks/work_precision.py`."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Work and precision of gradients of a smooth leaky network.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--write", action="store_true", help="put tables and picture into benchmarks/results and docs, which git keeps"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    points = work_precision(options.repeats)
    lines = ["# Work and precision of gradients", "", f"T/τ = {SPAN}, an output every τ. {about(options.repeats)}", ""]
    lines += [
        "| method | adjoint | step (ms) or tolerance | relative gradient error, sum | the same, mean | s | Backsolve warned |",
        "|---|---|---|---|---|---|---|",
    ]
    for p in points:
        warned = "-" if p.adjoint != "Backsolve" else "yes" if p.warned else "no"
        lines.append(
            f"| {p.method} | {p.adjoint} | {p.size:.3g} | {p.error:.1e} | {p.error_of_mean:.1e} | {p.seconds:.4f} | {warned} |"
        )
    work = "\n".join([*lines, ""])
    lines = ["# What a leak does to gradients integrated backward", ""]
    lines += [f"dopri5 at {LEAK_TOLERANCE:g}, forward and backward. Relative gradient error. {about(None)}", ""]
    lines += ["torchdiffeq starts again from the kept state at each output time, one every τ; Backsolve does not.", ""]
    rows = leak()
    for title, pick in (("Half the sum of squares", "error"), ("Half the mean of squares", "error_of_mean")):
        heads = ["T/τ", *ADJOINTS, "Backsolve warned", "torchdiffeq odeint_adjoint"]
        lines += [f"## {title}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for span, found in rows:
            cells = [str(span), *(f"{getattr(found[a], pick):.1e}" for a in ADJOINTS)]
            cells += ["yes" if found["Backsolve"].warned else "no", f"{getattr(found['odeint_adjoint'], pick):.1e}"]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    leaks = "\n".join(lines)
    print(f"{work}\n{leaks}")
    if options.write:
        RESULTS.write_text(work)
        LEAK.write_text(leaks)
        draw(points)


if __name__ == "__main__":
    main()

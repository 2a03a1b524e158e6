"""How the error of a gradient falls with the step or the tolerance: the check for adjoints that approximate."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adjsnn.checks import Times, positive, times
from adjsnn.colours import COLOURS, INK
from adjsnn.errors import ConfigurationError
from adjsnn.gradcheck.hybrid import HybridProbe
from adjsnn.hybrid.adjoint import HybridChoice
from adjsnn.hybrid.system import HybridSystem
from adjsnn.numerics.tableaus import TABLEAUS

HALVINGS = (1, 2, 4, 8, 16)
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
REFERENCE = {"method": "dopri5", "rtol": 1e-12, "atol": 1e-12, "max_steps": 1_000_000}
FLOOR = 1e-11  # below it an error may be the reference's own, so it says nothing about a slope
MARKERS = ("o", "s", "^", "D")


@dataclass(frozen=True)
class Convergence:
    """Errors of one method and adjoint. str() is a table.

    Attributes:
        method: what was run.
        adjoint: what computed the gradients.
        quantity: "step" or "tolerance".
        sizes: the longest step of each run, ms, or its tolerance (relative and absolute), from coarse to fine.
        gradient_errors: ‖g - g_ref‖/‖g_ref‖ over all parameters and y0 together.
        loss_errors: |C - C_ref|/|C_ref|.
    """

    method: str
    adjoint: str
    quantity: str
    sizes: tuple[float, ...]
    gradient_errors: tuple[float, ...]
    loss_errors: tuple[float, ...]

    @property
    def slope(self) -> float:
        """Least-squares slope of log gradient error over log size, of errors above FLOOR; NaN where fewer than two are."""
        points = [(math.log(x), math.log(e)) for x, e in zip(self.sizes, self.gradient_errors, strict=True) if e > FLOOR]
        if len(points) < 2 or not all(math.isfinite(e) for _, e in points):
            return math.nan
        x, e = torch.tensor(points, dtype=torch.float64).T
        x = x - x.mean()
        return float((x * e).sum() / x.square().sum())

    def __str__(self) -> str:
        unit = "step (ms)" if self.quantity == "step" else "tolerance"
        head = f"{unit:>12}{'gradient error':>18}{'loss error':>14}"
        rows = zip(self.sizes, self.gradient_errors, self.loss_errors, strict=True)
        lines = [f"{size:>12.4g}{gradient:>18.2e}{loss:>14.2e}" for size, gradient, loss in rows]
        return "\n".join([f"{self.method}, {self.adjoint}: slope {self.slope:.2f}", head, "-" * len(head), *lines])

    def plot(self, path: str | Path) -> None:
        """Save a log–log picture of both errors. Needs matplotlib.

        Args:
            path: file to write; its ending says the format.
        """
        picture([self], path)


def convergence(
    system: HybridSystem,
    inputs: Any,
    loss: Callable[[Any], Tensor],
    *,
    adjoint: HybridChoice,
    reference: Mapping[str, Any] | None = None,
    dts: Times | None = None,
    tolerances: Times | None = None,
    **solve_kwargs: Any,
) -> Convergence:
    """Error of the gradient and of the loss against the step (fixed methods) or the tolerance (adaptive ones), in float64.

    Output times stay where dt or ts puts them, so that the loss is the same function in every run; steps are made shorter by
    substeps between them. The gradient is taken over all parameters that require one and y0.

    Args:
        system: a HybridSystem; a float64 copy is used.
        inputs: as in `solve`.
        loss: a scalar function of the solution.
        adjoint: the adjoint under test. One with a dt or tolerances of its own keeps them, and its errors with them.
        reference: arguments of `solve` for the reference; default dopri5 at 1e-12 with the discrete adjoint.
        dts: longest steps, ms, each the longest interval between output times over a whole number; default `substeps` 1, 2,
            4, 8 and 16.
        tolerances: relative and absolute ones, equal; default 1e-3 to 1e-9.
        solve_kwargs: dt or ts, method, y0, and what else `solve` takes.

    Raises:
        ConfigurationError: a gated network; arguments that do not fit the method, or that this function sets itself.
    """
    if not isinstance(system, HybridSystem):
        raise ConfigurationError(
            f"convergence of a {type(system).__name__}", "a HybridSystem", "adjsnn.ChargeForm(net) for a network of QIF neurons"
        )
    if own := [name for name in ("rtol", "atol", "substeps") if name in solve_kwargs]:
        raise ConfigurationError(f"{', '.join(own)} in convergence", "dts or tolerances, which set them", "leaving it out")
    method = solve_kwargs.get("method", "rk4")
    fixed = method in TABLEAUS and TABLEAUS[method].b_error is None
    if (tolerances if fixed else dts) is not None:
        wrong, right = ("tolerances", "dts") if fixed else ("dts", "tolerances")
        raise ConfigurationError(f"{wrong} with method={method!r}", f"{right}, which that method has", f"{right}=...")
    probe = HybridProbe(system, inputs, loss, solve_kwargs)
    probe.leaves.pop("u", None)
    if isinstance(probe.inputs, Tensor):
        probe.inputs.requires_grad_(False)
    if fixed:
        span = _longest_interval(solve_kwargs)
        counts = list(HALVINGS) if dts is None else [_substeps(span, dt) for dt in times("dts", dts).tolist()]
        runs = [(span / n, {"substeps": n}) for n in sorted(counts)]
    else:
        given = TOLERANCES if tolerances is None else times("tolerances", tolerances).tolist()
        runs = [(tol, {"rtol": tol, "atol": tol}) for tol in sorted(given, reverse=True)]
    true_loss, true = _evaluate(probe, None, dict(REFERENCE if reference is None else reference))
    gradient_errors, loss_errors = [], []
    for _, options in runs:
        value, gradient = _evaluate(probe, adjoint, options)
        gradient_errors.append(_over(float((gradient - true).norm()), float(true.norm())))
        loss_errors.append(_over(abs(value - true_loss), abs(true_loss)))
    return Convergence(
        method, type(adjoint).__name__, "step" if fixed else "tolerance",
        tuple(size for size, _ in runs), tuple(gradient_errors), tuple(loss_errors),
    )  # fmt: skip


def picture(found: Sequence[Convergence], path: str | Path) -> None:
    """Save the errors of several methods and adjoints, a panel each for steps and for tolerances. Needs matplotlib."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - not needed to check a gradient

    quantities = [quantity for quantity in ("step", "tolerance") if any(one.quantity == quantity for one in found)]
    figure = Figure(figsize=(4.2 * len(quantities), 3.4), layout="constrained")
    panels = figure.subplots(1, len(quantities), squeeze=False)[0]
    for axes, quantity in zip(panels, quantities, strict=True):
        for k, one in enumerate(one for one in found if one.quantity == quantity):
            colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
            label = f"gradient, {one.method}, {one.adjoint} (slope {one.slope:.1f})"
            axes.loglog(one.sizes, one.gradient_errors, color=colour, marker=marker, ms=4, lw=1.2, label=label)
            axes.loglog(one.sizes, one.loss_errors, color=colour, marker=marker, ms=3, mfc="white", lw=0.8, ls="--")
        axes.plot([], [], color=INK, lw=0.8, ls="--", label="loss")
        if quantity == "step":  # seldom a power of ten among them
            sizes = sorted({size for one in found if one.quantity == quantity for size in one.sizes})
            axes.set_xticks(sizes, [f"{size:.3g}" for size in sizes])
            axes.set_xticks([], minor=True)
        axes.set_xlabel("step (ms)" if quantity == "step" else "tolerance, relative and absolute")
        axes.set_ylabel("relative error")
        axes.grid(alpha=0.25, lw=0.5)
        axes.legend(fontsize=7, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=160)


def _evaluate(probe: HybridProbe, adjoint: HybridChoice | None, options: dict[str, Any]) -> tuple[float, Tensor]:
    """The loss, and the gradient of all leaves as one vector."""
    adjoint = options.pop("adjoint", adjoint)
    value, _, gradients = probe.gradients(adjoint, **options)
    return value, torch.cat([gradient.flatten() for gradient in gradients.values()])


def _longest_interval(solve_kwargs: dict[str, Any]) -> float:
    ts = solve_kwargs.get("ts")
    if ts is not None and len(row := times("ts", ts)) > 1:
        return float(row.diff().max())
    dt = solve_kwargs.get("dt")
    return positive("dt", dt, "a positive dt in ms, or output times ts", "dt=0.5")


def _substeps(span: float, dt: float) -> int:
    count = round(span / dt) if dt > 0.0 else 0
    # Steps are typed in decimals, which float64 holds to 1e-16: 1e-6 asks for what was meant, and no more.
    if count < 1 or abs(count * dt / span - 1.0) > 1e-6:
        raise ConfigurationError(
            f"a step of {dt:g} ms between output times {span:g} ms apart",
            "that distance over a whole number",
            f"dt={span / 2:g}",
        )
    return count


def _over(difference: float, size: float) -> float:
    return difference / size if size > 0.0 else difference

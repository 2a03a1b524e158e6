"""What a gradient check found: one row for each tensor, and the table."""

from dataclasses import dataclass

from torch import Tensor

BPTT_TOLERANCE = 1e-10  # the same program, so only the order of float64 sums differs
FORWARD_TOLERANCE = 1e-9  # the same derivative carried forward: another order, and directions that a long trial amplifies
PLAIN_TOLERANCE = 1e-9  # the same formulas in another order; rounding of a spike's time is 1/v̇ times that of v
FINITE_DIFFERENCE_TOLERANCE = 1e-6  # of the judge's own error, see probes.CONSISTENT, and some
NEGLIGIBLE = 1e-4  # share of the largest gradient below which a gradient is judged against that share: rounding is no error


@dataclass(frozen=True)
class GradcheckRow:
    """One tensor's verdict.

    Attributes:
        name: of the tensor.
        shape: of the tensor.
        norm: of its gradient.
        bptt: relative difference ‖g - g_BPTT‖/‖g_BPTT‖, None if not asked for; below NEGLIGIBLE times the largest gradient
            norm of all tensors, relative to that.
        finite_difference: the same over the probed entries, None if not asked for or nothing could be probed.
        probed: entries compared with central differences.
        skipped: entries given up because a spike moved to another step under every perturbation tried, or because no two step
            lengths agreed.
        forward: the same as bptt with forward sensitivities, None if not asked for.
        plain: the same as bptt with the other engine of LIF networks, None if not asked for.
    """

    name: str
    shape: tuple[int, ...]
    norm: float
    bptt: float | None
    finite_difference: float | None
    probed: int
    skipped: int
    forward: float | None = None
    plain: float | None = None

    def failures(self) -> list[str]:
        """What is above its tolerance, or was asked of central differences and could not be judged at all, in words."""
        verdicts = (
            ("BPTT", self.bptt, BPTT_TOLERANCE),
            ("forward sensitivities", self.forward, FORWARD_TOLERANCE),
            ("the other engine", self.plain, PLAIN_TOLERANCE),
            ("central differences", self.finite_difference, FINITE_DIFFERENCE_TOLERANCE),
        )
        unjudged = [f"{self.name}: none of {self.skipped} entries could be judged by central differences"]
        return (unjudged if self.skipped and not self.probed else []) + [
            f"{self.name}: {error:.1e} from {judge}, allowed {tolerance:.0e}"
            for judge, error, tolerance in verdicts
            if error is not None and not error <= tolerance
        ]


@dataclass(frozen=True)
class GradcheckReport:
    """All rows, the loss, and the spike count they were taken at (0 for smooth systems). str() is the table."""

    rows: tuple[GradcheckRow, ...]
    loss: float
    spikes: int
    failures: tuple[str, ...]

    def __str__(self) -> str:
        judges = [("vs BPTT", "bptt"), ("vs forward", "forward"), ("vs plain", "plain")]
        shown = [(title, name) for title, name in judges if any(getattr(row, name) is not None for row in self.rows)]
        wide = max([12, *(len(row.name) + 2 for row in self.rows)])
        head = f"{'tensor':<{wide}}{'shape':>14}{'|gradient|':>14}" + "".join(f"{title:>12}" for title, _ in shown)
        head += f"{'vs differences':>16}{'probed':>8}{'skipped':>9}"
        lines = [f"loss {self.loss:.6g}, {self.spikes} spikes", head, "-" * len(head)]
        for row in self.rows:
            shape = "x".join(str(n) for n in row.shape) or "number"
            line = f"{row.name:<{wide}}{shape:>14}{row.norm:>14.4e}"
            line += "".join(f"{_error(getattr(row, name)):>12}" for _, name in shown)
            lines.append(f"{line}{_error(row.finite_difference):>16}{row.probed:>8}{row.skipped:>9}")
        return "\n".join([*lines, *(f"FAILED {failure}" for failure in self.failures)])


def relative(value: Tensor, expected: Tensor, floor: float) -> float:
    """‖value - expected‖ over the larger of ‖expected‖ and `floor`; 0 where all vanish."""
    difference, size = float((value - expected).norm()), max(float(expected.norm()), floor)
    return difference / size if size > 0.0 else difference


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:.1e}"

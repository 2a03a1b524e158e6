"""Check a gradient against its judges: backpropagation through time and central differences.

    python -m adjsnn.gradcheck --neuron qif

checks a built-in random network and prints the table.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adjsnn.adjoints.discrete import BPTT
from adjsnn.errors import ConfigurationError, GradientCheckError
from adjsnn.solution import GatedSolution
from adjsnn.solve import solve
from adjsnn.systems.gated_network import GatedState, GatedSynapseNetwork

JUDGES = ("bptt", "finite_difference")
BPTT_TOLERANCE = 1e-10  # the same program, so only the order of float64 sums differs
FINITE_DIFFERENCE_TOLERANCE = 1e-6  # of the judge's own error, see CONSISTENT, and some
CONSISTENT = 3e-7  # a difference quotient counts where a step ten times longer gave the same to this share of the largest
STEPS = (1e-5, 1e-6, 1e-7, 1e-8)  # relative perturbations, from long to short
NEGLIGIBLE = 1e-4  # share of the largest gradient below which a gradient is judged against that share: rounding is no error
Loss = Callable[[GatedSolution], Tensor]


@dataclass(frozen=True)
class GradcheckRow:
    """One tensor's verdict.

    Attributes:
        name, shape: the tensor. norm: of its gradient.
        bptt: relative difference ‖g - g_BPTT‖/‖g_BPTT‖, None if not asked for; below NEGLIGIBLE times the largest gradient
            norm of all tensors, relative to that.
        finite_difference: the same over the probed entries, None if not asked for or nothing could be probed.
        probed, skipped: entries compared with central differences, and entries given up because a spike moved to another
            step under every perturbation tried.
    """

    name: str
    shape: tuple[int, ...]
    norm: float
    bptt: float | None
    finite_difference: float | None
    probed: int
    skipped: int


@dataclass(frozen=True)
class GradcheckReport:
    """All rows, the loss, and the spike count they were taken at. str() is the table."""

    rows: tuple[GradcheckRow, ...]
    loss: float
    spikes: int
    failures: tuple[str, ...]

    def __str__(self) -> str:
        head = f"{'tensor':<12}{'shape':>14}{'|gradient|':>14}{'vs BPTT':>12}{'vs differences':>16}{'probed':>8}{'skipped':>9}"
        lines = [f"loss {self.loss:.6g}, {self.spikes} spikes", head, "-" * len(head)]
        for row in self.rows:
            shape = "x".join(str(n) for n in row.shape) or "number"
            bptt = "-" if row.bptt is None else f"{row.bptt:.1e}"
            difference = "-" if row.finite_difference is None else f"{row.finite_difference:.1e}"
            lines.append(f"{row.name:<12}{shape:>14}{row.norm:>14.4e}{bptt:>12}{difference:>16}{row.probed:>8}{row.skipped:>9}")
        return "\n".join([*lines, *(f"FAILED {failure}" for failure in self.failures)])


def gradcheck(
    system: GatedSynapseNetwork,
    inputs: Tensor,
    loss: Loss,
    against: Sequence[str] = JUDGES,
    *,
    entries: int = 6,
    seed: int = 0,
    verbose: bool = True,
    **solve_kwargs: Any,
) -> GradcheckReport:
    """Compare the adjoint gradients of `loss(solve(system, inputs, **solve_kwargs))` with independent ones, in float64.

    Checked are all parameters that require a gradient, the inputs, and the initial state. Central differences use four
    points and are taken only where every perturbed solution has each spike in the same step and, for a gate with edges, the
    same neurons in the active zone, and where two perturbations ten times apart agree; smaller ones are tried, then the entry
    is counted as skipped. They judge
    the program exactly as it runs. BPTT runs by plain operations, so there the adjoint is given the states of plain operations
    too, even where fused loops compute the gradient: a chaotic network would turn another order of rounding into other
    states, and hide what is asked. The system itself is not touched.

    Args:
        system: the network; a float64 copy is checked.
        inputs: u, (T, B, C_in).
        loss: a scalar function of the solution.
        against: judges, any of "bptt" and "finite_difference".
        entries: entries probed by central differences in each tensor: the largest gradient and random others.
        seed: of the choice of entries.
        verbose: print the table.
        solve_kwargs: passed on to `solve`: dt, method, adjoint, y0.

    Raises:
        ConfigurationError: unknown judge, or a loss that is not a scalar.
        GradientCheckError: a relative difference above 1e-10 (BPTT) or 1e-6 (central differences).
    """
    if unknown := [judge for judge in against if judge not in JUDGES]:
        raise ConfigurationError(f"against={unknown}", f"judges among {list(JUDGES)}", 'against=("bptt",)')
    probe = _Probe(system, inputs, loss, solve_kwargs)
    value, spikes, gradients = probe.gradients(solve_kwargs.get("adjoint"))
    own, judged = probe.on_the_same_states(solve_kwargs.get("adjoint")) if "bptt" in against else (None, None)
    generator = torch.Generator().manual_seed(seed)
    floor = NEGLIGIBLE * max(float(gradient.norm()) for gradient in gradients.values())
    rows, failures = [], []
    for name, gradient in gradients.items():
        bptt = None if own is None or judged is None else _relative(own[name], judged[name], floor)
        difference, probed, skipped = None, 0, 0
        if "finite_difference" in against:
            difference, probed, skipped = probe.finite_difference(name, gradient, entries, generator, floor)
        rows.append(GradcheckRow(name, tuple(gradient.shape), float(gradient.norm()), bptt, difference, probed, skipped))
        for judge, error, tolerance in (
            ("BPTT", bptt, BPTT_TOLERANCE),
            ("central differences", difference, FINITE_DIFFERENCE_TOLERANCE),
        ):
            if error is not None and not error <= tolerance:
                failures.append(f"{name}: {error:.1e} from {judge}, allowed {tolerance:.0e}")
    report = GradcheckReport(tuple(rows), value, spikes, tuple(failures))
    if verbose:
        print(report)
    if failures:
        raise GradientCheckError(
            "; ".join(failures),
            "agreement of the adjoint with its judges",
            "a shorter or less chaotic trial, to tell an ill-conditioned network from a wrong derivative",
        )
    return report


class _Probe:
    """Float64 leaves of everything differentiable, and the loss as a function of them."""

    def __init__(self, system: GatedSynapseNetwork, inputs: Tensor, loss: Loss, solve_kwargs: dict[str, Any]) -> None:
        self.system = copy.deepcopy(system).double()
        self.loss = loss
        self.solve_kwargs = {k: v for k, v in solve_kwargs.items() if k not in ("adjoint", "y0")}
        y0 = solve_kwargs.get("y0")
        y0 = self.system.initial_state(inputs.shape[1]) if y0 is None else y0
        self.inputs = inputs.detach().double().clone().requires_grad_()
        self.y0 = GatedState(*(x.detach().double().clone().requires_grad_() for x in y0))
        self.leaves = {name: p for name, p in self.system.named_parameters() if p.requires_grad}
        self.leaves |= {"u": self.inputs} if self.inputs.numel() else {}
        self.leaves |= {f"y0.{name}": x for name, x in zip(self.y0._fields, self.y0, strict=True)}

    def solve(self, adjoint: Any = None, **changed: Any) -> tuple[Tensor, GatedSolution]:
        sol = solve(self.system, self.inputs, y0=self.y0, adjoint=adjoint, **(self.solve_kwargs | changed))
        value = self.loss(sol)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise ConfigurationError("a loss that is not a single number", "a scalar tensor", "loss.sum() or loss.mean()")
        return value, sol

    def on_the_same_states(self, adjoint: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Gradients of the adjoint and of BPTT on bit-identical states."""
        kernels = "plain" if self.solve_kwargs.get("kernels") == "plain" else "backward"
        return self.gradients(adjoint, kernels=kernels)[2], self.gradients(BPTT())[2]

    def gradients(self, adjoint: Any, **changed: Any) -> tuple[float, int, dict[str, Tensor]]:
        value, sol = self.solve(adjoint, **changed)
        found = torch.autograd.grad(value, list(self.leaves.values()), allow_unused=True, materialize_grads=True)
        return float(value.detach()), sol.stats.spikes, dict(zip(self.leaves, found, strict=True))

    def finite_difference(
        self, name: str, gradient: Tensor, entries: int, generator: torch.Generator, floor: float
    ) -> tuple[float | None, int, int]:
        """Relative difference over the probed entries, their number, and the number of skipped ones."""
        flat = gradient.flatten()
        chosen = [int(flat.abs().argmax())]
        chosen += torch.randperm(len(flat), generator=generator)[: entries - 1].tolist()
        size = max(floor, float(flat.abs().max()))
        slopes = {k: self._slope(name, k, size) for k in dict.fromkeys(chosen)}
        found = {k: slope for k, slope in slopes.items() if slope is not None}
        skipped = len(slopes) - len(found)
        if not found:
            return None, 0, skipped
        expected = flat.new_tensor(list(found.values()))
        return _relative(flat[list(found)], expected, size), len(found), skipped

    def _slope(self, name: str, entry: int, size: float) -> float | None:
        """Fourth-order central difference, once two steps ten times apart agree on it to CONSISTENT times `size`; None where
        none do, or spikes move to other steps however small the perturbation."""
        previous = None
        with torch.no_grad():
            flat = self.leaves[name].view(-1)
            original = flat[entry].clone()
            for step in STEPS:
                h = step * max(1.0, float(original.abs()))
                values, grids = [], []
                for shift in (-2, -1, 1, 2):
                    flat[entry] = original + shift * h
                    value, sol = self.solve()
                    values.append(float(value))
                    grids.append(self._branches(sol))
                flat[entry] = original
                if not all(torch.equal(grids[0], grid) for grid in grids[1:]):
                    previous = None
                    continue
                slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
                if previous is not None and abs(slope - previous) <= CONSISTENT * size:
                    return slope
                previous = slope
        return None

    def _branches(self, sol: GatedSolution) -> Tensor:
        """Which smooth piece of the program the solution is on: its spikes, and for a gate with edges who is in the zone."""
        crossings = sol.crossings.to(torch.int16)
        if self.system.gate.vanishes_at_edges:
            return crossings
        neuron = self.system.neuron
        height = sol.v[1:].abs() if neuron.two_sided else sol.v[1:]
        return 2 * crossings + (height > neuron.threshold - self.system.gate.width)


def _relative(value: Tensor, expected: Tensor, floor: float) -> float:
    """‖value - expected‖ over the larger of ‖expected‖ and `floor`; 0 where all vanish."""
    difference, size = float((value - expected).norm()), max(float(expected.norm()), floor)
    return difference / size if size > 0.0 else difference

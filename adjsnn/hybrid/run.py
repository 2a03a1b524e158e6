"""A forward run of a system, what is stored of it, and the contract of every backward sweep."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.hybrid.adaptive import Control, march
from adjsnn.hybrid.held import Form
from adjsnn.hybrid.keep import Keep, Thinned, thin
from adjsnn.hybrid.steps import HybridProgram, Steps, run_fixed
from adjsnn.numerics.checkpoints import kept_on_the_way


@dataclass
class HybridStats:
    """Figures about one solve.

    Attributes:
        accepted: steps taken by each sample, (B,).
        rejected: attempts of each sample that the error control refused, (B,).
        recomputed_steps: steps that backward passes took again; counted as they run.
        stored_bytes: memory kept for the backward pass: states, those of the solution only where they are the ones that are
            kept, and the times of the steps; 0 under BPTT, whose tape is torch's.
        slowest_event: smallest dφ/dt at an event of each sample, (B,), 1/ms: near 0 an event grazes and its gradient is large;
            None for systems without guards.
        taken: the steps: times, lengths and events of each sample.
        kernel: which body ran: "plain", torch's operations; "fused", compiled loops.
        kernel_reason: why this one.
    """

    accepted: Int[Tensor, " B"]
    rejected: Int[Tensor, " B"]
    recomputed_steps: int
    stored_bytes: int
    slowest_event: Float[Tensor, " B"] | None = None
    taken: Steps | None = field(default=None, repr=False)
    kernel: str = "plain"
    kernel_reason: str = "of this adjoint there are no compiled loops"

    @property
    def steps(self) -> int:
        """Most steps of any sample."""
        return int(self.accepted.max())


@dataclass(frozen=True)
class Forward:
    """A forward run.

    Attributes:
        steps: the steps taken.
        outputs: states at the output times, (T+1, B, D).
        kept: every step state, (K+1, B, D); where only the last is kept, that one (1, B, D), and none where some are.
        thinned: where only some are kept, these.
        rejected: refused attempts of each sample, (B,).
    """

    steps: Steps
    outputs: Float[Tensor, "T1 B D"]
    kept: Float[Tensor, "S B D"]
    thinned: Thinned | None
    rejected: Int[Tensor, " B"]
    slowest: Float[Tensor, " B"] | None = None


@dataclass(frozen=True)
class Stored:
    """What a backward pass has to work with: the run without its outputs, the inputs, and what to differentiate by.

    Attributes:
        leaves: what to differentiate by; those among `tensors` that require a gradient.
        form: of the system's attributes; `form.filled(tensors)` is in force in a sweep.
        tensors: of the system's attributes.
        of_times: dC/dt of the event that ends each step, (K, B); None where the loss reads no event times.
        pure: whether the system's functions leave no trace in its modules, so that they may be evaluated fewer times.
    """

    program: HybridProgram
    steps: Steps
    kept: Float[Tensor, "S B D"]
    thinned: Thinned | None
    u: Float[Tensor, "T B C"] | None
    y0: Float[Tensor, "B D"]
    wants_u: bool
    leaves: tuple[Tensor, ...]
    form: Form
    tensors: tuple[Tensor | None, ...]
    stats: HybridStats
    of_times: Float[Tensor, "K B"] | None = None
    pure: bool = False


@dataclass(frozen=True)
class Gradients:
    """dC/dy0 (B, D), dC/du (T, B, C) or None, and dC/dθ for each leaf that is wanted."""

    y0: Float[Tensor, "B D"]
    u: Float[Tensor, "T B C"] | None
    leaves: tuple[Tensor, ...]


Sweep = Callable[[Stored, Tensor], Gradients]


def run_forward(program: HybridProgram, y0: Tensor, u: Tensor | None, keep: Keep | None = None) -> Forward:
    """Solve forward without a tape, keeping the step states that `keep` asks for: None is all of them.

    Raises:
        ConfigurationError: checkpoints that are neither None, "sqrt" nor a number ≥ 1, or memory for not even one state.
        IntegrationError: the solution diverged or the steps could not reach the end.
    """
    keep = Keep() if keep is None else keep
    with torch.no_grad():
        return _run_fixed_steps(program, y0, u, keep) if program.lengths is not None else _run_adaptive(program, y0, u, keep)


def _run_fixed_steps(program: HybridProgram, y0: Tensor, u: Tensor | None, keep: Keep) -> Forward:
    steps = program.fixed_steps(len(y0))
    n, times = len(steps), _times_bytes(steps)
    fits = keep.memory_mb is not None and (n + 1) * y0.nbytes + times <= keep.memory_mb * 1e6
    if keep.all or fits:
        steps, outputs, kept = run_fixed(program, y0, u)
        return Forward(steps, outputs, kept, None, torch.zeros_like(steps.accepted))
    slots = 0 if keep.last else keep.slots(n, y0.nbytes, times)
    states = dict.fromkeys(kept_on_the_way(n, slots) if slots else (), y0)
    steps, outputs, kept = run_fixed(program, y0, u, states)
    thinned = Thinned(n, slots, tuple(states), states) if slots else None
    return Forward(steps, outputs, kept if slots else outputs[-1:].clone(), thinned, torch.zeros_like(steps.accepted))


def _run_adaptive(program: HybridProgram, y0: Tensor, u: Tensor | None, keep: Keep) -> Forward:
    """How many steps there will be is not known, so the states kept are thinned on the way."""
    control = Control(program.rtol, program.atol, program.max_steps, _most_states(keep, program, y0))
    system = program.system if program.guards else None
    run = march(program.tableau, program.field, program.ts, y0, u, control, system=system)
    if keep.last:
        return Forward(run.steps, run.outputs, run.outputs[-1:].clone(), None, run.rejected)
    if keep.all:
        return Forward(run.steps, run.outputs, run.kept, None, run.rejected, run.slowest)
    n = len(run.steps)
    thinned = thin(n, keep.slots(n, y0.nbytes), run.stride, run.kept, y0)
    return Forward(run.steps, run.outputs, y0.new_empty(0, *y0.shape), thinned, run.rejected, run.slowest)


def _most_states(keep: Keep, program: HybridProgram, y0: Tensor) -> int | Literal["sqrt"] | None:
    """How many states an adaptive run keeps on its way."""
    if keep.all:
        return None
    if keep.checkpoints == "sqrt":
        return "sqrt"
    return 1 if keep.last else keep.slots(program.max_steps, y0.nbytes)


def figures(run: Forward) -> HybridStats:
    """The figures of a run, before any backward pass."""
    states = run.kept.nbytes if run.thinned is None else run.thinned.nbytes
    return HybridStats(run.steps.accepted.clone(), run.rejected, 0, states + _times_bytes(run.steps), run.slowest, run.steps)


def _times_bytes(steps: Steps) -> int:
    """Memory of what is known of the steps; fixed ones share it between samples."""
    return sum(x.untyped_storage().nbytes() for x in columns(steps) if x is not None)


def columns(steps: Steps) -> tuple[Tensor | None, ...]:
    return steps.times, steps.lengths, steps.interval, steps.output, steps.rows, steps.event


NOTHING = Form(())


@dataclass(frozen=True)
class Read:
    """What a solve reads of the modules of its system.

    Attributes:
        form: the places of their attributes.
        tensors: those that stand there, by number, None for a number without a place.
        strangers: numbers of tensors off the tape that must turn out to have no gradient.
        names: of the tensors.
        pure: whether the evaluation changed nothing there.
    """

    form: Form = NOTHING
    tensors: tuple[Tensor | None, ...] = ()
    strangers: frozenset[int] = frozenset()
    names: tuple[str, ...] = ()
    pure: bool = False

    @property
    def wanted(self) -> tuple[Tensor, ...]:
        """The tensors to differentiate by."""
        return tuple(x for x in self.tensors if x is not None and x.requires_grad)

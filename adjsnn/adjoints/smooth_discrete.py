"""Discrete adjoint of Runge–Kutta programs for smooth systems, and the connection of every smooth adjoint to autograd."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.adjoints.checkpoints import kept_on_the_way
from adjsnn.adjoints.first_order import FirstOrder, first_order, laid_out
from adjsnn.adjoints.smooth_checkpoints import Keep, Thinned, thin
from adjsnn.errors import ConfigurationError
from adjsnn.integrate.adaptive import Control, march
from adjsnn.integrate.events import event_rows
from adjsnn.integrate.smooth import SmoothProgram, Steps, combine, replay, run_fixed, stage_time, step_times
from adjsnn.systems.held import Form


@dataclass
class SmoothStats:
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
    """

    accepted: Int[Tensor, " B"]
    rejected: Int[Tensor, " B"]
    recomputed_steps: int
    stored_bytes: int
    slowest_event: Float[Tensor, " B"] | None = None
    taken: Steps | None = field(default=None, repr=False)

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
        form, tensors: the attributes of the system, of which `form.filled(tensors)` is in force in a sweep.
        of_times: dC/dt of the event that ends each step, (K, B); None where the loss reads no event times.
    """

    program: SmoothProgram
    steps: Steps
    kept: Float[Tensor, "S B D"]
    thinned: Thinned | None
    u: Float[Tensor, "T B C"] | None
    y0: Float[Tensor, "B D"]
    wants_u: bool
    leaves: tuple[Tensor, ...]
    form: Form
    tensors: tuple[Tensor | None, ...]
    stats: SmoothStats
    of_times: Float[Tensor, "K B"] | None = None


@dataclass(frozen=True)
class Gradients:
    """dC/dy0 (B, D), dC/du (T, B, C) or None, and dC/dθ for each leaf that is wanted."""

    y0: Float[Tensor, "B D"]
    u: Float[Tensor, "T B C"] | None
    leaves: tuple[Tensor, ...]


Sweep = Callable[[Stored, Tensor], Gradients]


def run_forward(program: SmoothProgram, y0: Tensor, u: Tensor | None, keep: Keep | None = None) -> Forward:
    """Solve forward without a tape, keeping the step states that `keep` asks for: None is all of them.

    Raises:
        ConfigurationError: checkpoints that are neither None, "sqrt" nor a number ≥ 1, or memory for not even one state.
        IntegrationError: the solution diverged or the steps could not reach the end.
    """
    keep = Keep() if keep is None else keep
    with torch.no_grad():
        return _run_fixed_steps(program, y0, u, keep) if program.lengths is not None else _run_adaptive(program, y0, u, keep)


def _run_fixed_steps(program: SmoothProgram, y0: Tensor, u: Tensor | None, keep: Keep) -> Forward:
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


def _run_adaptive(program: SmoothProgram, y0: Tensor, u: Tensor | None, keep: Keep) -> Forward:
    """How many steps there will be is not known, so the states kept are thinned on the way."""
    most = 0 if keep.all else -1 if keep.checkpoints == "sqrt" else 1 if keep.last else keep.slots(program.max_steps, y0.nbytes)
    control = Control(program.rtol, program.atol, program.max_steps, most)
    system = program.system if program.guards else None
    run = march(program.tableau, program.field, program.ts, y0, u, control, system=system)
    if keep.last:
        return Forward(run.steps, run.outputs, run.outputs[-1:].clone(), None, run.rejected)
    if keep.all:
        return Forward(run.steps, run.outputs, run.kept, None, run.rejected, run.slowest)
    n = len(run.steps)
    thinned = thin(n, keep.slots(n, y0.nbytes), run.stride, run.kept, y0)
    return Forward(run.steps, run.outputs, y0.new_empty(0, *y0.shape), thinned, run.rejected, run.slowest)


def figures(run: Forward) -> SmoothStats:
    """The figures of a run, before any backward pass."""
    states = run.kept.nbytes if run.thinned is None else run.thinned.nbytes
    return SmoothStats(run.steps.accepted.clone(), run.rejected, 0, states + _times_bytes(run.steps), run.slowest, run.steps)


def _times_bytes(steps: Steps) -> int:
    """Memory of what is known of the steps; fixed ones share it between samples."""
    return sum(x.untyped_storage().nbytes() for x in columns(steps) if x is not None)


NOTHING = Form(())


@dataclass(frozen=True)
class Read:
    """What a solve reads of the modules of its system.

    Attributes:
        form: the places of their attributes.
        tensors: those that stand there, by number, None for a number without a place.
        strangers: numbers of tensors off the tape that must turn out to have no gradient.
        names: of the tensors.
    """

    form: Form = NOTHING
    tensors: tuple[Tensor | None, ...] = ()
    strangers: frozenset[int] = frozenset()
    names: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[Tensor, ...]:
        """The tensors to differentiate by."""
        return tuple(x for x in self.tensors if x is not None and x.requires_grad)


def attach(
    program: SmoothProgram, read: Read, y0: Tensor, u: Tensor | None, sweep: Sweep, keep: Keep | None = None
) -> tuple[Tensor, Tensor, Tensor, SmoothStats]:
    """States at the output times, (T+1, B, D), and event times, (B, E), whose gradients run `sweep`; the guards, (B, E), and
    the figures of the run."""
    found: list[SmoothStats] = []
    known = read.form, read.strangers, read.names
    y, times, index = _Attached.apply(program, known, sweep, keep, found, u, y0, *read.tensors)
    return y, times, index, found[0]


def events_of(steps: Steps, like: Tensor) -> tuple[Float[Tensor, "B E"], Int[Tensor, "B E"]]:
    """Time and guard of each sample's events, in order, padded with inf and -1."""
    if steps.event is None:
        batch = steps.times.shape[1]
        return like.new_empty(batch, 0), torch.empty(batch, 0, dtype=torch.long, device=like.device)
    rows, index = event_rows(steps.event)
    times = steps.times.gather(0, rows + 1).T.to(like.dtype)
    return torch.where(index >= 0, times, float("inf")), index


class _Attached(FirstOrder):
    """Connects a forward run and an adjoint to torch. Every tensor that the field depends on is an explicit argument."""

    @staticmethod
    def forward(ctx, program, known, sweep, keep, found, u, y0, *tensors):
        # Other tensors of the same memory: `x.data = ...` gives x other memory, and torch does not call that a change.
        y0 = y0.detach()
        u, *tensors = (None if x is None else x.detach() for x in (u, *tensors))
        run = run_forward(program, y0, u, keep)
        found.append(figures(run))
        ctx.program, ctx.known, ctx.sweep, ctx.thinned, ctx.stats = program, known, sweep, run.thinned, found[0]
        # Saving what the field reads, and what a solution shows, lets torch notice changes in place before the backward pass.
        ctx.save_for_backward(u, y0, run.kept, *columns(run.steps), *tensors)
        ctx.set_materialize_grads(False)
        times, index = events_of(run.steps, y0)
        ctx.mark_non_differentiable(index)
        return run.outputs, times, index

    @staticmethod
    def backward(ctx, *grad_outputs):
        return _backward(ctx, *grad_outputs)


def columns(steps: Steps) -> tuple[Tensor | None, ...]:
    return steps.times, steps.lengths, steps.interval, steps.output, steps.rows, steps.event


@first_order
def _backward(ctx, cotangents, of_event_times, _):
    u, y0, kept, times, lengths, interval, output, rows, event, *tensors = ctx.saved_tensors
    # Of the tape itself where it is the output; a field that differentiates inside must not meet that.
    kept, steps = kept.detach(), Steps(times, lengths, interval, output, rows, event)
    form, strangers, names = ctx.known
    if cotangents is None:
        cotangents = y0.new_zeros(len(rows), *y0.shape)
    needs_u, needs_y0, *needs = ctx.needs_input_grad[5:]
    fresh = leaves_of(tensors, [needed or n in strangers for n, needed in enumerate(needs)])
    chosen = {n: x for n, x in enumerate(fresh) if x is not None and x.requires_grad}
    of_times = None if of_event_times is None else _by_step(steps, of_event_times)
    leaves = tuple(chosen.values())
    stored = Stored(ctx.program, steps, kept, ctx.thinned, u, y0, needs_u, leaves, form, fresh, ctx.stats, of_times)
    with form.filled(fresh):
        gradients = ctx.sweep(stored, cotangents)
    found = dict(zip(chosen, gradients.leaves, strict=True))
    check_strangers(found, strangers, names)
    of_tensors = (found[n] if needed else None for n, needed in enumerate(needs))
    arguments = (gradients.u, gradients.y0 if needs_y0 else None, *of_tensors)
    return None, None, None, None, None, *laid_out(arguments, (u, y0, *tensors))


def leaves_of(tensors: Sequence[Tensor | None], needs: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """The same numbers as leaves of tapes of their own."""
    return tuple(None if x is None else x.detach().requires_grad_(n) for x, n in zip(tensors, needs, strict=True))


def check_strangers(found: dict[int, Tensor], strangers: frozenset[int], names: tuple[str, ...]) -> None:
    """Raise ConfigurationError where something is found to have a gradient that would be missing."""
    for n in strangers & found.keys():
        if bool(found[n].any()):
            raise ConfigurationError(
                f"{names[n]}, an attribute that requires a gradient and is not registered, used first after the start",
                "such tensors used from the start, or parameters",
                f"registering {names[n]}, .detach(), or adjoint=BPTT()",
            )


def _by_step(steps: Steps, of_event_times: Float[Tensor, "B E"]) -> Float[Tensor, "K B"] | None:
    """Cotangents of event times by the steps that end in the events."""
    if steps.event is None:
        return None
    rows, index = event_rows(steps.event)
    real = torch.where(index >= 0, of_event_times, 0.0)
    return real.new_zeros(steps.event.shape).scatter_add_(0, rows, real.T)


def discrete_sweep(stored: Stored, cotangents: Tensor) -> Gradients:
    """Costate of the Runge–Kutta program itself, step by step and stage by stage.

        k̄_i = h (b_i λ⁺ + Σ_{j>i} a_ji s̄_j),    s̄_i = f_yᵀ k̄_i,    λ = λ⁺ + Σ_i s̄_i,    θ̄ += Σ_i f_θᵀ k̄_i

    Exact to rounding for the steps that were taken; their lengths are constants.

    Args:
        stored: the run.
        cotangents: dC/dy at the output times, (T+1, B, D).
    """
    steps, u = stored.steps, stored.u
    costate = torch.zeros_like(stored.y0)
    sums = [torch.zeros_like(x) for x in stored.leaves]
    u_bar = torch.zeros_like(u) if stored.wants_u and u is not None else None
    for k, y in states_backward(stored):
        costate = costate + at_row(steps, cotangents, k + 1)
        costate, of_u = _pull_step(stored, k, y, costate, sums)
        if u_bar is not None and of_u is not None:
            add_held(u_bar, steps.interval[k], of_u)
    return Gradients(costate + at_row(steps, cotangents, 0), u_bar, tuple(sums))


def at_row(steps: Steps, cotangents: Float[Tensor, "T1 B D"], row: int) -> Float[Tensor, "B D"]:
    """Cotangents (T+1, B, D) that belong to the states of a row, (B, D); zero where a sample has no output there."""
    output = steps.output[row]
    found = cotangents[output.clamp(min=0), torch.arange(len(output), device=output.device)]
    return torch.where((output >= 0)[:, None], found, 0.0)


def add_held(u_bar: Tensor, interval: Tensor, of_u: Tensor) -> None:
    """Add each sample's gradient (B, C) to the interval (B,) of dC/du (T, B, C) that its step was in."""
    u_bar[interval, torch.arange(len(interval), device=interval.device)] += of_u


def add_leaves(sums: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Add the gradients that exist."""
    for total, gradient in zip(sums, gradients, strict=True):
        if gradient is not None:
            total.add_(gradient)


def states_backward(stored: Stored) -> Iterator[tuple[int, Tensor]]:
    """Each step with the state before it, (B, D), the last first: kept, or made again."""

    def advance(y: Tensor, start: int, stop: int) -> Tensor:
        stored.stats.recomputed_steps += stop - start
        with torch.no_grad():
            return replay(stored.program, stored.steps, y, stored.u, start, stop)

    every = ((k, stored.kept[k]) for k in reversed(range(len(stored.steps))))
    for k, y in every if stored.thinned is None else stored.thinned.backward(advance):
        # In memory of its own, since a matrix product of the same numbers may round differently at another place in memory.
        yield k, y.clone()


def _pull_step(stored: Stored, k: int, y: Tensor, costate: Tensor, sums: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Costate before step k, (B, D), from the one after it, and the step's dC/du, (B, C); adds its dC/dθ to `sums`."""
    program, tableau = stored.program, stored.program.tableau
    times = step_times(stored.steps, k, y.dtype)
    h = times[2]
    held = program.held(stored.u, stored.steps, k)
    count = tableau.stages - tableau.first_same_as_last
    u = None if held is None else held.detach().requires_grad_(stored.wants_u)
    inputs, outputs, values = [], [], []
    for i in range(count):
        at = (y if i == 0 else y + h * combine(tableau.a[i], values)).detach().requires_grad_()
        with torch.enable_grad():
            out = program.field(stage_time(tableau, i, times), at, u)
        inputs.append(at)
        outputs.append(out)
        values.append(out.detach())
    before, of_u = costate, None
    stage_bars: list[Tensor] = [costate] * count
    for i in reversed(range(count)):
        weights = [(tableau.b[i], costate), *((tableau.a[j][i], stage_bars[j]) for j in range(i + 1, count))]
        chosen = [(w, bar) for w, bar in weights if w != 0.0]
        k_bar = h * combine([w for w, _ in chosen], [bar for _, bar in chosen]) if chosen else torch.zeros_like(y)
        stage_bars[i], stage_u, of_leaves = pull_field(outputs[i], inputs[i], u, stored.leaves, k_bar)
        before = before + stage_bars[i]
        if stage_u is not None:
            of_u = stage_u if of_u is None else of_u + stage_u
        add_leaves(sums, of_leaves)
    return before, of_u


def pull_field(
    out: Tensor, y: Tensor, u: Tensor | None, leaves: Sequence[Tensor], cotangent: Tensor, *, retain: bool = False
) -> tuple[Tensor, Tensor | None, Sequence[Tensor | None]]:
    """f_yᵀ c, f_uᵀ c and f_θᵀ c for out = f(t, y, u) on the tape; None where f does not depend on it or u needs no gradient."""
    with_u = u is not None and u.requires_grad
    wanted = [y, *([u] if with_u else []), *leaves]
    if not out.requires_grad:
        return torch.zeros_like(y), None, [None] * len(leaves)
    found = torch.autograd.grad(out, wanted, cotangent, allow_unused=True, retain_graph=retain)
    of_y = torch.zeros_like(y) if found[0] is None else found[0]
    return of_y, (found[1] if with_u else None), found[1 + with_u :]

"""One evaluation of a system that a user wrote, before it is solved: what it returns, and what that depends on."""

from dataclasses import dataclass, replace
from math import isnan

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from adjsnn.errors import AdjsnnError, ConfigurationError
from adjsnn.hybrid.guards import leaves_zero
from adjsnn.hybrid.held import Form, Held, held_by
from adjsnn.hybrid.run import Read
from adjsnn.hybrid.steps import HybridProgram, Signal
from adjsnn.hybrid.system import HybridSystem
from adjsnn.hybrid.taped import Taped, TapedSignal


@dataclass(frozen=True)
class Trial:
    """What a system is evaluated with, and with what it is going to be solved.

    Args:
        name: of its class.
        t: time, (B, 1), ms.
        y: state, (B, D).
        u: held input, (B, C), or None.
        adaptive: whether steps can end on events.
        tape: whether gradients come from torch's tape.
    """

    name: str
    t: Tensor
    y: Tensor
    u: Tensor | None
    adaptive: bool
    tape: bool

    def on_leaves(self, *, time: bool) -> "Trial":
        """The same with a state and an input that require a gradient, and where asked for a time that does."""
        t, y = self.t.detach().clone().requires_grad_(time), self.y.detach().clone().requires_grad_()
        u = None if self.u is None else self.u.detach().clone().requires_grad_()
        return Trial(self.name, t, y, u, self.adaptive, self.tape)


def modules_of(system: HybridSystem, signal: object) -> list[nn.Module]:
    """The modules that a field may read."""
    return [system, signal] if isinstance(signal, nn.Module) else [system]


def examine(program: HybridProgram, trial: Trial) -> tuple[HybridProgram, Read]:
    """Evaluate every function of a system once or twice.

    Returns:
        the program as it will run, with the number of guards, and system and signal made to run `on_tape` where they
        differentiate inside themselves; and what a backward pass has to find in their modules, nothing where there is none.

    Raises:
        ConfigurationError: a result of a wrong shape; a guard that is not below zero at the start; where gradients are wanted
            and not by torch's tape, something that depends on a tensor of which no gradient would be found.
    """
    system, signal = program.system, program.signal
    for module in (inner for root in modules_of(system, signal) for inner in root.modules()):
        _keep_cached(module)
    if any(is_lazy(x) for root in modules_of(system, signal) for x in (*root.parameters(), *root.buffers())):
        with torch.no_grad():
            _results(system, signal, trial)
    recording = torch.is_grad_enabled()
    wanted = recording and not trial.tape
    held = held_by(modules_of(system, signal)) if wanted else Held(Form(()), (), (), frozenset())
    aliases = [x.detach().requires_grad_(x.requires_grad) for x in held.tensors]
    versions = [x._version for x in aliases]
    taped: dict[str, Tensor] = {}
    used: set[int] = set()
    stores = [store for root in modules_of(system, signal) for m in root.modules() for store in (vars(m), m._buffers)]
    known = [set(store) for store in stores]
    with held.form.filled(aliases):
        if recording:
            on_leaves, taped = _taped(system, signal, trial)
            for what, out in taped.items() if wanted else ():
                used |= _used(what, out, on_leaves, held, aliases)
        entries = ((store, name, x) for store in stores for name, x in store.items()) if wanted else ()
        new = [(store, name, x) for store, name, x in entries if _on_tape(x) and not any(x is a for a in aliases)]
        with torch.no_grad():
            plain, inside = _plain(system, signal, trial)
            system.check_start(trial.t, trial.y, plain.get("inputs(t)", trial.u))
        for store, name, x in new:
            if store.get(name) is x:
                raise ConfigurationError(
                    f"{trial.name} keeps a tensor that requires a gradient as {name!r} from one evaluation to the next",
                    "tensors that every evaluation computes from the parameters",
                    f"computing {name!r} in each call, or before the solve",
                )
        state = held.form.changed(aliases, versions)
    added = [(store, name) for store, names in zip(stores, known, strict=True) for name in set(store) - names]
    for store, name in added if wanted else ():
        del store[name]
    if inside and recording:
        _check_inside(trial, taped[f"{trial.name}.vector_field"])
    guards = plain.get(f"{trial.name}.guard")
    if inside:
        system = Taped(system)
        signal = None if signal is None else TapedSignal(signal)
    if guards is not None:
        _check_levels(guards, system, signal, trial)
    count = 0 if guards is None else guards.shape[1]
    return replace(program, system=system, signal=signal, guards=count), _read(
        held, state, used, pure=not (state or added or inside)
    )


def _read(held: Held, state: frozenset[int], used: set[int], *, pure: bool) -> Read:
    """What is held, without the places that an evaluation changes, and off the tape what it did not use."""
    form = held.form.without(state)
    present = form.numbers()
    unused = {n for n, x in enumerate(held.tensors) if x.requires_grad and n not in held.registered and n not in used}
    off_tape = [x.detach() if n in unused else x for n, x in enumerate(held.tensors)]
    tensors = [x if n in present else None for n, x in enumerate(off_tape)]
    return Read(form, tuple(tensors), frozenset(unused & present), held.names, pure)


def _keep_cached(module: nn.Module) -> None:
    """Evaluate parametrizations that `parametrize.cached` will keep, here where autograd records if it does."""
    if parametrize._cache_enabled and parametrize.is_parametrized(module):
        for name in module.parametrizations:  # pyright: ignore[reportGeneralTypeIssues]
            getattr(module, name)


def _on_tape(x: object) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _taped(system: HybridSystem, signal: Signal | None, trial: Trial) -> tuple[Trial, dict[str, Tensor]]:
    """The results on the tape, and the leaves that they are functions of: the time too where it is differentiated by inside."""
    try:
        leaves = trial.on_leaves(time=False)
        return leaves, _results(system, signal, leaves, fire=True)
    except AdjsnnError:
        raise
    except RuntimeError as error:
        leaves = trial.on_leaves(time=True)
        try:
            return leaves, _results(system, signal, leaves, fire=True)
        except RuntimeError:
            raise error from None


def _plain(system: HybridSystem, signal: Signal | None, trial: Trial) -> tuple[dict[str, Tensor], bool]:
    """The results off the tape, and whether they need one all the same, to differentiate inside themselves."""
    try:
        return _results(system, signal, trial), False
    except AdjsnnError:
        raise
    except RuntimeError as error:
        try:
            return _results(Taped(system), None if signal is None else TapedSignal(signal), trial), True
        except RuntimeError:
            raise error from None


def _results(system: HybridSystem, signal: Signal | None, trial: Trial, *, fire: bool = False) -> dict[str, Tensor]:
    """What the functions return, by name, checked. With `fire` the jump is that of a guard in every sample, else of none."""
    t, y, u = trial.t, trial.y, trial.u
    name = trial.name
    results: dict[str, Tensor] = {}
    levels = system.guard(t, y)
    if levels is not None:
        check_result(f"{name}.guard", levels, (len(y), None), y)
        _check_solvable(trial)
        fired = torch.zeros(levels.shape, dtype=torch.bool, device=y.device)
        if fire:
            samples = torch.arange(len(y), device=y.device)
            fired[samples, samples % levels.shape[1]] = True
        after = system.jump(t, y, fired)
        check_result(f"{name}.jump", after, tuple(y.shape), y)
        results |= {f"{name}.guard": levels, f"{name}.jump": after}
    if signal is not None:
        u = signal(t)
        check_result("inputs(t)", u, (len(y), None), y)
        results["inputs(t)"] = u
    flow = system.vector_field(t, y, u)
    check_result(f"{name}.vector_field", flow, tuple(y.shape), y)
    return results | {f"{name}.vector_field": flow}


def _check_solvable(trial: Trial) -> None:
    """What has events has to be solved by steps that know them."""
    if not trial.adaptive:
        raise ConfigurationError(
            f"{trial.name} with guards and fixed steps", "steps that end on events", 'method="dopri5" or method="tsit5"'
        )


def _check_inside(trial: Trial, flow: Tensor) -> None:
    """Raise ConfigurationError where derivatives that a system takes of itself are not differentiated in their turn."""
    if not flow.requires_grad:
        raise ConfigurationError(
            f"{trial.name}.vector_field returned a derivative by torch.autograd.grad that is not on the tape",
            "a result that depends on y and the parameters",
            "torch.autograd.grad(..., create_graph=True), or torch.func.grad",
        )


def _check_levels(levels: Tensor, system: HybridSystem, signal: Signal | None, trial: Trial) -> None:
    """Guards have to be below zero at the start, or on it and falling."""
    t, y = trial.t, trial.y
    wrong = ~(levels < 0.0)
    if bool((levels >= 0.0).any()):
        with torch.no_grad():
            flow = system.vector_field(t, y, trial.u if signal is None else signal(t))
            wrong = wrong & ~leaves_zero(system, t, y, flow, levels)
    if not bool(wrong.any()):
        return
    sample, guard = (int(k) for k in wrong.nonzero()[0])
    value = float(levels[sample, guard])
    if isnan(value):
        raise ConfigurationError(
            f"{trial.name}.guard {guard} of sample {sample} is {value:g} at the start, t = {float(t[sample]):g} ms",
            "guards that are numbers",
            "another initial state, or a guard that is defined there",
        )
    raise ConfigurationError(
        f"{trial.name}.guard {guard} of sample {sample} is {value:g} at the start",
        "guards below zero, so that they can rise through it, or on it and falling",
        "an initial state below the threshold",
    )


def _used(what: str, out: Tensor, trial: Trial, held: Held, aliases: list[Tensor]) -> set[int]:
    """Numbers of the tensors that a result depends on; raises ConfigurationError for others that require a gradient."""
    numbers = {id(x): n for n, x in enumerate(aliases)}
    arguments = {id(x) for x in (trial.t, trial.y, trial.u)}
    used = set()
    for leaf in _leaves(out):
        if id(leaf) in numbers:
            used.add(numbers[id(leaf)])
        elif id(leaf) not in arguments:
            own = [name for name, x in zip(held.names, held.tensors, strict=True) if x is leaf]
            if own:
                raise ConfigurationError(
                    f"{what} depends on {own[0]} through a tensor that was computed before the solve and is no attribute of "
                    f"{trial.name}, so its gradient would be missing",
                    "what depends on parameters computed where it is used",
                    f"computing it in {what}, making it an attribute of the module, or adjoint=BPTT()",
                )
            raise ConfigurationError(
                f"{what} depends on a tensor of shape {tuple(leaf.shape)} that requires a gradient and is neither "
                "a registered parameter nor y nor u, so its gradient would be missing",
                "every such tensor as a parameter of the module",
                f"self.name = nn.Parameter(...) in {trial.name}, .detach(), or adjoint=BPTT()",
            )
    return used


def check_result(what: str, x: Tensor, shape: tuple[int | None, ...], like: Tensor) -> None:
    """Raise ConfigurationError unless x is a tensor of that shape, None for any size, and of the dtype and device of `like`."""
    if not isinstance(x, Tensor) or x.dim() != 2 or x.dtype != like.dtype or x.device != like.device:
        fits = False
    else:
        fits = all(expected in (None, size) for size, expected in zip(x.shape, shape, strict=True))
    if not fits:
        seen = f"{tuple(x.shape)}, {x.dtype}, {x.device}" if isinstance(x, Tensor) else type(x).__name__
        wanted = str(shape).replace("None", "C")
        raise ConfigurationError(
            f"{what} returned {seen}", f"a tensor {wanted}, {like.dtype}, {like.device}", "keeping one row for each sample"
        )


def _leaves(out: Tensor) -> list[Tensor]:
    """The tensors that a tape ends in."""
    if out.is_leaf and out.requires_grad:
        return [out]
    leaves: list[Tensor] = []
    seen = set()
    todo = [out.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)  # pyright: ignore[reportAttributeAccessIssue]
        todo.extend(after for after, _ in node.next_functions)
    return leaves

"""What a membrane or gate overrides, and which hand-written derivatives that it inherits no longer belong to it.

A class may override `flow` and inherit `flow_partials` that was written for another flow; the two would then disagree, and so
would every gradient. A derivative counts as valid where no function that it could depend on was overridden below it: in a more
derived class, on the object itself, or by a patch of the class. Elsewhere the default by autograd takes its place.
"""

import copy
from types import MethodType
from typing import TypeVar

import torch
from torch import Tensor

from adjsnn.errors import ConfigurationError
from adjsnn.gated.gates import Gate
from adjsnn.gated.membranes import Constants, Membrane
from adjsnn.gated.recorded import as_made
from adjsnn.numerics.scalars import spread

Model = TypeVar("Model", Membrane, Gate)
OWN = ("adjsnn.gated.membranes", "adjsnn.gated.gates")  # the classes here are what the library's derivatives belong to
RESET = {"reset", "reset_partials", "v_reset", "speed_at_threshold", "_levels"}
# Methods that say again what others say, and what may be overridden without making them wrong.
RULES: dict[type, dict[str, set[str]]] = {
    Membrane: {
        "flow_partials": {"advance", *RESET},
        "advance": {"flow_partials", *RESET},
        "reset_partials": {"flow_partials", "advance", "speed_at_threshold"},
        "speed_at_threshold": {"flow_partials", "advance", "reset", "reset_partials"},
    },
    Gate: {"density": {"integral", "slope", "_zone"}, "slope": {"cumulative", "density"}},
}
EDGES = 1e-4  # how far a gate may miss 0 and 1 at its edges: more than float32 rounds, less than a spike shows
PLACES = (0.0, 0.3, 0.7, 1.0)


def settled(model: Model) -> Model:
    """A copy of a membrane or gate whose derivatives are those of its own functions; a later change of `model` is not in it."""
    copied = copy.copy(model)
    if is_own(model):
        return copied
    base = Membrane if isinstance(model, Membrane) else Gate
    for name, harmless in RULES[base].items():
        if _outdated(model, name, harmless, base):
            default = _slope_by_autograd if name == "slope" else vars(base)[name]
            vars(copied)[name] = MethodType(default, copied)
    if isinstance(model, Gate) and min(_depth(model, "cumulative"), _depth(model, "density")) < _depth(
        model, "vanishes_at_edges"
    ):
        vars(copied)["vanishes_at_edges"] = False  # was said of another density; masking is always right
    return copied


def is_own(model: Membrane | Gate) -> bool:
    """Whether this is an object of one of the library's classes, and nothing of it was replaced."""
    return type(model).__module__ in OWN and unaltered(model)


def unaltered(model: Membrane | Gate) -> bool:
    """Whether no attribute of the object stands in the place of one of its class, and no class was patched later."""
    kind = type(model)
    if any(hasattr(kind, name) for name in vars(model)):
        return False
    return all(map(as_made, kind._as_made.line))


def of_the_base(model: Membrane | Gate, name: str) -> bool:
    """Whether a method is the default of the interface."""
    base = Membrane if isinstance(model, Membrane) else Gate
    return getattr(getattr(model, name), "__func__", None) is vars(base)[name]


def own_step(neuron: Membrane) -> bool:
    """Whether `advance` is known to be v + h f(v, I), so that its derivatives are those of the flow."""
    function = getattr(neuron.advance, "__func__", None)
    return any(
        vars(owner)["_as_made"].made.get("advance") is function for owner in type(neuron).__mro__ if owner.__module__ in OWN
    )


def check_promises(neuron: Membrane, gate: Gate, constants: Constants, like: Tensor) -> None:
    """Evaluate a user's membrane and gate at a few places and hold them to what their interface says.

    Raises:
        ConfigurationError: results of another shape or dtype; a tensor of their own that requires a gradient, which no adjoint
            would deliver; a gate that does not rise from 0 to 1; `wraps` or `vanishes_at_edges` of what does not.
    """
    if not is_own(gate):
        _check_gate(gate, like.new_tensor(PLACES))
    if not is_own(neuron):
        _check_membrane(neuron, {name: c.detach().flatten()[:1] for name, c in constants.items()}, like.new_tensor(PLACES))


def _check_gate(gate: Gate, x: Tensor) -> None:
    name = type(gate).__name__
    level = _sound(f"{name}.cumulative", gate.cumulative(x.clone()), x)
    if not bool((level[0].abs() < EDGES) & ((level[-1] - 1.0).abs() < EDGES)):
        raise ConfigurationError(
            f"{name}.cumulative from {level[0]:g} to {level[-1]:g}", "a gate that rises from 0 to 1", "dividing by its integral"
        )
    if settled(gate).vanishes_at_edges:
        density = _sound(f"{name}.density", gate.density(x.clone()), x)
        if not bool((density[[0, -1]].abs() < EDGES).all()):
            raise ConfigurationError(
                f"{name}.vanishes_at_edges with a density of {density[0]:g} and {density[-1]:g} there",
                "zero at both edges",
                "vanishes_at_edges = False",
            )


def _check_membrane(neuron: Membrane, constants: Constants, x: Tensor) -> None:
    name = type(neuron).__name__
    if missing := [c for c in neuron.time_constants if c not in constants]:
        raise ConfigurationError(
            f"{name}.time_constants {missing}", f"names among {list(constants)}", "super().__init__(tau=...)"
        )
    c = neuron.prepare(constants)
    _sound(f"{name}.flow", neuron.flow(x.clone(), 0.5 + x, c), x)
    if not neuron.wraps:
        return
    reset = float(neuron.v_reset(c))
    if neuron.threshold != 1.0 or reset != 0.0:
        raise ConfigurationError(
            f"{name}.wraps with threshold {neuron.threshold:g} and reset {reset:g}", "threshold 1 and reset 0", "wraps = False"
        )
    top, bottom = (spread(neuron.flow(torch.full_like(x, v), 0.5 + x, c), x) for v in (1.0, 0.0))
    if not torch.allclose(top, bottom, rtol=EDGES, atol=EDGES * float(top.abs().max())):
        raise ConfigurationError(
            f"{name}.wraps with a flow of {top[1]:g} at the threshold and {bottom[1]:g} at the reset, for I = {0.5 + x[1]:g}",
            "the same flow at both, so that the reset is a translation",
            "wraps = False",
        )


def _sound(name: str, value: object, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        try:
            shape = torch.broadcast_shapes(value.shape, like.shape)
        except RuntimeError:
            shape = None
        if shape != like.shape or (value.dim() and value.dtype != like.dtype) or value.device != like.device:
            raise ConfigurationError(
                f"{name} gave {tuple(value.shape)}, {value.dtype} on {value.device}",
                f"{tuple(like.shape)}, {like.dtype} on {like.device}, as its arguments",
                "element-wise operations on them",
            )
        if value.requires_grad:
            raise ConfigurationError(
                f"{name} depends on a tensor of its own that requires a gradient, which it would not get",
                "nothing to learn in it but the named constants of a membrane",
                "Membrane.__init__(name=value), learn=(..., name), and c[name] in the flow",
            )
    elif not isinstance(value, (int, float)):
        raise ConfigurationError(f"{name} gave {type(value).__name__}", "a tensor", "torch operations on its arguments")
    return spread(value, like)


def _depth(model: Membrane | Gate, name: str) -> float:
    """How far up an attribute is found: -1 on the object, k in the k-th class, half a class less where it was patched there."""
    if name in vars(model):
        return -1.0
    for k, owner in enumerate(type(model).__mro__):
        if name in vars(owner):
            record = vars(owner).get("_as_made")
            patched = record is not None and record.made.get(name) is not vars(owner)[name]
            return k - 0.5 * patched
    return float("inf")


def _outdated(model: Membrane | Gate, name: str, harmless: set[str], base: type) -> bool:
    """Whether a function that a method may depend on was overridden below it."""
    depth = _depth(model, name)
    kinds = type(model).__mro__
    if depth < 0 or (kinds[int(depth + 0.5)] is base and name != "slope"):  # its own, or a default that is right for all
        return False
    above = {
        other for owner in kinds[int(depth + 0.5) : -1] for other, value in vars(owner).items() if hasattr(value, "__get__")
    }
    relevant = (other for other in above if not other.startswith("__") and other not in harmless)
    return any(_depth(model, other) < depth for other in relevant)


def _slope_by_autograd(self: Gate, v: Tensor, *, threshold: float, two_sided: bool) -> Tensor:
    with torch.enable_grad():
        leaf = v.detach().requires_grad_()
        level = self.integral(leaf, threshold=threshold, two_sided=two_sided)
        return torch.autograd.grad(level, leaf, torch.ones_like(level))[0]

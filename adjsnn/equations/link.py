"""Binds the loops to the functions of one system: the same code, with its own functions and numbers in the place of the names.

The loops of `adjsnn.equations.cpu` are plain functions that call the names of `adjsnn.equations.cpu.names`. Here each gets
globals of its own, in which these are what `adjsnn.equations.generate` wrote, and is then compiled.
"""

import hashlib
import types
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba.core import config

from adjsnn.equations.cpu import adjoint, events, lanes, lengths, march, mathematics, matrices, names, packets, steps
from adjsnn.equations.method import SUMS, method_numbers, method_source
from adjsnn.numerics.compiled import AS_WRITTEN, AS_WRITTEN_INLINE, AS_WRITTEN_WITHIN, REORDERED_BARE, compiled, compiled_as
from adjsnn.numerics.tableaus import TABLEAUS

_CONFIG: Any = config  # its attributes come from the environment
INTERPRETED = False  # whether loops run as Python, slow and easy to look into, as they do where numba is switched off

GENERATED = (
    "field", "pull_field", "levels_of", "level_of", "pull_level", "jump", "pull_jump",
    "packets_of", "delay_place", "deliver", "pull_delivery",
)  # fmt: skip
REORDERED = ("pull_field", "pull_level", "pull_jump")
MODULES = (steps, events, packets, lengths, march, adjoint)
ENTRIES = ("forward", "backward", "forward_kernel", "backward_kernel")
ARC = {"atan": "arctan"}  # in numpy
LONG = ("tried", "pull_step", "taken", "find", "polish", "judge", "arrive", "attempt", "event_of", "stages", "search")


class Made(NamedTuple):
    """What plain functions become: those that are called, those that are put in where they are called, those whose sums may be
    reordered, and entries, each with a name of its own."""

    within: Callable[[Any], Any]
    inline: Callable[[Any], Any]
    reordered: Callable[[Any], Any]
    entry: Callable[[str, Any], Any]


class Loops(NamedTuple):
    """The two entries, and the numbers they count by."""

    forward: Any
    backward: Any
    numbers: dict[str, Any]


def loops_of(source: str, method: str) -> Loops:
    """The loops of one system and method, compiled at their first call or read from disk.

    Args:
        source: from `generate.source_of`.
        method: the name of the tableau.
    """
    return _linked(source, method, INTERPRETED or bool(_CONFIG.DISABLE_JIT))


@cache
def _linked(source: str, method: str, interpreted: bool) -> Loops:
    """The same for loops of Python, or compiled ones."""

    def entry(name: str, function: Any) -> Any:
        return np.errstate(all="ignore")(function) if interpreted else compiled_as(name, function, **AS_WRITTEN)

    # Sums of cotangents may be taken in the order of vectors; states are the same bits as those of tensors.
    within, inline = _as(interpreted, AS_WRITTEN_WITHIN), _as(interpreted, AS_WRITTEN_INLINE)
    made = Made(within, inline, _as(interpreted, REORDERED_BARE | {"forceinline": False}), entry)
    named = bound(source, method, functions_of(interpreted), made)
    return Loops(named["forward"], named["backward"], {x: named[x] for x in named if x.isupper()})


def bound(
    source: str,
    method: str,
    functions: dict[str, Any],
    made: Made,
    modules: Sequence[Any] = (),
    instead: Sequence[Any] = (),
) -> dict[str, Any]:
    """Functions by name: those of the system, the loops, and those of further modules, in which ENTRIES are called.

    Args:
        source: from `generate.source_of`.
        method: the name of the tableau.
        functions: that equations call.
        made: what functions become.
        modules: that call the entries.
        instead: modules with functions in the place of those of `method_source`.
    """
    numbers = method_numbers(TABLEAUS[method])
    known = {name: np.asarray(x).tolist() for name, x in numbers.items()}  # they stand in the machine code
    source = f"{source}\n\n{method_source(TABLEAUS[method])}\n"
    digest = hashlib.sha256(f"{source}\n{method} {known}".encode()).hexdigest()[:16]
    own = functions | {"__name__": names.__name__, "__builtins__": __builtins__}
    exec(compile(source, f"<equations {digest}>", "exec"), own)  # what generate wrote, from expressions of sympy alone
    own |= numbers
    kinds = dict.fromkeys(GENERATED, made.within) | dict.fromkeys(REORDERED, made.reordered) | dict.fromkeys(SUMS, made.inline)
    named = {x: kind(_renamed(own[x], digest, own)) for x, kind in kinds.items()}
    own |= named
    named |= {x: own[x] for x in vars(names) if x.isupper()}
    for module in (*instead, *MODULES, *modules):
        scope = vars(module) | named
        for name, function in vars(module).items():
            if isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
                new = _renamed(function, digest, scope)
                if name in ENTRIES:
                    named[name] = made.entry(f"{name}-{digest}", new)
                else:
                    named[name] = (made.within if name in LONG else made.inline)(new)
                scope[name] = named[name]
    return named


def _as(interpreted: bool, options: dict[str, Any]) -> Callable[[Any], Any]:
    """What a function becomes."""
    return (lambda function: function) if interpreted else compiled(**options)


@cache
def functions_of(interpreted: bool) -> dict[str, Any]:
    """The functions that equations call."""
    own = {name: x for name, x in vars(mathematics).items() if isinstance(x, types.FunctionType)}
    if interpreted:  # with infinities where Python's functions raise errors
        scope: dict[str, Any] = {x: getattr(np, ARC.get(x, x), None) for x in vars(mathematics)} | {
            "math": np,
            "NEAR": mathematics.NEAR,
        }
        scope |= {name: types.FunctionType(x.__code__, scope, name) for name, x in own.items()}
        return scope | {"lane_exp": np.exp, "lane_tanh": np.tanh, "lane_sigmoid": scope["sigmoid"]}
    within, reordered = compiled(**AS_WRITTEN_INLINE), compiled(**REORDERED_BARE)
    named = {name: (reordered if name in mathematics.REORDERED else within)(x) for name, x in own.items()}
    scope = dict(vars(lanes))
    for name in ("parts", "lane_exp", "lane_tanh", "lane_sigmoid"):
        scope[name] = named[name] = within(_renamed(vars(lanes)[name], "lanes", scope))
    named |= {name: within(getattr(matrices, name)) for name in ("apply", "apply_back")}
    return {name: x for name, x in vars(mathematics).items() if not name.startswith("_")} | named


def _renamed(function: Any, digest: str, scope: dict[str, Any]) -> Any:
    """The same function in another scope, under a name that no other system's has: machine code is found by name."""
    new = types.FunctionType(function.__code__, scope, f"{function.__name__}_{digest}")
    new.__qualname__ = f"{function.__qualname__}_{digest}"
    new.__module__ = function.__module__ if function.__module__ else names.__name__
    return new

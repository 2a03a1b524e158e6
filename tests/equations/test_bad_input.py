"""Whatever cannot be right is refused in words that quote the line and point at the place."""

import contextlib
import inspect
import re
import time
from typing import Any

import numpy as np
import pytest
import torch

import adjsnn
from adjsnn import ConfigurationError

F64 = torch.float64
EYE = torch.eye(2)
# What is written on the right of dv/dt =, what the message says of it, and the column where it points (dv/dt = has 8).
RIGHT = {
    "no expression": ("-v +* 2", "no expression", 13),
    "nothing": (" ", "nothing", 8),
    "a bracket too many": ("-v)", "no expression", 11),
    "unknown name": ("-wv + ww", "unknown name 'wv'.*Try: 'w'", 10),
    "unknown function": ("tanhh(v)", "the function 'tanhh'.*Try: 'tanh'", 9),
    "current of time": ("I(t) - v", "the function 'I'.*inputs=\\('I',\\)", 9),
    "a state called": ("v + v(3)", "the function 'v'", 13),
    "too many arguments": ("1 + exp(v, 2)", "exp of 2 arguments.*expected 1", 13),
    "too few arguments": ("where(v > 0)", "where of 1 arguments.*expected 3", 9),
    "argument by name": ("exp(x=v)", "argument by name", 9),
    "starred argument": ("exp(*v)", r"'\*v'", 13),
    "built-in name": ("print", "unknown name 'print'", 9),
    "built-in function": ("2*open(v)", "the function 'open'", 11),
    "import": ('__import__("os")', "the function '__import__'", 9),
    "attribute": ("v.__class__", "'v.__class__'", 9),
    "call of an attribute": ("v.real()", "the function 'v.real'", 9),
    "subscript": ("v + v[0]", r"'v\[0\]'", 13),
    "lambda": ("(lambda: v)", "'lambda: v'", 10),
    "string": ("v + 'a'", '"\'a\'"', 13),
    "f-string": ("f'{v}'", "f'", 9),
    "walrus": ("v + (w := v)", "w := v", 14),
    "comprehension": ("[v for v in v]", "'\\[v for v in v\\]'", 9),
    "conditional": ("v if v > 0 else 1", "'v if v > 0 else 1'", 9),
    "comparison as a number": ("1 + (v > 0)", "'v > 0'", 14),
    "bool": ("True", "'True'", 9),
    "complex": ("2*1j", "'1j'", 11),
    "root of a negative number": ("v + sqrt(-1)", "v \\+ I", 8),
    "infinite number": ("-1e999", "'1e309'", 10),
    "infinite integer": ("9" * 400 + "*v", "'9999", 9),
    "infinite product": ("1e308*1e308*v", "too large", 8),
    "huge power": ("9**9**9", "a real number", 9),
    "power of a state": ("v**9999", "the power 9999", 12),
    "power of a power": ("(((9*v)**64)**64)**64", "too large", 10),
    "negative base": ("(-2)**v", "a power of -2", 10),
    "division by zero": ("v/(1 - 1)", "a division by zero", 12),
    "division by nothing that is left": ("1/(v - v)", "a division by zero", 12),
    "floor division": ("v // 2", "'v // 2'", 9),
    "the limit of numbers": ("inf", "infinity", 9),
    "after powers written as in Brian": ("v^2 + v^3 + z", "unknown name 'z'", 21),
    "after a Greek letter": ("μ + τμ", "unknown name 'τμ'", 13),
    "nested": ("exp(" * 150 + "v" + ")" * 150, "more than 60 operations", 8),
    "nested brackets": ("(" * 5000 + "v" + ")" * 5000, "more than|too many", None),
    "many signs": ("-" * 90_000 + "v", "more than|no expression", None),
    "long sum": ("+".join(f"v*{k}" for k in range(5000)), "more than", 8),
    "long product": ("*".join(["(v + 1)"] * 3000), "more than", 8),
    "matrix alone": ("sum(W @ x) + W", "matrix 'W' by itself", 22),
    "no matrix": ("v @ x", "'v' before @", 9),
    "matrix of what is no name": ("sum((W + 1) @ x)", "what is no name|by itself", None),
    "wrong columns": ("sum(W @ v)", "W of 2 × 2 @ a vector of 1", 13),
    "another size": ("x", "a right side of 2.*expected 1", 8),
    "two sizes": ("sum(x + y3)", "x of 2, y3 of 3", 9),
    "fired": ("W @ fired", "W @ fired in a reset", 13),
    "noise": ("v + xi", "noise", 13),
    "random numbers": ("rand()", "random numbers", 9),
    "number of a unit": ("v + i", "the number of a unit", 13),
    "condition that is none": ("where(v, 1, 2)", "a comparison by < or >", 15),
    "equality": ("where(v == 1, 1, 2)", "a comparison by < or >", 15),
}  # fmt: skip


@pytest.mark.parametrize(("right", "message", "column"), RIGHT.values(), ids=RIGHT)
def test_expressions(right: str, message: str, column: int | None):
    before = time.process_time()
    with pytest.raises(ConfigurationError, match=re.compile(message, re.DOTALL)) as caught:
        adjsnn.Equations(
            f"dμ/dt = 0\ndv/dt = {right}\ndw/dt = 0\ndx/dt = 0\ndy3/dt = 0",
            size={"x": 2, "y3": 3},
            parameters={"W": EYE},
        )
    assert time.process_time() - before < 5.0
    said = str(caught.value)
    assert "at line 2, column" in said or "at line 1, column" in said
    assert len(said) < 700
    if column is not None:
        assert f"at line 2, column {column} of " in said
    if len(right) < 60:
        assert right.strip() in said or repr(f"dv/dt = {right}")[1:-1].strip() in said


TEXTS: dict[str, tuple[Any, str]] = {
    "no text": (3, "equations of type int"),
    "no equation": ("x = 3", "no equation of a state"),
    "no name": ("dv/dt = -v\n3x = 2", "'3x'.*line 2, column 1"),
    "a line that does not end": ("dv/dt = (-v", "a line that does not end.*parentheses"),
    "circle": ("dv/dt = a\na = b\nb = a + v", "'a', which needs itself \\(a → b → a\\).*'b = a \\+ v'"),
    "circle of one": ("dv/dt = a\na = a", "a → a"),
    "circle that nothing needs": ("dv/dt = 0\na = b\nb = a", "needs itself"),
    "twice": ("dv/dt = -v\ndv/dt = v", "'v' a second time at line 2"),
    "also a subexpression": ("dv/dt = -v\nx = v\nx = 1", "'x' a second time at line 3"),
    "also a parameter": ("dv/dt = -v\nk = v", "'k' a second time"),
    "also an input": ("dv/dt = -v\nI = v", "'I' a second time"),
    "declared without a value": ("dv/dt = -v\nc : 1", "'c' without a value at line 2, column 1"),
    "time": ("dt/dt = 1", "'t', which has a meaning"),
    "function": ("dexp/dt = 1", "'exp', which has a meaning"),
    "keyword": ("dlambda/dt = 1", "'lambda', which has a meaning"),
    "underscore": ("d_v/dt = 1", "'_v', which has a meaning.*v_0"),
    "superscript": ("dv²/dt = 1", "'v²'"),
    "power in letters": ("dv/dt = v²", "no expression"),
    "long": ("dv/dt = " + "v" * 100_001, "at most 100000"),
    "flag": ("dv/dt = -v : 1 (unless refractory)", "\\(unless refractory\\).*a guard of its own"),
    "event-driven": ("dv/dt = -v : 1 (event-driven)", "the equation as it is"),
    "summed": ("dv/dt = -v : 1\nx = v : 1 (summed)", "summed.*W @ x"),
    "no unit": ("dv/dt = -v :", "no unit after the colon"),
    "division of nothing": ("dv/dt = 1/", "no expression"),
    "unused subexpression": ("dv/dt = -v\nx = zz", "unknown name 'zz'"),
}


@pytest.mark.parametrize(("text", "message"), TEXTS.values(), ids=TEXTS)
def test_texts(text: Any, message: str):
    before = time.process_time()
    with pytest.raises(ConfigurationError, match=re.compile(message, re.DOTALL)):
        adjsnn.Equations(text, parameters={"k": 1.0}, inputs=("I",))
    assert time.process_time() - before < 5.0


EVENTS: dict[str, tuple[Any, Any, str]] = {
    "no comparison": ("v", "", "'v'.*one comparison"),
    "equality": ("v == 1", "", "'v == 1'"),
    "and": ("v > 1 and w > 2", "", "one comparison"),
    "chain": ("0 < v < 1", "", "one comparison"),
    "two lines": ("v > 1\nw > 1", "", "one comparison"),
    "nothing": ("", "", "one comparison"),
    "never moves": ("a > 1", "", "nothing moves"),
    "input": ("v > I", "", "'I', an input, of which events are not functions"),
    "no text": (3, "", "threshold of type int"),
    "reset without a threshold": (None, "v = 0", "a reset without a threshold"),
    "unknown state": ("v > 1", "vv = 0", "'vv', no state.*line 1, column 1.*Try: 'v'"),
    "parameter": ("v > 1", "v = 0; a = 0", "'a', no state.*column 8"),
    "no right side": ("v > 1", "v =", "nothing"),
    "comparison": ("v > 1", "v == 1", "an assignment"),
    "power": ("v > 1", "v **= 2", "'v \\*'"),
    "by zero": ("v > 1", "v /= 0", "a division by zero"),
    "other size": ("x > 1", "y3 = 0", "y3 of 3 at a guard of 2"),
    "another vector": ("x > 1", "x = y3", "a vector of another size"),
    "sum": ("x > 1", "v = sum(x)", "sum in a reset"),
    "coupling of another size": ("x > 1", "y3 += W @ fired", "W of 3 × 2, added"),
    "coupling that is set": ("x > 1", "x = W @ fired", "W of 2 × 2, added"),
    "coupling before a change": ("x > 1", "x += W @ fired; x = 0", "x after x \\+= W @ fired"),
    "coupling that is read": ("x > 1", "x += W @ fired; v = x", "which has got W @ fired"),
    "names of no threshold": ({"a": "v > 1"}, {"b": "v = 0"}, "resets of \\['b'\\]"),
    "reset of another kind": ("v > 1", {"b": "v = 0"}, "reset of type dict"),
}


@pytest.mark.parametrize(("threshold", "reset", "message"), EVENTS.values(), ids=EVENTS)
def test_events(threshold: Any, reset: Any, message: str):
    with pytest.raises(ConfigurationError, match=re.compile(message, re.DOTALL)):
        adjsnn.Equations(
            "dv/dt = I\ndw/dt = 0\ndx/dt = 0\ndy3/dt = 0",
            threshold=threshold,
            reset=reset,
            parameters={"a": 1.0, "W": EYE},
            inputs=("I",),
            size={"x": 2, "y3": 3},
        )


PARAMETERS: dict[str, tuple[Any, str]] = {
    "nan": (float("nan"), "not finite"),
    "infinity": (torch.tensor(float("inf")), "not finite"),
    "complex": (1j, "complex128"),
    "bool": (True, "torch.bool"),
    "none": (None, "NoneType"),
    "object": (object(), "object"),
    "ragged": ([[1.0, 2.0], [3.0]], "list"),
    "empty": (torch.zeros(2, 0), "shape \\(2, 0\\)"),
    "three dimensions": (torch.zeros(2, 2, 2), "shape \\(2, 2, 2\\)"),
    "too large": (10**400, "int"),
    "with a gradient": (torch.ones((), requires_grad=True), "learn=\\('a',\\)"),
}


@pytest.mark.parametrize(("value", "message"), PARAMETERS.values(), ids=PARAMETERS)
def test_parameters(value: Any, message: str):
    with pytest.raises(ConfigurationError, match=f"parameters\\['a'\\].*{message}"):
        adjsnn.Equations("dv/dt = -a*v", parameters={"a": value})


@pytest.mark.parametrize(
    "name", ["forward", "train", "states", "numbers", "model", "t", "pi", "exp", "fired", "_x", "a b", "", 3]
)
def test_names_of_parameters_and_inputs_that_have_a_meaning(name: Any):
    with pytest.raises(ConfigurationError, match="without a meaning"):
        adjsnn.Equations("dv/dt = -v", parameters={name: 1.0})
    if name in ("t", "pi", "exp", "fired", "_x", "a b", ""):
        with pytest.raises(ConfigurationError, match="without a meaning"):
            adjsnn.Equations("dv/dt = -v", inputs=(name,))


LEARN = {
    "unknown": ("aa", "learn='aa'.*Try: 'a'"),
    "unused": ("b", "of which nothing is a function"),
    "no name": (3, "learn=3"),
}


@pytest.mark.parametrize(("learn", "message"), LEARN.values(), ids=LEARN)
def test_learn(learn: Any, message: str):
    with pytest.raises(ConfigurationError, match=message):
        adjsnn.Equations("dv/dt = -a*v", parameters={"a": 1.0, "b": 2.0}, learn=learn)


def test_one_name_for_an_input_and_a_parameter():
    with pytest.raises(ConfigurationError, match="'I' as an input and as a parameter"):
        adjsnn.Equations("dv/dt = I", parameters={"I": 1.0}, inputs=("I",))


@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize(
    ("u", "y0", "s", "message"),
    [
        (3, 1, 2, "3 inputs; expected 1: I"),
        (0, 1, 2, "0 inputs; expected 1: I"),
        (1, 2, 2, "a state of 2 entries; expected 1: v"),
        (1, 1, 3, "s of 3 samples with 2"),
    ],
)
def test_trials(u: int, y0: int, s: int, message: str, kernels: Any):
    system = adjsnn.Equations("dv/dt = I - s*v", parameters={"s": torch.ones(s)}, inputs=("I",))
    inputs = torch.zeros(2, 2, u) if u else None
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        adjsnn.solve(system, inputs, ts=[0.0, 1.0, 2.0], y0=torch.zeros(2, y0), method="dopri5", kernels=kernels)


HH = "dm/dt = alpha*(1 - m)\nalpha = 0.1*(v + 40)/(1 - exp(-(v + 40)/10))\ndv/dt = 0"
STARTS: dict[str, tuple[str, str | None, dict[str, float], str]] = {
    "rate": (HH, None, {"v": -40.0, "m": 0.0}, "'1 - exp(-(v + 40)/10)', a divisor that is zero.*line 2, column 8.*exprel"),
    "guard": ("dv/dt = 1", "1/v > 2", {"v": 0.0}, "the threshold 'event': 'v', a divisor that is zero.*'1/v > 2'"),
    "logarithm": ("dv/dt = 1 + log(v)", None, {"v": -1.0}, "'log(v)', which is nan.*column 8 of 'dv/dt = 1 + log(v)'"),
    "root": ("dv/dt = sqrt(v)", None, {"v": -1.0}, "'sqrt(v)', which is nan"),
    "overflow": ("x = exp(v)\ndv/dt = -x", None, {"v": 1000.0}, "'exp(v)', which is inf.*line 1"),
    "number": ("dv/dt = -x*v\nx = 1/none", None, {"v": 1.0}, "'none', a divisor that is zero.*Try: another none"),
    "sum": ("dv/dt = sum(1/x)\ndx/dt = 0", None, {"v": 0.0, "x": 0.0}, "'x', a divisor that is zero.*unit 0"),
}


@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize(("text", "threshold", "start", "message"), STARTS.values(), ids=STARTS)
def test_starts_without_a_value(text: str, threshold: str | None, start: dict[str, float], message: str, kernels: Any):
    size = {"x": 2} if "x" in start else 1
    system = adjsnn.Equations(text, threshold=threshold, size=size, parameters={"none": 0.0}, dtype=F64)
    y0 = system.start(2, dtype=F64, **start)
    with pytest.raises(ConfigurationError, match=re.escape(message).replace("\\.\\*", ".*").replace(".*", "(?s:.*)")):
        adjsnn.solve(system, None, ts=[0.0, 1.0], y0=y0, method="dopri5", kernels=kernels)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_what_a_zero_divides_may_vanish(dtype: torch.dtype):
    system = adjsnn.Equations(
        "dv/dt = exp(-1/width)*c - c", parameters={"width": 0.0, "c": 2.0}, learn="c", initial={"v": 0.0}, dtype=dtype
    )
    for kernels in ("plain", "fused"):
        system.zero_grad()
        sol = adjsnn.solve(system, None, ts=[0.0, 3.0], method="dopri5", kernels=kernels)
        sol.y[-1].sum().backward()
        assert (sol.y.dtype, float(sol.y[-1].detach()), float(system.c.grad)) == (
            dtype,
            pytest.approx(-6.0),
            pytest.approx(-3.0),
        )


def test_a_branch_that_is_not_chosen_needs_no_value():
    """Nor has it a gradient: the same in both bodies."""
    system = adjsnn.Equations(
        "dv/dt = where(v > 0, a*sqrt(v), -a*v) + exprel(v)", parameters={"a": 0.5}, learn=("a",), dtype=F64
    )
    found = []
    for kernels in ("plain", "fused"):
        y0 = torch.tensor([[-2.0], [0.5]], dtype=F64, requires_grad=True)
        sol = adjsnn.solve(system, None, ts=[0.0, 0.1], y0=y0, method="dopri5", kernels=kernels)  # pyright: ignore[reportArgumentType]
        found.append(torch.autograd.grad(sol.y[-1].sum(), [y0, *system.parameters()]))
    for one, other in zip(*found, strict=True):
        assert bool(one.isfinite().all())
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


HIDDEN = {
    "root": ("r = sqrt(v)\ndv/dt = where(v > 0, a*r, -a*v)", {}),
    "chain": ("q = 2*r - r**2\nr = log(v)\ndv/dt = where(v > 0, a*q + r, -a*v)", {}),
    "nested": ("r = where(v > -3, a/v**0.5, v)\ndv/dt = where(v > 0, r, -a*v) + where(v > 0, 0.1*r, 0)", {}),
    "overflow": ("r = exp(-2000*v)\ndv/dt = where(v > 0, a*r, -a*v)", {}),
    "vector": ("r = sqrt(v)\ndv/dt = where(v > 0, a*r, -a*mean(v))", {"size": 5}),
    "reset": ("dv/dt = -a*v\ndw/dt = 20*a", {"threshold": "w > 1", "reset": "w = sqrt(v); w = where(v > 0, w, 0); v -= 0.1"}),
}


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("loops", ["python", pytest.param("compiled", marks=[pytest.mark.compiled, pytest.mark.slow])])
def test_a_name_in_a_branch_that_is_not_chosen_has_no_gradient(name: str, loops: str):
    """Its slope is infinite there, or no number, and is not multiplied with the zero that comes back from the branch."""
    del loops
    text, given = HIDDEN[name]
    system: Any = adjsnn.Equations(text, parameters={"a": 0.5}, learn=("a",), dtype=F64, **given)
    start = system.start(2, v=-1.0, w=0.0) if name == "reset" else system.start(2, v=torch.tensor([[-1.0], [0.5]]))
    found = []
    for kernels in ("plain", "fused"):
        y0 = start.clone().requires_grad_()
        sol: Any = adjsnn.solve(system, None, ts=[0.0, 0.2], y0=y0, method="dopri5", kernels=kernels)
        found.append((sol.y, *torch.autograd.grad(sol.y[-1].square().sum(), [y0, system.a])))
    for one, other in zip(*found, strict=True):
        assert bool(one.isfinite().all())
        assert bool(one.any())
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


NAMES = [
    "forward", "train", "to", "n0", "b0", "c0", "y", "u", "p", "q", "w", "j", "tb", "D", "C", "G", "P", "S", "E", "field",
    "total", "plus", "bar", "levels", "scale", "range", "len", "beta", "zeta", "Float", "v_", "v__w", "μ", "τ", "print",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_that_mean_nothing_here_are_names(name: str):
    """Of states, of subexpressions and of parameters; both bodies say the same."""
    own = "a" if hasattr(adjsnn.Equations, name) else name
    system = adjsnn.Equations(
        f"d{name}/dt = 2 - {name}\ndother/dt = x_{name}*{name}\nx_{name} = cos({name})\ndlast/dt = k_{own}*last",
        threshold=f"{name} > 1",
        reset=f"{name} = 0.1*other",
        parameters={f"k_{own}": 0.3},
        learn=(f"k_{own}",),
        initial={name: 0.5, "other": 0.0, "last": 1.0},
        dtype=F64,
    )
    ours, theirs = (adjsnn.solve(system, None, ts=[0.0, 1.0], method="dopri5", kernels=x) for x in ("fused", "plain"))
    assert ours.event_index.tolist() == [[0]]
    torch.testing.assert_close(ours.y, theirs.y, rtol=1e-12, atol=1e-13)


def test_letters_that_look_alike_are_one():
    """The micro sign and the Greek letter, as Python has it."""
    system = adjsnn.Equations("dv/dt = -v/\u00b5", parameters={"\u03bc": 2.0})
    assert adjsnn.Equations("dv/dt = -v/\u03bc", parameters={"\u00b5": 2.0}).numbers == system.numbers == {"\u03bc": 2.0}


def test_a_reset_sees_what_it_has_changed():
    """Also through subexpressions, as Brian replaces them."""
    system = adjsnn.Equations(
        "dv/dt = 1\ndw/dt = 0\nx = 2*v + w",
        threshold="v > 1",
        reset="w = x; v = 0.25; w += x; w *= 2",
        initial={"v": 0.0, "w": 0.5},
        dtype=F64,
    )
    for kernels in ("plain", "fused"):
        sol = adjsnn.solve(system, None, ts=[0.0, 1.0 + 1e-9], method="dopri5", kernels=kernels)  # pyright: ignore[reportArgumentType]
        # w = 2·1 + 0.5 = 2.5, then x = 2·0.25 + 2.5 = 3, w = 2·5.5.
        torch.testing.assert_close(sol.y[-1], torch.tensor([[0.25, 11.0]], dtype=F64), rtol=0.0, atol=1e-8)


def test_long_texts_are_read_at_once():
    """What a careless reader would need exponential time, or Python's stack, for."""
    before = time.process_time()
    chain = "\n".join(f"x{k} = x{k - 1} + x{k - 1}*v" for k in range(1, 80))
    for text, reset in (
        (f"dv/dt = x79\nx0 = v\n{chain}", ""),
        ("dv/dt = " + "abs(" * 25 + "v" + ")" * 25, ""),
        ("dv/dt = " + "clip(" * 15 + "v" + ",0,1)" * 15, "; ".join(["v = v*v + exp(v) + sin(v)"] * 15)),
        ("dv/dt = -v" + " " * 90_000, " " * 50_000 + "v = 0"),
        ("dv/dt = -v/ms : " + " " * 90_000 + "1", ""),
        ("dv/dt = " + "+".join(f"sin({k}*v)" for k in range(60)), ""),
    ):
        system = adjsnn.Equations(text, threshold="v > 1", reset=reset, parameters={"a": 1.0})
        compile(system.source, "source", "exec")
    assert time.process_time() - before < 20.0


JUNK = [
    None, "a", "weights", object(), int, 1j, True, -1, 0, 2.5, float("nan"), float("inf"), (), {}, [5], [1, None],
    ["tau_mem", 3], {"v": None}, {"v": "v"}, {3: "v > 1"}, np.array(["x", "y"]), torch.arange(7.0), torch.zeros(2).to_sparse(),
]  # fmt: skip


@pytest.mark.parametrize("name", list(inspect.signature(adjsnn.Equations).parameters))
def test_anything_as_an_argument(name: str):
    for value in JUNK:
        with contextlib.suppress(adjsnn.AdjsnnError):
            adjsnn.Equations(**({"text": "dv/dt = -v", "threshold": "v > 1", "reset": "v = 0"} | {name: value}))

"""Random texts of equations from their grammar, with a trial for each; and texts that are spoilt."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

import adjsnn

F64 = torch.float64
NAMES = ("v", "w", "g_e", "μ")
# Of one argument; bounded where it matters, so that flows stay where numbers are.
UNARY = (
    "sin({})", "cos({})", "tanh({})", "sigmoid({})", "arctan({})", "exp(-({})**2)", "sqrt(1 + ({})**2)", "log1p(({})**2)",
    "log(2 + cos({}))", "log10(2 + sin({}))", "exprel(sin({}))", "exprel(1e-3*tanh({}))", "expm1(tanh({}))", "abs({})",
    "clip({}, -1, 0.5)", "sinh(tanh({}))", "cosh(sin({}))", "tan(tanh({}))", "-({})", "({})/3", "tanh({})**2", "sin({})**3",
    "cos({})**5", "(2 + sin({}))**-2", "(1 + ({})**2)**0.7", "1/(1 + ({})**2)", "(3 + cos({}))**a", "(2 + cos({}))**-0.5",
    "((1 + ({})**2)**2)**0.5", "(({})**2)**0.5",
)  # fmt: skip
BINARY = ("({} + {})", "({} - {})", "({})*({})", "({})/(2 + cos({}))", "minimum({}, {})", "maximum({}, {})", "{} - ({})")
CONDITIONS = ("{} > {}", "{} <= {} + 0.1", "{} < 0.3 and {} > -0.8", "not {} > {} - 0.2", "{} < -0.1 or {} >= 0.4")
BRANCHES = ("where({c}, {x}, {y})", "int({c})*({x})", "where({c}, sqrt(abs({x}) + 1), {y})", "where({x} > 0.1, sqrt({x}), {x})")


@dataclass(frozen=True)
class EquationCase:
    """What a text and its trial are made from; `seed` fills in everything else."""

    seed: int
    states: int
    vectors: bool
    events: int
    batch: int
    outputs: int
    depth: int
    method: str
    inputs: bool


@st.composite
def equation_cases(draw: st.DrawFn) -> EquationCase:
    events = draw(st.integers(0, 2))
    return EquationCase(
        seed=draw(st.integers(0, 2**32 - 1)),
        states=draw(st.integers(1, 4)),
        vectors=draw(st.booleans()),
        events=events,
        batch=draw(st.integers(1, 3)),
        outputs=draw(st.integers(1, 3)),
        depth=draw(st.integers(0, 3)),
        method=draw(st.sampled_from(("dopri5", "tsit5") if events else ("dopri5", "tsit5", "rk4", "heun", "euler"))),
        inputs=draw(st.booleans()),
    )


class Random:
    """Writes texts of one case."""

    def __init__(self, case: EquationCase) -> None:
        self.case, self.random = case, np.random.default_rng(case.seed)
        self.n = int(self.random.integers(2, 4)) if case.vectors else 1
        self.sizes = {
            name: self.n if case.vectors and (k == 0 or self.flip()) else 1 for k, name in enumerate(NAMES[: case.states])
        }
        self.shapes = {**self.sizes, "t": 1, "a": 1, "b": 1, "k": self.n, "s": self.n if self.flip() else 1}
        self.inputs = {"I": self.n if self.flip() else 1} if case.inputs else {}
        self.extra: dict[str, int] = {}  # subexpressions

    def flip(self, p: float = 0.5) -> bool:
        return bool(self.random.random() < p)

    def pick(self, of: Any) -> Any:
        return of[int(self.random.integers(len(of)))]

    def leaf(self, size: int, names: dict[str, int]) -> str:
        if self.flip(0.2):
            return self.pick(("0.5", "2", "1/3", "pi", "1e-2", "0.25"))
        fitting = [name for name, n in names.items() if n in (1, size)]
        name = self.pick(fitting)
        return {"t": "sin(t)"}.get(name, name)

    def expression(self, size: int, depth: int, names: dict[str, int], *, single: bool = False) -> str:  # noqa: PLR0911
        """Of numbers and vectors of `size`; in a reset of one unit without sums."""
        if depth == 0:
            return self.leaf(size, names)
        kind = self.random.random()

        def inner(n: int = size) -> str:
            return self.expression(n, depth - 1, names, single=single)

        if kind < 0.35:
            return self.pick(UNARY).format(inner())
        if kind < 0.7:
            return self.pick(BINARY).format(inner(), inner())
        if kind < 0.8:
            low, high = self.random.permutation(2) * 0.3 - 0.4
            return f"clip({inner()}, {min(low, high)}, {max(low, high)} + {inner()}**2)"
        if kind < 0.9 or single or not self.case.vectors:
            branch = self.pick(BRANCHES)
            return branch.format(c=self.pick(CONDITIONS).format(inner(), inner()), x=inner(), y=inner())
        if kind < 0.95:
            return f"{self.pick(('sum', 'mean'))}({inner(self.n)})/3"
        return f"tanh(W @ (k/2 + {inner(self.n)}))" if size == self.n else inner()

    def text(self) -> str:
        depth, names = self.case.depth, {**self.shapes, **self.inputs}
        lines = []
        for k in range(int(self.random.integers(0, 3))):
            size = self.pick((1, self.n))
            lines.append(f"x{k} = {self.expression(size, depth, names)}")
            names[f"x{k}"] = self.n  # at most
            self.extra[f"x{k}"] = self.n
        for name, size in self.sizes.items():
            right = self.expression(size, depth, {x: n for x, n in names.items() if n in (1, size)})
            lines.append(f"d{name}/dt = (1.5*tanh({right}) + 0.8 - {name})/tau  # {size}")
        return "\n".join(lines[:: -1 if self.flip() else 1])

    def events(self) -> tuple[dict[str, str], dict[str, str]]:
        thresholds, resets = {}, {}
        for k, name in enumerate(list(self.sizes)[: self.case.events]):
            size = self.sizes[name]
            names = {x: n for x, n in self.shapes.items() if n in (1, size)}
            thresholds[f"e{k}"] = (
                f"{name} > 0.6 + 0.1*tanh({self.expression(size, 1, {x: n for x, n in names.items() if x != name})})"
            )
            low = self.expression(size, self.case.depth, names, single=True)
            parts = [f"{name} = -0.4 + 0.2*tanh({low})"]
            for other, n in self.sizes.items():
                if other != name and self.flip() and (n in (1, size) or size == 1):
                    change = self.expression(
                        n if size == 1 else size, 1, {x: m for x, m in names.items() if m in (1, n, size)}, single=True
                    )
                    parts.append(f"{other} {self.pick(('-=', '+='))} 0.05*(1 + tanh({change}))")
            if self.flip():
                parts.append(f"{name} *= 0.9")
            if size > 1 and self.flip():
                target = self.pick([x for x, n in self.sizes.items() if n == size])
                parts.append(f"{target} -= W @ fired")
            resets[f"e{k}"] = self.pick(("; ", "\n")).join(parts)
        return thresholds, resets


@dataclass
class Written:
    """A case as arguments of Equations and of solve."""

    arguments: dict[str, Any]
    y0: Tensor
    u: Tensor | None
    options: dict[str, Any] = field(default_factory=dict)

    def system(self) -> adjsnn.Equations:
        return adjsnn.Equations(**self.arguments)


def write(case: EquationCase) -> Written:
    writer = Random(case)
    random = writer.random
    text = writer.text()
    thresholds, resets = writer.events()
    parameters: dict[str, Any] = {"a": 0.7, "b": torch.tensor(random.uniform(0.2, 1.5), dtype=F64), "tau": 0.8}
    parameters["k"] = torch.from_numpy(random.uniform(-1.0, 1.0, writer.n)) if case.vectors else 0.3
    own = (case.batch, writer.shapes["s"]) if case.vectors else (case.batch,)
    parameters["s"] = torch.from_numpy(random.uniform(-1.0, 1.0, own))
    if case.vectors:
        parameters["W"] = torch.from_numpy(random.uniform(0.0, 0.3, (writer.n, writer.n)))
    everything = "\n".join((text, *thresholds.values(), *resets.values()))
    if "W @" not in everything:
        parameters.pop("W", None)
    arguments = {
        "text": text,
        "threshold": thresholds or None,
        "reset": resets or None,
        "parameters": parameters,
        "inputs": writer.inputs,
        "size": writer.sizes,
        "dtype": F64,
    }
    used = adjsnn.Equations(**arguments).model.used
    arguments["learn"] = tuple(x for x in parameters if x in used and writer.flip(0.8))
    width = sum(writer.sizes.values())
    y0 = torch.from_numpy(random.uniform(-0.9, 0.3, (case.batch, width)))
    u = torch.from_numpy(random.uniform(-1.0, 1.0, (case.outputs, case.batch, sum(writer.inputs.values()))))
    ts = torch.from_numpy(np.cumsum(np.append(0.0, random.uniform(0.2, 1.2, case.outputs))))
    options: dict[str, Any] = {"ts": ts, "method": case.method}
    if case.method in ("dopri5", "tsit5"):
        options |= {"rtol": 1e-5, "atol": 1e-7, "max_steps": 300}
    return Written(arguments, y0, u if writer.inputs else None, options)


GARBAGE = "dvwgx/t=+-*/()@^.,:;<>#\\\n 0123456789eE_μ'\"[]{}&|~!?%$`\t²½∞"
TOKENS = (
    "dv/dt", " = ", "exp(", "where(", ")", "(", "**", "v", "w", "1e999", "9**9", "@", "W @ ", "fired", "lambda v: v",
    "1j", "/0", ".__class__", "[0]", "and ", "not ", " if v else ", ":=", "\n", "#", ": volt", "(unless refractory)",
    "x0", "== ", "0", "nan", "inf", "t", "I", "sum(", "int(", ";", "exprel(", "'", "\\\n", "**-1", "-", "None", "True",
    "await ", "*v", "...", "__import__", "*mV", "/ms", ": 1", "^", "@fired",
)  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn) -> tuple[str, str, str]:
    """Equations, a threshold and a reset: anything, or what was right with some characters or words changed."""
    if draw(st.booleans()):
        case = EquationCase(draw(st.integers(0, 10**6)), 2, draw(st.booleans()), 1, 1, 1, 2, "dopri5", True)
        writer = Random(case)
        text = writer.text()
        thresholds, resets = writer.events()
        parts = [text, thresholds["e0"], resets["e0"]]
    else:
        parts = [draw(st.text(GARBAGE, max_size=60)) for _ in range(3)]
        parts[0] = draw(st.sampled_from(("dv/dt = ", "x = ", ""))) + parts[0] + draw(st.sampled_from(("", "\ndv/dt = -v")))
    for _ in range(draw(st.integers(0, 4))):
        k = draw(st.integers(0, 2))
        place = draw(st.integers(0, len(parts[k])))
        new = draw(st.one_of(st.sampled_from(TOKENS), st.text(GARBAGE, max_size=3), st.characters()))
        parts[k] = parts[k][:place] + new + parts[k][place + draw(st.integers(0, 3)) :]
    return parts[0], parts[1], parts[2]

"""Random HybridSystems: smooth ones, ones with guards and jumps, and one whose events have a closed form."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import adjsnn

F64 = torch.float64
KINDS = ("fixed", "adaptive", "events", "closed_form")


@dataclass(frozen=True)
class HybridCase:
    """What a system and its trial are made from; `seed` fills in the numbers."""

    seed: int
    kind: str
    method: str
    width: int
    guards: int
    batch: int
    outputs: int
    t_end: float
    inputs: bool
    time: bool
    alike: bool
    weights: str


@st.composite
def hybrid_cases(draw: st.DrawFn, *, kind: str) -> HybridCase:
    guards = draw(st.integers(1, 3)) if kind == "events" else 0
    return HybridCase(
        seed=draw(st.integers(0, 2**32 - 1)),
        kind=kind,
        method=draw(st.sampled_from(("euler", "heun", "rk4") if kind == "fixed" else ("dopri5", "tsit5"))),
        width=draw(st.integers(max(1, guards), 4)),
        guards=guards,
        batch=draw(st.integers(1, 4)),
        outputs=draw(st.integers(1, 4)),
        t_end=draw(st.sampled_from((2.0, 0.01, 1.0, 4.0))),
        inputs=draw(st.booleans()),
        time=draw(st.booleans()),
        alike=draw(st.booleans()),
        weights=draw(st.sampled_from(("usual", "zero", "strong"))),
    )


class Random(adjsnn.HybridSystem):
    """ẏ = -y/τ + tanh(W y + b + sin t) + V u; guard g is y_g - θ_g; its jump takes k_g from y_g, kicks the others down."""

    def __init__(self, case: HybridCase) -> None:
        super().__init__()
        self.case, random = case, np.random.default_rng(case.seed)

        def parameter(low: float, high: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.from_numpy(np.asarray(random.uniform(low, high, shape))))

        d, g = case.width, case.guards
        gain = {"usual": 1.0, "zero": 0.0, "strong": 3.0}[case.weights]
        self.w, self.tau, self.bias = parameter(-gain, gain, d, d), parameter(0.5, 3.0, d), parameter(0.0, 2.0, d)
        self.v, self.threshold, self.drop = parameter(-1.0, 1.0, d), parameter(0.2, 0.8, g), parameter(0.3, 1.5, g)
        self.kick = parameter(-0.2, 0.0, d, g)
        if case.alike:
            with torch.no_grad():
                for x in (self.w, self.tau, self.bias, self.threshold, self.drop):
                    x.copy_(x[:1].expand_as(x).clone())

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        x = self.bias + sum(y[:, k : k + 1] * self.w[:, k] for k in range(y.shape[1]))
        flow = torch.tanh(x + torch.sin(2.0 * t) if self.case.time else x) - y / self.tau
        return flow if u is None else flow + self.v * u

    def guard(self, t: Tensor, y: Tensor) -> Tensor | None:
        if not self.case.guards:
            return None
        level = y[:, : self.case.guards] - self.threshold
        return level + 0.1 * torch.cos(3.0 * t) - 0.1 if self.case.time else level

    def jump(self, t: Tensor, y: Tensor, fired: Tensor) -> Tensor:
        own = fired.to(y.dtype)
        lost = nn.functional.pad(own * self.drop, (0, y.shape[1] - self.case.guards))
        others = nn.functional.pad(1.0 - own, (0, y.shape[1] - self.case.guards), value=1.0)
        return y - lost + others * sum(own[:, k : k + 1] * self.kick[:, k] for k in range(self.case.guards))


class Rotor(adjsnn.HybridSystem):
    """A phase that turns with speed ω and, each time cos(phase - α) rises to c, is put back by δ: t_k = t_1 + (k - 1) δ/ω."""

    def __init__(self, case: HybridCase) -> None:
        super().__init__()
        random = np.random.default_rng(case.seed)
        self.omega = nn.Parameter(torch.tensor(random.uniform(0.5, 2.5), dtype=F64))
        self.alpha = nn.Parameter(torch.tensor(random.uniform(-3.0, 3.0), dtype=F64))
        self.level = nn.Parameter(torch.tensor(random.uniform(-0.6, 0.95), dtype=F64))
        above = 2.0 * np.arccos(self.level.item())
        self.back = nn.Parameter(torch.tensor(random.uniform(0.8, min(2.0, 2.0 * np.pi - above - 0.1)), dtype=F64))
        phase = np.pi + random.uniform(-1.0, 1.0, case.batch) * (np.pi - 0.5 * above - 0.05)  # from α, below the level
        self.phase = torch.from_numpy(phase) + self.alpha.detach()

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        return self.omega * torch.stack([-y[:, 1], y[:, 0]], 1)

    def guard(self, t: Tensor, y: Tensor) -> Tensor:
        return (y[:, 0] * self.alpha.cos() + y[:, 1] * self.alpha.sin() - self.level).unsqueeze(1)

    def jump(self, t: Tensor, y: Tensor, fired: Tensor) -> Tensor:
        c, s = self.back.cos(), self.back.sin()
        return torch.where(fired, torch.stack([c * y[:, 0] + s * y[:, 1], c * y[:, 1] - s * y[:, 0]], 1), y)

    def events(self, sample: int, t_end: float) -> Tensor:
        """Times in closed form, differentiable."""
        turn = self.alpha - torch.arccos(self.level) - self.phase[sample]
        first = (turn + 2.0 * np.pi * torch.ceil(-turn.detach() / (2.0 * np.pi))) / self.omega
        count = max(0, int((t_end - first.item()) / (self.back / self.omega).item()) + 1)
        return first + torch.arange(count if first.item() <= t_end else 0, dtype=F64) * self.back / self.omega


@dataclass
class Problem:
    system: Any
    u: Tensor | None
    y0: Tensor
    ts: Tensor
    options: dict[str, Any]

    def leaves(self) -> dict[str, Tensor]:
        return {**dict(self.system.named_parameters()), "y0": self.y0, **({} if self.u is None else {"u": self.u})}


def build(case: HybridCase) -> Problem:
    random = np.random.default_rng(case.seed + 1)
    ts = torch.from_numpy(np.cumsum(np.append(0.0, random.uniform(0.2, 1.0, case.outputs))))
    ts = ts * (case.t_end / ts[-1])
    options: dict[str, Any] = {"method": case.method}
    if case.kind == "fixed":
        options["substeps"] = 1 + case.seed % 8
    else:
        tolerance = 1e-7 if case.kind == "closed_form" else 10.0 ** random.uniform(-9.0, -4.0)
        options |= {"rtol": tolerance, "atol": tolerance}
    if case.kind == "closed_form":
        rotor = Rotor(case)
        return Problem(rotor, None, torch.stack([rotor.phase.cos(), rotor.phase.sin()], 1).requires_grad_(), ts, options)
    y0 = torch.from_numpy(random.uniform(-1.5, 0.0, (case.batch, case.width)))
    if case.alike:
        y0 = y0[:, :1].expand_as(y0).clone()
    u = torch.from_numpy(random.uniform(-1.0, 1.0, (case.outputs, case.batch, case.width))).requires_grad_()
    return Problem(Random(case), u if case.inputs else None, y0.requires_grad_(), ts, options)


@dataclass
class Found:
    """Of a solve: the error; the solution; the gradients of a loss of states and event times."""

    error: str | None
    sol: Any = None
    gradients: dict[str, Tensor] | None = None


def find(p: Problem, rows: slice = slice(None), adjoint: Any = None) -> Found:
    u = None if p.u is None else p.u[:, rows]
    try:
        sol = adjsnn.solve(p.system, u, y0=p.y0[rows], ts=p.ts, adjoint=adjoint, **p.options)
    except (adjsnn.EventError, adjsnn.IntegrationError) as error:
        return Found(type(error).__name__)
    w = torch.cos(torch.arange(sol.y.shape[0] * sol.y.shape[2], dtype=F64)).view(sol.y.shape[0], 1, sol.y.shape[2])
    times = sol.event_times[sol.event_index >= 0]
    total = (w * (sol.y + sol.y.square())).sum() + (times + 0.1 * times.square()).sum()
    values = torch.autograd.grad(total, list(p.leaves().values()), retain_graph=True, allow_unused=True, materialize_grads=True)
    return Found(None, sol, dict(zip(p.leaves(), values, strict=True)))

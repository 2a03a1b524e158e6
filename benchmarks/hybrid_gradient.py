"""One gradient of a HybridSystem, several ways: time side by side.

    python benchmarks/hybrid_gradient.py [--threads 1] [--rounds 5] [--problem rk4]

Four problems in float64. "rk4" and "dopri5": 64 samples of 32 leaky tanh units, τ ẏ = -y + tanh(W y + b), over 200 ms, by rk4
steps of 1 ms and by dopri5 at 1e-6, the gradient of the mean square of all outputs, and of the last. "balls": 256 bouncing
balls, the gradient of end states and contact times. "izhikevich": 64 Izhikevich neurons with a constant drive over 200 ms,
dopri5 at 1e-5, the gradient of end states and spike times. Compared are adjsnn's DiscreteAdjoint and BPTT, the same system
written as text, `adjsnn.Equations`, which compiles it, and, where there are no events, torchdiffeq's odeint on autograd's tape
and its odeint_adjoint. Problems of text alone: "many_balls", 10,000 of them; "hodgkin_huxley", 1,000 squid axons over 100 ms,
the gradient of their spike times by all conductances; "adex", 100 AdEx neurons, all to all, with a delay for each source.

Each method runs in a process of its own, in rounds that alternate between the methods; times are medians over all rounds.
"""

from __future__ import annotations  # an older checkout, which `two_checkouts.py` may measure, has no Equations

import argparse
import json
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn

import adjsnn
from adjsnn.training.runs import processor

F64 = torch.float64
WARM_UP = 2  # gradients before the measured ones
PROBLEMS = {
    "rk4": "64 × 32 leaky tanh units, rk4, 200 steps of 1 ms",
    "dopri5": "64 × 32 leaky tanh units, dopri5 at 1e-6, 200 ms",
    "balls": "256 bouncing balls, dopri5 at 1e-6",
    "izhikevich": "64 Izhikevich neurons, dopri5 at 1e-5, 200 ms",
    "many_balls": "10,000 bouncing balls, dopri5 at 1e-6",
    "hodgkin_huxley": "1,000 Hodgkin–Huxley neurons, dopri5 at 1e-6, 100 ms",
    "adex": "100 AdEx neurons, all to all, delays, dopri5 at 1e-6, 100 ms",
}
TEXTS = ("many_balls", "hodgkin_huxley", "adex")  # problems of text alone
LABELS = {
    "adjsnn": "adjsnn, DiscreteAdjoint",
    "equations": "adjsnn.Equations",
    "bptt": "adjsnn, BPTT",
    "tape": "torchdiffeq.odeint on the tape",
    "torchdiffeq": "torchdiffeq.odeint_adjoint",
}
ADEX = """
dv/dt = (g_l*(E_l - v) + g_l*slope*exp((v - V_t)/slope) - w + I - g*v)/C
dw/dt = (a*(v - E_l) - w)/tau_w
dg/dt = -g/5
"""
WRITTEN: dict[str, adjsnn.Equations] = {}
RESULTS = Path(__file__).parent / "results"


def parameter(x: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(x, dtype=F64))


class Units(adjsnn.HybridSystem):
    """τ ẏ = -y + tanh(W y + b)."""

    def __init__(self, n: int = 32) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.w = nn.Parameter(1.2 * torch.randn(n, n, generator=random, dtype=F64) / n**0.5)
        self.b = nn.Parameter(0.1 * torch.randn(n, generator=random, dtype=F64))
        self.tau = nn.Parameter(torch.linspace(10.0, 30.0, n, dtype=F64))

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        return (torch.tanh(y @ self.w.T + self.b) - y) / self.tau

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """As torchdiffeq calls it."""
        return self.vector_field(t, y, None)


class Ball(adjsnn.HybridSystem):
    """y = (height, speed); the floor takes 1 - e of the speed."""

    def __init__(self) -> None:
        super().__init__()
        self.gravity, self.bounce, self.floor = parameter(9.81), parameter(0.8), parameter(0.0)

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        return torch.stack([y[:, 1], -self.gravity + 0.0 * y[:, 0]], 1)

    def guard(self, t: Tensor, y: Tensor) -> Tensor:
        return self.floor - y[:, :1]

    def jump(self, t: Tensor, y: Tensor, fired: Tensor) -> Tensor:
        return torch.where(fired, torch.stack([y[:, 0], -self.bounce * y[:, 1]], 1), y)


class Izhikevich(adjsnn.HybridSystem):
    """v̇ = 0.04 v² + 5 v + 140 - w + I, ẇ = a (b v - w); at v = 30: v ← c, w ← w + d."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = parameter(0.02), parameter(0.2), parameter(-65.0)
        self.d, self.drive = parameter(8.0), parameter(10.0)

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        v, w = y.unbind(1)
        return torch.stack([0.04 * v * v + 5.0 * v + 140.0 - w + self.drive, self.a * (self.b * v - w)], 1)

    def guard(self, t: Tensor, y: Tensor) -> Tensor:
        return y[:, :1] - 30.0

    def jump(self, t: Tensor, y: Tensor, fired: Tensor) -> Tensor:
        return torch.where(fired, torch.stack([self.c + 0.0 * y[:, 0], y[:, 1] + self.d], 1), y)


def written(name: str) -> adjsnn.Equations:
    """The same systems as text, and those of text alone."""
    if name in ("rk4", "dopri5"):
        units = Units()
        values = {name: x.detach() for name, x in units.named_parameters()}
        return adjsnn.Equations("dx/dt = (tanh(w @ x + b) - x)/tau", size=32, parameters=values, learn=tuple(values))
    if name in ("balls", "many_balls"):
        return adjsnn.Equations(
            "dx/dt = v\ndv/dt = -gravity",
            threshold="x < floor",
            reset="v = -bounce*v",
            parameters={"gravity": 9.81, "bounce": 0.8, "floor": 0.0},
            learn=("gravity", "bounce", "floor"),
            dtype=F64,
        )
    if name == "hodgkin_huxley":
        return hodgkin_huxley()
    if name == "adex":
        return adex()
    return adjsnn.Equations(
        "dv/dt = 0.04*v**2 + 5*v + 140 - w + drive\ndw/dt = a*(b*v - w)",
        threshold="v > 30",
        reset="v = c; w += d",
        parameters={"a": 0.02, "b": 0.2, "c": -65.0, "d": 8.0, "drive": 10.0},
        learn=("a", "b", "c", "d", "drive"),
        dtype=F64,
    )


def hodgkin_huxley() -> adjsnn.Equations:
    """The squid axon (Hodgkin & Huxley 1952), potentials from rest at -65 mV."""
    return adjsnn.Equations(
        """
        dv/dt = (I - g_na*m**3*h*(v - 50) - g_k*n**4*(v + 77) - g_l*(v + 54.4))/C
        dm/dt = (1 - m)/exprel(-(v + 40)/10) - m*4*exp(-(v + 65)/18)
        dh/dt = (1 - h)*0.07*exp(-(v + 65)/20) - h*sigmoid((v + 35)/10)
        dn/dt = (1 - n)*0.1/exprel(-(v + 55)/10) - n*0.125*exp(-(v + 65)/80)
        """,
        threshold="v > 0",
        parameters={"g_na": 120.0, "g_k": 36.0, "g_l": 0.3, "C": 1.0, "I": torch.linspace(8.0, 20.0, 1000, dtype=F64)},
        learn=("g_na", "g_k", "g_l"),
        dtype=F64,
    )


def adex() -> adjsnn.Equations:
    """AdEx neurons (Brette & Gerstner 2005), which excite each other after delays."""
    random = torch.Generator().manual_seed(0)
    n = 100
    values = {
        "I": 600.0 + 400.0 * torch.rand(n, generator=random, dtype=F64),
        "W": 0.2 * torch.rand(n, n, generator=random, dtype=F64),
        "delay": 0.5 + 2.0 * torch.rand(n, generator=random, dtype=F64),
    }
    numbers = {"g_l": 30.0, "E_l": -70.6, "slope": 2.0, "V_t": -50.4, "C": 281.0, "a": 4.0, "tau_w": 144.0, "b": 80.5}
    return adjsnn.Equations(
        ADEX,
        threshold="v > -40",
        reset="v = E_l; w += b",
        size=n,
        parameters=values | numbers,
        learn=("W", "delay", "I", "b"),
        synapses={"g": {"weight": "W", "delay": "delay"}},
        dtype=F64,
    )


def problem(name: str) -> tuple[Any, dict[str, Any]]:
    """The system and the options of its solve."""
    random = torch.Generator().manual_seed(1)
    if name in ("rk4", "dopri5"):
        y0 = torch.randn(64, 32, generator=random, dtype=F64)
        if name == "rk4":
            return Units(), {"y0": y0, "ts": torch.arange(201, dtype=F64), "method": "rk4"}
        return Units(), {"y0": y0, "ts": torch.tensor([0.0, 200.0], dtype=F64), "method": "dopri5", "rtol": 1e-6, "atol": 1e-6}
    if name in TEXTS[1:]:
        system, ts = written(name), torch.tensor([0.0, 100.0], dtype=F64)
        if name == "adex":
            y0 = system.start(1, v=-70.6 + 10.0 * torch.rand(100, generator=random, dtype=F64), w=0.0, g=0.0)
        else:
            y0 = system.start(1000, v=-65.0, m=0.0529, h=0.596, n=0.3177)
        return system, {"y0": y0, "ts": ts, "method": "dopri5", "rtol": 1e-6, "atol": 1e-6, "max_steps": 100_000}
    if name in ("balls", "many_balls"):
        count = 256 if name == "balls" else 10_000
        height = 0.3 + 0.7 * torch.rand(count, 1, generator=random, dtype=F64)
        y0 = torch.cat([height, torch.zeros_like(height)], 1)
        return Ball(), {"y0": y0, "ts": torch.tensor([0.0, 2.0], dtype=F64), "method": "dopri5"}
    v = torch.linspace(-70.0, -55.0, 64, dtype=F64)
    y0 = torch.stack([v, torch.full_like(v, -14.0)], 1)
    return Izhikevich(), {
        "y0": y0, "ts": torch.tensor([0.0, 200.0], dtype=F64), "method": "dopri5", "rtol": 1e-5, "atol": 1e-5,
    }  # fmt: skip


def methods_of(name: str) -> tuple[str, ...]:
    if name in TEXTS:
        return ("equations",)
    return tuple(LABELS) if name in ("rk4", "dopri5") else ("adjsnn", "equations", "bptt")


def gradient(name: str, method: str) -> list[Tensor]:
    """The gradient by y0 and all parameters."""
    system, options = problem(name)
    if method == "equations":
        if name not in WRITTEN:  # reading a text takes as long as a small solve
            WRITTEN[name] = written(name)
        system = WRITTEN[name]
    y0 = options.pop("y0").requires_grad_()
    if method in ("adjsnn", "equations", "bptt"):
        sol = adjsnn.solve(system, None, y0=y0, adjoint=adjsnn.BPTT() if method == "bptt" else None, **options)
        loss = sol.y.square().mean()
        if sol.event_times.numel():
            loss = loss + 0.01 * torch.where(sol.event_index >= 0, sol.event_times, 0.0).sum()
    else:
        ts = options.pop("ts")
        solve = torchdiffeq.odeint if method == "tape" else torchdiffeq.odeint_adjoint
        y: Any = solve(system, y0, ts, **options)
        loss = y.square().mean()
    return list(torch.autograd.grad(loss, [y0, *system.parameters()]))


def measure(name: str, method: str, repeats: int) -> list[float]:
    """Seconds of each repetition after WARM_UP unmeasured ones."""
    seconds = []
    for _ in range(repeats + WARM_UP):
        start = time.perf_counter()
        gradient(name, method)
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def off(name: str, method: str) -> float:
    """Largest difference of a gradient from adjsnn's BPTT, relative to the largest entry of each tensor."""
    pairs = zip(gradient(name, method), gradient(name, "bptt"), strict=True)
    return max(float((x - y).abs().max() / y.abs().max()) for x, y in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of one gradient of a HybridSystem, several ways.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of each method in each round")
    parser.add_argument("--problem", choices=PROBLEMS, action="append", help="one of the problems; may be given again")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/results, which git keeps")
    parser.add_argument("--one", choices=LABELS, help="measure one method and print JSON; used by the rounds")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = options.problem or list(PROBLEMS)
    if options.one:
        print(json.dumps(measure(names[0], options.one, options.repeats)))
        return
    seconds: dict[tuple[str, str], list[float]] = {(name, method): [] for name in names for method in methods_of(name)}
    for _ in range(options.rounds):
        for name, method in seconds:
            command = [sys.executable, __file__, "--one", method, "--problem", name]
            command += ["--threads", str(options.threads), "--repeats", str(options.repeats)]
            seconds[name, method] += json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    table = report(seconds, options.threads)
    print(table)
    if options.write:
        (RESULTS / "hybrid_gradient.md").write_text(table)


def report(seconds: dict[tuple[str, str], list[float]], threads: int) -> str:
    lines = [
        "# One gradient of a HybridSystem",
        "",
        f"Forward run and gradient, float64. {processor()}, {threads} thread{'s' if threads > 1 else ''}, "
        f"torch {torch.__version__}, torchdiffeq {torchdiffeq.__version__}, {date.today()}. Written by "
        "`benchmarks/hybrid_gradient.py`.",
        "",
        "| problem | method | median ms | fastest ms | slowest ms | time / adjsnn | gradient off by |",
        "|---|---|---|---|---|---|---|",
    ]
    for (name, method), times in seconds.items():
        ours = statistics.median(seconds.get((name, "adjsnn"), times))
        difference = "-" if method == "bptt" or name in TEXTS else f"{off(name, method):.1e}"
        lines.append(
            f"| {PROBLEMS[name]} | {LABELS[method]} | {1e3 * statistics.median(times):.1f} | {1e3 * min(times):.1f} "
            f"| {1e3 * max(times):.1f} | {statistics.median(times) / ours:.3f} | {difference} |"
        )
    lines += [
        "",
        "Gradients are compared with those of adjsnn's BPTT, which takes the same steps; torchdiffeq's adaptive steps are "
        "others, and its adjoint is not the gradient of the computed cost.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

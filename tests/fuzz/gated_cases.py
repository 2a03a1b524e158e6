"""Random gated networks, their inputs, and what a solve of one by either body found."""

import copy
import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from fuzzing import ALLOWED, FLOOR, PARTED, nudged
from hypothesis import strategies as st
from torch import Tensor

import adjsnn
from adjsnn import GatedState

F64 = torch.float64


class Soft(adjsnn.Membrane):
    """f = (I - v + tanh(3 v))/τ: a membrane of one's own with autograd's derivatives."""

    time_constants = ("tau",)

    def __init__(self) -> None:
        super().__init__(tau=18.0, v_reset=-0.3)

    def flow(self, v: Tensor, current: Tensor, c: Any) -> Tensor:
        return (current - v + torch.tanh(3.0 * v)) / c["tau"]


class TwoSided(adjsnn.Membrane):
    """f = (I - v)/τ between thresholds at ±1."""

    time_constants = ("tau",)
    two_sided = True

    def __init__(self) -> None:
        super().__init__(tau=15.0)

    def flow(self, v: Tensor, current: Tensor, c: Any) -> Tensor:
        return (current - v) / c["tau"]


class SmoothStep(adjsnn.Gate):
    """Density 6x(1 - x), by autograd."""

    def cumulative(self, x: Tensor) -> Tensor:
        return x * x * (3.0 - 2.0 * x)


NEURONS = {
    "nif": adjsnn.NIF,
    "lif": partial(adjsnn.LIF, 20.0, -0.2),
    "lif_zero": partial(adjsnn.LIF, 12.0, 0.0),
    "qif": partial(adjsnn.QIF, 25.0),
    "soft": Soft,
    "two_sided": TwoSided,
}
GATES = {"rectangular": adjsnn.RectangularGate, "raised_cosine": adjsnn.RaisedCosineGate, "own": SmoothStep}
DRIVE = {"nif": 0.1, "lif": 1.3, "lif_zero": 1.3, "qif": 0.12, "soft": 0.8, "two_sided": 1.3}  # with which each one spikes


@dataclass(frozen=True)
class GatedCase:
    """What a network and its trial are made from; `seed` fills in the numbers."""

    seed: int
    neuron: str
    gate: str
    width: float
    n_in: int
    n_hidden: int
    batch: int
    steps: int
    dt: float
    method: str
    taus: str
    bias: str
    w_rec: str
    u: str
    y0: str
    alike: bool
    learn_tau: bool
    checkpoints: str | int


@st.composite
def gated_cases(draw: st.DrawFn, *, method: str) -> GatedCase:
    return GatedCase(
        seed=draw(st.integers(0, 2**32 - 1)),
        neuron=draw(st.sampled_from(tuple(NEURONS))),
        gate=draw(st.sampled_from(tuple(GATES))),
        width=draw(st.sampled_from((0.2, 0.1, 0.02, 0.5, 1.0))),
        n_in=draw(st.integers(0, 3)),
        n_hidden=draw(st.integers(1, 9)),
        batch=draw(st.integers(1, 6)),  # from four on, wide zones multiply samples together
        steps=draw(st.integers(1, 30)),
        dt=draw(st.sampled_from((0.5, 0.1, 1.0, 2.0))),
        method=method,
        taus=draw(st.sampled_from(("usual", "short", "equal", "per_neuron", "long"))),
        bias=draw(st.sampled_from(("spiking", "zero", "strong", "negative", "overflow"))),
        w_rec=draw(st.sampled_from(("usual", "zero", "some_zero", "strong", "explosive"))),
        u=draw(st.sampled_from(("noise", "zero", "pulses", "strong"))),
        y0=draw(st.sampled_from(("rest", "random", "zone"))),
        alike=draw(st.booleans()),
        learn_tau=draw(st.booleans()),  # else Euler steps keep no synapses
        checkpoints=draw(st.sampled_from((1, 2, 3, "sqrt"))),
    )


@dataclass
class Problem:
    net: adjsnn.GatedSynapseNetwork
    u: Tensor
    y0: GatedState
    dt: float
    method: str
    fused: bool

    def leaves(self) -> dict[str, Tensor]:
        learnt = {name: p for name, p in self.net.named_parameters() if p.requires_grad}
        return {**learnt, "u": self.u, **self.y0._asdict()}


def build(case: GatedCase) -> Problem:
    random = np.random.default_rng(case.seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(np.asarray(random.uniform(low, high, shape)))

    n, neuron = case.n_hidden, NEURONS[case.neuron]()
    shortest = 1.01 * case.dt
    tau_fast, tau_slow = {
        "usual": (max(5.0, shortest), max(20.0, shortest)),
        "short": (shortest, 1.5 * shortest),
        "equal": (max(7.0, shortest),) * 2,
        "per_neuron": (uniform(max(3.0, shortest), max(6.0, 2 * shortest), n), uniform(15.0, 25.0, n)),
        "long": (500.0, 5000.0),
    }[case.taus]
    net = adjsnn.GatedSynapseNetwork(
        case.n_in, n, 2, neuron=neuron, gate=GATES[case.gate](case.width), tau_fast=tau_fast, tau_slow=tau_slow,
        learn=("weights", "bias", *(("tau_fast", "tau_slow") if case.learn_tau else ()), *neuron.constants),
        generator=torch.Generator().manual_seed(case.seed), dtype=F64,
    )  # fmt: skip
    drive = DRIVE[case.neuron]
    with torch.no_grad():
        gain = {"usual": 0.5, "zero": 0.0, "some_zero": 0.5, "strong": 3.0, "explosive": 300.0}[case.w_rec]
        net.w_rec.mul_(gain * drive)
        if case.w_rec == "some_zero":
            net.w_rec.mul_(uniform(0.0, 1.0, n, n) < 0.4)
        levels = {"zero": (0.0, 0.0), "strong": (2.0, 8.0), "negative": (-2.0, 0.0), "overflow": (1e300, 1e305)}
        low, high = levels.get(case.bias, (0.8, 1.6))
        net.bias.copy_(drive * uniform(low, high, n))
        net.w_in.mul_(drive)
        if case.alike:
            net.w_rec.copy_(net.w_rec[:1].expand(n, n).clone())
            net.bias.copy_(net.bias[:1].expand(n).clone())
            net.w_in.copy_(net.w_in[:1].expand(n, case.n_in).clone())
    u = uniform(-1.0, 1.0, case.steps, case.batch, case.n_in)
    u = {"noise": u, "zero": 0.0 * u, "pulses": u.sign() * (u.abs() > 0.8), "strong": 5.0 * u}[case.u]
    v, a, s = (uniform(-1.0, 1.0, case.batch, n) for _ in range(3))
    if case.y0 == "rest":
        v, a, s = (torch.zeros_like(x) for x in (v, a, s))
    elif case.y0 == "zone":
        v = 1.0 - case.width * uniform(0.001, 1.0, case.batch, n)
    else:
        v = 0.9 * v if case.neuron != "qif" else 0.9 * v.abs()
    y0 = GatedState(v.requires_grad_(), (0.1 * a).requires_grad_(), (0.1 * s).requires_grad_())
    fused = case.neuron in ("nif", "lif", "lif_zero", "qif") and case.gate != "own" and case.taus != "per_neuron"
    return Problem(net, u.requires_grad_(), y0, case.dt, case.method, fused)


def nudged_problem(p: Problem, seed: int) -> Problem:
    net = copy.deepcopy(p.net)
    with torch.no_grad():
        for x in net.parameters():
            x.copy_(nudged(x, seed))
    top = 1.0 - 2.0**-50
    v = nudged(p.y0.v, seed).clamp(-top if p.net.neuron.two_sided else None, top)
    y0 = GatedState(v.requires_grad_(), *(nudged(x, seed).requires_grad_() for x in p.y0[1:]))
    return Problem(net, nudged(p.u, seed).requires_grad_(), y0, p.dt, p.method, p.fused)


@dataclass
class Found:
    """Of a solve: the error; v, a_fast, a_slow (T+1, B, N); how many steps were too long; the gradients asked for."""

    error: str | None
    states: Tensor = field(default_factory=lambda: torch.zeros(0))
    readout: Tensor = field(default_factory=lambda: torch.zeros(0))
    irregular: bool = False
    gradients: dict[str, Tensor] = field(default_factory=dict)
    sol: Any = None


def find(p: Problem, kernels: str, rows: slice = slice(None), *, adjoint: Any = None, loss: Any = None) -> Found:
    """`loss` takes a solution; the default is one of all states."""
    y0 = GatedState(*(x[rows] for x in p.y0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            sol = adjsnn.solve(p.net, p.u[:, rows], dt=p.dt, y0=y0, method=p.method, kernels=kernels, adjoint=adjoint)
        except adjsnn.IntegrationError:
            return Found("IntegrationError")
    assert {w.category for w in caught} <= {adjsnn.StepTooLongWarning}, [str(w.message) for w in caught]
    leaves = p.leaves()
    total = (of_states if loss is None else loss)(sol)
    values = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    whole = isinstance(sol, adjsnn.GatedSolution)
    states = torch.stack([sol.v, sol.a_fast, sol.a_slow]).detach() if whole else torch.stack(tuple(sol.final_state)).detach()
    return Found(None, states, sol.readout.detach(), bool(caught), dict(zip(leaves, values, strict=True)), sol)


def weighted(x: Tensor, phase: float) -> Tensor:
    """A sum with the same weights for every sample."""
    w = torch.cos(torch.arange(x.shape[0] * x.shape[2], dtype=x.dtype) + phase).view(x.shape[0], 1, x.shape[2])
    return (w * x).sum()


def of_states(sol: adjsnn.GatedSolution) -> Tensor:
    parts = (sol.readout, sol.v, sol.a_fast, sol.a_slow, sol.charge)
    of_parts = (weighted(x, k) + 0.5 * weighted(x * x, k + 0.5) for k, x in enumerate(parts))
    return sum(of_parts, weighted(sol.spike_charge[None], 9.0))


def of_the_end(sol: Any) -> Tensor:
    """What a solution with checkpoints has, too."""
    final = sol.final_state
    start = weighted(sol.readout.square(), 0.0) + weighted(sol.spike_charge[None], 9.0)
    return sum((weighted(x.square()[None], k) for k, x in enumerate(final)), start)


def same_states(judge: Found, other: Found, nudges: list[Found]) -> bool:
    """Assert that the states agree until the nudged runs part, in each sample; returns whether they do not."""
    far = torch.stack([(n.states - judge.states).abs().amax((0, 3)) for n in nudges]).amax(0)  # (T+1, B)
    size = 1.0 + judge.states.abs().amax((0, 3))
    apart = (far > PARTED * size).to(torch.int8).cummax(0).values.bool()
    off = (other.states - judge.states).abs().amax((0, 3))
    limit = ALLOWED * far.cummax(0).values + FLOOR * size.cummax(0).values
    wrong = ~apart & ~(off <= limit)
    assert not bool(wrong.any()), (wrong.nonzero()[0], off[wrong][0], limit[wrong][0])
    return bool(apart.any())

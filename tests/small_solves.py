"""One small solve of each kind that meets torch's autograd: what is learnt, what goes in, and a value of the solution."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from networks import DT, GATES, random_network
from smooth_systems import TIMES, problem
from torch import Tensor, nn

import adjsnn

F64 = torch.float64


class Case(NamedTuple):
    """A module, the tensors to differentiate by, and the results of a solve of both as one column."""

    module: nn.Module
    wanted: dict[str, Tensor]
    value: Callable[[], Tensor]

    @property
    def leaves(self) -> list[Tensor]:
        return list(self.wanted.values())


def gated(adjoint=None, method: str = "euler", kernels: str = "auto", neuron=None) -> Case:
    net = random_network(adjsnn.QIF(tau_v=25.0) if neuron is None else neuron, GATES["raised_cosine"], seed=3, n_hidden=6)
    random = torch.Generator().manual_seed(4)
    u = (2.0 * torch.rand(80, 2, 2, generator=random, dtype=F64)).requires_grad_()
    y0 = adjsnn.GatedState(*((0.2 * torch.rand(2, 6, generator=random, dtype=F64)).requires_grad_() for _ in range(3)))
    thinned = isinstance(adjoint, adjsnn.DiscreteAdjoint) and adjoint != adjsnn.DiscreteAdjoint()

    def value() -> Tensor:
        sol = adjsnn.solve(net, u, dt=DT, method=method, adjoint=adjoint, y0=y0, kernels=kernels)
        parts = (sol.readout[1:], *sol.final_state, sol.spike_charge)
        return torch.cat([x.flatten() for x in parts] + ([] if thinned else [sol.v.mean((1, 2))]))

    return Case(net, {**dict(net.named_parameters()), "u": u, **{f"y0.{k}": x for k, x in y0._asdict().items()}}, value)


def lif(kernels: str = "auto", recurrent: bool = False, currents: bool = False, read: bool = True, listed=False) -> Case:
    random = torch.Generator().manual_seed(5)
    learn = ("weights", "bias", "tau_mem", "tau_syn", "v_th", "v_reset", "delays")
    synapses = adjsnn.Synapses(*torch.cartesian_prod(torch.arange(3), torch.arange(6)).T) if listed else None
    net = adjsnn.LIFNetwork(
        3, (6, 4), recurrent=recurrent, bias=0.2, delays=0.5, n_out=2, learn=learn, synapses=(synapses, None), generator=random,
        dtype=F64,
    )  # fmt: skip
    with torch.no_grad():
        net.w_in[0].mul_(1.6)
        net.w_in[1].mul_(0.5)
    x = adjsnn.SpikeTrains.poisson(torch.full((2, 3), 80.0, dtype=F64), 40.0, generator=random)
    x = adjsnn.SpikeTrains(x.idx, x.time.clone().requires_grad_(), 3, 40.0)
    u = (0.2 * torch.rand(8, 2, 3, generator=random, dtype=F64)).requires_grad_()
    ts = torch.linspace(0.0, 40.0, 5, dtype=F64)
    target = torch.rand(5, 2, 2, generator=random, dtype=F64)
    y0 = net.initial_state(2)
    for state in y0:
        for x0 in state:
            x0.requires_grad_()

    def value() -> Tensor:
        driven = {"currents": u, "dt": 5.0} if currents else {}
        sol = adjsnn.solve(net, x, ts=ts, y0=y0, kernels=kernels, **driven)
        if not read:
            return torch.cat([sol.spike_times(), *(x.flatten() for x in (*sol.v, *sol.i))])
        first = sol.first_spike_times(0)
        parts = (
            sol.spike_times(),
            first[first.isfinite()],
            sol.v[-1],
            sol.voltage_max(),
            sol.voltage_integral(0),
            sol.readout,
            sol.readout_error(target),
            sol.squared_rate(),
        )
        return torch.cat([p.flatten() for p in parts])

    wanted = {**dict(net.named_parameters()), "times": x.time}
    wanted |= {f"y0.{k}.{name}": x0 for k, state in enumerate(y0) for name, x0 in state._asdict().items()}
    if currents:
        wanted["u"] = u
    silent = ("refractory",) if read else ("refractory", "w_out")
    unused = [name for name, p in wanted.items() if name.startswith(silent) or not p.requires_grad]
    return Case(net, {name: p for name, p in wanted.items() if name not in unused}, value)


def smooth(adjoint=None, method: str = "rk4", mode: str = "held") -> Case:
    net, inputs, y0, wanted = problem(mode, batch=2)
    options = {} if method in ("euler", "heun", "rk4") else {"rtol": 1e-8, "atol": 1e-8}

    def value() -> Tensor:
        return adjsnn.solve(net, inputs, ts=TIMES, y0=y0, method=method, adjoint=adjoint, **options).y.flatten()

    return Case(net, wanted, value)


class Ball(adjsnn.HybridSystem):
    """Height and speed of a ball that falls, and bounces with what remains of its speed."""

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.tensor(1.3, dtype=F64))
        self.kept = nn.Parameter(torch.tensor(0.7, dtype=F64))

    def vector_field(self, t, y, u):
        return torch.stack([y[:, 1], -self.g.expand(len(y)) - 0.05 * y[:, 1]], 1)

    def guard(self, t, y):
        return -y[:, :1]

    def jump(self, t, y, fired):
        return torch.stack([torch.full_like(y[:, 0], 0.02), -self.kept * y[:, 1]], 1)


def hybrid(adjoint=None) -> Case:
    ball, y0 = Ball(), torch.tensor([[1.0, 0.2], [1.5, -0.1]], dtype=F64, requires_grad=True)
    ts = torch.tensor([0.0, 1.0, 2.0], dtype=F64)

    def value() -> Tensor:
        sol = adjsnn.solve(ball, None, y0=y0, ts=ts, method="dopri5", rtol=1e-8, atol=1e-8, adjoint=adjoint)
        return torch.cat([sol.y.flatten(), sol.event_times[:, 0]])

    return Case(ball, {"y0": y0, **dict(ball.named_parameters())}, value)


CASES: dict[str, Callable[[], Case]] = {
    "gated": gated,
    "gated, plain": lambda: gated(kernels="plain"),
    "gated, rk4": lambda: gated(method="rk4"),
    "gated, checkpoints": lambda: gated(adjsnn.DiscreteAdjoint(checkpoints=2)),
    "gated, checkpoints, plain": lambda: gated(adjsnn.DiscreteAdjoint(checkpoints=2), kernels="plain"),
    "lif": lif,
    "lif, plain": lambda: lif(kernels="plain"),
    "lif, recurrent, currents": lambda: lif(recurrent=True, currents=True),
    "lif, list of synapses, currents": lambda: lif(currents=True, read=False, listed=True),
    "smooth": smooth,
    "smooth, function of time": lambda: smooth(mode="callable"),
    "smooth, adaptive, checkpoints": lambda: smooth(adjsnn.DiscreteAdjoint(checkpoints=2), "dopri5"),
    "smooth, continuous": lambda: smooth(adjsnn.ContinuousAdjoint()),
    "smooth, forward": lambda: smooth(adjsnn.ForwardSensitivity()),
    "smooth, backsolve": lambda: smooth(adjsnn.Backsolve(tolerance=1.0)),
    "hybrid": hybrid,
    "hybrid, continuous": lambda: hybrid(adjsnn.ContinuousAdjoint(method="dopri5")),
}
TAPED: dict[str, Callable[[], Case]] = {
    "gated, BPTT": lambda: gated(adjsnn.BPTT()),
    "gated, rk4, BPTT": lambda: gated(adjsnn.BPTT(), "rk4"),
    "smooth, BPTT": lambda: smooth(adjsnn.BPTT()),
    "hybrid, BPTT": lambda: hybrid(adjsnn.BPTT()),
    "torchdiffeq": lambda: smooth(None, "torchdiffeq:dopri5"),
}


def gradients(case: Case, weights: Tensor | None = None) -> dict[str, Tensor]:
    """Gradient of Σ w_k value_k, by default of Σ cos(k) value_k."""
    value = case.value()
    weights = torch.cos(torch.arange(len(value), dtype=value.dtype)) if weights is None else weights
    found = torch.autograd.grad(value @ weights, case.leaves, allow_unused=True)
    return {k: torch.zeros_like(x) if g is None else g for (k, x), g in zip(case.wanted.items(), found, strict=True)}

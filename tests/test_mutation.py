"""Whatever is overwritten after a solve: the right gradient or torch's in-place error, and figures that stay as they were."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hybrid.test_events import Pair
from lif_networks import random_lif, random_spikes
from networks import DT, GATES, MEMBRANES, random_network, random_trial
from reachable import overwrite, overwritten, reachable
from smooth_systems import Drive, Network
from torch import Tensor, nn

import adjsnn
from adjsnn import BPTT, Backsolve, ContinuousAdjoint, DiscreteAdjoint, ForwardSensitivity

F32, F64 = torch.float32, torch.float64
STEPS = 25
pytestmark = pytest.mark.usefixtures("unchecked_shapes")


class Case(NamedTuple):
    """A solve: all that is given to it by name, what its gradient is asked for, and the solution."""

    given: dict[str, Any]
    sol: Any

    @property
    def leaves(self) -> dict[str, Tensor]:
        return {path: x for path, x in reachable(self.given).items() if x.requires_grad and x.is_leaf}


def gated(membrane: str = "qif", dtype: torch.dtype = F64, **options: Any) -> Case:
    net = random_network(MEMBRANES[membrane], GATES["raised_cosine"], seed=1, n_hidden=5).to(dtype)
    with torch.no_grad():
        net.bias.add_(1.5 if membrane == "lif" else 0.1)  # spikes within the few steps
    u, y0 = random_trial(net, seed=1, steps=STEPS, batch=2)
    u, y0 = (u.detach().to(dtype).requires_grad_(), y0._make(x.detach().to(dtype).requires_grad_() for x in y0))
    given = {"net": net, "inputs": u, "y0": y0}
    return Case(given, adjsnn.solve(net, u, y0=y0, dt=DT, **options))


def streamed(dtype: torch.dtype = F64) -> Case:
    net = random_network(MEMBRANES["nif"], GATES["rectangular"], seed=1, n_hidden=5).to(dtype)
    u = random_trial(net, seed=1, steps=STEPS, batch=2)[0].detach().to(dtype)
    stream = adjsnn.signals.Stream(u.numpy())
    return Case({"net": net, "inputs": u}, adjsnn.solve(net, stream, dt=DT))


def lif(
    dtype: torch.dtype = F64, *, driven: bool = False, recurrent: bool = True, refractory: float = 0.0, **options: Any
) -> Case:
    layers = (3, 2) if "kernels" in options else (6, 3)
    net = random_lif(3, recurrent=recurrent, per_synapse=recurrent, refractory=refractory, layers=layers)
    generator = torch.Generator().manual_seed(5)
    net.n_out, net.w_out = 2, nn.Parameter(torch.randn(2, layers[1], generator=generator, dtype=F64))
    net = net.to(dtype)
    x = random_spikes(3, batch=2, count=8, t_end=25.0).to(dtype=dtype)
    x.time.requires_grad_()
    y0 = [state._make(_uniform(x.shape, generator, dtype) for x in state) for state in net.initial_state(2)]
    given: dict[str, Any] = {"net": net, "inputs": x, "y0": y0, "ts": torch.linspace(0.0, 25.0, 4, dtype=F64)}
    if driven:
        given["currents"] = _uniform((10, 2, 5), generator, dtype)
        options |= {"currents": given["currents"], "dt": 2.5}
    return Case(given, adjsnn.solve(net, x, y0=y0, ts=given["ts"], **options))


def generalised(dtype: torch.dtype = F64, **options: Any) -> Case:
    generator = torch.Generator().manual_seed(0)
    net = adjsnn.LIFNetwork(
        5, (4, 3), recurrent=(True, False), receptors=(2, None), tau_syn=([3.0, 12.0], 5.0), rec_delays=1.0, n_out=2,
        tau_adapt=[60.0], jump_adapt=[-0.2], tau_th=[15.0, 100.0], jump_th=[0.1, 0.05], reset="by", generator=generator,
        tau_follow=(50.0, None), gain_follow=(0.1, None), learn=(
            "weights", "tau_mem", "tau_syn", "v_th", "delays", "tau_adapt", "jump_adapt", "tau_th", "jump_th", "gain_follow",
        ),
    )  # fmt: skip
    with torch.no_grad():
        for w in net.w_in:
            w.mul_(2.0)
    net = net.to(dtype)
    x = random_spikes(3, batch=2, count=8, t_end=25.0).to(dtype=dtype)
    x.time.requires_grad_()
    y0 = [state._make(_uniform(x.shape, generator, dtype) for x in state) for state in net.initial_state(2)]
    given: dict[str, Any] = {"net": net, "inputs": x, "y0": y0, "ts": torch.linspace(0.0, 25.0, 4, dtype=F64)}
    return Case(given, adjsnn.solve(net, x, y0=y0, ts=given["ts"], **options))


def _uniform(shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    return (0.3 * torch.rand(*shape, generator=generator, dtype=F64)).to(dtype).requires_grad_()


def smooth(inputs: str = "held", dtype: torch.dtype = F64, **options: Any) -> Case:
    net = Network().to(dtype)
    random = torch.Generator().manual_seed(7)
    y0 = torch.randn(2, 3, generator=random, dtype=F64).to(dtype).requires_grad_()
    ts = torch.tensor([0.0, 0.3, 0.5, 1.1], dtype=dtype)
    u: Any = (
        torch.randn(3, 2, 2, generator=random, dtype=F64).to(dtype).requires_grad_() if inputs == "held" else Drive().to(dtype)
    )
    net.register_buffer("unread", torch.ones(2, dtype=dtype))
    return Case({"net": net, "inputs": u, "y0": y0, "ts": ts}, adjsnn.solve(net, u, y0=y0, ts=ts, **options))


def events(dtype: torch.dtype = F64, method: str = "dopri5", **options: Any) -> Case:
    net = Pair(0, time=True).to(dtype)
    random = torch.Generator().manual_seed(10)
    y0 = torch.tensor([0.45, 0.45, 0.0, 0.0], dtype=F64) + 0.5 * torch.rand(2, 4, generator=random, dtype=F64)
    y0, ts = y0.to(dtype).requires_grad_(), torch.tensor([0.0, 2.0, 5.0], dtype=dtype)
    u = (0.3 * torch.randn(2, 2, 2, generator=random, dtype=F64)).to(dtype).requires_grad_()
    return Case({"net": net, "inputs": u, "y0": y0, "ts": ts}, adjsnn.solve(net, u, y0=y0, ts=ts, method=method, **options))


KEPT = DiscreteAdjoint(checkpoints="sqrt")
CASES: dict[str, Callable[[], Case]] = {
    "gated euler": gated,
    "gated euler float32": lambda: gated("lif", F32),
    "gated euler plain": lambda: gated("lif", kernels="plain"),
    "gated euler backward": lambda: gated("nif", kernels="backward"),
    "gated heun": lambda: gated("lif", method="heun"),
    "gated rk4": lambda: gated("qif", method="rk4"),
    "gated rk4 plain float32": lambda: gated("lif", F32, method="rk4", kernels="plain"),
    "gated euler BPTT": lambda: gated("lif", adjoint=BPTT()),
    "gated heun BPTT": lambda: gated("lif", method="heun", adjoint=BPTT()),
    "gated euler sqrt": lambda: gated("lif", adjoint=KEPT),
    "gated rk4 two states": lambda: gated("nif", method="rk4", adjoint=DiscreteAdjoint(checkpoints=2)),
    "gated euler plain sqrt": lambda: gated("lif", kernels="plain", adjoint=KEPT),
    "gated within memory": lambda: gated(adjoint=DiscreteAdjoint(memory_mb=0.02)),
    "gated stream": streamed,
    "gated stream float32": lambda: streamed(F32),
    "lif recurrent": lif,
    "lif feed-forward": lambda: lif(recurrent=False),
    "lif recurrent float32": lambda: lif(F32),
    "lif feed-forward float32": lambda: lif(F32, recurrent=False),
    "lif recurrent plain": lambda: lif(kernels="plain"),
    "lif feed-forward plain": lambda: lif(recurrent=False, kernels="plain"),
    "lif recurrent driven": lambda: lif(driven=True),
    "lif feed-forward driven": lambda: lif(driven=True, recurrent=False),
    "lif plain driven": lambda: lif(driven=True, kernels="plain"),
    "lif refractory": lambda: lif(refractory=2.0),
    "lif generalised": generalised,
    "lif generalised float32": lambda: generalised(F32),
    "smooth euler": lambda: smooth(method="euler"),
    "smooth rk4": lambda: smooth(method="rk4"),
    "smooth rk4 float32": lambda: smooth(dtype=F32, method="rk4"),
    "smooth rk4 substeps": lambda: smooth(method="rk4", substeps=2),
    "smooth heun sqrt": lambda: smooth(method="heun", substeps=3, adjoint=KEPT),
    "smooth dopri5": lambda: smooth(method="dopri5"),
    "smooth dopri5 two states": lambda: smooth(method="dopri5", adjoint=DiscreteAdjoint(checkpoints=2)),
    "smooth tsit5 driven by a module": lambda: smooth("module", method="tsit5"),
    "smooth rk4 continuous": lambda: smooth(method="rk4", adjoint=ContinuousAdjoint()),
    "smooth dopri5 continuous": lambda: smooth(method="dopri5", adjoint=ContinuousAdjoint(method="dopri5")),
    "smooth rk4 sensitivity": lambda: smooth(method="rk4", adjoint=ForwardSensitivity()),
    "smooth rk4 backsolve": lambda: smooth(method="rk4", substeps=4, adjoint=Backsolve()),
    "smooth dopri5 backsolve": lambda: smooth(method="dopri5", adjoint=Backsolve()),
    "smooth rk4 BPTT": lambda: smooth(method="rk4", adjoint=BPTT()),
    "smooth dopri5 BPTT": lambda: smooth(method="dopri5", adjoint=BPTT()),
    "smooth torchdiffeq": lambda: smooth("module", method="torchdiffeq:rk4"),
    "smooth torchdiffeq backsolve": lambda: smooth(method="torchdiffeq:rk4", adjoint=Backsolve()),
    "events": events,
    "events float32": lambda: events(F32, rtol=1e-4, atol=1e-4),
    "events sqrt": lambda: events(adjoint=KEPT),
    "events continuous": lambda: events(adjoint=ContinuousAdjoint(dt=0.5)),
    "events BPTT": lambda: events(method="tsit5", adjoint=BPTT()),
}
# Their siblings run in make test; these, too, in make test-slow.
SLOWER = (
    "gated heun BPTT", "gated rk4 plain float32", "lif plain driven", "lif generalised float32",
    "smooth rk4 substeps", "smooth heun sqrt",
    "smooth dopri5 two states", "smooth tsit5 driven by a module", "smooth dopri5 continuous", "smooth rk4 sensitivity",
    "smooth dopri5 backsolve", "smooth dopri5 BPTT", "events float32", "events sqrt", "events BPTT",
)  # fmt: skip
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOWER else name for name in CASES]
# Read again by the backward pass and not copied, because they are large or only the system knows where it reads them. Torch's
# error guards them, but does not see what is written through `.data` or numpy. All else is copied, and may be overwritten so.
GUARDED = {
    "gated": ("inputs", "y0", "sol.v", "sol.a_fast", "sol.a_slow", "sol.crossings", "sol.readout"),
    "lif": ("currents",),
    "smooth": ("net", "inputs", "y0", "sol.y", "sol.readout", "sol.final_state", "sol.stats.taken"),
}
GUARDED["events"] = GUARDED["smooth"]


def loss_of(case: Case) -> Tensor:
    """A linear functional of every differentiable result, so that torch itself has nothing to remember of any."""
    random, total = torch.Generator().manual_seed(0), torch.zeros((), dtype=F64)
    for x in reachable({"sol": case.sol}).values():
        if x.requires_grad and x.is_floating_point():
            weights = torch.randn(x.shape, generator=random, dtype=F64).to(x.dtype)
            total = total + torch.where(x.isfinite(), weights * x, 0.0).sum() / x.numel()
    return total


def gradient(case: Case, loss: Tensor) -> list[Tensor]:
    return list(
        torch.autograd.grad(loss, list(case.leaves.values()), retain_graph=True, allow_unused=True, materialize_grads=True)
    )


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


@pytest.mark.every(2)
@pytest.mark.filterwarnings("ignore::adjsnn.BacksolveWarning")
@pytest.mark.parametrize("name", NAMES)
def test_overwriting_anything_after_a_solve_never_gives_another_gradient(name):
    make, guarded = CASES[name], GUARDED[name.split()[0]]
    case = make()
    loss = loss_of(case)
    expected = gradient(case, loss)
    assert sum(bool(g.any()) for g in expected) > len(expected) / 2
    tensors = reachable(case.given | {"sol": case.sol})
    copied = [path for path in tensors if not path.startswith(guarded)]
    together = unread(case, loss, {path: tensors[path] for path in copied}, expected)
    assert together, [path for path in copied if not unread(case, loss, {path: tensors[path]}, expected)]
    for path in sorted(tensors.keys() - set(copied)):
        changed = make()
        loss = loss_of(changed)
        x = reachable(changed.given | {"sol": changed.sol})[path]
        overwrite(x)
        right_or_refused(changed, loss, expected, path)


def right_or_refused(case: Case, loss: Tensor, expected: list[Tensor], path: str) -> None:
    try:
        found = gradient(case, loss)
    except (RuntimeError, adjsnn.ConfigurationError) as error:
        if not re.search("modified by an inplace operation|a stream that gives other numbers", str(error)):
            raise
    else:
        assert same(found, expected), path


def unread(case: Case, loss: Tensor, tensors: dict[str, Tensor], expected: list[Tensor]) -> bool:
    """Whether the gradient stays the same bits while these are other numbers, written behind torch's back."""
    before = {path: x.detach().clone() for path, x in tensors.items()}
    for path, x in tensors.items():
        x.data.copy_(overwritten(before[path]))
    found = gradient(case, loss)
    for path, x in tensors.items():
        x.data.copy_(before[path])
    return same(found, expected)


def told(sol: Any) -> dict[str, Any]:
    """What a solution says: every tensor that is an attribute or a result of a method, and its figures."""
    found: dict[str, Any] = {path: x.detach().clone() for path, x in reachable({"sol": sol}).items()}
    if not isinstance(sol, adjsnn.HybridSolution):
        found |= {"stats": repr(sol.stats), "rate": adjsnn.losses.firing_rate(sol).detach()}
    if isinstance(sol, adjsnn.LIFSolution):
        target = torch.linspace(-1.0, 2.0, sol.v[0].shape[0] * 4).view(-1, 2, 2)
        found["error"] = sol.readout_error(target).detach()
        found["integral"] = sol.readout_integral(torch.zeros(2), torch.tensor([9.0, 20.0])).detach()
        found |= {f"speeds {k}": sol.spike_speeds(k) for k in range(2)}
    return found


def spikes_of(sol: Any) -> int:
    if isinstance(sol, adjsnn.HybridSolution):
        return int((sol.event_index >= 0).sum())
    return sum(sol.stats.spikes) if isinstance(sol, adjsnn.LIFSolution) else sol.stats.spikes


def agree(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Names of the figures that differ."""
    assert found.keys() == expected.keys()
    return [
        name
        for name, x in expected.items()
        if not (torch.equal(torch.nan_to_num(found[name]), torch.nan_to_num(x)) if isinstance(x, Tensor) else found[name] == x)
    ]


@pytest.mark.every(2)
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("gated", "lif", "events")) and name not in SLOWER])
def test_a_solution_says_the_same_after_everything_given_to_it_was_overwritten(name):
    """As it is in training, where the optimiser's step comes before the figures are asked for."""
    case, later = CASES[name](), CASES[name]()
    before = told(case.sol)
    assert name.startswith("smooth") or spikes_of(case.sol) > 1
    expected = gradient(case, loss_of(case))
    located_again = name.startswith("gated") and any(method in name for method in ("heun", "rk4"))
    for path, x in reachable(later.given).items():
        if not (located_again and path == "inputs"):
            overwrite(x)
    assert not agree(told(later.sol), before)
    right_or_refused(later, loss_of(later), expected, name)


@pytest.mark.parametrize("method", ["heun", "rk4"])
def test_spikes_inside_steps_whose_input_was_overwritten_are_refused(method):
    case = gated(method=method)
    overwrite(case.given["inputs"])
    for figure in (lambda: case.sol.spikes, lambda: case.sol.stats, lambda: case.sol.spike_speeds):
        with pytest.raises(adjsnn.ConfigurationError, match=r"inputs, changed in place since the solve.*inputs.clone"):
            figure()
    assert case.sol.charge.isfinite().all()


RESULTS: dict[str, list[Callable[[Any], Tensor]]] = {
    "gated euler": [lambda s: s.ts, lambda s: s.v, lambda s: s.a_slow, lambda s: s.crossings, lambda s: s.final_state.v],
    "gated rk4": [lambda s: s.ts, lambda s: s.v, lambda s: s.a_fast, lambda s: s.crossings],
    "gated euler sqrt": [lambda s: s.ts, lambda s: s.readout, lambda s: s.spike_counts, lambda s: s.final_state.v],
    "lif recurrent": [
        lambda s: s.ts, lambda s: s.v[0], lambda s: s.i[1], lambda s: s.final_state[1].v, lambda s: s.spike_times(0),
        lambda s: s.spike_times(), lambda s: s.layer_spikes[1].time, lambda s: s.first_spike_times(),
    ],
}  # fmt: skip
FIGURES: dict[str, Callable[[Any], Any]] = {
    "stats": lambda s: repr(s.stats),
    "rate": adjsnn.losses.firing_rate,
    "spikes": lambda s: s.spikes.time if isinstance(s, adjsnn.GatedSolution) else s.layer_spikes[0].time,
    "speeds": lambda s: s.spike_speeds if isinstance(s, adjsnn.GatedSolution) else s.spike_speeds(),
    "charge": lambda s: s.spike_charge,
    "first": lambda s: s.first_spike_times(0),
    "maximum": lambda s: s.voltage_max(1),
    "integral": lambda s: s.voltage_integral(1),
    "readout": lambda s: s.readout,
    "square": lambda s: s.squared_rate(),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_figure_of_results_that_were_overwritten_is_refused_or_that_of_the_solve(name):
    whole, compared = CASES[name]().sol, 0
    for reach in RESULTS[name]:
        for figure in FIGURES.values():
            try:
                before = figure(whole)
            except (AttributeError, adjsnn.ConfigurationError):
                continue  # not of this kind of solution
            sol = CASES[name]().sol
            x = reach(sol)
            overwrite(x)
            try:
                after = figure(sol)
            except adjsnn.ConfigurationError as error:
                if "changed in place since the solve" not in str(error):
                    raise
                continue
            if isinstance(after, str):
                assert after == before
            elif after.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
                assert torch.equal(after, before)
            compared += 1
    assert compared > 8


def test_a_result_in_other_units_keeps_its_gradient():
    """t = τ ln(b/(b-1)) k for the k-th spike of a neuron under a constant bias b, so dt/db = -τ k/(b (b-1))."""
    for dtype in (F32, F64):
        for kernels in ("fused", "plain"):
            net = adjsnn.LIFNetwork(1, (1,), tau_mem=20.0, bias=2.0, learn=("bias",), dtype=dtype)
            nothing = adjsnn.SpikeTrains.from_list([[]], n_neurons=1, t_max=50.0, dtype=dtype)
            t = adjsnn.solve(net, nothing, t_end=50.0, kernels=kernels).spike_times()
            t /= 1000.0
            t.sum().backward()
            assert net.bias[0].grad.item() == pytest.approx(-20.0 * (1 + 2 + 3) / (2.0 * 1.0) / 1000.0, rel=1e-6)


def test_gradients_handed_out_are_not_what_the_next_backward_pass_reads():
    for name in ("gated euler", "gated rk4 plain float32", "gated euler sqrt", "lif recurrent", "smooth rk4", "events"):
        case = CASES[name]()
        loss = loss_of(case)
        found = gradient(case, loss)
        expected = [g.clone() for g in found]
        for g in found:
            g.copy_(overwritten(g))
        assert same(gradient(case, loss), expected)


def test_a_stream_that_changes_between_the_passes_is_refused():
    net = adjsnn.GatedSynapseNetwork(1, 3, 1, neuron=adjsnn.NIF())
    noise = adjsnn.signals.Stream(lambda start, stop: torch.rand(stop - start, 2, 1), steps=20)
    loss = adjsnn.solve(net, noise, dt=0.1).readout.sum()
    with pytest.raises(adjsnn.ConfigurationError, match="other numbers for steps 0 to 20 than in the forward pass"):
        loss.backward()


def test_a_later_solve_never_writes_over_what_somebody_still_holds():
    net = random_network(MEMBRANES["nif"], GATES["raised_cosine"], seed=0, n_hidden=64)
    u, _ = random_trial(net, seed=0, steps=200, batch=48)  # 4.9 MB for a state: from the pool
    holders: list[Callable[[Any], Any]] = [
        lambda s: s.v.detach().numpy(),
        lambda s: s.a_fast.data,
        lambda s: torch.from_dlpack(s.a_slow.detach()),
        lambda s: torch.empty(0, dtype=F64).set_(s.v.untyped_storage()),
        lambda s: memoryview(s.v.detach().numpy()),
        lambda s: s.v[3:5, 0],
    ]
    for hold in holders:
        held = hold(adjsnn.solve(net, u.detach(), dt=DT))
        before = _tensor(held).clone()
        for k in range(2):
            adjsnn.solve(net, u.detach() + 0.1 * (k + 1), dt=DT)
        assert torch.equal(_tensor(held), before)


def _tensor(held: Any) -> Tensor:
    return held if isinstance(held, Tensor) else torch.from_numpy(np.asarray(held))

"""Evolution reaches optima, by costs alone, with random numbers of its own; it stops and goes on, and stays in bounds."""

import io
import math
import random
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork, MissingPackageError, SpikeTrains, losses
from adjsnn.rules import Evolution

F64 = torch.float64


def small(seed: int = 0, dtype: torch.dtype = F64, **options) -> LIFNetwork:
    return LIFNetwork(3, (4, 2), dtype=dtype, generator=torch.Generator().manual_seed(seed), **options)


def weights(net: LIFNetwork) -> Tensor:
    return torch.cat([w.detach().flatten() for w in net.w_in])


AIM = torch.linspace(-2.0, 3.0, 20, dtype=F64)
STRETCH = torch.logspace(0.0, 1.0, 20, dtype=F64)


def quadratic(net: LIFNetwork) -> Tensor:
    return (STRETCH * (weights(net) - AIM).square()).sum()


@pytest.mark.every(2)
@pytest.mark.parametrize(("diagonal", "generations"), [(True, 250), (False, 250)])
def test_it_reaches_the_optimum_of_a_quadratic(diagonal, generations):
    """At the optimum every weight is right to the root of what is left of the cost, a billionth of that at the start."""
    net = small()
    evolution = Evolution(net, 0.5, diagonal=diagonal)
    assert float(quadratic(net)) > 100.0
    lowest = [evolution.step(quadratic) for _ in range(generations)]
    assert float(quadratic(net)) == evolution.best_cost == min(lowest) < 1e-6
    torch.testing.assert_close(weights(net), AIM, rtol=0.0, atol=1e-3)
    assert evolution.generation == generations
    assert evolution.sigma < 1e-3


def test_the_cost_of_spike_times_falls_to_that_of_gradient_descent():
    """40 generations of 12 networks get below 40 steps of Adam by the exact gradient, which are a tenth of the solves."""
    x = torch.rand(24, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    labels, spikes = (x[:, 0] < x[:, 1]).long(), SpikeTrains.latency(x, 20.0)

    def cost(net: LIFNetwork) -> Tensor:
        return losses.first_spike_cross_entropy(adjsnn.solve(net, spikes, t_end=40.0), labels).mean()

    net, other = (small(refractory=2.0) for _ in range(2))  # without, large weights let a neuron run away
    optimiser, by_gradient = torch.optim.Adam(other.parameters(), 0.03), []
    for _ in range(40):
        optimiser.zero_grad()
        value = cost(other)
        value.backward()
        optimiser.step()
        by_gradient.append(float(value.detach()))
    evolution = Evolution(net, 0.2)
    lowest = [evolution.step(cost) for _ in range(40)]
    start, best = by_gradient[0], min(by_gradient)
    assert evolution.best_cost == pytest.approx(float(cost(net).detach()), rel=1e-12)
    assert best < 0.5 * start
    assert evolution.best_cost < best, (start, best, lowest[::10])


def states() -> tuple:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002  the generator that cma would use
    return kind, keys.tolist(), rest, torch.get_rng_state().tolist(), random.getstate()


def test_no_global_generator_is_read_or_moved():
    def run(seed: int) -> Tensor:
        net = small()
        evolution = Evolution(net, 0.3, seed=seed)
        for _ in range(3):
            evolution.step(quadratic)
        return evolution.ask()

    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    before = states()
    first = run(0)
    assert states() == before
    np.random.seed(6)  # noqa: NPY002
    torch.manual_seed(6)
    random.seed(6)
    assert torch.equal(run(0), first)
    assert not torch.equal(run(1), first)


@pytest.mark.parametrize("keep", ["best", "mean"])
@pytest.mark.parametrize("diagonal", [False, True])
def test_it_goes_on_from_a_state_as_if_it_had_not_stopped(keep, diagonal):
    def started() -> Evolution:
        return Evolution(small(), 0.4, 6, seed=3, keep=keep, diagonal=diagonal)

    whole = started()
    for _ in range(12):
        whole.step(quadratic)
    half = started()
    for _ in range(7):
        half.step(quadratic)
    stored = io.BytesIO()
    torch.save(half.state_dict(), stored)
    stored.seek(0)
    calls = []
    other = Evolution(small(seed=9), 0.1, 8, keep=keep)
    other.load_state_dict(torch.load(stored, weights_only=True))
    assert torch.equal(weights(other.net), weights(half.net))
    assert (other.generation, other.best_cost, other.sigma) == (7, half.best_cost, half.sigma)
    for _ in range(5):
        other.step(lambda net: (calls.append(1), quadratic(net))[1])
    assert len(calls) == 5 * 6
    assert torch.equal(weights(other.net), weights(whole.net))
    assert torch.equal(other.ask(), whole.ask())


def test_asking_and_telling_is_a_step():
    one, other = Evolution(small(), 0.3, 5), Evolution(small(), 0.3, 5)
    for _ in range(4):
        costs = []
        for row in one.ask():
            one.write_(row)
            assert torch.equal(weights(one.net), row)
            costs.append(float(quadratic(one.net)))
        assert torch.equal(one.ask(), one.ask())
        one.tell(costs)
        other.step(quadratic)
        assert torch.equal(weights(one.net), weights(other.net))


def test_what_is_kept_is_the_best_or_the_mean():
    best, mean = (Evolution(small(), 0.3, keep=keep) for keep in ("best", "mean"))
    asked = best.ask()
    for evolution in (best, mean):
        evolution.step(quadratic)
    costs = [float((STRETCH * (row - AIM).square()).sum()) for row in asked]
    assert torch.equal(weights(best.net), asked[int(np.argmin(costs))])
    assert bool((weights(mean.net) != asked).any(1).all())
    torch.testing.assert_close(weights(mean.net), mean._parameters(mean._strategy.mean))


def test_parameters_stay_where_a_solve_accepts_them():
    """The optimum lies beyond the bound of τ_m: the network is at the bound, and the rest at its optimum."""
    net = LIFNetwork(2, 3, learn=("tau_mem", "tau_syn"), dtype=F64)
    seen = []

    def cost(net: LIFNetwork) -> Tensor:
        seen.append(float(net.tau_mem[0].min()))
        return (net.tau_mem[0] + 5.0).square().sum() + (net.tau_syn[0] - 7.0).square().sum()

    evolution = Evolution(net, 0.5)
    for _ in range(150):
        evolution.step(cost)
    assert min(seen) == pytest.approx(0.1)
    torch.testing.assert_close(net.tau_mem[0].detach(), torch.full((3,), 0.1, dtype=F64))
    torch.testing.assert_close(net.tau_syn[0].detach(), torch.full((3,), 7.0, dtype=F64), rtol=1e-4, atol=0.0)

    gated = adjsnn.GatedSynapseNetwork(2, 3, 1, learn=("tau_fast", "tau_slow"), dtype=F64)
    evolution = Evolution(gated, 0.5, project=lambda net: net.project_(tau_min=4.0))
    for _ in range(30):
        evolution.step(lambda net: float(net.tau_fast.square() + net.tau_slow))
    assert float(gated.tau_fast.detach()) == 4.0


def test_steps_are_in_units_of_each_parameter_and_only_what_learns_moves():
    net = small(learn=("weights", "tau_mem"))
    with torch.no_grad():
        net.w_in[1].zero_()
    frozen = {name: p.clone() for name, p in net.named_parameters() if not p.requires_grad}
    evolution = Evolution(net, 0.1, 400)
    leaves = [p for p in net.parameters() if p.requires_grad]
    spread = (evolution.ask() - torch.cat([p.detach().flatten() for p in leaves])).split([p.numel() for p in leaves], 1)
    for p, moved in zip(leaves, spread, strict=True):
        unit = float(p.detach().square().mean().sqrt()) or 1.0
        assert float(moved.square().mean().sqrt()) == pytest.approx(0.1 * unit, rel=0.2)
    evolution.step(lambda net: net.tau_mem[0].sum())
    assert all(torch.equal(p, frozen[name]) for name, p in net.named_parameters() if name in frozen)


def test_float32_networks_and_other_modules():
    net = small(dtype=torch.float32)
    evolution = Evolution(net, 0.3)
    for _ in range(30):
        evolution.step(quadratic)
    assert net.w_in[0].dtype == torch.float32
    assert evolution.best_cost == float(quadratic(net))
    line = nn.Linear(3, 1)
    evolution = Evolution(line, 0.3)
    for _ in range(40):
        evolution.step(lambda net: (net.weight - 1.0).square().sum() + net.bias.square().sum())
    assert float(line.weight.detach().mean()) == pytest.approx(1.0, abs=0.05)


def test_a_flat_cost_is_no_error():
    evolution = Evolution(small(), 0.3, 4)
    for _ in range(20):
        evolution.step(lambda net: 1.0)
    assert math.isfinite(evolution.sigma)


def test_a_cost_that_is_no_number_raises_and_leaves_the_network_as_it_was():
    net = small()
    evolution = Evolution(net, 0.3)
    evolution.step(quadratic)
    before, asked = weights(net), evolution.ask()

    def failing(net: LIFNetwork) -> float:
        raise ZeroDivisionError

    for value in (float("nan"), float("inf"), None, "1.0", True, torch.zeros(2), 1j):
        with pytest.raises(ConfigurationError, match="the cost of network 0 of generation 1"):
            evolution.step(lambda net, value=value: value)
        assert torch.equal(weights(net), before)
    with pytest.raises(ZeroDivisionError):
        evolution.step(failing)
    assert torch.equal(weights(net), before)
    assert torch.equal(evolution.ask(), asked)
    assert evolution.generation == 1


def test_what_cannot_be_is_refused(monkeypatch):
    for options, message in (
        ({"sigma": 0.0}, "sigma=0.0"),
        ({"population": 3}, "population=3"),
        ({"seed": -1}, "seed=-1"),
        ({"diagonal": 1}, "diagonal=1"),
        ({"keep": "last"}, "keep='last'"),
        ({"project": 1}, "project of type int"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            Evolution(small(), **options)
    with pytest.raises(ConfigurationError, match="a network of type Tensor"):
        Evolution(torch.zeros(3))
    with pytest.raises(ConfigurationError, match="0 parameters"):
        Evolution(small(learn=()))
    with pytest.raises(ConfigurationError, match="1 parameters"):
        Evolution(nn.Linear(1, 1, bias=False))
    broken = small()
    with torch.no_grad():
        broken.w_in[0].fill_(float("nan"))
    with pytest.raises(ConfigurationError, match="not finite"):
        Evolution(broken)
    evolution = Evolution(small(), 0.3, 4)
    with pytest.raises(ConfigurationError, match="of no generation"):
        evolution.tell([1.0] * 4)
    evolution.ask()
    with pytest.raises(ConfigurationError, match="3 costs"):
        evolution.tell([1.0] * 3)
    with pytest.raises(ConfigurationError, match=r"parameters \(3,\)"):
        evolution.write_(torch.zeros(3))
    evolution.step(quadratic)
    state, kept = evolution.state_dict(), weights(evolution.net)
    for change, message in (
        ({"cma": "1.0"}, "a state of cma 1.0"),
        ({"costs": state["costs"][:, :3]}, "costs of another shape"),
        ({"costs": None}, "costs of another shape"),
        ({"start": state["start"][1:]}, "start of another shape"),
        ({"costs": -state["costs"]}, "other networks here"),
        ({"seed": 1}, "other networks here"),
        ({"more": 1}, "none of an Evolution"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            evolution.load_state_dict({**state, **change})
        assert torch.equal(weights(evolution.net), kept)
    assert evolution.generation == 1
    with pytest.raises(ConfigurationError, match="none of an Evolution"):
        evolution.load_state_dict([])
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(MissingPackageError, match=r"adjsnn\[rules\]"):
        Evolution(small())

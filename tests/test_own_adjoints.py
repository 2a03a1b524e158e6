"""An adjoint or learning rule of one's own is a class with one method: here are some, each family's, solved with as they are.

Twice the exact gradient is the same bits, since a factor of two does not round.
"""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from lif_networks import random_lif
from networks import DT, GATES, MEMBRANES, random_network, random_trial
from smooth_systems import TIMES, cost, problem

import adjsnn
from adjsnn.gated import autograd as gated
from adjsnn.hybrid import autograd as hybrid
from adjsnn.hybrid.discrete import discrete_sweep
from adjsnn.hybrid.discrete_events import hybrid_sweep
from adjsnn.hybrid.steps import step
from adjsnn.lif import autograd as lif

F64 = torch.float64


def twice(x):
    return None if x is None else 2.0 * x


def gradients(value, tensors):
    return torch.autograd.grad(value, list(tensors), allow_unused=True, materialize_grads=True)


def assert_twice(found, exact):
    assert any(bool(x.any()) for x in exact)
    for x, y in zip(found, exact, strict=True):
        assert torch.equal(2.0 * y, x)


@dataclass(frozen=True)
class Doubled:
    """Twice the exact gradient, in every family."""

    def run_gated(self, problem):
        return gated.attach(problem, DoubledSweep)

    def run_lif(self, problem):
        def back(trial, *arguments):
            *before, cotangents, names = arguments
            return lif.exact(trial, *before, type(cotangents)._make(twice(c) for c in cotangents), names)

        return lif.attach(problem, back)

    def run_hybrid(self, problem):
        return hybrid.attach(problem, lambda stored, cotangents: discrete_sweep(stored, 2.0 * cotangents))


class DoubledSweep:
    def __init__(self, engine, tensors, shape, wanted, last):
        self.exact = gated.exact(engine, tensors, shape, wanted, [twice(c) for c in last])

    def back(self, u, trajectory, cotangents, d_u):
        self.exact.back(u, trajectory, tuple(twice(c) for c in cotangents), d_u)

    def finish(self, a_fast, a_slow):
        return self.exact.finish(a_fast, a_slow)


class NoRecurrentCredit:
    """The costate of a gated network passes through no recurrent weight."""

    def run_gated(self, problem):
        def start(engine, tensors, *arguments):
            return gated.exact(engine, tensors._replace(w_rec=torch.zeros_like(tensors.w_rec)), *arguments)

        return gated.attach(problem, start)


class LocalErrors:
    """No layer of a LIF network hears of the errors above it."""

    def run_lif(self, problem):
        def back(trial, *arguments):
            found = lif.exact(trial, *arguments)
            return found._replace(time=0.0 * found.time)

        return lif.attach(problem, back)


class StatesOnly:
    """What a loss makes of event times themselves is dropped."""

    def run_hybrid(self, problem):
        return hybrid.attach(problem, lambda stored, cotangents: hybrid_sweep(replace(stored, of_times=None), cotangents))


class LastStepOnly:
    """No sweep: the tape of the last fixed step of a system, all that comes before a constant."""

    def run_hybrid(self, problem):
        program, _ = problem.examine(tape=True)
        steps = program.fixed_steps(len(problem.y0))
        states = [problem.y0]
        for k in range(len(steps)):
            states.append(step(program, steps, k, states[-1].detach(), problem.u))
        return problem.solution(torch.stack(states))


@pytest.mark.parametrize("kernels", ["fused", "plain"])
@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_gated_networks_take_it(kernels, method):
    net = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=0)
    u, y0 = random_trial(net, seed=0, steps=60)
    wanted = [*net.parameters(), u, *y0]
    found, exact = (
        gradients(sol.readout.square().sum() + (sol.v * sol.a_fast).sum(), wanted)
        for sol in (
            adjsnn.solve(net, u, dt=DT, method=method, y0=y0, kernels=kernels, adjoint=adjoint) for adjoint in (Doubled(), None)
        )
    )
    assert_twice(found, exact)


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_gated_networks_hand_it_the_number_of_spikes_by_the_states(method):
    net = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=0)
    u, y0 = random_trial(net, seed=0, steps=60)
    wanted = [net.w_rec, net.bias, u, y0.v]
    found, exact = (
        gradients(adjsnn.solve(net, u, dt=DT, method=method, y0=y0, adjoint=adjoint).spike_charge.square().sum(), wanted)
        for adjoint in (Doubled(), None)
    )
    for x, y in zip(found, exact, strict=True):
        assert float((x - 2.0 * y).norm() / y.norm()) < 1e-9


def test_a_rule_of_gated_networks_drops_the_recurrent_term():
    """It is exact without recurrent weights and, since the neurons then know nothing of each other, wrong with them."""
    net = random_network(MEMBRANES["nif"], GATES["raised_cosine"], seed=1)
    u, _ = random_trial(net, seed=1)

    def bias_gradient(adjoint):
        return gradients(adjsnn.solve(net, u.detach(), dt=DT, adjoint=adjoint).readout.square().sum(), [net.bias])[0]

    assert not torch.allclose(bias_gradient(NoRecurrentCredit()), bias_gradient(None))
    with torch.no_grad():
        net.w_rec.zero_()
    assert torch.equal(bias_gradient(NoRecurrentCredit()), bias_gradient(None))


def spikes_of(net):
    return adjsnn.SpikeTrains.poisson(
        torch.full((3, net.n_in), 60.0, dtype=F64), 60.0, generator=torch.Generator().manual_seed(3)
    )


def test_lif_networks_take_it(lif_kernels):
    net = random_lif(0, layers=(6,))
    x = spikes_of(net)
    found, exact = (
        gradients(adjsnn.solve(net, x, kernels=lif_kernels, adjoint=adjoint).spike_times().square().sum(), net.parameters())
        for adjoint in (Doubled(), None)
    )
    assert_twice(found, exact)


def test_a_rule_of_lif_networks_keeps_errors_in_their_layer():
    net = random_lif(0, recurrent=False)
    x = spikes_of(net)
    found, exact = (
        gradients(adjsnn.solve(net, x, adjoint=adjoint).spike_times().square().sum(), [net.w_in[0], net.w_in[1]])
        for adjoint in (LocalErrors(), None)
    )
    assert bool(exact[0].any())
    assert not bool(found[0].any())
    assert torch.equal(found[1], exact[1])


def test_systems_take_it():
    net, u, y0, wanted = problem("held")
    found, exact = (
        gradients(cost(adjsnn.solve(net, u, ts=TIMES, y0=y0, method="rk4", adjoint=adjoint).y), wanted.values())
        for adjoint in (Doubled(), None)
    )
    assert_twice(found, exact)


class Kicked(adjsnn.HybridSystem):
    """A leak that is driven to 1 and kicked back to 0."""

    def __init__(self):
        super().__init__()
        self.drive = torch.nn.Parameter(torch.tensor(1.5, dtype=F64))

    def vector_field(self, t, y, u):
        return self.drive - y

    def guard(self, t, y):
        return y[:, :1] - 1.0

    def jump(self, t, y, fired):
        return 0.0 * y


def test_a_rule_of_systems_with_events_drops_a_term():
    system = Kicked()

    def solved(adjoint):
        return adjsnn.solve(system, None, y0=torch.zeros(2, 1, dtype=F64), ts=[0.0, 1.0, 3.0], method="dopri5", adjoint=adjoint)

    of_times, exact = (gradients(solved(a).event_times.sum(), [system.drive])[0] for a in (StatesOnly(), None))
    assert bool(exact < 0.0)  # more drive, earlier events
    assert not bool(of_times)
    of_states, exact = (gradients(solved(a).y[-1].sum(), [system.drive])[0] for a in (StatesOnly(), None))
    assert torch.equal(of_states, exact)


def test_a_rule_without_a_sweep_forms_its_solution_itself():
    net, u, y0, _ = problem("held")
    sol = adjsnn.solve(net, u, ts=TIMES, y0=y0, method="rk4", adjoint=LastStepOnly())
    assert torch.equal(adjsnn.solve(net, u, ts=TIMES, y0=y0, method="rk4").y, sol.y)
    (of_u,) = gradients(sol.y[-1].sum(), [u])
    assert not bool(of_u[:-1].any())
    assert bool(of_u[-1].any())


def solve_gated(adjoint: Any):
    net = random_network(MEMBRANES["nif"], GATES["rectangular"], seed=0)
    return adjsnn.solve(net, torch.zeros(3, 1, 2, dtype=F64), dt=DT, adjoint=adjoint)


def solve_lif(adjoint: Any):
    net = random_lif(0)
    return adjsnn.solve(net, spikes_of(net), adjoint=adjoint)


def solve_system(adjoint: Any):
    net, u, y0, _ = problem("held")
    return adjsnn.solve(net, u, ts=TIMES, y0=y0, adjoint=adjoint)


SOLVES = {"run_gated": solve_gated, "run_lif": solve_lif, "run_hybrid": solve_system}


OTHERS = {"its class": Doubled, "a word": "discrete", "an object": object(), "another class": torch.optim.SGD}


@pytest.mark.parametrize("method", SOLVES)
@pytest.mark.parametrize("wrong", OTHERS.values(), ids=list(OTHERS))
def test_what_has_no_such_method_and_a_class_in_place_of_its_instance_are_refused(method, wrong):
    with pytest.raises(adjsnn.ConfigurationError, match=f"adjoint=.*an adjoint instance.*an object with {method}. Try: "):
        SOLVES[method](wrong)


@pytest.mark.parametrize("method", SOLVES)
def test_a_rule_of_another_family_is_refused(method):
    others = {"run_gated": LocalErrors(), "run_lif": NoRecurrentCredit(), "run_hybrid": LocalErrors()}
    with pytest.raises(adjsnn.ConfigurationError, match=f"an object with {method}"):
        SOLVES[method](others[method])


def test_a_subclass_of_a_common_choice_is_that_choice():
    class Mine(adjsnn.DiscreteAdjoint):
        pass

    for solve in (solve_gated, solve_system):
        assert torch.equal(solve(None).readout, solve(Mine()).readout)
    with pytest.raises(adjsnn.ConfigurationError, match="Mine"):
        solve_lif(Mine())


def test_torchdiffeq_needs_an_adjoint_that_runs_with_it():
    net, u, y0, _ = problem("held")
    with pytest.raises(adjsnn.ConfigurationError, match="Doubled.*with a method of torchdiffeq"):
        adjsnn.solve(net, u, ts=TIMES, y0=y0, method="torchdiffeq:rk4", adjoint=Doubled())  # pyright: ignore[reportArgumentType]


def test_a_stream_that_would_fit_in_the_memory_given_is_read_block_by_block():
    net = random_network(MEMBRANES["nif"], GATES["rectangular"], seed=0)
    u, _ = random_trial(net, seed=0, steps=25)
    stream = adjsnn.signals.Stream(u.detach().numpy())
    sol = adjsnn.solve(net, stream, dt=DT, adjoint=adjsnn.DiscreteAdjoint(memory_mb=100.0))
    assert isinstance(sol, adjsnn.CheckpointedSolution)
    assert torch.equal(adjsnn.solve(net, u.detach(), dt=DT).readout, sol.readout)


def test_a_stream_is_refused_by_a_rule_that_holds_the_trajectory():
    net = random_network(MEMBRANES["nif"], GATES["rectangular"], seed=0)
    with pytest.raises(adjsnn.ConfigurationError, match="a stream with an adjoint that holds the whole trajectory"):
        adjsnn.solve(net, adjsnn.signals.Stream(torch.zeros(3, 1, 2).numpy()), dt=DT, adjoint=Doubled())

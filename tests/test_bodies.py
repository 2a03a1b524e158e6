"""A solution says which body of code solved it, and why; what a body does not cover runs plain."""

from typing import get_args

import pytest
import torch
from lif_networks import random_lif, random_spikes

import adjsnn
from adjsnn.lif import engine
from adjsnn.lif.engine import BODIES, Kernels


class Leaky(adjsnn.LIF):
    """A LIF membrane of one's own."""

    def flow(self, v, current, c):
        return 0.5 * super().flow(v, current, c)


def network(**options) -> adjsnn.GatedSynapseNetwork:
    generator = torch.Generator().manual_seed(0)
    return adjsnn.GatedSynapseNetwork(1, 4, 1, generator=generator, dtype=torch.float64, **options)


COVERED = "the fused loops cover this network"
GATED = {
    "auto": ({}, {}, "fused", COVERED),
    "checkpoints": ({}, {"adjoint": adjsnn.DiscreteAdjoint(checkpoints=2)}, "fused", COVERED),
    "plain": ({}, {"kernels": "plain"}, "plain", 'kernels="plain"'),
    "fused": ({}, {"kernels": "fused"}, "fused", 'kernels="fused"'),
    "backward": ({}, {"kernels": "backward"}, "plain", 'kernels="backward"'),
    "bptt": ({}, {"adjoint": adjsnn.BPTT()}, "plain", "BPTT runs on torch's tape"),
    "own membrane": ({"neuron": Leaky(20.0, 0.0)}, {}, "plain", "the membrane Leaky is not one of NIF, LIF, QIF"),
    "per neuron": (
        {"tau_fast": torch.linspace(4.0, 6.0, 4, dtype=torch.float64)},
        {"adjoint": adjsnn.DiscreteAdjoint(checkpoints=2)},
        "plain",
        "tau_fast and tau_slow differ between neurons",
    ),
}


@pytest.mark.parametrize("method", ["euler", "rk4"])
@pytest.mark.parametrize("case", GATED)
def test_a_gated_solution_says_what_ran_and_why(case, method):
    made, asked, kernel, reason = GATED[case]
    u = torch.ones(6, 2, 1, dtype=torch.float64)
    sol = adjsnn.solve(network(**made), u, dt=0.5, method=method, **asked)
    assert (sol.stats.kernel, sol.stats.kernel_reason) == (kernel, reason)


def test_a_lif_solution_says_what_ran_and_why():
    lif, x = random_lif(3), random_spikes(3)
    for asked, kernel, reason in (
        ("auto", "fused", COVERED),
        ("fused", "fused", 'kernels="fused"'),
        ("plain", "plain", 'kernels="plain"'),
    ):
        stats = adjsnn.solve(lif, x, t_end=20.0, kernels=asked).stats
        assert (stats.kernel, stats.kernel_reason) == (kernel, reason)


def test_lif_layers_that_the_loops_do_not_cover_run_plain(monkeypatch):
    def obstacle(layers):
        return f"{len(layers)} layers are too many"

    lif, x = random_lif(3), random_spikes(3)
    expected = adjsnn.solve(lif, x, t_end=40.0, kernels="plain")
    monkeypatch.setitem(BODIES, "fused", BODIES["fused"]._replace(obstacle=obstacle))
    sol = adjsnn.solve(lif, x, t_end=40.0)
    assert (sol.stats.kernel, sol.stats.kernel_reason) == ("plain", "2 layers are too many")
    assert len(sol.spike_times()) > 0
    assert torch.equal(sol.spike_times(), expected.spike_times())
    with pytest.raises(adjsnn.ConfigurationError, match='kernels="fused", but 2 layers are too many'):
        adjsnn.solve(lif, x, t_end=40.0, kernels="fused")


def test_auto_takes_the_first_body_without_an_obstacle(monkeypatch):
    """Another body, as on another kind of machine, is one more entry; type checkers know the same names."""
    assert set(get_args(Kernels)) == {"auto", *BODIES}
    lif, x = random_lif(3), random_spikes(3)
    expected = adjsnn.solve(lif, x, t_end=20.0).spike_times()
    other, others = BODIES["fused"]._replace(name="other"), dict(BODIES)
    for obstacle, kernel in ((None, "other"), ("no such machine", "fused")):
        monkeypatch.setattr(engine, "BODIES", {"other": other._replace(obstacle=lambda layers, why=obstacle: why), **others})
        sol = adjsnn.solve(lif, x, t_end=20.0)
        assert (sol.stats.kernel, sol.stats.kernel_reason) == (kernel, f"the {kernel} loops cover this network")
        assert torch.equal(expected, sol.spike_times())


def test_a_solution_without_trajectory_has_none_to_ask_for():
    sol = adjsnn.solve(
        network(), torch.ones(6, 2, 1, dtype=torch.float64), dt=0.5, adjoint=adjsnn.DiscreteAdjoint(checkpoints=2)
    )
    for name in ("v", "a_fast", "a_slow", "charge", "crossings", "spikes"):
        assert not hasattr(sol, name)
        with pytest.raises(adjsnn.ConfigurationError, match=f"sol.{name} of a solve with checkpoints.*Try: adjoint="):
            getattr(sol, name)
    assert not hasattr(sol, "anything_else")

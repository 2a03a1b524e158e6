"""Gradients of LIF networks against central differences, with equal spikes on both sides."""

import pytest
import torch
from lif_networks import RATIOS, T_END, derivative, direction_along, random_lif, random_spikes
from torch import Tensor

import adjsnn
from adjsnn import LIFState

KINDS = ["feedforward", "feedforward_per_synapse", "per_axon", "per_synapse", "no_delay"]
TOLERANCE = 1e-6  # relative, of a directional derivative; the extrapolated differences are good to 1e-8 or so


def network(kind: str, ratio: float) -> adjsnn.LIFNetwork:
    return random_lif(
        3, ratio=ratio, recurrent="feedforward" not in kind, per_synapse="per_synapse" in kind, delayed=kind != "no_delay"
    )


def start(lif: adjsnn.LIFNetwork, batch: int) -> list[LIFState]:
    generator = torch.Generator().manual_seed(5)
    rows = [[torch.rand(batch, n, generator=generator, dtype=torch.float64) for _ in "vi"] for n in lif.layers]
    return [LIFState((0.6 * v - 0.2).requires_grad_(), i.requires_grad_()) for v, i in rows]


def outputs(sol: adjsnn.LIFSolution) -> Tensor:
    """Every spike time and recorded state."""
    return torch.cat(
        [x.reshape(-1) for k, (v, i) in enumerate(zip(sol.v, sol.i, strict=True)) for x in (sol.spike_times(k), v, i)]
    )


CASES = [("fused", kind, ratio) for kind in KINDS for ratio in RATIOS]
CASES += [("plain", kind, ratio) for kind, ratio in zip(KINDS, [4.0, 2.0, 1.0, 0.5, 4.0], strict=True)]


@pytest.mark.every(7)
@pytest.mark.parametrize(("kernels", "kind", "ratio"), CASES)
def test_gradients_are_those_of_central_differences(kernels, kind, ratio, unchecked_shapes):
    lif, x = network(kind, ratio), random_spikes(3, batch=2)
    time, y0 = x.time.clone().requires_grad_(), start(lif, 2)
    leaves = dict(lif.named_parameters()) | {"time": time}
    leaves |= {f"y0[{k}].{name}": value for k, state in enumerate(y0) for name, value in state._asdict().items()}

    def solve() -> adjsnn.LIFSolution:
        trains = adjsnn.SpikeTrains(x.idx, time, x.n_neurons, x.t_max)
        return adjsnn.solve(lif, trains, t_end=T_END, y0=y0, ts=[0.0, 21.0, 40.0, T_END], kernels=kernels)

    sol = solve()
    neurons = [s.idx for s in sol.layer_spikes]
    assert min(sol.stats.spikes) > 10
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(outputs(sol).shape, generator=generator, dtype=torch.float64)
    found = torch.autograd.grad(weights @ outputs(sol), list(leaves.values()))
    for (name, leaf), g in zip(leaves.items(), found, strict=True):
        direction = direction_along(g, generator)
        expected = derivative(lambda name=name: outputs(checked(solve(), neurons, name)), weights, leaf, direction)
        assert float((g * direction).sum()) == pytest.approx(expected, rel=TOLERANCE), name


def checked(sol: adjsnn.LIFSolution, neurons: list[Tensor], name: str) -> adjsnn.LIFSolution:
    """The solution, if the same neurons spike in the same order."""
    assert all(torch.equal(a, s.idx) for a, s in zip(neurons, sol.layer_spikes, strict=True)), name
    return sol

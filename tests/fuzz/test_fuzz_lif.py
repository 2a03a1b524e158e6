"""Random LIF networks: both bodies find the same, a batch is its samples, nothing is NaN, nothing hangs."""

from math import inf

import pytest
import torch
from fuzzing import fuzz, gradients_agree, time_limit
from hypothesis import event, given
from lif_cases import (
    Found,
    LIFCase,
    Problem,
    build,
    find,
    grazing,
    lif_cases,
    nudged_problem,
    same_spikes,
    sound,
    time_rounding,
)

import adjsnn

WAYS = {"feedforward": False, "recurrent": True}


@pytest.fixture(autouse=True, scope="module")
def _warm():
    """Compile before the clocks run."""
    for recurrent in WAYS.values():
        net = adjsnn.LIFNetwork(1, (1,), recurrent, bias=1.5, dtype=torch.float64, learn=("weights", "bias"))
        x = adjsnn.SpikeTrains.from_list([[(1.0, 0)]], n_neurons=1, t_max=50.0, dtype=torch.float64)
        adjsnn.solve(net, x).spike_times().sum().backward()


def bodies_agree(p: Problem, fused: Found, nudges: list[Found]) -> None:
    plain = find(p, "plain")
    outcomes = {n.error for n in nudges} | {plain.error}
    if len(outcomes) > 1:
        event("nudges have another outcome")
        return
    assert fused.error == plain.error
    if plain.error is not None:
        event(plain.error)
        return
    if same_spikes(p, plain, fused, nudges):
        event("nudges part")
        return
    event("compared to the end")
    gradients_agree(p.leaves(), plain.gradients, fused.gradients, [n.gradients for n in nudges], time_rounding(p))


def batch_is_its_samples(p: Problem, whole: Found, nudges: list[Found]) -> None:
    """To the bit, but for parameters' gradients, which are summed over samples in another order."""
    singles = [find(p, "fused", slice(b, b + 1)) for b in range(len(p.idx))]
    errors = {s.error for s in singles}
    if whole.error is not None:
        assert whole.error in errors
        return
    assert errors == {None}
    for b, single in enumerate(singles):
        assert [layer[0] for layer in single.spikes] == [layer[b] for layer in whole.spikes]
        assert torch.equal(single.states[:, 0], whole.states[:, b])
    total = {name: sum((s.gradients[name] for s in singles), torch.zeros_like(g)) for name, g in whole.gradients.items()}
    for name, g in whole.gradients.items():
        if name in ("time", "currents") or name[:2] in ("v0", "i0"):  # each sample has rows of its own
            assert torch.equal(total[name], g), name
    gradients_agree(p.leaves(), whole.gradients, total, [n.gradients for n in nudges if n.error is None], 1e-12)


def check(case: LIFCase) -> None:
    p = build(case)
    fused = find(p, "fused")
    nudges = [find(nudged_problem(p, seed), "plain") for seed in range(2)]
    if fused.error is None:
        sound(p, fused)
    bodies_agree(p, fused, nudges)
    batch_is_its_samples(p, fused, nudges)


@pytest.mark.parametrize("way", WAYS)
def test_bodies_agree_and_a_batch_is_its_samples(way):
    @fuzz("lif", 0.5)
    @given(lif_cases(recurrent=WAYS[way]))
    def examples(case: LIFCase) -> None:
        with time_limit(case):
            check(case)

    examples()


def test_a_spike_that_rounding_of_the_voltage_moves_ends_the_comparison():
    """The case that showed it: v_th = b, so nudges, which keep what is tied, move the second spike less than rounding may."""
    case = LIFCase(
        seed=2645466, n_in=1, layers=(1,), recurrent=False, batch=3, t_end=1000.0, taus="equal", bias="near", weights="usual",
        rec_weights="zero", delays="none", refractory="long", times="none", y0="random", currents="none", probes="random",
        alike=False,
    )  # fmt: skip
    p = build(case)
    plain, fused = find(p, "plain"), find(p, "fused")
    speeds = plain.sol.spike_speeds(0).tolist()
    assert speeds[0] > 1e-2
    assert speeds[1] < 1e-8
    assert grazing(p, plain, 0) == plain.spikes[0][0][0][1]
    assert [grazing(p, plain, b) for b in (1, 2)] == [inf, inf]
    assert same_spikes(p, plain, fused, [find(nudged_problem(p, seed), "plain") for seed in range(2)]) >= 1

"""Random gated networks: both bodies find the same, the adjoint is backpropagation, checkpoints change no bit."""

import pytest
import torch
from fuzzing import fuzz, gradients_agree, largest, time_limit
from gated_cases import Found, GatedCase, Problem, build, find, gated_cases, nudged_problem, of_the_end, same_states
from hypothesis import event, given
from torch import Tensor

import adjsnn

METHODS = ("euler", "heun", "rk4")


@pytest.fixture(autouse=True, scope="module")
def _warm():
    """Compile before the clocks run."""
    for method in METHODS:
        net = adjsnn.GatedSynapseNetwork(1, 2, 1, dtype=torch.float64)
        adjsnn.solve(net, torch.zeros(2, 1, 1, dtype=torch.float64), dt=0.5, method=method).v.sum().backward()


def rounding(p: Problem) -> float:
    """Of a factor 1 - h/τ, relative to h/τ."""
    return 2.0**-52 * max(float(x.detach().max()) for x in (p.net.tau_fast, p.net.tau_slow)) / p.dt


def of_costates(judge: Found) -> dict[str, float]:
    """At each step every costate takes in parts of the others, which cancel but for the rounding of the largest."""
    names = ("v", "a_fast", "a_slow", "bias")
    return dict.fromkeys(names, 2.0**-52 * max(largest(judge.gradients[name]) for name in names))


def a_kink(judge: Found, nudges: list[Found]) -> bool:
    """Whether the sign of a charge, which is the derivative of |q| in the number of spikes, is one of rounding."""
    q, *nudged = (x.sol.charge.detach() for x in (judge, *nudges) if x.error is None)
    return bool(((q != 0) & (q.abs() < 1e-13)).any()) or any(bool((q.sign() != other.sign()).any()) for other in nudged)


def agree(p: Problem, judge: Found, other: dict[str, Tensor], nudges: list[Found]) -> None:
    if a_kink(judge, nudges):
        event("a charge at its kink")
        return
    near = [n.gradients for n in nudges if n.error is None]
    gradients_agree(p.leaves(), judge.gradients, other, near, rounding(p), of_costates(judge))


def bodies_agree(p: Problem, fused: Found, plain: Found, nudges: list[Found]) -> None:
    if {n.error for n in nudges} != {plain.error}:
        event("nudges have another outcome")
        return
    assert fused.error == plain.error
    if plain.error is not None:
        event(plain.error)
        return
    if same_states(plain, fused, nudges):
        event("nudges part")
        return
    event("compared to the end")
    assert fused.irregular == plain.irregular
    agree(p, plain, fused.gradients, nudges)


def adjoints_agree(p: Problem, plain: Found, nudges: list[Found]) -> None:
    """On the same states: the plain adjoint, backpropagation, and the fused loops backward."""
    tape, mixed = find(p, "plain", adjoint=adjsnn.BPTT()), find(p, "backward")
    assert mixed.error is tape.error is None
    assert torch.equal(mixed.states, plain.states)
    agree(p, plain, mixed.gradients, nudges)
    if torch.equal(tape.states, plain.states):
        agree(p, plain, tape.gradients, nudges)
    else:
        event("the tape rounds otherwise")


def checkpoints_change_no_bit(p: Problem, case: GatedCase) -> None:
    kernels = "auto" if case.seed % 2 else "plain"
    stored = find(p, kernels, loss=of_the_end)
    kept = find(p, kernels, adjoint=adjsnn.DiscreteAdjoint(checkpoints=case.checkpoints), loss=of_the_end)
    assert torch.equal(stored.readout, kept.readout)
    assert torch.equal(stored.states[:, -1], kept.states)
    assert stored.irregular == kept.irregular
    for name, g in stored.gradients.items():
        assert torch.equal(kept.gradients[name], g), (kernels, name)


def batch_is_its_samples(p: Problem, whole: Found, nudges: list[Found]) -> None:
    singles = [find(p, "auto", slice(b, b + 1)) for b in range(p.u.shape[1])]
    if whole.error is not None:
        assert whole.error in {s.error for s in singles}
        return
    assert {s.error for s in singles} == {None}
    together = torch.cat([s.states for s in singles], 2)
    if p.fused:
        assert torch.equal(together, whole.states)
    elif same_states(whole, Found(None, together), nudges):
        return  # a matrix product of another size rounds differently
    total = {name: sum((s.gradients[name] for s in singles), torch.zeros_like(g)) for name, g in whole.gradients.items()}
    agree(p, whole, total, nudges)


def check(case: GatedCase) -> None:
    p = build(case)
    fused, plain = find(p, "auto"), find(p, "plain")
    nudges = [find(nudged_problem(p, seed), "plain") for seed in range(2)]
    for found in (fused, plain):
        if found.error is None:
            assert bool(found.states.isfinite().all() & found.readout.isfinite().all())
            assert all(bool(g.isfinite().all()) for g in found.gradients.values())
    bodies_agree(p, fused, plain, nudges)
    if plain.error is None:
        adjoints_agree(p, plain, nudges)
    if fused.error is None and {n.error for n in nudges} == {None}:
        batch_is_its_samples(p, fused, nudges)
    if fused.error is None and plain.error is None:
        checkpoints_change_no_bit(p, case)


@pytest.mark.parametrize("method", METHODS)
def test_bodies_and_adjoints_agree_and_a_batch_is_its_samples(method):
    @fuzz("gated", 1 / 3)
    @given(gated_cases(method=method))
    def examples(case: GatedCase) -> None:
        with time_limit(case):
            check(case)

    examples()

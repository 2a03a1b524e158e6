"""Random HybridSystems: the adjoint is backpropagation, a batch is its samples, events are found and in order."""

import pytest
import torch
from fuzzing import fuzz, gradients_agree, largest, time_limit
from hybrid_cases import KINDS, Found, HybridCase, Problem, build, find, hybrid_cases
from hypothesis import event, given

import adjsnn

ROUNDING = 1e-9  # relative, of gradients and states: some hundred steps, and events that divide by the speed of a guard


def sound(p: Problem, found: Found) -> None:
    sol = found.sol
    assert bool(sol.y.isfinite().all())
    assert all(bool(g.isfinite().all()) for g in found.gradients.values())
    real, times = sol.event_index >= 0, sol.event_times.detach()
    assert torch.equal(real, times.isfinite())
    assert not bool((~real[:, :-1] & real[:, 1:]).any())
    assert bool((times[:, 1:] >= times[:, :-1]).all())
    assert bool((times[real] >= 0.0).all() & (times[real] <= p.ts[-1]).all())


def adjoints_agree(p: Problem, found: Found) -> None:
    """The sweep beside the tape of the same steps, and the sweep with checkpoints, to the bit."""
    tape = find(p, adjoint=adjsnn.BPTT())
    assert torch.equal(tape.sol.event_index, found.sol.event_index)
    assert largest(tape.sol.y.detach() - found.sol.y.detach()) <= ROUNDING * (1.0 + largest(found.sol.y.detach()))
    gradients_agree(p.leaves(), tape.gradients, found.gradients, [], slack(found))
    kept = find(p, adjoint=adjsnn.DiscreteAdjoint(checkpoints="sqrt"))
    assert torch.equal(kept.sol.y, found.sol.y)
    assert all(torch.equal(kept.gradients[name], g) for name, g in found.gradients.items())


def slack(found: Found) -> float:
    """Rounding, divided by the speed of the slowest event."""
    slowest = found.sol.stats.slowest_event
    return ROUNDING / min(1.0, float(slowest.min())) if slowest is not None else ROUNDING


def batch_is_its_samples(p: Problem, whole: Found) -> None:
    """To rounding: a vector's elementary functions round by the place of an entry in it."""
    singles = [find(p, slice(b, b + 1)) for b in range(len(p.y0))]
    assert {s.error for s in singles} == {None}
    for b, single in enumerate(singles):
        count = single.sol.event_index.shape[1]
        assert torch.equal(single.sol.event_index[0], whole.sol.event_index[b, :count])
        assert bool((whole.sol.event_index[b, count:] < 0).all())
        off = single.sol.event_times[0].detach() - whole.sol.event_times[b, :count].detach()
        assert largest(off) <= slack(whole) * float(p.ts[-1])
        assert largest(single.sol.y[:, 0].detach() - whole.sol.y[:, b].detach()) <= slack(whole) * 10.0
    total = {name: sum((s.gradients[name] for s in singles), torch.zeros_like(g)) for name, g in whole.gradients.items()}
    gradients_agree(p.leaves(), whole.gradients, total, [], slack(whole))


def events_are_those_of_the_closed_form(p: Problem, found: Found, case: HybridCase) -> None:
    for b in range(case.batch):
        expected, times = p.system.events(b, case.t_end), found.sol.event_times[b][found.sol.event_index[b] >= 0]
        if len(times) != len(expected):  # one at the end, to the error of the steps
            least = min(len(times), len(expected))
            rest = torch.cat([times[least:], expected[least:]])
            assert largest(rest.detach() - case.t_end) <= 1e-4, (times, expected)
            times, expected = times[:least], expected[:least]
        assert largest((times - expected).detach()) <= 1e-4
        if len(times):
            leaves = [p.system.omega, p.system.level, p.system.back]
            options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
            pairs = (torch.autograd.grad(x.sum(), leaves, **options) for x in (times, expected))
            for g, h in zip(*pairs, strict=True):
                assert abs(float(g - h)) <= 1e-3 * max(1.0, abs(float(h))), (g, h)


def check(case: HybridCase) -> None:
    p = build(case)
    found = find(p)
    if found.error is not None:
        event(found.error)
        assert case.kind == "events"
        assert found.error in {find(p, slice(b, b + 1)).error for b in range(case.batch)}
        return
    event(f"{case.kind}: at least {int((found.sol.event_index >= 0).sum().clamp(max=3))} events")
    sound(p, found)
    adjoints_agree(p, found)
    batch_is_its_samples(p, found)
    if case.kind == "closed_form":
        events_are_those_of_the_closed_form(p, found, case)


@pytest.mark.parametrize("kind", KINDS)
def test_adjoints_agree_a_batch_is_its_samples_and_no_event_is_missed(kind):
    @fuzz("hybrid", 1 / len(KINDS))
    @given(hybrid_cases(kind=kind))
    def examples(case: HybridCase) -> None:
        with time_limit(case):
            check(case)

    examples()

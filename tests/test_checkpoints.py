"""Checkpointing plans: every unit is reversed once, in order, from a state that is kept, in the least number of runs."""

import pytest

from adjsnn import ConfigurationError
from adjsnn.adjoints.checkpoints import Advance, Back, Drop, binomial_runs, kept_on_the_way, plan, slots_for


def _carry_out(n: int, slots: int) -> tuple[int, int]:
    """Follow a plan; returns the number of unit runs, the first sweep included, and the most states kept at once."""
    kept = set(kept_on_the_way(n, slots))
    runs, most, backs = n, len(kept), []
    for action in plan(n, slots):
        match action:
            case Advance(start, stop):
                assert start in kept
                assert start < stop <= n
                kept.add(stop)
                runs += stop - start
            case Back(start, unit):
                assert start in kept
                backs.append(unit)
                runs += unit - start + 1
            case Drop(unit):
                kept.remove(unit)
        most = max(most, len(kept))
    assert backs == list(reversed(range(n)))
    assert kept == {0}
    return runs, most


def _least_runs(n: int, slots: int) -> list[list[int]]:
    """Runs needed for m ≤ n units and s ≤ slots slots, without the first sweep and the final runs, by dynamic programming."""
    table = [[0] * (n + 1), [m * (m - 1) // 2 for m in range(n + 1)]]
    for s in range(2, slots + 1):
        row = [0, 0]
        for m in range(2, n + 1):
            row.append(min(k + table[s - 1][m - k] + row[k] for k in range(1, m)))
        table.append(row)
    return table


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8])
def test_the_formula_is_the_least_there_is(slots):
    table = _least_runs(60, slots)
    for n in range(1, 61):
        assert binomial_runs(n, slots) == table[slots][n] + n, n


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 7, 10, 30, 100, 1000])
def test_a_plan_reaches_the_formula_within_its_slots(slots):
    for n in (1, 2, 3, 4, 5, 7, 10, 31, 100, 257, 1000):
        if slots == 1 and n > 257:
            continue
        runs, most = _carry_out(n, slots)
        # The formula's first sweep stops at its last kept state; ours goes on to the end, because the loss is there.
        assert runs == binomial_runs(n, slots) + n - kept_on_the_way(n, slots)[-1], (n, slots)
        assert most <= slots


def test_recomputed_steps_of_a_thousand():
    """The cost of 1000 units: 4.6, 3.5 and 2.9 runs each with 10, 30 and 100 slots."""
    for slots, factor in ((10, 4.6), (30, 3.5), (100, 2.9)):
        assert binomial_runs(1000, slots) / 1000 == pytest.approx(factor, abs=0.05)


@pytest.mark.parametrize("bad", [0, -1, 1.5, "cube", True])
def test_what_checkpoints_may_be(bad):
    with pytest.raises(ConfigurationError, match="checkpoints="):
        slots_for(bad, 10)


def test_sqrt_keeps_about_the_root():
    assert [slots_for("sqrt", n) for n in (1, 4, 5, 100, 101)] == [1, 2, 3, 10, 11]

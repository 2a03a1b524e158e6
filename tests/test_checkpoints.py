"""Checkpointing plans: every unit is reversed once, in order, from a state that is kept, in the least number of runs."""

import pytest

from adjsnn import ConfigurationError
from adjsnn.numerics.checkpoints import (
    Advance,
    Back,
    Drop,
    binomial_runs,
    kept_on_the_way,
    plan,
    reverse,
    runs_again,
    slots_for,
)


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


@pytest.mark.parametrize("grid", [1, 4, 16])
@pytest.mark.parametrize("slots", [1, 2, 5, 12])
def test_units_are_reversed_from_the_states_that_happen_to_be_kept(slots, grid):
    """A state is the number of its unit, and running units adds to it."""
    for n in (1, 2, 16, 17, 50, 75):
        rows, runs, kept = kept_on_the_way(n, slots, grid), [0], {}
        assert rows == sorted(set(rows))
        assert all(row % grid == 0 and 0 <= row < n for row in rows)
        assert len(rows) <= slots

        def advance(state, start, stop, runs=runs, kept=kept):
            assert state == start
            assert len(kept) <= slots
            runs[0] += stop - start
            return stop

        kept |= {row: row for row in rows}
        for again in (0, rows[-1]):  # a second pass has to make the states again, all but the first
            runs[0] = 0
            units = list(reverse(n, slots, rows, kept, advance))
            assert units == [(unit, unit) for unit in reversed(range(n))]
            assert kept == {0: 0}
            assert runs[0] == runs_again(n, slots, rows) + again
        if grid == 1:
            assert runs_again(n, slots, rows) == binomial_runs(n, slots) - n - rows[-1]


def test_a_pass_that_was_interrupted_leaves_nothing_wrong():
    rows, kept = kept_on_the_way(40, 4), {row: row for row in kept_on_the_way(40, 4)}
    passing = reverse(40, 4, rows, kept, lambda state, start, stop: state + stop - start)
    for _ in range(27):
        next(passing)
    units = reverse(40, 4, rows, kept, lambda state, start, stop: state + stop - start)
    assert list(units) == [(unit, unit) for unit in reversed(range(40))]


def test_states_on_a_grid_cost_little_more():
    """Where the number of steps is not known, states are kept at multiples of a power of two: within a tenth of the least."""
    for slots, grid in ((5, 256), (10, 128), (30, 64), (100, 16)):
        least = runs_again(1000, slots, kept_on_the_way(1000, slots))
        assert runs_again(1000, slots, kept_on_the_way(1000, slots, grid)) <= 1.1 * least


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

"""The first crossing of a moving threshold against one found in 40 digits, where it is hard to find."""

from math import inf
from typing import NamedTuple

import mpmath
import numpy as np
import pytest
from exact_crossing import DIGITS, Curve, bisected, curve, first_upward, grid

from adjsnn.lif.flow import first_crossing as crossing_of_lif
from adjsnn.lif.glif.arrays import GLIFState, Neurons
from adjsnn.lif.glif.crossing import first_crossing, pieces

EPS = 2.0**-52
KINDS = ["usual", "equal", "near", "decades", "long"]


class Case(NamedTuple):
    mu: float
    gain: float
    bias: float
    v: float
    v_th: float
    currents: list[tuple[float, float]]
    parts: list[tuple[float, float]]
    horizon: float

    def exact(self) -> Curve:
        return curve(*self[:-1])

    def found(self) -> float:
        return crossing(self)

    @property
    def fastest(self) -> float:
        return max([self.mu, 1.0 / self.horizon] + [r for _, r in self.currents + self.parts])

    @property
    def size(self) -> float:
        """Of the parts of f, whose rounding is its rounding."""
        longest = 1.0 / self.mu if self.mu > 0.0 else self.horizon
        pushed = self.gain * (abs(self.bias) * longest + sum(abs(c) * min(1.0 / r, longest) for c, r in self.currents))
        return abs(self.v) + abs(self.v_th) + pushed + sum(abs(h) for h, _ in self.parts)


def crossing(case: Case) -> float:
    none = np.zeros(0)
    columns = [np.array(x, float).reshape(-1, 2).T for x in (case.currents, case.parts)]
    (c, r), (h, s) = columns
    one = np.array
    p = Neurons(
        one(case.mu),
        one(case.gain),
        one(case.bias),
        one(case.v_th),
        one(0.0),
        one(0.0),
        one(0.0),
        r,
        none,
        none,
        s,
        none,
        none,
        none,
    )
    return first_crossing(GLIFState(one(case.v), c, h), case.bias, p, case.horizon)


def random_case(rng: np.random.Generator, kind: str, leak: bool) -> Case:
    """Currents and parts of both signs, up to five of each."""
    n, m = int(rng.integers(1, 6)), int(rng.integers(0, 4))
    if kind == "equal":
        rates = rng.choice([0.1, 0.2, 0.4], n + m + 1)
    elif kind == "decades":
        rates = 10.0 ** rng.uniform(-3.0, 3.0, n + m + 1)
    elif kind == "near":  # all rates within a hair of each other
        rates = 0.1 * (1.0 + 10.0 ** rng.uniform(-15.0, -3.0, n + m + 1) * rng.choice([-1.0, 0.0, 1.0], n + m + 1))
    else:
        rates = rng.uniform(0.03, 1.0, n + m + 1)
    mu = float(rates[-1]) if leak else 0.0
    gain = mu if leak else 1.0
    currents = rng.normal(size=n) * (4.0 if leak else rates[:n])
    currents = currents if kind != "decades" or not leak else currents * np.maximum(1.0, rates[:n] / mu)
    parts = 0.5 * rng.normal(size=m)
    v, v_th = float(rng.uniform(-1.0, 0.5)), 1.0
    v = min(v, v_th + float(parts.sum()) - 0.05)  # below θ
    horizon = {"long": 1e6, "decades": 1e4}.get(kind, 60.0)
    bias = float(rng.normal()) if leak else 0.0
    bias = bias if leak or kind in ("decades", "long") else 0.05 * float(rng.normal())
    return Case(
        mu, gain, bias, v, v_th, list(zip(currents.tolist(), rates[:n].tolist(), strict=True)),
        list(zip(parts.tolist(), rates[n : n + m].tolist(), strict=True)), horizon,
    )  # fmt: skip


def judge(case: Case) -> bool:
    """Compare; whether there was a crossing."""
    with mpmath.workdps(DIGITS):
        f = case.exact()
        expected = first_upward(f, case.horizon, case.fastest)
        found = case.found()
        if expected == inf:
            assert found == inf, case
            return False
        assert found < inf, case
        # f is off by some of its parts' rounding, and its zero by that over its slope.
        error, rounding = abs(mpmath.mpf(found) - expected), 40 * EPS * case.size
        slope = f.slope(expected)
        assert error <= rounding / slope + 4 * EPS * expected, (case, found, float(expected), float(error), float(slope))
        return True


@pytest.mark.every(3)
@pytest.mark.parametrize("leak", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_first_crossing_is_that_of_many_digits(kind, leak):
    rng = np.random.default_rng(0)
    crossed = [judge(random_case(rng, kind, leak)) for _ in range(4)]
    assert any(crossed)
    assert not all(crossed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("leak", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_first_crossing_is_that_of_many_digits_often(kind, leak, seed):
    rng = np.random.default_rng(seed)
    for _ in range(60):
        judge(random_case(rng, kind, leak))


@pytest.mark.parametrize("below", [True, False])
@pytest.mark.parametrize("apart", [1e-3, 1e-6, 1e-9, 1e-12])
def test_maxima_just_above_and_just_below_the_threshold(apart, below):
    rng = np.random.default_rng(7)
    crossed = []
    while len(crossed) < 3:
        case = random_case(rng, "usual", bool(rng.integers(2)))
        with mpmath.workdps(DIGITS):
            f = case.exact()
            times = grid(case.horizon, case.fastest)
            slopes = [f.slope(t) for t in times]
            tops = [k for k in range(1, len(times)) if slopes[k - 1] > 0 > slopes[k]]
            if not tops:
                continue
            peak = bisected(lambda t, f=f: -f.slope(t), times[tops[0] - 1], times[tops[0]])
            v_th = float(case.v_th + f.at(peak)) + (apart if below else -apart)
            case = case._replace(v_th=v_th, horizon=float(1.2 * peak))
            if f.at(mpmath.mpf(0)) + mpmath.mpf(1.0) - v_th >= -1e-3:  # starts above it
                continue
        crossed.append(judge(case))
    assert crossed == 3 * [not below]


@pytest.mark.parametrize("apart", [1.0, 1e-2, 1e-4])
def test_many_changes_of_sign(apart):
    """v rises through θ just before two equal maxima and falls again, with zeros of f where they are put."""
    rates = [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6]
    zeros = [2.0, 2.0 + apart, 9.0, 9.0 + apart, 25.0, 40.0]
    with mpmath.workdps(DIGITS):
        a = mpmath.matrix(len(zeros), len(zeros))
        for row, t in enumerate(zeros):
            for column, r in enumerate(rates[1:]):
                a[row, column] = mpmath.exp(-mpmath.mpf(r) * mpmath.mpf(t))
        rest = mpmath.lu_solve(a, mpmath.matrix([-1] * len(zeros)))
        parts = [mpmath.mpf(1), *rest]
        scale = sum(parts)  # f(0) = -1
        parts = [-x / scale for x in parts]
        mu, v_th = mpmath.mpf(0.1), mpmath.mpf(1)
        currents = [
            (float(-x * (r - mu) / mu), r) for x, r in zip(parts, map(mpmath.mpf, rates), strict=True) if r not in (0, mu)
        ]
        case = Case(0.1, 0.1, float(parts[0] + v_th), 0.0, 1.0, [(c, float(r)) for c, r in currents], [], 60.0)
    assert judge(case)
    # The sum itself, as exponentials.
    terms = sorted(((float(x), r) for x, r in zip(parts, rates, strict=True)), key=lambda x: x[1])
    found = pieces(terms, 60.0)
    assert [x[2] for x in found] == [False, True] * 3 + [False]
    with mpmath.workdps(DIGITS):
        f = Curve([(mpmath.mpf(x), mpmath.mpf(r)) for x, r in terms], [])
        for (_, zero, _), put in zip(found, zeros, strict=False):
            size = sum(abs(x) * np.exp(-r * put) for x, r in terms)
            assert abs(zero - put) <= 100 * EPS * size / abs(f.slope(put)) + 4 * EPS * put


def test_one_receptor_crosses_where_a_simple_neuron_does():
    rng = np.random.default_rng(0)
    crossed = 0
    for _ in range(200):
        tau_mem, tau_syn = 10.0 ** rng.uniform(0.0, 2.0, 2)
        bias, i, v = float(rng.choice([0.5, 1.0, 1.3])), float(5.0 * rng.normal()), float(rng.uniform(-1.0, 0.99))
        case = Case(1.0 / tau_mem, 1.0 / tau_mem, bias, v, 1.0, [(i, 1.0 / tau_syn)], [], 50.0)
        expected = crossing_of_lif(v, i, bias, tau_mem, tau_syn, 1.0, 50.0)
        assert crossing(case) == pytest.approx(expected, rel=1e-9)  # slow ones by rounding over their slope
        crossed += expected < inf
    assert 20 < crossed < 180


SIMPLE = Case(0.1, 0.1, 2.0, 0.0, 1.0, [], [], 50.0)


def test_crossings_at_the_ends():
    assert crossing(SIMPLE) == pytest.approx(10.0 * np.log(2.0))
    assert crossing(SIMPLE._replace(v=1.0)) == 0.0  # at the threshold and rising
    assert crossing(SIMPLE._replace(v=1.0, horizon=0.0)) == 0.0
    assert crossing(SIMPLE._replace(horizon=0.0)) == inf
    dips = SIMPLE._replace(v=1.0, currents=[(-3.0, 0.5)])  # at the threshold, falling, and back
    assert crossing(dips) == pytest.approx(first_root(dips, 1.0, 40.0))
    assert crossing(dips._replace(bias=1.0)) == inf
    ramp = Case(0.0, 1.0, 0.25, 0.0, 1.0, [], [], 4.0)
    assert crossing(ramp) == 4.0  # reached at the horizon
    assert crossing(ramp._replace(horizon=3.9999999)) == inf


def first_root(case: Case, low: float, high: float) -> float:
    with mpmath.workdps(DIGITS):
        return float(bisected(case.exact().at, low, high))


@pytest.mark.parametrize("horizon", [10.0, 1e4, 1e6])
def test_a_threshold_approached_for_ever_is_not_reached(horizon):
    """v and θ become equal to rounding, but their difference keeps its sign."""
    for case in (
        SIMPLE._replace(bias=1.0),
        SIMPLE._replace(bias=1.0, parts=[(0.5, 0.3)]),
        SIMPLE._replace(bias=1.0, parts=[(0.5, 0.01)]),
        SIMPLE._replace(bias=1.0, v=1.0, parts=[(0.5, 0.3)]),
        SIMPLE._replace(bias=1.0, currents=[(-0.5, 0.01), (-0.2, 3.0)]),
        Case(0.0, 1.0, 0.0, 0.5, 1.0, [(0.05 - 1e-15, 0.1)], [(0.2, 0.3)], 1.0),  # to v = 1 - 1e-14
        Case(0.0, 1.0, 0.0, 1.0, 1.0, [], [(0.2, 0.3)], 1.0),
    ):
        assert crossing(case._replace(horizon=horizon)) == inf, case


def test_a_threshold_left_behind_is_reached():
    """The same from the other side, where a current that is slower than all else lifts v over θ late."""
    for slow in (1e-3, 1e-6):
        case = SIMPLE._replace(bias=1.0, currents=[(1e-3, slow)], horizon=1e6)
        assert judge(case)

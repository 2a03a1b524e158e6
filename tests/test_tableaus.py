"""The Runge–Kutta tableaus: their own algebra, order conditions, and the slope on a nonlinear problem."""

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from adjsnn.numerics.tableaus import TABLEAUS

# Coefficients are given to 16 digits and as large as 90, so sums of seven products of them are good to about 1e-13.
ROUNDING = 1e-13
NAMES = list(TABLEAUS)
EMBEDDED = [name for name, tableau in TABLEAUS.items() if tableau.b_error]


def _arrays(name):
    tableau = TABLEAUS[name]
    a = np.zeros((tableau.stages, tableau.stages))
    for i, row in enumerate(tableau.a):
        a[i, :i] = row
    return a, np.array(tableau.b), np.array(tableau.c)


def _weights(name, sigma):
    """b_i(σ)."""
    return np.array([sum(p * sigma ** (k + 1) for k, p in enumerate(row)) for row in TABLEAUS[name].dense])


def _conditions(a, c):
    """(order, elementary weight of each stage, value it must sum to at σ = 1) for every tree up to order 5."""
    ac, ac2 = a @ c, a @ c**2
    return [
        (1, c**0, 1),
        (2, c, 1 / 2),
        (3, c**2, 1 / 3),
        (3, ac, 1 / 6),
        (4, c**3, 1 / 4),
        (4, c * ac, 1 / 8),
        (4, ac2, 1 / 12),
        (4, a @ ac, 1 / 24),
        (5, c**4, 1 / 5),
        (5, c**2 * ac, 1 / 10),
        (5, c * ac2, 1 / 15),
        (5, c * (a @ ac), 1 / 30),
        (5, ac**2, 1 / 20),
        (5, a @ c**3, 1 / 20),
        (5, a @ (c * ac), 1 / 40),
        (5, a @ ac2, 1 / 60),
        (5, a @ (a @ ac), 1 / 120),
    ]


def test_names():
    assert NAMES == ["euler", "heun", "rk4", "dopri5", "tsit5"]
    assert EMBEDDED == ["dopri5", "tsit5"]


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_row_sums(name):
    tableau = TABLEAUS[name]
    a, b, c = _arrays(name)
    assert [len(row) for row in tableau.a] == list(range(tableau.stages))
    assert len(b) == len(c) == len(tableau.dense) == tableau.stages
    np.testing.assert_allclose(a.sum(1), c, atol=ROUNDING, rtol=0)
    if tableau.first_same_as_last:
        np.testing.assert_array_equal(a[-1], b)
        assert c[-1] == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_order_conditions(name):
    a, b, c = _arrays(name)
    for order, weight, value in _conditions(a, c):
        if order <= TABLEAUS[name].order:
            assert b @ weight == pytest.approx(value, abs=ROUNDING), (order, value)
    missed = [b @ w - v for order, w, v in _conditions(a, c) if order == TABLEAUS[name].order + 1]
    assert not missed or np.abs(missed).max() > 1e-3  # the stated order is not an understatement


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_error_estimate_is_of_order_4(name):
    a, b, c = _arrays(name)
    b_hat = b - np.array(TABLEAUS[name].b_error)
    for order, weight, value in _conditions(a, c):
        if order <= 4:
            assert b_hat @ weight == pytest.approx(value, abs=ROUNDING), (order, value)
    assert max(abs(b_hat @ w - v) for order, w, v in _conditions(a, c) if order == 5) > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_continuous_extension_ends_at_the_step(name):
    np.testing.assert_allclose(_weights(name, 1.0), TABLEAUS[name].b, atol=ROUNDING, rtol=0)
    np.testing.assert_array_equal(_weights(name, 0.0), 0.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sigma", [0.1, 0.35, 0.5, 0.8])
def test_continuous_extension_order_conditions(name, sigma):
    a, _, c = _arrays(name)
    for order, weight, value in _conditions(a, c):
        if order <= TABLEAUS[name].dense_order:
            got = _weights(name, sigma) @ weight
            assert got == pytest.approx(value * sigma**order, abs=ROUNDING), (order, value)


def _field(t, y):
    return np.array([y[1] * math.cos(t), -math.sin(y[0]) - 0.3 * y[1] * y[0] ** 2])


def _endpoint(name, steps, t_end=4.0):
    a, b, c = _arrays(name)
    y, h = np.array([1.0, -0.5]), t_end / steps
    for n in range(steps):
        k = np.zeros((len(b), 2))
        for i in range(len(b)):
            k[i] = _field((n + c[i]) * h, y + h * a[i] @ k)
        y = y + h * b @ k
    return y


@pytest.mark.parametrize("name", NAMES)
def test_slope_on_a_nonlinear_problem(name):
    exact = solve_ivp(_field, (0.0, 4.0), [1.0, -0.5], method="DOP853", rtol=3e-14, atol=1e-15).y[:, -1]
    errors = [np.abs(_endpoint(name, steps) - exact).max() for steps in (80, 160)]
    slope = math.log2(errors[0] / errors[1])
    # The slope approaches the order with an error O(h), for order 5 from above: half an order keeps the neighbours out.
    assert slope == pytest.approx(TABLEAUS[name].order, abs=0.5), errors

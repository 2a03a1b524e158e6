"""Products of matrices in vector registers against numpy, for every remainder of rows."""

import numpy as np
import pytest
from numba import njit

from adjsnn.equations.cpu import mathematics, matrices

pytestmark = pytest.mark.compiled
CALLS = {name: njit(getattr(matrices, name), nogil=True, error_model="numpy") for name in ("apply", "apply_back")}


@pytest.mark.parametrize("m", [1, 5, 32])
@pytest.mark.parametrize("n", [1, 7, 8, 13, 31, 32, 45, 64, 77])
def test_products(n: int, m: int) -> None:
    """The same sums as numpy's, to the rounding of as many additions, added to what stands there; nothing beside is written."""
    random = np.random.default_rng(100 * n + m)
    matrix, x, bar = random.normal(size=(n, m)), random.normal(size=m), random.normal(size=n)
    room = np.full(n + 2, 7.0)
    columns = np.ascontiguousarray(matrix.T).reshape(-1)
    CALLS["apply"](columns, x, room[1:-1])
    assert room[0] == room[-1] == 7.0
    np.testing.assert_allclose(room[1:-1], matrix @ x, rtol=0.0, atol=4e-16 * (m + 1) * np.abs(matrix).max() * np.abs(x).max())
    owed, of_x = np.full(n * m + 2, 3.0), np.full(m + 2, 5.0)
    CALLS["apply_back"](columns, x, bar, of_x[1:-1], owed[1:-1])
    assert (owed[0], owed[-1], of_x[0], of_x[-1]) == (3.0, 3.0, 5.0, 5.0)
    np.testing.assert_allclose(of_x[1:-1], 5.0 + matrix.T @ bar, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(owed[1:-1].reshape(m, n).T, 3.0 + np.outer(bar, x), rtol=1e-15, atol=1e-15)


def test_as_plain() -> None:
    """What stands in their place on a GPU and without the compiler."""
    random = np.random.default_rng(0)
    matrix, x, bar = random.normal(size=6 * 11), random.normal(size=6), random.normal(size=11)
    found = []
    for apply, back in ((CALLS["apply"], CALLS["apply_back"]), (mathematics.apply, mathematics.apply_back)):
        out, of_x, owed = np.zeros(11), np.zeros(6), np.zeros(66)
        apply(matrix, x, out)
        back(matrix, x, bar, of_x, owed)
        found.append(np.concatenate([out, of_x, owed]))
    np.testing.assert_allclose(*found, rtol=1e-13, atol=1e-15)

"""Functions of numbers and vectors that equations call, in compiled loops."""

import math

NEAR = 1e-2  # |x| below which exprel's slope is taken from its series: x⁷/8!·7 is a rounding there
exp, log, sqrt, sin, cos, tan, atan = math.exp, math.log, math.sqrt, math.sin, math.cos, math.tan, math.atan
sinh, cosh, tanh, expm1, log1p = math.sinh, math.cosh, math.tanh, math.expm1, math.log1p

REORDERED = ("total", "dot", "apply_back")  # sums whose order is that of vectors


def power(x, n):
    """xⁿ for any n."""
    return x**n


def whole_power(x, n):
    """xⁿ for a whole n ≥ 1 by squaring."""
    result, square = 1.0, x
    while n > 0:
        if n % 2 == 1:
            result *= square
        square *= square
        n //= 2
    return result


def powerlog(x, n):
    """xⁿ log x, and 0 at x = 0."""
    return 0.0 if x == 0.0 else x**n * math.log(x)


def absolute(x):
    """|x|."""
    return -x if x < 0.0 else x


def sign(x):
    """-1, 0 or 1."""
    return (1.0 if x > 0.0 else 0.0) - (1.0 if x < 0.0 else 0.0)


def minimum(x, y):
    """The smaller, y where they are equal."""
    return x if x < y else y


def maximum(x, y):
    """The larger, y where they are equal."""
    return x if x > y else y


def clip(x, low, high):
    """x, but at least low and at most high."""
    return low if x < low else (high if x > high else x)


def exprel(x):
    """(eˣ - 1)/x, and 1 at 0."""
    return 1.0 if x == 0.0 else math.expm1(x) / x


def exprelslope(x, e):
    """Slope of exprel from its value e: e + (1 - e)/x, and ½ at 0."""
    if abs(x) < NEAR:
        return 1 / 2 + x * (1 / 3 + x * (1 / 8 + x * (1 / 30 + x * (1 / 144 + x * (1 / 840 + x / 5760)))))
    return e + (1.0 - e) / x


def sigmoid(x):
    """1/(1 + e⁻ˣ)."""
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)


def total(x):
    """Σ x."""
    result = 0.0
    for i in range(len(x)):
        result += x[i]
    return result


def dot(a, x):
    """Σ a x."""
    result = 0.0
    for i in range(len(x)):
        result += a[i] * x[i]
    return result


def dot_back(a, x, bar, x_bar, a_bar):
    """Add the products of bar with the derivatives of `dot`."""
    for i in range(len(x)):
        x_bar[i] += bar * a[i]
        a_bar[i] += bar * x[i]


def apply(matrix, x, out):
    """out ← matrix @ x; the matrix by columns."""
    n = len(out)
    for i in range(n):
        out[i] = 0.0
    for j in range(len(x)):
        column, factor = matrix[j * n : (j + 1) * n], x[j]
        for i in range(n):
            out[i] += column[i] * factor


def apply_back(matrix, x, bar, x_bar, matrix_bar):
    """Add the products of bar with the derivatives of `apply`."""
    n = len(bar)
    for j in range(len(x)):
        column, into, factor = matrix[j * n : (j + 1) * n], matrix_bar[j * n : (j + 1) * n], x[j]
        result = 0.0
        for i in range(n):
            result += column[i] * bar[i]
        for i in range(n):
            into[i] += bar[i] * factor
        x_bar[j] += result

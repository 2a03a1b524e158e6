"""Judges sums in registers by numpy, as compiled for the machine that numba is told of: a program, since wrong code may crash.

Every array begins or ends where a page of memory does that nothing may touch, the rest of its pages is NaN and must stay so.
Whole numbers, whose sums no order changes, are compared exactly, and others within rounding. Prints how many float32 and
float64 a register holds.

    python tests/register_loops.py [few [once]]

`few` lengths are taken instead of all, and with `once` sums of products of float32 alone, whose code is that of float64 but for
the length of a register: nearly all of the time goes to compiling it.
"""

import ctypes
import mmap
import sys
import types
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # without torch, which takes seconds to load
    package = types.ModuleType("adjsnn")
    package.__path__ = [str(Path(__file__).parents[1] / "adjsnn")]
    sys.modules["adjsnn"] = package

import numba
import numpy as np

from adjsnn.gated.cpu.arguments import PENDING, SPARE, TOGETHER, Pending
from adjsnn.gated.cpu.products import (
    add_outer_later,
    add_pending,
    add_products,
    add_rows,
    add_to_rows,
    add_to_rows_of,
    dot_rows,
)
from adjsnn.gated.cpu.vectors import LOOP, select
from adjsnn.numerics.registers import added, lanes, load, load2, load4, load_first, store, store_first, summed, zeros, zeros4

LENGTHS, COUNTS = (*range(1, 71), 100, 128, 129, 200), tuple(range(21))
FEW = (1, 7, 15, 16, 17, 30, 33, 60, 70), (0, 1, 4, 7)
PAGE, ROOM = mmap.PAGESIZE, 1 << 16


class Fenced:
    """Memory between two pages that nothing may touch."""

    def __init__(self):
        memory = np.frombuffer(mmap.mmap(-1, ROOM + 2 * PAGE), np.uint8)
        for page in (0, PAGE + ROOM):
            assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(memory.ctypes.data + page), ctypes.c_size_t(PAGE), 0) == 0
        self.room = memory[PAGE:-PAGE]

    def holding(self, values, at_end):
        """The values at one end; what is left is NaN."""
        size = values.nbytes
        self.room[:] = 255
        at = ROOM - size if at_end else 0
        array = self.room[at : at + size].view(values.dtype).reshape(values.shape)
        self.rest = self.room[:at] if at_end else self.room[size:]
        array[...] = values
        return array

    def is_whole(self):
        return bool((self.rest == 255).all())


FENCED = [Fenced() for _ in range(7)]


def judge(loop, formula, arrays, terms):
    """Assert what a loop leaves in its arrays.

    Args:
        loop: takes the arrays.
        formula: of the arrays in a longer precision, what some of them become by position, None where that is nobody's concern;
            the others must stay as they are.
        arrays: before.
        terms: of a sum, each of which may be rounded once; 0 where nothing is.
    """
    longer = [x.astype(np.longdouble) if x.dtype.kind == "f" else x for x in arrays]
    expected = formula(*longer)
    sizes = formula(*map(abs, longer)) if terms else {}
    for at_end in (False, True):
        found = [memory.holding(x, at_end) for memory, x in zip(FENCED, arrays, strict=False)]
        loop(*found)
        for k, x in enumerate(found):
            assert FENCED[k].is_whole(), (loop, k, "beside the array")
            after = expected.get(k, arrays[k])
            if after is None:
                continue
            if k in sizes and x.dtype.kind == "f":
                assert (abs(x - after) <= terms * np.finfo(x.dtype).eps * sizes[k]).all(), (loop, k, x - after)
            else:
                assert np.array_equal(x, after, equal_nan=x.dtype.kind == "f"), (loop, k, x, after)


@numba.njit(**LOOP)
def held(x):
    return lanes(x)


@numba.njit(**LOOP)
def intrinsics(x, y, z, few, into, out, start, count, factor):
    """Each into a row of out; `few` and `into` may be shorter than a register."""
    whole, other = load(x, start), load(y, start)
    store(out[0], 0, whole)
    store(out[1], 0, load_first(few, start, count))
    store(out[2], 0, added(whole, factor, other))
    store(out[3], 0, added(whole, other, load(z, start)))
    store(out[4], 0, zeros(x))
    out[5, 0] = summed(whole, other)
    store_first(into, start, count, other)


def judge_intrinsics(random, dtype):
    """At any place of an array, for any count, with infinity and NaN."""
    wide = int(held(np.zeros(1, dtype)))
    for start, count in ((start, count) for start in (0, 1, 7, 16) for count in range(-1, wide + 3)):
        some, factor = min(max(count, 0), wide), dtype(count - 1)

        def formula(x, y, z, few, into, out, start=start, some=some, factor=factor):
            a, b, c = x[start:], y[start:], z[start:]
            taken = np.concatenate([few[start:], np.zeros(wide - some)])
            numbers = np.concatenate([[(a + b).sum()], out[5, 1:]])
            written = np.concatenate([into[:start], b[:some]])
            return {4: written, 5: np.stack([a, taken, a + factor * b, a + b * c, np.zeros(wide), numbers])}

        lengths = (start + wide,) * 3 + (start + some,) * 2
        arrays = [random.integers(-8, 9, n).astype(dtype) for n in lengths] + [np.zeros((6, wide), dtype)]
        if count == 2:
            arrays[0][start], arrays[1][-1] = np.nan, np.inf
        judge(partial(_after, intrinsics, (start, count, factor)), formula, arrays, 0)


@numba.njit(**LOOP)
def several(x, y, twice, fourfold, start, factor):
    """Two and four registers at once."""
    store(twice, start, added(load2(x, start), factor, load2(y, start)))
    store(fourfold, start, added(added(zeros4(x), factor, load4(y, start)), load4(x, start), load4(x, start)))


def judge_several(random, dtype):
    """At any place of an array."""
    wide = int(held(np.zeros(1, dtype)))
    for start in (0, 1, 7, 16):

        def formula(x, y, twice, fourfold, start=start):
            a, b = x[start:], y[start:]
            two = a[: 2 * wide] + dtype(start - 3) * b[: 2 * wide]
            return {
                2: np.concatenate([twice[:start], two]),
                3: np.concatenate([fourfold[:start], dtype(start - 3) * b + a * a]),
            }

        lengths = [start + count * wide for count in (4, 4, 2, 4)]
        arrays = [random.integers(-8, 9, n).astype(dtype) for n in lengths]
        judge(partial(_after, several, (start, dtype(start - 3))), formula, arrays, 0)


def _after(loop, others, *arrays):
    """A loop with other arguments after the arrays."""
    return loop(*arrays, *others)


@numba.njit(**LOOP)
def select_loop(marks, index, found):
    count = select(marks, index)
    for k in range(count):
        found[k] = index[k]


def judge_select(random, dtype, length):
    """Places of what is not zero, NaN among it."""
    for share in (0.0, 0.2, 0.9, 1.0):
        marks = np.where(random.random(length) < share, random.choice([1.0, -2.0, np.nan], length), -0.0).astype(dtype)
        (places,) = np.nonzero(marks)
        arrays = [marks, np.zeros(length + SPARE, np.int32), np.full(length, -1, np.int64)]
        expected = np.concatenate([places, np.full(length - len(places), -1)])
        judge(select_loop, lambda *_, places=expected: {1: None, 2: places}, arrays, 0)


@numba.njit(**LOOP)
def products_loop(matrix, weight, total, first, step, apart):
    add_products(matrix, weight, first, step, apart, total)


@numba.njit(**LOOP)
def rows_loop(matrix, index, weight, total, count):
    add_rows(matrix, index, weight, count, total)


@numba.njit(**LOOP)
def to_rows_loop(matrix, index, weight, row, count):
    add_to_rows(matrix, index, weight, count, row)


@numba.njit(**LOOP)
def to_rows_of_loop(matrix, index, weights, rows, count, last, at):
    add_to_rows_of(matrix, index, count, weights, rows, last, at)


@numba.njit(**LOOP)
def dots_loop(matrix, index, row, out, count):
    dot_rows(matrix, index, count, row, out)


@numba.njit(**LOOP)
def outer_loop(charges, cotangents, pending, total):
    for some in range(charges.shape[0]):
        add_outer_later(charges[some], cotangents[some], pending, total)
    add_pending(pending, total)


def judge_products(numbers, random, length, count, terms):
    """Every function, with `count` rows of `length` numbers, which `numbers` makes in any shape."""
    for first, step, apart in ((3, 1, count + 2), (0, 5, 1)):  # by rows and by columns
        places = first + apart * np.arange(4)[:, None] + step * np.arange(count)
        judge(
            partial(_after, products_loop, (first, step, apart)),
            lambda matrix, weight, total, at=places: {2: total + (weight[at] @ matrix).ravel()},
            [numbers(count, length), numbers(first + 3 * apart + max(count - 1, 0) * step + 1), numbers(4 * length)],
            terms and count + 1,
        )
    matrix, index = numbers(9, length), random.integers(0, 9, count + 2)  # some of them more than once; two more than asked for
    weight, row, chosen = numbers(count), numbers(length), index[:count]
    often = (chosen[:, None] == np.arange(9)).astype(float)
    judge(
        partial(_after, rows_loop, (count,)),
        lambda matrix, index, weight, total: {3: total + weight @ matrix[chosen]},
        [matrix, index, weight, row],
        terms and count + 1,
    )
    judge(
        partial(_after, to_rows_loop, (count,)),
        lambda matrix, index, weight, row: {0: matrix + (weight @ often)[:, None] * row},
        [matrix, index, weight, row],
        terms and count + 1,
    )
    for last, at in ((0, 0), (3, 2)):
        judge(
            partial(_after, to_rows_of_loop, (count, last, at)),
            lambda matrix, index, weights, rows, at=at: {
                0: matrix + often.sum(0)[:, None] * (weights[1:, at:].T @ rows[1:, at:]),
            },
            [matrix, index, numbers(last + 1, at + 9), numbers(last + 1, at + length)],
            terms and last * count + 1,
        )
    judge(
        partial(_after, dots_loop, (count,)),
        lambda matrix, index, row, out: {3: matrix[chosen] @ row},
        [matrix, index, row, numbers(count)],
        terms and length + 1,
    )


def judge_outer(numbers, size, length, groups, terms):
    """Charges of `size` neurons and cotangents of `length`, of so many groups of samples that wait for each other."""
    dtype = numbers(1).dtype

    def loop(charges, cotangents, count, for_charges, for_cotangents, total):
        outer_loop(charges, cotangents, Pending(count, for_charges, for_cotangents), total)

    def formula(charges, cotangents, count, for_charges, for_cotangents, total):
        left, right = charges.reshape(-1, size), cotangents.reshape(-1, length)
        return {2: 0 * count, 3: None, 4: None, 5: total + left.T @ right}

    waiting = [np.full(PENDING * width, np.nan, dtype) for width in (size, length)]
    shapes = [(groups, TOGETHER * size), (groups, TOGETHER * length)]
    arrays = [*(numbers(*shape) for shape in shapes), np.zeros(1, np.int64), *waiting, numbers(size, length)]
    judge(loop, formula, arrays, terms and TOGETHER * groups + 1)


def judge_all(dtype, lengths, counts, products=True):
    random = np.random.default_rng(0)

    def whole(*shape):
        return random.integers(-8, 9, shape).astype(dtype)

    def other(*shape):
        return random.standard_normal(shape).astype(dtype)

    judge_intrinsics(random, dtype)
    judge_several(random, dtype)
    for length in lengths:
        judge_select(random, dtype, length)
        if not products:
            continue
        for count in counts:
            judge_products(whole, random, length, count, 0)
        judge_products(other, random, length, counts[-1], 1)
        for size in {1, 4, 7, length % 23 + 1}:
            judge_outer(whole, size, length, length % 10, 0)
        judge_outer(other, 5, length, 9, 1)
    print(held(np.zeros(1, dtype)))


if __name__ == "__main__":
    few, once = "few" in sys.argv[1:], "once" in sys.argv[1:]
    for dtype in (np.float32, np.float64):
        judge_all(dtype, *(FEW if few else (LENGTHS, COUNTS)), products=not once or dtype == np.float32)

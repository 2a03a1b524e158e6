"""Products of the weights of a gated network with the charges and cotangents of a few samples, sums kept in registers."""

from adjsnn.gated.cpu.arguments import PENDING, TOGETHER
from adjsnn.gated.cpu.vectors import CALLED, OPTIONS, PIECE, copy, number
from adjsnn.numerics.compiled import compiled
from adjsnn.numerics.registers import (
    added,
    lanes,
    load,
    load2,
    load4,
    load_first,
    many_registers,
    store,
    store_first,
    summed,
    zeros,
)


@compiled(**OPTIONS)
def whole_pays(marks):
    """Whether so many of some neurons are in the zone that the whole matrix is cheaper than its columns: a quarter, or half."""
    return (4 if many_registers() else 2) * number(marks) > marks.shape[0]


@compiled(**CALLED)
def add_products(matrix, weight, first, step, apart, total):
    """total[s] += Σ_n weight[first + s apart + n step] matrix[n] for four s, weight and total flat."""
    length = matrix.shape[1]
    wide, m = lanes(total), 0
    if many_registers():
        while m + 4 * wide <= length:
            _four_registers(matrix, weight, first, step, apart, total, m)
            m += 4 * wide
    while m + 2 * wide <= length:
        _two_registers(matrix, weight, first, step, apart, total, m)
        m += 2 * wide
    while m < length:
        _one_register(matrix, weight, first, step, apart, total, m)
        m += wide


@compiled(**OPTIONS)
def _four_registers(matrix, weight, first, step, apart, total, m):
    """Columns m … of `add_products`, as many as four registers hold: 16 sums, which hide how long one takes."""
    rows, length = matrix.shape
    a, b, c, d = total[:length], total[length : 2 * length], total[2 * length : 3 * length], total[3 * length : 4 * length]
    p, q, r, s = load4(a, m), load4(b, m), load4(c, m), load4(d, m)
    for n in range(rows):
        row, at = load4(matrix[n], m), first + n * step
        p, q = added(p, weight[at], row), added(q, weight[at + apart], row)
        r, s = added(r, weight[at + 2 * apart], row), added(s, weight[at + 3 * apart], row)
    store(a, m, p)
    store(b, m, q)
    store(c, m, r)
    store(d, m, s)


@compiled(**OPTIONS)
def _two_registers(matrix, weight, first, step, apart, total, m):
    """The same for two registers: 8 sums, for machines with 16 registers, and for what four leave."""
    rows, length = matrix.shape
    a, b, c, d = total[:length], total[length : 2 * length], total[2 * length : 3 * length], total[3 * length : 4 * length]
    p, q, r, s = load2(a, m), load2(b, m), load2(c, m), load2(d, m)
    for n in range(rows):
        row, at = load2(matrix[n], m), first + n * step
        p, q = added(p, weight[at], row), added(q, weight[at + apart], row)
        r, s = added(r, weight[at + 2 * apart], row), added(s, weight[at + 3 * apart], row)
    store(a, m, p)
    store(b, m, q)
    store(c, m, r)
    store(d, m, s)


@compiled(**OPTIONS)
def _one_register(matrix, weight, first, step, apart, total, m):
    """Columns m … of `add_products`, as many as one register holds, or as there are."""
    rows, length = matrix.shape
    some = min(lanes(total), length - m)
    a, b, c, d = total[:length], total[length : 2 * length], total[2 * length : 3 * length], total[3 * length : 4 * length]
    p, q = load_first(a, m, some), load_first(b, m, some)
    r, s = load_first(c, m, some), load_first(d, m, some)
    for n in range(rows):
        row, at = load_first(matrix[n], m, some), first + n * step
        p, q = added(p, weight[at], row), added(q, weight[at + apart], row)
        r, s = added(r, weight[at + 2 * apart], row), added(s, weight[at + 3 * apart], row)
    store_first(a, m, some, p)
    store_first(b, m, some, q)
    store_first(c, m, some, r)
    store_first(d, m, some, s)


@compiled(**CALLED)
def add_rows(matrix, index, weight, count, total):
    """total += Σ weight[k] matrix[index[k]] over the first `count` k."""
    length, wide, m = total.shape[0], lanes(total), 0
    while m + 4 * wide <= length:
        sums = load4(total, m)
        for k in range(count):
            sums = added(sums, weight[k], load4(matrix[index[k]], m))
        store(total, m, sums)
        m += 4 * wide
    while m < length:
        some = min(wide, length - m)
        rest = load_first(total, m, some)
        for k in range(count):
            rest = added(rest, weight[k], load_first(matrix[index[k]], m, some))
        store_first(total, m, some, rest)
        m += wide


@compiled(**CALLED)
def add_to_rows(matrix, index, weight, count, row):
    """matrix[index[k]] += weight[k] row for the first `count` k."""
    length, wide, m = row.shape[0], lanes(row), 0
    while m + 4 * wide <= length:
        piece = load4(row, m)
        for k in range(count):
            into = matrix[index[k]]
            store(into, m, added(load4(into, m), weight[k], piece))
        m += 4 * wide
    while m < length:
        some = min(wide, length - m)
        rest = load_first(row, m, some)
        for k in range(count):
            into = matrix[index[k]]
            store_first(into, m, some, added(load_first(into, m, some), weight[k], rest))
        m += wide


@compiled(**CALLED)
def add_to_rows_of(matrix, index, count, weights, rows, last, at):
    """matrix[n] += Σ_i weights[i, at + n] rows[i, at:] over 1 ≤ i ≤ last, for the first `count` n of the index."""
    length, m = matrix.shape[1], 0
    wide = lanes(weights[0])
    while m + 4 * wide <= length:
        for k in range(count):
            n = index[k]
            into = matrix[n]
            sums = load4(into, m)
            for i in range(1, last + 1):
                sums = added(sums, weights[i, at + n], load4(rows[i], at + m))
            store(into, m, sums)
        m += 4 * wide
    while m < length:
        some = min(wide, length - m)
        for k in range(count):
            n = index[k]
            into = matrix[n]
            rest = load_first(into, m, some)
            for i in range(1, last + 1):
                rest = added(rest, weights[i, at + n], load_first(rows[i], at + m, some))
            store_first(into, m, some, rest)
        m += wide


@compiled(**CALLED)
def dot_rows(matrix, index, count, row, out):
    """out[k] = matrix[index[k]] · row for the first `count` k."""
    length, wide = row.shape[0], lanes(row)
    fours = count - count % 4
    for k in range(0, fours, 4):
        a, b, c, d = (
            matrix[index[k]],
            matrix[index[k + 1]],
            matrix[index[k + 2]],
            matrix[index[k + 3]],
        )
        p0, q0, r0, s0 = zeros(row), zeros(row), zeros(row), zeros(row)
        p1, q1, r1, s1 = zeros(row), zeros(row), zeros(row), zeros(row)
        m = 0
        while m + 2 * wide <= length:  # eight sums, which hide how long one takes
            x, y, after = load(row, m), load(row, m + wide), m + wide
            p0, q0, r0, s0 = (
                added(p0, x, load(a, m)),
                added(q0, x, load(b, m)),
                added(r0, x, load(c, m)),
                added(s0, x, load(d, m)),
            )
            p1, q1 = added(p1, y, load(a, after)), added(q1, y, load(b, after))
            r1, s1 = added(r1, y, load(c, after)), added(s1, y, load(d, after))
            m += 2 * wide
        while m < length:
            some = min(wide, length - m)
            x = load_first(row, m, some)
            p0, q0 = added(p0, x, load_first(a, m, some)), added(q0, x, load_first(b, m, some))
            r0, s0 = added(r0, x, load_first(c, m, some)), added(s0, x, load_first(d, m, some))
            m += wide
        out[k], out[k + 1] = summed(p0, p1), summed(q0, q1)
        out[k + 2], out[k + 3] = summed(r0, r1), summed(s0, s1)
    for k in range(fours, count):
        a, p0, p1, m = matrix[index[k]], zeros(row), zeros(row), 0
        while m + 2 * wide <= length:
            p0, p1 = added(p0, load(row, m), load(a, m)), added(p1, load(row, m + wide), load(a, m + wide))
            m += 2 * wide
        while m < length:
            some = min(wide, length - m)
            p0 = added(p0, load_first(row, m, some), load_first(a, m, some))
            m += wide
        out[k] = summed(p0, p1)


@compiled(**PIECE)
def add_outer_later(charges, cotangents, pending, total):
    """total[n] += Σ_s charges[s, n] cotangents[s] over four s, both flat: when `pending` is full, or by `add_pending`."""
    size, length, at = total.shape[0], total.shape[1], pending.waiting[0]
    copy(charges, pending.charges[at * size : (at + TOGETHER) * size])
    copy(cotangents, pending.cotangents[at * length : (at + TOGETHER) * length])
    pending.waiting[0] = at + TOGETHER
    if at + TOGETHER == PENDING:
        add_pending(pending, total)


@compiled(**CALLED)
def add_pending(pending, total):
    """What is left of `add_outer_later`."""
    size, length = total.shape
    count = pending.waiting[0]
    pending.waiting[0] = 0
    charges, cotangents = pending.charges, pending.cotangents[: count * length].reshape((count, length))
    fours, into = size - size % 4, total.reshape(size * length)
    for n in range(0, fours, 4):
        add_products(cotangents, charges, n, size, 1, into[n * length : (n + 4) * length])
    for n in range(fours, size):
        for k in range(count):
            x, row = charges[k * size + n], total[n]
            for m in range(length):
                row[m] += x * cotangents[k, m]

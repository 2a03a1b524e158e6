"""Products of small matrices with vectors on a CPU: the rows of a block stay in vector registers while all columns pass by.

The same sums as `apply` and `apply_back` of `adjsnn.equations.cpu.mathematics`, fused and in the order of vectors: one for each
machine, whatever the sizes around it.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 8  # float64 of one vector; the compiler takes two where registers are half as wide
WIDE = 4  # vectors of a block: 32 rows
NUMBER, LONG = ir.DoubleType(), ir.IntType(64)


def _at(builder: Any, base: Any, offset: Any, kind: Any) -> Any:
    """Pointer to a vector, or a number, that begins at an entry."""
    return builder.bitcast(builder.gep(base, [offset]), kind.as_pointer())


def _columns(context: Any, builder: Any, signature: Any, arguments: Any) -> tuple[Any, ...]:
    """Pointers of arrays, and integers as they are."""

    def plain(kind: Any, x: Any) -> Any:
        return cgutils.create_struct_proxy(kind)(context, builder, x).data if isinstance(kind, types.Array) else x

    return tuple(map(plain, signature.args, arguments))


class _Loop:
    """A loop over the columns of a block.

    Args:
        builder: of LLVM's code.
        lanes: numbers of a vector.
        count: of columns.
    """

    def __init__(self, builder: Any, lanes: int, count: Any) -> None:
        self.builder, self.count = builder, count
        self.kind = ir.VectorType(NUMBER, lanes) if lanes > 1 else NUMBER
        self.lanes = lanes
        name = f"llvm.fmuladd.v{lanes}f64" if lanes > 1 else "llvm.fmuladd.f64"
        self.fused = builder.module.declare_intrinsic(name, (), ir.FunctionType(self.kind, [self.kind] * 3))
        self.zero = ir.Constant(self.kind, [0.0] * lanes if lanes > 1 else 0.0)

    def begin(self, sums: int) -> list[Any]:
        """Enter the loop: sums that start at zero."""
        self.entry, self.body = self.builder.block, self.builder.append_basic_block("column")
        self.builder.branch(self.body)
        self.builder.position_at_end(self.body)
        self.j = self.builder.phi(LONG)
        self.j.add_incoming(ir.Constant(LONG, 0), self.entry)
        self.sums = [self.builder.phi(self.kind) for _ in range(sums)]
        for x in self.sums:
            x.add_incoming(self.zero, self.entry)
        return self.sums

    def end(self, sums: list[Any]) -> None:
        """Leave it, with the sums after a column."""
        after, builder = self.builder.append_basic_block("columns_done"), self.builder
        following = builder.add(self.j, ir.Constant(LONG, 1))
        self.j.add_incoming(following, builder.block)
        for phi, x in zip(self.sums, sums, strict=True):
            phi.add_incoming(x, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, self.count), self.body, after)
        builder.position_at_end(after)

    def everywhere(self, x: Any) -> Any:
        """A number in all lanes."""
        if self.lanes == 1:
            return x
        builder, places = self.builder, ir.VectorType(ir.IntType(32), self.lanes)
        nothing = ir.Constant(self.kind, ir.Undefined)
        return builder.shuffle_vector(
            builder.insert_element(nothing, x, ir.Constant(ir.IntType(32), 0)), nothing, ir.Constant(places, [0] * self.lanes)
        )

    def total(self, x: Any) -> Any:
        """The sum of all lanes, halves first."""
        builder, width = self.builder, self.lanes
        while width > 1:
            width //= 2
            halves = (ir.Constant(ir.VectorType(ir.IntType(32), width), [k + o for k in range(width)]) for o in (0, width))
            one, two = (builder.shuffle_vector(x, x, half) for half in halves)
            x = builder.fadd(one, two)
        return builder.extract_element(x, ir.Constant(ir.IntType(32), 0)) if self.lanes > 1 else x


def _offsets(vectors: int, lanes: int) -> list[Any]:
    return [ir.Constant(LONG, k * lanes) for k in range(vectors)]


def _block(vectors: int, lanes: int) -> Any:
    """out[first : first + vectors · lanes] ← the same rows of a matrix, by columns of n, times x of m."""

    @intrinsic
    def block(typing_context, matrix, x, out, first, n, m):
        del typing_context

        def generate(context, builder, signature, arguments):
            source, factors, into, begin, stride, count = _columns(context, builder, signature, arguments)
            loop = _Loop(builder, lanes, count)
            sums = loop.begin(vectors)
            factor = loop.everywhere(builder.load(builder.gep(factors, [loop.j])))
            column = builder.gep(source, [builder.add(builder.mul(loop.j, stride), begin)])
            loaded = [builder.load(_at(builder, column, o, loop.kind), align=8) for o in _offsets(vectors, lanes)]
            new = [builder.call(loop.fused, [part, factor, s]) for part, s in zip(loaded, sums, strict=True)]
            loop.end(new)
            for part, offset in zip(new, _offsets(vectors, lanes), strict=True):
                builder.store(part, _at(builder, builder.gep(into, [begin]), offset, loop.kind), align=8)
            return context.get_dummy_value()

        return types.void(matrix, x, out, first, n, m), generate

    return block


def _block_back(vectors: int, lanes: int) -> Any:
    """Of the same rows: x_bar ← x_bar + columns · bar, matrix_bar ← matrix_bar + bar xᵀ."""

    @intrinsic
    def block_back(typing_context, matrix, x, bar, x_bar, matrix_bar, first, n, m):
        del typing_context

        def generate(context, builder, signature, arguments):
            source, factors, bars, into, owed, begin, stride, count = _columns(context, builder, signature, arguments)
            loop = _Loop(builder, lanes, count)
            offsets = _offsets(vectors, lanes)
            held = [builder.load(_at(builder, builder.gep(bars, [begin]), o, loop.kind), align=8) for o in offsets]
            loop.begin(0)
            factor = loop.everywhere(builder.load(builder.gep(factors, [loop.j])))
            place = builder.add(builder.mul(loop.j, stride), begin)
            column, target = builder.gep(source, [place]), builder.gep(owed, [place])
            along = loop.zero
            for part, offset in zip(held, offsets, strict=True):
                entry = _at(builder, target, offset, loop.kind)
                builder.store(builder.call(loop.fused, [part, factor, builder.load(entry, align=8)]), entry, align=8)
                beside = builder.load(_at(builder, column, offset, loop.kind), align=8)
                along = builder.call(loop.fused, [beside, part, along])
            entry = builder.gep(into, [loop.j])
            builder.store(builder.fadd(builder.load(entry), loop.total(along)), entry)
            loop.end([])
            return context.get_dummy_value()

        return types.void(matrix, x, bar, x_bar, matrix_bar, first, n, m), generate

    return block_back


wide, narrow, single = _block(WIDE, LANES), _block(1, LANES), _block(1, 1)
wide_back, narrow_back, single_back = _block_back(WIDE, LANES), _block_back(1, LANES), _block_back(1, 1)


def apply(matrix, x, out):
    """out ← matrix @ x; the matrix by columns."""
    n, m, i = len(out), len(x), 0
    while i + WIDE * LANES <= n:
        wide(matrix, x, out, i, n, m)
        i += WIDE * LANES
    while i + LANES <= n:
        narrow(matrix, x, out, i, n, m)
        i += LANES
    while i < n:
        single(matrix, x, out, i, n, m)
        i += 1


def apply_back(matrix, x, bar, x_bar, matrix_bar):
    """Add the products of bar with the derivatives of `apply`."""
    n, m, i = len(bar), len(x), 0
    while i + WIDE * LANES <= n:
        wide_back(matrix, x, bar, x_bar, matrix_bar, i, n, m)
        i += WIDE * LANES
    while i + LANES <= n:
        narrow_back(matrix, x, bar, x_bar, matrix_bar, i, n, m)
        i += LANES
    while i < n:
        single_back(matrix, x, bar, x_bar, matrix_bar, i, n, m)
        i += 1

"""Vector registers for the CPU loops: pieces of arrays that stay in a core while products are added to them.

LLVM turns a loop over arrays into vectors, and stores every sum after each turn of the loop around it. A product of matrices is
bound by that. Here a loop says which sums stay in registers: `load` takes as many numbers of a contiguous vector as a register
holds, `lanes` of them, `added` adds a multiple, and `store` puts them back. `load2`, `load4` and `zeros4` are two and four
registers side by side, as one. The forms with a `count` take the first so many numbers alone, and zeros for the rest.

With the compiler switched off they are arrays, and an index beyond the end is an error.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.core.cgutils import get_or_insert_function
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, register_model

_CONFIG: Any = config
_FUSED = ("contract",)  # product and sum in one rounding where the machine can


class Register(types.Type):
    """So many float32 or float64."""

    def __init__(self, dtype: Any, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(f"Register({dtype}, {count})")


@register_model(Register)
class _RegisterModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Register) -> None:
        number = ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, kind, ir.VectorType(number, kind.count))


@cache
def _features() -> frozenset[str]:
    """Of the machine that code is compiled for."""
    context: Any = cpu_target.target_context
    return frozenset(context.codegen().magic_tuple()[2].split(","))


def _register_bytes() -> int:
    """Of a vector register."""
    return 64 if "+avx512f" in _features() else 32 if "+avx" in _features() else 16


def _can_compress() -> bool:
    """Whether vectors of any length are packed by one instruction."""
    return {"+avx512f", "+avx512vl"} <= _features()


def _register_of(array: Any) -> Register | None:
    """What holds numbers of a contiguous vector, None if it is no such vector; numba then says so."""
    if not isinstance(array, types.Array) or array.ndim != 1 or array.layout != "C":
        return None
    if array.dtype not in (types.float32, types.float64):
        return None
    return Register(array.dtype, _register_bytes() * 8 // array.dtype.bitwidth)


def _several(array: Any, count: int) -> Register | None:
    """So many registers side by side."""
    one = _register_of(array)
    return one and Register(one.dtype, one.count * count)


def _holds(array: Any, register: Any) -> bool:
    """Whether the numbers of a register, or of several, can be put into an array."""
    one = _register_of(array)
    return one is not None and isinstance(register, Register) and register.dtype == one.dtype and array.mutable


def _whole(*numbers: Any) -> bool:
    """Whether all are whole numbers; numba would cut others off."""
    return all(isinstance(x, types.Integer) for x in numbers)


def _address(context: Any, builder: Any, kind: Any, values: Any, register: Any) -> Any:
    """Of a register's numbers in an array; the values are the array, the index of the first, and whatever else."""
    at = builder.gep(context.make_array(kind)(context, builder, values[0]).data, [values[1]])
    return builder.bitcast(at, register.as_pointer())


def _first(context: Any, builder: Any, register: Any, count: Any) -> Any:
    """Which of a register's numbers are the first so many."""
    whole = ir.VectorType(ir.IntType(64), register.count)
    places = ir.Constant(whole, [ir.Constant(ir.IntType(64), k) for k in range(register.count)])
    del context
    return builder.icmp_signed("<", places, _everywhere(builder, whole, count))


def _everywhere(builder: Any, vector: Any, x: Any) -> Any:
    """A vector of equal numbers."""
    nothing, zero = ir.Constant(vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
    one = builder.insert_element(nothing, x, zero)
    return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [zero] * vector.count))


def _suffix(vector: Any) -> str:
    """Of the name of an operation on such vectors in LLVM."""
    return f"v{vector.count}f{32 if isinstance(vector.element, ir.FloatType) else 64}"


def _masked_load(builder: Any, at: Any, mask: Any, kind: Any) -> Any:
    """The numbers that the mask names, zeros for the others, which are not read."""
    operation = ir.FunctionType(kind, [kind.as_pointer(), ir.IntType(32), mask.type, kind])
    masked = get_or_insert_function(builder.module, operation, f"llvm.masked.load.{_suffix(kind)}.p0{_suffix(kind)}")
    align = ir.Constant(ir.IntType(32), 4 if isinstance(kind.element, ir.FloatType) else 8)
    return builder.call(masked, [at, align, mask, ir.Constant(kind, None)])


def _lanes(typing: Any, array: Any) -> Any:
    """How many numbers of an array a register holds."""
    del typing
    register = _register_of(array)
    return register and (types.intp(array), lambda *_: ir.Constant(ir.IntType(64), register.count))


def _many(typing: Any) -> Any:
    """Whether the machine has 32 registers and not 16, which 16 sums beside what is added to them would not fit into."""
    del typing
    context: Any = cpu_target.target_context
    triple = context.codegen().magic_tuple()[0]
    found = _register_bytes() == 64 or triple.startswith(("aarch64", "arm64"))
    return types.boolean(), lambda *_: ir.Constant(ir.IntType(1), found)


def _compresses(typing: Any) -> Any:
    """Whether `chosen` is fast here."""
    del typing
    return types.boolean(), lambda *_: ir.Constant(ir.IntType(1), _can_compress())


def _chosen(typing: Any, marks: Any, start: Any, count: Any, index: Any, at: Any) -> Any:
    """Writes the places from `start` on, among `count` of them, whose marks are not 0, to index[at], …; returns how many.

    A whole register is written, so the index, of int32, must be that much longer than needed. For machines that compress alone.
    """
    del typing
    register = _register_of(marks)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if not _can_compress():
            return ir.Constant(ir.IntType(64), 0)
        kind, number = context.get_value_type(register), ir.IntType(32)
        places = ir.VectorType(number, kind.count)
        there = _address(context, builder, signature.args[0], values, kind)
        mask = _first(context, builder, kind, values[2])
        loaded = _masked_load(builder, there, mask, kind)
        mask = builder.and_(mask, builder.fcmp_unordered("!=", loaded, ir.Constant(kind, None)))
        steps = ir.Constant(places, [ir.Constant(number, k) for k in range(kind.count)])
        numbers = builder.add(steps, _everywhere(builder, places, builder.trunc(values[1], number)))
        operation = ir.FunctionType(places, [places, places, mask.type])
        compress = get_or_insert_function(builder.module, operation, f"llvm.x86.avx512.mask.compress.v{kind.count}i32")
        packed = builder.call(compress, [numbers, ir.Constant(places, None), mask])
        into = _address(context, builder, signature.args[3], values[3:], places)
        builder.store(packed, into).align = 4
        bits = ir.IntType(kind.count)
        found = builder.ctpop(builder.bitcast(mask, bits))
        return builder.zext(found, ir.IntType(64))

    fits = register and isinstance(index, types.Array) and index.dtype == types.int32 and index.layout == "C"
    fits = fits and index.ndim == 1 and index.mutable and _whole(start, count, at)
    return (types.intp(marks, types.intp, types.intp, index, types.intp), code) if fits else None


def _zeros_of(count: int) -> Callable[[Any, Any], Any]:
    """Makes so many registers of zeros of an array's type."""

    def zeros(typing: Any, array: Any) -> Any:
        del typing
        register = _several(array, count)
        return register and (register(array), lambda context, *_: ir.Constant(context.get_value_type(register), None))

    return zeros


def _load_of(count: int) -> Callable[[Any, Any, Any], Any]:
    """Takes numbers `start` and after of a vector into so many registers."""

    def load(typing: Any, array: Any, start: Any) -> Any:
        del typing
        register = _several(array, count)

        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            kind = context.get_value_type(register)
            loaded = builder.load(_address(context, builder, signature.args[0], values, kind))
            loaded.align = array.dtype.bitwidth // 8
            return loaded

        return (register(array, types.intp), code) if register and _whole(start) else None

    return load


def _store(typing: Any, array: Any, start: Any, register: Any) -> Any:
    """Put the numbers of a register, or of several, into a vector, from `start` on."""
    del typing

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = context.get_value_type(signature.args[2])
        stored = builder.store(values[2], _address(context, builder, signature.args[0], values, kind))
        stored.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    fits = _holds(array, register) and _whole(start)
    return (types.void(array, types.intp, register), code) if fits else None


def _load_first(typing: Any, array: Any, start: Any, count: Any) -> Any:
    """The first `count` numbers from `start` on, and zeros."""
    del typing
    register = _register_of(array)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = context.get_value_type(register)
        at = _address(context, builder, signature.args[0], values, kind)
        return _masked_load(builder, at, _first(context, builder, kind, values[2]), kind)

    return (register(array, types.intp, types.intp), code) if register and _whole(start, count) else None


def _store_first(typing: Any, array: Any, start: Any, count: Any, register: Any) -> Any:
    """Put the first `count` numbers of a register into a vector, from `start` on."""
    del typing

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = context.get_value_type(signature.args[3])
        mask = _first(context, builder, kind, values[2])
        operation = ir.FunctionType(ir.VoidType(), [kind, kind.as_pointer(), ir.IntType(32), mask.type])
        masked = get_or_insert_function(builder.module, operation, f"llvm.masked.store.{_suffix(kind)}.p0{_suffix(kind)}")
        align = ir.Constant(ir.IntType(32), array.dtype.bitwidth // 8)
        builder.call(masked, [values[3], _address(context, builder, signature.args[0], values, kind), align, mask])
        return context.get_dummy_value()

    fits = _holds(array, register) and register == _register_of(array) and _whole(start, count)
    return (types.void(array, types.intp, types.intp, register), code) if fits else None


def _added(typing: Any, total: Any, factor: Any, register: Any) -> Any:
    """total + factor · register, of a number or a register."""
    del typing

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        factors = values[1]
        if signature.args[1] != total:
            factors = _everywhere(builder, context.get_value_type(total), factors)
        return builder.fadd(values[0], builder.fmul(factors, values[2], flags=_FUSED), flags=_FUSED)

    fits = isinstance(total, Register) and register == total and factor in (total, total.dtype)
    return (total(total, factor, register), code) if fits else None


def _summed(typing: Any, register: Any, other: Any) -> Any:
    """Sum of the numbers of two registers."""
    del typing

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = context.get_value_type(signature.args[0])
        operation = ir.FunctionType(kind.element, [kind.element, kind])
        reduce = get_or_insert_function(builder.module, operation, f"llvm.vector.reduce.fadd.{_suffix(kind)}")
        both = builder.fadd(*values)
        return builder.call(reduce, [ir.Constant(kind.element, 0.0), both], fastmath=("reassoc",))

    fits = isinstance(register, Register) and register == other
    return (register.dtype(register, other), code) if fits else None


def _in_loops(code: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: in loops what `code` makes; with the compiler switched off the function itself."""

    def named(function: Callable[..., Any]) -> Any:
        code.__name__ = function.__name__  # which numba says where arguments do not fit
        return function if _CONFIG.DISABLE_JIT else intrinsic(code)

    return named


@_in_loops(_lanes)
def lanes(array):
    return 64 // array.itemsize


@_in_loops(_many)
def many_registers():
    return True


@_in_loops(_compresses)
def compresses():
    return False


@_in_loops(_chosen)
def chosen(marks, start, count, index, at):
    raise NotImplementedError


@_in_loops(_zeros_of(1))
def zeros(array):
    return np.zeros(lanes(array), array.dtype)


@_in_loops(_zeros_of(4))
def zeros4(array):
    return np.zeros(4 * lanes(array), array.dtype)


@_in_loops(_load_of(1))
def load(array, start):
    return load_first(array, start, lanes(array))


@_in_loops(_load_of(2))
def load2(array, start):
    return np.concatenate((load(array, start), load(array, start + lanes(array))))


@_in_loops(_load_of(4))
def load4(array, start):
    return np.concatenate((load2(array, start), load2(array, start + 2 * lanes(array))))


@_in_loops(_store)
def store(array, start, register):
    for k in range(len(register)):
        array[start + k] = register[k]


@_in_loops(_load_first)
def load_first(array, start, count):
    register = zeros(array)
    for k in range(min(count, lanes(array))):
        register[k] = array[start + k]
    return register


@_in_loops(_store_first)
def store_first(array, start, count, register):
    for k in range(min(count, lanes(array))):
        array[start + k] = register[k]


@_in_loops(_added)
def added(total, factor, register):
    return total + factor * register


@_in_loops(_summed)
def summed(register, other):
    return (register + other).sum()

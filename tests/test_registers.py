"""Vector registers in loops: sums as numpy forms them, on this machine and on others, and nothing outside of arrays touched."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features
from numba.core.errors import TypingError

from adjsnn.gated.cpu.vectors import LOOP
from adjsnn.numerics.registers import added, load, load_first, store, store_first, summed, zeros

JUDGE = Path(__file__).with_name("register_loops.py")
HOST = get_host_cpu_features()
WITHOUT_AVX = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}
WITHOUT_AVX512 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"}


def judged(*arguments, **environment):
    """How many float32 and float64 the machine holds, if what it leaves in arrays is right."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    done = subprocess.run(
        [sys.executable, JUDGE, *arguments], check=False, capture_output=True, text=True, env=known | environment
    )
    assert done.returncode == 0, done.stderr or "it read or wrote beyond an array"
    return [int(x) for x in done.stdout.split()]


@pytest.mark.parametrize("cases", [["few", "once"], pytest.param([], marks=pytest.mark.slow)], ids=["few", "all"])
def test_sums_of_this_machine(cases):
    """Of a few, sums of float64 are compared by the tests of gated networks, whose loops then are those of plain code."""
    held = judged(*cases)
    assert held[0] == 2 * held[1]


def test_without_the_compiler_no_index_is_out_of_bounds():
    assert judged("few", NUMBA_DISABLE_JIT="1") == [16, 8]


@pytest.mark.slow
@pytest.mark.skipif(not HOST.get("sse2"), reason="not such a machine")
def test_sums_of_a_machine_with_short_registers():
    assert judged("few", **WITHOUT_AVX) == [4, 2]


@pytest.mark.slow
@pytest.mark.skipif(not (HOST.get("avx2") and HOST.get("fma")), reason="not such a machine")
def test_sums_of_a_machine_with_registers_of_256_bits():
    assert judged(**WITHOUT_AVX512) == [8, 4]


def moved(x, y, start, count, factor):
    store(y, start, load(x, start))


def first_moved(x, y, start, count, factor):
    store_first(y, start, count, load_first(x, start, count))


def sums(x, y, start, count, factor):
    y[0] = summed(added(zeros(x), factor, load(x, 0)), load(y, 0))


def changed(**what):
    """Arguments of the three, some of them others."""
    return list(({"x": np.ones(64), "y": np.ones(64), "start": 0, "count": 2, "factor": 1.0} | what).values())


READ_ONLY = np.broadcast_to(np.float64(1.0), 1).repeat(64)
READ_ONLY.flags.writeable = False
WRONG = {
    "matrix": ((moved, first_moved, sums), changed(x=np.ones((8, 8)))),
    "not contiguous": ((moved, first_moved, sums), changed(x=np.ones(128)[::2])),
    "whole numbers": ((moved, first_moved, sums), changed(x=np.ones(64, np.int64))),
    "half precision": ((moved, first_moved, sums), changed(x=np.ones(64, np.float16))),
    "no array": ((moved, first_moved, sums), changed(x=(1.0, 2.0))),
    "another type": ((moved, first_moved, sums), changed(x=np.ones(64, np.float32))),
    "into one that is read only": ((moved, first_moved), changed(y=READ_ONLY)),
    "from a fraction": ((moved, first_moved), changed(start=0.5)),
    "so many and a half": ((first_moved,), changed(count=2.5)),
    "factor of another type": ((sums,), changed(factor=np.float32(1.0))),
    "whole factor": ((sums,), changed(factor=1)),
    "factor that is an array": ((sums,), changed(factor=np.ones(64))),
}


@pytest.mark.parametrize(("function", "arguments"), [(f, a) for functions, a in WRONG.values() for f in functions])
def test_what_no_register_takes_is_refused_by_name(function, arguments):
    with pytest.raises(TypingError, match=r"(?s)No implementation of function.*<intrinsic (load|store|zeros|added|summed)"):
        numba.njit(**LOOP)(function)(*arguments)


def test_what_registers_take_is_not():
    for function in (moved, first_moved, sums):
        numba.njit(**LOOP)(function)(*changed())

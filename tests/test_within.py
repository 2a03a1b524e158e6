"""Functions that only loops call: their code is in the loops, to the same effect as if each were compiled by itself."""

import gc
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from numba.core import config
from numba.core.codegen import JITCodeLibrary
from numba.core.errors import TypingError

import adjsnn
from adjsnn.numerics import compiled as cache
from adjsnn.numerics.compiled import EXACT, EXACT_BARE_INLINE, EXACT_WITHIN, compiled


def half(x):
    return 0.5 * x if x >= 0.0 else np.nan


def halves(x):
    if x[0] < 0.0:
        raise ValueError("negative", x[0])
    longer = np.empty(len(x) + 1)
    for k in range(len(x)):
        longer[k] = half(x[k])
    longer[-1] = len(x)
    return longer


def loop(x):
    return halves(x)


NAMES = ("half", "halves", "loop")


@pytest.fixture
def chain(monkeypatch, tmp_path):
    """A function that compiles a loop as another process would, with two levels below it that nothing but it calls."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    plain = {name: globals()[name] for name in NAMES}
    for function in plain.values():
        monkeypatch.setattr(function, "__module__", "adjsnn.gated.cpu.test_within")
    monkeypatch.setitem(sys.modules, "adjsnn.gated.cpu.test_within", sys.modules[__name__])

    def fresh():
        for name, options in zip(NAMES, (EXACT_BARE_INLINE, EXACT_WITHIN, EXACT), strict=True):
            globals()[name] = compiled(**options)(plain[name])
        return loop

    yield fresh
    globals().update(plain)


def test_a_loop_is_the_same_from_the_compiler_and_from_disk(chain, tmp_path):
    x = np.array([1.0, 3.0, -1.0])
    for hits in (0, 1):
        whole = chain()
        np.testing.assert_array_equal(whole(x), [0.5, 1.5, np.nan, 3.0])
        assert sum(whole.stats.cache_hits.values()) == hits
    (kept,) = (file for folder in cache.folders("adjsnn.gated.cpu") for file in folder.iterdir())
    assert kept.name.startswith("test_within.loop-")  # the functions inside it are part of it
    assert kept.is_relative_to(tmp_path)


def test_errors_come_through(chain):
    for _ in range(2):  # compiled, and from disk
        with pytest.raises(ValueError, match="negative"):
            chain()(np.array([-2.0]))


def test_what_only_loops_call_is_no_machine_code_of_its_own(chain, monkeypatch):
    made, finish = [], JITCodeLibrary._finalize_final_module
    monkeypatch.setattr(JITCodeLibrary, "_finalize_final_module", lambda library: (made.append(library.name), finish(library)))
    chain()(np.ones(2))
    assert "loop" in made
    assert not {"half", "halves"} & set(made)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(chain, enabled):
    before, whole = gc.isenabled(), chain()
    (gc.enable if enabled else gc.disable)()
    try:
        whole(np.ones(2))
        assert gc.isenabled() is enabled
        with pytest.raises(TypingError):
            whole("text")
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()


LONGEST = """
import sys, types
package = types.ModuleType("adjsnn"); package.__path__ = [sys.argv[1]]; sys.modules["adjsnn"] = package  # without torch

import numba
from adjsnn.numerics.compiled import EXACT
from adjsnn.numerics.within import Loop

def loop(x, y):
    for k in range(x.shape[0]):
        y[k] += x[k]

for options in (EXACT, EXACT | {'pipeline_class': Loop}):
    compiled = numba.njit(**options)(loop)
    compiled.compile((numba.float64[::1], numba.float64[::1]))
    (code,) = compiled.inspect_asm().values()
    print("ymm" in code, "zmm" in code)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="of other machines")
def test_loops_have_the_longest_vectors_also_where_llvm_would_take_shorter_ones():
    machine = {"NUMBA_CPU_NAME": "skylake-avx512", "NUMBA_CPU_FEATURES": "+avx512f,+avx512vl,+avx512bw,+avx512dq,+avx2,+avx"}
    done = subprocess.run(
        [sys.executable, "-c", LONGEST, *adjsnn.__path__], capture_output=True, text=True, check=False, env=os.environ | machine
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["True False", "True True"]

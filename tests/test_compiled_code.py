"""Compiled loops on disk: whatever lies there or cannot lie there, the loop that runs is the one of the present sources."""

import logging
import os
import pkgutil
import resource
import shutil
import subprocess
import sys
from collections import namedtuple
from importlib import import_module
from pathlib import Path

import numba
import numpy as np
import pytest
from numba import types

import adjsnn
from adjsnn.numerics import compiled as cache
from adjsnn.numerics.within import Loop, Within

PACKAGE = Path(adjsnn.__file__).parent
LOOPS_OF = ("adjsnn.gated.cpu", "adjsnn.lif.cpu", "adjsnn.numerics")  # packages whose sources make machine code

# A process that has the loops without torch, which takes seconds to load.
WITHOUT_TORCH = """
import sys, types
package = types.ModuleType("adjsnn"); package.__path__ = [sys.argv[1]]; sys.modules["adjsnn"] = package
"""
LOOPS = f"""{WITHOUT_TORCH}
from adjsnn.lif.cpu import flow
print(len(flow.decay(1.0, 20.0, 5.0)) == 3)
print(sum(flow.decay.stats.cache_hits.values()))
"""
WIDE_LOOPS = f"""{WITHOUT_TORCH}
import numpy as np
from adjsnn.gated.cpu.euler import products
random, out = np.random.default_rng(0), np.empty((2, 50))
products(random.random((30, 50)), random.random((2, 30)), np.empty(46, np.int32), np.empty(30), out)
print(sum(products.stats.cache_hits.values()), out.tobytes().hex())
"""
FOLDERS = f"""{WITHOUT_TORCH}
import adjsnn.lif.cpu.flow
from adjsnn.numerics.compiled import folders
print(*folders("adjsnn.lif.cpu"))
"""


def twice(x):
    return x + x


twice.__module__ = "adjsnn.gated.cpu.test_compiled_code"  # as if it stood among the loops


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A function that compiles `twice` as another process would, with code kept in tmp_path."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, twice.__module__, sys.modules[__name__])  # where numba looks for it
    monkeypatch.setattr(cache, "_said", set())
    return lambda: cache.compiled()(twice)


def hits(dispatcher):
    return sum(dispatcher.stats.cache_hits.values())


def kept():
    return sorted(x for folder in cache.folders("adjsnn.gated.cpu") for x in folder.glob("*"))


def test_code_is_loaded_where_it_was_kept(fresh):
    first, second = fresh(), fresh()
    assert first(1.5) == 3.0
    assert hits(first) == 0
    assert second(1.5) == 3.0
    assert hits(second) == 1
    assert len(kept()) == 1
    assert second(2) == 4  # another signature, a file of its own
    assert len(kept()) == 2


def _empty(file, _):
    file.write_bytes(b"")


def _truncated(file, _):
    file.write_bytes(file.read_bytes()[:-7])


def _one_bit(file, _):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _random(file, _):
    file.write_bytes(np.random.default_rng(0).bytes(5000))


def _pickle_of_something_else(file, _):
    body = cache.dumps(("key", "code"))
    file.write_bytes(cache.hashlib.sha256(body).digest() + body)


def _code_of_another_signature(file, other):
    file.write_bytes(other.read_bytes())


def _folder(file, _):
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "damage", [_empty, _truncated, _one_bit, _random, _pickle_of_something_else, _code_of_another_signature, _folder]
)
def test_damaged_code_is_compiled_again_with_one_warning(fresh, damage):
    first = fresh()
    first(1.5)
    (of_floats,) = kept()
    first(2)
    (of_integers,) = set(kept()) - {of_floats}
    damage(of_floats, of_integers)
    again = fresh()
    with pytest.warns(adjsnn.KernelCacheWarning, match="is damaged.*NUMBA_CACHE_DIR") as seen:
        assert again(1.5) == 3.0
    assert len(seen) == 1
    assert hits(again) == 0
    if damage is not _folder:
        after = fresh()
        assert after(1.5) == 3.0
        assert hits(after) == 1  # mended


def test_a_full_disk_costs_one_warning_and_leaves_nothing_half_written(fresh):
    function, (soft, hard) = fresh(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # a write beyond fails as on a full disk
    try:
        with pytest.warns(adjsnn.KernelCacheWarning, match="cannot be kept.*NUMBA_CACHE_DIR"):
            value = function(1.5)
        assert function(2) == 4  # no second warning, which would be an error here
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert value == 3.0
    assert kept() == []


def test_code_of_other_sources_is_never_run(fresh, monkeypatch):
    fresh()(1.5)
    monkeypatch.setitem(cache._loaded, "adjsnn.gated.cpu", "0" * 64)
    later = fresh()
    later(1.5)
    assert hits(later) == 0


def test_sources_edited_since_they_were_loaded_are_not_taken_for_the_code_that_runs(fresh, monkeypatch):
    function = fresh()
    monkeypatch.setattr(cache, "_sources", lambda package: "0" * 64)
    assert function(1.5) == 3.0
    assert kept() == []


def test_every_source_of_a_loop_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(cache.resources, "files", lambda _: tmp_path)
    assert cache._sources("adjsnn.gated.cpu") is None
    seen = set()
    for name, text in (("a.py", "1"), ("b.py", "1"), ("b.py", "2"), ("a.py", "2"), ("note.txt", "1")):
        (tmp_path / name).write_text(text)
        seen.add(cache._sources("adjsnn.gated.cpu"))
    assert len(seen) == 4
    monkeypatch.setattr(cache, "OPTIONS", (cache.EXACT | {"nogil": False}, *cache.OPTIONS[1:]))
    assert cache._sources("adjsnn.gated.cpu") not in seen


def test_numbers_that_a_loop_takes_from_another_module_count(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("from adjsnn.lif.layer import SPIKE\n")
    monkeypatch.setattr(cache.resources, "files", lambda _: tmp_path)
    assert b"SPIKE" in cache._source("adjsnn.lif.layer")
    seen = set()
    for source in (b"SPIKE = 1", b"SPIKE = 2", b"SPIKE = 1"):
        monkeypatch.setattr(cache, "_source", lambda module, now=source: now if module == "adjsnn.lif.layer" else b"")
        seen.add(cache._sources("adjsnn.lif.cpu"))
    assert len(seen) == 2


@pytest.mark.parametrize("module", ["compiled", "registers", "within"])
def test_what_makes_instructions_of_loops_counts(module, monkeypatch):
    source, before = cache._source, cache._sources("adjsnn.gated.cpu")
    edited = f"adjsnn.numerics.{module}"
    monkeypatch.setattr(cache, "_source", lambda name: source(name) + (b"#" if name == edited else b""))
    assert cache._sources("adjsnn.gated.cpu") != before


def test_the_order_of_fields_of_a_named_tuple_counts():
    one, other = namedtuple("Pair", "a b"), namedtuple("Pair", "b a")
    keys = [cache._fields((types.NamedTuple([types.int64, types.int64], pair), types.int64)) for pair in (one, other)]
    assert keys[0] != keys[1]


def test_code_of_the_newest_states_of_the_sources_stays(fresh, tmp_path):
    for age in range(6):
        old = tmp_path / f"adjsnn.gated.cpu-{age}"
        old.mkdir()
        (old / "loop.code").touch()
        os.utime(old, (1e9 - age, 1e9 - age))
    (tmp_path / "adjsnn.numerics-7").mkdir()  # another family's
    fresh()(1.5)
    left = {folder.name for folder in tmp_path.iterdir()}
    newest = {f"adjsnn.gated.cpu-{age}" for age in range(3)}
    assert left == {cache.folders("adjsnn.gated.cpu")[0].name, "adjsnn.numerics-7", *newest}


def test_the_first_compilation_is_announced_once_and_can_be_silenced(fresh, caplog, monkeypatch):
    fresh()(1.5)
    (line,) = caplog.messages
    assert "compiling loops" in line
    assert "test_compiled_code.twice" in line
    fresh()(1.5)
    fresh()(2)
    assert len(caplog.messages) == 1
    monkeypatch.setattr(cache, "_said", set())
    fresh()(1.5)  # from disk
    assert len(caplog.messages) == 1
    logging.getLogger("adjsnn").setLevel(logging.ERROR)
    try:
        fresh()(np.ones(2))
    finally:
        logging.getLogger("adjsnn").setLevel(logging.NOTSET)
    assert len(caplog.messages) == 1


def test_all_loops_are_compiled_this_way_from_sources_that_count():
    loops = 0
    for package in LOOPS_OF:
        for module in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
            dispatchers = [x for x in vars(import_module(module.name)).values() if hasattr(x, "py_func")]
            loops += len(dispatchers)
            called = [x for x in dispatchers if not issubclass(x._compiler.pipeline_class, Within)]
            assert all(x._compiler.pipeline_class is Loop for x in called), module.name
            assert all(isinstance(x._cache, cache._Kept) and x._cache.package == package for x in called), module.name
    assert loops > 50
    for path in PACKAGE.rglob("*.py"):
        assert path == Path(cache.__file__) or "njit" not in path.read_text(), path


def run_loops(package, program=LOOPS, **environment):
    """A process that runs a loop."""
    known = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME")}
    return subprocess.Popen(
        [sys.executable, "-c", program, str(package)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=known | environment,
    )  # fmt: skip


def test_the_folder_of_kept_code_is_the_same_in_every_process():
    """The order of a set of names is another in each."""
    program = [sys.executable, "-c", FOLDERS, str(Path(adjsnn.__file__).parent)]
    found = {
        subprocess.run(program, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1
    assert "adjsnn.lif.cpu-" in found.pop()


@pytest.mark.slow
def test_processes_that_fill_an_empty_folder_at_once_agree(tmp_path):
    processes = [run_loops(PACKAGE, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    for out, error in [process.communicate(timeout=120) for process in processes]:
        assert out.split()[0] == "True"
        assert all("compiling loops" in line for line in error.splitlines()), error
    out, error = run_loops(PACKAGE, NUMBA_CACHE_DIR=str(tmp_path)).communicate(timeout=120)
    assert out.split() == ["True", "1"]
    assert error == ""  # silent where nothing compiles


@pytest.fixture
def read_only(tmp_path):
    """A copy of the library beside which nothing can be kept, whoever is the user."""
    package = tmp_path / "site" / "adjsnn"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for loops in package.rglob("cpu"):
        (loops / "__pycache__").touch()
    (package / "numerics" / "__pycache__").touch()
    return package


def test_an_installation_that_cannot_be_written_keeps_code_in_the_users_folder_or_nowhere(read_only, tmp_path):
    home, nowhere = {"HOME": str(tmp_path)}, {"HOME": os.devnull}
    first, lost = run_loops(read_only, **home), run_loops(read_only, **nowhere)
    out, error = lost.communicate(timeout=120)
    assert out.split() == ["True", "0"]
    lines = [line for line in error.splitlines() if "KernelCacheWarning" in line]
    assert len(lines) == 1
    assert "NUMBA_CACHE_DIR" in lines[0]
    first.communicate(timeout=120)
    out, error = run_loops(read_only, **home).communicate(timeout=120)
    assert (out.split(), error) == (["True", "1"], "")


@pytest.mark.slow
def test_loops_with_registers_are_kept_for_one_machine_and_one_state_of_what_makes_their_code(read_only, tmp_path):
    """A copy of the library, kept code of which another process takes, but no other machine, nor an edited library."""

    def run(**environment):
        process = run_loops(read_only, WIDE_LOOPS, NUMBA_CACHE_DIR=str(tmp_path / "kept"), **environment)
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        hits, numbers = out.split()
        return int(hits), np.frombuffer(bytes.fromhex(numbers))

    hits, numbers = run()
    assert hits == 0
    again, same = run()
    assert again == 1
    np.testing.assert_array_equal(same, numbers)
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}  # its registers are shorter
    for expected in (0, 1):
        hits, others = run(**plain)
        assert hits == expected
        np.testing.assert_allclose(others, numbers, rtol=1e-14)  # sums of 30 positive products
    for edited in ("registers", "within"):
        with (read_only / "numerics" / f"{edited}.py").open("a") as file:
            file.write("\n")
        hits, numbers = run()
        assert hits == 0


@pytest.mark.slow
def test_the_library_in_a_zip_file_keeps_its_code(tmp_path):
    archive = shutil.make_archive(str(tmp_path / "library"), "zip", PACKAGE.parent, "adjsnn")
    results = [run_loops(f"{archive}/adjsnn", HOME=str(tmp_path)).communicate(timeout=120) for _ in range(2)]
    assert [out.split() for out, _ in results] == [["True", "0"], ["True", "1"]]
    assert results[1][1] == ""


SOLVES = """
import torch, adjsnn
if {lif}:
    net = adjsnn.LIFNetwork(1, (1,), tau_mem=20.0, bias=2.0, learn=("bias",), dtype=torch.float64)
    sol = adjsnn.solve(net, torch.zeros(1, 1, 1, dtype=torch.float64), t_end=50.0, dt=50.0)
    sol.spike_times().sum().backward()
    torch.testing.assert_close(net.bias[0].grad.item(), -60.0)  # three spikes at k τ ln(b/(b - 1))
else:
    net = adjsnn.GatedSynapseNetwork(1, 2, 1, learn=("bias",))
    adjsnn.solve(net, torch.ones(3, 1, 1), dt=0.1).readout.sum().backward()
print(adjsnn.__file__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("lif", [True, False])
def test_networks_are_solved_where_nothing_can_be_written(read_only, lif):
    known = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    environment = known | {"HOME": os.devnull, "PYTHONPATH": str(read_only.parent)}
    done = subprocess.run(
        [sys.executable, "-c", SOLVES.format(lif=lif)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        cwd=read_only.parent,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(read_only))
    assert sum("KernelCacheWarning" in line for line in done.stderr.splitlines()) == 1
    assert sum("compiling loops" in line for line in done.stderr.splitlines()) == 1


# Packages that take long to load and that a first import need not wait for, beside those that torch loads itself.
LATE = {"numba", "scipy", "torchdiffeq", "matplotlib", "sklearn", "cma", "safetensors", "tyro", "tqdm"}


def test_importing_the_library_waits_for_none_of_its_slow_dependencies():
    code = "import sys, torch; before = set(sys.modules); import adjsnn; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "adjsnn.solve" in loaded
    assert not loaded & LATE
    assert not {name for name in loaded if name.startswith(("torch._dynamo", "torch._inductor"))}
